"""Ways to end a text of a language: searched for with bounded work, and kept while the text is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np

from ventris.guide.matcher import Matcher
from ventris.guide.vocabulary import Vocabulary

Keeps = Callable[[Sequence[int]], bool]

ROLLOUTS = 4
"""Straight attempts before a search in the breadth."""

LONGEST = 1000
"""Tokens that a straight attempt takes at most."""

EXPANSIONS = 300
"""Places looked at by that search, some tenths of a millisecond each."""

WIDTH = 28
"""Tokens tried at one place, unless none of them leads anywhere."""

REVISIT = 3
"""Tokens that a place costs more for every place before it that allows the same, against loops."""


def find_ending(
    matcher: Matcher,
    vocabulary: Vocabulary,
    longest: int,
    keeps: Keeps = lambda _: True,
    thorough: bool = True,
) -> list[int] | None:
    """Tokens that make a whole text of the language, few but not always the fewest.

    Args:
        matcher: Where the text stands; it is not moved.
        longest: Tokens at most.
        keeps: Whether the text that is whole behind some tokens keeps the rules that no mask knows.
        thorough: Try everything; otherwise one straight attempt.

    Returns:
        ``None`` if bounded work finds no such ending.
    """
    if matcher.is_accepting() and keeps([]):
        return []
    for turn in range(ROLLOUTS if thorough else 1):
        # Characters one by one may be twice as many as the tokens that spell them in the end.
        found = _go_straight(matcher, vocabulary, min(2 * longest, LONGEST), turn)
        found = _respelled(matcher, vocabulary, found) if found else None
        if found and len(found) <= longest and keeps(found):
            return found
    return _go_broad(matcher, vocabulary, longest, keeps) if thorough else None


def _go_straight(matcher: Matcher, vocabulary: Vocabulary, longest: int, turn: int) -> list[int] | None:
    """Close what can be closed, else take what changes anything: another choice at every visit and turn."""
    here, tokens = matcher.deep_copy(), list[int]()
    visits: dict[bytes, int] = {}
    closing = set(vocabulary.likely.closing)
    while len(tokens) < longest:
        forced = here.compute_ff_tokens()
        if forced:
            if here.try_consume_tokens(forced) != len(forced):
                return None
            tokens += forced
            if here.is_accepting():
                return tokens
            continue
        mask = bytes(here.compute_bitmask())
        options = _candidates(mask, vocabulary)
        useful: list[tuple[int, Matcher]] = []
        for place, token in enumerate(options):
            if place >= WIDTH and (useful or turn % 2 == 0):
                break
            there = here.deep_copy()
            if there.try_consume_tokens([token]) != 1:
                continue
            if there.is_accepting():
                return [*tokens, token]
            if bytes(there.compute_bitmask()) != mask:
                useful.append((token, there))
                if token in closing:
                    break
        if not useful:
            fillers = [token for token in vocabulary.likely.fillers if mask[token >> 3] >> (token & 7) & 1]
            token = next(iter([*fillers, *options]), -1)
            if token < 0 or here.try_consume_tokens([token]) != 1:
                return None
        elif useful[-1][0] in closing:
            token, here = useful[-1]
        else:
            visits[mask] = visits.get(mask, -1) + 1
            token, here = useful[(visits[mask] + turn) % len(useful)]
        tokens.append(token)
        if here.is_error():
            return None
    return None


def _go_broad(matcher: Matcher, vocabulary: Vocabulary, longest: int, keeps: Keeps) -> list[int] | None:
    """The shortest ending first, places that allow the same tokens as others before them later."""
    count = 0
    seen: dict[bytes, int] = {}
    heap: list[tuple[int, int, Matcher, list[int]]] = [(0, 0, matcher, [])]
    for _ in range(EXPANSIONS):
        if not heap:
            return None
        cost, _, here, tokens = heappop(heap)
        if len(tokens) >= longest:
            continue
        forced = here.compute_ff_tokens()
        mask = bytes(here.compute_bitmask())
        options = [forced] if forced else [[token] for token in _candidates(mask, vocabulary)[:WIDTH]]
        siblings: set[bytes] = set()
        for option in options:
            there = here.deep_copy()
            if there.try_consume_tokens(option) != len(option):
                continue
            reached = [*tokens, *option]
            if there.is_accepting() and keeps(reached):
                return reached if len(reached) <= longest else None
            mask = bytes(there.compute_bitmask())
            if there.is_error() or mask in siblings:
                continue
            siblings.add(mask)
            seen[mask] = seen.get(mask, -1) + 1
            count += 1
            heappush(heap, (cost + len(option) + REVISIT * seen[mask], count, there, reached))
    return None


def _candidates(mask: bytes, vocabulary: Vocabulary) -> list[int]:
    """Allowed tokens to try, the likely ones first; all of them if they are few."""
    packed = np.frombuffer(mask, dtype=np.uint8)
    allowed = np.unpackbits(packed, count=vocabulary.size, bitorder="little").view(np.bool_)
    likely = vocabulary.likely
    found = [token for token in (*likely.closing, *likely.short) if allowed[token]]
    if int(allowed.sum()) <= WIDTH:
        others = set(np.flatnonzero(allowed).tolist()) - vocabulary.end_ids
        return list(dict.fromkeys([*found, *sorted(others)]))
    return found


def _respelled(matcher: Matcher, vocabulary: Vocabulary, tokens: list[int]) -> list[int]:
    """The same text in the tokenizer's own, mostly fewer tokens, where the matcher takes them."""
    data = b"".join(vocabulary.token_bytes[token] for token in tokens)
    try:
        split = vocabulary.split(data.decode())
    except UnicodeDecodeError:
        return tokens
    fits = len(split) < len(tokens) and b"".join(vocabulary.token_bytes[t] for t in split) == data
    return split if fits and ends_with(matcher, vocabulary, split) else tokens


