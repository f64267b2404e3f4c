"""Row helpers against torch."""

from __future__ import annotations

import pytest
import torch

import ventris.models.native.rows as rows_module
from ventris.models.native import NativeUnavailable, argmax, top_k

ROWS = [
    torch.randn(49_152, generator=torch.Generator().manual_seed(0)) * 5,
    torch.randn(1, generator=torch.Generator().manual_seed(1)),
    torch.randn(203, generator=torch.Generator().manual_seed(2)) * 40,
    torch.zeros(130),
    torch.randn(1000, generator=torch.Generator().manual_seed(3)).masked_fill(
        torch.arange(1000) % 3 == 0, -torch.inf
    ),
]


@pytest.fixture(params=["native", "fallback"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "fallback":

        def unavailable() -> None:
            raise NativeUnavailable("not here")

        monkeypatch.setattr(rows_module, "load_library", unavailable)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("row", ROWS, ids=len)
def test_argmax_finds_the_first_largest(row: torch.Tensor) -> None:
    assert argmax(row) == int((row == row.max()).nonzero()[0])


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("k", [1, 5, 64, 900])
@pytest.mark.parametrize("row", ROWS, ids=len)
def test_top_k_agrees_with_torch(row: torch.Tensor, k: int) -> None:
    values, indices, total = top_k(row, k)
    order = torch.argsort(row, descending=True, stable=True)[: min(k, len(row))]
    assert torch.equal(indices, order)
    assert torch.equal(values, row[order])
    assert total == pytest.approx(float(torch.logsumexp(row.double(), 0)), rel=1e-6, abs=1e-6)
