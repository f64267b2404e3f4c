"""The Target contract: what the loop asks of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ventris.engine.cache import KVCache
from ventris.engine.ledger import MemoryLedger


@dataclass(slots=True)
class Rows:
    """One request's nodes in a forward pass.

    The nodes occupy the cache's scratch rows ``start .. start + len(tokens) - 1``. A caller that
    grows a tree depth by depth passes only the new nodes each time and keeps ``parents`` for all of
    them.

    Attributes:
        cache: Cache of the request; its committed rows are every node's prefix.
        tokens: Token ids of the new nodes (ignored where ``embeddings`` is given, but its length
            still counts the nodes).
        parents: For *every* scratch node so far (``start + len(tokens)`` entries): the scratch index
            of its parent, or -1 for a node that follows the last committed row. Parents come first.
        start: Scratch rows that earlier forwards filled.
        embeddings: Input rows instead of token embeddings, ``[len(tokens), hidden]``.
        wanted: Which of the new nodes need logits (indices into ``tokens``); ``None`` for all.
        sees: For each new node the scratch node up to which it looks: it sees that one and its ancestors, and
            the committed rows. ``None`` where each looks up to itself. Nodes of a block that see one another
            all name the last of the block. A target of a drafter's own runs such rows; the loop has none.
        lent: Cache of another decoder. Every node sees the committed rows of its last layer, where this
            decoder has cross-attention; they are read where they lie.
    """

    cache: KVCache
    tokens: Sequence[int]
    parents: Sequence[int]
    start: int = 0
    embeddings: Tensor | None = None
    wanted: Sequence[int] | None = None
    sees: Sequence[int] | None = None
    lent: KVCache | None = None


@dataclass(slots=True)
class Scores:
    """What a forward pass returns.

    Attributes:
        logits: For each entry of the batch, ``[wanted nodes, vocab]``, floating point.
        hidden: For each tapped layer ``l``, the input of layer ``l`` for all nodes of the flat
            batch, ``[nodes, hidden]``; ``l == num_layers`` is the last layer's output before the
            final norm.
    """

    logits: list[Tensor]
    hidden: dict[int, Tensor] = field(default_factory=dict)


@runtime_checkable
class Target(Protocol):
    """A decoder that scores every node of several requests' trees in one pass.

    A pass writes the keys and values of its nodes into the scratch rows of each cache (it calls
    :meth:`KVCache.reserve`) and commits nothing.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    context_length: int
    device: torch.device

    def new_cache(
        self, capacity: int = 64, ledger: MemoryLedger | None = None, owner: str = "target"
    ) -> KVCache:
        """An empty cache for one sequence, with room for about ``capacity`` rows."""
        ...

    def forward(self, batch: Sequence[Rows], taps: Sequence[int] = ()) -> Scores:
        """Embed, run all layers, and apply the final norm and the head to the wanted nodes."""
        ...

    def embed(self, batch: Sequence[Rows]) -> Tensor:
        """Input rows of all nodes of the batch, ``[nodes, hidden]``."""
        ...

    def run_layers(
        self, batch: Sequence[Rows], hidden: Tensor, first: int, last: int, taps: Sequence[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run layers ``first .. last - 1`` on ``hidden: [nodes, hidden]``.

        Returns the rows after layer ``last - 1`` and the tapped rows. Keys and values of these
        layers are written to the scratch rows; a later call may go on from ``last`` with the same
        batch.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Final norm and vocabulary projection, ``[n, hidden] -> [n, vocab]``."""
        ...
