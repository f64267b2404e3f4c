"""The end-to-end protocol: prompts, verdicts on documents, and the figures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ventris.bench.structured.back_ends import LM_ONLY
from ventris.bench.structured.cases import Case
from ventris.bench.structured.end_to_end import (
    SYSTEM,
    Document,
    Task,
    examples_of,
    messages_for,
    plan,
    write_document,
)
from ventris.bench.structured.end_to_end_findings import document_findings
from ventris.model import Model

from .tiny_model import tiny_chat_model

PAIR: dict[str, Any] = {
    "type": "object",
    "properties": {"red": {"type": "boolean"}, "name": {"enum": ["ab", "b"]}},
    "required": ["red", "name"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_chat_model()


def case(name: str, schema: Any, *valid: Any) -> Case:
    tests = [{"data": data, "valid": True} for data in valid]
    return Case.model_validate({"name": name, "schema": schema, "tests": tests})


CASES = [case(f"Easy---{i}", {**PAIR, "title": "x" * i}, {"red": True, "name": "ab"}) for i in range(6)]


def test_prompts_show_examples_of_the_source_and_then_the_schema() -> None:
    shown = examples_of(CASES)["Easy"]
    assert [one.name for one in shown] == ["Easy---2", "Easy---3"]
    said = messages_for(CASES[0], shown, "compact")
    assert [message["role"] for message in said] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert said[0]["content"] == SYSTEM
    assert said[2]["content"] == '{"red":true,"name":"ab"}'
    assert json.loads(said[-1]["content"]) == CASES[0].json_schema


def test_the_plan_asks_every_row_about_the_same_schemas_and_no_example(model: Model) -> None:
    assert model.tokenizer is not None
    long = case("Easy---long", {"description": "words " * 2000})
    asked = plan([*CASES, long], ["a", "b"], model.tokenizer, 3, 0, "compact", 1500)
    names = [[task.case.name for task in asked.tasks if task.back_end == row] for row in ("a", "b")]
    assert names[0] == names[1]
    assert len(names[0]) == asked.schemas == 3
    assert not {"Easy---2", "Easy---3", "Easy---long"} & set(names[0])
    assert asked.too_long == 1
    assert [task.back_end for task in asked.tasks] == ["a", "b", "b", "a", "a", "b"]


def test_a_guided_document_is_valid_and_timed(model: Model) -> None:
    task = Task(CASES[0], ({"role": "user", "content": "{}"},), "ventris")
    document = write_document(model, task, "compact", 60)
    assert (document.status, document.finished, document.valid, document.said_valid) == (
        "accepted",
        True,
        True,
        True,
    )
    assert json.loads(document.text)["name"] in ("ab", "b")
    assert 0 < document.compile_seconds < document.first_token_seconds
    assert not document.disagree


def test_an_unfinished_document_is_never_valid(model: Model) -> None:
    document = write_document(
        model, Task(CASES[0], ({"role": "user", "content": "{}"},), "ventris"), "compact", 3
    )
    assert (document.status, document.finished, document.valid) == ("accepted", False, False)
    assert document.said_valid is False


def test_what_is_refused_says_why_and_the_model_alone_writes_something(model: Model) -> None:
    remote = case("Easy---r", {"$ref": "http://192.0.2.1/x"})
    refused = write_document(
        model, Task(remote, ({"role": "user", "content": "{}"},), "ventris"), "compact", 30
    )
    assert refused.status == "refused"
    assert "remote" in refused.reason
    alone = write_document(
        model, Task(CASES[0], ({"role": "user", "content": "{}"},), LM_ONLY), "compact", 30
    )
    assert (alone.status, alone.valid, alone.said_valid) == ("accepted", False, None)


def made(row: str, name: str, **fields: Any) -> Document:
    known = {"finished": True, "parses": True, "reference": True, "second": True, "token_seconds": 0.01}
    return Document.model_validate({"name": name, "source": "s", "back_end": row, **known, **fields})


def test_figures_count_only_finished_and_valid_documents() -> None:
    documents = [
        made("ventris", "a"),
        made("ventris", "b", finished=False),
        made("ventris", "c", status="refused", finished=False, parses=False, reason="no"),
        made("ventris", "d", second=False, reason="too short", said_valid=True),
        made(LM_ONLY, "a"),
        made(LM_ONLY, "b", parses=False, reference=None, second=None, unfenced=True),
        made(LM_ONLY, "c", finished=False),
        made(LM_ONLY, "d", reference=False, second=False),
    ]
    found = document_findings(documents, [LM_ONLY, "ventris"], 256, too_long=2, seed=0)
    ours = found.figures["ventris"]
    assert ours["declared_coverage"] == 0.75
    assert ours["empirical_coverage"] == 0.25
    assert ours["finished_invalid"] == ["d"]
    assert ours["finished_called_valid_wrongly"] == ["d"]
    assert found.figures[LM_ONLY]["empirical_coverage"] == 0.25
    assert found.figures[LM_ONLY]["fenced"] == 1
    assert found.figures["finished_by_all"] == 2
    tables = {table.title: table for table in found.tables}
    assert tables["Validators that disagree"].rows[0][:4] == ["ventris", "d", "True", "False"]
    assert tables["Finished, but not valid"].rows[0][2] == "that it is valid"
    assert "2 schemas were left out" in found.warnings[0]


def test_a_document_without_any_verdict_is_not_valid() -> None:
    assert not made("ventris", "a", reference=None, second=None).valid
