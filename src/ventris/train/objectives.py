"""What each method minimises, and how it is measured; the trainer knows no method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from ventris.draft.head_network import HeadSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.vocabulary_head import trained_rows
from ventris.model import Model
from ventris.models.config import DecoderConfig
from ventris.train.ahead import Ahead, acceptance_by_depth, ahead_loss, label_ranks, look_ahead
from ventris.train.losses import find_loss
from ventris.train.settings import TrainSettings
from ventris.train.windows import Batch

NetworkT = TypeVar("NetworkT", bound=nn.Module)
SettingsT = TypeVar("SettingsT", bound=TrainSettings)


class Objective(Protocol):
    """A network in training.

    Attributes:
        method: As in the registry of drafters.
        network: What is trained.
        sizes: What rebuilds it.
    """

    method: str

    @property
    def network(self) -> nn.Module: ...

    @property
    def sizes(self) -> dict[str, Any]: ...

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """What is minimised; ``generator`` is the step's own source of random choices."""
        ...

    def ranks(self, batch: Batch) -> Tensor:
        """Rank of the text's token at each depth, int64 ``[positions, depths]``."""
        ...

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        """What the drafter's tree is made from, of the ranks on all held-out text."""
        ...


@dataclass(frozen=True, slots=True)
class Lesson:
    """What every drafter for a target learns from.

    Attributes:
        model: The target; frozen.
        config: Its configuration.
        head: Its final norm and listed vocabulary rows.
        shortlist: The listed tokens.
    """

    model: Model
    config: DecoderConfig
    head: TargetHead
    shortlist: Shortlist

    def head_sizes(self, heads: int, layers: int, own_rows: bool) -> HeadSizes:
        """Sizes of heads over the target's final-normed rows."""
        return {
            "heads": heads,
            "hidden": self.config.hidden_size,
            "shortlist": len(self.shortlist),
            "rows": trained_rows(own_rows, self.config.tied_head),
            "layers": layers,
            "norm_eps": self.config.norm_eps,
            "embedding_scale": self.config.embedding_scale,
        }


class AheadObjective(ABC, Generic[NetworkT, SettingsT]):
    """Guesses at several depths from one position, held to the text or to the target's own distribution.

    The target's distribution over the listed tokens comes of its last hidden rows, which the texts bring.

    Args:
        network: What is trained.

    Attributes:
        target: Supplies embeddings; frozen.
        learnt_depths: Depths that the loss sees; it is measured at ``settings.heads``.
        decay: Factor on the loss from one depth to the next.
    """

    method: str

    def __init__(
        self,
        network: NetworkT,
        lesson: Lesson,
        settings: SettingsT,
        learnt_depths: int,
        decay: float,
    ) -> None:
        self.target = lesson.model.target
        self.network = network.to(self.target.device)
        self.sizes = cast(dict[str, Any], network.sizes)
        self.teacher = lesson.head.to(self.target.device)
        self.place = lesson.shortlist.place.to(self.target.device)
        self.settings = settings
        self.learnt_depths = learnt_depths
        self.decay = decay
        self.distribution_loss = find_loss(settings.loss)

    @abstractmethod
    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        """Head inputs at the positions that guess, ``[depths, n, d]``."""

    @abstractmethod
    def logits(self, depth: int, states: Tensor) -> Tensor:
        """Logits over the listed tokens, ``[n, d] -> [n, shortlist]``."""

    def normed(self, batch: Batch) -> Tensor:
        """The target's final-normed rows, ``[B, L, d]``."""
        return self.teacher.normed(batch.hidden[self.target.num_layers])

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ahead = look_ahead(batch, self.learnt_depths, self.place, self.settings.positions, generator)
        return self.ahead_loss(self.states(batch, ahead, self.learnt_depths), ahead, self.normed(batch))

    def ahead_loss(self, states: Tensor, ahead: Ahead, normed: Tensor) -> Tensor:
        """The loss of all depths; see :func:`~ventris.train.ahead.ahead_loss`."""
        return ahead_loss(
            states,
            ahead,
            self.logits,
            self.teacher.rows,
            normed,
            self.distribution_loss,
            self.decay,
        )

    def ranks(self, batch: Batch) -> Tensor:
        ahead = look_ahead(batch, self.settings.heads, self.place)
        return label_ranks(self.states(batch, ahead, self.settings.heads), ahead, self.logits)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        """How often the text's token was the first guess, by depth."""
        return {"acceptance": acceptance_by_depth(ranks)}
