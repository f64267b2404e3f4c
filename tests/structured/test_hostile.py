"""Hostile input by the seed: every one ends in an answer or in one line, in time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ventris.bench.structured import StructuredSettings, run_structured
from ventris.bench.structured.hostile import Hostile, Outcome, hostile_inputs, try_hostile
from ventris.bench.structured.hostile_findings import hostile_findings
from ventris.engine.errors import BadInput
from ventris.guide import JsonSchema

from ..guide.tiny import tiny_tokenizer

COUNT = 10_000
MOST_MEMORY = 1_500_000_000
"""Bytes of the worker and its compiler, which may take half a gigabyte for one input."""


def test_inputs_depend_on_the_seed_alone() -> None:
    first, again, other = (hostile_inputs(40, seed) for seed in (0, 0, 1))
    assert [made.text() for made in first] == [made.text() for made in again]
    assert [made.text() for made in first] != [made.text() for made in other]
    assert {made.kind for made in first} == {"schema", "regex", "grammar"}
    assert len({made.name for made in first}) == 40


def test_some_hostile_inputs_end_well() -> None:
    outcomes = [try_hostile(made, tiny_tokenizer()) for made in hostile_inputs(60, seed=2)]
    assert [outcome for outcome in outcomes if outcome.bad] == []
    assert {"accepted", "refused"} <= {outcome.ending for outcome in outcomes}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"dependentRequired": "date"}, "at /dependentRequired"),
        ({"not": {"maxLength": "x"}}, "at /not/maxLength"),
        ({"$id": 0}, r"at /\$id"),
        ({"additionalProperties": {"type": {"a": 1}, "oneOf": [True, 3]}}, "wrong kind|no schema|not '3'"),
    ],
)
def test_values_of_the_wrong_kind_are_named(schema: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        JsonSchema(schema).bind(tiny_tokenizer())
    assert "\n" not in str(refused.value)


def test_findings_name_what_went_wrong() -> None:
    outcomes = [
        Outcome(
            name="schema 0", kind="schema", ending="refused", detail="the schema is no JSON", seconds=0.1
        ),
        Outcome(name="regex 1", kind="regex", ending="timeout", detail="timeout: more than 1 s"),
    ]
    found = hostile_findings(outcomes, 123_000_000)
    assert found.figures["bad"] == ["regex 1"]
    assert "123 MB" in found.headline
    assert found.tables[-1].rows == [["regex 1", "timeout", "timeout: more than 1 s"]]


def test_a_message_of_several_lines_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, tokenizer: Any) -> Any:
        raise BadInput("two\nlines")

    monkeypatch.setattr(JsonSchema, "bind", refuse)
    schemas = [made for made in hostile_inputs(40, seed=0) if is_schema(made)]
    assert try_hostile(schemas[0], tiny_tokenizer()).ending == "error"


def is_schema(made: Hostile) -> bool:
    try:
        return made.kind == "schema" and isinstance(json.loads(made.text()), dict)
    except ValueError:
        return False


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_ten_thousand_hostile_inputs() -> None:
    report = run_structured(StructuredSettings(protocol="hostile", limit=COUNT, seconds=20.0))
    figures = report.findings.figures
    assert figures["inputs"] == COUNT
    assert figures["bad"] == []
    assert figures["slowest_seconds"] < 20
    assert figures["peak_bytes"] is None or figures["peak_bytes"] < MOST_MEMORY
