"""Drafts that follow the guides of a request: what a guide forbids is no guess.

A drafter that does not know the guide guesses what the mask takes away again, and its draft ends there. With
the mask the place of a wrong guess goes to the likeliest token that may come, and where only one may, it is
certain. Which tokens are drafted never decides what the output is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ventris.engine.parts import DraftJob
from ventris.engine.sampling import Row
from ventris.engine.tree import TokenTree
from ventris.models.native.rows import most_probable

Guess = tuple[int, float]
"""A token with its probability."""


ASKED = 3
"""Tokens that the guides are asked about for each that is wanted, before they are asked for a mask."""


Answer = TypeVar("Answer")


class _Shielded:
    """A guide's state that answers, where the guide fails, that nothing follows.

    That the text may come there and fail is not the drafter's affair, and still less that of the other
    requests that it drafts for.
    """

    __slots__ = ("_state",)

    def __init__(self, state: Any) -> None:
        self._state = state

    def behind(self, token: int) -> _Shielded:
        def moved(state: Any) -> Any:
            state = state.fork()
            state.advance(token)
            return state

        return _Shielded(self._asked(moved, None))

    def allowed(self, width: int) -> NDArray[np.bool_]:
        return self._asked(lambda state: state.allowed(width), np.zeros(width, np.bool_))

    def following(self, tokens: Sequence[int]) -> tuple[list[int], bool]:
        return self._asked(lambda state: state.following(tokens), ([], False))

    def _asked(self, question: Callable[[Any], Answer], otherwise: Answer) -> Answer:
        try:
            return question(self._state)
        except MemoryError:
            raise
        except Exception:
            return otherwise


class GuidedRows:
    """Masks a drafter's rows at the nodes of one tree.

    Args:
        job: Has the guides' states at the root; those that cannot say what they allow are left aside.
        ids: The listed tokens, int64 ``[listed]``.
        vocab_size: Of the target.
    """

    def __init__(self, job: DraftJob, ids: NDArray[np.int64], vocab_size: int) -> None:
        self._ids = ids
        self._vocab_size = vocab_size
        self._states = {0: [_Shielded(state) for state in job.guides if hasattr(state, "allowed")]}

    def masked(self, tree: TokenTree, node: int, row: Row) -> Row:
        """A row over the listed tokens, ``[listed]``, without what may not follow ``node``."""
        for state in self._at(tree, node):
            row = np.where(state.allowed(self._vocab_size)[self._ids], row, np.float32(-np.inf))
        return row

    def likeliest(self, tree: TokenTree, node: int, row: Row, width: int) -> list[Guess]:
        """The likeliest ``width`` tokens behind ``node``, best first; fewer where fewer may follow.

        Their probabilities are among the tokens that may follow, or among the likeliest of those.
        """
        states = self._at(tree, node)
        if not states:
            return self._named(most_probable(row, width))
        guesses = self._named(most_probable(row, ASKED * width))
        tokens, complete = [token for token, _ in guesses], False
        for state in states:
            tokens, only = state.following(tokens)
            complete = complete or only
        if complete:
            return [(token, 1.0) for token in tokens]
        if len(tokens) == len(guesses):
            return guesses[:width]
        if len(tokens) >= width:
            may_follow = set(tokens)
            kept = [guess for guess in guesses if guess[0] in may_follow]
            # Nothing where a model is so sure of what is refused that the rest is rounded to zero.
            if mass := sum(chance for _, chance in kept):
                return [(token, chance / mass) for token, chance in kept[:width]]
        # Finding the mask takes ten times as long as asking for some tokens.
        row = self.masked(tree, node, row)
        if np.isneginf(row.max()):
            return []
        return [guess for guess in self._named(most_probable(row, width)) if guess[1] > 0]

    def _named(self, found: list[tuple[int, float]]) -> list[Guess]:
        return [(int(self._ids[place]), exp(chance)) for place, chance in found]

    def _at(self, tree: TokenTree, node: int) -> list[_Shielded]:
        """States behind a node, moved on from its parent's."""
        if not self._states[0]:
            return []
        if node not in self._states:
            token = tree.tokens[node]
            self._states[node] = [state.behind(token) for state in self._at(tree, tree.parents[node])]
        return self._states[node]
