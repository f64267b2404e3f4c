"""Cache rows survive any history: what a sequence reads is what was committed to it, forks included."""

from __future__ import annotations

import gc
import mmap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ventris.engine.cache import CacheLayout, KVCache
from ventris.engine.ledger import MemoryLedger
from ventris.engine.stream import Stream, forward
from ventris.engine.tree import TokenTree
from ventris.testing import ToyTarget

LAYOUT = CacheLayout(2, 1, 1, torch.float32, torch.device("cpu"))


STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    return int(STATM.read_text().split()[1]) * mmap.PAGESIZE


def append(cache: KVCache, values: list[float], path: list[int]) -> None:
    """Write scratch rows as a forward would, then commit some of them."""
    span = cache.reserve(len(values))
    rows = torch.tensor(values).view(1, 1, 1, -1, 1)
    span.storage.data[..., span.used : span.used + len(values), :] = rows
    cache.commit(path)


def read(cache: KVCache) -> list[float]:
    keys, values = cache.rows(1)
    assert torch.equal(keys, values)
    return keys[0, :, 0].tolist()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 6), st.randoms(use_true_random=False)),
        st.tuples(st.just("fork"), st.integers(0, 3)),
        st.tuples(st.just("truncate"), st.integers(0, 3), st.floats(0, 1)),
        st.tuples(st.just("keep"), st.integers(0, 3), st.randoms(use_true_random=False)),
        st.tuples(st.just("compact"), st.integers(0, 3)),
        st.tuples(st.just("release"), st.integers(0, 3)),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(operations)
def test_any_history_reads_back_and_pays_back(steps: list[tuple]) -> None:
    ledger = MemoryLedger()
    caches = [KVCache(LAYOUT, 4, ledger)]
    expected: list[list[float]] = [[]]
    counter = 0.0
    for step in steps:
        index = step[1] % len(caches)
        cache, rows = caches[index], expected[index]
        if step[0] == "append":
            values = [counter + offset for offset in range(step[2])]
            counter += step[2]
            path = sorted(step[3].sample(range(step[2]), step[3].randint(0, step[2])))
            append(cache, values, path)
            expected[index] = rows + [values[place] for place in path]
        elif step[0] == "fork" and len(caches) < 4:
            caches.append(cache.fork())
            expected.append(list(rows))
        elif step[0] == "truncate":
            length = int(step[2] * len(rows))
            cache.truncate(length)
            expected[index] = rows[:length]
        elif step[0] == "keep" and rows:
            places = sorted(step[2].sample(range(len(rows)), step[2].randint(1, len(rows))))
            cache.keep(torch.tensor(places))
            expected[index] = [rows[place] for place in places]
        elif step[0] == "compact":
            positions = cache.positions()
            cache.compact()
            assert torch.equal(cache.positions(), positions)
        elif step[0] == "release":
            cache.release()
            expected[index] = []
        assert [read(c) for c in caches] == expected
        assert [c.length for c in caches] == [len(r) for r in expected]
    for cache in caches:
        cache.release()
    assert ledger.total == 0


def test_positions_survive_dropped_rows() -> None:
    cache = KVCache(LAYOUT)
    append(cache, [0.0, 1.0, 2.0, 3.0], [0, 1, 2, 3])
    cache.keep(torch.tensor([0, 3]))
    assert cache.positions()[0].tolist() == [0, 3]
    assert cache.next_position == 4
    append(cache, [4.0], [0])
    assert cache.positions()[1].tolist() == [0, 3, 4]
    cache.truncate(1)
    assert cache.next_position == 3


def test_layers_may_keep_different_rows() -> None:
    cache = KVCache(LAYOUT)
    append(cache, [0.0, 1.0, 2.0], [0, 1, 2])
    cache.keep(torch.tensor([[0, 1], [1, 2]]))
    assert cache.rows(0)[0][0, :, 0].tolist() == [0.0, 1.0]
    assert cache.rows(1)[0][0, :, 0].tolist() == [1.0, 2.0]
    assert cache.positions().tolist() == [[0, 1], [1, 2]]


def test_a_fork_copies_nothing_until_it_appends() -> None:
    ledger = MemoryLedger()
    cache = KVCache(LAYOUT, 100, ledger)
    append(cache, [1.0] * 50, list(range(50)))
    before = ledger.total
    twin = cache.fork()
    assert ledger.total == before
    append(twin, [2.0], [0])
    assert ledger.total > before
    assert read(cache) == [1.0] * 50


def test_a_compact_cache_holds_its_own_rows_and_no_more() -> None:
    ledger = MemoryLedger()
    cache = KVCache(LAYOUT, 100, ledger)
    append(cache, [1.0] * 10, list(range(10)))
    twin = cache.fork()
    append(twin, [2.0], [0])
    twin.compact()
    assert twin.nbytes == 11 * LAYOUT.row_bytes
    cache.release()
    assert ledger.total == 11 * LAYOUT.row_bytes
    assert read(twin) == [1.0] * 10 + [2.0]
    append(twin, [3.0], [0])
    assert read(twin) == [1.0] * 10 + [2.0, 3.0]


