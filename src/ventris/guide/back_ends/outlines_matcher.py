"""outlines-core behind the protocol of matchers."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy
from typing import TYPE_CHECKING, Self

import numpy as np
from outlines_core import Index

from ventris.guide.back_ends.plain_matcher import PlainMatcher

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_MASKS = 1024
"""Masks of one index; outlines-core lists the allowed tokens, and packing a long list takes a millisecond."""


class OutlinesMatcher(PlainMatcher):
    """A place in a text of a regular expression: a state of an index, which itself never changes.

    Args:
        index: The index.
    """

    def __init__(self, index: Index, size: int, end_ids: frozenset[int]) -> None:
        super().__init__(size, end_ids)
        self._index = index
        self._state: int = index.get_initial_state()
        self._masks: OrderedDict[int, NDArray[np.uint32]] = OrderedDict()

    @classmethod
    def read(cls, built: bytes, size: int, end_ids: frozenset[int]) -> OutlinesMatcher:
        """The matcher of an index, as the compile worker sent it."""
        return cls(Index.from_binary(built), size, end_ids)

    def _follow(self, token: int) -> bool:
        state = self._index.get_next_state(self._state, token)
        if state is None:
            return False
        self._state = state
        return True

    def _mask(self) -> NDArray[np.uint32]:
        known = self._masks.get(self._state)
        if known is None:
            allowed = np.zeros((self._size + 31) // 32 * 32, dtype=np.bool_)
            allowed[self._index.get_allowed_tokens(self._state) or []] = True
            allowed[list(self._end_ids)] = False
            known = np.packbits(allowed, bitorder="little").view(np.uint32)
            # Copies share these.
            self._masks[self._state] = known
            if len(self._masks) > KEPT_MASKS:
                self._masks.popitem(last=False)
        return known

    def is_accepting(self) -> bool:
        return bool(self._index.is_final_state(self._state))

    def deep_copy(self) -> Self:
        return copy(self)
