"""A suffix automaton that grows token by token and counts what followed what.

Blumer et al. 1985. After each token it knows the longest end of the text that occurred before, and every
token that ever followed that end: exactly what a copying drafter needs, in constant time a token.
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_CHAIN = 32
"""Suffix links followed when counts are updated; repetitive text can make the chain as long as itself."""


class SuffixAutomaton:
    """Substrings of a growing sequence of tokens.

    State 0 is the empty string. For a state: ``length`` is its longest string, ``link`` the state of its
    longest proper ending in another state, ``follow`` the next state by token, ``count`` how often its
    strings occurred, ``latest`` the token that followed them most recently.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self.length = [0]
        self.link = [-1]
        self.follow: list[dict[int, int]] = [{}]
        self.count = [0]
        self.latest = [-1]
        self.last = 0
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """Add a token at the end."""
        self._remember_follower(token)
        new = self._new_state(self.length[self.last] + 1, 0)
        state = self.last
        while state != -1 and token not in self.follow[state]:
            self.follow[state][token] = new
            state = self.link[state]
        if state == -1:
            self.link[new] = 0
        else:
            known = self.follow[state][token]
            if self.length[state] + 1 == self.length[known]:
                self.link[new] = known
            else:
                self.link[new] = self.link[known] = self._split(state, token, known)
        self.last = new
        self._count_occurrence(new)

    @property
    def match(self) -> int:
        """State of the longest end of the text that occurred before; 0 if none did."""
        return max(self.link[self.last], 0)

    def _new_state(self, length: int, count: int) -> int:
        self.length.append(length)
        self.link.append(0)
        self.follow.append({})
        self.count.append(count)
        self.latest.append(-1)
        return len(self.length) - 1

    def _split(self, state: int, token: int, known: int) -> int:
        copy = self._new_state(self.length[state] + 1, self.count[known])
        self.follow[copy] = dict(self.follow[known])
        self.link[copy] = self.link[known]
        self.latest[copy] = self.latest[known]
        while state != -1 and self.follow[state].get(token) == known:
            self.follow[state][token] = copy
            state = self.link[state]
        return copy

    def _remember_follower(self, token: int) -> None:
        state = self.last
        for _ in range(LONGEST_CHAIN):
            if state <= 0:
                return
            self.latest[state] = token
            state = self.link[state]

    def _count_occurrence(self, state: int) -> None:
        for _ in range(LONGEST_CHAIN):
            if state <= 0:
                return
            self.count[state] += 1
            state = self.link[state]
