"""Random numbers addressed by seed, purpose and position, so that a draw never depends on its order.

A request's draws are a function of ``(seed, purpose, position, index)`` and of nothing else: not of the
batch, not of what was drafted, not of how many draws came before. That is what lets the coupled verifier
give the same text with and without drafting.

No number may serve two decisions of which the second is to be independent of the first. A place of the text
is drafted for again in every step until it is reached, so a drafter's own draws go by the step, too.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import numpy as np
from torch import Tensor

_MASK = (1 << 64) - 1


class Purpose(IntEnum):
    """What a draw is for; draws for different purposes are independent."""

    TARGET = 1
    """The target's own choice of a token."""
    DRAFT = 2
    """A drafter's sample."""
    VERIFY = 3
    """Accept-or-reject decisions."""
    RESIDUAL = 4
    """The replacement token after a rejection."""


class Randomness(Protocol):
    """The two draws that drafters and verifiers make; tests replace them by an exhaustive enumeration."""

    def bernoulli(self, probability: float) -> bool:
        """True with the given probability."""
        ...

    def categorical(self, probs: Tensor) -> int:
        """An index drawn from ``probs``, non-negative ``[vocab]``; the sum need not be 1."""
        ...


def _mix(value: int) -> int:
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection with full avalanche.
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def uniform(seed: int, purpose: int, position: int, index: int = 0) -> float:
    """A number in [0, 1) with 53 random bits, a pure function of its arguments."""
    state = _mix(seed & _MASK)
    for part in (purpose, position, index):
        state = _mix(state ^ _mix(part & _MASK))
    return (state >> 11) * (1.0 / (1 << 53))


def draw(probs: Tensor, point: float) -> int:
    """The index at which the cumulative sum of ``probs`` ([vocab]) passes ``point`` times the total.

    Indices of probability 0 are never returned.
    """
    cumulative = np.cumsum(probs.numpy(), dtype=np.float64)
    index = int(np.searchsorted(cumulative, point * cumulative[-1], side="right"))
    if index == len(cumulative):
        # The product can round up to the total itself.
        index = int(np.flatnonzero(np.diff(cumulative, prepend=0.0))[-1])
    return index


PLACE = 1 << 32
"""Indices that the draws for one place of a draft may take."""


class PositionRandomness:
    """The draws of one purpose at one position; each call takes the next index.

    Args:
        index: The first one.
    """

    __slots__ = ("_index", "_position", "_purpose", "_seed")

    def __init__(self, seed: int, purpose: int, position: int, index: int = 0) -> None:
        self._seed = seed
        self._purpose = purpose
        self._position = position
        self._index = index

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        self._index += 1
        return uniform(self._seed, self._purpose, self._position, self._index - 1)

    def bernoulli(self, probability: float) -> bool:
        return self.uniform() < probability

    def categorical(self, probs: Tensor) -> int:
        return draw(probs, self.uniform())
