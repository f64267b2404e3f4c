"""EAGLE-3's layer beside a target: on the native runtime where the target is native, else in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ventris.draft.eagle_network import EagleNetwork
from ventris.draft.target_sketch import embedding_rows
from ventris.engine.cache import KVCache, MemoryLedger
from ventris.engine.target import Rows, Target
from ventris.models.stage import Stage
from ventris.models.stages import as_array, drafting_dtype, fast_stages, runs_natively, threads_of
from ventris.models.torch_decoder import TorchDecoder


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
    """The decoder layer with its norm, its head and the target's embedding.

    The head and the layer are 8-bit on the native runtime: that is half the bytes of bfloat16, and drafts
    need no more.
    """

    def __init__(self, network: EagleNetwork, target: Target) -> None:
        [self._fuse] = fast_stages(target, [[Stage(network.fuse.weight)]])
        self._decoder = _native(network, target) or _torch(network, target)

    def new_cache(self, capacity: int, ledger: MemoryLedger) -> KVCache:
        return self._decoder.new_cache(capacity, ledger, "eagle")

    def fuse(self, rows: Tensor) -> Tensor:
        """The target's tapped rows side by side to the layer's input, ``[n, taps * d] -> [n, d]``."""
        return torch.from_numpy(self._fuse(as_array(rows))).to(rows.device)

    def read(self, batch: Sequence[Rows]) -> Read:
        """Run nodes whose ``embeddings`` are the rows that stand before their tokens."""
        scores = self._decoder.forward(batch, (1,))
        return Read(torch.cat(scores.logits), scores.hidden[1])


def _native(network: EagleNetwork, target: Target) -> Target | None:
    if not runs_natively(target):
        return None
    from ventris.models.native import NativeDecoder

    if not isinstance(target, NativeDecoder):
        return None
    config = replace(
        network.decoder(target.vocab_size),
        context_length=target.context_length,
        embedding_scale=target.config.embedding_scale,
    )
    return NativeDecoder.from_weights(
        config, network.weights(), "int8", threads_of(target), activation_bits=8, lender=target
    )


def _torch(network: EagleNetwork, target: Target) -> Target:
    dtype = drafting_dtype(target.device)
    config = replace(network.decoder(target.vocab_size), context_length=target.context_length)
    # Already scaled, where the family scales its embeddings.
    embedding = embedding_rows(target, range(target.vocab_size)).to(dtype)
    return TorchDecoder(config, network.weights(), dtype, target.device, embedding)
