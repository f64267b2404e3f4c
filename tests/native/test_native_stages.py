"""Products in a row: the native library against plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ventris.models.native.stages import NativeStages, PackedWeights
from ventris.models.stage import InputNorm, Stage
from ventris.models.stages import TorchStages

CPU = torch.device("cpu")


def some_rows(count: int, columns: int, seed: int) -> np.ndarray:
    return matrix(count, columns, seed).numpy()


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn((rows, columns), generator=torch.Generator().manual_seed(seed)) / columns**0.5


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def heads(width: int) -> list[Stage]:
    """One stage of each form, with rows that fill no whole panel at the end."""
    return [
        Stage(matrix(2 * width, 3 * width, 1), matrix(1, 2 * width, 2)[0], "halves"),
        Stage(matrix(width, width, 3), matrix(1, width, 4)[0], "residual"),
        Stage(matrix(3 * width, width, 5), None, "residual"),
        Stage(matrix(101, width, 6)),
    ]


def native(stages: list[Stage], norm: InputNorm | None = None) -> NativeStages:
    return NativeStages(stages, norm, PackedWeights([stages], norm), threads=2)


@pytest.mark.parametrize("width", [64, 72])  # in blocks of 32 columns, and in bfloat16
@pytest.mark.parametrize("count", [1, 3, 11])
@pytest.mark.parametrize("normed", [False, True])
def test_the_two_agree(width, count, normed):
    norm = InputNorm(1 + matrix(1, 3 * width, 7)[0], 1e-5) if normed else None
    rows = 3 * some_rows(count, 3 * width, 8)
    expected = TorchStages(heads(width), norm, {}, torch.float32, CPU)(rows)
    found = native(heads(width), norm)(rows)
    assert found.shape == expected.shape == (3 * count, 101)
    error = distance(found, expected)
    assert error < 0.02
    # The sloppiest number format must not hide a wrong row or a missing bias.
    assert error < 0.1 * distance(found, np.roll(expected, 1, axis=0))


def test_the_torch_form_is_the_formula():
    x, stages = matrix(2, 96, 9), heads(32)
    halves, one, three, last = stages
    y = x @ halves.weight.T + halves.bias
    y = y[:, :32] + F.silu(y[:, 32:])
    y = y + F.silu(y @ one.weight.T + one.bias)
    rows = [z + F.silu(part @ z) for z in y for part in three.weight.view(3, 32, 32)]
    expected = torch.stack([last.weight @ row for row in rows])
    found = TorchStages(stages, None, {}, torch.float32, CPU)(x.numpy())
    torch.testing.assert_close(torch.from_numpy(found), expected)


def test_a_row_does_not_depend_on_its_neighbours():
    run, rows = native(heads(64)), some_rows(9, 192, 10)
    together = run(rows).reshape(9, 3, -1)
    for index in range(9):
        assert np.array_equal(run(rows[index : index + 1]), together[index])


def test_no_rows_give_no_rows():
    assert native(heads(64))(np.empty((0, 192), np.float32)).shape == (0, 101)


def test_chains_share_what_they_have_in_common():
    last, square = Stage(matrix(101, 64, 1)), Stage(matrix(64, 64, 2), None, "residual")
    packed = PackedWeights([[last], [square, last]])
    one, other = NativeStages([last], None, packed, 1), NativeStages([square, last], None, packed, 1)
    assert packed.address(last.weight) != packed.address(square.weight)
    rows = some_rows(2, 64, 3)
    states = TorchStages([square], None, {}, torch.float32, CPU)(rows)
    assert distance(other(rows), one(states)) < 0.02
