"""The likeliest part of a draft tree that has grown too large."""

from __future__ import annotations

from ventris.engine.tree import TokenTree


def best_nodes(tree: TokenTree, nodes: int) -> TokenTree:
    """The ``nodes`` drafted nodes whose paths are likeliest by their confidences, with the root.

    The confidences of a path are multiplied (Li et al. 2024, arXiv 2406.16858, section 4.2). A child is never
    likelier than its parent, and among equals the earlier node wins, so what is kept is a tree.
    """
    if len(tree) <= nodes + 1:
        return tree
    reach = [1.0] * len(tree)
    for node in range(1, len(tree)):
        reach[node] = reach[tree.parents[node]] * tree.confidence[node]
    order = sorted(range(1, len(tree)), key=lambda node: (-reach[node], node))
    return tree.keep([0, *sorted(order[:nodes])])
