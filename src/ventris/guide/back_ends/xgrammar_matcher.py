"""xgrammar behind the protocol of matchers."""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
from xgrammar import CompiledGrammar, GrammarMatcher, TokenizerInfo, VocabType

from ventris.guide.back_ends.plain_matcher import PlainMatcher

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_VOCABULARIES = 4


class XGrammarMatcher(PlainMatcher):
    """A place in a text of one of xgrammar's grammars.

    Args:
        matcher: xgrammar's own.
    """

    def __init__(self, matcher: GrammarMatcher, size: int, end_ids: frozenset[int]) -> None:
        super().__init__(size, end_ids)
        self._matcher = matcher
        self._packed = np.zeros((size + 31) // 32, dtype=np.int32)

    @classmethod
    def read(
        cls, built: bytes, tokens: list[bytes], special: frozenset[int], end_ids: frozenset[int], end: int
    ) -> XGrammarMatcher:
        """The matcher of a compiled grammar, as the compile worker sent it."""
        known = _vocabulary(tuple(tokens), special, end)
        grammar = CompiledGrammar.deserialize_json(built.decode(), known)
        return cls(GrammarMatcher(grammar), len(tokens), end_ids)

    def _follow(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))

    def _mask(self) -> NDArray[np.uint32]:
        self._matcher.fill_next_token_bitmask(self._packed)
        mask = self._packed.view(np.uint32)
        for token in self._end_ids:
            mask[token >> 5] &= ~np.uint32(1 << (token & 31))
        return mask

    def is_accepting(self) -> bool:
        return bool(self._matcher.is_completed())

    def deep_copy(self) -> Self:
        twin = copy(self)
        twin._matcher = self._matcher.fork()
        twin._packed = np.zeros_like(self._packed)
        return twin


@lru_cache(KEPT_VOCABULARIES)
def _vocabulary(tokens: tuple[bytes, ...], special: frozenset[int], end: int) -> TokenizerInfo:
    spelled = [b"" if token in special else text for token, text in enumerate(tokens)]
    return TokenizerInfo(spelled, VocabType.RAW, vocab_size=len(spelled), stop_token_ids=[end])
