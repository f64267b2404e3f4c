"""The network of Chimera, as it is trained and stored; see :mod:`ventris.draft.chimera`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ventris.draft.branch_attention import attend_branches
from ventris.draft.prefix_attention import PrefixAttention, PrefixSizes
from ventris.draft.vocabulary_head import RowsKind, VocabularyHead

LeftOut = Literal["nothing", "trigrams", "context"]
"""What an ablation does without: the newest token's embedding stands in place of its trigram's row, or the
trigram's row in place of what the layer makes of it."""


class ChimeraNetwork(nn.Module):
    """A trigram encoder, one decoder layer, and heads that fuse what it gives with the last hidden row.

    Args:
        heads: K, tokens guessed after the one that the target itself predicts.
        layer: Sizes of the decoder layer, those of the target's layers.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
        left_out: An ablation.
        embedding_scale: What the target multiplies its embeddings with; matters to tied rows only.
    """

    def __init__(
        self,
        heads: int,
        layer: Mapping[str, Any],
        shortlist: int,
        rows: RowsKind,
        left_out: LeftOut = "nothing",
        embedding_scale: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = PrefixSizes(**layer)
        self.sizes: dict[str, Any] = {
            "heads": heads,
            "layer": sizes.stored(),
            "shortlist": shortlist,
            "rows": rows,
            "left_out": left_out,
            "embedding_scale": embedding_scale,
        }
        d = sizes.hidden
        self.encoder = (
            None if left_out == "trigrams" else nn.Sequential(nn.Linear(3 * d, d), nn.SiLU(), nn.Linear(d, d))
        )
        self.layer = None if left_out == "context" else PrefixAttention(sizes)
        self.fuse = nn.ModuleList(_half_of_each(d) for _ in range(heads))
        self.vocabulary = VocabularyHead(heads, d, shortlist, rows, sizes.norm_eps)

    def encode(self, embedded: Tensor) -> Tensor:
        """Rows of trigrams, ``[n, 3 d] -> [n, d]``, of the embeddings of their tokens, the newest last."""
        if self.encoder is None:
            return embedded[..., -embedded.shape[-1] // 3 :]
        rows: Tensor = self.encoder(embedded)
        return rows

    def unroll(
        self, normed: Tensor, embedded: Sequence[Tensor], row: Tensor, at: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The draft states along given tokens from some positions t, and what the heads make of them.

        The state of step k comes of the trigram that ends with x_{t+1+k}; it sees the target's rows up to t
        and the states of the steps before, from which no gradient comes.

        Args:
            normed: The target's final-normed rows, ``[B, L, d]``.
            embedded: E(x_{t-1}), E(x_t), E(x_{t+1}), .., E(x_{t+K}), each ``[n, d]``.
            row: Window of each position, ascending, int64 ``[n]``.
            at: Place in it, int64 ``[n]``.

        Returns:
            States c and head states, ``[K, n, d]`` each.
        """
        base, steps = normed[row, at], len(embedded) - 2
        trigrams = [self.encode(torch.cat(list(embedded[k : k + 3]), dim=-1)) for k in range(steps)]
        states = trigrams if self.layer is None else self._in_context(self.layer, normed, trigrams, row, at)
        fused = [block(torch.cat([base, c], dim=-1)) for block, c in zip(self.fuse, states, strict=False)]
        return torch.stack(states), torch.stack(fused)

    @staticmethod
    def _in_context(
        layer: PrefixAttention, normed: Tensor, trigrams: Sequence[Tensor], row: Tensor, at: Tensor
    ) -> list[Tensor]:
        length, (cos, sin) = normed.shape[1], layer.tables(normed, len(trigrams) + 1)
        _, key, value = layer.project(normed, cos[:length], sin[:length])
        windows = torch.bincount(row, minlength=len(normed)).tolist()
        states: list[Tensor] = []
        before: list[tuple[Tensor, Tensor]] = []
        for step, trigram in enumerate(trigrams, start=1):
            turn = cos[at + step], sin[at + step]
            query, *newest = layer.project(trigram, *turn)
            mixed = attend_branches(query, key, value, at, windows, [*before, (newest[0], newest[1])])
            states.append(layer.finish(trigram, mixed))
            _, *own = layer.project(states[-1].detach(), *turn)
            before.append((own[0], own[1]))
        return states


def _half_of_each(hidden: int) -> nn.Linear:
    """V_k at its start: the mean of the last hidden row and the draft state."""
    block = nn.Linear(2 * hidden, hidden, bias=False)
    half = 0.5 * torch.eye(hidden)
    with torch.no_grad():
        block.weight.copy_(torch.cat([half, half], dim=1))
    return block
