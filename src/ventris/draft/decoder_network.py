"""A few decoder layers in training: the reference decoder itself, with weights that learn.

Whatever family the target is of, its layers can be trained this way, because the code that runs them is the
code that runs the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ventris.draft.vocabulary_head import RowsKind, VocabularyHead
from ventris.models.config import DecoderConfig
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.weight_names import weight_shapes
from ventris.models.weights import BLOCK

_LENT = ("model.embed_tokens.weight", "lm_head.weight")


class DecoderNetwork(nn.Module):
    """Decoder layers with a final norm of their own, and a head over the shortlist.

    The parameters have the names of a transformers checkpoint. All are zero until they are filled or begun.

    Args:
        config: Sizes and switches of the layers. ``intermediate_size`` 0 leaves the feed-forward part out.
        shortlist: Number of listed tokens.
        rows: Where the vocabulary rows come from.
    """

    sizes: dict[str, Any]

    def __init__(self, config: DecoderConfig, shortlist: int, rows: RowsKind) -> None:
        super().__init__()
        self.config = replace(config, tied_head=False, head_size=shortlist, borrowed_embedding=True)
        self._names = [name for name in weight_shapes(self.config) if name not in _LENT]
        for name, shape in weight_shapes(self.config).items():
            if name not in _LENT:
                _plant(self, name, nn.Parameter(torch.zeros(shape)))
        self.vocabulary = VocabularyHead(1, config.hidden_size, shortlist, rows, config.norm_eps)

    def begin(self, weights: Mapping[str, Tensor]) -> None:
        """Take all weights but the head's, by the names of a transformers checkpoint."""
        with torch.no_grad():
            for name in self._names:
                self.get_parameter(name).copy_(weights[name])

    def forward(self, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
        """Final-normed rows of whole sequences, ``[B, L, d] -> [B, L, d]``; position 0 comes first.

        Args:
            seen: Up to which place each place sees, int64 ``[L]``; up to itself when not given.
        """
        return whole_sequences(self.live_decoder(), inputs, seen)

    def live_decoder(self) -> TorchDecoder:
        """The layers with the weights as they are now, without a head."""
        trained = {name: self.get_parameter(name) for name in self._names}
        some = next(iter(trained.values()))
        lent = some.new_empty((0, self.config.hidden_size))
        return TorchDecoder(
            self.config, {**trained, "lm_head.weight": lent}, device=some.device, embedding=lent
        )

    def decoder(self) -> DecoderConfig:
        """What :meth:`weights` are the weights of.

        The runtimes know no layer without a feed-forward part; one that adds nothing stands in its place.
        """
        return replace(self.config, intermediate_size=self.config.intermediate_size or BLOCK)

    def weights(self) -> dict[str, Tensor]:
        """By the names of a transformers checkpoint, the head's listed rows among them."""
        shapes = weight_shapes(self.decoder())
        named = {name: _padded(self.get_parameter(name).detach(), shapes[name]) for name in self._names}
        rows = self.vocabulary.rows.detach()
        return {**named, "lm_head.weight": rows[0] if self.vocabulary.kind == "own" else rows}


def whole_sequences(decoder: TorchDecoder, inputs: Tensor, seen: Tensor | None = None) -> Tensor:
    """Final-normed rows of sequences that begin at position 0, ``[B, L, d] -> [B, L, d]``, with gradients.

    Args:
        seen: Up to which place each place sees, int64 ``[L]``; up to itself when not given.
    """
    batch, length, _ = inputs.shape
    place = torch.arange(length, device=inputs.device)
    distance = place[:, None] - place
    later = distance < 0 if seen is None else place > seen[:, None]
    hidden = inputs.flatten(0, 1)
    for layer in decoder.layers:
        cos, sin = (table[:length].repeat(batch, 1)[:, None] for table in decoder.rope[layer.theta])
        query, key, value = decoder.project(layer, hidden, cos, sin)
        unseen = later | (distance >= (layer.window or length))
        mask = query.new_zeros((length, length)).masked_fill_(unseen, -torch.inf)
        windows = zip(*(torch.split(part, length) for part in (query, key, value)), strict=True)
        attended = [decoder.attend(q, k.transpose(0, 1), v.transpose(0, 1), mask) for q, k, v in windows]
        hidden = decoder.finish(layer, hidden, torch.cat(attended))
    return decoder.final_norm(hidden).view(inputs.shape)


def _plant(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Make ``parameter`` known by a name with dots."""
    first, _, rest = name.partition(".")
    if not rest:
        module.register_parameter(first, parameter)
        return
    if first not in dict(module.named_children()):
        module.add_module(first, nn.Module())
    _plant(module.get_submodule(first), rest, parameter)


def _padded(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weight with zeros behind each axis up to ``shape``."""
    missing = [wanted - found for wanted, found in zip(shape, weight.shape, strict=True)]
    return F.pad(weight, [side for size in reversed(missing) for side in (0, size)])
