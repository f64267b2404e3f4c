"""Hidden rows of a text while it is being written: decoding has computed them already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.tree import TokenTree

Bits = NDArray[np.uint16]
"""bfloat16 numbers, as the 16 bits of each."""


def to_bits(rows: Tensor) -> Bits:
    """Rows rounded to bfloat16, as the 16 bits of each number."""
    bits: Bits = rows.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().view(np.uint16)
    return bits


def from_bits(bits: Bits) -> Tensor:
    """The float32 numbers of :func:`to_bits`."""
    return torch.from_numpy(np.array(bits).view(np.int16)).view(torch.bfloat16).float()


class Recorder:
    """A drafter that never drafts and keeps the tapped rows of one request.

    Args:
        taps: Layers as :meth:`Target.forward` counts them.
    """

    name = "recorder"
    shape = "chain"
    draws = False

    def __init__(self, taps: Sequence[int]) -> None:
        self.taps = tuple(taps)
        self._parts: list[Bits] = []

    def start(self, request: RequestView) -> None:
        """A recorder serves one request and is its own state."""

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        return [TokenTree.root(job.root) for job in jobs]

    def observe(self, state: None, commit: Commit) -> None:
        self._parts.append(to_bits(torch.stack([commit.hidden[layer] for layer in self.taps], dim=1)))

    def rows(self, length: int) -> Bits:
        """The rows of a text of ``length`` tokens, ``[length, taps, d]``; zero at the last token.

        Nothing follows the last token, so the target never read it.
        """
        read = np.concatenate(self._parts)[: length - 1]
        return np.pad(read, ((0, length - len(read)), (0, 0), (0, 0)))
