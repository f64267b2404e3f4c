"""The ratchet itself: it fails on what got worse, and on exceptions that are none any more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ventris.bench.structured.mask import MaskResult

from .ratchet import hold


def result(name: str, **fields: object) -> MaskResult:
    known = {"back_end": "ventris", "status": "accepted", "name": name}
    return MaskResult.model_validate({**known, **fields})


ENFORCED = result("a")
CHECKED = result("a", checked_at_end=["contains"])
REFUSED = result("a", status="refused")
WRONG = result("a", let_through=["x"])


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("VENTRIS_UPDATE_RATCHET", raising=False)
    path = tmp_path / "ratchet.json"
    path.write_text(json.dumps({"below": {"a": "checked at end"}, "exceptions": {"b": "a reason"}}))
    return path


@pytest.mark.parametrize("better", [ENFORCED, CHECKED])
def test_what_is_as_good_or_better_holds(file: Path, better: MaskResult) -> None:
    hold(file, [better, result("b", valid_rejected=["x"])])


@pytest.mark.parametrize(
    "worse", [REFUSED, WRONG, result("a", status="crash"), result("c", status="refused")]
)
def test_what_got_worse_fails(file: Path, worse: MaskResult) -> None:
    with pytest.raises(AssertionError):
        hold(file, [worse])


def test_an_exception_that_is_none_any_more_fails(file: Path) -> None:
    with pytest.raises(AssertionError, match="no exception any more"):
        hold(file, [result("b")])


def test_an_update_writes_what_is_below_and_keeps_the_causes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENTRIS_UPDATE_RATCHET", "1")
    hold(file, [result("a", status="refused"), result("c")])
    assert json.loads(file.read_text()) == {"below": {"a": "refused"}, "exceptions": {"b": "a reason"}}
