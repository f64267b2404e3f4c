"""A model as a transformers folder: transformers and Ventris read the same model from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
import torch
import transformers
import typer
from saved_models import MODELS, saved_model
from tiny_models import (
    MERGES,
    SIZES,
    VOCAB,
    add_vocabulary,
    decoder_tensors,
    gguf_tensors,
    tokenizer_json,
    write_folder,
    write_gguf,
)
from typer.testing import CliRunner

from ventris.cli import export
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows
from ventris.export.target import export_target
from ventris.models import target_folder
from ventris.models.source import resolve
from ventris.models.target_folder import target_config, write_target_folder
from ventris.models.tokenizer import Tokenizer
from ventris.models.torch_decoder import TorchDecoder

TOKENS = torch.randint(0, VOCAB, (24,), generator=torch.Generator().manual_seed(1)).tolist()
WRITTEN = [name for name in MODELS if not name.startswith(("gemma", "phi3"))]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENTRIS_CACHE", str(tmp_path / "cache"))


def by_transformers(folder: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([TOKENS]), use_cache=False).logits[0]


def by_ventris(model: Path) -> torch.Tensor:
    source = resolve(model)
    assert source.config is not None
    decoder = TorchDecoder(source.config, source.weights)
    return decoder.forward([Rows(decoder.new_cache(), TOKENS, range(-1, len(TOKENS) - 1))]).logits[0]


def rounded() -> dict[str, torch.Tensor]:
    """Weights that bfloat16 holds exactly, so that nothing is lost on the way."""
    return {name: tensor.to(torch.bfloat16).float() for name, tensor in decoder_tensors().items()}


@pytest.mark.parametrize("kind", ["F32", "Q4_1"])
def test_a_gguf_model(tmp_path, kind):
    made = write_gguf(tmp_path / "model.gguf", gguf_tensors(rounded(), "llama"), kind=kind)
    export_target(made, tmp_path / "out")
    # Only the rounding of Q4_1's products to bfloat16 is between the two.
    tolerance = 1e-4 if kind == "F32" else 0.05
    expected = by_ventris(made)
    scale = expected.abs().max()
    torch.testing.assert_close(
        by_transformers(tmp_path / "out") / scale, expected / scale, rtol=0, atol=tolerance
    )
    old, new = resolve(made), resolve(tmp_path / "out")
    assert new.config == old.config
    assert new.tokenizer.fingerprint == old.tokenizer.fingerprint
    assert new.tokenizer.facts == old.tokenizer.facts


@pytest.mark.parametrize("name", WRITTEN)
def test_every_family_that_can_be_written(tmp_path, name):
    family, changes = MODELS[name]
    model = saved_model(tmp_path / "saved", family, {**changes, "vocab_size": VOCAB})
    # What is stored is rounded to bfloat16, and so is what is compared.
    model.to(torch.bfloat16).float().save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").write_text(tokenizer_json())
    export_target(tmp_path / "saved", tmp_path / "out")
    with torch.no_grad():
        expected = model(torch.tensor([TOKENS]), use_cache=False).logits[0]
    torch.testing.assert_close(by_transformers(tmp_path / "out"), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "phi3", "phi3, long"])
def test_other_families_are_refused_before_anything_is_written(tmp_path, name):
    family, changes = MODELS[name]
    saved_model(tmp_path / "saved", family, {**changes, "vocab_size": VOCAB})
    (tmp_path / "saved" / "tokenizer.json").write_text(tokenizer_json())
    with pytest.raises(BadInput, match="cannot be written as a transformers folder, only one of"):
        export_target(tmp_path / "saved", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_for_transformers_alone_is_refused(tmp_path):
    write_folder(tmp_path / "model", model_type="gpt2")
    with pytest.raises(BadInput, match="copy its folder instead"):
        export_target(tmp_path / "model", tmp_path / "out")


def test_a_switch_that_the_configuration_cannot_say_is_refused(tmp_path):
    """Biases for queries, keys and values alone are none that Llama's configuration knows."""
    tensors = gguf_tensors(decoder_tensors(biased=True), "llama")
    made = write_gguf(tmp_path / "model.gguf", tensors)
    with pytest.raises(BadInput, match="cannot be written"):
        export_target(made, tmp_path / "out")


