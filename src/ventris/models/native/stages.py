"""Products in a row on the native runtime; see :mod:`ventris.models.stages`."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from torch import Tensor

from ventris.models.native import abi
from ventris.models.native.build import load_library
from ventris.models.native.pack import ALIGNMENT, Bytes, in_huge_pages, pack_matrix, pack_vector
from ventris.models.stage import Array, InputNorm, Stage
from ventris.models.weights import BLOCK

ACTIVATION_BITS = 8
"""Drafts need no more."""


class PackedWeights:
    """All matrices and vectors of some chains side by side in memory.

    They are known by the identity of their tensors, so that chains share what they have in common; the
    chains must stay alive until all of them are made.
    """

    def __init__(self, chains: Sequence[Sequence[Stage]], norm: InputNorm | None = None) -> None:
        packed: dict[int, Bytes] = {}
        for stage in (stage for stages in chains for stage in stages):
            if id(stage.weight) not in packed:
                packed[id(stage.weight)] = pack_matrix([_plain(stage.weight)], kind_of(stage))
            if stage.bias is not None:
                packed[id(stage.bias)] = pack_vector(_plain(stage.bias))
        if norm is not None:
            packed[id(norm.weight)] = pack_vector(_plain(norm.weight))
        sizes = [-(-data.size // ALIGNMENT) * ALIGNMENT for data in packed.values()]
        together = np.zeros(sum(sizes), dtype=np.uint8)
        places = [0, *accumulate(sizes)]
        for place, data in zip(places, packed.values(), strict=False):
            together[place : place + data.size] = data.reshape(-1)
        self._memory = in_huge_pages(together)
        self._places = dict(zip(packed, places, strict=False))

    def address(self, tensor: Tensor) -> int:
        """Where a tensor of the chains lies."""
        return int(self._memory.ctypes.data) + self._places[id(tensor)]


def kind_of(stage: Stage) -> str:
    """The number format of a stage's matrix: 8-bit blocks, or bfloat16 where it does not divide into them."""
    return "bfloat16" if stage.weight.shape[1] % BLOCK else "int8"


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


class NativeStages:
    """The stages by the compiled library.

    Args:
        packed: The weights of this chain, and perhaps of others.
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
            norm=packed.address(norm.weight) if norm else None,
            norm_epsilon=norm.eps if norm else 0.0,
            threads=threads,
        )
        self._handle = self._library.ventris_open_stages(ctypes.byref(whole))
        weakref.finalize(self, self._library.ventris_close_stages, self._handle)

    def __call__(self, rows: Array) -> Array:
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        out = np.empty((len(rows) * self._copies, self._width), dtype=np.float32)
        if len(rows):
            self._library.ventris_run_stages(self._handle, rows.ctypes.data, len(rows), out.ctypes.data)
        return out

    def _matrix(self, stage: Stage) -> abi.Matrix:
        rows, columns = stage.weight.shape
        bias = None if stage.bias is None else self._packed.address(stage.bias)
        kind = abi.KINDS[kind_of(stage)]
        return abi.Matrix(self._packed.address(stage.weight), bias, rows, columns, kind, ACTIVATION_BITS)
