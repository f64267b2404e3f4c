"""A text with rules that no mask keeps: a token that would end it with one of them broken is refused.

The masks of the grammar leave such rules to a check of the whole text. Wherever a token would end the text
for good, alone or with the text that it forces, that check is made before the token is allowed; an end token,
before the text may end. So a text that ends keeps every rule. Where nothing but a broken ending could
follow, decoding stops with an error. A rule that was broken half-way is noticed at the end alone, and the
text goes on while it has room.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from ventris.engine.parts import NodeView
from ventris.guide.closing import ends_with
from ventris.guide.hard_state import CANDIDATES, Form, HardState
from ventris.guide.limits import GuideStopped
from ventris.guide.matcher import Matcher
from ventris.guide.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_CHECKS = 2048
"""Texts of one request whose check is remembered."""


class OnlyBrokenEnds(GuideStopped):
    """Every way to go on would end the text with a rule broken."""


class CheckedForm(Form, Protocol):
    """What such a state asks of its guide."""

    def satisfied_meanwhile(self, texts: Sequence[bytes]) -> list[bool]: ...

    def last_bytes(self, text: bytes) -> bytes: ...

    @property
    def unmasked(self) -> Sequence[str]: ...


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
        ending = self._only_ending(token)
        return ending is not None and not self.keeps(ending)

    def _only_ending(self, token: int) -> tuple[int, ...] | None:
        """The token with what must follow it, where that is the end of the text; ``None`` elsewhere."""
        behind = self._matcher.deep_copy()
        if behind.try_consume_tokens([token]) != 1:
            return None
        forced = list(takewhile(lambda t: t not in self._vocabulary.end_ids, behind.compute_ff_tokens()))
        if forced and behind.try_consume_tokens(forced) != len(forced):
            return None
        return (token, *forced) if behind.is_accepting() and not self._goes_on(behind) else None

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        """As without checks; of the likeliest tokens those are forbidden too whose only ending is broken.

        Raises:
            OnlyBrokenEnds: where nothing is left then.
        """
        logits = super().adjust(logits, view)
        if self.broken or self.ended:
            return logits
        row = logits.numpy()
        allowed = np.flatnonzero(np.isfinite(row[: self._vocabulary.size]))
        likely = allowed[np.argsort(-row[allowed], kind="stable")][:CANDIDATES].tolist()
        endings = {t: ending for t in likely if t not in self._ends and (ending := self._only_ending(t))}
        kept = self._keeps_each(list(endings.values()))
        spoiling = [token for token, whole in zip(endings, kept, strict=True) if not whole]
        if len(spoiling) < allowed.size:
            row[spoiling] = -np.inf
        elif spoiling and self.deadline is None:
            raise self._dead_end()
        return logits

    def _ends_text(self, token: int) -> bool:
        return ends_with(self._matcher, self._vocabulary, [token])

    def _goes_on(self, behind: Matcher) -> bool:
        """Whether a whole text can become another one, as a number by one more digit."""
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
        broken = [token for token, whole in zip(ending, kept, strict=True) if not whole]
        spoiling = [token for token in broken if self._only_ending(token)]
        spoiling += [t for t in self._ends if t < width and not forbidden[t] and not self.keeps(())]
        left = forbidden.copy()
        left[spoiling] = True
        if not left.all():
            return left
        if self.deadline is None and not forbidden.all():
            raise self._dead_end()
        return forbidden

    def _dead_end(self) -> OnlyBrokenEnds:
        rules = ", ".join(self._guide.unmasked)
        return OnlyBrokenEnds(
            f"guide {self._guide.name!r} stopped after {len(self.tokens)} tokens: every way to go on would "
            f"end the text with a rule broken that no mask keeps ({rules}); set close to in-time, which "
            "keeps clear of such places"
        )
