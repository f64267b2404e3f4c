"""Every loss against its closed form and against finite differences of what it stands for."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from ventris.train.losses import (
    DISTRIBUTION_LOSSES,
    cross_entropy,
    find_loss,
    kl,
    mse,
    overlap,
    reverse_kl,
    smooth_l1,
    soft_cross_entropy,
    tvd,
    tvd_plus_plus,
)
from ventris.train.settings import LossName

P, Q = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
LOGITS = torch.tensor([P], dtype=torch.float64).log() + 3.0  # a shift changes no distribution
TEACHER = torch.tensor([Q], dtype=torch.float64).log() - 1.0


def random_pair(seed: int = 0, n: int = 7, vocab: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((n, vocab), generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randn((n, vocab), generator=generator, dtype=torch.float64)


def gradient(loss, logits, teacher) -> torch.Tensor:
    (found,) = torch.autograd.grad(loss(logits, teacher), logits)
    return found


def test_closed_forms():
    pairs = list(zip(P, Q, strict=True))
    expected = {
        soft_cross_entropy: -sum(q * math.log(p) for p, q in pairs),
        kl: sum(q * math.log(q / p) for p, q in pairs),
        reverse_kl: sum(p * math.log(p / q) for p, q in pairs),
        tvd: 0.5 * sum(abs(p - q) for p, q in pairs),
        overlap: -math.log(sum(min(p, q) for p, q in pairs)),
    }
    for loss, value in expected.items():
        assert float(loss(LOGITS, TEACHER)) == pytest.approx(value), loss.__name__
    assert float(cross_entropy(LOGITS, torch.tensor([2]))) == pytest.approx(-math.log(0.2), rel=1e-6)
    assert float(mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]))) == 2.5
    assert float(smooth_l1(torch.tensor([[0.5, 3.0]]), torch.tensor([[0.0, 1.0]]))) == 0.8125


def test_tvd_is_what_speculative_sampling_refuses():
    logits, teacher = (rows.detach() for rows in random_pair())
    kept = torch.minimum(logits.softmax(-1), teacher.softmax(-1)).sum(-1).mean()
    assert float(tvd(logits, teacher)) == pytest.approx(1 - float(kept))


def test_gradients_of_tvd_and_of_its_policy_gradient_form_agree():
    logits, teacher = random_pair()
    torch.testing.assert_close(
        gradient(lambda x, y: tvd_plus_plus(x, y, norm="none"), logits, teacher),
        gradient(tvd, logits, teacher),
        atol=1e-12,
        rtol=1e-9,
    )


def test_a_batch_sigma_only_rescales_the_step():
    logits, teacher = random_pair()
    plain = gradient(tvd, logits, teacher)
    normed = gradient(tvd_plus_plus, logits, teacher)
    ratio = normed / plain
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
    assert float(ratio.flatten()[0]) > 1.5


def test_a_sigma_of_each_position_is_not_tvd():
    logits, teacher = random_pair()
    plain = gradient(tvd, logits, teacher)
    normed = gradient(DISTRIBUTION_LOSSES["tvd++position"], logits, teacher)
    p, q = logits.softmax(-1), teacher.softmax(-1)
    share = (p * (q > p)).sum(-1, keepdim=True)
    torch.testing.assert_close(normed, plain / (share * (1 - share)).sqrt())


def test_sampled_gradients_have_the_exact_mean():
    logits, teacher = random_pair(n=2, vocab=5)
    generator = torch.Generator().manual_seed(0)
    for norm in ("none", "position"):
        sampled = gradient(
            lambda x, y, norm=norm: tvd_plus_plus(x, y, norm, samples=400_000, generator=generator),
            logits,
            teacher,
        )
        exact = gradient(lambda x, y, norm=norm: tvd_plus_plus(x, y, norm), logits, teacher)
        torch.testing.assert_close(sampled, exact, atol=5e-3, rtol=0)


@pytest.mark.parametrize("name", DISTRIBUTION_LOSSES)
def test_a_perfect_drafter_has_nothing_to_learn(name):
    logits, _ = random_pair()
    found = gradient(DISTRIBUTION_LOSSES[name], logits, logits.detach().clone())
    assert torch.isfinite(found).all()
    if name != "overlap":  # its two halves meet in a kink there
        assert float(found.abs().max()) < 1e-7


@pytest.mark.parametrize("name", DISTRIBUTION_LOSSES)
def test_a_step_moves_towards_the_target(name):
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    moved = logits.detach() - 0.1 * gradient(DISTRIBUTION_LOSSES[name], logits, teacher)
    assert float(tvd(moved, teacher)) < float(tvd(logits.detach(), teacher))


@pytest.mark.parametrize("name", DISTRIBUTION_LOSSES)
def test_the_teacher_gets_no_gradient_and_half_precision_is_widened(name):
    logits, teacher = random_pair()
    teacher.requires_grad_()
    DISTRIBUTION_LOSSES[name](logits, teacher).backward()
    assert teacher.grad is None
    half = DISTRIBUTION_LOSSES[name](logits.detach().bfloat16(), teacher.detach().bfloat16())
    assert half.dtype == torch.float32


def test_names():
    assert find_loss("kl") is kl
    assert find_loss("cross_entropy") is None
    assert {"cross_entropy", *DISTRIBUTION_LOSSES} == set(get_args(LossName))
