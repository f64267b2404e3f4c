"""The measured cost of a pass: which node counts, and when a stored curve is good enough."""

from __future__ import annotations

import pytest

from ventris.cost.curve import SIZES
from ventris.cost.measured import measured_curve
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
