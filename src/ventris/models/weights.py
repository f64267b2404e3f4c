"""Weights as a checkpoint stores them: plain tensors, or 4- and 8-bit blocks kept as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
"""Columns that share one scale and one offset."""


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix in blocks of 32 columns: ``w[r, c] = scales[r, c//32] * levels[r, c] + offsets[r, c//32]``.

    GGUF's Q4_0, Q4_1 and Q8_0 have exactly this form (Q4_0: offset ``-8 * scale``; Q8_0: levels
    shifted by 128, offset ``-128 * scale``; both exact in float16), so no value changes.

    Attributes:
        levels: uint8 ``[rows, columns]``; 0..15 for ``bits == 4``, 0..255 for ``bits == 8``.
        scales: float16 ``[rows, columns / 32]``.
        offsets: float16 ``[rows, columns / 32]``.
        bits: 4 or 8.
    """

    levels: Tensor
    scales: Tensor
    offsets: Tensor
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.levels.shape
        return rows, columns

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The same numbers as a plain matrix, ``[rows, columns]``, computed in float32."""
        rows, columns = self.shape
        levels = self.levels.view(rows, columns // BLOCK, BLOCK).to(torch.float32)
        matrix = levels * self.scales.to(torch.float32)[..., None] + self.offsets.to(torch.float32)[..., None]
        return matrix.view(rows, columns).to(dtype)

    def take_rows(self, index: Tensor) -> QuantizedMatrix:
        """The matrix with its rows chosen and ordered by ``index``."""
        return QuantizedMatrix(self.levels[index], self.scales[index], self.offsets[index], self.bits)


Weight = Tensor | QuantizedMatrix
Weights = Mapping[str, Weight]
"""Weights by their name in a transformers checkpoint, such as ``model.layers.0.mlp.up_proj.weight``."""


def dense(weight: Weight, dtype: torch.dtype = torch.float32) -> Tensor:
    """A weight as a plain tensor, whatever it is stored as."""
    if isinstance(weight, QuantizedMatrix):
        return weight.dequantize(dtype)
    return weight.to(dtype)


def dense_rows(matrix: Weight, index: Tensor) -> Tensor:
    """Some rows of a matrix as a plain tensor, float32."""
    return dense(matrix.take_rows(index) if isinstance(matrix, QuantizedMatrix) else matrix[index])


def quantize(matrix: Tensor, bits: int) -> QuantizedMatrix:
    """Round a plain matrix ``[rows, columns]`` to blocks of 32 columns (affine, as Q4_1 and Q8_1).

    Raises:
        ValueError: if the number of columns is no multiple of 32.
    """
    rows, columns = matrix.shape
    if columns % BLOCK:
        raise ValueError(f"cannot quantize {columns} columns in blocks of {BLOCK}; use bfloat16 instead")
    blocks = matrix.to(torch.float32).view(rows, columns // BLOCK, BLOCK)
    low = blocks.amin(dim=-1)
    top = float(2**bits - 1)
    scales = ((blocks.amax(dim=-1) - low) / top).to(torch.float16)
    offsets = low.to(torch.float16)
    step = scales.to(torch.float32).clamp_min(1e-12)[..., None]
    levels = ((blocks - offsets.to(torch.float32)[..., None]) / step).round().clamp(0, top)
    return QuantizedMatrix(levels.to(torch.uint8).view(rows, columns), scales, offsets, bits)
