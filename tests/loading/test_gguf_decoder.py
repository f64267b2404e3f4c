"""Configuration and weights from GGUF equal what the checkpoint held before conversion."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import pytest
import torch
from tiny_models import SIZES, VOCAB, decoder_tensors, gguf_tensors, write_gguf

from ventris.engine.errors import BadInput
from ventris.models.config import RopeScaling
from ventris.models.gguf import GgufFile
from ventris.models.gguf_decoder import llama3_divisors, read_config, read_weights, storage_bits
from ventris.models.weights import QuantizedMatrix, dense

FEATURES = {
    "llama": {},
    "qwen2": {"biased": True},
    "qwen3": {"qk_norm": True},
    "gemma2": {"post_norms": True},
    "gemma3": {"post_norms": True, "qk_norm": True},
    "phi3": {},
}


@pytest.mark.parametrize("arch", FEATURES)
def test_weights_survive_conversion(tmp_path: Path, arch: str) -> None:
    original = decoder_tensors(**FEATURES[arch])
    file = GgufFile(write_gguf(tmp_path / "m.gguf", gguf_tensors(original, arch), arch))
    config = read_config(file)
    weights = read_weights(file, config)
    assert set(weights) == set(original)
    baked_in = 1 if arch.startswith("gemma") else 0
    for name, tensor in original.items():
        shift = baked_in if name.endswith("norm.weight") else 0
        assert torch.equal(dense(weights[name]), tensor + shift), name
    assert not config.norm_plus_one
    assert config.qkv_bias == (arch == "qwen2")
    assert config.qk_norm == (arch in ("qwen3", "gemma3"))
    assert config.post_norms == arch.startswith("gemma")
    assert config.tied_head


def test_quantized_queries_are_put_back_in_order(tmp_path: Path) -> None:
    original = decoder_tensors()
    file = GgufFile(write_gguf(tmp_path / "m.gguf", gguf_tensors(original, "llama"), kind="Q4_1"))
    weights = read_weights(file, read_config(file))
    name = "model.layers.1.self_attn.q_proj.weight"
    read = weights[name]
    assert isinstance(read, QuantizedMatrix)
    rounded = gguf.quants.quantize(original[name].numpy(), gguf.GGMLQuantizationType.Q4_1)
    expected = gguf.quants.dequantize(rounded, gguf.GGMLQuantizationType.Q4_1)
    assert torch.equal(read.dequantize(), torch.from_numpy(expected))


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8), ("BF16", 16), ("F32", 16)])
def test_storage_bits_follow_the_layers(tmp_path: Path, kind: str, bits: int) -> None:
    assert storage_bits(GgufFile(write_gguf(tmp_path / "m.gguf", kind=kind))) == bits


def test_config_of_a_llama(tmp_path: Path) -> None:
    config = read_config(GgufFile(write_gguf(tmp_path / "m.gguf")))
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (VOCAB, 64, 96)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.rotary_dim) == (4, 2, 16, 16)
    assert config.num_layers == SIZES["layers"]
    assert config.query_scale == 0.25
    assert config.bos_id == 1
    assert config.eos_ids == (2, 0), "<|endoftext|> ends an answer too"


def test_a_head_of_its_own(tmp_path: Path) -> None:
    original = decoder_tensors() | {"lm_head.weight": torch.randn(VOCAB, SIZES["hidden"])}
    file = GgufFile(write_gguf(tmp_path / "m.gguf", gguf_tensors(original, "llama")))
    config = read_config(file)
    assert not config.tied_head
    assert torch.equal(dense(read_weights(file, config)["lm_head.weight"]), original["lm_head.weight"])


@pytest.mark.parametrize(("arch", "pattern"), [("gemma2", (True, False)), ("gemma3", (True, True))])
def test_gemma_windows_and_caps(tmp_path: Path, arch: str, pattern: tuple[bool, ...]) -> None:
    tensors = gguf_tensors(decoder_tensors(**FEATURES[arch]), arch)
    edit = lambda writer: writer.add_sliding_window(32)  # noqa: E731
    config = read_config(GgufFile(write_gguf(tmp_path / "m.gguf", tensors, arch, edit=edit)))
    assert config.sliding_window == 32
    assert config.window_layers == pattern
    assert config.embedding_scale == math.sqrt(SIZES["hidden"])
    assert config.activation == "gelu_tanh"
    assert (config.attention_softcap, config.logit_softcap) == ((50, 30) if arch == "gemma2" else (0, 0))
    assert config.rope_local_theta == (10_000 if arch == "gemma3" else 0)


def test_yarn_and_linear_scaling(tmp_path: Path) -> None:
    def yarn(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)

    config = read_config(GgufFile(write_gguf(tmp_path / "y.gguf", edit=yarn)))
    assert config.rope_scaling == RopeScaling("yarn", 4.0, 32)

    def linear(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(8.0)

    config = read_config(GgufFile(write_gguf(tmp_path / "l.gguf", edit=linear)))
    assert config.rope_scaling == RopeScaling("linear", 8.0)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_inferred_from_its_table(tmp_path: Path, factor: float) -> None:
    scaling = RopeScaling("llama3", factor, 8192, low_freq_factor=1.0, high_freq_factor=4.0)
    tensors = gguf_tensors(decoder_tensors(), "llama")
    tensors["rope_freqs.weight"] = torch.tensor(llama3_divisors(scaling, 500_000.0, SIZES["head_dim"]))
    edit = lambda writer: writer.add_rope_freq_base(500_000.0)  # noqa: E731
    config = read_config(GgufFile(write_gguf(tmp_path / "m.gguf", tensors, edit=edit)))
    assert config.rope_scaling.kind == "llama3"
    assert config.rope_scaling.factor == pytest.approx(factor)
    assert config.rope_scaling.original_context == 8192


def test_another_table_of_frequencies_is_refused(tmp_path: Path) -> None:
    tensors = gguf_tensors(decoder_tensors(), "llama")
    tensors["rope_freqs.weight"] = torch.linspace(1, 5, SIZES["head_dim"] // 2) ** 2
    with pytest.raises(BadInput, match=r"m\.gguf.*frequencies"):
        read_config(GgufFile(write_gguf(tmp_path / "m.gguf", tensors)))


def test_longrope_of_phi3(tmp_path: Path) -> None:
    tensors = gguf_tensors(decoder_tensors(), "phi3")
    half = SIZES["head_dim"] // 2
    tensors["rope_factors_short.weight"] = torch.ones(half)
    tensors["rope_factors_long.weight"] = torch.full((half,), 2.0)

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_orig_ctx_len(32)
        writer.add_rope_scaling_attn_factors(1.19)

    scaling = read_config(GgufFile(write_gguf(tmp_path / "m.gguf", tensors, "phi3", edit=edit))).rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_context) == ("longrope", 4.0, 32)
    assert scaling.attention_factor == pytest.approx(1.19)
    assert scaling.long_factor == (2.0,) * half


def test_unknown_architectures_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'mamba'.*known are llama"):
        read_config(GgufFile(write_gguf(tmp_path / "m.gguf", arch="mamba", tensors={"w": torch.ones(2, 2)})))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("blk.1.ffn_up.weight"), "ffn_up.weight is missing"),
        (lambda tensors: tensors.pop("output_norm.weight"), "output_norm.weight is missing"),
        (lambda tensors: tensors.update({"blk.0.attn_k.weight": torch.ones(2, 2)}), "has the shape"),
        (lambda tensors: tensors.update({"blk.0.attn_sinks": torch.ones(2)}), "does not belong"),
        (lambda tensors: tensors.pop("token_embd.weight"), "no token embeddings"),
    ],
)
def test_missing_wrong_and_surplus_tensors(tmp_path: Path, change: object, message: str) -> None:
    tensors = gguf_tensors(decoder_tensors(), "llama")
    change(tensors)  # type: ignore[operator]
    file = GgufFile(write_gguf(tmp_path / "m.gguf", tensors))
    with pytest.raises(BadInput, match=message):
        read_weights(file, read_config(file))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.block_count", 4_000_000_000),
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.context_length", 4_000_000_000),
        ("llama.rope.dimension_count", 10),
        ("llama.attention.key_length", 2**31),
        ("tokenizer.ggml.eos_token_id", 10_000),
    ],
)
def test_absurd_sizes_are_refused(tmp_path: Path, key: str, value: int) -> None:
    file = GgufFile(write_gguf(tmp_path / "m.gguf"))
    file.metadata[key] = value
    with pytest.raises(BadInput, match=r"m\.gguf"):
        read_weights(file, read_config(file))


def test_mixtures_of_experts_are_refused(tmp_path: Path) -> None:
    edit = lambda writer: writer.add_expert_count(8)  # noqa: E731
    with pytest.raises(BadInput, match="mixture of experts"):
        read_config(GgufFile(write_gguf(tmp_path / "m.gguf", edit=edit)))
