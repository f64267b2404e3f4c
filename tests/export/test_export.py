"""Exports: names, shapes, and that the exported numbers mean what the other engines make of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import families
import pytest
import random_heads
import torch
import torch.nn.functional as F
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from ventris.cli import export
from ventris.draft.checkpoint import HeadCheckpoint
from ventris.draft.target_sketch import TargetSketch
from ventris.engine.errors import BadInput
from ventris.export import vllm_medusa
from ventris.export.speculators import export_eagle
from ventris.export.vllm_medusa import export_medusa


def written(folder: Path, method: str, target, network) -> Path:
    # What is stored is rounded to bfloat16, and so is what is compared.
    for parameter in network.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    sketch = TargetSketch.of(target)
    HeadCheckpoint(method, sketch, network.sizes, {}, network.state_dict()).save(folder)
    return folder


def read(folder: Path):
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def test_eagle_has_the_names_and_shapes_of_speculators(tmp_path):
    target = random_heads.tiny_target()
    network = random_heads.eagle_network(target)
    export_eagle(written(tmp_path / "own", "eagle", target, network), tmp_path / "out", "org/target", 4)
    config, tensors = read(tmp_path / "out")
    c = target.config
    d, queries, keys = c.hidden_size, c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "fc.weight": (d, 3 * d),
        "layers.0.input_layernorm.weight": (d,),
        "layers.0.hidden_norm.weight": (d,),
        "layers.0.self_attn.q_proj.weight": (queries, 2 * d),
        "layers.0.self_attn.k_proj.weight": (keys, 2 * d),
        "layers.0.self_attn.v_proj.weight": (keys, 2 * d),
        "layers.0.self_attn.o_proj.weight": (d, queries),
        "layers.0.post_attention_layernorm.weight": (d,),
        "layers.0.mlp.gate_proj.weight": (c.intermediate_size, d),
        "layers.0.mlp.up_proj.weight": (c.intermediate_size, d),
        "layers.0.mlp.down_proj.weight": (d, c.intermediate_size),
        "norm.weight": (d,),
        "lm_head.weight": (40, d),
        "d2t": (40,),
        "t2d": (target.vocab_size,),
    }
    assert config["architectures"] == ["Eagle3Speculator"]
    assert (config["speculators_model_type"], config["draft_vocab_size"]) == ("eagle3", 40)
    assert config["eagle_aux_hidden_state_layer_ids"] == [2, 2, 1]
    assert (config["norm_before_residual"], config["norm_output"]) == (False, False)
    assert config["transformer_layer_config"]["num_hidden_layers"] == 1
    assert config["transformer_layer_config"]["vocab_size"] == target.vocab_size
    assert config["speculators_config"]["verifier"]["name_or_path"] == "org/target"
    assert config["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 4


def test_eagle_ids_are_offsets(tmp_path):
    target = random_heads.tiny_target()
    network = random_heads.eagle_network(target)
    network.ids.copy_(torch.arange(40) + 9)
    export_eagle(written(tmp_path / "own", "eagle", target, network), tmp_path / "out", "t")
    _, tensors = read(tmp_path / "out")
    assert tensors["d2t"].dtype == torch.int64
    assert (torch.arange(40) + tensors["d2t"]).tolist() == network.ids.tolist()
    assert tensors["t2d"].nonzero().flatten().tolist() == network.ids.tolist()


def test_eagle_computes_the_same_from_the_exported_tensors(tmp_path):
    """The first position of a text, by vLLM's program: attention over one row is its value."""
    target = random_heads.tiny_target()
    network = random_heads.eagle_network(target)
    export_eagle(written(tmp_path / "own", "eagle", target, network), tmp_path / "out", "t")
    _, tensors = read(tmp_path / "out")
    w = {name.removeprefix("layers.0."): tensor.float() for name, tensor in tensors.items()}
    c = target.config

    def norm(x, name):
        return F.rms_norm(x, x.shape[-1:], w[name], c.norm_eps)

    generator = torch.Generator().manual_seed(0)
    tapped = [torch.randn(1, 1, c.hidden_size, generator=generator) for _ in range(3)]
    embedded = torch.randn(1, 1, c.hidden_size, generator=generator)
    hidden = torch.cat(tapped, dim=-1)[0] @ w["fc.weight"].T
    both = torch.cat([norm(embedded[0], "input_layernorm.weight"), norm(hidden, "hidden_norm.weight")], -1)
    value = (both @ w["self_attn.v_proj.weight"].T).view(-1, c.num_kv_heads, c.head_dim)
    mixed = value.repeat_interleave(c.num_heads // c.num_kv_heads, dim=1).flatten(1)
    hidden = hidden + mixed @ w["self_attn.o_proj.weight"].T
    x = norm(hidden, "post_attention_layernorm.weight")
    gated = F.silu(x @ w["mlp.gate_proj.weight"].T) * (x @ w["mlp.up_proj.weight"].T)
    hidden = hidden + gated @ w["mlp.down_proj.weight"].T
    logits = norm(hidden, "norm.weight") @ w["lm_head.weight"].T

    at = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        expected = network.head(network.rehearse(tapped, embedded, at, at, 1)[0])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "layers"), [("stored", 1), ("stored", 2), ("own", 1)])
