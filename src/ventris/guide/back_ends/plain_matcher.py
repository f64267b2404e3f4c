"""What matchers have in common whose back ends tell no forced text."""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PlainMatcher(ABC):
    """A :class:`ventris.guide.matcher.Matcher` by four methods.

    Args:
        size: Tokens of the vocabulary.
        end_ids: Tokens that end a text; the matcher never follows one.
    """

    dear = False

    def __init__(self, size: int, end_ids: frozenset[int]) -> None:
        self._size = size
        self._end_ids = end_ids
        self._error = ""

    @abstractmethod
    def _follow(self, token: int) -> bool:
        """Follow a token of the vocabulary, if it is allowed."""

    @abstractmethod
    def _mask(self) -> NDArray[np.uint32]:
        """The packed mask, the lowest bit first."""

    @abstractmethod
    def is_accepting(self) -> bool:
        """Whether the text may end here."""

    @abstractmethod
    def deep_copy(self) -> Self:
        """An independent copy."""

    def try_consume_tokens(self, tokens: list[int], /) -> int:
        for count, token in enumerate(tokens):
            if not 0 <= token < self._size or token in self._end_ids or not self._follow(token):
                return count
        return len(tokens)

    def validate_tokens(self, tokens: list[int], /) -> int:
        probe = self.deep_copy()
        for count, token in enumerate(tokens):
            if token in self._end_ids:
                return count + probe.is_accepting()
            if probe.try_consume_tokens([token]) != 1:
                return count
        return len(tokens)

    def compute_bitmask(self) -> bytes:
        mask = self._mask()
        if not mask.any() and not self.is_accepting():
            self._error = "NoExtension: no token goes on with the text"
        return mask.tobytes()

    def unsafe_compute_mask_ptr(self, address: int, size: int, /) -> None:
        ctypes.memmove(address, self.compute_bitmask(), size)

    def compute_ff_tokens(self) -> list[int]:
        return []

    def is_error(self) -> bool:
        return bool(self._error)

    def get_error(self) -> str:
        return self._error
