"""The draft tree: what a drafter proposes and a verifier walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class TokenTree:
    """A tree of drafted tokens that hangs below the last committed token.

    Node 0 is the root: the last committed token itself, never a draft. Every other node is a guess
    for the token that follows its parent, and ``parents[i] < i`` holds, so a loop over the nodes
    meets a parent before its children. Siblings may carry the same token only if they stand for
    separate draws.

    Attributes:
        tokens: Token id of each node.
        parents: Index of each node's parent; ``parents[0] == -1``.
        confidence: For each node the drafter's estimate that the node is accepted once its parent
            is, in [0, 1]; the root has 1. Policies read it, verifiers do not.
        source: Name of the part that drafted the tree, for the trace.
        draft_probs: For a parent whose children were *drawn*, the distribution they were drawn
            from, ``[vocab]``. A parent without an entry has deterministic ("point mass") children.
        draws: For a parent in ``draft_probs``, its children in the order in which they were drawn,
            independently and with repeats; the order matters to a rejection rule.
        beliefs: For a node, what the drafter itself thinks comes next, probabilities ``[vocab]`` at
            temperature 1; only where the verifier asked for it (``keep_beliefs`` of the request).
        estimates: For a parent, what a drafter takes for the law of its child where it cannot know it,
            ``[vocab]``, with a sum of at most 1; a parent without a child drew one that cannot be proposed.
            For approximate rules alone; to others such children are deterministic.
    """

    tokens: list[int]
    parents: list[int]
    confidence: list[float] = field(default_factory=list)
    source: str = ""
    draft_probs: dict[int, Tensor] = field(default_factory=dict)
    draws: dict[int, list[int]] = field(default_factory=dict)
    beliefs: dict[int, Tensor] = field(default_factory=dict)
    estimates: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.confidence:
            self.confidence = [1.0] * len(self.tokens)

    @classmethod
    def root(cls, token: int) -> TokenTree:
        """A tree without drafts: plain autoregressive decoding."""
        return cls([token], [-1], [1.0])

    @classmethod
    def chain(cls, tokens: Sequence[int], source: str = "") -> TokenTree:
        """A tree with one path; ``tokens[0]`` is the root."""
        return cls(list(tokens), list(range(-1, len(tokens) - 1)), source=source)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, token: int, parent: int, confidence: float = 1.0) -> int:
        """Append a node and return its index."""
        self.tokens.append(token)
        self.parents.append(parent)
        self.confidence.append(confidence)
        return len(self.tokens) - 1

    def add_draws(self, parent: int, tokens: Sequence[int], probs: Tensor) -> list[int]:
        """Append children drawn independently from ``probs`` ([vocab]); repeats share one node.

        Returns the node of each draw, in the order of the draws.
        """
        nodes: dict[int, int] = {}
        order = []
        for token in tokens:
            if token not in nodes:
                nodes[token] = self.add(token, parent, float(probs[token]))
            order.append(nodes[token])
        self.draft_probs[parent] = probs
        self.draws[parent] = order
        return order

    def children(self) -> list[list[int]]:
        """The children of every node, in the order they were added."""
        below: list[list[int]] = [[] for _ in self.tokens]
        for node in range(1, len(self.tokens)):
            below[self.parents[node]].append(node)
        return below

    def depths(self) -> list[int]:
        """Distance of every node from the root."""
        depth = [0] * len(self.tokens)
        for node in range(1, len(self.tokens)):
            depth[node] = depth[self.parents[node]] + 1
        return depth

    def path_to(self, node: int) -> list[int]:
        """Nodes from the root to ``node``, both included."""
        path = []
        while node >= 0:
            path.append(node)
            node = self.parents[node]
        return path[::-1]

    def keep(self, nodes: Sequence[int]) -> TokenTree:
        """The tree reduced to ``nodes`` (ascending, root first, closed under parents).

        Raises:
            ValueError: if a kept node's parent is dropped, or a parent's drawn children are kept
                in part; dropping some of a set of draws after looking at them would bias a
                rejection rule, so such a set is kept or dropped whole.
        """
        new_index = {old: new for new, old in enumerate(nodes)}
        if not nodes or nodes[0] != 0 or any(self.parents[n] not in new_index for n in nodes[1:]):
            raise ValueError("kept nodes must contain the root and the parent of every kept node")
        kept = TokenTree(
            [self.tokens[n] for n in nodes],
            [new_index.get(self.parents[n], -1) for n in nodes],
            [self.confidence[n] for n in nodes],
            self.source,
        )
        for parent, drawn in self.draws.items():
            present = [child in new_index for child in drawn]
            if parent not in new_index or not any(present):
                continue
            if not all(present):
                raise ValueError("draws of one parent must be kept or dropped together")
            kept.draws[new_index[parent]] = [new_index[child] for child in drawn]
            kept.draft_probs[new_index[parent]] = self.draft_probs[parent]
        kept.beliefs = {new_index[node]: q for node, q in self.beliefs.items() if node in new_index}
        below = self.children() if self.estimates else []
        for parent, estimate in self.estimates.items():
            if parent in new_index and all(child in new_index for child in below[parent]):
                kept.estimates[new_index[parent]] = estimate
        return kept

    def validate(self, vocab_size: int) -> None:
        """Check the contract above.

        Raises:
            ValueError: naming the first node that breaks it.
        """
        count = len(self.tokens)
        if count == 0 or len(self.parents) != count or len(self.confidence) != count:
            raise ValueError("a tree needs a root and equally long tokens, parents and confidence")
        if self.parents[0] != -1:
            raise ValueError("node 0 must be the root (parent -1)")
        for node in range(1, count):
            if not 0 <= self.parents[node] < node:
                raise ValueError(f"node {node} has parent {self.parents[node]}; parents come first")
            if not 0 <= self.tokens[node] < vocab_size:
                raise ValueError(f"node {node} has token {self.tokens[node]} outside the vocabulary")
