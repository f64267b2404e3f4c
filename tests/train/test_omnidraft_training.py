"""A draft model with a vocabulary of its own, made from a tiny target's answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import ventris
from ventris.engine.errors import BadInput
from ventris.models.source import resolve
from ventris.train.omnidraft import train_omnidraft
from ventris.train.settings import OmniDraftSettings, read_settings


@pytest.fixture
def asked(given, tmp_path) -> dict[str, object]:
    """Settings of a run that takes a second."""
    kept = {key: value for key, value in given.items() if key not in ("heads", "shortlist", "positions")}
    shape = {"vocabulary": 300, "layers": 1, "hidden": 32, "context_length": 256, "steps": 30}
    return {**kept, **shape, "out": str(tmp_path / "draft"), "max_new_tokens": 12}


def make(asked: dict[str, object], **changes: object) -> OmniDraftSettings:
    return read_settings(OmniDraftSettings, {**asked, **changes})


def test_it_makes_a_model_that_drafts_for_the_target_it_learnt_from(asked, tiny_folder):
    trained = train_omnidraft(make(asked))
    assert 0 < trained.acceptance[0] <= 1
    folder = Path(str(asked["out"]))
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    source = resolve(folder)
    model = ventris.load(str(tiny_folder), "float32", "torch", "cpu", threads=1)
    assert source.config is not None
    assert source.config.vocab_size == source.tokenizer.vocab_size <= 300
    assert source.tokenizer.fingerprint != model.tokenizer.fingerprint
    # All bytes can be spelled, and what the target has by a name of its own has that name here.
    assert {bytes([byte]) for byte in range(256)} <= set(source.tokenizer.vocabulary_bytes)
    ours, theirs = ({t.token_bytes(id) for id in t.special_ids} for t in (source.tokenizer, model.tokenizer))
    assert ours == theirs
    draft = f'omnidraft:"{folder}",memory=none,learn=off'
    plain = model.generate("say 3", max_new_tokens=16)
    drafted = model.generate("say 3", max_new_tokens=16, draft=draft, policy="fixed")
    assert drafted.tokens == plain.tokens
    assert drafted.stats.drafted > 0
    with pytest.raises(BadInput, match="holds a finished checkpoint; choose another --out"):
        train_omnidraft(make(asked))


def test_a_run_that_was_killed_goes_on_to_the_same_weights(asked, tmp_path, monkeypatch):
    train_omnidraft(make(asked, out=str(tmp_path / "whole")))

    def killed(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done == 20:
            raise KeyboardInterrupt

    broken = make(asked, out=str(tmp_path / "broken"))
    with pytest.raises(KeyboardInterrupt):
        train_omnidraft(broken, killed)
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    train_omnidraft(broken)
    whole, again = (resolve(tmp_path / name).weights for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    begun = make(asked, out=str(tmp_path / "begun"))
    with pytest.raises(KeyboardInterrupt):
        train_omnidraft(begun, killed)
    with pytest.raises(BadInput, match="belongs to a run with layers = 1, not 2"):
        train_omnidraft(make(asked, out=str(tmp_path / "begun"), layers=2))


def test_a_folder_that_holds_a_model_is_left_as_it_is(asked, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "taken")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(BadInput, match="holds a finished checkpoint; choose another --out"):
        train_omnidraft(make(asked, out=str(folder)))
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_run_that_was_killed_has_no_model_yet(asked):
    def killed(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_omnidraft(make(asked), killed)
    assert [file.name for file in Path(str(asked["out"])).iterdir()] == ["run"]


def test_windows_are_no_longer_than_the_context(asked, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{number} words " * 30}) for number in range(12)))
    train_omnidraft(make(asked, data=str(path), context_length=64, window=512, vocabulary=300))
    source = resolve(Path(str(asked["out"])))
    assert source.config is not None
    assert source.config.context_length == 64
