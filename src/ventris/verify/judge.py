"""Judge decoding: also keep a draft that the target, having read it, finds right.

Bachmann et al. 2025 (Judge Decoding, arXiv 2501.19309). **Approximate**: what the judge keeps is not what the
target would have written, and nothing protects what it was tuned to refuse. A judge knows the kinds of task
that it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from ventris.draft.checkpoint import CheckpointOptions, open_checkpoint
from ventris.engine.errors import Incompatible
from ventris.engine.sampling import Sampling
from ventris.engine.target import Target
from ventris.engine.walk import Walk
from ventris.verify.judge_head import JudgeHead
from ventris.verify.rejection import next_token

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.parts import Workshop

SOURCE = "judge"
"""What a trace calls the origin of a token that only the judge let pass."""


class Judge:
    """Keeps a drafted token if the exact rule does, or if the judge finds it right.

    The exact rule is greedy decoding at temperature 0 and rejection sampling above it, so a threshold of 1 is
    exactly that. Where the exact rule wants another token than those drafted, the drafted one that the judge
    likes best is kept if its probability of being right is above ``threshold``. The judge never ends a text,
    and never keeps a token that a mask or a ban forbids; top-k and the like do not bind it.

    Args:
        head: Rows ``[n, hidden]`` to probabilities ``[n]``; a row is one that has read the token.
        layer: The target's layer whose rows it reads.
        threshold: Above which a token passes.
    """

    name = "judge"
    exact = False
    greedy_only = False
    chain_only = False

    class Options(CheckpointOptions):
        """Options of judge decoding."""

        threshold: float | None = Field(
            None,
            ge=0,
            le=1,
            description="probability above which a token passes; the checkpoint's own if not given",
        )

    def __init__(self, head: Callable[[Tensor], Tensor], layer: int, threshold: float = 0.5) -> None:
        self.head = head
        self.taps = (layer,)
        self.threshold = threshold

    @classmethod
    def load(
        cls, model: Model | Target, checkpoint: str | Path | None = None, threshold: float | None = None
    ) -> Judge:
        """The judge in a folder, or the one shipped for the model.

        Raises:
            BadInput: if there is none, or it belongs to another target.
        """
        target, stored = open_checkpoint("judge", model, checkpoint)
        head = stored.network(JudgeHead)
        return cls(
            head.to(target.device),
            head.layer,
            stored.measured["threshold"] if threshold is None else threshold,
        )

    @classmethod
    def build(cls, options: BaseModel, workshop: Workshop) -> Judge:
        """Load the judge; without a target only its rules are known."""
        chosen = cast(Judge.Options, options)
        if workshop.target is None:
            return cls(torch.nn.Identity(), 0)
        return cls.load(workshop.target, chosen.checkpoint, chosen.threshold)

    def check_with(self, parts: Sequence[Any], sampling: Sampling) -> None:
        """Refuse guides that move probabilities: the judge goes by the target alone and would undo them."""
        for part in parts:
            if hasattr(part, "masks") and not part.masks:
                raise Incompatible(
                    "verifier 'judge'",
                    f"guide {getattr(part, 'name', part)!r}",
                    "it was trained on what the target alone thinks, so what it lets pass would undo what "
                    "this guide changes; use an exact verifier, or 'threshold-rollback'",
                )

    def select(self, walk: Walk) -> None:
        right: list[float] = []
        while walk.open:
            token = walk.argmax() if walk.request.sampling.greedy else next_token(walk)
            others = self._judged(walk, token)
            if others and not right:
                right = self.head(walk.tapped(*self.taps)).tolist()
            best = max(others, key=right.__getitem__, default=0)
            if best and right[best] > self.threshold:
                walk.take(walk.tree.tokens[best], SOURCE)
            else:
                walk.take(token)

    @staticmethod
    def _judged(walk: Walk, token: int) -> list[int]:
        """The drafts that the judge has a say in: none where the exact rule keeps one."""
        drafted = {child: walk.tree.tokens[child] for child in walk.children()}
        if token in drafted.values() or not drafted:
            return []
        row = walk.logits()
        ends = walk.request.end_ids
        return [child for child, other in drafted.items() if other not in ends and row[other] > -torch.inf]
