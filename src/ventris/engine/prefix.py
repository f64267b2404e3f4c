"""Cache rows of finished requests, kept for prompts that begin alike."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ventris.engine.cache import KVCache

MOST_ROOM = 1.5
"""Bytes of a kept cache's blocks to a byte of its rows; with more, the rows move to a block of their own."""


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of equal tokens at the beginning of both."""
    limit = min(len(first), len(second))
    if first[:limit] == second[:limit]:
        return limit
    # Halving over slices is C speed; a Python loop over thousands of tokens is not.
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low if first[low:high] != second[low:high] else high


@dataclass(slots=True)
class Entry:
    tokens: list[int]
    cache: KVCache
    scope: str


class PrefixStore:
    """Caches by the tokens they hold, the least recently used dropped first.

    A cache is found again under the scope it was put in with, and under no other.

    Args:
        limit: Bytes that the kept caches may hold together; 0 keeps none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._next = 0

    @property
    def nbytes(self) -> int:
        return sum(entry.cache.nbytes for entry in self._entries.values())

    def put(self, tokens: list[int], cache: KVCache, scope: str = "") -> None:
        """Take over a cache whose rows are exactly those of ``tokens``; one that is too large is released."""
        if cache.nbytes > MOST_ROOM * cache.length * cache.layout.row_bytes:
            # Blocks are made for the longest answer that was asked for, and shared ones may be another's.
            with suppress(MemoryError):
                cache.compact()
        if cache.nbytes > self.limit:
            cache.release()
            return
        for key, entry in list(self._entries.items()):
            if entry.scope == scope and shared_length(entry.tokens, tokens) == len(entry.tokens):
                self._drop(key)
        self._entries[self._next] = Entry(tokens, cache, scope)
        self._next += 1
        while self._entries and self.nbytes > self.limit:
            self._drop(next(iter(self._entries)))

    def match(self, tokens: list[int], scope: str = "") -> tuple[int, KVCache | None]:
        """The longest kept beginning of ``tokens``, as a length and the cache that holds it."""
        best, best_key = 0, -1
        for key, entry in self._entries.items():
            length = shared_length(entry.tokens, tokens) if entry.scope == scope else 0
            if length > best:
                best, best_key = length, key
        if not best:
            return 0, None
        self._entries.move_to_end(best_key)
        return best, self._entries[best_key].cache

    def shrink(self) -> bool:
        """Drop the least recently used cache; false if there is none."""
        if not self._entries:
            return False
        self._drop(next(iter(self._entries)))
        return True

    def clear(self) -> None:
        while self.shrink():
            pass

    def _drop(self, key: int) -> None:
        self._entries.pop(key).cache.release()
