"""Fuse: the next token by several models together, each a stream that scores the same draft.

One rule of fusion a name, as Zhang et al. 2024 (FS-GEN, arXiv 2406.12295) compare them in one loop:

- ``contrast``: the target against a weaker model, Li et al. 2022 (arXiv 2210.15097);
- ``interpolate``: between the two; with a weight above 1 it is a contrast in other words;
- ``proxy``: the target moved by what tuning did to a small model, Liu et al. 2024 (proxy tuning, arXiv
  2401.08565) and Mitchell et al. 2023 (emulated fine-tuning, arXiv 2310.12962);
- ``mixture``: a mean of the probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.engine.parts import Needs, NodeView, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree

if TYPE_CHECKING:
    from ventris.parts import Workshop

Rule = Literal["contrast", "interpolate", "proxy", "mixture"]

WEIGHTS: dict[Rule, float] = {"contrast": 0.5, "interpolate": 0.5, "proxy": 1.0, "mixture": 0.5}
"""The papers' own weights; for ``mixture`` equal shares."""

PLAUSIBLE = 0.1
"""Share of the best probability below which a contrast does not trust itself (alpha in the papers)."""


class Fuse:
    """Log-probabilities l of the target, s of a small model and f of a tuned small model, fused to one.

    ========== ============================================================================
    rule       log-probabilities, up to a constant
    ========== ============================================================================
    contrast   (1 + w) l - w s, over the plausible tokens
    interpolate s + w (l - s), over the plausible tokens; w = 1 is the target, w = 0 the small model
    proxy      l + w (f - s)
    mixture    ln((1 - w) exp(l) + w exp(s))
    ========== ============================================================================

    Plausible tokens are those with at least ``plausible`` times the probability of the target's best one.
    Vocabularies of one family may differ in length; what a model does not know is left out, but for
    ``mixture``, where it has the target's share alone.

    Args:
        small: The model whose logits are s.
        rule: See above.
        weight: w; the papers' own if not given.
        tuned: The model whose logits are f, for ``proxy`` alone.
        plausible: For ``contrast`` and ``interpolate`` alone, 0.1 if not given; 0 trusts all tokens.

    Raises:
        BadInput: if a tuned model is missing or needless, a mixture has a weight above 1, or a rule without
            plausible tokens is given a share for them.
    """

    name = "fuse"
    masks = False
    forkable = False

    class Options(BaseModel):
        """Options of fused models."""

        rule: Rule = Field("contrast", description="contrast, interpolate, proxy or mixture")
        small: str = Field(description="name, folder or .gguf of the small model")
        tuned: str | None = Field(None, description="the same after tuning, for proxy")
        weight: float | None = Field(None, ge=0, description="0.5, for proxy 1, if not given")
        plausible: float | None = Field(
            None,
            ge=0,
            le=1,
            description="least share of the best probability, for contrast and interpolate; 0.1 if not given",
        )

    def __init__(
        self,
        small: Target,
        rule: Rule = "contrast",
        weight: float | None = None,
        tuned: Target | None = None,
        plausible: float | None = None,
    ) -> None:
        _check(rule, tuned is not None, weight, plausible)
        self.rule: Rule = rule
        self.models = [small] if tuned is None else [small, tuned]
        self.weight = WEIGHTS[rule] if weight is None else weight
        self.plausible = PLAUSIBLE if plausible is None else plausible

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> Fuse:
        """Load the models; without a target they are only checked for being there."""
        _check(options.rule, options.tuned is not None, options.weight, options.plausible)
        if workshop.target is None or workshop.load_target is None:
            preview = cls.__new__(cls)
            preview.models = []
            return preview
        tuned = None if options.tuned is None else workshop.load_target(options.tuned)
        small = workshop.load_target(options.small)
        return cls(small, options.rule, options.weight, tuned, options.plausible)

    def start(self, request: RequestView) -> _Fusing:
        return _Fusing(self, request)


def _check(rule: Rule, tuned: bool, weight: float | None, plausible: float | None) -> None:
    if rule == "proxy" and not tuned:
        raise BadInput("guide 'fuse' needs a tuned model for proxy; give tuned=MODEL")
    if rule != "proxy" and tuned:
        raise BadInput(f"guide 'fuse' has no use for a tuned model in {rule}; take rule=proxy")
    if rule in ("proxy", "mixture") and plausible is not None:
        raise BadInput(f"guide 'fuse' leaves no tokens out in {rule}; leave plausible out")
    if rule == "mixture" and weight is not None and not 0 <= weight <= 1:
        raise BadInput(f"guide 'fuse' mixes by a share of 0 to 1, not {weight:g}; give weight=0.5")


class _Fusing:
    def __init__(self, guide: Fuse, request: RequestView) -> None:
        self.guide = guide
        self.streams = [request.stream(model, "fused model") for model in guide.models]

    def needs(self, tree: TokenTree) -> Needs:
        return Needs(streams=self.streams)

    def adjust(self, logits: Tensor, view: NodeView) -> Tensor:
        guide = self.guide
        large = logits.log_softmax(-1)
        others = [_as_long_as(large, view.logits_of(stream)) for stream in self.streams]
        return RULES[guide.rule](large, others, guide.weight, guide.plausible)

    def advance(self, token: int) -> None:
        """The engine moves the streams; nothing else is remembered."""


def _as_long_as(large: Tensor, logits: Tensor) -> Tensor:
    """Log-probabilities over the target's vocabulary; minus infinity for what the model does not know."""
    known = logits.to(large)[: large.numel()].log_softmax(-1)
    missing = large.numel() - known.numel()
    return torch.cat([known, known.new_full((missing,), -torch.inf)]) if missing else known


def contrast(large: Tensor, others: list[Tensor], weight: float, plausible: float) -> Tensor:
    """The target moved away from the small model: (1 + w) l - w s, over the plausible tokens."""
    (small,) = others
    return _where(_plausible(large, small, plausible), (1 + weight) * large - weight * small)


def interpolate(large: Tensor, others: list[Tensor], weight: float, plausible: float) -> Tensor:
    """The small model moved towards the target: s + w (l - s), over the plausible tokens."""
    (small,) = others
    return _where(_plausible(large, small, plausible), small + weight * (large - small))


def proxy(large: Tensor, others: list[Tensor], weight: float, plausible: float) -> Tensor:
    """The target moved as tuning moved the small model: l + w (f - s)."""
    small, tuned = others
    return _where(small.isfinite() & tuned.isfinite(), large + weight * (tuned - small))


def mixture(large: Tensor, others: list[Tensor], weight: float, plausible: float) -> Tensor:
    """The mean of the probabilities: ln((1 - w) exp(l) + w exp(s))."""
    (small,) = others
    return torch.log((1 - weight) * large.exp() + weight * small.exp())


def _plausible(large: Tensor, small: Tensor, plausible: float) -> Tensor:
    """Which tokens both models know and the target finds plausible among those, bool ``[vocab]``."""
    known = small.isfinite() & large.isfinite()
    if not plausible:
        return known
    return known & (large >= float(large[known].max()) + math.log(plausible))


def _where(chosen: Tensor, fused: Tensor) -> Tensor:
    return torch.where(chosen, fused, -torch.inf)


RULES: dict[Rule, Callable[[Tensor, list[Tensor], float, float], Tensor]] = {
    "contrast": contrast,
    "interpolate": interpolate,
    "proxy": proxy,
    "mixture": mixture,
}