def test_a_large_model_is_written_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(target_folder, "FILE_BYTES", 60_000)
    made = write_gguf(tmp_path / "model.gguf", gguf_tensors(rounded(), "llama"))
    export_target(made, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 1
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == files
    assert all((tmp_path / "out" / name).stat().st_size < 70_000 for name in files)
    torch.testing.assert_close(by_transformers(tmp_path / "out"), by_ventris(made), atol=2e-4, rtol=1e-4)


def test_vectors_keep_the_precision_that_they_have(tmp_path):
    tensors = {**decoder_tensors(), "model.norm.weight": torch.rand(SIZES["hidden"]) + 0.5}
    made = write_gguf(tmp_path / "model.gguf", gguf_tensors(tensors, "llama"))
    export_target(made, tmp_path / "out")
    old, new = resolve(made).weights, resolve(tmp_path / "out").weights
    assert torch.equal(new["model.norm.weight"], old["model.norm.weight"])
    assert not torch.equal(new["model.norm.weight"], new["model.norm.weight"].bfloat16().float())
    assert {weight.dtype for weight in new.values() if len(weight.shape) > 1} == {torch.bfloat16}


def test_forms_of_a_configuration_that_mean_the_same_are_written_alike(tmp_path):
    config = resolve(write_gguf(tmp_path / "model.gguf")).config
    assert config.query_scale
    assert config.rotary_dim
    assert target_config(replace(config, query_scale=0.0, rotary_dim=0)) == target_config(config)
    with pytest.raises(BadInput, match=r"config\.json cannot say all that it is"):
        target_config(replace(config, query_scale=0.5 * config.query_scale))


@pytest.mark.parametrize(
    "templates",
    [
        {"default": "{{ messages[0].content }}", "tool_use": "{{ tools }}", "../../elsewhere": "x"},
        {"rag": "{{ documents }}"},
        {},
    ],
)
def test_chat_templates_of_any_names(tmp_path, templates):
    source = resolve(write_gguf(tmp_path / "model.gguf"))
    facts = replace(source.tokenizer.facts, chat_templates=templates)
    tokenizer = Tokenizer(source.tokenizer.backend, facts)
    write_target_folder(tmp_path / "in" / "side", source.config, source.weights, tokenizer)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["side"]
    assert resolve(tmp_path / "in" / "side").tokenizer.facts == facts
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "in" / "side")
    assert (theirs.chat_template or {}) == templates


@pytest.mark.parametrize("begins", [True, False])
def test_prompts_begin_as_the_model_wants(tmp_path, begins):
    def edit(writer: gguf.GGUFWriter) -> None:
        add_vocabulary(writer)
        writer.kv_data[0].pop("tokenizer.ggml.add_bos_token")
        writer.add_add_bos_token(begins)

    made = write_gguf(tmp_path / "model.gguf", edit=edit, vocabulary=False)
    export_target(made, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer("hello world")["input_ids"]
    assert ids == resolve(made).tokenizer.encode("hello world", special=True)
    assert (ids[0] == tokenizer.bos_token_id) is begins


def test_transformers_writes_the_same_conversation(tmp_path):
    made = write_gguf(tmp_path / "model.gguf")
    export_target(made, tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "hello world 12"}]
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert theirs == resolve(made).tokenizer.chat(messages)
    assert len(theirs) > len(MERGES) // 2


def test_a_folder_that_is_taken_is_refused(tmp_path):
    made = write_gguf(tmp_path / "model.gguf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"half of another")
    with pytest.raises(BadInput, match="holds a checkpoint already"):
        export_target(made, tmp_path / "out")


def test_the_command(tmp_path):
    app = typer.Typer()
    app.callback()(lambda: None)
    export.register(app)
    made = write_gguf(tmp_path / "model.gguf")
    ran = CliRunner().invoke(app, ["export", "model", str(made), str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
