"""Falcon's network beside a target: on the native runtime where the target is native, else in torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ventris.draft.decoder_beside import decoder_beside
from ventris.draft.falcon_network import FalconNetwork
from ventris.draft.fast_lstm import FastLstm
from ventris.engine.cache import KVCache
from ventris.engine.footprint import run
from ventris.engine.ledger import MemoryLedger
from ventris.engine.target import Rows, Target
from ventris.models.stage import Array, Stage
from ventris.models.stages import as_array, fast_stages, rms_norm_rows


@dataclass(frozen=True, slots=True)
class Block:
    """What the layer made of the k rows of a block.

    Attributes:
        features: Its guesses of the target's next k features, ``[k, d]``.
        logits: Over the shortlist, ``[k, shortlist]``: of the next k tokens.
    """

    features: Array
    logits: Array


class FalconLayer:
    """The LSTM or linear map, and the decoder layer with its norm and its head."""

    def __init__(self, network: FalconNetwork, target: Target) -> None:
        self._block = network.block
        self._lstm = FastLstm(network.lstm, target) if network.lstm is not None else None
        if network.fuse is not None:
            [self._fuse] = fast_stages(target, [[Stage(network.fuse.weight, network.fuse.bias)]])
        weights = network.weights()
        self._decoder = decoder_beside(target, network.decoder(), weights)
        self._final_norm = as_array(weights["model.norm.weight"])
        self._eps = network.vocabulary.eps

    def new_cache(self, capacity: int, ledger: MemoryLedger) -> KVCache:
        return self._decoder.new_cache(capacity, ledger, "falcon")

    def start(self) -> Array:
        """The state of the LSTM before anything was read; nothing without an LSTM."""
        return np.zeros(0, np.float32) if self._lstm is None else self._lstm.start()

    def mix(self, pairs: Sequence[Array], states: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """What the layer reads of each sequence's next pairs, ``[T, 2 d] -> [T, d]``, and the new states."""
        if self._lstm is not None:
            return self._lstm.run(pairs, states)
        ends = np.cumsum([len(rows) for rows in pairs])
        return np.split(self._fuse(np.concatenate(pairs)), ends[:-1]), list(states)

    def read(self, batch: Sequence[tuple[KVCache, Array, Sequence[int], Sequence[int]]]) -> list[Block]:
        """Run mixed rows, and score the blocks that they end with.

        Args:
            batch: For each request its cache, its new rows ``[n, d]``, the parents of all scratch rows so
                far, and the scratch row that ends each block; the k rows of a block follow one another.

        Returns:
            The blocks of all requests.
        """
        asked = []
        wanted: list[int] = []
        before, k = 0, self._block
        for cache, rows, parents, ends in batch:
            start = len(parents) - len(rows)
            sees = list(range(start, len(parents)))
            scored = [row for end in ends for row in range(end + 1 - k - start, end + 1 - start)]
            for end in ends:
                sees[end + 1 - k - start : end + 1 - start] = [end] * k
            embeddings = torch.from_numpy(rows)
            asked.append(Rows(cache, [0] * len(rows), parents, start, embeddings, scored, sees))
            wanted += [before + row for row in scored]
            before += len(rows)
        scores = run(self._decoder, asked, (1,))
        features = rms_norm_rows(as_array(scores.hidden[1])[wanted], self._final_norm, self._eps)
        logits = as_array(torch.cat(scores.logits))
        return [Block(features[at : at + k], logits[at : at + k]) for at in range(0, len(wanted), k)]
