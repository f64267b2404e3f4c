"""A smaller model as drafter: speculative decoding as Leviathan et al. 2023 and Chen et al. 2023 have it.

At temperature 0 (or with ``samples=0``) it proposes its most probable tokens, a chain or a tree grown where
the path is likeliest; at a temperature it draws ``samples`` independent continuations and records q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import exp
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import BaseModel, Field
from torch import Tensor

from ventris.draft.guided_rows import GuidedRows
from ventris.draft.shortlist import over_all
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.sampling import Row, Sampling, distribution
from ventris.engine.stream import Stream, forward
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.native.rows import most_probable

if TYPE_CHECKING:
    from ventris.parts import Workshop


@dataclass(slots=True)
class _Growth:
    """A tree under construction and the nodes to score next."""

    job: DraftJob
    tree: TokenTree
    guided: GuidedRows
    frontier: list[int]
    copies: dict[int, int]
    heap: list[tuple[float, int, int, int, float]]
    depth: list[int]


class DraftModel:
    """Drafts with any target that has the same vocabulary.

    Args:
        model: The draft model.
        depth: Tokens drafted ahead at most.
        width: Branches tried at each node when tokens are chosen; 1 proposes a chain.
        nodes: Chosen nodes in all, at most.
        samples: Independent drawn continuations at a temperature above 0; with 0 tokens are chosen there
            too (point-mass drafts).
        vocabulary: The tokens that the model scores, ascending, where they are not all; drafts are made of
            them, and q is 0 elsewhere.
    """

    name = "model"
    guided = True
    taps: Sequence[int] = ()
    tells_beliefs = True

    class Options(BaseModel):
        """Options of the draft-model drafter."""

        model: str = Field(description="name, folder or .gguf of the draft model")
        depth: int = Field(4, ge=1, le=64, description="tokens drafted ahead")
        width: int = Field(1, ge=1, le=16, description="branches tried at each node; 1 for a chain")
        nodes: int = Field(8, ge=1, le=256, description="chosen nodes in all")
        samples: int = Field(1, ge=0, le=16, description="drawn continuations at temperature > 0")

    def __init__(
        self,
        model: Target,
        depth: int = 4,
        width: int = 1,
        nodes: int = 8,
        samples: int = 1,
        vocabulary: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.depth = depth
        self.width = width
        self.nodes = nodes
        self.samples = samples
        self.listed = None if vocabulary is None else np.asarray(vocabulary, dtype=np.int64)
        if model is not None:
            self._ids = np.arange(model.vocab_size) if self.listed is None else self.listed
        self.draws = samples > 0
        self.shape = "chain" if width == 1 and samples <= 1 else "tree"

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> DraftModel:
        """Load the draft model; without a target only the shape of the drafts is known."""
        settings = options.model_dump(exclude={"model"})
        if workshop.target is None or workshop.load_target is None:
            return cls(cast(Target, None), **settings)
        return cls(workshop.load_target(options.model), **settings)

    @property
    def models(self) -> Sequence[Target]:
        """The draft model, for a memory budget."""
        return [self.model]

    def start(self, request: RequestView) -> Stream:
        return request.stream(self.model, "draft model")

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        growing = [self._begin(job) for job in jobs]
        trees = [growth.tree for growth in growing]
        active = [growth for growth in growing if growth.frontier]
        while active:
            logits = forward([(g.job.state, g.job.state.rows(g.tree, g.frontier), ()) for g in active])
            for growth, result in zip(active, logits, strict=True):
                self._extend(growth, result.logits)
            active = [growth for growth in active if growth.frontier]
        return trees

    def _begin(self, job: DraftJob) -> _Growth:
        tree = TokenTree([job.root], [-1], [1.0], self.name)
        stream: Stream = job.state
        # A step that was given up may have left a half-grown draft behind.
        stream.discard()
        room = self.model.context_length - stream.cache.length - len(stream.pending)
        fits = min(job.budget.depth, job.budget.nodes, room) > 0 and min(stream.pending) >= 0
        guided = GuidedRows(job, self._ids, self.model.vocab_size)
        return _Growth(job, tree, guided, [0] if fits else [], {0: self.samples}, [], [0])

    def _extend(self, growth: _Growth, logits: Tensor) -> None:
        scored, growth.frontier = growth.frontier, []
        rows = logits.detach().cpu().numpy()
        sampled = self.draws and not growth.job.request.sampling.greedy
        for node, row in zip(scored, rows, strict=True):
            if self.hands_over(growth.job, row):
                continue
            if growth.job.request.keep_beliefs:
                growth.tree.beliefs[node] = self._over_all(distribution(row, Sampling(temperature=1.0)))
            row = growth.guided.masked(growth.tree, node, row)
            if np.isneginf(row.max()):
                continue
            if sampled:
                self._draw_children(growth, node, row)
            else:
                self._offer_children(growth, node, row)
        if not sampled:
            self._choose(growth)

    def hands_over(self, job: DraftJob, row: Row) -> bool:
        """True if nothing is drafted behind a node with the logits ``row``: the target shall go on there.

        Here where the budget asks for more confidence than the best next token has.
        """
        least = job.budget.confidence
        return least > 0 and exp(most_probable(row, 1)[0][1]) < least

    def _limits(self, growth: _Growth) -> tuple[int, int]:
        budget = growth.job.budget
        return min(budget.nodes, self.nodes if self.width > 1 else self.depth), min(budget.depth, self.depth)

    def _draw_children(self, growth: _Growth, node: int, row: Row) -> None:
        nodes, depth = growth.job.budget.nodes, min(growth.job.budget.depth, self.depth)
        copies = growth.copies[node]
        if growth.depth[node] >= depth or len(growth.tree) - 1 + copies > nodes:
            return
        request = growth.job.request
        q = self._over_all(distribution(row, request.sampling))
        random = request.randomness(request.draft_purpose, growth.depth[node])
        drawn = growth.tree.add_draws(node, [random.categorical(q) for _ in range(copies)], q)
        for child in dict.fromkeys(drawn):
            growth.depth.append(growth.depth[node] + 1)
            growth.copies[child] = drawn.count(child)
            if growth.depth[child] < depth and growth.tree.tokens[child] not in request.end_ids:
                growth.frontier.append(child)

    def _over_all(self, q: Tensor) -> Tensor:
        """Probabilities of what the model scores as those of the whole vocabulary."""
        return q if self.listed is None else over_all(q, self.listed, self.model.vocab_size)

    def _offer_children(self, growth: _Growth, node: int, row: Row) -> None:
        path = 1.0
        for ancestor in growth.tree.path_to(node)[1:]:
            path *= growth.tree.confidence[ancestor]
        for place, log_probability in most_probable(row, self.width):
            share = exp(log_probability)
            if share > 0:
                token = int(self._ids[place])
                heappush(growth.heap, (-path * share, len(growth.heap), node, token, share))

    def _choose(self, growth: _Growth) -> None:
        """Add the likeliest continuations; those that may go on are scored next."""
        nodes, depth = self._limits(growth)
        # One node a round for a chain; for a tree a round scores up to `width` nodes in one forward.
        for _ in range(self.width):
            if not growth.heap or len(growth.tree) > nodes:
                growth.frontier = growth.frontier if len(growth.tree) <= nodes else []
                return
            _, _, parent, token, share = heappop(growth.heap)
            child = growth.tree.add(token, parent, share)
            growth.depth.append(growth.depth[parent] + 1)
            if growth.depth[child] < depth and token not in growth.job.request.end_ids:
                growth.frontier.append(child)
        if len(growth.tree) > nodes:
            growth.frontier = []

    def observe(self, state: Any, commit: Commit) -> None:
        if commit.tree is None or commit.next_token is None:
            return
        state.advance(commit.tree, commit.path, commit.next_token)

    def finish(self, state: Any) -> None:
        """Give the draft model's cache back."""
        state.cache.release()
