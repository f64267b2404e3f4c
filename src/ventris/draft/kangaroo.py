"""Kangaroo: the target's own first layers and one small attention layer draft; the other layers check.

Liu et al. 2024, arXiv 2404.18911. With h_t the row of token t after the target's first l layers, the adapter
is one causal attention layer, u = h + Attn(norm(h)), and the target's own vocabulary rows after a norm of its
own give the draft distribution of x_{t+1} (first exit). Drafting goes on while the likeliest token where the
last one was drafted has a probability of at least a threshold (second exit); the unsure token itself is
proposed too.

The first layers are never run twice: what they computed of drafted tokens is left with the request's stream,
and the step's pass takes it up there (:mod:`ventris.engine.begun`). Only the last token of a draft, of which
nothing has been asked yet, runs through them in the step.

Exact with every exact verifier. Stopping depends on the prefix alone, the last drafted token included, and no
token is dropped once it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp, isfinite
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor

from ventris.draft.checkpoint import CheckpointOptions
from ventris.draft.decoder_beside import decoder_beside
from ventris.draft.decoder_network import DecoderNetwork
from ventris.draft.guided_rows import GuidedRows
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import over_all
from ventris.draft.trained_drafter import TrainedDrafter
from ventris.draft.vocabulary_head import RowsKind
from ventris.engine.cache import KVCache
from ventris.engine.footprint import SCRATCH_ROWS, run
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.sampling import distribution
from ventris.engine.stream import Stream, begin
from ventris.engine.target import Rows, Target
from ventris.engine.tree import TokenTree
from ventris.models.config import DecoderConfig
from ventris.models.native.rows import most_probable


class KangarooNetwork(DecoderNetwork):
    """The adapter in training.

    Args:
        config: That of the target.
        exit_layer: Layers of the target that draft, l.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
        feed_forward: Whether the adapter has a feed-forward part, as a layer of the target has.
    """

    def __init__(
        self,
        config: DecoderConfig,
        exit_layer: int,
        shortlist: int,
        rows: RowsKind,
        feed_forward: bool = False,
    ) -> None:
        layer = replace(PrefixSizes.of(config).decoder(), family="Kangaroo's adapter")
        super().__init__(layer if feed_forward else replace(layer, intermediate_size=0), shortlist, rows)
        self.exit_layer = exit_layer
        self.sizes: dict[str, Any] = {
            "exit_layer": exit_layer,
            "shortlist": shortlist,
            "rows": rows,
            "feed_forward": feed_forward,
        }


@dataclass(slots=True)
class _Seen:
    """What a request has shown.

    Attributes:
        cache: The adapter's; its committed rows are of committed tokens.
        told: Committed tokens that :meth:`Kangaroo.observe` has seen.
        fresh: Rows of those that the adapter has not read, ``[n, d]`` each.
        ahead: Drafted tokens that lie in the adapter's scratch rows, in order.
    """

    cache: KVCache
    told: int = 0
    fresh: list[Tensor] = field(default_factory=list)
    ahead: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Growth:
    """A chain under construction."""

    job: DraftJob
    tree: TokenTree
    guided: GuidedRows
    depth: int
    going: bool = True

    @property
    def stream(self) -> Stream:
        return cast(Stream, self.job.stream)


class Kangaroo(TrainedDrafter):
    """Drafts chains with the target's first layers and an adapter.

    Args:
        target: What it drafts for, and with.
        network: The adapter with its head.
        depth: Tokens drafted ahead at most (gamma).
        confidence: Probability of the likeliest token at the place just drafted below which none is drafted
            behind it, whichever token was drawn there (eta).
        draw: Whether tokens are drawn at a temperature above 0; otherwise the best one is chosen there too.
    """

    name = "kangaroo"
    network_class = KangarooNetwork
    shape = "chain"
    guided = True

    class Options(CheckpointOptions):
        """Options of the Kangaroo drafter."""

        depth: int = Field(6, ge=1, le=64, description="tokens drafted ahead at most")
        confidence: float = Field(
            0.6, ge=0, le=1, description="probability of a drafted token below which drafting stops"
        )
        draw: bool = Field(True, description="draw drafts at temperature > 0; otherwise the best is taken")

    def __init__(
        self,
        target: Target,
        network: KangarooNetwork,
        depth: int = 6,
        confidence: float = 0.6,
        draw: bool = True,
    ) -> None:
        self.target = target
        self.depth = depth
        self.confidence = confidence
        self.draws = draw
        self.taps: Sequence[int] = () if network is None else (network.exit_layer,)
        self.models: Sequence[Target] = ()
        if target is not None:
            self._adapter = decoder_beside(target, network.decoder(), network.weights())
            self.models = [self._adapter]
            self._ids = network.vocabulary.ids.long().numpy()

    def start(self, request: RequestView) -> _Seen:
        return _Seen(self._adapter.new_cache(request.rows + SCRATCH_ROWS, request.ledger, "kangaroo"))

    def observe(self, state: _Seen, commit: Commit) -> None:
        rows = commit.hidden[self.taps[0]]
        kept = [] if commit.tree is None else [commit.tree.tokens[node] for node in commit.path[1:]]
        right = 0
        while right < min(len(kept), len(state.ahead)) and kept[right] == state.ahead[right]:
            right += 1
        state.cache.commit(range(right))
        state.ahead = []
        state.told += len(rows)
        unread = min(state.told - state.cache.length, len(rows))
        if unread > 0:
            state.fresh.append(rows[len(rows) - unread :])

    def finish(self, state: _Seen) -> None:
        """Give the cache back."""
        state.cache.release()

    @torch.no_grad()
    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        growing = [self._begin(job) for job in jobs]
        active = [growth for growth in growing if growth.going]
        while active:
            last = [(g.stream, g.tree, [len(g.tree) - 1]) for g in active]
            hidden = begin(last, self.taps[0])
            batch = [self._read(growth, rows) for growth, rows in zip(active, hidden, strict=True)]
            scores = run(self._adapter, batch)
            for growth, rows, logits in zip(active, batch, scores.logits, strict=True):
                if len(growth.tree) == 1:
                    growth.job.state.cache.commit(range(len(rows.tokens)))
                    growth.job.state.fresh = []
                self._extend(growth, logits)
            active = [growth for growth in active if growth.going]
        return [growth.tree for growth in growing]

    def _begin(self, job: DraftJob) -> _Growth:
        state: _Seen = job.state
        # A step that was given up may have left a half-grown draft behind.
        state.ahead = []
        state.cache.truncate(min(state.cache.length, state.told))
        cast(Stream, job.stream).discard()
        depth = min(job.budget.nodes, job.budget.depth, self.depth)
        guided = GuidedRows(job, self._ids, self.target.vocab_size)
        return _Growth(job, TokenTree([job.root], [-1], [1.0], self.name), guided, depth, depth > 0)

    def _read(self, growth: _Growth, hidden: Tensor) -> Rows:
        """What the adapter reads next: all that is committed, the root too, or the token just drafted."""
        state: _Seen = growth.job.state
        if len(growth.tree) == 1:
            rows = torch.cat([*state.fresh, hidden])
            count = len(rows)
            return Rows(state.cache, [0] * count, range(-1, count - 1), 0, rows, [count - 1])
        state.ahead.append(growth.tree.tokens[-1])
        count = len(state.ahead)
        return Rows(state.cache, [0], range(-1, count - 1), count - 1, hidden, [0])

    def _extend(self, growth: _Growth, logits: Tensor) -> None:
        """Add a token, and decide by the likeliest one's probability whether another is drafted behind it."""
        tree, request = growth.tree, growth.job.request
        parent = len(tree) - 1
        row = growth.guided.masked(tree, parent, logits[0].float().cpu().numpy())
        [(place, chance)] = most_probable(row, 1)
        if not isfinite(chance):
            # None of the listed tokens may follow.
            growth.going = False
            return
        if self.draws and not request.sampling.greedy:
            q = over_all(distribution(row, request.sampling), self._ids, self.target.vocab_size)
            random = request.randomness(request.draft_purpose, parent)
            tree.add_draws(parent, [random.categorical(q)], q)
        else:
            tree.add(int(self._ids[place]), parent, exp(chance))
        sure = exp(chance) >= self.confidence
        ended = tree.tokens[-1] in request.end_ids
        growth.going = sure and not ended and len(tree) - 1 < growth.depth
