"""Products in a row on the native runtime; see :mod:`ventris.models.stages`."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ventris.models.native import abi
from ventris.models.native.build import load_library
from ventris.models.native.pack import Bytes, pack_matrix, pack_vector
from ventris.models.stages import InputNorm, Stage
from ventris.models.weights import BLOCK

ACTIVATION_BITS = 8
"""Drafts need no more."""


class PackedWeights:
    """Packed matrices and vectors by the identity of their tensors, so that chains share them.

    The tensors must stay alive until all chains are made.
    """

    def __init__(self) -> None:
        self._packed: dict[int, Bytes] = {}

    def matrix(self, weight: Tensor, kind: str) -> int:
        """Address of a packed matrix."""
        return self._address(weight, lambda values: pack_matrix([values], kind))

    def vector(self, values: Tensor) -> int:
        """Address of a packed vector."""
        return self._address(values, pack_vector)

    def _address(self, tensor: Tensor, pack: Callable[[Tensor], Bytes]) -> int:
        if id(tensor) not in self._packed:
            self._packed[id(tensor)] = pack(tensor.detach().float().cpu())
        return int(self._packed[id(tensor)].ctypes.data)


class NativeStages:
    """The stages by the compiled library, in 8-bit blocks where a matrix divides into blocks.

    Args:
        packed: Where matrices are kept, shared with other chains.
        threads: Threads to compute with.

    Raises:
        NativeUnavailable: if the library cannot be compiled here.
    """

    def __init__(
        self, stages: Sequence[Stage], norm: InputNorm | None, packed: PackedWeights, threads: int
    ) -> None:
        self._library = load_library()
        self._packed = packed
        self._copies = 1
        described = (abi.Stage * len(stages))()
        for place, stage in zip(described, stages, strict=True):
            place.matrix, place.form = self._matrix(stage), abi.FORMS[stage.form]
            rows, columns = stage.weight.shape
            self._width = {"plain": rows, "residual": columns, "halves": rows // 2}[stage.form]
            if stage.form == "residual":
                self._copies *= rows // columns
        whole = abi.Stages(
            stages=described,
            count=len(stages),
            norm=packed.vector(norm.weight) if norm else None,
            norm_epsilon=norm.eps if norm else 0.0,
            threads=threads,
        )
        self._handle = self._library.ventris_open_stages(ctypes.byref(whole))
        weakref.finalize(self, self._library.ventris_close_stages, self._handle)

    def __call__(self, rows: Tensor) -> Tensor:
        if rows.dtype != torch.float32 or not rows.is_contiguous():
            rows = rows.to(torch.float32).contiguous()
        out = torch.empty((len(rows) * self._copies, self._width))
        if len(rows):
            self._library.ventris_run_stages(self._handle, rows.data_ptr(), len(rows), out.data_ptr())
        return out

    def _matrix(self, stage: Stage) -> abi.Matrix:
        rows, columns = stage.weight.shape
        kind = "bfloat16" if columns % BLOCK else "int8"
        address = self._packed.matrix(stage.weight, kind)
        bias = None if stage.bias is None else self._packed.vector(stage.bias)
        return abi.Matrix(address, bias, rows, columns, abi.KINDS[kind], ACTIVATION_BITS)
