"""An instance fed to a guide token by token: is every token allowed, and may the text end there?"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch

from ventris.guide.checked_state import OnlyBrokenEnds
from ventris.guide.vocabulary import ByteTokenizer

SEPARATORS = {"compact": (",", ":"), "spaced": (", ", ": "), "flexible": (", ", ": ")}
"""Between items, and behind keys, by the guide's choice of whitespace."""

MOST_ORDERS = 100_000
"""Steps of the search through the orders of properties at most."""


@dataclass(slots=True)
class Fed:
    """What became of an instance.

    Attributes:
        allowed: No token was masked.
        may_end: The end token was not masked behind them. The public runner does not ask.
        broken_end: The guide stopped, as the text could only end with a rule broken that no mask keeps.
        valid: The guide calls the text valid; this is what a user is told.
        seconds: What each mask, with the step behind it, took.
        end: The last letters that were taken.
    """

    allowed: bool
    may_end: bool
    valid: bool
    seconds: list[float] = field(default_factory=list)
    end: str = ""
    broken_end: bool = False


class Feeder:
    """Feeds instances to one guide.

    Only the contract of guides is used (``start``, ``adjust``, ``advance``, ``valid``), so every back end is
    timed by the same code: a mask is computed, applied to a row of logits, and a token is taken.

    Args:
        guide: Bound to the tokenizer.
        tokenizer: Splits the instances.
        whitespace: As the guide was told.
    """

    def __init__(self, guide: Any, tokenizer: ByteTokenizer, whitespace: str) -> None:
        self.guide = guide
        self.tokenizer = tokenizer
        self.whitespace = whitespace
        self._row = torch.zeros(tokenizer.vocab_size)
        # numpy writes zeros without waking torch's threads, which would cost more than the mask.
        self._numbers = self._row.numpy()
        # As a request shows it to a guide: the tokens that end the text.
        self._request: Any = SimpleNamespace(end_ids=frozenset(tokenizer.eos_ids))

    def first_mask(self) -> None:
        """Start a request and compute its first mask."""
        self._numbers.fill(0)
        self.guide.start(self._request).adjust(self._row, None)

    def feed(self, data: Any) -> Fed:
        """Feed one instance, written with the separators of the whitespace.

        Raises:
            GuideStopped: if a mask passes a limit.
        """
        text = json.dumps(data, ensure_ascii=False, separators=SEPARATORS[self.whitespace])
        tokens = self.tokenizer.encode(text)
        state = self.guide.start(self._request)
        seconds: list[float] = []
        for place, token in enumerate(tokens):
            self._numbers.fill(0)
            started = perf_counter()
            try:
                state.adjust(self._row, None)
            except OnlyBrokenEnds:
                return Fed(True, False, False, seconds, self._spelled(tokens[:place]), broken_end=True)
            allowed = self._numbers[token] == 0
            if allowed:
                state.advance(token)
            seconds.append(perf_counter() - started)
            if not allowed:
                return Fed(False, False, False, seconds, self._spelled(tokens[: place + 1]))
        self._numbers.fill(0)
        try:
            state.adjust(self._row, None)
        except OnlyBrokenEnds:
            return Fed(True, False, False, seconds, self._spelled(tokens), broken_end=True)
        may_end = bool((self._numbers[list(self.tokenizer.eos_ids)] == 0).any())
        return Fed(True, may_end, bool(state.valid), seconds, self._spelled(tokens))

    def in_some_order(self, data: Any) -> bool:
        """Whether the instance passes with its properties in another order, which is the guide's to choose.

        False, too, for guides that cannot fork, and after :data:`MOST_ORDERS` steps.
        """
        return hasattr(self.guide.start(self._request), "fork") and _Orders(self).passes(data)

    def _spelled(self, tokens: list[int]) -> str:
        view = self.tokenizer.vocabulary_bytes
        return b"".join(view[token] for token in tokens[-40:]).decode(errors="replace")[-60:]


class _Orders:
    """A search over the orders of properties, byte by byte so that tokens do not matter."""

    def __init__(self, feeder: Feeder) -> None:
        self._feeder = feeder
        self._comma, self._colon = SEPARATORS[feeder.whitespace]
        spelled = feeder.tokenizer.vocabulary_bytes
        self._single = {text[0]: token for token, text in enumerate(spelled) if len(text) == 1}
        self._tried = 0

    def passes(self, data: Any) -> bool:
        end = self._value(self._feeder.guide.start(self._feeder._request), data)
        return end is not None and bool(end.valid)

    def _follow(self, place: Any, text: str) -> Any:
        """The state behind a text; ``None`` if it is forbidden, or too much was tried."""
        self._tried += 1
        if place is None or self._tried > MOST_ORDERS:
            return None
        twin = place.fork()
        for byte in text.encode():
            if byte not in self._single:
                return None
            twin.advance(self._single[byte])
        return None if twin.broken else twin

    def _value(self, place: Any, value: Any) -> Any:
        if isinstance(value, dict):
            return self._members(self._follow(place, "{"), list(value.items()), "")
        if isinstance(value, list):
            here = self._follow(place, "[")
            for index, item in enumerate(value):
                here = self._follow(here, self._comma if index else "")
                here = here and self._value(here, item)
            return self._follow(here, "]")
        return self._follow(place, json.dumps(value, ensure_ascii=False))

    def _members(self, place: Any, members: list[Any], before: str) -> Any:
        if place is None or not members:
            return self._follow(place, "}")
        for index, (key, value) in enumerate(members):
            here = self._follow(place, before + json.dumps(key, ensure_ascii=False) + self._colon)
            here = here and self._value(here, value)
            here = here and self._members(here, members[:index] + members[index + 1 :], self._comma)
            if here is not None:
                return here
        return None
