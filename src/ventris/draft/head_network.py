"""What the networks of Medusa and Hydra share: their sizes, and the vocabulary rows behind their heads."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from torch import nn

from ventris.draft.vocabulary_head import RowsKind, VocabularyHead


class HeadSizes(TypedDict):
    """What a network with K heads is built from.

    Attributes:
        heads: K, tokens guessed after the one that the target itself predicts.
        hidden: Width d of the target.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
        layers: Layers of each head, each with weights of its own; 1 when not given.
        norm_eps: Epsilon of the target's final norm; 1e-5 when not given.
        embedding_scale: What the target multiplies its embeddings with, 1 when not given; matters to tied
            rows only.
    """

    heads: int
    hidden: int
    shortlist: int
    rows: RowsKind
    layers: NotRequired[int]
    norm_eps: NotRequired[float]
    embedding_scale: NotRequired[float]


class HeadNetwork(nn.Module):
    """Heads over final-normed rows, as they are trained and stored.

    Attributes:
        sizes: What rebuilds it.
    """

    def __init__(self, given: HeadSizes) -> None:
        super().__init__()
        chosen: HeadSizes = {"layers": 1, "norm_eps": 1e-5, "embedding_scale": 1.0, **given}
        self.sizes: dict[str, Any] = dict(chosen)
        self.vocabulary = VocabularyHead(
            chosen["heads"], chosen["hidden"], chosen["shortlist"], chosen["rows"], chosen["norm_eps"]
        )
