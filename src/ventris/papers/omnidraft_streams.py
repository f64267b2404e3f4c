"""OmniDraft on its way through a task: what each prompt's drafts came to, and what may be said of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ventris.bench.statistics import DRAWS, LEVEL
from ventris.draft.omnidraft import OmniDraft
from ventris.draft.omnidraft.session import Session
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.tree import TokenTree
from ventris.model import Model

Places = NDArray[np.int64]
"""Which prompts of a stream."""

Figure = Callable[["Stream", Places | None], float]
"""A figure of some prompts of a stream, or of all, taken together."""


@dataclass(slots=True)
class Pieces:
    """How drafts of several pieces did beside the others.

    Attributes:
        said: Tokens that the target said.
        foreign: Of these, tokens that the draft model writes as several.
        known: Of these, tokens whose merger was in the cache already.
        merged, merged_kept: Mergers that the target judged, and kept.
        single, single_kept: Other drafts that it judged, and kept.
    """

    said: int = 0
    foreign: int = 0
    known: int = 0
    merged: int = 0
    merged_kept: int = 0
    single: int = 0
    single_kept: int = 0

    def __str__(self) -> str:
        return (
            f"{_share(self.foreign, self.said)} of the tokens said are several pieces, "
            f"{_share(self.known, self.foreign)} of these were in the cache; kept of the judged drafts: "
            f"{_share(self.merged_kept, self.merged)} of {self.merged} mergers, "
            f"{_share(self.single_kept, self.single)} of {self.single} single tokens"
        )


@dataclass(slots=True)
class Stream:
    """A drafter's way through the prompts of a task, in lists by prompt.

    Attributes:
        drafted, accepted: Tokens proposed, and kept.
        tokens, passes: Tokens of the answer, and passes of the target for them.
        mergers: In the cache at the end.
        steps: Of learning.
    """

    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    mergers: int = 0
    steps: int = 0
    pieces: Pieces = field(default_factory=Pieces)

    @classmethod
    def of(
        cls, model: Model, prompts: Sequence[Sequence[int]], drafter: OmniDraft, max_new_tokens: int
    ) -> Stream:
        """Answer the prompts one after the other, greedily."""
        counting = _Counting(drafter)
        stream = cls(pieces=counting.pieces)
        for prompt in prompts:
            done = model.generate(list(prompt), max_new_tokens=max_new_tokens, draft=counting, policy="fixed")
            stream.drafted.append(done.stats.drafted)
            stream.accepted.append(done.stats.accepted)
            stream.tokens.append(len(done.tokens))
            stream.passes.append(done.stats.steps)
        stream.mergers, stream.steps = len(drafter.translator.mergers), drafter.teaching.steps
        return stream

    def __len__(self) -> int:
        return len(self.drafted)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Stream:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**stored, "pieces": Pieces(**stored["pieces"])})


class _Counting:
    """A drafter that is listened to, and is otherwise itself."""

    def __init__(self, drafter: OmniDraft) -> None:
        self.drafter = drafter
        self.name = drafter.name
        self.shape = drafter.shape
        self.draws = drafter.draws
        self.taps = drafter.taps
        self.pieces = Pieces()

    def start(self, request: RequestView) -> Session:
        return self.drafter.start(request)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        return self.drafter.propose(jobs)

    def observe(self, state: Session, commit: Commit) -> None:
        if commit.tree is not None and commit.next_token is not None:
            self._count(state, [*(commit.tree.tokens[node] for node in commit.path[1:]), commit.next_token])
        self.drafter.observe(state, commit)

    def finish(self, state: Session) -> None:
        self.drafter.finish(state)

    def _count(self, state: Session, said: Sequence[int]) -> None:
        pieces, mergers = self.pieces, self.drafter.translator.mergers
        for token in said:
            spelled = self.drafter.map.spell(token)
            pieces.said += 1
            pieces.foreign += len(spelled) > 1
            pieces.known += mergers.longest_at(spelled, 0) == (len(spelled), token)
        kept = len(state.matched(said))
        # Behind the first one that was refused nothing is judged.
        for number, word in enumerate(state.draft.words[: kept + 1]):
            if word.stop - word.start > 1:
                pieces.merged += 1
                pieces.merged_kept += number < kept
            else:
                pieces.single += 1
                pieces.single_kept += number < kept


def acceptance(stream: Stream, places: Places | None = None) -> float:
    """Share of the drafted tokens that were kept, over the prompts together."""
    return _total(stream.accepted, places) / max(_total(stream.drafted, places), 1)


def tokens_per_pass(stream: Stream, places: Places | None = None) -> float:
    """Tokens of the answers by passes of the target, over the prompts together."""
    return _total(stream.tokens, places) / max(_total(stream.passes, places), 1)


def difference(one: Stream, other: Stream, figure: Figure, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval, over prompts, of what ``one`` has more than ``other`` on the same ones."""
    rng = np.random.default_rng(seed)
    return _interval(
        [
            figure(one, places) - figure(other, places)
            for places in rng.integers(0, len(one), (DRAWS, len(one)))
        ]
    )


def rise(taught: Stream, untaught: Stream, figure: Figure, seed: int = 0) -> tuple[float, float, float]:
    """By how much the lead of one stream is larger in the last third than in the first, with its interval.

    Prompts at the end may be easier than those at the beginning; the drafter that learns nothing meets the
    same ones, so what it gains is taken off.

    Returns:
        The rise, and the ends of its 95 % bootstrap interval over the prompts of each third.
    """

    def lead(places: Places) -> float:
        return figure(taught, places) - figure(untaught, places)

    rng = np.random.default_rng(seed)
    first, last = thirds(len(taught))
    drawn = [lead(rng.choice(last, len(last))) - lead(rng.choice(first, len(first))) for _ in range(DRAWS)]
    return lead(last) - lead(first), *_interval(drawn)


def thirds(count: int) -> tuple[Places, Places]:
    """The first and the last third of so many prompts, one at least."""
    part = max(count // 3, 1)
    return np.arange(part), np.arange(count - part, count)


def curve(stream: Stream, figure: Figure, points: int = 10) -> list[float]:
    """A figure over a stream cut into so many parts."""
    parts = np.array_split(np.arange(len(stream)), min(points, len(stream)))
    return [figure(stream, places) for places in parts]


def _interval(drawn: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _total(counts: Sequence[int], places: Places | None) -> int:
    return int(np.asarray(counts)[slice(None) if places is None else places].sum())


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
