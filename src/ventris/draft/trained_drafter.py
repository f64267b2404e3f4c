"""What drafters share whose one network lies in a checkpoint: loading, and building by options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ventris.draft.checkpoint import HeadCheckpoint, open_checkpoint
from ventris.draft.decoder_beside import config_of
from ventris.engine.target import Target

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.parts import Workshop


class TrainedDrafter(ABC):
    """A drafter that is made of a target and a network, both of them ``None`` in a preview.

    Attributes:
        network_class: What a checkpoint of this method is loaded into.
    """

    name: str
    network_class: type[Any]

    @abstractmethod
    def __init__(self, target: Any, network: Any, **settings: Any) -> None:
        """Make it; the settings are the options but for the checkpoint."""

    @classmethod
    def load(cls, model: Model | Target, checkpoint: str | Path | None = None, **settings: Any) -> Self:
        """The drafter in a folder, or the one shipped for the model.

        Raises:
            BadInput: if there is none, or it belongs to another target.
        """
        target, stored = open_checkpoint(cls.name, model, checkpoint)
        return cls(target, cls.network_of(target, stored), **settings)

    @classmethod
    def network_of(cls, target: Target, stored: HeadCheckpoint) -> Any:
        """The network in a checkpoint, its layers shaped after the target's."""
        config = config_of(target)
        network = stored.network(cls.network_class, config)
        network.vocabulary.read_tied_rows(target, config.embedding_scale)
        return network

    @classmethod
    def build(cls, options: Any, workshop: Workshop) -> Self:
        """Load the drafter; without a target only what its drafts are like is known."""
        settings = options.model_dump(exclude={"checkpoint"})
        if workshop.target is None:
            return cls(None, None, **settings)
        return cls.load(workshop.target, options.checkpoint, **settings)
