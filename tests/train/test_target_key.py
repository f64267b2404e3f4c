"""The training cache never takes one target for another, and finds what earlier versions wrote in it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import ventris
from ventris.draft.target_sketch import TargetSketch
from ventris.models.embedded import EMBEDDED_NAME
from ventris.models.source import resolve
from ventris.models.weights import quantize
from ventris.train import run as training
from ventris.train.judge_examples import prepare_examples
from ventris.train.judge_settings import JudgeSettings
from ventris.train.run import prepare, texts_folder
from ventris.train.settings import MedusaSettings, read_settings
from ventris.train.target_key import TargetKey, weights_digest
from ventris.train.windows import Text


@pytest.fixture
def tuned_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a low-rank change of one matrix; all that a sketch sees is as it was."""
    folder = shutil.copytree(tiny_folder, tmp_path / "tuned")
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(5)
    changed = weights["model.layers.0.mlp.down_proj.weight"]
    rows, columns = changed.shape
    changed += torch.randn(rows, 1, generator=generator) @ torch.randn(1, columns, generator=generator)
    save_file(weights, folder / "model.safetensors")
    return folder


def answered(texts: list[Text]) -> dict[tuple[int, ...], list[int]]:
    """Answers by prompt, of the texts that have a prompt."""
    asked = [text for text in texts if not text.answer.all()]
    return {tuple(text.tokens[~text.answer].tolist()): text.tokens[text.answer].tolist() for text in asked}


def test_two_models_of_one_embedding_share_no_texts(given, tuned_folder):
    original = prepare(read_settings(MedusaSettings, given))
    own = {"model": str(tuned_folder), "out": given["out"] + "-tuned"}
    tuned = prepare(read_settings(MedusaSettings, {**given, **own}))
    assert tuned.sketch == original.sketch
    model = ventris.load(str(tuned_folder), device="cpu", threads=1)
    texts = answered(tuned.held_out)
    said = model.generate([list(prompt) for prompt in texts], max_new_tokens=24)
    assert list(texts.values()) == [done.tokens for done in said]
    assert texts != answered(original.held_out)


def test_two_models_of_one_embedding_share_no_labelled_rows(given, tiny_folder, tuned_folder):
    settings = read_settings(
        JudgeSettings, {"out": given["out"], "cache": given["cache"], "tasks": 4, "max_new_tokens": 8}
    )
    original, tuned = (
        prepare_examples(ventris.load(str(folder), "float32", "torch", "cpu"), settings)
        for folder in (tiny_folder, tuned_folder)
    )
    assert not torch.equal(original.rows, tuned.rows)


def test_a_copy_elsewhere_is_the_same_target(tiny_folder, tmp_path):
    copy = shutil.copytree(tiny_folder, tmp_path / "copy")
    os.utime(copy / "model.safetensors", (1, 1))
    keys = []
    for folder in (tiny_folder, copy):
        model = ventris.load(str(folder), "float32", "torch", "cpu")
        keys.append(TargetKey.of(model, TargetSketch.of(model.target)))
    assert keys[0] == keys[1]


def test_every_weight_counts_whatever_it_is_stored_as(tiny_folder):
    source = resolve(tiny_folder)
    weights = {name: source.weights[name] for name in source.weights}
    weights["blocks"] = quantize(torch.linspace(-1, 1, 40 * 32).view(40, 32), 4)
    found = {weights_digest(weights), weights_digest({name: weights[name] for name in list(weights)[1:]})}
    for name, weight in weights.items():
        changed = replace(weight, scales=weight.scales * 2) if name == "blocks" else weight * 1.01
        found.add(weights_digest({**weights, name: changed}))
    assert len(found) == len(weights) + 2


def test_texts_of_the_embedded_model_are_found_where_they_were(given, monkeypatch):
    """The folder of a run that was made before weights counted."""
    sketch = SimpleNamespace(digest="422699961fb62ccf")
    model = SimpleNamespace(
        source=SimpleNamespace(name=EMBEDDED_NAME),
        target=SimpleNamespace(dtype="int4-a8", kernel="avx512-vnni-bf16"),
    )
    monkeypatch.setattr(training, "prompts_digest", lambda prompts: "c1449f7f5b469e91")
    settings = read_settings(
        MedusaSettings, {"data": "x", "out": "y", "cache": given["cache"], "temperatures": [0.0, 0.7]}
    )
    folder = texts_folder(TargetKey.of(model, sketch), settings, [])
    assert folder == Path(given["cache"]) / "85fa60d65ed778bc"
