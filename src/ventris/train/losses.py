"""Distillation losses: how far the drafter's distributions are from the target's.

p is the drafter's distribution, q the target's, both softmax over the same tokens in float32. All
distribution losses take ``logits, teacher: [n, vocab]`` (the teacher's logits, without gradient) and return
the mean over the n positions. Speculative sampling keeps a drafted token with chance sum min(p, q) = 1 -
TVD, which is why TVD and its relatives aim at acceptance itself. They do not train from scratch: far from
the target their gradient vanishes, so start from a drafter trained with ``cross_entropy`` or ``kl``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DistributionLoss = Callable[[Tensor, Tensor], Tensor]
FeatureLoss = Callable[[Tensor, Tensor], Tensor]

SMALLEST_DEVIATION = 1e-3
"""Lower bound of TVD++'s sigma: the rewards are all equal where p is q."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(label), labels int64 ``[n]``."""
    return F.cross_entropy(logits.float(), labels)


def soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """-sum q log p: the gradient of KL(q || p), with the target's entropy in the value."""
    return -(_probs(teacher) * _log_probs(logits)).sum(-1).mean()


def kl(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(q || p) = sum q (log q - log p): covers all that the target may say."""
    log_q = _log_probs(teacher).detach()
    return (log_q.exp() * (log_q - _log_probs(logits))).sum(-1).mean()


def reverse_kl(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(p || q) = sum p (log p - log q): says only what the target would say."""
    log_p = _log_probs(logits)
    return (log_p.exp() * (log_p - _log_probs(teacher).detach())).sum(-1).mean()


def tvd(logits: Tensor, teacher: Tensor) -> Tensor:
    """Total variation distance, 0.5 sum |p - q| = 1 - sum min(p, q)."""
    return 0.5 * (_log_probs(logits).exp() - _probs(teacher)).abs().sum(-1).mean()


def tvd_plus_plus(
    logits: Tensor,
    teacher: Tensor,
    norm: Literal["none", "batch", "position"] = "batch",
    samples: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """TVD as a policy gradient with a normalised advantage (Goel et al. 2024, arXiv 2403.00858).

    The gradient of TVD is E_{x~p}[-r(x) grad log p(x)] with r(x) = 1 where q(x) > p(x), else 0. TVD++ puts
    the advantage A = (r - mu) / sigma in place of r. The value is the surrogate -E_{x~p}[A(x) log p(x)], p
    and A held fixed; only its gradient means something.

    With the exact expectation a constant mu changes nothing, since E[grad log p] = 0, and a sigma of the
    whole batch only rescales the step. With ``norm="position"`` each position is divided by its own sigma =
    sqrt(a (1 - a)), a = sum of p where q > p, which lifts positions where TVD's gradient all but vanishes.

    Args:
        norm: Over what mu and sigma are taken; the paper's wording is the batch. ``"none"`` is TVD's own
            gradient.
        samples: Tokens drawn from p at each position; 0 takes the expectation exactly.
        generator: Source of the draws.
    """
    log_p = _log_probs(logits)
    p = log_p.detach().exp()
    reward = (_probs(teacher) > p).float()
    if samples:
        drawn = torch.multinomial(p, samples, replacement=True, generator=generator)
        reward, log_p = reward.gather(-1, drawn), log_p.gather(-1, drawn)
        weight = torch.full_like(reward, 1 / samples)
    else:
        weight = p
    if norm != "none":
        mean = (weight * reward).sum(-1, keepdim=True)
        if norm == "batch":
            mean = mean.mean()
        # Rewards are 0 or 1, so the mean alone gives their variance.
        reward = (reward - mean) / (mean * (1 - mean)).sqrt().clamp_min(SMALLEST_DEVIATION)
    return -(weight * reward * log_p).sum(-1).mean()


def overlap(logits: Tensor, teacher: Tensor) -> Tensor:
    """-log sum min(p, q): TVD's gradient over the acceptance, so it does not vanish (arXiv 2602.23881)."""
    log_min = torch.minimum(_log_probs(logits), _log_probs(teacher).detach())
    return -log_min.logsumexp(-1).mean()


def smooth_l1(features: Tensor, teacher: Tensor) -> Tensor:
    """Huber-like distance of hidden rows ``[n, d]``."""
    return F.smooth_l1_loss(features.float(), teacher.float())


def mse(features: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of hidden rows ``[n, d]``."""
    return F.mse_loss(features.float(), teacher.float())


DISTRIBUTION_LOSSES: dict[str, DistributionLoss] = {
    "soft_cross_entropy": soft_cross_entropy,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "tvd": tvd,
    "tvd++": tvd_plus_plus,
    "tvd++position": partial(tvd_plus_plus, norm="position"),
    "overlap": overlap,
}
"""By name; ``cross_entropy`` is apart from them because it looks at a token and not at the teacher."""

FEATURE_LOSSES: dict[str, FeatureLoss] = {"smooth_l1": smooth_l1, "mse": mse}


def find_loss(name: str) -> DistributionLoss | None:
    """The distribution loss of that name; ``None`` for ``cross_entropy``."""
    return None if name == "cross_entropy" else DISTRIBUTION_LOSSES[name]


def _log_probs(logits: Tensor) -> Tensor:
    # In half precision a softmax over a large vocabulary loses the mass that acceptance lives on.
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def _probs(teacher: Tensor) -> Tensor:
    return _log_probs(teacher).detach().exp()
