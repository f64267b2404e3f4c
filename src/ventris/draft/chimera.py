"""Chimera: a trigram of the newest tokens, one layer over all that the target has computed, fused heads.

Zeng et al. 2024, arXiv 2402.15758. With x_0 .. x_n known, h_0 .. h_{n-1} the target's final-normed last rows
and E its embedding:

    e_i = MLP [E(x_{i-2}); E(x_{i-1}); E(x_i)]                    two linear maps with SiLU between
    c_n = F(h_0, .., h_{n-1}, e_n)                                stands in for h_n, which does not exist yet
    logits_1 = W V_1 [h_{n-1}; c_n]                               of x_{n+1}

F is one decoder layer of the target's shape. Deeper heads keep h_{n-1}; their state comes of the trigram that
ends with the guess above, after the target's rows and the states (pseudo hidden rows) on the path to it. W
are the target's rows of the listed tokens, shared by all heads unless each learns its own. A trigram's row
depends on three tokens alone, so it is remembered. F has a final norm, as the rows have that it stands for.

Of the two readings of the first context this is the smaller: the layer's cache holds the target's rows alone,
and no trigrams of committed tokens beside them.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ventris.draft.best_nodes import best_nodes
from ventris.draft.chimera_network import ChimeraNetwork
from ventris.draft.head_drafter import TreeChoice
from ventris.draft.head_tree import StaticTree
from ventris.draft.level_drafter import Draft, LevelDrafter, Node
from ventris.draft.listed_embedding import ListedEmbedding
from ventris.draft.prefix_attention import CachedPrefix
from ventris.draft.trigram_memo import TrigramMemo
from ventris.engine.cache import KVCache
from ventris.engine.footprint import SCRATCH_ROWS
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree
from ventris.models.stage import Array, Stage
from ventris.models.stages import as_array, fast_stages, rms_norm_rows

REMEMBERED = 16_384
"""Trigram rows that are kept."""


@dataclass(slots=True)
class _Seen:
    """What a request has shown.

    Attributes:
        fresh: Final-normed rows that the layer has not read.
        cache: The layer's keys and values of the others; ``None`` without the layer.
        base: The last row.
        scratch: Parents of the layer's scratch rows, in a proposal.
    """

    cache: KVCache | None
    fresh: list[Array] = field(default_factory=list)
    base: Array | None = None
    scratch: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Stem:
    """A node with its draft state.

    Attributes:
        row: Scratch row of the state, once it has been read as a pseudo hidden row; -1 before.
        above: That of its parent; -1 where the target's rows come before.
    """

    state: Array
    above: int
    row: int = -1


class Chimera(LevelDrafter):
    """Drafts level by level over the frontiers of all requests at once.

    Args:
        remembered: Trigram rows that are kept; 0 for none.
    """

    name = "chimera"
    network_class = ChimeraNetwork

    def __init__(
        self,
        target: Target,
        network: ChimeraNetwork,
        tree: StaticTree,
        nodes: int = 24,
        choose: TreeChoice = "static",
        remembered: int = REMEMBERED,
    ) -> None:
        super().__init__(target, network, tree, nodes, choose)
        self._embed = ListedEmbedding(target, self._ids)
        self.memo = TrigramMemo(network.encoder, target, self._embed, remembered) if network.encoder else None
        self._layer = CachedPrefix(network.layer, target) if network.layer is not None else None
        projections = network.vocabulary.stages()
        self._heads = fast_stages(
            target,
            [
                [Stage(block.get_parameter("weight")), last]
                for block, last in zip(network.fuse, projections, strict=True)
            ],
        )
        self._norm = as_array(network.vocabulary.norm)
        self._eps = network.vocabulary.eps

    def start(self, request: RequestView) -> _Seen:
        if self._layer is None:
            return _Seen(None)
        return _Seen(self._layer.new_cache(request.rows + SCRATCH_ROWS, request.ledger, "chimera"))

    def observe(self, state: _Seen, commit: Commit) -> None:
        rows = rms_norm_rows(as_array(commit.hidden[self.target.num_layers]), self._norm, self._eps)
        state.base = rows[-1]
        if state.cache is not None:
            state.fresh.append(rows)

    def finish(self, state: _Seen) -> None:
        """Give the layer's cache back."""
        if state.cache is not None:
            state.cache.release()

    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        drafts = [self._begin(job, len(self._heads), job.state.base is not None) for job in jobs]
        frontier = [Node(i, 0, (), 1.0) for i, draft in enumerate(drafts) if draft.nodes and draft.depth]
        stems: list[_Stem] = []
        parents: list[int] = []
        for level, head in enumerate(self._heads):
            if not frontier:
                break
            above = [stems[place] for place in parents]
            stems = self._states(drafts, frontier, above)
            bases = np.stack([drafts[node.draft].job.state.base for node in frontier])
            logits = head(np.concatenate([bases, np.stack([stem.state for stem in stems])], axis=1))
            offered = self._offer(drafts, frontier, logits, level)
            frontier, parents = [node for node, _ in offered], [place for _, place in offered]
        return [best_nodes(draft.tree, draft.nodes) if self.dynamic else draft.tree for draft in drafts]

    def _states(self, drafts: list[Draft], frontier: list[Node], above: list[_Stem]) -> list[_Stem]:
        """The draft states of a frontier whose parents' are ``above``; there are none above the roots."""
        newest = self._newest(drafts, frontier)
        if self._layer is None:
            return [_Stem(row, -1) for row in newest]
        batch: list[tuple[KVCache, Array, Sequence[int]]] = []
        order: list[int] = []
        wanted: list[int] = []
        total = 0
        for index in dict.fromkeys(node.draft for node in frontier):
            seen: _Seen = drafts[index].job.state
            own = [place for place, node in enumerate(frontier) if node.draft == index]
            before = _pseudo_rows(seen, [above[place] for place in own]) if above else _text_rows(seen)
            rows = np.stack([*before, *newest[own]])
            assert seen.cache is not None
            batch.append((seen.cache, rows, seen.scratch))
            order += own
            total += len(rows)
            wanted += range(total - len(own), total)
        states = self._layer.run(batch, wanted)
        if not above:
            for place in order:
                _keep_text(drafts[frontier[place].draft].job.state)
        stems = {
            place: _Stem(state, above[place].row if above else -1)
            for place, state in zip(order, states, strict=True)
        }
        return [stems[place] for place in range(len(frontier))]

    def _newest(self, drafts: list[Draft], frontier: list[Node]) -> Array:
        """The rows of the trigrams that end with the nodes, ``[n, d]``."""
        triples = []
        for node in frontier:
            draft = drafts[node.draft]
            path = [draft.tree.tokens[above] for above in draft.tree.path_to(node.node)]
            last = [*draft.job.request.tokens[-3:], *path[1:]][-3:]
            # Before the first token it stands in for itself, and a token for an embedding in the prompt.
            oldest, middle, newest = [max(token, 0) for token in [last[0]] * (3 - len(last)) + last]
            triples.append((oldest, middle, newest))
        if self.memo is None:
            return self._embed([newest for *_, newest in triples])
        return self.memo(triples)


def _text_rows(seen: _Seen) -> list[Array]:
    """The target's rows that are read before the root's trigram; the layer's scratch rows are a chain."""
    rows = [row for part in seen.fresh for row in part]
    seen.scratch = list(range(-1, len(rows)))
    return rows


def _keep_text(seen: _Seen) -> None:
    """The target's rows stay in the cache, the root's trigram does not."""
    assert seen.cache is not None
    seen.cache.commit(range(len(seen.scratch) - 1))
    seen.fresh, seen.scratch = [], []


def _pseudo_rows(seen: _Seen, above: list[_Stem]) -> list[Array]:
    """The states that have not been read as pseudo hidden rows; the children's trigrams hang below them."""
    rows = []
    for stem in above:
        if stem.row < 0:
            stem.row = len(seen.scratch)
            seen.scratch.append(stem.above)
            rows.append(stem.state)
    seen.scratch += [stem.row for stem in above]
    return rows
