"""Every exact verifier gives the target's law, by enumeration; broken variants are found out."""

from __future__ import annotations

import pytest
from torch import Tensor

from ventris.engine.randomness import Purpose
from ventris.engine.verifier import Verifier
from ventris.engine.walk import Walk
from ventris.testing import ContractBroken, check_verifier, law_error
from ventris.verify import Block, Coupled, Greedy, PointMass, Rejection, Synthetic
from ventris.verify.rejection import residual


@pytest.mark.parametrize("verifier", [Greedy, Coupled, PointMass, Rejection, Block, Synthetic])
def test_verifiers_keep_their_contract(verifier: type[Verifier]) -> None:
    check_verifier(verifier)


@pytest.mark.parametrize(("samples", "depth"), [(1, 3), (2, 2), (3, 1)])
def test_rejection_is_exact_for_chains_and_trees(samples: int, depth: int) -> None:
    assert law_error(Rejection, samples, depth) < 1e-12


def test_block_verification_is_exact_for_longer_chains() -> None:
    assert law_error(Block, samples=1, depth=3) < 1e-12


class RedrawsAfterRejection(Rejection):
    """Draws from p and not from what is left of it."""

    def _next(self, walk: Walk) -> int:
        p = walk.probs()
        for child in walk.draws():
            token = walk.tree.tokens[child]
            ratio = float(p[token]) / float(walk.draft_probs()[token])
            if walk.randomness(Purpose.VERIFY).bernoulli(min(1.0, ratio)):
                return token
        return walk.randomness(Purpose.RESIDUAL).categorical(walk.probs())


class ForgetsTheResidualBetweenDraws(Rejection):
    """Judges a second draw against p as if the first had not been refused."""

    def _next(self, walk: Walk) -> int:
        p = walk.probs()
        for child in walk.draws():
            token = walk.tree.tokens[child]
            ratio = float(p[token]) / float(walk.draft_probs()[token])
            if walk.randomness(Purpose.VERIFY).bernoulli(min(1.0, ratio)):
                return token
        left = residual(p, walk.draft_probs()) if walk.draws() else p
        return walk.randomness(Purpose.RESIDUAL).categorical(left)


class AcceptsUpsideDown(Rejection):
    """Takes min(1, q/p) for the chance to keep a draft."""

    def _next(self, walk: Walk) -> int:
        p = walk.probs()
        for child in walk.draws():
            token = walk.tree.tokens[child]
            ratio = float(walk.draft_probs()[token]) / float(p[token])
            if walk.randomness(Purpose.VERIFY).bernoulli(min(1.0, ratio)):
                return token
            p = residual(p, walk.draft_probs())
        return walk.randomness(Purpose.RESIDUAL).categorical(p)


class SharesANumberWithTheDraft(Rejection):
    """Throws the coin for a draft with the number that the draft was drawn with."""

    def _next(self, walk: Walk) -> int:
        p = walk.probs()
        for child in walk.draws():
            token = walk.tree.tokens[child]
            ratio = float(p[token]) / float(walk.draft_probs()[token])
            if walk.randomness(Purpose.DRAFT).bernoulli(min(1.0, ratio)):
                return token
            p = residual(p, walk.draft_probs())
        return walk.randomness(Purpose.RESIDUAL).categorical(p)


class GivesEveryBranchAChance(PointMass):
    """Draws once for every child, as if siblings were independent chances."""

    def select(self, walk: Walk) -> None:
        while walk.open:
            p = walk.probs()
            for child in walk.children():
                if walk.randomness(Purpose.VERIFY).bernoulli(float(p[walk.tree.tokens[child]])):
                    walk.take(walk.tree.tokens[child])
                    break
            else:
                walk.take(walk.randomness(Purpose.VERIFY).categorical(p))


class HasAWrongCoin(Block):
    """Keeps the whole draft with min(1, p/q) of its last token alone."""

    def _judge(self, walk: Walk, chain: list[int]) -> tuple[int, Tensor]:
        ahead = walk.look_ahead(chain)
        q = walk.tree.draft_probs[0]
        token = walk.tree.tokens[chain[0]]
        kept = walk.randomness(Purpose.VERIFY).bernoulli(min(1.0, float(ahead[0][token]) / float(q[token])))
        return (len(chain), ahead[-1]) if kept else (0, residual(ahead[0], q))


@pytest.mark.parametrize(
    ("mutant", "samples", "depth"),
    [
        (RedrawsAfterRejection, 1, 2),
        (ForgetsTheResidualBetweenDraws, 2, 1),
        (AcceptsUpsideDown, 1, 2),
        (SharesANumberWithTheDraft, 1, 2),
        (GivesEveryBranchAChance, 0, 2),
        (HasAWrongCoin, 1, 2),
    ],
)
def test_broken_rules_are_found_out(mutant: type[Verifier], samples: int, depth: int) -> None:
    assert law_error(mutant, samples, depth) > 1e-3
    with pytest.raises(ContractBroken):
        check_verifier(mutant)
