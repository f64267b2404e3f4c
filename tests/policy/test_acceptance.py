"""The estimator of acceptance: right for runs that end at their first miss, where the plain share is not."""

from __future__ import annotations

import random

import pytest

from ventris.engine.tree import TokenTree
from ventris.policy.acceptance import Acceptance, judged
from ventris.policy.running_fit import RunningFit


def simulated_runs(chance: float, length: int, count: int) -> list[tuple[int, bool]]:
    """Kept tokens of drafts of one length, each token kept with the same chance until the first miss."""
    coin = random.Random(length)
    runs = []
    for _ in range(count):
        kept = 0
        while kept < length and coin.random() < chance:
            kept += 1
        runs.append((kept, kept < length))
    return runs


@pytest.mark.parametrize("length", [1, 2, 5, 8])
@pytest.mark.parametrize("chance", [0.3, 0.7, 0.95])
def test_the_estimate_is_right_for_every_draft_length(chance: float, length: int) -> None:
    runs = simulated_runs(chance, length, 20_000)
    acceptance = Acceptance(forgetting=1.0)
    for kept, missed in runs:
        acceptance.observe(kept, missed)
    assert acceptance.rate(prior=0.5, weight=1.0) == pytest.approx(chance, abs=0.01)


def test_kept_over_drafted_is_biased_as_known() -> None:
    """At a = 0.7 and five tokens it reads 0.39: sum of a^j over five, by five."""
    runs = simulated_runs(0.7, 5, 20_000)
    naive = sum(kept for kept, _ in runs) / (5 * len(runs))
    assert naive == pytest.approx(sum(0.7**j for j in range(1, 6)) / 5, abs=0.01)
    assert abs(naive - 0.7) > 0.3


def test_a_chain_is_judged_up_to_its_first_miss() -> None:
    tree = TokenTree.chain([1, 2, 3, 4])
    assert judged(tree, [0, 1, 2, 3], ended=False) == (3, False)
    assert judged(tree, [0, 1], ended=False) == (1, True)
    assert judged(tree, [0], ended=False) == (0, True)
    # An end token closes the walk above the draft that foresaw it.
    assert judged(tree, [0, 1], ended=True) == (1, False)


def test_a_level_of_a_tree_is_one_judgement() -> None:
    tree = TokenTree([1, 2, 3, 4], [-1, 0, 0, 2])
    assert judged(tree, [0, 2, 3], ended=False) == (2, False)
    assert judged(tree, [0], ended=False) == (0, True)


def test_old_judgements_fade() -> None:
    acceptance = Acceptance(forgetting=0.9)
    for _ in range(50):
        acceptance.observe(0, True)
    assert acceptance.rate(0.5, 1.0) < 0.1
    for _ in range(20):
        acceptance.observe(4, False)
    assert acceptance.rate(0.5, 1.0) > 0.9
    certain = acceptance.error(0.5, 1.0)
    acceptance.fade(0.0)
    assert acceptance.rate(0.5, 1.0) == 0.5
    assert acceptance.error(0.5, 1.0) > certain


def test_a_fit_learns_a_linear_law_and_forgets_it() -> None:
    fit = RunningFit((0.0, 0.0), (0.1, 0.1))
    coin = random.Random(0)
    for law in ((2.0, 3.0), (1.0, 0.5)):
        for _ in range(300):
            x = coin.randint(1, 8)
            fit.observe((1.0, x), law[0] + law[1] * x + coin.gauss(0, 0.01))
        assert fit.coefficients() == pytest.approx(law, abs=0.05)


def test_a_fit_keeps_its_prior_until_told_otherwise_and_is_never_negative() -> None:
    fit = RunningFit((1.0, 0.0), (0.1, 0.1))
    assert fit.coefficients() == pytest.approx([1.0, 0.0])
    for x in [*range(1, 9)] * 5:
        fit.observe((1.0, x), 10.0 - x)
    level, slope = fit.coefficients()
    assert slope == 0.0
    assert level == pytest.approx(5.5, abs=0.7)
