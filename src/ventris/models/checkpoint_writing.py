"""The files of a checkpoint, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ventris.models.cache_folder import written_whole


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file, every tensor with the dtype that it has."""
    stored = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    with written_whole(path) as temporary:
        # Not save_file: its files can be read by their owner alone.
        temporary.write_bytes(save(stored, {"format": "pt"}))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(dict(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
