"""How far the paper's rule for translated drafts is from exact, on toys small enough to enumerate."""

from __future__ import annotations

from collections.abc import Callable

from ventris.engine.verifier import Verifier
from ventris.testing.laws import beginnings, text_law, total_variation
from ventris.testing.toy import ToyTarget
from ventris.testing.vocabularies import translating_drafter
from ventris.verify.translated_rejection import TranslatedRejection

DRAFT_PIECES = ["a", "b", "c"]
TARGET_PIECES = ["a", "b", "c", "ab"]
MERGERS = [((0, 1), 3)]


def distance_from_exact(
    seed: int, make_verifier: Callable[[], Verifier] = TranslatedRejection
) -> tuple[float, float]:
    """Total variation of the laws of one and of two tokens from the target's own.

    Draft model and target are random laws over three tokens and over the same with a merger of two; drafts
    are drawn, three ahead, and the merger is known from the beginning.
    """
    target = ToyTarget(vocab_size=4, seed=seed, sharpness=1.0)
    draft = ToyTarget(vocab_size=3, seed=1000 + seed, sharpness=1.0)

    drafter = translating_drafter(
        draft, DRAFT_PIECES, TARGET_PIECES, MERGERS, depth=3, draw=True, merge=False
    )
    law = text_law(target, make_verifier, lambda: drafter, tokens=3)
    return total_variation(beginnings(law, 1), target), total_variation(beginnings(law, 2), target)
