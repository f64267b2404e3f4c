"""The key/value cache of one sequence: append a tree, commit a path, fork, truncate, keep rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_COPY, mmap

import torch
from torch import Tensor

from ventris.engine.ledger import MemoryLedger

SMALLEST_BLOCK = 16
"""Rows of a block at least."""


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """The sizes that a model fixes for its caches.

    Attributes:
        counted_layers: Layers that a row is booked for, if more than ``layers``: where another process holds
            the other layers of each row, the books are those of the larger share.
    """

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    counted_layers: int = 0

    @property
    def row_bytes(self) -> int:
        """Bytes that one position is booked for over all layers, keys and values."""
        layers = max(self.layers, self.counted_layers)
        return layers * 2 * self.kv_heads * self.head_dim * self.dtype.itemsize


LARGE_BLOCK = 256 * 1024
"""Bytes from which a block is a mapping of its own, so that the system has it back when it is free."""


def _block(layout: CacheLayout, capacity: int) -> Tensor:
    """Rows that hold anything, ``[layers, 2, kv_heads, capacity, head_dim]``.

    Blocks of all sizes come and go for as long as a server runs. Taken from the C library's heaps, where
    small objects outlive them, they would leave holes, and the heaps would grow for hours.
    """
    shape = (layout.layers, 2, layout.kv_heads, capacity, layout.head_dim)
    size = prod(shape) * layout.dtype.itemsize
    if layout.device.type != "cpu" or size < LARGE_BLOCK:
        return torch.empty(shape, dtype=layout.dtype, device=layout.device)
    return torch.frombuffer(mmap(-1, size, access=ACCESS_COPY), dtype=layout.dtype).view(shape)


class Storage:
    """One contiguous block of cache rows, ``data: [layers, 2, kv_heads, capacity, head_dim]``.

    Keys are index 0 and values index 1 of the second axis. ``users`` counts the caches that read the
    block. Of several, one may append (the one that opened it, :attr:`Span.appends`), and only behind the
    ``shared`` rows that others read; that is what makes a fork copy-on-write and still leaves the cache that
    was forked the room that it reserved.

    Attributes:
        nbytes: Bytes as booked.
    """

    __slots__ = ("capacity", "data", "ledger", "nbytes", "owner", "shared", "users")

    def __init__(self, layout: CacheLayout, capacity: int, ledger: MemoryLedger, owner: str) -> None:
        self.nbytes = capacity * layout.row_bytes
        ledger.charge(owner, self.nbytes)
        self.data = _block(layout, capacity)
        self.capacity = capacity
        self.ledger = ledger
        self.owner = owner
        self.users = 1
        self.shared = 0

    def release(self) -> None:
        """Drop one user; the last one gives the bytes back."""
        self.users -= 1
        if self.users == 0:
            self.ledger.charge(self.owner, -self.nbytes)


@dataclass(slots=True)
class Span:
    """Rows ``0 .. used-1`` of a storage, as one stretch of a sequence.

    Attributes:
        first_position: Position of row 0 when the rows are consecutive.
        positions: int32 ``[layers, used]`` when they are not (rows were dropped); such a span is
            closed: nothing is appended to it.
        appends: True for the cache that opened the storage; forks open blocks of their own.
    """

    storage: Storage
    used: int
    first_position: int
    positions: Tensor | None = None
    appends: bool = True

    @property
    def writable(self) -> bool:
        """True if rows behind the used ones may be written: nobody else reads or writes them.

        A fork does not take over a block when it comes to be the only one to read it: it has been told how
        many rows to expect, and opens a block for all of them.
        """
        unread = self.storage.users == 1 or self.used >= self.storage.shared
        return self.positions is None and self.appends and unread


class KVCache:
    """Keys and values of one sequence in one model.

    The committed rows are a list of spans, usually one. A forward pass writes the rows of its nodes
    behind the last committed row (the scratch region); :meth:`commit` then keeps the rows of the
    accepted path. Rows that are not committed are overwritten by the next forward.

    Where the ledger has a limit, a new cache takes all its rows at once, so that what was let in does not run
    out of memory half-way.

    Args:
        capacity: Rows that the first block has room for.
        owner: On whom the ledger books them.

    Raises:
        MemoryError: if the ledger has a limit and the rows do not fit.

    Attributes:
        length: Number of committed rows.
        next_position: Position of the token that comes next; equals ``length`` unless rows were
            dropped by :meth:`keep`.
    """

    def __init__(
        self,
        layout: CacheLayout,
        capacity: int = 64,
        ledger: MemoryLedger | None = None,
        owner: str = "cache",
    ) -> None:
        self.layout = layout
        self.ledger = ledger if ledger is not None else MemoryLedger()
        self.owner = owner
        self.length = 0
        self.next_position = 0
        self.spans: list[Span] = []
        self._hint = max(capacity, 1)
        if self.ledger.limit is not None:
            self.reserve(1)

    def begin_at(self, position: int) -> None:
        """Let the first row stand at ``position``, as if the rows before it had been dropped.

        Raises:
            ValueError: if there are rows already.
        """
        if self.length:
            raise ValueError(f"a cache of {self.length} rows has begun")
        self.release()
        self.next_position = position

    def expect(self, capacity: int) -> None:
        """Size the next block for a sequence that will grow to about ``capacity`` rows."""
        self._hint = capacity

    def reserve(self, nodes: int, filled: int = 0) -> Span:
        """Make room for ``nodes`` scratch rows behind the committed ones and return the tail span.

        Args:
            nodes: Scratch rows wanted in all.
            filled: Scratch rows that hold nodes already; they keep their contents, whatever moves.

        Raises:
            MemoryError: when the ledger's limit would be passed.
        """
        if self.spans:
            tail = self.spans[-1]
            writable = tail.writable
            if writable and tail.used + nodes <= tail.storage.capacity:
                return tail
            if writable and tail.storage.users == 1:
                return self._grow(tail, tail.used + nodes)
        capacity = max(self._hint - self.length, nodes, SMALLEST_BLOCK)
        fresh = Span(Storage(self.layout, capacity, self.ledger, self.owner), 0, self.next_position)
        if self.spans and filled:
            # A half-built draft moves along into the block in which it is finished.
            scratch = self.spans[-1].storage.data[..., self.spans[-1].used :, :]
            fresh.storage.data[..., :filled, :] = scratch[..., :filled, :]
        if self.spans and self.spans[-1].used == 0:
            self.spans.pop().storage.release()
        self.spans.append(fresh)
        return fresh

    def _grow(self, tail: Span, needed: int) -> Span:
        bigger = Storage(self.layout, max(needed, 2 * tail.storage.capacity), self.ledger, self.owner)
        # Scratch rows may already hold a half-built draft, so all rows are carried over.
        bigger.data[..., : tail.storage.capacity, :].copy_(tail.storage.data)
        tail.storage.release()
        tail.storage = bigger
        return tail

    def commit(self, path: Sequence[int]) -> None:
        """Keep the scratch rows ``path`` (ascending), in that order, as the next committed rows."""
        kept = len(path)
        if kept == 0:
            return
        tail = self.spans[-1]
        if path[-1] != kept - 1:
            first = next(i for i, row in enumerate(path) if row != i)
            rows = torch.tensor(path[first:], device=self.layout.device) + tail.used
            data = tail.storage.data
            data[..., tail.used + first : tail.used + kept, :] = data.index_select(3, rows)
        tail.used += kept
        self.length += kept
        self.next_position += kept

    def truncate(self, length: int) -> None:
        """Forget the rows from ``length`` on.

        Raises:
            ValueError: if ``length`` is not between 0 and the present length.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate a cache of {self.length} rows to {length}")
        surplus = self.length - length
        while surplus:
            tail = self.spans[-1]
            dropped = min(surplus, tail.used)
            tail.used -= dropped
            surplus -= dropped
            if tail.positions is not None:
                kept, dropped_positions = tail.positions[:, : tail.used], tail.positions[:, tail.used :]
                # Layers may have kept different rows: no position may come twice in any of them.
                highest = int(kept.max()) if tail.used else -1
                self.next_position = max(int(dropped_positions.min()), highest + 1)
                tail.positions = kept
            else:
                self.next_position = tail.first_position + tail.used
            if tail.used == 0 and len(self.spans) > 1:
                self.spans.pop().storage.release()
        self.length = length

    def fork(self) -> KVCache:
        """A second cache with the same rows; neither sees what the other appends.

        Nothing is copied: both read the same blocks. This cache goes on in its last one, behind the rows that
        the twin reads; the twin opens a block of its own when it appends.
        """
        twin = self._empty()
        twin.ledger = self.ledger
        twin.length = self.length
        twin.next_position = self.next_position
        for span in self.spans:
            if span.used:
                storage = span.storage
                if storage.users == 1:
                    # Whoever else read the block is gone.
                    storage.shared = 0
                storage.users += 1
                storage.shared = max(storage.shared, span.used)
                twin.spans.append(Span(storage, span.used, span.first_position, span.positions, False))
        return twin

    def _empty(self) -> KVCache:
        """A cache of the same kind without rows."""
        return KVCache(self.layout, self._hint, None, self.owner)

    def keep(self, rows: Tensor) -> None:
        """Keep only some committed rows, with their original positions.

        Args:
            rows: int64 row indices, ascending: ``[n]`` for all layers alike, or ``[layers, n]`` to
                keep different rows in each layer (equally many in each).
        """
        if not self.spans:
            return
        if rows.dim() == 1:
            rows = rows.expand(self.layout.layers, -1)
        data = torch.cat([span.storage.data[..., : span.used, :] for span in self.spans], dim=3)
        positions = self.positions()
        storage = Storage(self.layout, max(rows.shape[1], 1), self.ledger, self.owner)
        index = rows.to(data.device)[:, None, None, :, None].expand(-1, 2, data.shape[2], -1, data.shape[4])
        storage.data[..., : rows.shape[1], :] = data.gather(3, index)
        kept_positions = positions.gather(1, rows.to(positions.device)).to(torch.int32).contiguous()
        for span in self.spans:
            span.storage.release()
        self.spans = [Span(storage, rows.shape[1], 0, kept_positions)]
        self.length = rows.shape[1]

    def compact(self) -> None:
        """Move the committed rows into one block with no room to spare.

        A cache that is only read from then on holds no large block for the sake of a few rows. One with
        dropped rows stays as it is.

        Raises:
            MemoryError: when the ledger's limit would be passed; nothing has changed then.
        """
        if not self.length or any(span.positions is not None for span in self.spans):
            return
        storage = Storage(self.layout, self.length, self.ledger, self.owner)
        filled = 0
        for span in self.spans:
            storage.data[..., filled : filled + span.used, :] = span.storage.data[..., : span.used, :]
            filled += span.used
            span.storage.release()
        self.spans = [Span(storage, filled, self.spans[0].first_position)]

    def positions(self) -> Tensor:
        """Position of every committed row in every layer, int64 ``[layers, length]``."""
        parts = []
        for span in self.spans:
            if span.positions is not None:
                parts.append(span.positions.to(torch.int64).cpu())
            else:
                row = torch.arange(span.first_position, span.first_position + span.used)
                parts.append(row.expand(self.layout.layers, -1))
        if not parts:
            return torch.empty((self.layout.layers, 0), dtype=torch.int64)
        return torch.cat(parts, dim=1)

    def rows(self, layer: int, scratch: int = 0) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, each ``[kv_heads, length + scratch, head_dim]``.

        The first ``scratch`` rows behind the committed ones are included. A view where the cache has
        one span, a copy otherwise.
        """
        views = self.views(layer, scratch)
        if not views:
            empty = torch.empty(
                (self.layout.kv_heads, 0, self.layout.head_dim),
                dtype=self.layout.dtype,
                device=self.layout.device,
            )
            return empty, empty
        if len(views) == 1:
            return views[0]
        keys, values = zip(*views, strict=True)
        return torch.cat(keys, dim=1), torch.cat(values, dim=1)

    def views(self, layer: int, scratch: int = 0) -> list[tuple[Tensor, Tensor]]:
        """As :meth:`rows`, span by span, so that nothing is copied; none where there are no rows."""
        parts = []
        for span in self.spans:
            used = span.used + (scratch if span is self.spans[-1] else 0)
            block = span.storage.data[layer, :, :, :used]
            parts.append((block[0], block[1]))
        return parts

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks this cache reads, shared ones included."""
        return sum(span.storage.nbytes for span in self.spans)

    def release(self) -> None:
        """Give all blocks back; the cache is empty afterwards and may be used again."""
        for span in self.spans:
            span.storage.release()
        self.spans = []
        self.length = 0
        self.next_position = 0

    def __del__(self) -> None:
        self.release()
