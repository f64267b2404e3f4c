"""Drafts that follow the guides name only what may come."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trained import KINDS, PROMPTS, drafter_of, torch_place

from ventris.draft import DraftModel
from ventris.draft.guided_rows import GuidedRows
from ventris.draft.stack import Stack
from ventris.engine.parts import Budget, DraftJob
from ventris.engine.tree import TokenTree
from ventris.testing.checks import run
from ventris.verify.match import Coupled, Greedy

UNGUIDED = {"medusa", "falcon"}
"""Their guesses at a depth do not know the ones before, or come several at a time; drafts are pruned."""


class Parity:
    """Odd and even tokens in turn; says what it allows, and prunes nothing."""

    name = "parity"
    masks = True

    def start(self, request: Any) -> ParityState:
        return ParityState(0)


class ParityState:
    def __init__(self, place: int) -> None:
        self.place = place

    def adjust(self, logits: torch.Tensor, view: Any) -> torch.Tensor:
        logits[self.place % 2 :: 2] = -torch.inf
        return logits

    def advance(self, token: int) -> None:
        self.place += 1

    def fork(self) -> ParityState:
        return ParityState(self.place)

    def following(self, tokens: list[int]) -> tuple[list[int], bool]:
        return [token for token in tokens if token % 2 != self.place % 2], False

    def allowed(self, width: int) -> np.ndarray:
        return np.arange(width) % 2 != self.place % 2


class Watched:
    """A drafter, and how many of its drafts follow the guide or not."""

    def __init__(self, drafter: Any) -> None:
        self.drafter = drafter
        self.right = self.wrong = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.drafter, name)

    def propose(self, jobs: list[DraftJob]) -> list[TokenTree]:
        trees = self.drafter.propose(jobs)
        for job, tree in zip(jobs, trees, strict=True):
            place = len(job.request.tokens) - len(job.request.prompt)
            for node, depth in list(enumerate(tree.depths()))[1:]:
                fits = tree.tokens[node] % 2 != (place + depth - 1) % 2
                self.right, self.wrong = self.right + fits, self.wrong + (not fits)
        return trees


def made(kind: str) -> tuple[Any, Any]:
    place = torch_place()
    if kind == "model":
        return place.target, DraftModel(torch_place(seed=3).target, width=2, samples=0)
    if kind == "drawing model":
        return place.target, DraftModel(torch_place(seed=3).target, samples=2)
    return place.target, drafter_of(kind, place)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 4}])
@pytest.mark.parametrize("kind", [*KINDS, "model", "drawing model"])
def test_guided_drafters_name_what_may_come_and_others_do_not(kind: str, sampling: dict[str, Any]) -> None:
    target, drafter = made(kind)
    verifier = Coupled() if sampling else Greedy()
    plain = [done.tokens for done in run(target, verifier, None, [Parity()], prompts=PROMPTS, **sampling)]
    watched = Watched(drafter)
    drafted = run(target, verifier, watched, [Parity()], prompts=PROMPTS, **sampling)
    assert [done.tokens for done in drafted] == plain
    assert watched.right
    assert getattr(drafter, "guided", False) == (kind not in UNGUIDED)
    assert (watched.wrong > 0) == (kind in UNGUIDED)


def test_a_stack_is_guided_if_one_of_its_drafters_is() -> None:
    target, hydra = made("hydra")
    medusa = made("medusa")[1]
    assert Stack([medusa, hydra]).guided
    assert not Stack([medusa, made("falcon")[1]]).guided
    watched = Watched(Stack([hydra, medusa]))
    run(target, Greedy(), watched, [Parity()], prompts=PROMPTS)
    assert watched.right
    assert not watched.wrong


@given(
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.lists(st.integers(0, 59), min_size=1, max_size=4),
    st.booleans(),
)
def test_the_likeliest_are_those_of_the_masked_row(seed: int, width: int, path: list[int], one: bool) -> None:
    random = np.random.default_rng(seed)
    ids = np.sort(random.permutation(60)[: random.integers(1, 20)]).astype(np.int64)
    ids = ids[ids % 2 == 1] if one else ids
    tree = TokenTree.chain([7, *path], "test")
    guided = GuidedRows(DraftJob(None, None, Budget(9, 9), 7, [ParityState(0)]), ids, 60)  # type: ignore[arg-type]
    row = random.normal(size=len(ids)).astype(np.float32)
    found = guided.likeliest(tree, len(path), row, width) if len(ids) else []
    left = [place for place in np.argsort(-row) if ids[place] % 2 != len(path) % 2]
    assert [token for token, _ in found] == [int(ids[place]) for place in left[:width]]
    assert all(0 < chance <= 1 + 1e-6 for _, chance in found)
    if found and len(found) == len(left):
        assert sum(chance for _, chance in found) <= 1 + 1e-5


def test_without_guides_nothing_is_asked() -> None:
    guided = GuidedRows(DraftJob(None, None, Budget(9, 9), 7, [object()]), np.arange(5), 5)  # type: ignore[arg-type,list-item]
    row = np.asarray([0, 3, 1, 2, 0], np.float32)
    assert guided.masked(TokenTree.chain([7, 1], "test"), 1, row) is row
    assert [token for token, _ in guided.likeliest(TokenTree.root(7), 0, row, 2)] == [1, 3]


def test_a_model_that_is_sure_of_what_is_refused_still_drafts_what_may_come() -> None:
    """Beside a logit that is so much larger, the probabilities of the others are zero."""
    row = np.full(12, -2000.0, np.float32)
    row[0], row[5] = 0.0, -1999.0
    guided = GuidedRows(DraftJob(None, None, Budget(9, 9), 7, [ParityState(0)]), np.arange(12), 12)  # type: ignore[arg-type]
    found = guided.likeliest(TokenTree.root(7), 0, row, 2)
    assert [token for token, _ in found] == [5, 1]
    assert found[0][1] > found[1][1] > 0


class Faulty(ParityState):
    """Fails at some of what it is asked."""

    def __init__(self, place: int, faults: set[str]) -> None:
        super().__init__(place)
        self.faults = faults

    def advance(self, token: int) -> None:
        assert "advance" not in self.faults
        super().advance(token)

    def fork(self) -> Faulty:
        assert "fork" not in self.faults
        return Faulty(self.place, self.faults)

    def following(self, tokens: list[int]) -> tuple[list[int], bool]:
        assert "following" not in self.faults
        return super().following(tokens)

    def allowed(self, width: int) -> np.ndarray:
        assert "allowed" not in self.faults
        return super().allowed(width)


@pytest.mark.parametrize(
    ("faults", "empty"),
    [
        ({"fork"}, {1}),
        ({"advance"}, {1}),
        ({"allowed"}, set()),
        ({"following"}, set()),
        ({"allowed", "following"}, {0, 1}),
    ],
)
def test_nothing_is_drafted_where_a_guide_fails(faults: set[str], empty: set[int]) -> None:
    """What a guide raises belongs to the request that meets it, and one call drafts for many."""
    tree = TokenTree.chain([7, 2], "test")
    guided = GuidedRows(DraftJob(None, None, Budget(9, 9), 7, [Faulty(0, faults)]), np.arange(12), 12)  # type: ignore[arg-type]
    row = np.arange(12, dtype=np.float32)
    assert {node for node in (0, 1) if not guided.likeliest(tree, node, row, 2)} == empty
    assert np.isneginf(guided.masked(tree, 0, row)).all() == ("allowed" in faults)