def test_a_cache_that_finds_no_room_to_compact_stays_as_it_is() -> None:
    ledger = MemoryLedger(limit=LAYOUT.row_bytes * 40)
    cache = KVCache(LAYOUT, 32, ledger)
    append(cache, [1.0] * 10, list(range(10)))
    with pytest.raises(MemoryError):
        cache.compact()
    assert read(cache) == [1.0] * 10
    assert ledger.total == 32 * LAYOUT.row_bytes


def test_the_ledger_refuses_by_name_and_books_nothing() -> None:
    ledger = MemoryLedger(limit=LAYOUT.row_bytes * 20)
    cache = KVCache(LAYOUT, 16, ledger, "target")
    append(cache, [1.0], [0])
    booked = ledger.total
    with pytest.raises(MemoryError, match="'target'"):
        cache.reserve(100)
    assert ledger.total == booked
    assert read(cache) == [1.0]


def test_a_forgotten_cache_gives_its_bytes_back() -> None:
    ledger = MemoryLedger()
    cache = KVCache(LAYOUT, 16, ledger)
    append(cache, [1.0], [0])
    del cache
    gc.collect()
    assert ledger.total == 0


@pytest.mark.skipif(not STATM.exists(), reason="this system does not tell how much memory a process holds")
def test_free_blocks_go_back_to_the_system() -> None:
    # After a free of this size, glibc takes blocks of up to as much from its heaps.
    torch.empty(7 * 2**20)
    before = resident_bytes()
    caches, others = [], []
    # More than are asked for below: the process may have had a page or two to spare.
    for number in range(24):
        caches.append(KVCache(LAYOUT, 2**19))
        caches[-1].reserve(2**19).storage.data.fill_(number)
        others.append(torch.zeros(2000))
    assert resident_bytes() - before > 20 * 2**23
    caches.clear()
    gc.collect()
    assert resident_bytes() - before < 5 * 2**23


def test_truncating_past_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot truncate"):
        KVCache(LAYOUT).truncate(1)


def test_a_fork_in_the_middle_of_a_draft_keeps_the_rows_scored_so_far() -> None:
    cache = KVCache(LAYOUT, 16)
    append(cache, [1.0], [0])
    span = cache.reserve(2)
    span.storage.data[..., span.used : span.used + 2, :] = torch.tensor([2.0, 3.0]).view(1, 1, 1, 2, 1)
    twin = cache.fork()
    span = cache.reserve(3, filled=2)
    span.storage.data[..., span.used + 2 : span.used + 3, :] = 4.0
    cache.commit([0, 2])
    assert read(cache) == [1.0, 2.0, 4.0]
    assert read(twin) == [1.0]


def test_layers_that_kept_different_rows_never_repeat_a_position() -> None:
    cache = KVCache(LAYOUT)
    append(cache, [float(n) for n in range(8)], list(range(8)))
    cache.keep(torch.tensor([[0, 1, 4, 5, 7], [0, 1, 2, 3, 7]]))
    cache.truncate(3)
    assert cache.next_position == 5


def test_keeping_rows_of_an_empty_cache_is_harmless() -> None:
    cache = KVCache(LAYOUT)
    cache.keep(torch.tensor([], dtype=torch.int64))
    assert cache.length == 0


def test_rows_of_a_pass_that_ran_out_of_memory_are_not_taken_for_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = ToyTarget(vocab_size=12, memory=3)
    stream = Stream(target, [1, 2, 3])
    tree = TokenTree.chain([3, 4, 5])

    def no_room(*_: object) -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(ToyTarget, "forward", no_room)
        with pytest.raises(MemoryError):
            forward([(stream, stream.rows(tree, [0, 1, 2]), ())])
    stream.advance(tree, [0, 1], 7)
    assert stream.cache.length == 0
    assert stream.pending == [1, 2, 3, 4, 7]
    (scored,) = forward([(stream, stream.rows(TokenTree.root(7), [0]), ())])
    assert torch.equal(scored.logits[0], target.logits([1, 2, 3, 4, 7]))


def test_a_cache_may_begin_further_on():
    cache = KVCache(LAYOUT, 4)
    cache.begin_at(700)
    append(cache, [1.0, 2.0, 3.0], [0, 1, 2])
    assert cache.positions().tolist() == [[700, 701, 702]] * 2
    assert (cache.length, cache.next_position) == (3, 703)
    with pytest.raises(ValueError, match="a cache of 3 rows has begun"):
        cache.begin_at(0)


def test_views_lie_in_the_blocks_and_make_up_the_rows():
    first = KVCache(LAYOUT, 8)
    append(first, [1.0, 2.0, 3.0], [0, 1, 2])
    cache = first.fork()
    assert KVCache(LAYOUT).views(1) == []
    append(cache, [4.0, 5.0], [0])
    views = cache.views(1, scratch=1)
    assert [keys[0, :, 0].tolist() for keys, _ in views] == [[1.0, 2.0, 3.0], [4.0, 5.0]]
    assert views[0][0].data_ptr() == first.spans[0].storage.data[1, 0].data_ptr()
    keys, values = cache.rows(1, scratch=1)
    assert torch.equal(keys, torch.cat([part for part, _ in views], dim=1))
    assert torch.equal(values, torch.cat([part for _, part in views], dim=1))