def ends_with(matcher: Matcher, vocabulary: Vocabulary, tokens: list[int]) -> bool:
    """Whether the text is whole once ``tokens`` have followed."""
    # The matcher takes an end token where a text may end.
    path = [*tokens, next(iter(vocabulary.end_ids))]
    return bool(matcher.validate_tokens(path) == len(path))


@dataclass(slots=True)
class Deadline:
    """Sees to it that a text can always be ended in time.

    It keeps one ending that fits the tokens left. A token may follow if it begins that ending, or if behind
    it an ending that fits is known: the same one, or one that a bounded search finds. So the text always
    ends in time once there was an ending at the beginning; a token whose endings are missed is refused.

    Args:
        ending: Tokens that would make the text whole.
        left: Tokens left, the one that ends the text among them.
    """

    vocabulary: Vocabulary
    ending: list[int]
    left: int
    _known: dict[int, list[int] | None] = field(default_factory=dict)

    def after(self, matcher: Matcher, token: int, keeps: Keeps) -> list[int] | None:
        """An ending that fits behind a token that the language allows; ``None`` if none is known.

        Args:
            keeps: Whether the text that is whole behind some tokens keeps the rules that no mask knows.
        """
        if token not in self._known:
            self._known[token] = self._after(matcher, token, keeps)
        return self._known[token]

    def _after(self, matcher: Matcher, token: int, keeps: Keeps) -> list[int] | None:
        room = self.left - 2
        if self.ending and token == self.ending[0]:
            return self.ending[1:]
        for kept in (self.ending, self.ending[1:]):
            whole = [token, *kept]
            if len(kept) <= room and ends_with(matcher, self.vocabulary, whole) and keeps(whole):
                return kept
        behind = matcher.deep_copy()
        if room < 0 or behind.try_consume_tokens([token]) != 1:
            return None
        return find_ending(
            behind, self.vocabulary, room, lambda tokens: keeps([token, *tokens]), thorough=False
        )

    def advance(self, matcher: Matcher, token: int, keeps: Keeps) -> Deadline | None:
        """The deadline behind a token; ``None`` if it can no longer be kept.

        Args:
            matcher: Still before the token.
            keeps: As for :meth:`after`.
        """
        ending = self.after(matcher, token, keeps)
        return None if ending is None else Deadline(self.vocabulary, ending, self.left - 1)
