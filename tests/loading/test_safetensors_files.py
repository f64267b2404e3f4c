"""Weights from safetensors: lazily, by one set of names, and never from a pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_models import decoder_tensors, write_folder
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig
from ventris.models.hf_config import read_folder_config
from ventris.models.safetensors_files import SafetensorsWeights, weight_files
from ventris.models.weights import dense


def open_folder(folder: Path) -> SafetensorsWeights:
    config = read_folder_config(folder)
    assert isinstance(config, DecoderConfig)
    return SafetensorsWeights(folder, config)


def check(weights: SafetensorsWeights, original: dict[str, Tensor]) -> None:
    assert set(weights) == set(original)
    for name, tensor in original.items():
        assert torch.equal(dense(weights[name]), tensor), name


def test_a_single_file(tmp_path: Path) -> None:
    check(open_folder(write_folder(tmp_path / "m")), decoder_tensors())


def test_types_are_kept(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in decoder_tensors().items()}
    weight = open_folder(write_folder(tmp_path / "m", halves))["model.norm.weight"]
    assert isinstance(weight, Tensor)
    assert weight.dtype == torch.bfloat16


def shard(folder: Path) -> Path:
    """Spread the weights over two files."""
    (folder / "model.safetensors").unlink()
    tensors = decoder_tensors()
    names = list(tensors)
    index = {}
    for number, part in enumerate((names[:7], names[7:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_shards(tmp_path: Path) -> None:
    check(open_folder(shard(write_folder(tmp_path / "m"))), decoder_tensors())


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_names_inside_a_model_of_images(tmp_path: Path, prefix: str) -> None:
    original = decoder_tensors()
    renamed = {prefix + name.removeprefix("model."): tensor for name, tensor in original.items()}
    check(open_folder(write_folder(tmp_path / "m", renamed)), original)


def test_fused_matrices_are_split(tmp_path: Path) -> None:
    original = decoder_tensors()
    fused = dict(original)
    for layer in range(2):
        name = f"model.layers.{layer}."
        parts = [fused.pop(f"{name}self_attn.{part}_proj.weight") for part in "qkv"]
        fused[f"{name}self_attn.qkv_proj.weight"] = torch.cat(parts)
        halves = [fused.pop(f"{name}mlp.{part}_proj.weight") for part in ("gate", "up")]
        fused[f"{name}mlp.gate_up_proj.weight"] = torch.cat(halves)
    check(open_folder(write_folder(tmp_path / "m", fused, model_type="phi3")), original)


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pickle.*save_pretrained"):
        open_folder(folder)


def test_no_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="neither"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "cannot read"),
        ("{}", "no weight_map"),
        ('{"weight_map": {"w": "../../etc/secret.safetensors"}}', "beside it"),
        ('{"weight_map": {"w": "model.bin"}}', "no safetensors file"),
        ('{"weight_map": {"w": 3}}', "no safetensors file"),
        ('{"weight_map": {"w": "model-00002-of-00002.safetensors"}}', "lacks"),
    ],
)
def test_broken_indexes(tmp_path: Path, index: str, message: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BadInput, match=message):
        weight_files(tmp_path)


def test_missing_and_misshapen_weights(tmp_path: Path) -> None:
    tensors = decoder_tensors()
    tensors.pop("model.norm.weight")
    with pytest.raises(BadInput, match=r"model\.norm\.weight is missing"):
        open_folder(write_folder(tmp_path / "missing", tensors))
    with pytest.raises(BadInput, match="has the shape"):
        open_folder(write_folder(tmp_path / "shape", intermediate_size=97))


def test_types_that_are_no_numbers_for_us(tmp_path: Path) -> None:
    tensors = {name: tensor.to(torch.int8) for name, tensor in decoder_tensors().items()}
    weights = open_folder(write_folder(tmp_path / "m", tensors))
    with pytest.raises(BadInput, match=r"int8.*GGUF"):
        weights["model.norm.weight"]


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_files(tmp_path: Path, keep: int) -> None:
    folder = write_folder(tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        open_folder(folder)


def test_noise(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"\xff" * 1000)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        open_folder(folder)
