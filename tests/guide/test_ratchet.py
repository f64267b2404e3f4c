"""MaskBench's protocol on schemas of our own, and on the development slice where it is: never worse.

``VENTRIS_UPDATE_RATCHET=1`` writes down what is found.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ventris.guide.maskbench import read_cases, run_all, run_case, summary

from .tiny import tiny_tokenizer

HERE = Path(__file__).parent
RATCHET = HERE / "ratchet.json"
SLICE = HERE.parents[1].parent / "shared" / "data" / "maskbench" / "dev.jsonl.gz"
RANKS = ("wrong", "refused", "checked at end", "enforced")
"""From worst to best; wrong is a valid instance rejected or an invalid one let through."""


def rank(result: dict[str, Any]) -> str:
    if result["status"] != "accepted":
        return "refused"
    if result["valid_rejected"] or result["invalid_passed"]:
        return "wrong"
    return "checked at end" if result["checked_at_end"] else "enforced"


def hold(section: str, found: dict[str, str]) -> None:
    """Compare with the ratchet file, which names what is less than enforced, or renew it."""
    known = json.loads(RATCHET.read_text()) if RATCHET.exists() else {}
    if os.environ.get("VENTRIS_UPDATE_RATCHET"):
        known[section] = {name: reached for name, reached in found.items() if reached != RANKS[-1]}
        RATCHET.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
    worse = {
        name: reached
        for name, reached in found.items()
        if RANKS.index(reached) < RANKS.index(known[section].get(name, RANKS[-1]))
    }
    assert not worse


def test_our_own_schemas() -> None:
    results = [run_case(case, tiny_tokenizer()) for case in read_cases(HERE / "cases.jsonl")]
    found = {result["name"]: rank(result) for result in results}
    assert "wrong" not in found.values(), [r for r in results if rank(r) == "wrong"]
    assert len(found) == 30
    hold("own", found)


@pytest.mark.long
def test_the_development_slice() -> None:
    if not SLICE.exists():
        pytest.skip("the slice of MaskBench is not beside the repository (shared/data/maskbench)")
    results = list(run_all(read_cases(SLICE), "smollm2-135m-instruct", "spaced", 60.0))
    facts = summary(results)
    assert facts["invalid_passed"] == {}
    assert facts["stopped"] == []
    assert facts["declared_coverage"] >= 0.99
    assert facts["enforced_by_construction"] >= 0.92
    hold("maskbench", {result["name"]: rank(result) for result in results})
