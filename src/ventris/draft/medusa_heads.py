"""The network of Medusa, for training and ready for drafting; see :mod:`ventris.draft.medusa`."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.draft.head_network import HeadNetwork, HeadSizes
from ventris.engine.target import Target
from ventris.models.stage import Array, InputNorm, Stage
from ventris.models.stages import fast_stages


class MedusaHeads(HeadNetwork):
    """The network, as it is trained and stored; a layer is a residual block."""

    def __init__(self, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(sizes)
        layers, heads, hidden = (self.sizes[name] for name in ("layers", "heads", "hidden"))
        self.weight = nn.Parameter(torch.zeros(layers, heads, hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(layers, heads, 1, hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        """Head states z of final-normed rows, ``[n, d] -> [K, n, d]``."""
        z = hidden.expand(self.weight.shape[1], -1, -1)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            z = z + F.silu(z @ weight.transpose(-1, -2) + bias)
        return z


class FastMedusa:
    """The same network for drafting.

    The first blocks of all heads are one matrix, since they read one row. With one block and shared
    vocabulary rows that is all: one call for everything.
    """

    def __init__(self, network: MedusaHeads, target: Target) -> None:
        vocabulary = network.vocabulary
        norm = InputNorm(vocabulary.norm, vocabulary.eps)
        layers, self.heads = network.weight.shape[:2]
        weights, biases = network.weight.detach(), network.bias.detach()
        first = Stage(weights[0].flatten(0, 1), biases[0].flatten(), "residual")
        projections = vocabulary.stages()
        if layers == 1 and vocabulary.kind != "own":
            (self.trunk,) = fast_stages(target, [[first, projections[0]]], norm)
            self.branches = None
            return
        (self.trunk,) = fast_stages(target, [[first]], norm)
        deeper = [
            [Stage(weights[layer, head], biases[layer, head, 0], "residual") for layer in range(1, layers)]
            for head in range(self.heads)
        ]
        chains = [[*blocks, last] for blocks, last in zip(deeper, projections, strict=True)]
        self.branches = fast_stages(target, chains)

    def logits(self, hidden: Array) -> Array:
        """Logits over the shortlist of the target's last-layer outputs, ``[n, d] -> [n * K, shortlist]``.

        The K rows of one input stand together.
        """
        trunk = self.trunk(hidden)
        if self.branches is None:
            return trunk
        states = trunk.reshape(len(hidden), self.heads, -1)
        parts = [branch(states[:, head]) for head, branch in enumerate(self.branches)]
        return np.stack(parts, axis=1).reshape(len(trunk), -1)
