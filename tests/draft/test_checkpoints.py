"""Checkpoints: what is written is read back, and what does not belong is refused with one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import random_heads
import torch

from ventris.draft import checkpoint
from ventris.draft.checkpoint import HeadCheckpoint, find_checkpoint
from ventris.draft.hydra import Hydra
from ventris.draft.medusa import Medusa
from ventris.draft.target_sketch import TargetSketch, embedding_rows
from ventris.engine.errors import BadInput
from ventris.parts import Workshop, build_drafter
from ventris.testing.checks import run
from ventris.verify.match import Greedy


def write(folder: Path, target, rows: str = "tied") -> Path:
    network = random_heads.medusa_heads(target, rows)
    measured = {"accuracies": random_heads.ACCURACIES}
    HeadCheckpoint("medusa", TargetSketch.of(target), network.sizes, measured, network.state_dict()).save(
        folder
    )
    return folder


@pytest.mark.parametrize("rows", ["tied", "stored", "own"])
def test_a_checkpoint_drafts_as_the_network_it_was_made_from(tmp_path, rows):
    target = random_heads.tiny_target()
    write(tmp_path, target, rows)
    loaded = Medusa.load(target, tmp_path)
    made = random_heads.medusa(target, random_heads.medusa_heads(target, rows))
    for one, other in zip(run(target, Greedy(), loaded), run(target, Greedy(), made), strict=True):
        assert one.stats.accepted_by_depth == other.stats.accepted_by_depth
        assert one.tokens == other.tokens


def test_a_tied_checkpoint_does_not_hold_the_vocabulary(tmp_path):
    target = random_heads.tiny_target()
    stored = HeadCheckpoint.load(write(tmp_path, target), "medusa")
    assert "vocabulary.rows" not in stored.tensors
    assert stored.tensors["vocabulary.ids"].dtype == torch.int32


def test_another_target_is_refused(tmp_path):
    write(tmp_path, random_heads.tiny_target("smollm"))
    with pytest.raises(BadInput, match="trained for another target: this one has other weights"):
        Medusa.load(random_heads.tiny_target(seed=1), tmp_path)


def test_another_size_is_refused():
    sketch = TargetSketch.of(random_heads.tiny_target())
    assert sketch.difference(sketch) == ""
    assert sketch.difference(replace(sketch, num_layers=9)) == "num layers 9 in place of 4"
    one, other = replace(sketch, tokenizer="a"), replace(sketch, tokenizer="b")
    assert one.difference(other) == "another tokenizer"
    assert one.difference(sketch) == ""  # a target without tokenizer is told by its embedding


def test_the_number_format_does_not_make_another_target(tmp_path):
    write(tmp_path, random_heads.tiny_target())
    Medusa.load(random_heads.tiny_target("smollm", torch.bfloat16), tmp_path)
    Medusa.load(random_heads.tiny_target("smollm", torch.float64), tmp_path)


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    target = random_heads.tiny_target()
    with pytest.raises(BadInput, match="holds a 'medusa' checkpoint, not one of 'hydra'"):
        Hydra.load(target, write(tmp_path, target))


def test_missing_and_damaged_files_are_told(tmp_path):
    target = random_heads.tiny_target()
    with pytest.raises(BadInput, match="is no checkpoint of a drafter"):
        Medusa.load(target, tmp_path / "nowhere")
    write(tmp_path, target)
    stored = HeadCheckpoint.load(tmp_path, "medusa")
    tensors = {name: t for name, t in stored.tensors.items() if name != "bias"}
    replace(stored, tensors=tensors).save(tmp_path)
    with pytest.raises(BadInput, match="the tensor bias is missing"):
        Medusa.load(target, tmp_path)
    replace(stored, tensors={**stored.tensors, "bias": torch.zeros(2)}).save(tmp_path)
    with pytest.raises(BadInput, match=r"the tensor bias .* has the shape \[2\]"):
        Medusa.load(target, tmp_path)
    for sizes in ({}, {**stored.sizes, "heads": "three"}, {**stored.sizes, "hidden": -4}):
        replace(stored, sizes=sizes).save(tmp_path)
        with pytest.raises(
            BadInput, match=r"sizes of this medusa checkpoint make no network: .+; it is damaged"
        ):
            Medusa.load(target, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(BadInput, match="cannot read"):
        Medusa.load(target, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(BadInput, match="format 99"):
        Medusa.load(target, tmp_path)


def test_a_shipped_checkpoint_is_found_by_its_target(tmp_path, monkeypatch):
    target = random_heads.tiny_target()
    write(tmp_path / "checkpoints" / "medusa-any-name", target)
    write(tmp_path / "checkpoints" / "medusa-another", random_heads.tiny_target(seed=1), "stored")
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "checkpoints")
    assert find_checkpoint("medusa", target).name == "medusa-any-name"
    assert build_drafter("medusa", Workshop(target)).taps == (target.num_layers,)
    with pytest.raises(BadInput, match="no hydra checkpoint comes with Ventris for this target; train one"):
        find_checkpoint("hydra", target)


def test_a_preview_needs_no_checkpoint():
    for name in ("medusa", "hydra:nodes=8", "medusa:somewhere,tree=dynamic"):
        assert build_drafter(name, Workshop()).shape == "tree"


def test_embedding_rows_are_what_the_first_layer_reads():
    target = random_heads.tiny_target("gemma2")
    tokens = list(range(96)) * 4
    assert torch.equal(embedding_rows(target, tokens), target.embed_tokens(torch.tensor(tokens)).float())
