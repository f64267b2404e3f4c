"""Hydra: draft heads that see the guesses before theirs.

Ankner et al. 2024, arXiv 2402.05109. With E the target's embedding and r = x_{t+1} the root, head i of K
(from 0) predicts x_{t+2+i} from

    input_i = concat(g_t, E(x_{t+1}), E(guess_1), .., E(guess_i))           (i + 2) d numbers
    y = R_i input_i + SiLU(A_i input_i),  then  y = y + SiLU(B y)  layers - 1 times
    logits_i = W y

Plain Hydra has g_t = h_t, the final-normed last hidden row, and one layer. Hydra++ has g = P(h_1..h_t), see
:mod:`ventris.draft.prefix_attention`, four layers, and is trained against the target's distribution. Every
extra layer has weights of its own.

Exact with every exact verifier: drafts are chosen and not drawn, and the target decides on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from ventris.draft.checkpoint import HeadCheckpoint, find_checkpoint
from ventris.draft.head_tree import LARGEST_TREE, StaticTree
from ventris.draft.head_tree import Path as TreePath
from ventris.draft.hydra_heads import HydraHeads, PackedHydra
from ventris.draft.target_sketch import embedding_rows
from ventris.engine.cache import KVCache
from ventris.engine.parts import Commit, DraftJob, RequestView
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.parts import Workshop

DYNAMIC_WIDTH = 4
"""Nodes that are expanded at a level, and guesses taken of each, when the tree follows probabilities."""


@dataclass(slots=True)
class _Seen:
    """What a request has shown: final-normed rows not yet summarised, and P's cache of the others.

    Rows enter when their tokens are committed, so the cache never has to be rolled back.

    Attributes:
        summary: g at the last position that P has seen.
    """

    fresh: list[Tensor] = field(default_factory=list)
    cache: KVCache | None = None
    summary: Tensor | None = None


@dataclass(slots=True)
class _Node:
    """A tree node that is to be expanded.

    Attributes:
        draft: Index of its draft.
        reach: Chance that the path down to it is right, by the heads' probabilities.
    """

    draft: int
    node: int
    path: TreePath
    reach: float


@dataclass(slots=True)
class _Draft:
    """A tree under construction."""

    job: DraftJob
    tree: TokenTree
    nodes: int
    depth: int
    children: dict[TreePath, list[float]]


class Hydra:
    """Drafts with Hydra heads, level by level over the frontiers of all requests at once.

    Args:
        target: What it drafts for.
        network: The heads.
        tree: The tree by measured joint frequency, best node first.
        nodes: Drafted tokens at most.
        choose: ``"static"``: the first nodes of ``tree``, with measured confidences. ``"dynamic"``: at each
            level the likeliest nodes by the heads' probabilities, and of all of them the likeliest.
    """

    name = "hydra"
    shape = "tree"
    draws = False

    class Options(BaseModel):
        """Options of the Hydra drafter."""

        checkpoint: str | None = Field(
            None, description="folder; the one shipped for the target if not given"
        )
        nodes: int = Field(24, ge=1, le=LARGEST_TREE, description="drafted tokens at most")
        tree: Literal["static", "dynamic"] = Field(
            "static", description="static: from measured acceptance; dynamic: from each step's probabilities"
        )

    def __init__(
        self,
        target: Target,
        network: HydraHeads,
        tree: StaticTree,
        nodes: int = 24,
        choose: Literal["static", "dynamic"] = "static",
    ) -> None:
        self.target = target
        self.taps: Sequence[int] = (target.num_layers,) if target is not None else ()
        self.nodes = nodes
        self.dynamic = choose == "dynamic"
        if target is not None:
            self._heads = PackedHydra(network, target.device)
            self._ids = network.vocabulary.ids.long().to(target.device)
            self._tree = tree
            self._confidence = tree.confidences()

    @classmethod
    def load(cls, model: Model | Target, checkpoint: str | Path | None = None, **settings: Any) -> Hydra:
        """Heads from a folder, or those shipped for the model.

        Raises:
            BadInput: if there are none, or they belong to another target.
        """
        target = cast(Target, getattr(model, "target", model))
        tokenizer = getattr(getattr(model, "tokenizer", None), "fingerprint", "")
        folder = find_checkpoint("hydra", target, None if checkpoint is None else str(checkpoint))
        stored = HeadCheckpoint.load(folder, "hydra")
        stored.target.check(target, f"the Hydra checkpoint {folder}", tokenizer)
        network = HydraHeads(**stored.sizes)
        stored.fill(network)
        network.vocabulary.read_tied_rows(target, stored.sizes["embedding_scale"])
        paths = [tuple(path) for path in stored.measured["tree"]["paths"]]
        return cls(target, network, StaticTree(paths, stored.measured["tree"]["values"]), **settings)

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> Hydra:
        """Load the heads; without a target only what the drafts are like is known."""
        settings: dict[str, Any] = {"nodes": options.nodes, "choose": options.tree}
        if workshop.target is None:
            return cls(cast(Target, None), cast(HydraHeads, None), StaticTree((), ()), **settings)
        return cls.load(workshop.target, options.checkpoint, **settings)

    def start(self, request: RequestView) -> _Seen:
        if self._heads.prefix is None:
            return _Seen()
        capacity = len(request.prompt) + min(request.max_new_tokens, 512)
        return _Seen(cache=self._heads.prefix.new_cache(capacity, request.ledger))

    def observe(self, state: _Seen, commit: Commit) -> None:
        rows = commit.hidden[self.target.num_layers]
        if state.cache is None:
            state.fresh = [rows[-1:]]
        else:
            state.fresh.append(rows)

    @torch.no_grad()
    def propose(self, jobs: Sequence[DraftJob]) -> list[TokenTree]:
        drafts = [self._begin(job) for job in jobs]
        able = [index for index, draft in enumerate(drafts) if draft.nodes and draft.depth]
        if able:
            inputs = self._summaries([drafts[index].job.state for index in able])
            frontier = [_Node(index, 0, (), 1.0) for index in able]
            self._grow(drafts, frontier, inputs)
        return [self._likeliest(draft) if self.dynamic else draft.tree for draft in drafts]

    def _begin(self, job: DraftJob) -> _Draft:
        nodes, depth = min(job.budget.nodes, self.nodes), min(job.budget.depth, len(self._heads.first))
        if not job.state.fresh and job.state.summary is None:
            nodes = 0
        children: dict[TreePath, list[float]] = {}
        for path, confidence in zip(self._tree.paths[:nodes], self._confidence, strict=False):
            if len(path) <= depth:
                children.setdefault(path[:-1], []).append(confidence)
        return _Draft(job, TokenTree([job.root], [-1], [1.0], self.name), nodes, depth, children)

    def _summaries(self, states: Sequence[_Seen]) -> Tensor:
        """g at the last committed position of each request, ``[n, d]``."""
        waiting = [state for state in states if state.fresh]
        rows = [self._heads.vocabulary.normed(torch.cat(state.fresh)) for state in waiting]
        if self._heads.prefix is not None and waiting:
            caches = [state.cache for state in waiting if state.cache is not None]
            summaries = self._heads.prefix.last_rows(list(zip(caches, rows, strict=True)))
        else:
            summaries = torch.cat(rows) if rows else torch.empty(0)
        for state, summary in zip(waiting, summaries, strict=True):
            state.summary, state.fresh = summary, []
        known = [state.summary for state in states if state.summary is not None]
        return torch.stack(known).to(self._heads.dtype)

    def _grow(self, drafts: list[_Draft], frontier: list[_Node], summaries: Tensor) -> None:
        inputs = summaries
        for level in range(len(self._heads.first)):
            tokens = [drafts[node.draft].tree.tokens[node.node] for node in frontier]
            inputs = torch.cat([inputs, embedding_rows(self.target, tokens).to(inputs)], dim=-1)
            logits = self._heads.logits(level, inputs)
            offered = self._offer(drafts, frontier, logits, level)
            frontier = [node for node, _ in offered]
            if not frontier:
                return
            inputs = inputs[torch.tensor([parent for _, parent in offered], device=inputs.device)]

    def _offer(
        self, drafts: list[_Draft], frontier: list[_Node], logits: Tensor, level: int
    ) -> list[tuple[_Node, int]]:
        """Add the children of a frontier; return those to expand next with their parents' places in it."""
        if self.dynamic:
            top = logits.float().softmax(-1).topk(min(DYNAMIC_WIDTH, len(self._ids)), dim=-1)
            chances = top.values.tolist()
        else:
            width = max(len(drafts[node.draft].children.get(node.path, ())) for node in frontier)
            top = logits.topk(max(min(width, len(self._ids)), 1), dim=-1)
            chances = [drafts[node.draft].children.get(node.path, []) for node in frontier]
        offered: list[tuple[_Node, int]] = []
        for place, (node, tokens, chance) in enumerate(
            zip(frontier, self._ids[top.indices].tolist(), chances, strict=True)
        ):
            draft = drafts[node.draft]
            for rank, (token, confidence) in enumerate(zip(tokens, chance, strict=False)):
                child = draft.tree.add(token, node.node, confidence)
                path = (*node.path, rank)
                ends = token in draft.job.request.end_ids or level + 1 >= draft.depth
                if not ends and (self.dynamic or path in draft.children):
                    offered.append((_Node(node.draft, child, path, node.reach * confidence), place))
        return _likeliest_of_each(offered) if self.dynamic else offered

    def _likeliest(self, draft: _Draft) -> TokenTree:
        """The best nodes of everything that was offered."""
        tree = draft.tree
        if len(tree) <= draft.nodes + 1:
            return tree
        reach = [1.0] * len(tree)
        for node in range(1, len(tree)):
            reach[node] = reach[tree.parents[node]] * tree.confidence[node]
        # A child is never likelier than its parent, and among equals the parent comes first.
        order = sorted(range(1, len(tree)), key=lambda node: (-reach[node], node))
        return tree.keep([0, *sorted(order[: draft.nodes])])


def _likeliest_of_each(offered: list[tuple[_Node, int]]) -> list[tuple[_Node, int]]:
    """The likeliest few nodes of every draft."""
    kept: list[tuple[_Node, int]] = []
    room: dict[int, int] = {}
    for entry in sorted(offered, key=lambda entry: -entry[0].reach):
        draft = entry[0].draft
        room[draft] = room.get(draft, DYNAMIC_WIDTH) - 1
        if room[draft] >= 0:
            kept.append(entry)
    return kept
