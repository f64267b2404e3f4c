"""A few products of a row in a row, outside a decoder: what draft heads are made of.

The native runtime runs them in one call, with the threads that the target runs on; elsewhere they are plain
torch. Drafts may differ by rounding between the two, outputs do not depend on drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.models.stage import Array, InputNorm, Stage
from ventris.models.torch_layers import Linear, Norm, packs_for_onednn

if TYPE_CHECKING:
    from ventris.engine.target import Target

RunStages = Callable[[Array], Array]
"""``[n, columns of the first matrix]`` to ``[n * copies, rows of the last]``.

Arrays of numpy, because right after a pass of the target nothing of torch is in the processor's caches, and
each of its operations then takes some 60 microseconds.
"""


def fast_stages(
    target: Target, chains: Sequence[Sequence[Stage]], norm: InputNorm | None = None
) -> list[RunStages]:
    """Chains of stages where ``target`` runs: by the native library beside a native target, else by torch.

    A weight that occurs in several chains is packed once, so that what one chain has read into the
    processor's caches is there for the next.

    Args:
        norm: Applied to the input of each chain.
    """
    if runs_natively(target):
        from ventris.models.native.stages import NativeStages, PackedWeights

        packed = PackedWeights(chains, norm)
        return [NativeStages(stages, norm, packed, threads_of(target)) for stages in chains]
    linears: dict[int, Linear] = {}
    dtype = drafting_dtype(target.device)
    return [TorchStages(stages, norm, linears, dtype, target.device) for stages in chains]


def runs_natively(target: Target) -> bool:
    """Whether the native library computes for this target, so that its threads are awake."""
    return target.device.type == "cpu" and hasattr(target, "threads")


def threads_of(target: Target) -> int:
    """Threads that a native target computes with."""
    threads: int = target.threads  # type: ignore[attr-defined]
    return threads


def drafting_dtype(device: torch.device) -> torch.dtype:
    """The format in which draft heads run in torch: bfloat16 where the machine computes with it."""
    if device.type == "cpu":
        return torch.bfloat16 if packs_for_onednn(torch.empty(1, 1, dtype=torch.bfloat16)) else torch.float32
    return torch.bfloat16


class TorchStages:
    """The stages in plain torch.

    Args:
        linears: Matrices made before, by the identity of their weight; new ones are added.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        norm: InputNorm | None,
        linears: dict[int, Linear],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.dtype = dtype
        self.device = device
        self.norm = Norm(norm.weight.detach().float().to(device), norm.eps) if norm else None
        for stage in stages:
            if id(stage.weight) not in linears:
                linears[id(stage.weight)] = _linear(stage, dtype, device)
        self.steps = [(stage.form, linears[id(stage.weight)]) for stage in stages]

    @torch.no_grad()
    def __call__(self, rows: Array) -> Array:
        given = torch.from_numpy(rows).to(self.device)
        x = (self.norm(given) if self.norm else given).to(self.dtype)
        for form, linear in self.steps:
            y = linear(x)
            if form == "residual":
                y = (x[:, None] + F.silu(y).view(len(x), -1, x.shape[1])).flatten(0, 1)
            elif form == "halves":
                straight, bent = y.chunk(2, dim=-1)
                y = straight + F.silu(bent)
            x = y
        return as_array(x)


def _linear(stage: Stage, dtype: torch.dtype, device: torch.device) -> Linear:
    bias = None if stage.bias is None else stage.bias.detach().to(device, dtype)
    return Linear(stage.weight.detach().to(device, dtype), bias)


def as_array(rows: Tensor) -> Array:
    """Hidden rows of a target as an array; those of a CPU target in float32 are not copied."""
    if rows.device.type != "cpu" or rows.dtype != torch.float32:
        rows = rows.to("cpu", torch.float32)
    array: Array = rows.numpy()
    return array


def rms_norm_rows(rows: Array, weight: Array, eps: float) -> Array:
    """RMS norm of each row, ``[n, d]``."""
    mean = np.square(rows).mean(axis=1, keepdims=True)
    normed: Array = rows / np.sqrt(mean + np.float32(eps)) * weight
    return normed
