"""Training LongSpec's block; see :mod:`ventris.draft.longspec`.

Yang et al. 2025, arXiv 2502.17421. The target is frozen, and its keys and values are those that it keeps of
the text. Two things make short texts serve:

- The target's keys end some places before the position that guesses, as they do while a tree grows.
- A short text is moved to far positions, all but its first few tokens (the anchors, on which much of a
  model's attention rests). The rows that keys come from are those of the text where it was; the keys are
  turned to where it is moved. In the layers below, only the distance to the anchors would have changed: that
  is left out, and all else is as if the target had read the text there.

The paper's stages are runs of one command: first short texts with all this; then, from that checkpoint
(``start``), long ones in a large ``window`` at a hundredth of the rate.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ventris.draft.longspec_network import Lent, LongSpecNetwork, Queries
from ventris.draft.target_sketch import embedding_rows
from ventris.draft.vocabulary_head import trained_rows
from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig
from ventris.models.torch_decoder import TorchDecoder
from ventris.models.weights import Weights
from ventris.train.ahead import Ahead, look_ahead
from ventris.train.first_weights import go_on, kept_weights, passing_weights
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.run import train_heads
from ventris.train.settings import LongSpecSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch

QUIET = 0.1
"""Factor on the final norm at the start.

What the block begins with is a token's embedding, which where the head is tied points at that very token; the
target's own norm would make it the sure guess (with SmolLM2 a loss of 93 in place of 8.7).
"""

SHORT_TEXT = 1200
"""Tokens of a window up to which it is moved, as in the paper's code."""


def train_longspec(
    settings: LongSpecSettings, progress: Progress | None = None, command: str = ""
) -> Trained:
    """Train LongSpec's block; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings, LongSpecObjective, progress, command)


class LastLayer:
    """What the target's last layer keeps of its input rows, in float32.

    Args:
        weights: The target's, by the names of a transformers checkpoint.
        config: Its sizes and switches.
    """

    def __init__(self, weights: Weights, config: DecoderConfig, device: torch.device) -> None:
        last = config.num_layers - 1
        layer = replace(config, num_layers=1, window_layers=config.window_layers[last:], tied_head=True)
        lent = torch.empty((0, config.hidden_size), device=device)
        named = kept_weights(weights, config, [last])
        self.decoder = TorchDecoder(layer, named, device=device, embedding=lent)

    @torch.no_grad()
    def lent(self, rows: Tensor, positions: Tensor) -> Lent:
        """Keys and values of input rows ``[B, L, d]`` that stand at ``positions: [B, L]``."""
        [layer] = self.decoder.layers
        cos, sin = self.decoder.rope[layer.theta]
        flat = positions.flatten()
        _, key, value = self.decoder.project(layer, rows.flatten(0, 1), cos[flat, None], sin[flat, None])
        return Lent(
            key.view(*positions.shape, *key.shape[1:]), value.view(*positions.shape, *value.shape[1:])
        )


class LongSpecObjective(AheadObjective[LongSpecNetwork, LongSpecSettings]):
    """The guess of each next token, from the tokens so far and the target's rows of all but the last few."""

    method = "longspec"

    def __init__(self, lesson: Lesson, settings: LongSpecSettings) -> None:
        model, config = lesson.model, lesson.config
        if model.source is None:
            raise BadInput("LongSpec learns from the weights of the target's last layer; load it by name")
        rows = trained_rows(settings.own_rows, config.tied_head)
        network = LongSpecNetwork(
            config, settings.sliding_window, settings.offsets, len(lesson.shortlist), rows
        )
        network.vocabulary.begin(lesson.shortlist, lesson.head)
        if settings.start is None:
            passing = passing_weights(network.config, lesson.head)
            network.begin({**passing, "model.norm.weight": QUIET * lesson.head.norm})
        else:
            go_on(network, self.method, settings.start, model.target, ("window", "rows"))
        super().__init__(network, lesson, settings, learnt_depths=1, decay=1.0)
        self.last_layer = LastLayer(model.source.weights, config, model.target.device)
        context = model.target.context_length
        self.farthest = context if settings.farthest is None else min(settings.farthest, context)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ahead = look_ahead(batch, self.learnt_depths, self.place, self.settings.positions, generator)
        offset = int(torch.randint(1, self.settings.offsets + 1, (), generator=generator))
        positions = self._moved(batch, generator)
        states = self._guess(batch, ahead, 0, offset, positions)[None]
        return self.ahead_loss(states, ahead, self.normed(batch))

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        """As in drafting: at each depth the target's rows end where the draft began."""
        plain = positions_of(batch)
        return torch.stack([self._guess(batch, ahead, depth, depth + 1, plain) for depth in range(depths)])

    def logits(self, depth: int, states: Tensor) -> Tensor:
        """One head serves all depths."""
        return self.network.vocabulary.one(0, states)

    def _moved(self, batch: Batch, generator: torch.Generator) -> Tensor:
        plain = positions_of(batch)
        if plain.shape[1] > SHORT_TEXT:
            return plain
        return moved_positions(plain, self.settings.anchors, self.farthest, generator)

    def _guess(self, batch: Batch, ahead: Ahead, depth: int, offset: int, positions: Tensor) -> Tensor:
        """Head inputs ``depth`` places past the last known token, ``[n, d]``."""
        tokens = batch.tokens
        embedded = embedding_rows(self.target, tokens.flatten().tolist()).view(*tokens.shape, -1)
        lent = self.last_layer.lent(batch.hidden[self.target.num_layers - 1], positions)
        at = (ahead.at + 1 + depth).clamp_max(tokens.shape[1] - 1)
        return self.network.guess(embedded, positions, lent, Queries(ahead.row, at, offset))


def positions_of(batch: Batch) -> Tensor:
    """Places in the windows, int64 ``[B, L]``."""
    count, length = batch.tokens.shape
    return torch.arange(length, device=batch.tokens.device).expand(count, -1)


def moved_positions(plain: Tensor, anchors: int, farthest: int, generator: torch.Generator) -> Tensor:
    """Anchor-offset positions: the first few tokens of each text stay, the others move on together.

    Args:
        plain: Positions before, int64 ``[B, L]``.
        anchors: Tokens that stay, at most; how many is drawn for each text, none among the chances.
        farthest: No position reaches it, unless the texts do where they are.
        generator: Source of the draws.
    """
    count, length = plain.shape
    room = max(farthest - length, 0)
    stay = torch.randint(anchors + 1, (count, 1), generator=generator).to(plain.device)
    shift = torch.randint(room + 1, (count, 1), generator=generator).to(plain.device)
    return plain + shift * (plain >= stay)
