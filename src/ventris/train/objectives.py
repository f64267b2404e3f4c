"""What each method minimises, and how it is measured; the trainer knows no method."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ventris.draft.head_tree import LARGEST_TREE, accuracies_of, grow_from_ranks
from ventris.draft.hydra_heads import HydraHeads
from ventris.draft.medusa import RANKS
from ventris.draft.medusa_heads import MedusaHeads
from ventris.draft.prefix_attention import PrefixSizes
from ventris.draft.shortlist import Shortlist
from ventris.draft.target_head import TargetHead
from ventris.draft.target_sketch import embedding_rows
from ventris.engine.target import Target
from ventris.models.config import DecoderConfig
from ventris.train.ahead import Ahead, ahead_loss, label_ranks, look_ahead
from ventris.train.losses import find_loss
from ventris.train.settings import HeadSettings, HydraSettings, MedusaSettings
from ventris.train.windows import Batch

NetworkT = TypeVar("NetworkT", MedusaHeads, HydraHeads)


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


class _HeadObjective(Generic[NetworkT]):
    """What Medusa and Hydra share: K heads at one position, the target's next rows as teachers.

    Args:
        target: Supplies embeddings; frozen.
        head: Its final norm and listed vocabulary rows.
    """

    def __init__(
        self,
        network: NetworkT,
        target: Target,
        head: TargetHead,
        shortlist: Shortlist,
        settings: HeadSettings,
    ) -> None:
        device = target.device
        self.network: NetworkT = network
        network.vocabulary.begin(shortlist, head)
        self.heads = settings.heads
        self.target = target
        self.last = target.num_layers
        self.teacher = head.to(device)
        self.place = shortlist.place.to(device)
        self.settings = settings
        self.distribution_loss = find_loss(settings.loss)
        network.to(device)

    @property
    def sizes(self) -> dict[str, Any]:
        return self.network.sizes

    def _loss(self, states: Tensor, ahead: Ahead, normed: Tensor) -> Tensor:
        return ahead_loss(
            states,
            ahead,
            self.network.vocabulary.one,
            self.teacher.rows,
            normed,
            self.distribution_loss,
            self.settings.decay,
        )

    def _look(self, batch: Batch, generator: torch.Generator | None = None) -> Ahead:
        most = self.settings.positions if generator is not None else None
        return look_ahead(batch, self.heads, self.place, most, generator)


class MedusaObjective(_HeadObjective[MedusaHeads]):
    """Medusa-1: sum over heads of 0.8^k times the cross-entropy with the token k + 1 places on."""

    method = "medusa"

    def __init__(
        self,
        target: Target,
        config: DecoderConfig,
        head: TargetHead,
        shortlist: Shortlist,
        settings: MedusaSettings,
    ) -> None:
        network = MedusaHeads(
            settings.heads,
            target.hidden_size,
            len(shortlist),
            "own" if settings.own_rows else "tied" if config.tied_head else "stored",
            settings.layers,
            config.norm_eps,
            config.embedding_scale,
        )
        super().__init__(network, target, head, shortlist, settings)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        normed, ahead = self.teacher.normed(batch.hidden[self.last]), self._look(batch, generator)
        return self._loss(self.network(normed[ahead.row, ahead.at]), ahead, normed)

    def ranks(self, batch: Batch) -> Tensor:
        normed, ahead = self.teacher.normed(batch.hidden[self.last]), self._look(batch)
        return label_ranks(self.network(normed[ahead.row, ahead.at]), ahead, self.network.vocabulary.one)

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        return {"accuracies": accuracies_of(ranks, RANKS)}


class HydraObjective(_HeadObjective[HydraHeads]):
    """Hydra: each head reads the right tokens before its own; Hydra++ learns the target's distribution."""

    method = "hydra"

    def __init__(
        self,
        target: Target,
        config: DecoderConfig,
        head: TargetHead,
        shortlist: Shortlist,
        settings: HydraSettings,
    ) -> None:
        network = HydraHeads(
            settings.heads,
            target.hidden_size,
            len(shortlist),
            "own" if settings.own_rows else "tied" if config.tied_head else "stored",
            settings.layers or 1,
            PrefixSizes.of(config).stored() if settings.prefix else None,
            settings.dropout,
            config.norm_eps,
            config.embedding_scale,
        )
        super().__init__(network, target, head, shortlist, settings)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        normed, ahead = self.teacher.normed(batch.hidden[self.last]), self._look(batch, generator)
        return self._loss(self._states(batch, ahead, normed), ahead, normed)

    def ranks(self, batch: Batch) -> Tensor:
        normed, ahead = self.teacher.normed(batch.hidden[self.last]), self._look(batch)
        return label_ranks(self._states(batch, ahead, normed), ahead, self.network.vocabulary.one)

    def _states(self, batch: Batch, ahead: Ahead, normed: Tensor) -> Tensor:
        summaries = self.network.prefix(normed) if self.network.prefix is not None else normed
        embedded = [
            embedding_rows(self.target, ahead.following(batch.tokens, offset).tolist())
            for offset in range(1, self.heads + 1)
        ]
        states: Tensor = self.network(summaries[ahead.row, ahead.at], embedded)
        return states

    def measured(self, ranks: Tensor) -> dict[str, Any]:
        tree = grow_from_ranks(ranks, LARGEST_TREE, RANKS)
        return {"tree": {"paths": [list(path) for path in tree.paths], "values": list(tree.values)}}
