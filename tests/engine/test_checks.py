"""The checks for authors of parts: each broken clause of a drafter's contract is named."""

from __future__ import annotations

import pytest
import torch

from ventris.draft import DraftModel, NGram
from ventris.engine.tree import TokenTree
from ventris.testing import ContractBroken, ToyTarget, check_drafter

DRAFT = ToyTarget(12, memory=2, sharpness=5.0, blend=(9, 0.4))


class Guessing:
    """Drafts two tokens, always the same."""

    name, shape, draws, taps = "guessing", "chain", False, ()

    def start(self, request):
        return None

    def tree(self, job):
        tree = TokenTree([job.root], [-1], source=self.name)
        for _ in range(min(job.budget.nodes, job.budget.depth, 2)):
            tree.add(3, len(tree) - 1, 0.5)
        return tree

    def propose(self, jobs):
        return [self.tree(job) for job in jobs]

    def observe(self, state, commit):
        pass


class PassesNodes(Guessing):
    shape = "tree"

    def tree(self, job):
        tree = TokenTree([job.root], [-1], source=self.name)
        for token in (3, 4) if job.budget.depth else ():
            tree.add(token, 0, 0.5)
        return tree


class PassesDepth(Guessing):
    def tree(self, job):
        tree = TokenTree.chain([job.root, *[3] * min(job.budget.nodes, 4, job.request.remaining - 1)])
        tree.confidence = [1.0] * len(tree)
        return tree


class TooSure(Guessing):
    def tree(self, job):
        tree = super().tree(job)
        tree.confidence = [1.5] * len(tree)
        return tree


class SaysItDraws(Guessing):
    draws = True


class DrawsInSecret(Guessing):
    def tree(self, job):
        tree = TokenTree([job.root], [-1], source=self.name)
        if min(job.budget.nodes, job.budget.depth):
            tree.add_draws(0, [3], torch.eye(12)[3])
        return tree


class Branches(Guessing):
    def tree(self, job):
        tree = super().tree(job)
        if len(tree) < job.budget.nodes:
            tree.add(5, 0, 0.5)
        return tree


class AnotherRoot(Guessing):
    def tree(self, job):
        return TokenTree.root((job.root + 1) % 12)


class Drops(Guessing):
    def propose(self, jobs):
        return super().propose(jobs)[1:]


class LosesItsPlace(Guessing):
    """Counts the steps in which it was asked, and takes that for the steps that there were."""

    def start(self, request):
        return [0, 0]

    def tree(self, job):
        job.state[0] += 1
        return super().tree(job)

    def observe(self, state, commit):
        if commit.tree is not None:
            state[1] += 1
            if state[0] != state[1]:
                raise ContractBroken("lost its place")


@pytest.mark.parametrize("drafter", [Guessing(), NGram(), DraftModel(DRAFT), DraftModel(DRAFT, samples=2)])
def test_drafters_that_keep_the_contract_pass(drafter) -> None:
    check_drafter(drafter)


@pytest.mark.parametrize(
    ("drafter", "message"),
    [
        (PassesNodes(), "passes its budget"),
        (PassesDepth(), "passes its budget"),
        (TooSure(), r"outside \[0, 1\]"),
        (SaysItDraws(), "draws is true"),
        (DrawsInSecret(), "records draws"),
        (Branches(), "branches"),
        (AnotherRoot(), "root token"),
        (Drops(), "trees for"),
        (LosesItsPlace(), "lost its place"),
    ],
)
def test_broken_contracts_are_named(drafter, message: str) -> None:
    with pytest.raises(ContractBroken, match=message):
        check_drafter(drafter)
