"""The target's embedding of drafted tokens, which are nearly always listed ones."""

from __future__ import annotations

from collections.abc import Sequence

from ventris.draft.target_sketch import embedding_rows
from ventris.engine.target import Target
from ventris.models.stage import Array
from ventris.models.stages import as_array


class ListedEmbedding:
    """What the target's first layer reads for a token, with the rows of the listed ones at hand.

    Args:
        ids: The listed tokens.
    """

    def __init__(self, target: Target, ids: Sequence[int]) -> None:
        self._target = target
        self._rows = as_array(embedding_rows(target, ids))
        self._place = {token: place for place, token in enumerate(ids)}

    def __call__(self, tokens: Sequence[int]) -> Array:
        """Rows of some tokens, ``[n, d]``."""
        places = [self._place.get(token, -1) for token in tokens]
        if -1 in places:
            return as_array(embedding_rows(self._target, tokens))
        return self._rows[places]
