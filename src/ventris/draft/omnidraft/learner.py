"""Online distillation: what verification shows is learnt between rounds (sections on training of the paper).

    L = L_direct + weight * L_merged

L_direct is a KL divergence between the draft model and the target where the target said a token that the
draft vocabulary has too, over the likeliest shared tokens and one bucket for all the rest. The paper takes
the reverse one, which a small draft model follows slowly: it weighs each token by what the draft model
thinks of it already. On 60 programming tasks new to the shipped one, acceptance came from .026 to .071 with
the reverse one and to .120 with the forward one.

Where the target said a token that the draft model writes as several, only that token is known, and L_merged
is minus the log-probability of its pieces. The length head learns beside it, by weighted binary
cross-entropy on the chance of acceptance.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ventris.draft.omnidraft.byte_map import NONE, ByteMap
from ventris.draft.omnidraft.network import LearningNetwork

CANDIDATES = 256
"""Shared tokens of the target's law that are told apart; the others share the rest bucket."""

SMALLEST = 1e-6
"""Least probability in a logarithm, so that what the target rules out costs much and not everything."""

REFUSED_WEIGHT = 3.0
"""How much more a refused draft counts for the length head than an accepted one."""

HEAD_RATE = 1e-3
"""Learning rate of the length head."""

HEAD_STEPS = 4
"""Steps of the length head for one of the draft model (the interleaved schedule: it follows a moving one)."""

JUDGED = 4096
"""Judged drafts that the length head learns from, the latest ones."""

HEAD_BATCH = 256
"""Of these in a step."""


MergedWeight = Annotated[float, Field(ge=0)] | Literal["target"]
"""Of the loss on merged tokens: one for all of them, or how likely the target finds each."""


