"""Drafters whose heads stand one behind the other: trees that grow level by level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ventris.draft.guided_rows import GuidedRows
from ventris.draft.head_drafter import DYNAMIC_WIDTH, HeadDrafter
from ventris.draft.head_tree import Path as TreePath
from ventris.draft.head_tree import StaticTree
from ventris.engine.parts import DraftJob
from ventris.engine.tree import TokenTree
from ventris.models.stage import Array


@dataclass(slots=True)
class Node:
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
class Draft:
    """A tree under construction."""

    job: DraftJob
    tree: TokenTree
    guided: GuidedRows
    nodes: int
    depth: int
    children: dict[TreePath, list[float]]


class LevelDrafter(HeadDrafter):
    """Expands the frontiers of all requests at once.

    A dynamic tree takes at each level the likeliest nodes by the heads' probabilities, and of all of them
    the likeliest.
    """

    guided = True

    @classmethod
    def tree_of(cls, measured: Any) -> StaticTree:
        """The tree by measured joint frequency of its paths."""
        return StaticTree.read(measured["tree"])

    def _begin(self, job: DraftJob, levels: int, able: bool) -> Draft:
        """An empty tree; nothing may grow on it unless ``able``."""
        nodes = min(job.budget.nodes, self.nodes) if able else 0
        depth = min(job.budget.depth, levels)
        guided = GuidedRows(job, self._listed, self.target.vocab_size)
        return Draft(job, self._root(job), guided, nodes, depth, self.measured_children(nodes, depth))

    def _offer(
        self, drafts: list[Draft], frontier: list[Node], logits: Array, level: int
    ) -> list[tuple[Node, int]]:
        """Add the children of a frontier; return those to expand next with their parents' places in it."""
        measured = [drafts[node.draft].children.get(node.path, []) for node in frontier]
        width = DYNAMIC_WIDTH if self.dynamic else max(map(len, measured))
        offered: list[tuple[Node, int]] = []
        for place, (node, row) in enumerate(zip(frontier, logits, strict=True)):
            draft = drafts[node.draft]
            guesses = draft.guided.likeliest(draft.tree, node.node, row, width) if width else []
            chances = [chance for _, chance in guesses] if self.dynamic else measured[place]
            for rank, ((token, _), confidence) in enumerate(zip(guesses, chances, strict=False)):
                child = draft.tree.add(token, node.node, confidence)
                path = (*node.path, rank)
                ends = token in draft.job.request.end_ids or level + 1 >= draft.depth
                if not ends and (self.dynamic or path in draft.children):
                    offered.append((Node(node.draft, child, path, node.reach * confidence), place))
        return _likeliest_of_each(offered) if self.dynamic else offered


def _likeliest_of_each(offered: list[tuple[Node, int]]) -> list[tuple[Node, int]]:
    """The likeliest few nodes of every draft."""
    kept: list[tuple[Node, int]] = []
    room: dict[int, int] = {}
    for entry in sorted(offered, key=lambda entry: -entry[0].reach):
        draft = entry[0].draft
        room[draft] = room.get(draft, DYNAMIC_WIDTH) - 1
        if room[draft] >= 0:
            kept.append(entry)
    return kept
