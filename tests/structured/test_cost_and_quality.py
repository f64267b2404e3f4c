"""Cost as ratios of methods that take turns, and accuracy with and without a guide."""

from __future__ import annotations

import pytest

from ventris.bench.structured.cost import (
    FORCED,
    GUIDED,
    METHODS,
    NGRAM,
    UNGUIDED,
    UNPRUNED,
    Timed,
    Unpruned,
    cost_findings,
    measure_cost,
)
from ventris.bench.structured.quality import (
    GUIDED as WITH_GUIDE,
)
from ventris.bench.structured.quality import METHODS as WAYS
from ventris.bench.structured.quality import (
    PLAIN,
    TASKS,
    Answer,
    measure_quality,
    quality_findings,
    read_items,
)
from ventris.bench.structured.settings import StructuredSettings
from ventris.engine.errors import BadInput
from ventris.engine.tree import TokenTree
from ventris.guide import Choice

from ..guide.tiny import PROMPT, decode, tiny_tokenizer
from .tiny_model import tiny_chat_model


def silent(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def timed(method: str, schema: str, repeat: int, seconds: float) -> Timed:
    return Timed(
        schema_name=schema,
        method=method,
        repeat=repeat,
        tokens=50,
        steps=25,
        step_seconds=seconds,
        token_seconds=seconds,
        guide_seconds=0.0001,
        drafted=20,
        accepted=10,
    )


def test_ratios_compare_the_same_schema_in_the_same_repeat() -> None:
    speeds = {UNGUIDED: 1.0, GUIDED: 1.02, FORCED: 0.68, NGRAM: 0.51}
    runs = [
        timed(method.name, schema, repeat, load * speeds.get(method.name, 1.0))
        for method in METHODS
        for schema, load in (("a", 0.01), ("b", 0.02), ("c", 0.5))
        for repeat in range(2)
    ]
    found = cost_findings(runs, seed=0).figures
    assert found["step"]["value"] == pytest.approx(1.02)
    assert found["forced"]["value"] == pytest.approx(0.68 / 1.02)
    assert found["ngram"]["value"] == pytest.approx(2.0)
    assert found["step"]["low"] == pytest.approx(1.02)


def test_every_method_decodes_the_same_document_in_turn() -> None:
    small = {"max_new_tokens": 60, "max_prompt_tokens": 4000, "repeats": 1, "threads": 1}
    settings = StructuredSettings.model_validate({"protocol": "cost", **small})
    findings, runs = measure_cost(settings, 4, silent, tiny_chat_model())
    by_schema: dict[str, dict[str, int]] = {}
    for run in runs:
        by_schema.setdefault(run["schema_name"], {})[run["method"]] = run["tokens"]
    assert by_schema
    for tokens in by_schema.values():
        assert set(tokens) == {method.name for method in METHODS}
        assert len(set(tokens.values())) == 1
    assert {row[0] for row in findings.tables[1].rows} == {method.name for method in METHODS}
    plain = [run for run in runs if run["method"] in (UNGUIDED, GUIDED)]
    assert all(run["drafted"] == 0 for run in plain)
    steps = {way: sum(run["steps"] for run in runs if run["method"] == way) for way in (GUIDED, FORCED)}
    assert steps[FORCED] < steps[GUIDED]


def test_nothing_to_time_is_said() -> None:
    settings = StructuredSettings(protocol="cost", max_new_tokens=4, max_prompt_tokens=4000, threads=1)
    with pytest.raises(BadInput, match="long enough"):
        measure_cost(settings, 4, silent, tiny_chat_model())


def test_a_guide_without_pruning_changes_no_token_and_keeps_every_draft() -> None:
    guide = Choice(["abab true", "abab name"]).bind(tiny_tokenizer())
    plain, bare = decode([guide])[0], decode([Unpruned(guide)])[0]
    assert plain.tokens == bare.tokens
    request = type("View", (), {"end_ids": frozenset({2})})()
    tree = TokenTree.chain([PROMPT[-1], 5, 6], "draft")
    assert guide.start(request).prune(tree) == [0]
    assert not hasattr(Unpruned(guide).start(request), "prune")
    assert UNPRUNED in {method.name for method in METHODS if not method.pruned}


def test_the_tasks_are_whole_and_their_examples_are_not_asked() -> None:
    for task in TASKS:
        items = read_items(task.name)
        assert len(items) == 40
        assert len({item["text"] for item in items}) == 40
        assert not {item["text"] for item in items} & {example["text"] for example in task.examples}
        for item in items:
            written = task.write(item["answer"])
            assert task.read(written) == item["answer"]
            assert task.find(f"Well, {written}, I think.") == item["answer"]
            assert task.read(f"Well, {written}") is None
    words = [item["answer"] for item in read_items("sentiment")]
    assert words.count("positive") == words.count("negative") == 20


def test_quality_runs_and_forced_text_changes_nothing() -> None:
    settings = StructuredSettings(protocol="quality", limit=2, threads=1)
    findings, answers = measure_quality(settings, silent, tiny_chat_model())
    assert len(answers) == 3 * 3 * 2
    texts = {(a["task"], a["item"], a["method"]): a["text"] for a in answers}
    assert texts["sentiment", 0, WITH_GUIDE] in ("positive", "negative")
    assert all(row[-1] == "0" for row in findings.tables[0].rows)


def test_accuracy_is_counted_by_form_and_by_what_can_be_found() -> None:
    answers = [
        Answer(task="t", item=i, method=way, text="x", right=way != PLAIN and i > 0, found_right=i > 1)
        for i in range(4)
        for way in WAYS
    ]
    assert quality_findings(answers, 0).figures["t"] == {
        "no_guide": 0.0,
        "no_guide_answer_found": 0.5,
        "guide": 0.75,
        "guide_forced_text": 0.75,
    }
