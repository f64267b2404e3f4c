"""What drafters with trained heads on the target's last hidden row share: options, loading, state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from ventris.draft.checkpoint import CheckpointOptions, open_checkpoint
from ventris.draft.head_tree import LARGEST_TREE, Path, StaticTree
from ventris.engine.target import Target
from ventris.engine.tree import TokenTree

if TYPE_CHECKING:
    from ventris.draft.chimera_network import ChimeraNetwork
    from ventris.draft.falcon_network import FalconNetwork
    from ventris.draft.hydra_heads import HydraHeads
    from ventris.draft.medusa_heads import MedusaHeads
    from ventris.engine.parts import DraftJob
    from ventris.model import Model
    from ventris.parts import Workshop

TreeChoice = Literal["static", "dynamic"]

DYNAMIC_WIDTH = 4
"""Branches that go on at once, and guesses taken of each, when the tree follows probabilities."""


class HeadDrafter(ABC):
    """Draft trees from heads that a checkpoint holds.

    Args:
        target: What it drafts for.
        network: The heads.
        tree: The tree by measured acceptance, best node first.
        nodes: Drafted tokens at most.
        choose: ``"static"``: the first nodes of ``tree``, with measured confidences. ``"dynamic"``: the
            likeliest nodes by the heads' own probabilities at each step.

    Attributes:
        network_class: What a checkpoint of this method is loaded into.
    """

    name: ClassVar[str]
    network_class: ClassVar[type[MedusaHeads] | type[HydraHeads] | type[FalconNetwork] | type[ChimeraNetwork]]
    shape = "tree"
    draws = False

    class Options(CheckpointOptions):
        """Options of drafters with trained heads."""

        nodes: int = Field(24, ge=1, le=LARGEST_TREE, description="drafted tokens at most")
        tree: TreeChoice = Field(
            "static", description="static: from measured acceptance; dynamic: from each step's probabilities"
        )

    def __init__(
        self,
        target: Target,
        network: MedusaHeads | HydraHeads | FalconNetwork | ChimeraNetwork,
        tree: StaticTree,
        nodes: int = 24,
        choose: TreeChoice = "static",
    ) -> None:
        self.target = target
        self.taps: Sequence[int] = (target.num_layers,)
        self.nodes = nodes
        self.dynamic = choose == "dynamic"
        self.weight_bytes = sum(part.nbytes for part in network.state_dict().values())
        self.models: Sequence[Any] = [self]
        self._listed = network.vocabulary.ids.long().numpy()
        self._ids: list[int] = self._listed.tolist()
        self._tree = tree
        self._confidence = tree.confidences()

    @classmethod
    def load(
        cls,
        model: Model | Target,
        checkpoint: str | FilePath | None = None,
        tree: StaticTree | None = None,
        **settings: Any,
    ) -> Self:
        """Heads from a folder, or those shipped for the model.

        Args:
            tree: Another tree than the one by the checkpoint's own measurements.

        Raises:
            BadInput: if there are none, or they belong to another target.
        """
        target, stored = open_checkpoint(cls.name, model, checkpoint)
        network: Any = stored.network(cls.network_class)
        network.vocabulary.read_tied_rows(target, stored.sizes["embedding_scale"])
        return cls(target, network, tree or cls.tree_of(stored.measured), **settings)

    @classmethod
    @abstractmethod
    def tree_of(cls, measured: Any) -> StaticTree:
        """The tree from what a checkpoint's configuration says was measured."""

    def measured_children(self, nodes: int, depth: int) -> dict[Path, list[float]]:
        """Confidences of the children in the first ``nodes`` of the tree, by their parent's path."""
        children: dict[Path, list[float]] = {}
        for path, confidence in zip(self._tree.paths[:nodes], self._confidence, strict=False):
            if len(path) <= depth:
                children.setdefault(path[:-1], []).append(confidence)
        return children

    @classmethod
    def build(cls, options: Options, workshop: Workshop) -> Self:
        """Load the heads; without a target only what the drafts are like is known."""
        if workshop.target is None:
            preview = cls.__new__(cls)
            preview.taps = ()
            return preview
        return cls.load(workshop.target, options.checkpoint, nodes=options.nodes, choose=options.tree)

    def _root(self, job: DraftJob) -> TokenTree:
        return TokenTree([job.root], [-1], [1.0], self.name)
