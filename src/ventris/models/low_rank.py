"""Low-rank changes of frozen matrices (Hu et al. 2021, arXiv 2106.09685): W becomes W + scale · B A.

A has r rows and starts with small random numbers. B starts as zero, so nothing changes before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.models.config import DecoderConfig
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.torch_layers import Linear
from ventris.models.weight_names import Shape, weight_shapes
from ventris.models.weights import Weights, dense

HEAD = "lm_head.weight"


def low_rank_pairs(shapes: Mapping[str, Shape], rank: int) -> tuple[nn.ParameterDict, nn.ParameterDict]:
    """A ``[rank, columns]`` and B ``[rows, rank]`` of each matrix, by :func:`parameter_key` of its name.

    Args:
        shapes: Rows and columns of the matrices by name.
    """
    down, up = nn.ParameterDict(), nn.ParameterDict()
    generator = torch.Generator().manual_seed(0)
    for name, (rows, columns) in shapes.items():
        start = torch.randn(rank, columns, generator=generator) * columns**-0.5
        down[parameter_key(name)] = nn.Parameter(start)
        up[parameter_key(name)] = nn.Parameter(torch.zeros(rows, rank))
    return down, up


def parameter_key(name: str) -> str:
    """The name of a weight as a dictionary of parameters takes it, without dots."""
    return name.replace(".", "/")


def weight_name(key: str) -> str:
    """The inverse of :func:`parameter_key`."""
    return key.replace("/", ".")


def untied(config: DecoderConfig) -> DecoderConfig:
    """The same decoder with a head of its own, which can be changed while the embedding stays."""
    return replace(config, tied_head=False)


class LowRankChanges(nn.Module):
    """Changes of all projections of a decoder and of its head.

    Args:
        config: The decoder; where it uses its embedding as head, the head is changed and the embedding not.
        rank: r.
        alpha: The changes are scaled by alpha / r.
        dropout: Share of the numbers that A reads that is dropped in training.
    """

    def __init__(self, config: DecoderConfig, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.config = untied(config)
        self.scale = alpha / rank
        self.dropout = dropout
        self.active = True
        shapes = weight_shapes(self.config)
        self.down, self.up = low_rank_pairs(
            {name: shape for name, shape in shapes.items() if name.endswith(("_proj.weight", HEAD))}, rank
        )

    @contextmanager
    def off(self) -> Iterator[None]:
        """The decoder as it was before its changes."""
        self.active = False
        try:
            yield
        finally:
            self.active = True

    def added(self, names: Sequence[str], rows: Tensor, listed: Tensor | None = None) -> Tensor:
        """What matrices' changes add to their products with ``rows``, ``[n, columns] -> [n, matrix rows]``.

        Args:
            names: Matrices that read the same rows; what they give is joined.
            listed: Only these rows of each matrix, int64.
        """
        keys = [parameter_key(name) for name in names]
        down = torch.cat([self.down[key] for key in keys])
        read = self.scale * (F.dropout(rows, self.dropout, self.training) @ down.T)
        ups = [self.up[key] if listed is None else self.up[key][listed] for key in keys]
        parts = zip(read.chunk(len(keys), dim=-1), ups, strict=True)
        return torch.cat([part @ up.T for part, up in parts], dim=-1)

    @torch.no_grad()
    def merged(self, weights: Weights) -> dict[str, Tensor]:
        """W + scale · B A of every weight of the decoder with a head of its own, float32, on the CPU."""
        whole = {}
        for name in weight_shapes(self.config):
            stored = "model.embed_tokens.weight" if name == HEAD and HEAD not in weights else name
            weight = dense(weights[stored])
            key = parameter_key(name)
            if key in self.up:
                weight = weight + (self.scale * self.up[key] @ self.down[key]).cpu()
            whole[name] = weight
        return whole


class ChangedLinear(Linear):
    """A frozen matrix of a decoder with the changes of the matrices that it is made of."""

    def __init__(self, frozen: Linear, changes: LowRankChanges, names: Sequence[str]) -> None:
        super().__init__(frozen.weight, frozen.bias)
        self.changes = changes
        self.names = names

    def __call__(self, x: Tensor) -> Tensor:
        frozen = super().__call__(x)
        if not self.changes.active:
            return frozen
        return frozen + self.changes.added(self.names, x)


def apply_changes(decoder: TorchDecoder, changes: LowRankChanges) -> None:
    """Let every matrix of a decoder in float32 run with its changes; gradients reach them alone."""

    def changed(linear: Linear, prefix: str, *names: str) -> Linear:
        return ChangedLinear(linear, changes, [f"{prefix}.{name}.weight" for name in names])

    for index, layer in enumerate(decoder.layers):
        attention, mlp = (f"model.layers.{index}.{part}" for part in ("self_attn", "mlp"))
        decoder.layers[index] = replace(
            layer,
            qkv=changed(layer.qkv, attention, "q_proj", "k_proj", "v_proj"),
            output=changed(layer.output, attention, "o_proj"),
            gate_up=changed(layer.gate_up, mlp, "gate_proj", "up_proj"),
            down=changed(layer.down, mlp, "down_proj"),
        )
    decoder.lm_head = ChangedLinear(decoder.lm_head, changes, [HEAD])
