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
        self._rows: Bits = np.empty((0, len(self.taps), 0), dtype=np.uint16)
        self._count = 0

    def start(self, request: RequestView) -> None:
        """Make room for the longest answer; a recorder serves one request and is its own state."""
        longest = len(request.prompt) + request.max_new_tokens
        # One array a request: many small ones would leave the heap in pieces.
        self._rows = np.zeros((longest, len(self.taps), request.target.hidden_size), dtype=np.uint16)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        return [TokenTree.root(job.root) for job in jobs]

    def observe(self, state: None, commit: Commit) -> None:
        rows = to_bits(torch.stack([commit.hidden[layer] for layer in self.taps], dim=1))
        self._rows[self._count : self._count + len(rows)] = rows
        self._count += len(rows)

    def rows(self, length: int) -> Bits:
        """The rows of a text of ``length`` tokens, ``[length, taps, d]``; zero at the last token.

        Nothing follows the last token, so the target never read it.
        """
        return self._rows[:length]
