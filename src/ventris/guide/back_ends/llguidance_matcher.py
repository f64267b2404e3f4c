"""Matchers of llguidance that outlive a limit which another one passed.

llguidance builds the automaton of a grammar's tokens as texts need it, once for all copies of a matcher. When
it passes a limit, for a mask that one text or one drafter asked for, it is of no use to any of them from then
on: they refuse every token. Here the others get a new automaton and go on where they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self

from llguidance import LLMatcher

Path = tuple[Any, list[int]] | None
"""Tokens on the way to a place, the last ones first; copies share what came before."""


class Automaton:
    """What all matchers of one grammar share.

    Args:
        make: Builds it, as a matcher at the beginning of the text.

    Attributes:
        number: Counts the automata that there were.
        dear: Whether one has passed a limit.
    """

    def __init__(self, make: Callable[[], LLMatcher]) -> None:
        self.number = 0
        self.dear = False
        self._make = make
        self._start: LLMatcher | None = make()
        self._lock = threading.Lock()

    def start(self) -> tuple[LLMatcher, int]:
        """A matcher at the beginning of the text, and the automaton's number."""
        with self._lock:
            if self._start is None:
                self._start = self._make()
            return self._start.deep_copy(), self.number

    def give_up(self, number: int) -> None:
        """Let nobody use an automaton any more that has passed a limit."""
        with self._lock:
            self.dear = True
            if number == self.number:
                self.number += 1
                self._start = None


class LLGuidanceMatcher:
    """A :class:`ventris.guide.matcher.Matcher`."""

    __slots__ = ("_automaton", "_live", "_number", "_path", "_stopped")

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._live, self._number = automaton.start()
        self._path: Path = None
        self._stopped = False

    @property
    def dear(self) -> bool:
        """Whether a limit was passed with this grammar before."""
        return self._automaton.dear

    def deep_copy(self) -> Self:
        """An independent copy."""
        # If need be a new automaton is built here, where a guide is made ready, and not within a text.
        live = self._current()
        twin = object.__new__(type(self))
        twin._automaton, twin._number = self._automaton, self._number
        twin._path, twin._stopped = self._path, self._stopped
        twin._live = live.deep_copy()
        return twin

    def try_consume_tokens(self, tokens: list[int], /) -> int:
        """Follow tokens as far as they are allowed; how many were."""
        live = self._current()
        count = live.try_consume_tokens(tokens)
        if count:
            self._path = (self._path, tokens[:count])
        if count < len(tokens):
            self._notice(live)
        return count

    def validate_tokens(self, tokens: list[int], /) -> int:
        """How many tokens are allowed one behind another; an end token is where the text may end."""
        return self._current().validate_tokens(tokens)

    def unsafe_compute_mask_ptr(self, address: int, size: int, /) -> None:
        """Write the mask, one bit a token and the lowest first, into ``size`` bytes at ``address``."""
        live = self._current()
        live.unsafe_compute_mask_ptr(address, size)
        self._notice(live)

    def compute_bitmask(self) -> bytes:
        """The same mask as bytes."""
        live = self._current()
        mask = live.compute_bitmask()
        self._notice(live)
        return mask

    def compute_ff_tokens(self) -> list[int]:
        """Tokens of the text that must come next."""
        return self._current().compute_ff_tokens()

    def is_accepting(self) -> bool:
        """Whether the text may end here."""
        return self._current().is_accepting()

    def is_error(self) -> bool:
        """Whether the matcher gave up."""
        return self._live.is_error()

    def get_error(self) -> str:
        """Why; empty if it did not."""
        return self._live.get_error()

    def _current(self) -> LLMatcher:
        if self._number != self._automaton.number and not self._stopped:
            live, number = self._automaton.start()
            tokens = self._tokens()
            if live.try_consume_tokens(tokens) == len(tokens):
                self._live, self._number = live, number
            else:
                # Not even the text so far can be followed; the old automaton refuses every token.
                self._stopped = True
        return self._live

    def _tokens(self) -> list[int]:
        """What was followed so far."""
        parts, path = list[list[int]](), self._path
        while path is not None:
            path, last = path
            parts.append(last)
        return [token for part in reversed(parts) for token in part]

    def _notice(self, live: LLMatcher) -> None:
        if live.is_error() and "lexer error" in live.get_error():
            self._stopped = True
            self._automaton.give_up(self._number)
