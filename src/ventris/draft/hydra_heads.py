"""The network of Hydra and Hydra++, for training and ready for drafting; see :mod:`ventris.draft.hydra`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.draft.head_network import HeadNetwork, HeadSizes
from ventris.draft.prefix_attention import CachedPrefix, PrefixAttention, PrefixSizes
from ventris.engine.target import Target
from ventris.models.stage import Array, Form, Stage
from ventris.models.stages import as_array, fast_stages, rms_norm_rows


class HydraHeads(HeadNetwork):
    """The network, as it is trained and stored; one layer for plain Hydra, 4 for Hydra++.

    Args:
        prefix: Sizes of P; ``None`` for plain Hydra.
        dropout: Share of a layer's input dropped in training.
    """

    def __init__(
        self, *, prefix: dict[str, Any] | None = None, dropout: float = 0.0, **sizes: Unpack[HeadSizes]
    ) -> None:
        super().__init__(sizes)
        self.sizes["prefix"] = prefix
        layers, heads, hidden = (self.sizes[name] for name in ("layers", "heads", "hidden"))
        self.dropout = dropout
        self.first = nn.ModuleList(_first_block(i + 2, hidden) for i in range(heads))
        self.deeper = nn.ModuleList(_zero_linear(hidden, hidden) for _ in range(heads * (layers - 1)))
        self.prefix = PrefixAttention(PrefixSizes(**prefix)) if prefix else None

    def forward(self, g: Tensor, embedded: Sequence[Tensor]) -> Tensor:
        """Head states y, ``[K, n, d]``, along given tokens.

        Args:
            g: ``[n, d]``.
            embedded: E(x_{t+1}), E(x_{t+2}), …, E(x_{t+K}), each ``[n, d]``.
        """
        return torch.stack(
            [self.head(i, torch.cat([g, *embedded[: i + 1]], dim=-1)) for i in range(len(self.first))]
        )

    def head(self, index: int, inputs: Tensor) -> Tensor:
        """One head's state, ``[n, (index + 2) d] -> [n, d]``."""
        straight, bent = self.first[index](self._drop(inputs)).chunk(2, dim=-1)
        y: Tensor = straight + F.silu(bent)
        for block in self.deeper_of(index):
            y = y + F.silu(block(self._drop(y)))
        return y

    def deeper_of(self, index: int) -> list[nn.Module]:
        """The layers after the first of one head."""
        count = len(self.deeper) // len(self.first)
        return list(self.deeper)[index * count : (index + 1) * count]

    def _drop(self, rows: Tensor) -> Tensor:
        return F.dropout(rows, self.dropout, self.training) if self.dropout else rows


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    block = nn.Linear(inputs, outputs)
    nn.init.zeros_(block.weight)
    nn.init.zeros_(block.bias)
    return block


def _first_block(parts: int, hidden: int) -> nn.Linear:
    """R_i and A_i side by side: one product gives both halves.

    R_i passes g through and all else is zero, so at first every head is the target's own.
    """
    block = _zero_linear(parts * hidden, 2 * hidden)
    nn.init.eye_(block.weight.data[:hidden, :hidden])
    return block


class FastHydra:
    """The same network for drafting: one call a head."""

    def __init__(self, network: HydraHeads, target: Target) -> None:
        heads = range(len(network.first))
        chains = [
            [
                _stage(network.first[i], "halves"),
                *(_stage(block, "residual") for block in network.deeper_of(i)),
                projection,
            ]
            for i, projection in zip(heads, network.vocabulary.stages(), strict=True)
        ]
        self.heads = fast_stages(target, chains)
        self.prefix = CachedPrefix(network.prefix, target) if network.prefix else None
        self._norm = as_array(network.vocabulary.norm)
        self._eps = network.vocabulary.eps

    def normed(self, hidden: Tensor) -> Array:
        """Final-normed rows of the target's last-layer outputs, ``[n, d]``."""
        return rms_norm_rows(as_array(hidden), self._norm, self._eps)


def _stage(block: Any, form: Form) -> Stage:
    return Stage(block.weight.detach(), block.bias.detach(), form)
