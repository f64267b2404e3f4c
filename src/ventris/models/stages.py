"""A few products of a row in a row, outside a decoder: what draft heads are made of.

The native runtime runs them in one call, with the threads that the target runs on; elsewhere they are plain
torch. Drafts may differ by rounding between the two, outputs do not depend on drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.models.torch_decoder import Linear, Norm, packs_for_onednn

if TYPE_CHECKING:
    from ventris.engine.target import Target

Form = Literal["plain", "residual", "halves"]

RunStages = Callable[[Tensor], Tensor]
"""Float32 ``[n, columns of the first matrix]`` to ``[n * copies, rows of the last]`` on the same device."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One product of a row x.

    Attributes:
        weight: W, ``[rows, columns]``.
        bias: ``[rows]`` or ``None``.
        form: ``"plain"``: W x. ``"residual"``: x + silu(W_k x) for each of the ``rows / columns`` square
            matrices that W is made of; x becomes as many rows, side by side in the batch. ``"halves"``: the
            first half of W x plus silu of the second.
    """

    weight: Tensor
    bias: Tensor | None = None
    form: Form = "plain"


@dataclass(frozen=True, slots=True)
class InputNorm:
    """An RMS norm before the first stage."""

    weight: Tensor
    eps: float


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

        packed = PackedWeights()
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
        self.norm = Norm(norm.weight.detach().float().to(device), norm.eps) if norm else None
        for stage in stages:
            if id(stage.weight) not in linears:
                linears[id(stage.weight)] = _linear(stage, dtype, device)
        self.steps = [(stage.form, linears[id(stage.weight)]) for stage in stages]

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        x = (self.norm(rows.float()) if self.norm else rows).to(self.dtype)
        for form, linear in self.steps:
            y = linear(x)
            if form == "residual":
                y = (x[:, None] + F.silu(y).view(len(x), -1, x.shape[1])).flatten(0, 1)
            elif form == "halves":
                straight, bent = y.chunk(2, dim=-1)
                y = straight + F.silu(bent)
            x = y
        return x.float()


def _linear(stage: Stage, dtype: torch.dtype, device: torch.device) -> Linear:
    bias = None if stage.bias is None else stage.bias.detach().to(device, dtype)
    return Linear(stage.weight.detach().to(device, dtype), bias)


def most_probable_of_rows(logits: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """The ``count`` best places of each row of ``[n, m]`` with their log-probabilities, best first."""
    if logits.device.type != "cpu":
        top = logits.log_softmax(dim=-1).topk(min(count, logits.shape[1]), dim=-1)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [list(zip(places, chances, strict=True)) for places, chances in pairs]
    from ventris.models.native.rows import most_probable

    return [most_probable(row, count) for row in logits.numpy()]
