"""Writing a checkpoint of another engine: a folder with ``config.json`` and safetensors."""

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
    require_free(folder)
    write_tensors(folder / "model.safetensors", tensors)
    write_json(folder / "config.json", config)


def require_free(folder: Path) -> None:
    """Refuse a folder whose files would mix with new ones.

    Raises:
        BadInput: if the folder holds a checkpoint already, or part of one.
    """
    if (folder / "config.json").exists() or any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder} holds a checkpoint already; choose another folder, or remove it")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; weights become bfloat16, whole numbers stay."""
    stored = {
        name: (tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in tensors.items()
    }
    with written_whole(path) as temporary:
        # Not save_file: its files can be read by their owner alone.
        temporary.write_bytes(save(stored, {"format": "pt"}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(dict(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
