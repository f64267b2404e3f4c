"""Names become sources: what is found, what is refused, and what a second start need not read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import VOCAB, decoder_tensors, write_folder, write_gguf

from ventris.engine.errors import BadInput
from ventris.models import gguf, hub
from ventris.models.source import resolve
from ventris.models.weights import dense


def test_a_gguf_file(tmp_path: Path) -> None:
    found = resolve(write_gguf(tmp_path / "m.gguf", kind="Q4_0"))
    assert (found.kind, found.bits, found.name) == ("gguf", 4, str(tmp_path / "m.gguf"))
    assert found.config is not None
    assert found.config.vocab_size == VOCAB
    assert found.tokenizer.encode("hello") == [262]
    assert found.weights["model.norm.weight"].shape == (64,)


def test_a_folder(tmp_path: Path) -> None:
    found = resolve(str(write_folder(tmp_path / "m")))
    assert (found.kind, found.bits) == ("safetensors", 16)
    assert found.tokenizer.eos_ids == (2,)
    assert torch.equal(dense(found.weights["model.norm.weight"]), decoder_tensors()["model.norm.weight"])


def test_a_folder_for_transformers_only(tmp_path: Path) -> None:
    found = resolve(write_folder(tmp_path / "m", model_type="gpt2"))
    assert found.kind == "transformers"
    assert found.config is None
    assert found.tokenizer.encode("hello") == [262]
    with pytest.raises(BadInput, match="only be run by transformers"):
        _ = found.weights


def test_both_kinds_have_one_tokenizer(tmp_path: Path) -> None:
    first, second = resolve(write_gguf(tmp_path / "m.gguf")), resolve(write_folder(tmp_path / "m"))
    assert first.tokenizer.fingerprint == second.tokenizer.fingerprint


@pytest.mark.parametrize(
    "name", ["none.gguf", "./none", "/none/at/all", "two words", "../up", "", "a/b/c", "~/none.gguf"]
)
def test_names_of_nothing(name: str) -> None:
    with pytest.raises(BadInput, match="smollm2-135m-instruct"):
        resolve(name)


def test_a_slip_in_the_embedded_name_is_not_sought_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ventris.models.hub.fetch", lambda *_: pytest.fail("asked the hub"))
    for name in ("smollm2-135m-instrct", "SmolLM2-135m-instruct", "smollm-135m-instruct"):
        with pytest.raises(BadInput, match="did you mean 'smollm2-135m-instruct'"):
            resolve(name)


def test_other_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(BadInput, match=r"neither a \.gguf file nor a folder"):
        resolve(tmp_path / "model.bin")
    with pytest.raises(BadInput, match=r"no config\.json"):
        resolve(tmp_path)


def test_offline_hub_ids_that_are_not_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="cannot fetch nobody/nothing") as caught:
        resolve("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_cached_hub_ids_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "snapshot")
    asked: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert resolve("org/model").config is not None
    assert [options["local_files_only"] for options in asked] == [True]


def test_a_half_cached_hub_id_is_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    half, whole = write_folder(tmp_path / "half"), write_folder(tmp_path / "whole")
    (half / "model.safetensors").unlink()
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, local_files_only=False, **_: str(half if local_files_only else whole),
    )
    told: list[str] = []
    assert hub.fetch("org/model", lambda what, share: told.append(what)) == whole
    assert told == ["downloading org/model from the hub"]


@pytest.mark.parametrize("error", ["RepositoryNotFoundError", "GatedRepoError", "HFValidationError"])
def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch, error: str) -> None:
    import huggingface_hub.errors

    kind = getattr(huggingface_hub.errors, error)

    def snapshot_download(repository: str, local_files_only: bool = False, **_: Any) -> str:
        if local_files_only and error != "HFValidationError":
            raise FileNotFoundError
        raise kind.__new__(kind)  # the constructors of these errors want a whole HTTP response

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(BadInput, match="org/model"):
        resolve("org/model")


def test_the_fingerprint_does_not_depend_on_the_path(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    copy = shutil.copy2(path, tmp_path / "copy.gguf")
    assert resolve(path).fingerprint == resolve(copy).fingerprint
    os.utime(copy, ns=(1, 1))
    assert resolve(path).fingerprint != resolve(copy).fingerprint


def test_a_second_start_reads_no_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    first = resolve(path)
    config, fingerprint, facts = first.config, first.tokenizer.fingerprint, first.tokenizer.facts

    def refuse(*_: object) -> None:
        raise AssertionError("the GGUF file was opened")

    monkeypatch.setattr(gguf.GgufFile, "__init__", refuse)
    second = resolve(path)
    assert second.config == config
    assert second.tokenizer.fingerprint == fingerprint
    assert second.tokenizer.facts == facts


def test_a_damaged_cache_is_made_anew(tmp_path: Path, own_cache: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    assert resolve(path).config is not None
    for content in (b"", b"{}", b"[1]", b"\xff"):
        for file in own_cache.rglob("*.json"):
            file.write_bytes(content)
        assert resolve(path).tokenizer.encode("hello") == [262]


def test_a_cache_that_cannot_be_written_is_only_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path / "file"))
    assert resolve(write_gguf(tmp_path / "m.gguf")).tokenizer.encode("hello") == [262]
    assert "cannot keep the tokenizer" in caplog.text


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="use the tokenizer that belongs to the model"):
        _ = resolve(write_folder(tmp_path / "m", vocab_size=VOCAB - 10)).config


def test_parts_of_a_split_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", edit=lambda writer: writer.add_uint16("split.count", 3))
    with pytest.raises(BadInput, match="one part of several"):
        _ = resolve(path).config


def test_modules_that_a_start_does_not_need_are_not_imported() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import ventris.models.load; "
        "print([m for m in ('transformers', 'gguf', 'huggingface_hub') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
