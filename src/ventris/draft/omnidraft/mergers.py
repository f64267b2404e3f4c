"""The n-gram cache: which sequences of draft tokens a target writes as one token.

It begins empty and is learnt from what the target says; see :mod:`ventris.draft.omnidraft.drafter`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Pieces = tuple[int, ...]

LONGEST = 6
"""Draft tokens of a merger at most."""

MOST = 65_536
"""Mergers kept; the one that was not used for longest goes first."""


class Mergers:
    """Draft token sequences, two tokens or more, with the target token that has the same bytes.

    Args:
        longest: Draft tokens of a sequence at most.
        most: Sequences kept.
    """

    def __init__(self, longest: int = LONGEST, most: int = MOST) -> None:
        self.longest = longest
        self.most = most
        self._tokens: OrderedDict[Pieces, int] = OrderedDict()
        self._below: dict[Pieces, Counter[int]] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[tuple[Pieces, int]]:
        """All mergers, the one that was not used for longest first."""
        return iter(self._tokens.items())

    def learn(self, pieces: Pieces, token: int) -> bool:
        """Note that ``pieces`` are ``token``; true if that is news.

        What is known stays: no sequence ever means two tokens. Sequences that are too long are left alone.
        """
        if not 2 <= len(pieces) <= self.longest:
            return False
        if pieces in self._tokens:
            self._tokens.move_to_end(pieces)
            return False
        self._tokens[pieces] = token
        for length in range(1, len(pieces)):
            self._below.setdefault(pieces[:length], Counter())[pieces[length]] += 1
        if len(self._tokens) > self.most:
            self._forget(next(iter(self._tokens)))
        return True

    def _forget(self, pieces: Pieces) -> None:
        del self._tokens[pieces]
        for length in range(1, len(pieces)):
            below = self._below[pieces[:length]]
            below[pieces[length]] -= 1
            if not below[pieces[length]]:
                del below[pieces[length]]
            if not below:
                del self._below[pieces[:length]]

    def longest_at(self, ids: Sequence[int], start: int) -> tuple[int, int] | None:
        """Length and token of the longest merger that ``ids`` hold from ``start`` on."""
        found: Pieces | None = None
        for stop in range(start + 2, min(start + self.longest, len(ids)) + 1):
            pieces = tuple(ids[start:stop])
            if pieces in self._tokens:
                found = pieces
            if pieces not in self._below:
                break
        if found is None:
            return None
        self._tokens.move_to_end(found)
        return len(found), self._tokens[found]

    def begins(self, ids: Sequence[int]) -> bool:
        """True if some merger begins with ``ids`` and goes on after them."""
        return tuple(ids) in self._below

    def completions(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Last piece and token of all mergers that have one piece more than ``ids``."""
        begun = tuple(ids)
        ways = self._below.get(begun, ())
        return [(piece, self._tokens[(*begun, piece)]) for piece in ways if (*begun, piece) in self._tokens]

    @property
    def most_bytes(self) -> int:
        """Bytes that :meth:`tensors` can come to."""
        return self.most * (self.longest + 2) * torch.int32.itemsize

    def tensors(self) -> dict[str, Tensor]:
        """All mergers for storing, oldest use first."""
        return {
            "mergers.pieces": torch.tensor(
                [id for pieces in self._tokens for id in pieces], dtype=torch.int32
            ),
            "mergers.lengths": torch.tensor([len(pieces) for pieces in self._tokens], dtype=torch.int32),
            "mergers.tokens": torch.tensor(list(self._tokens.values()), dtype=torch.int32),
        }

    def fill(self, stored: dict[str, Tensor]) -> None:
        """Learn what :meth:`tensors` gave."""
        pieces = stored["mergers.pieces"].tolist()
        place = 0
        lengths, tokens = stored["mergers.lengths"].tolist(), stored["mergers.tokens"].tolist()
        for length, token in zip(lengths, tokens, strict=True):
            self.learn(tuple(pieces[place : place + length]), token)
            place += length
