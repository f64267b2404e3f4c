"""Training a drafter that guesses the next token and then goes on from its own guess."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from ventris.draft.decoder_network import DecoderNetwork
from ventris.train.ahead import Ahead
from ventris.train.objectives import AheadObjective, Lesson
from ventris.train.settings import NextTokenSettings
from ventris.train.windows import Batch

NetworkT = TypeVar("NetworkT", bound=DecoderNetwork)
SettingsT = TypeVar("SettingsT", bound=NextTokenSettings)


class NextTokenObjective(AheadObjective[NetworkT, SettingsT]):
    """The loss is that of the next token at each position; acceptance is that of a chain of such guesses.

    Every position is trained at once, on the text as it stands. The guess after x_0 .. x_t is for x_{t+1},
    and the target's own distribution there, from its last hidden row at t, is the teacher. The network gives
    a row for each position; what it reads is up to :meth:`inputs`.
    """

    def __init__(self, network: NetworkT, lesson: Lesson, settings: SettingsT) -> None:
        super().__init__(network, lesson, settings, learnt_depths=1, decay=1.0)

    @abstractmethod
    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads at each position, ``[B, L, d]``."""

    def states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        rows = self.network(self.inputs(batch))
        return torch.stack([ahead.following(rows, depth + 1) for depth in range(depths)])

    def logits(self, depth: int, states: Tensor) -> Tensor:
        """One head serves all depths."""
        return self.network.vocabulary.one(0, states)
