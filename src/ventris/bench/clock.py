"""When the tokens of a run arrived: one definition of decode time for every runtime."""

from __future__ import annotations

from time import perf_counter


class Clock:
    """Started when the prompt is handed over; told about tokens as they arrive.

    Reading the prompt ends with the first arrival. Decode tokens are those after that arrival, decode
    seconds those from it to the last one.
    """

    __slots__ = ("_first", "_first_count", "_last", "_started", "count")

    def __init__(self) -> None:
        self.count = 0
        self._first_count = 0
        self._started = self._first = self._last = perf_counter()

    def arrived(self, tokens: int) -> None:
        """``tokens`` more are here."""
        self._last = perf_counter()
        if not self.count:
            self._first, self._first_count = self._last, tokens
        self.count += tokens

    @property
    def first_seconds(self) -> float:
        """From the prompt to the first token."""
        return self._first - self._started

    @property
    def decode_tokens(self) -> int:
        return self.count - self._first_count

    @property
    def decode_seconds(self) -> float:
        return self._last - self._first
