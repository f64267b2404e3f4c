"""Several drafters by priority: the first that has something to say drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ventris.engine.parts import Commit, Drafter, DraftJob, RequestView
from ventris.engine.tree import TokenTree

NO_ROOM = object()
"""State of a drafter whose cache did not fit into memory."""


class Stack:
    """Asks its drafters in order for each request.

    Args:
        drafters: At least two, the preferred one first.
    """

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self.drafters = list(drafters)
        self.name = ",".join(drafter.name for drafter in drafters)
        self.shape = "chain" if all(d.shape == "chain" for d in drafters) else "tree"
        self.draws = any(d.draws for d in drafters)
        self.guided = any(getattr(d, "guided", False) for d in drafters)
        self.taps = sorted({layer for d in drafters for layer in d.taps})
        self.tells_beliefs = all(getattr(d, "tells_beliefs", False) for d in drafters)

    @property
    def models(self) -> list[Any]:
        """What all drafters compute with besides the target."""
        return [model for drafter in self.drafters for model in getattr(drafter, "models", ())]

    def start(self, request: RequestView) -> list[Any]:
        """States of all drafters; :data:`NO_ROOM` for one that finds no memory, which then keeps silent."""
        return [_started(drafter, request) for drafter in self.drafters]

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        trees = [TokenTree.root(job.root) for job in jobs]
        silent = list(range(len(jobs)))
        for index, drafter in enumerate(self.drafters):
            if not silent:
                break
            able = [i for i in silent if jobs[i].state[index] is not NO_ROOM]
            if not able:
                continue
            asked = [replace(jobs[i], state=jobs[i].state[index]) for i in able]
            for i, tree in zip(able, drafter.propose(asked), strict=True):
                trees[i] = tree
            silent = [i for i in silent if len(trees[i]) == 1]
        return trees

    def observe(self, state: list[Any], commit: Commit) -> None:
        for drafter, own in zip(self.drafters, state, strict=True):
            if own is not NO_ROOM:
                drafter.observe(own, commit)

    def finish(self, state: list[Any]) -> None:
        """Tell those drafters that want to know."""
        for drafter, own in zip(self.drafters, state, strict=True):
            if hasattr(drafter, "finish") and own is not NO_ROOM:
                drafter.finish(own)


def _started(drafter: Drafter, request: RequestView) -> Any:
    try:
        return drafter.start(request)
    except MemoryError:
        return NO_ROOM
