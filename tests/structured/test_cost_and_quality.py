"""Cost as ratios of methods that take turns, and accuracy with and without a guide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ventris.bench.structured.cost import Unpruned, measure_cost
from ventris.bench.structured.cost_findings import cost_findings
from ventris.bench.structured.cost_methods import (
    FORCED,
    GUIDED,
    NGRAM,
    UNGUIDED,
    Method,
    Timed,
    cost_methods,
    drafts_for,
    unpruned,
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
from ventris.draft import checkpoint
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
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
    speeds = {UNGUIDED: 1.0, GUIDED: 1.02, FORCED: 0.68, NGRAM: 0.51, "hydra": 0.6, "ngram,hydra": 0.34}
    methods = cost_methods([NGRAM, "hydra", "ngram,hydra"])
    runs = [
        timed(method.name, schema, repeat, load * speeds.get(method.name, 1.0))
        for method in methods
        for schema, load in (("a", 0.01), ("b", 0.02), ("c", 0.5))
        for repeat in range(2)
    ]
    findings = cost_findings(runs, methods, seed=0)
    found = findings.figures
    assert found["step"]["value"] == pytest.approx(1.02)
    assert found["forced"]["value"] == pytest.approx(0.68 / 1.02)
    assert found["ngram"]["value"] == pytest.approx(2.0)
    assert found["step"]["low"] == pytest.approx(1.02)
    assert found["trained"]["value"] == pytest.approx(3.0)
    assert "ngram,hydra by guided" in found["trained"]["title"]
    assert [row[0] for row in findings.tables[1].rows] == [NGRAM, "hydra", "ngram,hydra"]


def test_the_share_of_forced_text_is_told_where_it_was_measured() -> None:
    runs = [
        timed(FORCED, name, 0, 1.0).model_copy(update={"steps": n})
        for name, n in zip("abc", (50, 44, 10), strict=True)
    ]
    [ratios, *_] = cost_findings(runs, [Method(FORCED, forced=True)], 0).tables
    assert "Forced text was 12% of the tokens of the median schema." in ratios.note
    [ratios, *_] = cost_findings([timed(GUIDED, "a", 0, 1.0)], [Method(GUIDED)], 0).tables
    assert "Forced text" not in ratios.note


def test_acceptance_is_shown_with_and_without_pruning() -> None:
    methods = cost_methods([NGRAM])
    runs = [timed(method.name, "a", repeat, 0.01) for method in methods for repeat in range(3)]
    for run in runs:
        if run.method == unpruned(NGRAM):
            run.drafted = 40
    findings = cost_findings(runs, methods, seed=0)
    assert findings.figures["drafters"][NGRAM]["drafted_unpruned"] == 120
    assert findings.tables[1].rows[0][3:] == ["60", "50.0 %", "120", "25.0 %"]
    assert findings.figures["trained"]["value"] is None


def test_trained_drafters_are_those_with_a_checkpoint_for_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    model = tiny_chat_model()
    write_medusa(tmp_path / "medusa-tiny", model.target)
    found, missing = drafts_for(model.workshop)
    assert found == ["ngram", "medusa", "ngram,medusa"]
    assert "no hydra checkpoint" in missing["hydra"]
    assert "model" not in missing
    assert drafts_for(model.workshop, ["medusa:nodes=8"]) == (["medusa:nodes=8"], {})
    with pytest.raises(BadInput, match="no eagle checkpoint"):
        drafts_for(model.workshop, ["ngram", "eagle"])


def write_medusa(folder: Path, target: Target) -> None:
    """A checkpoint of heads that nobody trained."""
    network = MedusaHeads(heads=2, hidden=target.hidden_size, shortlist=target.vocab_size, rows="stored")
    network.vocabulary.ids.copy_(torch.arange(target.vocab_size))
    measured = {"accuracies": [[0.5, 0.2], [0.4, 0.2]]}
    HeadCheckpoint("medusa", TargetSketch.of(target), network.sizes, measured, network.state_dict()).save(
        folder
    )


def test_every_method_decodes_the_same_document_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    model = tiny_chat_model()
    write_medusa(tmp_path / "medusa-tiny", model.target)
    methods = cost_methods([NGRAM, "medusa", "ngram,medusa"])
    small = {"max_new_tokens": 60, "max_prompt_tokens": 4000, "repeats": 1, "threads": 1}
    settings = StructuredSettings.model_validate({"protocol": "cost", **small})
    findings, runs = measure_cost(settings, 4, silent, model)
    by_schema: dict[str, dict[str, int]] = {}
    for run in runs:
        by_schema.setdefault(run["schema_name"], {})[run["method"]] = run["tokens"]
    assert by_schema
    for tokens in by_schema.values():
        assert set(tokens) == {method.name for method in methods}
        assert len(set(tokens.values())) == 1
    assert [row[0] for row in findings.tables[2].rows] == [method.name for method in methods]
    assert any("no row for hydra: no hydra checkpoint" in warning for warning in findings.warnings)
    plain = [run for run in runs if run["method"] in (UNGUIDED, GUIDED)]
    assert all(run["drafted"] == 0 for run in plain)
    assert any(run["drafted"] > 0 for run in runs if run["method"] == unpruned("medusa"))
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
    assert [method.name for method in cost_methods([NGRAM]) if not method.pruned] == [unpruned(NGRAM)]


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
