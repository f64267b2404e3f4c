"""Training a drafter that guesses the next token and then goes on from its own guess."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ventris.draft.decoder_network import DecoderNetwork
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.engine.target import Target
from ventris.train.ahead import Ahead, acceptance_by_depth, ahead_loss, label_ranks, look_ahead
from ventris.train.losses import find_loss
from ventris.train.settings import NextTokenSettings
from ventris.train.windows import Batch


class NextTokenObjective:
    """The loss is that of the next token at each position; acceptance is that of a chain of such guesses.

    Every position is trained at once, on the text as it stands. The guess after x_0 .. x_t is for x_{t+1},
    and the target's own distribution there, from its last hidden row at t, is the teacher.

    Args:
        network: Gives a row for each position; what it reads is up to :meth:`inputs`.
        target: Supplies embeddings; frozen.
        head: Its final norm and listed vocabulary rows.
    """

    method: str
    sizes: dict[str, Any]

    def __init__(
        self,
        network: DecoderNetwork,
        target: Target,
        head: TargetHead,
        shortlist: Shortlist,
        settings: NextTokenSettings,
    ) -> None:
        self.network = network.to(target.device)
        self.target = target
        self.last = target.num_layers
        self.teacher = head.to(target.device)
        self.place = shortlist.place.to(target.device)
        self.settings = settings
        self.distribution_loss = find_loss(settings.loss)

    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads at each position, ``[B, L, d]``."""
        raise NotImplementedError

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ahead = look_ahead(batch, 1, self.place, self.settings.positions, generator)
        return ahead_loss(
            self._states(batch, ahead, 1),
            ahead,
            self._logits,
            self.teacher.rows,
            self.teacher.normed(batch.hidden[self.last]),
            self.distribution_loss,
            decay=1.0,
        )

    def ranks(self, batch: Batch) -> Tensor:
        ahead = look_ahead(batch, self.settings.heads, self.place)
        states = self._states(batch, ahead, self.settings.heads)
        return label_ranks(states, ahead, self._logits)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return {"acceptance": acceptance_by_depth(ranks)}

    def _logits(self, depth: int, states: Tensor) -> Tensor:
        """One head serves all depths."""
        return self.network.vocabulary.one(0, states)

    def _states(self, batch: Batch, ahead: Ahead, depths: int) -> Tensor:
        """Head inputs at the positions that come before the guessed tokens, ``[depths, n, d]``."""
        rows = self.network(self.inputs(batch))
        return torch.stack([ahead.following(rows, depth + 1) for depth in range(depths)])
