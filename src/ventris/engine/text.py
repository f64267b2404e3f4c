"""From tokens to the text a person may see: nothing that could still turn out to be a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Turns one sequence's tokens into text piece by piece."""

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is unfinished."""
        ...

    def finish(self) -> str:
        """What is left at the end."""
        ...


class StopMatcher:
    """Holds back text that may be the beginning of a stop string.

    Args:
        stops: Strings that end the text; none of them becomes part of it.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Text that is safe to show; sets :attr:`stopped` when a stop string was met."""
        if not self._stops:
            return piece
        held = self._held + piece
        places = [place for place in (held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.stopped = True
            self._held = ""
            return held[: min(places)]
        keep = max(self._overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """The text held back, once nothing follows."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest proper beginning of ``stop`` that ``text`` ends with."""
        longest = min(len(stop) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
