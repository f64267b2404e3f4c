"""The model for lm-evaluation-harness, beside the harness's own for transformers on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm_eval is not installed; pip install 'ventris[lm-eval]'")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from ventris.engine.errors import BadInput
from ventris.integrations.lm_eval import VentrisLM
from ventris.model import Model

PAIRS = [
    ("the question is", " yes"),
    ("the question is", " no, it is not"),
    ("ends with blanks  ", "word"),
    ("", "nothing before this"),
    ("x" * 40, "y"),
]
TEXTS = ["a text", "a longer text " * 6]


@pytest.fixture(scope="module")
def ours(model: Model) -> VentrisLM:
    return VentrisLM(loaded=model, batch_size=3)


def transformers_model(folder: Path, **settings: Any) -> Any:
    """The harness's own model on the same weights."""
    pytest.importorskip(
        "accelerate", reason="the harness's own model needs accelerate; pip install 'lm_eval[hf]'"
    )
    return get_model("hf")(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, **settings)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return transformers_model(folder)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


def test_it_is_known_by_its_name() -> None:
    assert get_model("ventris") is VentrisLM


def test_continuations_score_as_in_transformers(ours: VentrisLM, theirs: Any) -> None:
    asked = instances("loglikelihood", list(PAIRS))
    found, expected = ours.loglikelihood(asked), theirs.loglikelihood(asked)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in found] == [bool(greedy) for _, greedy in expected]


def test_a_greedy_continuation_is_called_greedy(ours: VentrisLM, model: Model) -> None:
    text = model.generate("hello", raw=True, max_new_tokens=4).text
    ((_, greedy), (_, other)) = ours.loglikelihood(
        instances(
            "loglikelihood", [("hello", text), ("hello", text[:-1] + ("a" if text[-1] != "a" else "b"))]
        )
    )
    assert greedy
    assert not other


@pytest.mark.parametrize("window", [2048, 16])
def test_whole_texts_score_as_in_transformers(model: Model, folder: Path, window: int) -> None:
    asked = instances("loglikelihood_rolling", [(text,) for text in TEXTS])
    found = VentrisLM(loaded=model, max_length=window).loglikelihood_rolling(asked)
    theirs = transformers_model(folder, max_length=window)
    assert found == pytest.approx(theirs.loglikelihood_rolling(asked), abs=1e-2)


def test_answers_are_those_of_transformers(ours: VentrisLM, theirs: Any) -> None:
    given = {"until": ["\n", "zz"], "max_gen_toks": 12, "do_sample": False}
    asked = instances("generate_until", [(text, dict(given)) for text in ("hello", "other", "x" * 30)])
    assert ours.generate_until(asked) == theirs.generate_until(asked)


def test_drafts_and_batches_change_no_answer(ours: VentrisLM, model: Model) -> None:
    contexts = [("ab " * n, {"until": ["!"], "max_gen_toks": 5 + n}) for n in range(1, 8)]
    drafted = VentrisLM(loaded=model, draft="ngram", policy="fixed", batch_size="auto")
    asked = instances("generate_until", contexts)
    assert drafted.generate_until(asked) == ours.generate_until(asked)


def test_chat_templates_are_the_models_own(ours: VentrisLM, model: Model) -> None:
    said = [{"role": "user", "content": "hello"}]
    assert ours.apply_chat_template(said) == model.tokenizer.chat_text(said)
    assert ours.tok_encode(ours.apply_chat_template(said)) == model.tokenizer.chat(said)
    with pytest.raises(BadInput, match="gen_prefix"):
        ours.apply_chat_template(said, add_generation_prompt=False)


def test_a_continuation_longer_than_the_window_is_refused(model: Model) -> None:
    small = VentrisLM(loaded=model, max_length=8)
    with pytest.raises(BadInput, match="max_length"):
        small.loglikelihood(instances("loglikelihood", [("hello", "x" * 9)]))


TASK = """
task: of_this_test
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
metric_list: [{{metric: {metric}}}]
"""


@pytest.mark.parametrize(
    ("kind", "metric", "more"),
    [
        ("multiple_choice", "acc", 'doc_to_choice: [" yes", " no"]'),
        ("generate_until", "exact_match", 'generation_kwargs: {until: ["!"], max_gen_toks: 5}'),
    ],
)
def test_the_harness_runs_a_task(
    ours: VentrisLM,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    metric: str,
    more: str,
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import lm_eval
    from lm_eval.tasks import TaskManager

    data = tmp_path / "data.jsonl"
    rows = [{"question": f"is {n} even?", "answer": n % 2} for n in range(4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "task.yaml").write_text(TASK.format(data=data, kind=kind, metric=metric, more=more))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=ours, tasks=["of_this_test"], task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    assert 0.0 <= found["results"]["of_this_test"][f"{metric},none"] <= 1.0
    assert len(found["samples"]["of_this_test"]) == 4
