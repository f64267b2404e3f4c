"""A queue that serves clients in turn, whatever each of them has piled up."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First in, first out for each key, and the keys in turn."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def put(self, key: str, item: Item) -> None:
        """Put an item behind those of the same key."""
        self._lines.setdefault(key, deque()).append(item)

    def take(self) -> Item:
        """The next item; its key goes to the end of the round.

        Raises:
            IndexError: if there is none.
        """
        if not self._lines:
            raise IndexError("the queue is empty")
        key, line = self._lines.popitem(last=False)
        item = line.popleft()
        if line:
            self._lines[key] = line
        return item

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take out all items of a kind."""
        taken = [item for line in self._lines.values() for item in line if unwanted(item)]
        kept = {key: deque(i for i in line if not unwanted(i)) for key, line in self._lines.items()}
        self._lines = OrderedDict((key, line) for key, line in kept.items() if line)
        return taken
