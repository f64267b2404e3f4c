"""SpecTr is exact, and close to the best of all rules (linear programming says which that is)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from ventris.engine.randomness import Purpose
from ventris.engine.verifier import Verifier
from ventris.engine.walk import Walk
from ventris.testing import check_verifier, law_error
from ventris.verify import SpecTr
from ventris.verify.spectr import Probabilities, Selection


def distributions(size: int, seed: int, sharpness: float = 0.5) -> tuple[Probabilities, Probabilities]:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet([sharpness] * size), rng.dirichlet([sharpness] * size)
    return p / p.sum(), q / q.sum()


def law(selection: Selection, p: Probabilities, q: Probabilities, draws: int) -> tuple[Probabilities, float]:
    """Distribution of the token that the rule gives, and how often it is one of the draws it accepted."""
    result, accepted = np.zeros(len(p)), 0.0
    for drawn in itertools.product(np.flatnonzero(q), repeat=draws):
        reached = float(np.prod(q[list(drawn)]))
        for token in drawn:
            chance = selection.chance(p[token], q[token])
            result[token] += reached * chance
            accepted += reached * chance
            reached *= 1.0 - chance
        result += reached * selection.rest
    return result, accepted


def best_possible(p: Probabilities, q: Probabilities, draws: int) -> float:
    """The most that any rule accepts: the optimal transport from all draws to the target."""
    size = len(p)
    sets = list(itertools.product(range(size), repeat=draws))
    gain = np.array([[-1.0 if y in drawn else 0.0 for y in range(size)] for drawn in sets])
    rows, bounds = [], []
    for index, drawn in enumerate(sets):
        row = np.zeros_like(gain)
        row[index] = 1.0
        rows.append(row.ravel())
        bounds.append(np.prod(q[list(drawn)]))
    for y in range(size):
        row = np.zeros_like(gain)
        row[:, y] = 1.0
        rows.append(row.ravel())
        bounds.append(p[y])
    solved = linprog(
        gain.ravel(), A_eq=np.array(rows), b_eq=np.array(bounds), bounds=(0, None), method="highs"
    )
    assert solved.status == 0
    return float(-solved.fun)


@pytest.mark.parametrize("draws", [1, 2, 3])
@pytest.mark.parametrize("slack", [1.0, 1.4])
@pytest.mark.parametrize("seed", range(6))
def test_one_token_follows_the_target(draws: int, slack: float, seed: int) -> None:
    p, q = distributions(5, seed)
    selection = Selection.best(p, q, draws, slack)
    result, accepted = law(selection, p, q, draws)
    assert np.abs(result - p).max() < 1e-12
    assert accepted == pytest.approx(selection.accepted, abs=1e-12)


@pytest.mark.parametrize("draws", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_acceptance_lies_between_its_proven_share_and_the_optimum(draws: int, seed: int) -> None:
    p, q = distributions(4, seed, 0.8)
    accepted, optimum = Selection.best(p, q, draws).accepted, best_possible(p, q, draws)
    assert accepted <= optimum + 1e-9
    assert accepted >= (1 - (1 - 1 / draws) ** draws) * optimum - 1e-9


@given(st.integers(1, 8), st.integers(2, 400), st.integers(0, 2**32), st.floats(0.02, 3))
def test_rho_is_valid_and_more_drafts_never_accept_less(k: int, size: int, seed: int, sharp: float) -> None:
    p, q = distributions(size, seed, sharp)
    selection = Selection.best(p, q, k)
    assert 1.0 <= selection.rho <= k
    assert selection.accepted <= selection.rho * selection.once + 1e-9
    assert selection.rest.min() >= 0.0
    assert selection.accepted >= np.minimum(p, q).sum() - 1e-9
    assert selection.accepted <= np.minimum(p, 1 - (1 - q) ** k).sum() + 1e-9
    assert Selection.best(p, q, k + 1).accepted >= selection.accepted - 1e-9


def test_drafts_that_cannot_be_right_leave_the_target() -> None:
    p, q = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.3, 0.7])
    selection = Selection.best(p, q, 3)
    assert selection.accepted == 0.0
    assert np.array_equal(selection.rest, p)


def test_a_perfect_draft_is_always_accepted() -> None:
    p, _ = distributions(6, 1)
    selection = Selection.best(p, p, 2)
    assert selection.chance(p[2], p[2]) * selection.rho == pytest.approx(1.0)
    assert law(selection, p, p, 2)[0] == pytest.approx(p, abs=1e-12)
    assert Selection.best(p, p, 1).accepted == 1.0


def test_the_contract_holds() -> None:
    check_verifier(SpecTr)


@pytest.mark.parametrize(("samples", "depth", "tokens"), [(1, 3, 3), (2, 2, 3), (3, 1, 2)])
def test_texts_follow_the_target(samples: int, depth: int, tokens: int) -> None:
    assert law_error(SpecTr, samples, depth, tokens) < 1e-12


def test_one_draft_is_speculative_sampling() -> None:
    p, q = distributions(7, 3)
    selection = Selection.best(p, q, 1)
    assert selection.rho == 1.0
    assert selection.accepted == pytest.approx(np.minimum(p, q).sum())
    assert selection.rest == pytest.approx(np.maximum(p - q, 0) / np.maximum(p - q, 0).sum())


def test_it_accepts_more_than_recursive_rejection() -> None:
    """The sheet's ablation: averaged over random pairs, three draws."""

    def recursive(p: Probabilities, q: Probabilities, draws: int) -> float:
        refused = 1.0
        for _ in range(draws):
            kept = np.minimum(p, q).sum()
            refused *= 1 - kept
            p = np.maximum(p - q, 0) / np.maximum(p - q, 0).sum()
        return 1 - refused

    pairs = [distributions(8, seed, 1.0) for seed in range(200)]
    ours = np.mean([Selection.best(p, q, 3).accepted for p, q in pairs])
    theirs = np.mean([recursive(p, q, 3) for p, q in pairs])
    assert ours > theirs


class TakesRhoTooSmall(SpecTr):
    """Accepts with rho = 1, whatever the number of drafts."""

    def _choose(self, walk: Walk, drawn: list[int]) -> int:
        p, q = walk.probs().double().numpy(), walk.draft_probs().double().numpy()
        random = walk.randomness(Purpose.VERIFY)
        for token in drawn:
            if random.bernoulli(min(1.0, p[token] / q[token])):
                return token
        return super()._choose(walk, drawn[:1])


class ForgetsThatDraftsWereDropped(SpecTr):
    """Solves rho for the number of drafts at the root, at every level."""

    def _choose(self, walk: Walk, drawn: list[int]) -> int:
        first = len(walk.tree.draws[0])
        p, q = walk.probs().double().numpy(), walk.draft_probs().double().numpy()
        selection = Selection.best(p, q, first)
        random = walk.randomness(Purpose.VERIFY)
        for token in drawn:
            if random.bernoulli(selection.chance(p[token], q[token])):
                return token
        return random.categorical(walk.probs().new_tensor(selection.rest))


class MergesEqualDrafts(SpecTr):
    """Judges distinct tokens only."""

    def _choose(self, walk: Walk, drawn: list[int]) -> int:
        return super()._choose(walk, list(dict.fromkeys(drawn)))


@pytest.mark.parametrize(
    ("mutant", "samples", "depth"),
    [(TakesRhoTooSmall, 2, 1), (ForgetsThatDraftsWereDropped, 2, 2), (MergesEqualDrafts, 2, 1)],
)
def test_broken_rules_are_found_out(mutant: type[Verifier], samples: int, depth: int) -> None:
    assert law_error(mutant, samples, depth) > 1e-3
