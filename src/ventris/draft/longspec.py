"""LongSpec: a drafter whose own memory does not grow, for long texts.

Yang et al. 2025, arXiv 2502.17421. One block reads token ids alone. Its first attention is causal and sees a
sliding window of its own rows; its second one reads the keys and values of the target's last layer, of all
tokens that the target has processed, where they lie in the target's cache. So however long the text is, the
drafter itself keeps the window and a few rows more. A token drafted at depth j looks at the target's rows
from j positions further on than the root; training rehearses that, and moves short texts to far positions
behind a few anchors, so that it drafts there too (:mod:`ventris.train.longspec`).

The tree is the paper's: at each level the likeliest few of all continuations of the level above, by the
product of the probabilities down to them. The block ends in a norm before the target's vocabulary rows, which
the paper's code does without.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import cast

import torch
from pydantic import Field

from ventris.draft.best_nodes import best_nodes
from ventris.draft.checkpoint import CheckpointOptions
from ventris.draft.decoder_beside import decoder_beside
from ventris.draft.guided_rows import Guess, GuidedRows
from ventris.draft.head_tree import LARGEST_TREE
from ventris.draft.level_growth import Growth, likeliest
from ventris.draft.longspec_network import LongSpecNetwork
from ventris.draft.trained_drafter import TrainedDrafter
from ventris.engine.cache import KVCache
from ventris.engine.errors import Incompatible
from ventris.engine.footprint import run
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.stream import Stream
from ventris.engine.target import Rows, Target
from ventris.engine.tree import TokenTree

SPARE_ROWS = 64
"""Committed rows that may stand before the window until they are dropped, and as many for the tree."""


@dataclass(slots=True)
class _Seen:
    """What a request has shown.

    Attributes:
        cache: The block's own rows, all of committed tokens; its next position is that of the first token
            that the block has not read.
        guesses: What follows the last token that was read.
    """

    cache: KVCache
    guesses: list[Guess] = field(default_factory=list)


@dataclass(slots=True)
class _Growth(Growth):
    """A tree under construction.

    Attributes:
        offered: Nodes that were read last, with what may follow each.
    """

    offered: list[tuple[int, list[Guess]]] = field(default_factory=list)

    @property
    def stream(self) -> Stream:
        return cast(Stream, self.job.stream)


class LongSpec(TrainedDrafter):
    """Drafts trees level by level, those of all requests at once.

    Args:
        target: What it drafts for, and whose cache it reads.
        network: The block with its head.
        nodes: Drafted tokens at most.
        depth: Levels of the tree at most.
        width: Nodes of a level at most.
    """

    name = "longspec"
    network_class = LongSpecNetwork
    draws = False
    guided = True
    taps: Sequence[int] = ()

    class Options(CheckpointOptions):
        """Options of the LongSpec drafter."""

        nodes: int = Field(16, ge=1, le=LARGEST_TREE, description="drafted tokens at most")
        depth: int = Field(5, ge=1, le=16, description="tokens drafted ahead")
        width: int = Field(4, ge=1, le=16, description="nodes kept of each level; 1 for a chain")

    def __init__(
        self, target: Target, network: LongSpecNetwork, nodes: int = 16, depth: int = 5, width: int = 4
    ) -> None:
        self.target = target
        self.nodes = nodes
        self.depth = depth
        self.width = width
        self.shape = "chain" if width == 1 else "tree"
        if target is not None:
            if target.new_cache(1).layout.layers < target.num_layers:
                raise Incompatible(
                    "draft 'longspec'",
                    "a target in two stages",
                    "it reads the last layer's rows, which the second process holds; load the model in one",
                )
            self._window = network.window
            self._offsets = network.offsets
            self._block = decoder_beside(target, network.decoder(), network.weights())
            self.models = [self._block]
            self._ids = network.vocabulary.ids.long().numpy()

    def start(self, request: RequestView) -> _Seen:
        longest = len(request.prompt) + request.max_new_tokens
        capacity = min(longest, self._window + SPARE_ROWS) + SPARE_ROWS
        return _Seen(self._block.new_cache(capacity, request.ledger, self.name))

    def observe(self, state: _Seen, commit: Commit) -> None:
        """Nothing to keep: tokens are read from the request, and the target's rows from its cache."""

    def finish(self, state: _Seen) -> None:
        """Give the cache back."""
        state.cache.release()

    @torch.no_grad()
    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        growing = [self._begin(job) for job in jobs]
        able = [growth for growth in growing if growth.depth > 0]
        self._read_committed(able)
        for growth in able:
            growth.offered = [(0, growth.job.state.guesses)]
        for level in range(1, self.depth + 1):
            fresh = [(growth, self._add_level(growth)) for growth in able if growth.depth >= level]
            self._read_level([(g, nodes) for g, nodes in fresh if nodes and g.depth > level])
        return [best_nodes(growth.tree, growth.nodes) for growth in growing]

    def _begin(self, job: DraftJob) -> _Growth:
        # So far behind the root the target's rows were never seen to end in training.
        behind = len(cast(Stream, job.stream).pending) > self._offsets
        guided = GuidedRows(job, self._ids, self.target.vocab_size)
        return _Growth.begin(job, self.name, guided, 0 if behind else self.nodes, self.depth)

    def _read_committed(self, growing: Sequence[_Growth]) -> None:
        """Read the tokens that were committed since the last proposal, at most a window of them."""
        batch, waiting = [], []
        for growth in growing:
            cache, tokens = growth.job.state.cache, growth.job.request.tokens
            first = max(cache.next_position, len(tokens) - self._window)
            if first == len(tokens):
                continue
            if first > cache.next_position:
                cache.release()
                cache.begin_at(first)
            # A prompt position that holds an embedding has the token -1; it matters for the window alone.
            unread = [max(token, 0) for token in tokens[first:]]
            count = len(unread)
            lent = growth.stream.cache
            batch.append(Rows(cache, unread, range(-1, count - 1), wanted=[count - 1], lent=lent))
            waiting.append((growth, 0))
        for (growth, _), rows, guesses in zip(waiting, batch, self._guesses(batch, waiting), strict=True):
            state = growth.job.state
            state.cache.commit(range(len(rows.tokens)))
            state.guesses = guesses
            self._drop_old_rows(state.cache)

    def _drop_old_rows(self, cache: KVCache) -> None:
        if cache.length > self._window + SPARE_ROWS:
            cache.keep(torch.arange(cache.length - self._window, cache.length))

    def _guesses(self, batch: Sequence[Rows], places: Sequence[tuple[_Growth, int]]) -> list[list[Guess]]:
        """The likeliest listed tokens after each wanted node, best first."""
        if not batch:
            return []
        return likeliest(torch.cat(run(self._block, batch).logits), places, self.width)

    def _add_level(self, growth: _Growth) -> list[int]:
        """Add the likeliest continuations of the level above, and return those that go on."""
        offers = [(parent, *guess) for parent, guesses in growth.offered for guess in guesses]
        reach = [growth.reach[parent] * chance for parent, _, chance in offers]
        chosen = nlargest(self.width, range(len(offers)), key=reach.__getitem__)
        growth.offered = []
        going = []
        for parent, token, chance in (offers[place] for place in sorted(chosen)):
            node = growth.add(token, parent, chance)
            if token not in growth.job.request.end_ids:
                going.append(node)
        return going

    def _read_level(self, fresh: Sequence[tuple[_Growth, list[int]]]) -> None:
        """Ask what follows the nodes that were just added."""
        batch = [growth.rows(nodes, growth.stream.cache) for growth, nodes in fresh]
        places = [(growth, node) for growth, nodes in fresh for node in nodes]
        for growth, _ in fresh:
            growth.offered = []
        for (growth, node), guesses in zip(places, self._guesses(batch, places), strict=True):
            growth.offered.append((node, guesses))
