"""EAGLE-3's layer beside a target: on the native runtime where the target is native, else in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ventris.draft.decoder_beside import decoder_beside
from ventris.draft.eagle_network import EagleNetwork
from ventris.engine.cache import KVCache
from ventris.engine.footprint import run, weight_bytes
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Target
from ventris.models.stage import Stage
from ventris.models.stages import as_array, fast_stages


@dataclass(frozen=True, slots=True)
class Read:
    """What the layer made of some nodes.

    Attributes:
        logits: Over the shortlist, for the wanted nodes of all entries, ``[wanted, shortlist]``.
        features: Its output rows before the final norm, for all nodes, ``[nodes, d]``.
    """

    logits: Tensor
    features: Tensor


class EagleLayer:
    """The decoder layer with its norm, its head and the target's embedding."""

    def __init__(self, network: EagleNetwork, target: Target) -> None:
        [self._fuse] = fast_stages(target, [[Stage(network.fuse.weight)]])
        self._decoder = decoder_beside(target, network.decoder(target.vocab_size), network.weights())
        self.weight_bytes = weight_bytes([self._decoder]) + network.fuse.weight.nbytes

    def new_cache(self, capacity: int, ledger: MemoryLedger) -> KVCache:
        return self._decoder.new_cache(capacity, ledger, "eagle")

    def fuse(self, rows: Tensor) -> Tensor:
        """The target's tapped rows side by side to the layer's input, ``[n, taps * d] -> [n, d]``."""
        return torch.from_numpy(self._fuse(as_array(rows))).to(rows.device)

    def read(self, batch: Sequence[Rows]) -> Read:
        """Run nodes whose ``embeddings`` are the rows that stand before their tokens."""
        scores = run(self._decoder, batch, (1,))
        return Read(torch.cat(scores.logits), scores.hidden[1])