Divergence = Literal["forward", "reverse"]
"""``forward``: KL(p || q) from target to draft model. ``reverse``: KL(q || p), as in the paper."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A target token that was emitted, as draft ids ``start .. stop - 1`` of a passage."""

    start: int
    stop: int
    token: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of text in draft ids with what the target thought of some of it.

    Attributes:
        ids: Draft ids, some context first.
        lessons: Emitted tokens, in order.
        logits: What the target said where each of them was emitted, ``[lessons, target_size]``.
    """

    ids: Sequence[int]
    lessons: Sequence[Lesson]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Judged:
    """Drafts that the target has looked at.

    Attributes:
        rows: The draft model's last rows at them, ``[n, d]``.
        chances: How likely they were to be accepted, float32 ``[n]``.
    """

    rows: Tensor
    chances: Tensor


@dataclass(frozen=True, slots=True)
class _Taught:
    """A passage with the target's laws made small.

    Attributes:
        direct: Lessons whose token has a counterpart.
        candidates: The likeliest shared tokens there, as draft ids, int64 ``[direct, K]``.
        log_law: Their log-probabilities and that of the rest, ``[direct, K + 1]``.
        merged: The other lessons.
        chances: How likely the target found the tokens of these, float32 ``[merged]``.
    """

    ids: Sequence[int]
    direct: Sequence[Lesson]
    candidates: Tensor
    log_law: Tensor
    merged: Sequence[Lesson]
    chances: Tensor


class Learner:
    """Teaches a draft model from passages; a bounded number of late ones is learnt again.

    Args:
        network: The draft model; changed in place.
        map: The two vocabularies.
        merged_weight: Of the loss on merged tokens (lambda in the paper); ``"target"`` for the target's own
            probability of each of them.
        divergence: What the direct loss is.
        learning_rate: Of AdamW; 5e-4 for low-rank changes and 1e-4 for all weights if not given.
        passages: Kept for learning again.
        batch: Passages of a step, the new one among them.
        clip: Largest norm of a gradient.
    """

    def __init__(
        self,
        network: LearningNetwork,
        map: ByteMap,
        merged_weight: MergedWeight = 0.2,
        divergence: Divergence = "forward",
        learning_rate: float | None = None,
        passages: int = 16,
        batch: int = 2,
        clip: float = 1.0,
    ) -> None:
        self.network = network
        self.merged_weight = merged_weight
        self.divergence = divergence
        self.batch = batch
        self.clip = clip
        self.steps = 0
        self._map = map
        self._rate = learning_rate or (5e-4 if network.rank else 1e-4)
        self._kept: deque[_Taught] = deque(maxlen=passages)
        self._judged: deque[Judged] = deque()
        self._random = random.Random(0)
        shared = map.target_of != NONE
        self._shared = torch.from_numpy(shared.nonzero()[0])
        self._counterparts = torch.from_numpy(map.target_of[shared])

    # Made where they are first needed, off the critical path: torch takes seconds to import what they need.

    @cached_property
    def _optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.network.drafting, lr=self._rate, weight_decay=0.0)

    @cached_property
    def _head_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.network.length_head.parameters(), lr=HEAD_RATE)

    def learn(self, passage: Passage, judged: Judged) -> dict[str, Tensor] | None:
        """One step of the draft model and some of its length head.

        Returns:
            The new weights by the names of a transformers checkpoint; ``None`` if the step led to numbers
            that are not finite, and has been taken back.
        """
        taught = self._teach(passage)
        before = self.network.learnt()
        again = self._random.sample(list(self._kept), min(self.batch - 1, len(self._kept)))
        self._kept.append(taught)
        with torch.enable_grad():
            self._step([taught, *again])
            self._follow(judged)
        self.steps += 1
        if not all(bool(tensor.isfinite().all()) for tensor in self.network.learnt().values()):
            self.network.fill(before)
            self._optimizer.state.clear()
            self._head_optimizer.state.clear()
            return None
        return {name: weight.detach().clone() for name, weight in self.network.weights().items()}

    def _teach(self, passage: Passage) -> _Taught:
        """Keep of the target's laws what the loss looks at."""
        single = [lesson.stop - lesson.start == 1 for lesson in passage.lessons]
        direct = [lesson for lesson, shared in zip(passage.lessons, single, strict=True) if shared]
        merged = [lesson for lesson, shared in zip(passage.lessons, single, strict=True) if not shared]
        laws = passage.logits.float().softmax(-1)
        law = laws[single][:, self._counterparts]
        best, place = law.topk(min(CANDIDATES, law.shape[-1]), dim=-1)
        rest = (1 - best.sum(-1, keepdim=True)).clamp_min(0)
        return _Taught(
            passage.ids,
            direct,
            self._shared[place],
            torch.cat([best, rest], -1).clamp_min(SMALLEST).log(),
            merged,
            laws[[not shared for shared in single], [lesson.token for lesson in merged]],
        )

    def _merged_weights(self, taught: _Taught) -> Tensor:
        """Of each lesson that is several draft ids, ``[merged]``."""
        if self.merged_weight == "target":
            return taught.chances
        return torch.full_like(taught.chances, self.merged_weight)

    def _step(self, batch: Sequence[_Taught]) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        if loss.requires_grad:
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.network.drafting, self.clip)
            self._optimizer.step()

    def loss(self, batch: Sequence[_Taught]) -> Tensor:
        """L over some passages, a mean over their lessons."""
        ids = torch.zeros((len(batch), max(len(taught.ids) for taught in batch)), dtype=torch.int64)
        for row, taught in enumerate(batch):
            ids[row, : len(taught.ids)] = torch.tensor(taught.ids)
        rows, decoder = self.network.rows(ids)
        total = rows.new_zeros(())
        lessons = 0
        for row, taught in enumerate(batch):
            # What is said at a position is guessed from the row before it.
            direct = [lesson.start - 1 for lesson in taught.direct]
            merged = [place for lesson in taught.merged for place in range(lesson.start, lesson.stop)]
            pieces = torch.tensor([lesson.stop - lesson.start for lesson in taught.merged], dtype=torch.int64)
            logits = decoder.logits(rows[row, [*direct, *(place - 1 for place in merged)]])
            log_q = logits.log_softmax(-1)
            if direct:
                p, q = taught.log_law, _with_rest(log_q[: len(direct)], taught.candidates)
                one, other = (p, q) if self.divergence == "forward" else (q, p)
                total = total + (one.exp() * (one - other)).sum()
            if merged and self.merged_weight:
                said = ids[row, merged]
                weights = self._merged_weights(taught).repeat_interleave(pieces)
                total = total - weights @ log_q[len(direct) :].gather(1, said[:, None])[:, 0]
            lessons += len(taught.direct) + len(taught.merged)
        return total / max(lessons, 1)

    def _follow(self, judged: Judged) -> None:
        """Let the length head learn from the latest drafts."""
        if len(judged.chances):
            self._judged.append(judged)
        while self._judged and sum(len(j.chances) for j in self._judged) > JUDGED:
            self._judged.popleft()
        if not self._judged:
            return
        rows = torch.cat([j.rows.float() for j in self._judged])
        chances = torch.cat([j.chances for j in self._judged])
        for _ in range(HEAD_STEPS):
            some = torch.tensor(self._random.choices(range(len(chances)), k=min(HEAD_BATCH, len(chances))))
            weight = torch.where(chances[some] < 0.5, REFUSED_WEIGHT, 1.0)
            logits = self.network.length_head(rows[some])
            loss = F.binary_cross_entropy_with_logits(logits, chances[some], weight)
            self._head_optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self._head_optimizer.step()


def _with_rest(log_q: Tensor, candidates: Tensor) -> Tensor:
    """Log-probabilities of candidates and of all else together, ``[n, draft_size] -> [n, K + 1]``."""
    told_apart = log_q.gather(1, candidates)
    rest = (1 - told_apart.exp().sum(-1, keepdim=True)).clamp_min(SMALLEST).log()
    return torch.cat([told_apart, rest], -1)
