"""Chimera's trigram rows in drafting: computed once for each triple of tokens, and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from torch import nn

from ventris.draft.listed_embedding import ListedEmbedding
from ventris.engine.target import Target
from ventris.models.stage import Array, Stage
from ventris.models.stages import fast_stages

Triple = tuple[int, int, int]


class TrigramMemo:
    """Rows by the triple of tokens that they stand for, shared by all requests.

    Args:
        encoder: Two linear maps with SiLU between.
        embed: The target's embedding.
        most: Rows that are kept, those asked for least recently going first; 0 for none.

    Attributes:
        asked: Triples that were asked for.
        found: How many of them were known.
    """

    def __init__(self, encoder: nn.Sequential, target: Target, embed: ListedEmbedding, most: int) -> None:
        first, _, second = encoder
        chains = [[Stage(m.get_parameter("weight"), m.get_parameter("bias"))] for m in (first, second)]
        self._first, self._second = fast_stages(target, chains)
        self._embed = embed
        self._most = most
        self._rows: OrderedDict[Triple, Array] = OrderedDict()
        self.asked = self.found = 0

    def __call__(self, triples: Sequence[Triple]) -> Array:
        """Rows ``[n, d]``."""
        wanted = dict.fromkeys(triples)
        known = {triple: self._rows[triple] for triple in wanted if triple in self._rows}
        new = [triple for triple in wanted if triple not in known]
        self.asked += len(triples)
        self.found += len(triples) - len(new)
        if new:
            known.update(zip(new, self._encode(new), strict=True))
        if self._most:
            for triple, row in known.items():
                self._rows[triple] = row
                self._rows.move_to_end(triple)
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
        return np.stack([known[triple] for triple in triples])

    def _encode(self, triples: Sequence[Triple]) -> Array:
        embedded = self._embed([token for triple in triples for token in triple]).reshape(len(triples), -1)
        bent = self._first(embedded)
        return self._second(bent * (np.tanh(bent * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)))
