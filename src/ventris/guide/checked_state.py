"""A text with rules that no mask keeps: a token that would end it with one of them broken is refused.

The masks of the grammar leave such rules to a check of the whole text. Wherever a token would end the text
for good, that check is made before the token is allowed; an end token, before the text may end. So a text
that ends keeps every rule, unless nothing but that ending could follow: then the text ends and is told
invalid. A rule that was broken half-way is noticed at the end alone, and the text goes on while it has room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ventris.guide.closing import ends_with
from ventris.guide.hard_state import Form, HardState
from ventris.guide.matcher import Matcher
from ventris.guide.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_CHECKS = 2048
"""Texts of one request whose check is remembered."""


class CheckedForm(Form, Protocol):
    """What such a state asks of its guide."""

    def satisfied_meanwhile(self, texts: Sequence[bytes]) -> list[bool]: ...

    def last_bytes(self, text: bytes) -> bytes: ...


class CheckedState(HardState):
    """A place in a text of a language with rules that are checked on whole texts.

    Args:
        guide: Checks whole texts.
    """

    _guide: CheckedForm

    def __init__(
        self, guide: CheckedForm, vocabulary: Vocabulary, matcher: Matcher, end_ids: frozenset[int]
    ) -> None:
        super().__init__(guide, vocabulary, matcher, end_ids)
        self._checks: dict[bytes, bool] = {}

    def keeps(self, tokens: Sequence[int]) -> bool:
        return self._keeps_each([tokens])[0]

    def _keeps_each(self, endings: Sequence[Sequence[int]]) -> list[bool]:
        """For each ending whether the text with it keeps all rules; asked at once, and remembered."""
        view, text = self._vocabulary.token_bytes, self.text()
        whole = [text + b"".join([view[token] for token in tokens]) for tokens in endings]
        new = list(dict.fromkeys(text for text in whole if text not in self._checks))
        if new:
            if len(self._checks) >= KEPT_CHECKS:
                self._checks = {text: kept for text, kept in self._checks.items() if text in whole}
            self._checks |= zip(new, self._guide.satisfied_meanwhile(new), strict=True)
        return [self._checks[text] for text in whole]

    def spoils(self, token: int) -> bool:
        if token in self._ends:
            return not self.keeps(())
        last = self._vocabulary.last_bytes[token]
        return last in self._guide.last_bytes(self.text()) and self._ends_badly(token)

    def _ends_badly(self, token: int) -> bool:
        return self._ends_text(token) and not self.keeps((token,)) and not self._goes_on(token)

    def _ends_text(self, token: int) -> bool:
        return ends_with(self._matcher, self._vocabulary, [token])

    def _goes_on(self, token: int) -> bool:
        """Whether the whole text behind a token can become another one, as a number by one more digit."""
        behind = self._matcher.deep_copy()
        behind.try_consume_tokens([token])
        allowed = np.frombuffer(bytes(behind.compute_bitmask()), dtype=np.uint8)
        follows = np.unpackbits(allowed, count=self._vocabulary.size, bitorder="little").view(np.bool_)
        # Blanks and end tokens change nothing any more.
        follows[sorted(self._vocabulary.end_ids)] = False
        return bool((follows & (self._vocabulary.last_bytes != 0)).any())

    def _forbidden(self, width: int) -> NDArray[np.bool_]:
        forbidden = super()._forbidden(width)
        if self.ended:
            return forbidden
        size = min(width, self._vocabulary.size)
        last = np.frombuffer(self._guide.last_bytes(self.text()), dtype=np.uint8)
        may_end = np.isin(self._vocabulary.last_bytes[:size], last) & ~forbidden[:size]
        ending = [token for token in np.flatnonzero(may_end).tolist() if self._ends_text(token)]
        kept = self._keeps_each([(token,) for token in ending])
        spoiling = [t for t, whole in zip(ending, kept, strict=True) if not (whole or self._goes_on(t))]
        spoiling += [t for t in self._ends if t < width and not forbidden[t] and not self.keeps(())]
        left = forbidden.copy()
        left[spoiling] = True
        return forbidden if left.all() else left
