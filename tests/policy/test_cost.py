"""The measured cost of a pass: which node counts, and when a stored curve is good enough."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ventris.cost import CostCurve, measure
from ventris.cost.curve import CONTEXT, SIZES
from ventris.cost.measured import _path, measured_curve
from ventris.engine.errors import BadInput
from ventris.testing.toy import ToyTarget


def test_the_count_behind_a_block_of_rows_is_measured() -> None:
    """A kernel that works on eight rows at once takes much longer for nine; 12 alone does not show it."""
    assert {8, 9, 16, 17, 32, 33} <= set(SIZES)


def test_a_stored_curve_of_other_sizes_is_measured_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path))
    target = ToyTarget()
    assert list(measured_curve(target, "key", sizes=(1, 2)).sizes) == [1, 2]
    finer = measured_curve(target, "key", sizes=(1, 2, 3))
    assert list(finer.sizes) == [1, 2, 3]
    assert measured_curve(target, "key", sizes=(1, 2, 3)) == finer


@pytest.mark.parametrize(
    ("sizes", "seconds", "message"),
    [
        ((1,), (1.0,), "two node counts"),
        ((1, 2), (1.0,), "two node counts"),
        ((2, 1), (1.0, 2.0), "ascend"),
        ((1, 2), (0.0, 1.0), "above 0"),
        ((1, 2), (1.0, float("nan")), "above 0"),
        ((1, 2), (2.0, 1.0), "never fall"),
    ],
)
def test_what_is_no_curve_is_refused(sizes, seconds, message) -> None:
    with pytest.raises(BadInput, match=message):
        CostCurve(sizes, seconds)


@pytest.mark.parametrize("context_length", [4, 5, 129, 130, 131, 140])
def test_a_short_context_still_gives_a_curve(context_length: int) -> None:
    """Behind 128 tokens a context of 130 holds one node, and one does not make a curve."""
    curve = measure(ToyTarget(context_length=context_length), repeats=1)
    assert 0 < curve(1) <= curve(8)


def test_a_context_too_short_for_any_pass_is_refused() -> None:
    with pytest.raises(BadInput, match="too short to draft in"):
        measure(ToyTarget(context_length=3), repeats=1)


def test_a_stored_curve_that_is_damaged_is_measured_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path))
    target = ToyTarget()
    measured_curve(target, "key", sizes=(1, 2))
    (stored,) = (tmp_path / "curves").iterdir()
    for damage in (
        "",
        "[]",
        '{"sizes": [1, 2], "seconds": [1.0]}',
        '{"sizes": [1, 2], "seconds": [NaN, 1.0]}',
    ):
        stored.write_text(damage)
        assert measured_curve(target, "key", sizes=(1, 2))(2) < 1.0


def test_a_clock_that_does_not_move_gives_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ventris.cost.curve.perf_counter", lambda: 1.0)
    assert measure(ToyTarget(), (1, 2), repeats=1)(2) > 0


def test_other_kernels_have_curves_of_their_own(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path))
    target = ToyTarget()
    paths = set()
    for build in ("one", "another"):
        target.build = build
        paths.add(_path(target, "key", CONTEXT))
    assert len(paths) == 2


def test_a_gpu_has_curves_of_its_own(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path))
    target = ToyTarget()
    measured_curve(target, "key", sizes=(1, 2))
    target.device = SimpleNamespace(type="cuda")
    assert _path(target, "key", CONTEXT) not in (tmp_path / "curves").iterdir()
