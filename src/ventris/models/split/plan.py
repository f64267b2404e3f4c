"""Which layers go to which of two processes, and whether both have the same model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from math import prod

import torch

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig
from ventris.models.source import ModelSource
from ventris.models.split.rendezvous import Address
from ventris.models.weight_names import weight_shapes
from ventris.models.weights import dense

START_SECONDS = 600.0
"""How long the first process waits until the second one has read its weights, by default."""

PASS_SECONDS = 300.0
"""How long it waits for one pass, by default. A process that ends is noticed at once."""


@dataclass(frozen=True, slots=True)
class Split:
    """That a model is to be split, and how.

    Attributes:
        address: Where to wait for ``ventris stage``; ``None`` starts the second process on this machine.
        second_layers: Layers of the second process; ``None`` for as many as make both hold the same bytes.
        start_seconds: Longest wait until the second process is ready.
        pass_seconds: Longest wait for a pass.
    """

    address: Address | None = None
    second_layers: int | None = None
    start_seconds: float = START_SECONDS
    pass_seconds: float = PASS_SECONDS


def read_split(stages: int, rendezvous: str | None, second_layers: int | None) -> Split | None:
    """The settings of a split as :func:`ventris.load` takes them; ``None`` for one process.

    Raises:
        BadInput: naming the setting that is wrong.
    """
    if stages not in (1, 2):
        raise BadInput(f"stages must be 1 or 2, not {stages}")
    if stages == 1:
        for name, value in (("rendezvous", rendezvous), ("second_layers", second_layers)):
            if value is not None:
                raise BadInput(f"{name} belongs to a model in two processes; add stages=2 (--stages 2)")
        return None
    return Split(None if rendezvous is None else Address.read(rendezvous), second_layers)


def layers_before_cut(config: DecoderConfig, second_layers: int | None) -> int:
    """Layers of the first process.

    It also holds the embedding and the head, so by default it has fewer layers: as many as make the larger
    share of the weights smallest.

    Raises:
        BadInput: if the layers cannot be divided so.
    """
    count = config.num_layers
    if count < 2:
        raise BadInput("a model of one layer cannot be split; leave out stages")
    if second_layers is not None:
        if not 1 <= second_layers < count:
            raise BadInput(
                f"second_layers must be 1 to {count - 1} for a model of {count} layers, not {second_layers}"
            )
        return count - second_layers
    sizes = {name: prod(shape) for name, shape in weight_shapes(config).items()}
    layer = sum(size for name, size in sizes.items() if name.startswith("model.layers.0."))
    ends = sum(size for name, size in sizes.items() if not name.startswith("model.layers."))
    return min(range(1, count), key=lambda first: max(ends + first * layer, (count - first) * layer))


def same_model_digest(source: ModelSource) -> str:
    """A hash that two copies of a checkpoint share, whatever the time of their files.

    Of the configuration, all norms before attention, and the values' matrix of the last layer.

    Raises:
        BadInput: if the checkpoint is damaged.
    """
    config = source.config
    assert config is not None
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    names = [f"model.layers.{index}.input_layernorm.weight" for index in range(config.num_layers)]
    for name in (*names, f"model.layers.{config.num_layers - 1}.self_attn.v_proj.weight"):
        digest.update(dense(source.weights[name], torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def gpu_name(device: torch.device) -> str | None:
    """The GPU of a device by a name that is its own in the whole world; ``None`` for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
