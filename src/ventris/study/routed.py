"""Decoding with a router: the small model writes, and the large one where the router asks for it.

The loop of Zhang et al. 2024 (FS-GEN, arXiv 2406.12295) is the engine's own: the small model drafts until the
router hands over, every draft is kept, and the large model chooses the token behind it. A model that was not
asked for a while catches up in one pass over what was written meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ventris.draft.model import DraftModel
from ventris.engine.parts import DraftJob
from ventris.engine.request import Completion
from ventris.engine.sampling import Row
from ventris.engine.target import Target
from ventris.model import Model
from ventris.policy.fixed import Fixed
from ventris.study.quality import likenesses, mean_nats
from ventris.study.routers import Signal, cut_for_rate, random_signal
from ventris.study.seen_tokens import Answer, Beliefs, SeenTokens
from ventris.study.shares import FEWEST, quantiles, resamples
from ventris.verify import ThresholdRollback

Numbers = NDArray[np.float64]


class RoutedModel(DraftModel):
    """A small model that writes until a router hands over.

    Args:
        small: It writes.
        signal: Its scores decide; see :data:`ventris.study.routers.Signal`.
        cut: From this score on the large model chooses the token.
        longest: Tokens written in a row at most.
    """

    name = "small model"

    def __init__(self, small: Target, signal: Signal, cut: float, longest: int) -> None:
        super().__init__(small, depth=longest, samples=0)
        self.signal = signal
        self.cut = cut

    def hands_over(self, job: DraftJob, row: Row) -> bool:
        """True where the router asks for the large model."""
        return float(self.signal(Beliefs.of(torch.from_numpy(row)[None]))[0]) >= self.cut


@dataclass(frozen=True, slots=True)
class Written:
    """Answers written together.

    Attributes:
        answers: Token ids of each.
        calls: Tokens of each that the large model chose.
    """

    answers: list[list[int]]
    calls: list[int]

    @property
    def rate(self) -> float:
        """Share of all tokens that the large model chose."""
        return sum(self.calls) / max(sum(map(len, self.answers)), 1)


@dataclass(frozen=True, slots=True)
class Quality:
    """How good answers are.

    Attributes:
        rate: Share of tokens that the large model chose.
        likeness: ROUGE-L of the answers to those of the large model alone, 0 to 100.
        nats: Mean of -ln p of their tokens under the large model.
        closed: Share of the small model's distance in likeness from the large one's that is closed.
        interval: 95 % of it, when the answers are resampled; ``None`` with too few of them.
    """

    rate: float
    likeness: float
    nats: float
    closed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class RoutedRun:
    """What a router did, beside random calls at the rate that it came to.

    Attributes:
        wanted: Share of tokens at which it should call, by the answers that its cut was chosen on.
        score: That cut; ``None`` where none calls at so few of those tokens, or all were wanted.
        gain: 95 % interval of how much more of the gap it closes than random calls; a router is better than
            chance only where this lies above 0. ``None`` with too few answers.
    """

    router: str
    wanted: float
    score: float | None
    found: Quality
    random: Quality
    gain: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class RoutedRuns:
    """Runs of several routers, and what they lie between.

    Attributes:
        small_likeness, small_nats: Of the small model alone; the large one's likeness is 100.
        large_nats: Of the large model's own answers.
    """

    small: str
    answers: int
    small_likeness: float
    small_nats: float
    large_nats: float
    runs: list[RoutedRun]


class Decoding:
    """Prompts answered by two models together, and how good the answers are.

    Args:
        model: The large model.
        small: The small one, over the same vocabulary.
        references: The large model's own answers, with their prompts.
        max_new_tokens: Output tokens at most.
    """

    def __init__(
        self, model: Model, small: Target, references: Sequence[Answer], max_new_tokens: int
    ) -> None:
        self.model = model
        self.small = small
        self.references = references
        self.max_new_tokens = max_new_tokens

    def with_router(self, signal: Signal, cut: float) -> Written:
        """Answers that the small model begins and a router hands over."""
        # The engine's last token is always the target's, so one more is asked for and taken off again.
        most = self.max_new_tokens + 1
        drafter = RoutedModel(self.small, signal, cut, most)
        written = Written([], [])
        for answer in self.references:
            done: Completion = self.model.generate(
                list(answer.prompt),
                draft=drafter,
                policy=Fixed(most, most),
                verifier=ThresholdRollback(math.inf),
                max_new_tokens=most,
                temperature=0.0,
                trace=True,
            )
            assert done.trace is not None  # asked for
            sources = [visit.source for step in done.trace.steps for visit in step.visits]
            tokens = list(done.tokens)[: self.max_new_tokens]
            written.answers.append(tokens)
            written.calls.append(sum(source != drafter.name for source in sources[: len(tokens)]))
        return written

    def likenesses(self, written: Written) -> list[float]:
        """ROUGE-L of each answer to the large model's own."""
        return likenesses(written.answers, self.references)

    def nats(self, answers: Sequence[Sequence[int]]) -> float:
        """Mean of -ln p over all tokens of the answers, under the large model."""
        return mean_nats(self.model, answers, self.references)


def decode_with_routers(
    decoding: Decoding,
    name: str,
    signals: dict[str, Signal],
    fitting: SeenTokens,
    rates: Sequence[float],
    seed: int = 0,
) -> RoutedRuns:
    """Decode with each router at each rate, and with random calls as often as the router came to call.

    Args:
        name: Of the small model.
        fitting: Tokens on which cuts are chosen.
    """
    alone = decoding.with_router(random_signal(seed), math.inf)
    floor = np.asarray(decoding.likenesses(alone))
    missing = 100 - floor

    def quality(written: Written) -> tuple[Quality, Numbers]:
        found = np.asarray(decoding.likenesses(written))
        closed, interval = share_of_gap(found - floor, missing, seed)
        nats = decoding.nats(written.answers)
        return Quality(written.rate, float(found.mean()), nats, closed, interval), found

    runs = []
    for router, signal in signals.items():
        known = signal(fitting.beliefs)
        for rate in rates:
            cut = cut_for_rate(known, rate)
            written = decoding.with_router(signal, cut)
            found, alike = quality(written)
            coin, by_chance = quality(decoding.with_router(random_signal(seed), 1 - written.rate))
            gain = share_of_gap(alike - by_chance, missing, seed)[1]
            runs.append(RoutedRun(router, rate, cut if math.isfinite(cut) else None, found, coin, gain))
    return RoutedRuns(
        name,
        len(decoding.references),
        float(floor.mean()),
        decoding.nats(alone.answers),
        decoding.nats([answer.tokens for answer in decoding.references]),
        runs,
    )


def share_of_gap(
    gained: Numbers, missing: Numbers, seed: int = 0
) -> tuple[float | None, tuple[float, float] | None]:
    """What was gained of what is missing, over all answers, and its 95 % interval over answers.

    ``None`` where nothing is missing, and for the interval with too few answers.
    """
    if missing.sum() <= 0:
        return None, None
    share = float(gained.sum() / missing.sum())
    if len(gained) < FEWEST:
        return share, None
    weights = resamples(len(gained), seed)
    kept = weights @ missing > 0
    return share, quantiles((weights @ gained)[kept] / (weights @ missing)[kept])
