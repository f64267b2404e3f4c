"""Known instances under the default guide: never worse than written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ventris.bench.structured import StructuredSettings, run_structured
from ventris.bench.structured.cases import read_cases
from ventris.bench.structured.hostile import KEYWORDS as HOSTILE
from ventris.bench.structured.mask import MaskResult, run_mask_case

from ..guide.tiny import tiny_tokenizer
from .ratchet import hold

HERE = Path(__file__).parent
DATA = HERE.parents[1].parent / "shared" / "data"
KEYWORDS = (
    *(keyword for keyword in HOSTILE if keyword not in ("$id", "$dynamicRef", "dependentSchemas")),
    *("additionalItems", "minContains", "maxContains", "maxProperties", "dependencies", "$anchor"),
)


def test_our_own_schemas() -> None:
    cases = read_cases()
    assert len(cases) == 62
    results = [run_mask_case(case, "ventris", tiny_tokenizer(), "spaced") for case in cases]
    assert {result.status for result in results} == {"accepted"}
    hold(HERE / "ratchet-own.json", results)


def test_our_own_schemas_use_every_keyword_and_judge_both_ways() -> None:
    cases = read_cases()
    text = json.dumps([case.json_schema for case in cases])
    assert [keyword for keyword in KEYWORDS if f'"{keyword}":' not in text] == []
    assert sum(test.valid for case in cases for test in case.tests) > 80
    assert sum(not test.valid for case in cases for test in case.tests) > 90


def from_report(protocol: str, data: Path) -> list[MaskResult]:
    if not data.exists():
        pytest.skip(f"the data are not beside the repository (shared/data/{data.relative_to(DATA)})")
    settings = StructuredSettings(protocol=protocol, data=str(data), back_ends=["ventris"])
    return [MaskResult.model_validate(result) for result in run_structured(settings).results]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_development_slice() -> None:
    results = from_report("mask", DATA / "maskbench" / "dev.jsonl.gz")
    accepted = [result for result in results if result.status == "accepted"]
    assert len(accepted) >= 0.99 * len(results)
    assert sum(not result.checked_at_end for result in accepted) >= 0.92 * len(results)
    assert [result.name for result in accepted if result.let_through or result.valid_rejected] == []
    hold(HERE / "ratchet-maskbench.json", results)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_official_suite() -> None:
    hold(HERE / "ratchet-suite.json", from_report("suite", DATA / "json_schema_test_suite"))
