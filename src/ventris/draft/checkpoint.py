"""Checkpoints of trained parts: a folder with ``model.safetensors``, ``config.json`` and ``README.md``.

Nothing is unpickled. ``config.json`` names the method, the target (see :class:`TargetSketch`), the sizes of
the network and what was measured on held-out text; a checkpoint of another target or of another shape is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.engine.target import Target
from ventris.models.checkpoint_writing import write_json, write_tensors

if TYPE_CHECKING:
    from ventris.model import Model

Network = TypeVar("Network", bound=nn.Module)

FORMAT = 1
"""Raised when the meaning of a field changes."""

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints"
"""Where the checkpoints lie that come with Ventris."""


@dataclass(frozen=True, slots=True)
class HeadCheckpoint:
    """What was trained, for which target, and how well it does.

    Attributes:
        method: ``"medusa"``, ``"hydra"``, …
        sizes: What the method's network is built from.
        measured: Acceptance on held-out text, in the form that the method's tree is made from.
        tensors: The trained weights, and what the network reads of the target's head.
        training: How it was made, for people.
    """

    method: str
    target: TargetSketch
    sizes: Mapping[str, Any]
    measured: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the folder; a reader sees a complete checkpoint or none."""
        config = {
            "format": FORMAT,
            "method": self.method,
            "target": self.target.stored(),
            "sizes": dict(self.sizes),
            "measured": dict(self.measured),
            "training": dict(self.training),
        }
        write_tensors(folder / "model.safetensors", self.tensors)
        # Last, because without a config.json a folder is no checkpoint.
        write_json(folder / "config.json", config)

    @classmethod
    def load(cls, folder: Path, method: str) -> HeadCheckpoint:
        """Read a folder.

        Raises:
            BadInput: if it is no checkpoint of this method, or damaged.
        """
        config = read_config(folder)
        if config["method"] != method:
            raise BadInput(f"{folder} holds a {config['method']!r} checkpoint, not one of {method!r}")
        try:
            tensors = load_file(folder / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise BadInput(f"cannot read {folder / 'model.safetensors'}: {error}") from None
        return cls(
            method,
            TargetSketch.read(config["target"]),
            config["sizes"],
            config["measured"],
            tensors,
            config["training"],
        )

    def network(self, kind: Callable[..., Network], *first: Any) -> Network:
        """The network, made with the stored sizes and filled with the tensors.

        Args:
            kind: Takes the sizes by name, behind ``first``.

        Raises:
            BadInput: if the sizes make none, or the tensors are not its own.
        """
        try:
            network = kind(*first, **self.sizes)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            cause = str(error).partition("\n")[0]
            raise BadInput(
                f"the sizes of this {self.method} checkpoint make no network: {cause}; it is damaged"
            ) from None
        self._fill(network)
        return network

    def _fill(self, network: nn.Module) -> None:
        """Load the tensors into the network they belong to; every one must be there and fit.

        Raises:
            BadInput: naming the first tensor that is missing, left over, or of another shape.
        """
        expected = network.state_dict()
        for name in sorted(expected.keys() ^ self.tensors.keys()):
            fault = "is missing from" if name in expected else "does not belong in"
            raise BadInput(f"the tensor {name} {fault} this {self.method} checkpoint; it is damaged")
        for name, tensor in expected.items():
            if tensor.shape != self.tensors[name].shape:
                raise BadInput(
                    f"the tensor {name} of this {self.method} checkpoint has the shape "
                    f"{list(self.tensors[name].shape)} in place of {list(tensor.shape)}"
                )
        network.load_state_dict({name: self.tensors[name].to(t.dtype) for name, t in expected.items()})


def read_config(folder: Path) -> dict[str, Any]:
    """The checked ``config.json`` of a checkpoint.

    Raises:
        BadInput: if there is none, or it is not one of ours.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        wanted = {"format", "method", "target", "sizes", "measured", "training"}
        if not isinstance(config, dict) or not wanted <= config.keys():
            raise ValueError("it does not describe a drafter")
        if config["format"] != FORMAT:
            raise ValueError(f"it has format {config['format']}, this Ventris reads format {FORMAT}")
        TargetSketch.read(config["target"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{folder} is no checkpoint of a drafter: {error}") from None
    return config


class CheckpointOptions(BaseModel):
    """The option that all trained parts have."""

    checkpoint: str | None = Field(None, description="folder; the one shipped for the target if not given")


def open_checkpoint(
    method: str, model: Model | Target, named: str | Path | None = None
) -> tuple[Target, HeadCheckpoint]:
    """The target of a model, and what was trained for it: the folder named, or what is shipped.

    Raises:
        BadInput: if there is none, or it belongs to another target.
    """
    target = cast(Target, getattr(model, "target", model))
    tokenizer = getattr(getattr(model, "tokenizer", None), "fingerprint", "")
    folder = find_checkpoint(method, target, None if named is None else str(named))
    stored = HeadCheckpoint.load(folder, method)
    stored.target.check(target, f"the {method} checkpoint {folder}", tokenizer)
    return target, stored


def find_checkpoint(method: str, target: Target, named: str | None = None) -> Path:
    """The folder to load: the one named, or the one shipped for this target.

    A tuned target may hold its heads, in a folder that has the name of the method; naming the target's folder
    is enough then.

    Shipped ones lie in ``checkpoints/<method>-<target>/`` inside the package. They are recognised by their
    sketch of the target, so its name does not matter.

    Raises:
        BadInput: if there is none.
    """
    if named:
        folder = Path(named).expanduser()
        return folder / method if (folder / method / "config.json").is_file() else folder
    for config in sorted(SHIPPED.glob(f"{method}-*/config.json")):
        folder = config.parent
        if not TargetSketch.read(read_config(folder)["target"]).mismatch(target):
            return folder
    raise BadInput(
        f"no {method} checkpoint comes with Ventris for this target; train one with "
        f"'ventris train {method}' and give its folder, as {method}:FOLDER"
    )