def test_medusa_has_the_names_and_shapes_of_vllm(tmp_path, rows, layers):
    target = random_heads.tiny_target()
    network = random_heads.medusa_heads(target, rows, layers)
    export_medusa(written(tmp_path / "own", "medusa", target, network), tmp_path / "out", "t")
    config, tensors = read(tmp_path / "out")
    d = target.hidden_size
    expected = {}
    for head in range(3):
        for layer in range(layers):
            expected[f"blocks.{head}.layers.{layer}.weight"] = (d, d)
            expected[f"blocks.{head}.layers.{layer}.bias"] = (d,)
        if rows == "own" or head == 0:
            expected[f"lm_heads.{head}.weight"] = (target.vocab_size, d)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    assert (config["model_type"], config["num_heads"], config["num_hidden_layers"]) == ("medusa", 3, layers)
    # vLLM 0.32 loads no checkpoint with a shortlist of its own form.
    assert config["vocab_size"] == target.vocab_size
    assert "truncated_vocab_size" not in config
    assert config["original_lm_head"] == (rows != "own")
    assert config["medusa_fc_bias"] is True


def test_medusa_computes_the_same_from_the_exported_tensors(tmp_path):
    target = random_heads.tiny_target()
    network = random_heads.medusa_heads(target, "own", 2)
    network.vocabulary.ids.copy_(torch.arange(40) + 9)
    export_medusa(written(tmp_path / "own", "medusa", target, network), tmp_path / "out", "t")
    _, tensors = read(tmp_path / "out")
    w = {name: tensor.float() for name, tensor in tensors.items()}
    rows = torch.randn(5, target.hidden_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = network(rows)
        for head, state in enumerate(states):
            x = rows
            for layer in range(2):
                block = f"blocks.{head}.layers.{layer}"
                x = x + F.silu(x @ w[f"{block}.weight"].T + w[f"{block}.bias"])
            expected = network.vocabulary.one(head, state)
            logits = x @ w[f"lm_heads.{head}.weight"].T
            torch.testing.assert_close(logits[:, 9:49], expected, rtol=1e-4, atol=1e-4)
            assert logits[:, :9].abs().max() == 0, "tokens that are not listed"
            assert logits[:, 49:].abs().max() == 0, "tokens that are not listed"


def source_of(seed: int, **changes) -> SimpleNamespace:
    family = families.build("smollm", seed)
    tokenizer = SimpleNamespace(fingerprint="that of a file")
    config = replace(family.config, **changes)
    return SimpleNamespace(config=config, weights=family.weights, tokenizer=tokenizer)


def test_tied_heads_take_the_rows_of_their_own_target_alone(tmp_path, monkeypatch):
    target = random_heads.tiny_target()
    own = written(tmp_path / "own", "medusa", target, random_heads.medusa_heads(target, "tied"))
    sources = {
        "right": source_of(0),
        "deeper": source_of(0, num_layers=9),
        "other": source_of(1),
    }
    monkeypatch.setattr(vllm_medusa, "resolve", sources.__getitem__)
    export_medusa(own, tmp_path / "out", "right")
    _, tensors = read(tmp_path / "out")
    embedding = sources["right"].weights["model.embed_tokens.weight"][:40]
    torch.testing.assert_close(tensors["lm_heads.0.weight"][:40], embedding.bfloat16())
    for name, message in (("deeper", "num layers 9 in place of"), ("other", "other weights")):
        with pytest.raises(BadInput, match=rf"trained for another target: this one has .*{message}"):
            export_medusa(own, tmp_path / name, name)
        assert not (tmp_path / name).exists()


def test_a_folder_that_is_taken_is_refused(tmp_path):
    target = random_heads.tiny_target()
    own = written(tmp_path / "own", "eagle", target, random_heads.eagle_network(target))
    with pytest.raises(BadInput, match="holds a checkpoint already"):
        export_eagle(own, own, "t")
    with pytest.raises(BadInput, match="holds a 'eagle' checkpoint, not one of 'medusa'"):
        export_medusa(own, tmp_path / "out", "t")


def test_the_command(tmp_path):
    app = typer.Typer()
    app.callback()(lambda: None)
    export.register(app)
    target = random_heads.tiny_target()
    own = written(tmp_path / "own", "eagle", target, random_heads.eagle_network(target))
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["export", "eagle", str(own), str(out), "--format", "speculators"])
    assert ran.exit_code == 0, ran.output
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    assert CliRunner().invoke(app, ["export", "eagle", str(own), str(out), "--format", "x"]).exit_code == 2
