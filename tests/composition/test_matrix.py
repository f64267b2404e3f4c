"""The compatibility matrix is what the tests find, and only grows."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from . import guided
from .matrix import cells, outcome, render

RATCHET = Path(__file__).with_name("ratchet.json")
PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


@cache
def forms() -> dict[tuple[str, str, str], str]:
    return {cell: guided.outcome(*cell) for cell in guided.cells()}


def rank(result: str) -> int:
    """Refused, runs, same ids: in order of worth."""
    return {"runs": 1, "same ids": 2}.get(result, 0)


def test_the_matrix_only_grows_and_the_page_tells_it() -> None:
    results = {cell.key: outcome(cell) for cell in cells()}
    if os.environ.get("VENTRIS_UPDATE_MATRIX"):
        RATCHET.write_text(json.dumps({key: rank(r) for key, r in results.items()}, indent=0) + "\n")
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(render(results) + "\n" + guided.render(forms()))
    known = json.loads(RATCHET.read_text())
    worse = [key for key, before in known.items() if key not in results or rank(results[key]) < before]
    assert not worse, f"{len(worse)} combinations got worse or vanished, such as {worse[:3]}"
    assert PAGE.read_text().startswith(render(results)), (
        "docs/compatibility.md is stale; run VENTRIS_UPDATE_MATRIX=1 pytest tests/composition"
    )


def test_most_of_the_matrix_works() -> None:
    known = json.loads(RATCHET.read_text())
    assert sum(value > 0 for value in known.values()) > 0.7 * len(known)


def test_every_drafter_keeps_the_ids_under_every_form() -> None:
    assert guided.render(forms()) in PAGE.read_text()


def test_every_drafter_drafts_under_the_forms() -> None:
    for draft in guided.DRAFTERS:
        drafted = sum(
            completion.stats.drafted
            for form in guided.FORMS
            for completion in guided.decode(form, "temperature 0", draft, guided.PROMPTS)
        )
        assert (drafted == 0) == (draft == "none"), draft
