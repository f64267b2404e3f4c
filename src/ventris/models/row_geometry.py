"""Where the rows of a step stand, and what they may see; the same for every runtime in Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows


def check_tokens(tokens: Sequence[int], vocab_size: int) -> None:
    """Refuse token ids outside the vocabulary.

    Raises:
        BadInput: naming the first such id.
    """
    for token in tokens:
        if not 0 <= token < vocab_size:
            raise BadInput(f"token {token} is outside the vocabulary of {vocab_size} tokens")


def wanted_nodes(batch: Sequence[Rows]) -> tuple[list[int], list[int]]:
    """Flat indices of the nodes that need logits, and how many of them each request has."""
    nodes: list[int] = []
    counts = []
    first = 0
    for rows in batch:
        wanted = range(len(rows.tokens)) if rows.wanted is None else rows.wanted
        nodes.extend(first + node for node in wanted)
        counts.append(len(wanted))
        first += len(rows.tokens)
    return nodes, counts


def scratch_positions(rows: Rows, context_length: int) -> np.ndarray:
    """Position of every scratch node so far, int64 ``[start + nodes]``: by depth below the prefix.

    Raises:
        BadInput: if the parents do not fit the nodes, or a node stands past the context.
    """
    if len(rows.parents) != rows.start + len(rows.tokens):
        raise BadInput(
            f"{len(rows.parents)} parents were given for {rows.start} earlier "
            f"and {len(rows.tokens)} new nodes"
        )
    positions = np.empty(len(rows.parents), dtype=np.int64)
    for node, parent in enumerate(rows.parents):
        positions[node] = positions[parent] + 1 if parent >= 0 else rows.cache.next_position
    if len(positions) and positions.max() >= context_length:
        raise BadInput(
            f"position {positions.max()} is past the context of {context_length} tokens; "
            "shorten the prompt or ask for fewer new tokens"
        )
    return positions


def visible_rows(rows: Rows) -> np.ndarray:
    """Which rows each new node may see, bool ``[nodes, length + start + nodes]``.

    A node sees every committed row, and of the scratch rows itself, or the one that ``rows.sees`` names, with
    all ancestors of that.

    Raises:
        BadInput: if ``rows.sees`` does not name a scratch row for each new node.
    """
    total = len(rows.parents)
    above = np.zeros((total, total), dtype=bool)
    for node, parent in enumerate(rows.parents):
        if parent >= 0:
            above[node] = above[parent]
        above[node, node] = True
    seen = above[rows.start :]
    if rows.sees is not None:
        if len(rows.sees) != len(seen) or any(not 0 <= last < total for last in rows.sees):
            raise BadInput(f"nodes look up to {list(rows.sees)}, which are not {len(seen)} of {total} nodes")
        seen = above[list(rows.sees)]
    prefix = np.ones((len(rows.tokens), rows.cache.length), dtype=bool)
    return np.concatenate((prefix, seen), axis=1)
