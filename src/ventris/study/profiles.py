"""How often, where and when the large model is needed.

The measures of Zhang et al. 2024 (FS-GEN, arXiv 2406.12295): collaboration frequency is the share of tokens
that are not the small model's own choice; the position profile goes by t/T, the uncertainty profile by the
small model's distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ventris.study.areas import Area, area
from ventris.study.routers import SIGNALS
from ventris.study.seen_tokens import SeenTokens
from ventris.study.shares import Share, share

BINS = 10

DRAFTED = 5
"""Tokens drafted ahead where passes are counted; as many as the paper's speculative decoding drafts."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Tokens of a stretch.

    Attributes:
        low, high: Where it begins and ends.
        mismatches: Share of its tokens that the small model would not have written.
        of_mismatches, of_matches: Share of all mismatches, and of all other tokens, that lie in it.
    """

    low: float
    high: float
    mismatches: Share
    of_mismatches: float | None
    of_matches: float | None


@dataclass(frozen=True, slots=True)
class Profile:
    """What a pair of models did in one method.

    Attributes:
        frequency: Share of tokens that the small model would not have written (collaboration frequency).
        passes: Passes of the large model a token, were the small one to draft :data:`DRAFTED` tokens ahead in
            exact speculative decoding of the same text.
        first_tenth, rest: The same for the first tenth of each answer and for what follows.
        positions: By place in the answer, t/T.
        confidences: By the small model's largest probability.
        areas: How well each signal of uncertainty tells mismatches from other tokens: area under the ROC
            curve; ``None`` where one kind is missing.
    """

    frequency: Share
    passes: Share
    first_tenth: Share
    rest: Share
    positions: list[Bin]
    confidences: list[Bin]
    areas: dict[str, Area | None]


def profile(seen: SeenTokens, seed: int = 0) -> Profile:
    """The measures of the paper for tokens that were seen."""
    mismatch = seen.mismatch
    tenth = position_bin(seen)
    confidence = (seen.beliefs.top[:, 0] * BINS).long().clamp(0, BINS - 1)

    everything = torch.ones_like(mismatch)

    def of(among: Tensor) -> Share:
        return share(mismatch, among, seen.question, seed)

    return Profile(
        of(everything),
        share(begins_pass(seen, DRAFTED), everything, seen.question, seed),
        of(tenth == 0),
        of(tenth > 0),
        _bins(seen, tenth, seed),
        _bins(seen, confidence, seed),
        {name: area(signal(seen.beliefs), mismatch, seen.question, seed) for name, signal in SIGNALS.items()},
    )


def position_bin(seen: SeenTokens) -> Tensor:
    """The tenth of its answer that each token lies in, 0 to 9, int64 ``[n]``."""
    return seen.place * BINS // seen.length


def begins_pass(seen: SeenTokens, drafted: int) -> Tensor:
    """The tokens with which a pass of exact speculative decoding begins, bool ``[n]``.

    A pass keeps drafts up to the first that is not the text's own token; that token, or the one behind the
    last draft, is its last.

    Args:
        drafted: Tokens drafted ahead.
    """
    begins, left = [], 0
    for place, differs in zip(seen.place.tolist(), seen.mismatch.tolist(), strict=True):
        begins.append(place == 0 or left == 0)
        if begins[-1]:
            left = drafted + 1
        left = 0 if differs else left - 1
    return torch.tensor(begins, dtype=torch.bool)


def _bins(seen: SeenTokens, bins: Tensor, seed: int) -> list[Bin]:
    mismatch = seen.mismatch
    wrong, right = int(mismatch.sum()), int((~mismatch).sum())
    found = []
    for index in range(BINS):
        inside = bins == index
        found.append(
            Bin(
                index / BINS,
                (index + 1) / BINS,
                share(mismatch, inside, seen.question, seed),
                int((inside & mismatch).sum()) / wrong if wrong else None,
                int((inside & ~mismatch).sum()) / right if right else None,
            )
        )
    return found
