"""Training EAGLE-3: the decoder layer rehearses the chains of guesses that it will make."""

from __future__ import annotations

import torch
from torch import Tensor

from ventris.draft.eagle_network import EagleNetwork, eagle_taps
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.target_sketch import embedding_rows
from ventris.train.ahead import Ahead
from ventris.train.first_weights import alike_checkpoint
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.run import train_heads
from ventris.train.settings import EagleSettings
from ventris.train.texts import Progress
from ventris.train.trainer import Trained
from ventris.train.windows import Batch


def train_eagle(settings: EagleSettings, progress: Progress | None = None, command: str = "") -> Trained:
    """Train EAGLE-3; see :func:`~ventris.train.run.train_heads`."""
    return train_heads(settings, EagleObjective, progress, command)


class EagleObjective(AheadObjective[EagleNetwork, EagleSettings]):
    """Training-time test: sum over the steps of decay^k times the distance to the target's distribution.

    Li et al. 2025, arXiv 2503.01840, section 3.2. Features are not held to the target's: only the tokens
    that come of them count.
    """

    method = "eagle"

    def __init__(self, lesson: Lesson, settings: EagleSettings) -> None:
        taps = eagle_taps(lesson.model.target.num_layers)
        network = EagleNetwork(PrefixSizes.of(lesson.config).stored(), taps, len(lesson.shortlist))
        network.begin(lesson.shortlist, lesson.head)
        if settings.start is not None:
            alike = ("layer", "taps")
            stored = alike_checkpoint(settings.start, self.method, lesson.model.target, network.sizes, alike)
            network.go_on(stored.network(EagleNetwork))
        super().__init__(network, lesson, settings, settings.heads, settings.decay)

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        following = torch.cat([batch.tokens[:, 1:], batch.tokens[:, -1:]], dim=1)
        embedded = embedding_rows(self.target, following.flatten().tolist()).view(*following.shape, -1)
        tapped = [batch.hidden[layer] for layer in self.network.taps]
        return self.network.rehearse(tapped, embedded, ahead.row, ahead.at, depths)

    def logits(self, depth: int, states: Tensor) -> Tensor:
        """One head serves all steps."""
        logits: Tensor = self.network.head(states)
        return logits
