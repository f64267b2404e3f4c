"""Drafters each of whose trees is compared with what was trained, computed from the text alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ventris.engine.parts import DraftJob
from ventris.engine.target import Rows
from ventris.engine.tree import TokenTree


class Watched(ABC):
    """Passes on to a drafter and compares its trees.

    Attributes:
        compared: How many guesses, by their depth.
    """

    def __init__(self, drafter: Any, network: nn.Module) -> None:
        self.drafter, self.network = drafter, network.eval()
        self.compared: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.drafter, name)

    @torch.no_grad()
    def propose(self, jobs: list[DraftJob]) -> list[TokenTree]:
        trees: list[TokenTree] = self.drafter.propose(jobs)
        for job, tree in zip(jobs, trees, strict=True):
            self.compare(job, tree)
        return trees

    @abstractmethod
    def compare(self, job: DraftJob, tree: TokenTree) -> None:
        """Fail if the tree is another one than that which training rehearsed."""

    def target_rows(self, tokens: list[int], layer: int) -> Tensor:
        """The target's inputs of a layer over a whole text."""
        target = self.drafter.target
        rows = Rows(target.new_cache(), list(tokens), range(-1, len(tokens) - 1))
        found: Tensor = target.forward([rows], [layer]).hidden[layer]
        return found


class WatchedHeads(Watched):
    """Of a drafter whose children are the best tokens of a row of logits."""

    @abstractmethod
    def is_ready(self, tokens: list[int]) -> bool:
        """Whether there is enough text to draft from."""

    @abstractmethod
    def known(self, tokens: list[int]) -> Any:
        """What every guess after a text rests on."""

    @abstractmethod
    def logits(self, known: Any, tokens: list[int], path: list[int]) -> Tensor:
        """What follows a path (the root first) after a text, over the listed tokens."""

    def compare(self, job: DraftJob, tree: TokenTree) -> None:
        tokens = job.request.tokens
        assert (len(tree) > 1) == self.is_ready(tokens)
        if len(tree) == 1:
            return
        known = self.known(tokens)
        for path, children in branches(tree):
            row = self.logits(known, tokens, path)
            best = self.network.vocabulary.ids[row.topk(len(children)).indices].tolist()
            assert [tree.tokens[child] for child in children] == best
            if self.drafter.dynamic:
                chances = row.softmax(-1).sort(descending=True).values.tolist()
                found = [tree.confidence[child] for child in children]
                assert found == pytest.approx(chances[: len(found)], rel=1e-3)
            self.compared[len(path)] += 1


def branches(tree: TokenTree) -> Iterator[tuple[list[int], list[int]]]:
    """The tokens of each path that goes on, the root first, and the children of its last node."""
    for node, children in enumerate(tree.children()):
        if children:
            yield [tree.tokens[above] for above in tree.path_to(node)], children
