"""Writing a checkpoint of another engine: a folder with ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the folder; weights become bfloat16, whole numbers stay.

    Raises:
        BadInput: if the folder holds a checkpoint already.
    """
    if (folder / "config.json").exists():
        raise BadInput(f"{folder} holds a checkpoint already; choose another folder, or remove it")
    stored = {
        name: (tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in tensors.items()
    }
    with written_whole(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(stored, {"format": "pt"}))
    with written_whole(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(dict(config), indent=1) + "\n", encoding="utf-8")
