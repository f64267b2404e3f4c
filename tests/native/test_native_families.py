"""Random tiny models of every family against transformers, in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tiny_decoders import prefill, random_tokens
from torch import Tensor

from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.native import NativeDecoder

SIZES: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}
OURS: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_layers": 4,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "context_length": 128,
    "norm_eps": 1e-6,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
SHORT, LONG = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7), (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5)
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": list(SHORT),
    "long_factor": list(LONG),
    "original_max_position_embeddings": 16,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 2.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1_000.0},
}
ALTERNATING = ["sliding_attention", "full_attention"] * 2

FAMILIES: dict[str, tuple[Callable[[], Any], DecoderConfig]] = {
    "llama": (
        lambda: transformers.LlamaConfig(
            **SIZES, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
        ),
        DecoderConfig(
            "llama",
            **OURS,
            rope_theta=500.0,
            rope_scaling=RopeScaling("llama3", factor=4.0, original_context=32),
            qkv_bias=True,
            output_bias=True,
            mlp_bias=True,
            tied_head=True,
        ),
    ),
    "mistral": (
        lambda: transformers.MistralConfig(**SIZES, sliding_window=6, head_dim=16),
        DecoderConfig("mistral", **OURS, sliding_window=6, window_layers=(True,) * 4),
    ),
    "qwen2": (
        lambda: transformers.Qwen2Config(**SIZES, tie_word_embeddings=True),
        DecoderConfig("qwen2", **OURS, qkv_bias=True, tied_head=True),
    ),
    "qwen3": (
        lambda: transformers.Qwen3Config(**SIZES, head_dim=16),
        DecoderConfig("qwen3", **OURS, qk_norm=True),
    ),
    "gemma2": (
        lambda: transformers.Gemma2Config(
            **SIZES,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=6,
            layer_types=ALTERNATING,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=4.0,
        ),
        DecoderConfig(
            "gemma2",
            **OURS,
            norm_plus_one=True,
            post_norms=True,
            activation="gelu_tanh",
            sliding_window=6,
            window_layers=(True, False, True, False),
            query_scale=24**-0.5,
            attention_softcap=5.0,
            logit_softcap=4.0,
            embedding_scale=8.0,
            tied_head=True,
        ),
    ),
    "gemma3": (
        lambda: transformers.Gemma3TextConfig(
            **SIZES,
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=6,
            layer_types=ALTERNATING,
            rope_parameters=GEMMA3_ROPE,
        ),
        DecoderConfig(
            "gemma3",
            **OURS,
            rope_theta=50_000.0,
            rope_local_theta=1_000.0,
            rope_scaling=RopeScaling("linear", factor=2.0),
            qk_norm=True,
            norm_plus_one=True,
            post_norms=True,
            activation="gelu_tanh",
            sliding_window=6,
            window_layers=(True, False, True, False),
            query_scale=24**-0.5,
            embedding_scale=8.0,
            tied_head=True,
        ),
    ),
    "phi3": (
        lambda: transformers.Phi3Config(
            **SIZES, rope_parameters=LONGROPE, original_max_position_embeddings=16
        ),
        DecoderConfig(
            "phi3",
            **{**OURS, "norm_eps": 1e-5},
            rope_scaling=RopeScaling(
                "longrope", factor=8.0, original_context=16, short_factor=SHORT, long_factor=LONG
            ),
        ),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_match_transformers(family: str) -> None:
    make_config, config = FAMILIES[family]
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(make_config()).eval()
    _randomize(theirs, config)
    weights = _split_fused(dict(theirs.state_dict()), config)
    model = NativeDecoder.from_weights(config, weights, "float32", threads=2)
    tokens = random_tokens(config, 24)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(prefill(model, tokens)[1], expected, rtol=1e-4, atol=1e-4)


def _randomize(model: Any, config: DecoderConfig) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(-0.5, 0.5) if config.norm_plus_one else weight.uniform_(0.5, 1.5)
            else:
                weight.normal_(0.0, 0.15)


def _split_fused(weights: dict[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """Phi-3's fused projections apart, as the loader hands them over."""
    split: dict[str, Tensor] = {}
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for name, weight in weights.items():
        if "qkv_proj" in name:
            for part, rows in zip("qkv", weight.split([queries, keys, keys]), strict=True):
                split[name.replace("qkv_proj", f"{part}_proj")] = rows
        elif "gate_up_proj" in name:
            for part, rows in zip(("gate", "up"), weight.chunk(2), strict=True):
                split[name.replace("gate_up_proj", f"{part}_proj")] = rows
        else:
            split[name] = weight
    return split
