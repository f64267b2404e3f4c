"""Prompt lookup: propose what followed the last time the text ended like this.

Saxena 2023 (prompt lookup decoding); here over a suffix automaton of prompt and output, with several
continuations as a tree and a confidence that is learnt while decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from pydantic import BaseModel, Field

from ventris.draft.suffix_automaton import SuffixAutomaton
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.tree import TokenTree

LONGEST_MATCH = 12
"""Match lengths from here on are equally trustworthy."""

PRIOR_WEIGHT = 4.0
"""Observations that the prior reliability of a match length counts for."""

FORGETTING = 0.995
"""Factor on old observations, so that reliability follows the text."""


@dataclass(slots=True)
class _Copying:
    """What the drafter remembers about one request."""

    automaton: SuffixAutomaton
    matched: int = 0
    kept: list[float] = field(default_factory=list)
    judged: list[float] = field(default_factory=list)


PRIOR_RELIABILITY = (0.0, 0.33, 0.55, 0.67, 0.71, 0.75, 0.80, 0.80, 0.82, 0.85, 0.86, 0.88, 0.93)
"""Chance that a copy after a match of so many tokens is right, before the request has shown its own.

Measured with SmolLM2-135M, greedy, over thirteen kinds of task (see docs/log.md); other models will differ,
which is why it counts for a few observations only.
"""


class NGram:
    """Copies from prompt and output.

    Drafts are deterministic, so every exact verifier keeps the target's distribution. A node's confidence
    is the share of earlier occurrences that went on this way, times how often a copy after so long a
    match was right in this request.

    Args:
        max_nodes: Drafted tokens at most, all branches together.
        max_depth: Length of a copied run at most.
        min_match: Shortest repeated ending that is worth a draft.
        min_confidence: Nodes whose path is less likely than this are not proposed.
        width: Different continuations of one node at most.
    """

    name = "ngram"
    draws = False
    taps: Sequence[int] = ()

    class Options(BaseModel):
        """Options of the n-gram drafter."""

        max_nodes: int = Field(15, ge=1, le=256, description="drafted tokens, all branches together")
        max_depth: int = Field(12, ge=1, le=64, description="longest copied run")
        min_match: int = Field(1, ge=1, le=32, description="shortest repeated ending worth a draft")
        min_confidence: float = Field(0.02, ge=0, le=1, description="least likely path still proposed")
        width: int = Field(3, ge=1, le=16, description="different continuations of one node")

    def __init__(
        self,
        max_nodes: int = 15,
        max_depth: int = 12,
        min_match: int = 1,
        min_confidence: float = 0.02,
        width: int = 3,
    ) -> None:
        self.max_nodes = max_nodes
        self.max_depth = max_depth
        self.min_match = min_match
        self.min_confidence = min_confidence
        self.width = width
        self.shape = "chain" if width == 1 else "tree"

    def start(self, request: RequestView) -> _Copying:
        # Embedded prompt rows have no token; -1 never matches anything that is generated.
        size = LONGEST_MATCH + 1
        return _Copying(SuffixAutomaton(request.prompt), kept=[0.0] * size, judged=[0.0] * size)

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        return [self._grow(job) for job in jobs]

    def _grow(self, job: DraftJob) -> TokenTree:
        copying: _Copying = job.state
        automaton = copying.automaton
        tree = TokenTree([job.root], [-1], [1.0], self.name)
        match = automaton.match
        copying.matched = automaton.length[match]
        if automaton.length[match] < self.min_match:
            return tree
        nodes = min(job.budget.nodes, self.max_nodes)
        depth = min(job.budget.depth, self.max_depth)
        # Best first: (minus the path's probability, tie break, token, parent, state, match, depth, own).
        heap: list[tuple[float, int, int, int, int, int, int, float]] = []
        self._offer(heap, copying, 1.0, 0, match, automaton.length[match], 1)
        while heap and len(tree) <= nodes:
            cost, _, token, parent, state, matched, level, confidence = heappop(heap)
            if token < 0:
                continue
            node = tree.add(token, parent, confidence)
            if level < depth:
                self._offer(heap, copying, -cost, node, state, matched + 1, level + 1)
        return tree

    def _offer(
        self,
        heap: list[tuple[float, int, int, int, int, int, int, float]],
        copying: _Copying,
        path: float,
        parent: int,
        state: int,
        matched: int,
        level: int,
    ) -> None:
        """Put the likeliest continuations of a state on the heap."""
        automaton = copying.automaton
        while state > 0 and not automaton.follow[state]:
            # The copy caught up with the end of the text; a shorter match tells how it goes on.
            state = automaton.link[state]
        follow = automaton.follow[state]
        if state == 0 or not follow:
            return
        latest = automaton.latest[state]
        # The most recent continuation counts double: text tends to repeat what it just said.
        weights = [(automaton.count[s] * (2 if t == latest else 1), t, s) for t, s in follow.items()]
        total = sum(weight for weight, _, _ in weights)
        if len(weights) > self.width:
            weights.sort(reverse=True)
        reliability = self._reliability(copying, matched)
        for weight, token, following in weights[: self.width]:
            confidence = reliability * weight / total
            if path * confidence >= self.min_confidence:
                heappush(
                    heap,
                    (-path * confidence, len(heap), token, parent, following, matched, level, confidence),
                )

    def _reliability(self, copying: _Copying, match: int) -> float:
        match = min(match, LONGEST_MATCH)
        kept = copying.kept[match] + PRIOR_WEIGHT * PRIOR_RELIABILITY[match]
        return kept / (copying.judged[match] + PRIOR_WEIGHT)

    def observe(self, state: _Copying, commit: Commit) -> None:
        if commit.tree is None or commit.next_token is None:
            return
        self._learn(state, commit)
        for node in commit.path[1:]:
            state.automaton.append(commit.tree.tokens[node])
        state.automaton.append(commit.next_token)

    def _learn(self, state: _Copying, commit: Commit) -> None:
        """Count, by match length, how often one of the continuations was right."""
        tree = commit.tree
        if tree is None or tree.source != self.name:
            return
        on_path = set(commit.path)
        depth = tree.depths()
        judged: dict[int, tuple[int, bool]] = {}
        for node in range(1, len(tree)):
            parent = tree.parents[node]
            if parent in on_path:
                right = node in on_path or (
                    parent == commit.path[-1] and tree.tokens[node] == commit.next_token
                )
                judged[parent] = (state.matched + depth[parent], right or judged.get(parent, (0, False))[1])
        for match, right in judged.values():
            index = min(match, LONGEST_MATCH)
            state.kept[index] = FORGETTING * state.kept[index] + right
            state.judged[index] = FORGETTING * state.judged[index] + 1.0
