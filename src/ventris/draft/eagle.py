"""EAGLE-3: one decoder layer that reads the target's features and goes on from its own.

Li et al. 2025, arXiv 2503.01840. With l, m, h the target's rows at a low, a middle and a high layer, the
drafter's one layer reads at each position t the row g_t = F [l_t, m_t, h_t] and the embedding of the token
after it, x_{t+1}; its attention takes both side by side, each normed by itself. Its output a_t, normed, gives
the logits of x_{t+2}, over the shortlist. Deeper guesses read a in place of g, which the target has not
computed yet; training rehearses that (training-time test).

The tree grows as in EAGLE-2 (Li et al. 2024, arXiv 2406.16858, section 4): at each level the likeliest few
nodes are expanded, likeliest by the product of the probabilities down to them, and of all that was offered
the likeliest nodes are proposed.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ventris.draft.best_nodes import best_nodes
from ventris.draft.checkpoint import CheckpointOptions, HeadCheckpoint
from ventris.draft.eagle_layer import EagleLayer
from ventris.draft.eagle_network import EagleNetwork
from ventris.draft.guided_rows import Guess, GuidedRows
from ventris.draft.head_tree import LARGEST_TREE
from ventris.draft.level_growth import Growth, likeliest
from ventris.draft.trained_drafter import TrainedDrafter
from ventris.engine.cache import KVCache
from ventris.engine.footprint import SCRATCH_ROWS
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Rows, Target
from ventris.engine.tree import TokenTree


@dataclass(slots=True)
class _Seen:
    """What a request has shown.

    Only rows of committed tokens enter the cache for good, so nothing ever has to be taken back: drafted rows
    lie behind the committed ones and are overwritten.

    Attributes:
        fresh: Tapped rows that the layer has not read, ``[n, taps * d]`` each.
        tokens: Their tokens.
        guesses: What follows the root, by the last committed position that was read.
        feature: The layer's output there, ``[1, d]``.
    """

    cache: KVCache
    fresh: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)
    feature: Tensor | None = None


@dataclass(slots=True)
class _Growth(Growth):
    """A tree under construction.

    Attributes:
        frontier: Nodes offered last, of which some are expanded next.
        feature_of: For each of them, the place of its parent's feature among the rows read last.
    """

    frontier: list[int] = field(default_factory=list)
    feature_of: dict[int, int] = field(default_factory=dict)


class Eagle(TrainedDrafter):
    """Drafts with an EAGLE-3 layer, level by level over the trees of all requests at once.

    Args:
        target: What it drafts for.
        network: The layer with its head.
        nodes: Drafted tokens at most.
        depth: Levels of the tree at most.
        width: Nodes expanded at a level, and guesses taken of each.
    """

    name = "eagle"
    network_class = EagleNetwork
    shape = "tree"
    draws = False
    guided = True

    class Options(CheckpointOptions):
        """Options of the EAGLE-3 drafter."""

        nodes: int = Field(16, ge=1, le=LARGEST_TREE, description="drafted tokens at most")
        depth: int = Field(5, ge=1, le=16, description="tokens drafted ahead")
        width: int = Field(4, ge=1, le=16, description="branches expanded at each level; 1 for a chain")

    def __init__(
        self, target: Target, network: EagleNetwork, nodes: int = 16, depth: int = 5, width: int = 4
    ) -> None:
        self.target = target
        self.taps: Sequence[int] = network.taps if network is not None else ()
        self.nodes = nodes
        self.depth = depth
        self.width = width
        self.shape = "chain" if width == 1 else "tree"
        self.models: Sequence[Any] = ()
        if target is not None:
            self._layer = EagleLayer(network, target)
            self.models = [self._layer]
            self._ids = network.ids.long().numpy()

    @classmethod
    def network_of(cls, target: Target, stored: HeadCheckpoint) -> EagleNetwork:
        return stored.network(EagleNetwork)

    def start(self, request: RequestView) -> _Seen:
        return _Seen(self._layer.new_cache(request.rows + SCRATCH_ROWS, request.ledger))

    def observe(self, state: _Seen, commit: Commit) -> None:
        state.fresh.append(torch.cat([commit.hidden[layer] for layer in self.taps], dim=-1))
        state.tokens += commit.tokens

    def finish(self, state: _Seen) -> None:
        """Give the cache back."""
        state.cache.release()

    @torch.no_grad()
    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        growing = [self._begin(job) for job in jobs]
        able = [growth for growth in growing if growth.depth > 0]
        if able:
            self._catch_up(able)
            for place, growth in enumerate(able):
                self._offer(growth, 0, growth.job.state.guesses, place)
            self._deepen(able, torch.cat([growth.job.state.feature for growth in able]))
        return [best_nodes(growth.tree, growth.nodes) for growth in growing]

    def _begin(self, job: DraftJob) -> _Growth:
        nothing = not job.state.fresh and job.state.feature is None
        guided = GuidedRows(job, self._ids, self.target.vocab_size)
        return _Growth.begin(job, self.name, guided, 0 if nothing else self.nodes, self.depth)

    def _catch_up(self, growing: Sequence[_Growth]) -> None:
        """Read the rows that were committed since the last proposal, each with the token after it."""
        unread = [growth for growth in growing if growth.job.state.fresh]
        if not unread:
            return
        waiting = [growth.job for growth in unread]
        fused = self._layer.fuse(torch.cat([rows for job in waiting for rows in job.state.fresh]))
        batch, first = [], 0
        for job in waiting:
            # A prompt position that holds an embedding has the token -1; its guess matters to nobody.
            following = [max(token, 0) for token in (*job.state.tokens[1:], job.root)]
            count = len(following)
            rows = fused[first : first + count]
            batch.append(Rows(job.state.cache, following, range(-1, count - 1), 0, rows, [count - 1]))
            first += count
        read = self._layer.read(batch)
        guesses = likeliest(read.logits, [(growth, 0) for growth in unread], self.width)
        last = -1
        for job, run, guess in zip(waiting, batch, guesses, strict=True):
            seen: _Seen = job.state
            last += len(run.tokens)
            seen.cache.commit(range(len(run.tokens)))
            seen.guesses, seen.feature = guess, read.features[last : last + 1]
            seen.fresh, seen.tokens = [], []

    def _offer(self, growth: _Growth, parent: int, guesses: Sequence[Guess], place: int) -> None:
        """Add the children of a node whose feature stands at ``place`` of what was read last."""
        for token, chance in guesses:
            node = growth.add(token, parent, chance)
            if token not in growth.job.request.end_ids:
                growth.frontier.append(node)
                growth.feature_of[node] = place

    def _deepen(self, growing: Sequence[_Growth], features: Tensor) -> None:
        """Expand the best nodes of each tree's last level until no tree may grow deeper."""
        for level in range(1, max(growth.depth for growth in growing)):
            batch, expanded, sources = [], [], []
            for growth in growing:
                chosen = self._choose(growth, level)
                if not chosen:
                    continue
                sources += [growth.feature_of[node] for node in chosen]
                expanded += [(growth, node) for node in chosen]
                batch.append(growth.rows(chosen))
            if not batch:
                return
            hidden, first = features[torch.tensor(sources, device=features.device)], 0
            for rows in batch:
                rows.embeddings = hidden[first : first + len(rows.tokens)]
                first += len(rows.tokens)
            read = self._layer.read(batch)
            features = read.features
            offers = zip(expanded, likeliest(read.logits, expanded, self.width), strict=True)
            for place, ((growth, node), guesses) in enumerate(offers):
                self._offer(growth, node, guesses, place)

    def _choose(self, growth: _Growth, level: int) -> list[int]:
        """The likeliest nodes of the last level, in the order in which they were offered."""
        offered, growth.frontier = growth.frontier, []
        if level >= growth.depth:
            return []
        return sorted(nlargest(self.width, offered, key=lambda node: growth.reach[node]))
