"""Training EAGLE-3: the decoder layer rehearses the chains of guesses that it will make."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ventris.draft.eagle_network import EagleNetwork
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import embedding_rows
from ventris.engine.target import Target
from ventris.model import Model
from ventris.models.config import DecoderConfig
from ventris.train.ahead import acceptance_by_depth, ahead_loss, label_ranks, look_ahead
from ventris.train.losses import find_loss
from ventris.train.objectives import Objective
from ventris.train.run import train_heads
from ventris.train.settings import EagleSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_eagle(settings: EagleSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train EAGLE-3; see :func:`~ventris.train.run.train_heads`."""

    def make(model: Model, config: DecoderConfig, head: TargetHead, shortlist: Shortlist) -> Objective:
        return EagleObjective(model.target, config, head, shortlist, settings)

    return train_heads(settings, make, progress, command)


def eagle_taps(layers: int) -> tuple[int, int, int]:
    """A low, a middle and a high layer whose inputs are fused; what vLLM takes if a checkpoint names none."""
    return min(2, layers), layers // 2, max(layers - 3, 0)


class EagleObjective:
    """Training-time test: sum over the steps of decay^k times the distance to the target's distribution.

    Li et al. 2025, arXiv 2503.01840, section 3.2. Features are not held to the target's: only the tokens
    that come of them count.
    """

    method = "eagle"

    def __init__(
        self,
        target: Target,
        config: DecoderConfig,
        head: TargetHead,
        shortlist: Shortlist,
        settings: EagleSettings,
    ) -> None:
        taps = eagle_taps(target.num_layers)
        self.network = EagleNetwork(PrefixSizes.of(config).stored(), taps, len(shortlist))
        self.network.begin(shortlist, head)
        self.network.to(target.device)
        self.target = target
        self.last = target.num_layers
        self.teacher = head.to(target.device)
        self.place = shortlist.place.to(target.device)
        self.settings = settings
        self.distribution_loss = find_loss(settings.loss)

    @property
    def sizes(self) -> dict[str, Any]:
        return self.network.sizes

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ahead = look_ahead(batch, self.settings.heads, self.place, self.settings.positions, generator)
        normed = self.teacher.normed(batch.hidden[self.last])
        return ahead_loss(
            self._states(batch, ahead.row, ahead.at),
            ahead,
            self._logits,
            self.teacher.rows,
            normed,
            self.distribution_loss,
            self.settings.decay,
        )

    def ranks(self, batch: Batch) -> Tensor:
        ahead = look_ahead(batch, self.settings.heads, self.place)
        return label_ranks(self._states(batch, ahead.row, ahead.at), ahead, self._logits)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return {"acceptance": acceptance_by_depth(ranks)}

    def _states(self, batch: Batch, row: Tensor, at: Tensor) -> Tensor:
        following = torch.cat([batch.tokens[:, 1:], batch.tokens[:, -1:]], dim=1)
        embedded = embedding_rows(self.target, following.flatten().tolist()).view(*following.shape, -1)
        tapped = [batch.hidden[layer] for layer in self.network.taps]
        return self.network.rehearse(tapped, embedded, row, at, self.settings.heads)

    def _logits(self, step: int, states: Tensor) -> Tensor:
        """One head serves all steps."""
        logits: Tensor = self.network.head(states)
        return logits
