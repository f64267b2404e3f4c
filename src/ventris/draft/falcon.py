"""Falcon: an LSTM and one decoder layer that guess k tokens a pass, each block below those that led to it.

Gao et al. 2025 (AAAI, pages 23933-23941). With f_i the target's final-normed last hidden row and E its
embedding, an LSTM of two layers reads the pairs [E(x_{i+1}); f_i], and one decoder layer what comes of them.
Positions stand in blocks of k; each sees all blocks before and the whole of its own (relaxed causal
attention). Output i is the guess of f_{i+k}, so the last k known pairs give the features of the next k
tokens, and the target's head over the shortlist turns them into tokens. Deeper blocks read these features
with the guessed tokens.

Tree (section 3.4): inside a block, level b takes the best tokens of the block's b-th row, whichever stands
above; a path of k tokens that has children is the block that the next pass reads. Which ranks are taken comes
from how often they were right together on held-out text, or from each step's own probabilities.

Blocks are counted from the last known token, and every path carries an LSTM state of its own. The layer keeps
the norm before its attention that the target's layers have, and its output is normed as the target's is.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import groupby
from math import ceil, exp
from typing import Any

import numpy as np

from ventris.draft.best_nodes import best_nodes
from ventris.draft.falcon_layer import Block, FalconLayer
from ventris.draft.falcon_network import FalconNetwork
from ventris.draft.head_drafter import DYNAMIC_WIDTH, HeadDrafter, TreeChoice
from ventris.draft.head_tree import Path as TreePath
from ventris.draft.head_tree import StaticTree, grow_from_accuracies
from ventris.draft.listed_embedding import ListedEmbedding
from ventris.draft.medusa import RANKS
from ventris.engine.cache import KVCache
from ventris.engine.footprint import SCRATCH_ROWS
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.native.rows import most_probable
from ventris.models.stage import Array
from ventris.models.stages import as_array, rms_norm_rows

Children = Mapping[TreePath, Sequence[float]]
"""Confidence of each child, by the path of its parent."""


@dataclass(slots=True)
class _Guesses:
    """A block with the best tokens of each of its rows, as places in the shortlist with log-probabilities."""

    features: Array
    ranked: list[list[tuple[int, float]]]


@dataclass(slots=True)
class _Seen:
    """What a request has shown.

    Attributes:
        cache: The layer's, of committed tokens; drafted rows lie behind them and are overwritten.
        state: The LSTM's, behind the last pair that was read.
        tail: The last k - 1 rows that the layer has read, which begin the next block too.
        fresh: Features that have not been read, ``[n, d]`` each.
        tokens: Their tokens.
        guesses: What follows the root, by the last k pairs.
    """

    cache: KVCache
    state: Array
    tail: Array
    fresh: list[Array] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    guesses: _Guesses | None = None


@dataclass(slots=True)
class _Draft:
    """A tree under construction.

    Attributes:
        depth: Levels still allowed.
        children: Those of the tree by measured acceptance.
        parents: Those of the layer's scratch rows so far.
    """

    job: DraftJob
    tree: TokenTree
    nodes: int
    depth: int
    children: Children
    parents: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Stem:
    """Where a block of guesses hangs.

    Attributes:
        path: Ranks down to the node.
        reach: Chance that the path down to it is right.
        row: Scratch row of the pair that was read last on the way; -1 where it is committed.
        state: The LSTM's behind that pair.
    """

    draft: _Draft
    guesses: _Guesses
    node: int
    path: TreePath
    reach: float
    row: int
    state: Array


@dataclass(slots=True)
class _Segment:
    """k tokens below a stem, one of each row."""

    stem: _Stem
    nodes: list[int]
    path: TreePath
    reach: float


class Falcon(HeadDrafter):
    """Drafts k tokens a pass, pass by pass over the trees of all requests at once."""

    name = "falcon"
    network_class = FalconNetwork

    def __init__(
        self,
        target: Target,
        network: FalconNetwork,
        tree: StaticTree,
        nodes: int = 24,
        choose: TreeChoice = "static",
    ) -> None:
        super().__init__(target, network, tree, nodes, choose)
        self.block = network.block
        self._layer = FalconLayer(network, target)
        self._embed = ListedEmbedding(target, self._ids)
        self._norm = as_array(network.vocabulary.norm)
        self._eps = network.vocabulary.eps
        self._deepest = max(map(len, tree.paths), default=0)

    @property
    def passes(self) -> int:
        """Passes of the layer that the whole static tree takes."""
        return ceil(max(map(len, self._tree.paths[: self.nodes]), default=0) / self.block)

    @classmethod
    def tree_of(cls, measured: Any) -> StaticTree:
        """The tree by measured joint frequency of its paths."""
        return StaticTree.read(measured["tree"])

    def start(self, request: RequestView) -> _Seen:
        nothing = np.zeros((0, self.target.hidden_size), np.float32)
        return _Seen(
            self._layer.new_cache(request.rows + SCRATCH_ROWS, request.ledger), self._layer.start(), nothing
        )

    def observe(self, state: _Seen, commit: Commit) -> None:
        rows = as_array(commit.hidden[self.target.num_layers])
        state.fresh.append(rms_norm_rows(rows, self._norm, self._eps))
        state.tokens += commit.tokens

    def finish(self, state: _Seen) -> None:
        """Give the layer's cache back."""
        state.cache.release()

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        drafts = [self._begin(job) for job in jobs]
        able = [draft for draft in drafts if draft.depth > 0]
        self._catch_up([draft.job for draft in able])
        stems = [
            _Stem(draft, draft.job.state.guesses, 0, (), 1.0, -1, draft.job.state.state)
            for draft in able
            if draft.job.state.guesses is not None
        ]
        while segments := [segment for stem in stems for segment in self._plant(stem)]:
            stems = self._read_on(self._promising(segments))
        return [best_nodes(draft.tree, draft.nodes) if self.dynamic else draft.tree for draft in drafts]

    def _begin(self, job: DraftJob) -> _Draft:
        nodes, depth = min(job.budget.nodes, self.nodes), min(job.budget.depth, self._deepest)
        children = self.measured_children(nodes, depth)
        return _Draft(job, self._root(job), nodes, depth if nodes else 0, children)

    def _catch_up(self, jobs: Sequence[DraftJob]) -> None:
        """Read the pairs that were committed since the last proposal."""
        waiting: list[tuple[DraftJob, _Seen]] = [(job, job.state) for job in jobs if job.state.fresh]
        if not waiting:
            return
        pairs = []
        for job, seen in waiting:
            # A prompt position that holds an embedding has the token -1; its guess matters to nobody.
            following = [max(token, 0) for token in (*seen.tokens[1:], job.root)]
            pairs.append(np.concatenate([self._embed(following), np.concatenate(seen.fresh)], axis=1))
        mixed, states = self._layer.mix(pairs, [seen.state for _, seen in waiting])
        batch, reading = [], []
        for (_, seen), rows, state in zip(waiting, mixed, states, strict=True):
            rows = np.concatenate([seen.tail, rows])
            seen.state, seen.fresh, seen.tokens = state, [], []
            seen.cache.truncate(max(seen.cache.length - len(seen.tail), 0))
            seen.tail = rows[max(len(rows) - self.block + 1, 0) :]
            if len(rows) >= self.block:
                batch.append((seen.cache, rows, range(-1, len(rows) - 1), [len(rows) - 1]))
                reading.append(seen)
        if batch:
            for seen, (cache, rows, *_), block in zip(reading, batch, self._layer.read(batch), strict=True):
                cache.commit(range(len(rows)))
                seen.guesses = self._guesses(block)

    def _guesses(self, block: Block) -> _Guesses:
        width = DYNAMIC_WIDTH if self.dynamic else RANKS
        return _Guesses(block.features, [most_probable(row, width) for row in block.logits])

    def _plant(self, stem: _Stem) -> list[_Segment]:
        """Add a block's guesses to the tree; return the paths of k tokens that another block may follow."""
        draft, tree = stem.draft, stem.draft.tree
        children = self._children(stem)
        level = [_Segment(stem, [], stem.path, stem.reach)]
        for ranked in stem.guesses.ranked:
            below = []
            for segment in level:
                parent = segment.nodes[-1] if segment.nodes else stem.node
                offered = zip(ranked, children.get(segment.path, ()), strict=False)
                for rank, ((place, _), confidence) in enumerate(offered):
                    token = self._ids[place]
                    node = tree.add(token, parent, confidence)
                    if token not in draft.job.request.end_ids:
                        reach = segment.reach * confidence
                        below.append(_Segment(stem, [*segment.nodes, node], (*segment.path, rank), reach))
            level = below
        return [segment for segment in level if len(segment.path) < draft.depth]

    def _children(self, stem: _Stem) -> Children:
        if not self.dynamic:
            return stem.draft.children
        levels = stem.draft.depth - len(stem.path)
        chances = [[exp(chance) for _, chance in ranked] for ranked in stem.guesses.ranked]
        tree = grow_from_accuracies(chances, stem.draft.nodes, levels)
        children: dict[TreePath, list[float]] = {}
        for path, confidence in zip(tree.paths, tree.confidences(), strict=True):
            children.setdefault((*stem.path, *path[:-1]), []).append(confidence)
        return children

    def _promising(self, segments: Sequence[_Segment]) -> list[_Segment]:
        """Those that are read on from, each draft's together."""
        if not self.dynamic:
            return [segment for segment in segments if segment.path in segment.stem.draft.children]
        drafts = {id(segment.stem.draft): segment.stem.draft for segment in segments}.values()
        return [
            segment
            for draft in drafts
            for segment in nlargest(
                DYNAMIC_WIDTH, (s for s in segments if s.stem.draft is draft), key=lambda s: s.reach
            )
        ]

    def _read_on(self, segments: Sequence[_Segment]) -> list[_Stem]:
        """The blocks below some segments."""
        if not segments:
            return []
        pairs = []
        for segment in segments:
            tokens = [segment.stem.draft.tree.tokens[node] for node in segment.nodes]
            pairs.append(np.concatenate([self._embed(tokens), segment.stem.guesses.features], axis=1))
        mixed, states = self._layer.mix(pairs, [segment.stem.state for segment in segments])
        batch, last = [], []
        # Segments of one draft stand together, as their stems did.
        for _, group in groupby(zip(segments, mixed, strict=True), key=lambda pair: id(pair[0].stem.draft)):
            own = list(group)
            draft = own[0][0].stem.draft
            ends = []
            for segment, _ in own:
                first = len(draft.parents)
                draft.parents += [segment.stem.row, *range(first, first + self.block - 1)]
                ends.append(len(draft.parents) - 1)
            rows = np.concatenate([rows for _, rows in own])
            batch.append((draft.job.state.cache, rows, draft.parents, ends))
            last += ends
        blocks = self._layer.read(batch)
        return [
            _Stem(s.stem.draft, self._guesses(block), s.nodes[-1], s.path, s.reach, row, state)
            for s, block, row, state in zip(segments, blocks, last, states, strict=True)
        ]
