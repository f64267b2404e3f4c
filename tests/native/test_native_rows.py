"""The compiled search for the best tokens of a row against the engine's own."""

from __future__ import annotations

import numpy as np
import pytest

import ventris.models.native.rows as rows_module
from ventris.engine import sampling
from ventris.engine.sampling import Row
from ventris.models.native import NativeUnavailable
from ventris.models.native.rows import most_probable

HOLES = np.random.default_rng(3).standard_normal(1000, dtype=np.float32)
HOLES[::3] = -np.inf

ROWS = [
    np.random.default_rng(0).standard_normal(49_152, dtype=np.float32) * 5,
    np.random.default_rng(1).standard_normal(1, dtype=np.float32),
    np.random.default_rng(2).standard_normal(203, dtype=np.float32) * 40,
    np.zeros(130, dtype=np.float32),
    HOLES,
    np.random.default_rng(4).standard_normal(400, dtype=np.float32)[::2],
]


@pytest.fixture(params=["native", "fallback"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "fallback":

        def unavailable() -> None:
            raise NativeUnavailable("not here")

        monkeypatch.setattr(rows_module, "load_library", unavailable)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("count", [1, 5, 64, 600])
@pytest.mark.parametrize("row", ROWS, ids=len)
def test_the_best_tokens_are_the_engine_s(row: Row, count: int) -> None:
    expected, found = sampling.most_probable(row, count), most_probable(row, count)
    assert [token for token, _ in found] == [token for token, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], abs=2e-6)
