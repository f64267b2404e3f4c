"""Writing a checkpoint of another engine: a folder with ``config.json`` and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.checkpoint_writing import write_json, write_tensors


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the folder; weights become bfloat16, whole numbers stay.

    Raises:
        BadInput: if the folder holds a checkpoint already.
    """
    require_free(folder)
    stored = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    write_tensors(folder / "model.safetensors", stored)
    write_json(folder / "config.json", config)


def require_free(folder: Path) -> None:
    """Refuse a folder whose files would mix with new ones.

    Raises:
        BadInput: if the folder holds a checkpoint already, or part of one.
    """
    if (folder / "config.json").exists() or any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder} holds a checkpoint already; choose another folder, or remove it")
