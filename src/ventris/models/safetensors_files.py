"""Weights of a transformers folder: one or several safetensors files, read lazily. Never a pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig
from ventris.models.hf_config import read_json
from ventris.models.weight_names import Shape, weight_shapes
from ventris.models.weights import Weight

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PREFIXES = (("", ""), ("model.", "model.language_model."), ("", "language_model."))
"""How a text model's names are changed inside a model for images and text, old and new way."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor for a sharded checkpoint, ``{"": file}`` for a single file.

    Raises:
        BadInput: if there are no safetensors, or the index is damaged or names files elsewhere.
    """
    if (folder / SINGLE).is_file():
        return {"": folder / SINGLE}
    if not (folder / INDEX).is_file():
        if any(found for pattern in _PICKLES for found in folder.glob(pattern)):
            raise BadInput(
                f"{folder} has its weights as a pickle, which can run any code when it is read; if you trust "
                "it, convert it with AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
            )
        raise BadInput(f"{folder} has neither {SINGLE} nor {INDEX}; download the whole checkpoint")
    index = read_json(folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise BadInput(f"{folder / INDEX} has no weight_map; download the file again")
    for file in index.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise BadInput(f"{folder / INDEX} names {file!r}, which is no safetensors file beside it")
        if not (folder / file).is_file():
            raise BadInput(f"{folder} lacks {file}; download the whole checkpoint")
    return {name: folder / file for name, file in index.items()}


class SafetensorsWeights(Mapping[str, Weight]):
    """Weights by name; each is read from its file when it is looked up. Phi-3's fused matrices are split.

    Raises:
        BadInput: if a file is damaged, or a weight is missing or of another shape than ``config`` demands.
    """

    def __init__(self, folder: Path, config: DecoderConfig) -> None:
        self.folder = folder
        self._shapes = weight_shapes(config)
        self._files: dict[Path, Any] = {}
        self._place: dict[str, Path] = {}
        for name, file in weight_files(folder).items():
            if name:
                self._place[name] = file
            else:
                self._place = dict.fromkeys(self._open(file).keys(), file)
        embedding = "model.embed_tokens.weight"
        old, new = next((pair for pair in _PREFIXES if _renamed(embedding, *pair) in self._place), ("", ""))
        self._stored: dict[str, tuple[str, slice]] = {}
        for name, shape in self._shapes.items():
            self._stored[name] = self._find(name, shape, config, old, new)

    def __getitem__(self, name: str) -> Weight:
        stored, rows = self._stored[name]
        try:
            tensor: Tensor = self._slice(stored)[rows]
        except (SafetensorError, OSError, RuntimeError) as error:
            self._fail(f"{stored} cannot be read ({error})")
        if tensor.dtype not in _DTYPES:
            raise BadInput(
                f"{self.folder} stores {stored} as {tensor.dtype}; use a checkpoint in bfloat16, float16 or "
                "float32, or a GGUF file"
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def _fail(self, what: str) -> NoReturn:
        raise BadInput(f"the checkpoint in {self.folder} is damaged: {what}; download it again")

    def _open(self, file: Path) -> Any:
        if file not in self._files:
            try:
                self._files[file] = safe_open(file, framework="pt")
            except (SafetensorError, OSError, ValueError) as error:
                self._fail(f"{file.name} is no sound safetensors file ({error})")
        return self._files[file]

    def _slice(self, stored: str) -> Any:
        return self._open(self._place[stored]).get_slice(stored)

    def _find(self, name: str, shape: Shape, config: DecoderConfig, old: str, new: str) -> tuple[str, slice]:
        """Name and rows under which a weight is stored, once its shape has been checked."""
        stored, first, full = _renamed(name, old, new), 0, shape
        if stored not in self._place and (fused := _fused(name, config)):
            stored, first, rows = fused
            full = (rows, *shape[1:])
        if stored not in self._place:
            self._fail(f"{stored} is missing")
        try:
            found = tuple(self._slice(stored).get_shape())
        except (SafetensorError, OSError) as error:
            self._fail(f"{stored} cannot be read ({error})")
        if found != full:
            self._fail(f"{stored} has the shape {found} in place of {full}")
        return stored, slice(first, first + shape[0])


def _renamed(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name


def _fused(name: str, config: DecoderConfig) -> tuple[str, int, int] | None:
    """Phi-3: the matrix that holds the weight, its first row there, and the rows of the whole."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    inner = config.intermediate_size
    places = {
        "q_proj": ("qkv_proj", 0, queries + 2 * keys),
        "k_proj": ("qkv_proj", queries, queries + 2 * keys),
        "v_proj": ("qkv_proj", queries + keys, queries + 2 * keys),
        "gate_proj": ("gate_up_proj", 0, 2 * inner),
        "up_proj": ("gate_up_proj", inner, 2 * inner),
    }
    for part, (whole, first, rows) in places.items():
        if f".{part}." in name:
            return name.replace(part, whole), first, rows
    return None
