"""Kept caches: what they may hold, and which of them goes first."""

from __future__ import annotations

import torch

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.ledger import MemoryLedger
from ventris.engine.prefix import PrefixStore

LAYOUT = CacheLayout(1, 1, 1, torch.float32, torch.device("cpu"))


def filled(ledger: MemoryLedger, tokens: list[int], room: int = 0) -> KVCache:
    """A cache with a row for each token, in a block with more room than that."""
    cache = KVCache(LAYOUT, len(tokens) + room, ledger)
    cache.reserve(len(tokens)).storage.data.zero_()
    cache.commit(range(len(tokens)))
    return cache


def test_the_least_recently_used_goes_first() -> None:
    ledger = MemoryLedger()
    store = PrefixStore(60 * LAYOUT.row_bytes)
    for first in range(3):
        store.put([first] * 20, filled(ledger, [first] * 20))
    assert store.match([0] * 20)[0] == 20
    store.put([9] * 20, filled(ledger, [9] * 20))
    assert [store.match([first] * 20)[0] for first in (0, 1, 2, 9)] == [20, 0, 20, 20]
    assert store.nbytes == ledger.total == 60 * LAYOUT.row_bytes


def test_room_for_an_answer_that_ended_early_is_not_kept() -> None:
    ledger = MemoryLedger()
    store = PrefixStore(100 * LAYOUT.row_bytes)
    store.put([1] * 20, filled(ledger, [1] * 20))
    store.put([2] * 20, filled(ledger, [2] * 20, room=1000))
    assert store.nbytes == ledger.total == 40 * LAYOUT.row_bytes
    assert store.match([1] * 20)[0] == store.match([2] * 20)[0] == 20


def test_a_block_of_another_answer_is_not_kept_for_a_shared_beginning() -> None:
    ledger = MemoryLedger()
    store = PrefixStore(100 * LAYOUT.row_bytes)
    long = filled(ledger, [1] * 20, room=1000)
    fork = long.fork()
    fork.reserve(1).storage.data.zero_()
    fork.commit([0])
    store.put([1] * 20 + [2], fork)
    long.release()
    assert store.nbytes == ledger.total == 21 * LAYOUT.row_bytes


def test_what_is_larger_than_everything_drives_nothing_out() -> None:
    ledger = MemoryLedger()
    store = PrefixStore(40 * LAYOUT.row_bytes)
    store.put([1] * 20, filled(ledger, [1] * 20))
    store.put([2] * 50, filled(ledger, [2] * 50))
    assert store.match([2] * 50)[0] == 0
    assert store.match([1] * 20)[0] == 20
    assert store.nbytes == ledger.total == 20 * LAYOUT.row_bytes
