"""What the mask protocol calls right and wrong, on guides that are wrong on purpose."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ventris.bench.structured import back_ends
from ventris.bench.structured.back_ends import BackEnd
from ventris.bench.structured.cases import Case
from ventris.bench.structured.mask import RANKS, MaskResult, run_mask_case
from ventris.bench.structured.mask_findings import keyword_of, mask_findings, suite_findings
from ventris.bench.structured.suite import known_cause
from ventris.guide import JsonSchema

from ..guide.tiny import tiny_tokenizer

PAIR: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def run(schema: Any, *tests: tuple[Any, bool], back_end: str = "ventris") -> MaskResult:
    described = [
        {"data": data, "valid": valid, "description": f"number {i}"} for i, (data, valid) in enumerate(tests)
    ]
    case = Case.model_validate({"name": "x", "schema": schema, "tests": described})
    return run_mask_case(case, back_end, tiny_tokenizer(), "spaced")


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> str:
    """A back end that takes every schema for one of any value, and checks nothing."""
    wide = BackEnd("wide", lambda schema, whitespace: JsonSchema(True, whitespace=whitespace), "")
    monkeypatch.setattr(back_ends, "KNOWN", (*back_ends.KNOWN, wide))
    return "wide"


def test_right_verdicts() -> None:
    result = run(PAIR, ({"a": 1, "b": 2}, True), ({"a": 1}, False), ({"a": "1", "b": 2}, False))
    assert (result.status, result.valid, result.invalid) == ("accepted", 1, 2)
    assert [result.valid_rejected, result.other_order, result.let_through, result.cut_short] == [[]] * 4
    assert RANKS[result.rank] == "enforced"
    assert 0 < result.compile_seconds < result.first_mask_seconds
    assert len(result.mask_seconds) > 3


def test_another_order_of_properties_is_no_rejection() -> None:
    result = run(PAIR, ({"b": 2, "a": 1}, True))
    assert len(result.other_order) == 1
    assert result.valid_rejected == []


def test_a_wrong_rejection_is_one(lenient: str) -> None:
    result = run({"type": "integer"}, ("text", True))
    assert result.valid_rejected == ["number 0: '\"'"]
    assert RANKS[result.rank] == "wrong"


def test_what_is_let_through_is_wrong(lenient: str) -> None:
    result = run({"type": "integer"}, ("text", False), back_end=lenient)
    assert len(result.let_through) == 1
    assert RANKS[result.rank] == "wrong"


def test_the_end_is_asked_about() -> None:
    # No token of "12" is masked by a rule that wants three digits; only the end is.
    result = run({"type": "integer", "minimum": 100, "maximum": 150}, (12, False))
    assert len(result.cut_short) == 1
    assert result.let_through == []


def test_the_check_at_the_end_tells_what_no_mask_can() -> None:
    # Nothing but the broken end can follow, so it does.
    schema = {"enum": ["ab", "red"], "uniqueItems": True, "not": {"pattern": "b|d"}}
    result = run(schema, ("ab", False))
    assert len(result.caught_at_end) == 1
    assert result.let_through == []
    assert "not" in result.checked_at_end
    assert RANKS[result.rank] == "checked at end"


def test_an_end_that_breaks_a_rule_is_refused_where_the_text_can_go_on() -> None:
    result = run({"type": "array", "uniqueItems": True}, ([1, 1], False), ([1, 2], True))
    assert (result.let_through, result.caught_at_end, result.valid_rejected) == ([], [], [])
    assert result.checked_at_end == ["uniqueItems"]
    assert RANKS[result.rank] == "checked at end"


def test_bare_llguidance_refuses_what_it_does_not_know() -> None:
    result = run({"not": {"type": "integer"}}, (1, False), back_end="llguidance")
    assert result.status == "refused"
    assert "not" in keyword_of(result.reason)
    assert RANKS[result.rank] == "refused"


def test_findings_count_and_name(lenient: str) -> None:
    results = [
        run(PAIR, ({"b": 2, "a": 1}, True)),
        run({"type": "integer"}, ("text", False), back_end=lenient),
        MaskResult(name="y", back_end="wide", status="timeout", reason="timeout: more than 1 s"),
    ]
    found = mask_findings(results)
    assert found.figures["ventris"]["declared_coverage"] == 1.0
    assert found.figures["ventris"]["other_order"] == 1
    assert found.figures["wide"]["let_through"] == 1
    assert found.figures["wide"]["stopped"] == ["y"]
    named = {
        row[1]: row[2] for table in found.tables if table.title == "Wrong, by name" for row in table.rows
    }
    assert named == {"x": "let through", "y": "timeout"}
    by_draft = suite_findings([result.model_copy(update={"name": "draft7/a.json: b"}) for result in results])
    assert by_draft.tables[0].rows[0][:3] == ["draft7", "1", "1"]


def test_refusals_of_one_kind_are_counted_together() -> None:
    first = keyword_of("guide 'json-schema': $ref 'http://a.example/x' is remote")
    assert first == keyword_of("guide 'json-schema': $ref 'http://b.example/y' is remote")


def test_causes_are_known_by_file_and_instance() -> None:
    assert "formats are asserted" in known_cause(
        "draft7/format.json: email format",
        "valid_rejected",
        "invalid email string is only an annotation: 'x'",
    )
    assert known_cause("draft7/format.json: email format", "let_through", "x") == ""
    assert known_cause("draft7/items.json: a", "valid_rejected", "x") == ""


def test_results_are_json() -> None:
    result = run(PAIR, ({"a": 1, "b": 2}, True))
    assert MaskResult.model_validate(json.loads(result.model_dump_json())) == result
