"""The cache of a sequence in a model of two processes: one half here, its twin beside the other layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ventris.engine.cache import CacheLayout, KVCache, Span
from ventris.engine.ledger import MemoryLedger
from ventris.models.split.link import Link


class MirroredCache(KVCache):
    """Rows of the first layers; whatever is done to them is done to those of the other layers too.

    The other process has the same class of cache, and is told what happens here before the next pass that
    needs it. So both hold the same rows of the same tokens, in blocks of the same capacity, and give them
    back in the same order; the other one a little later.

    Args:
        link: To the other process; otherwise as :class:`KVCache`.
    """

    def __init__(
        self, layout: CacheLayout, capacity: int, ledger: MemoryLedger | None, owner: str, link: Link
    ) -> None:
        self.number = next(link.numbers)
        self._link = link
        self._told = False
        super().__init__(layout, capacity, ledger, owner)

    def _tell(self, what: str, *values: Any) -> None:
        self._told = True
        self._link.tell(what, self.number, *values)

    def begin_at(self, position: int) -> None:
        super().begin_at(position)
        self._tell("begin_at", position)

    def reserve(self, nodes: int, filled: int = 0) -> Span:
        span = super().reserve(nodes, filled)
        self._tell("reserve", self._hint, nodes, filled)
        return span

    def commit(self, path: Sequence[int]) -> None:
        super().commit(path)
        self._tell("commit", [int(row) for row in path])

    def truncate(self, length: int) -> None:
        super().truncate(length)
        self._tell("truncate", length)

    def fork(self) -> KVCache:
        twin = super().fork()
        assert isinstance(twin, MirroredCache)
        self._tell("fork", twin.number)
        twin._told = True
        return twin

    def _empty(self) -> KVCache:
        return MirroredCache(self.layout, self._hint, None, self.owner, self._link)

    def keep(self, rows: Tensor) -> None:
        """As :meth:`KVCache.keep`; rows for each layer are given for the layers of both processes."""
        here, there = rows, rows
        if rows.dim() == 2:
            here, there = rows[: self.layout.layers], rows[self.layout.layers :]
        super().keep(here)
        self._tell("keep", there.tolist())

    def compact(self) -> None:
        super().compact()
        self._tell("compact")

    def release(self) -> None:
        super().release()
        if self._told:
            self._tell("release")

    def __del__(self) -> None:
        super().__del__()
        if self._told:
            self._tell("forget")


def _reserve(cache: KVCache, hint: int, nodes: int, filled: int) -> None:
    cache.expect(hint)
    cache.reserve(nodes, filled)


def _keep(cache: KVCache, rows: list[Any]) -> None:
    cache.keep(torch.tensor(rows, dtype=torch.int64))


COMMANDS: dict[str, Callable[..., None]] = {
    "begin_at": KVCache.begin_at,
    "reserve": _reserve,
    "commit": KVCache.commit,
    "truncate": KVCache.truncate,
    "keep": _keep,
    "compact": KVCache.compact,
    "release": KVCache.release,
}
"""What the other process does to a twin, by the name of the command."""


class Twins:
    """The caches of the other process, by their numbers.

    Args:
        new: Makes an empty one.
    """

    def __init__(self, new: Callable[[], KVCache]) -> None:
        self._new = new
        self._caches: dict[int, KVCache] = {}

    def __len__(self) -> int:
        return len(self._caches)

    def obey(self, what: str, number: int, *values: Any) -> None:
        """Carry out one command."""
        if what == "forget":
            self._caches.pop(number, None)
        elif what == "fork":
            self._caches[values[0]] = self[number].fork()
        else:
            COMMANDS[what](self[number], *values)

    def __getitem__(self, number: int) -> KVCache:
        if number not in self._caches:
            self._caches[number] = self._new()
        return self._caches[number]
