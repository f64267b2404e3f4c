"""The native arithmetic against a torch reference with the same roundings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_decoders import (
    EVERYTHING,
    LLAMA,
    Reference,
    chain,
    decoder,
    mean_error,
    prefill,
    random_tokens,
    random_weights,
)

from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.native import NativeDecoder
from ventris.models.weights import dense, quantize

# Mean error in units of the logits' spread. Where numbers are rounded to int8 or bfloat16, one that falls to
# the other side in one of the two computations changes all that follow a little.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 1e-2, "int4": 1e-2}

SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "qkv_bias": {"qkv_bias": True},
    "output_bias": {"output_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "qk_norm": {"qk_norm": True},
    "norm_plus_one": {"norm_plus_one": True},
    "post_norms": {"post_norms": True},
    "gelu": {"activation": "gelu"},
    "gelu_tanh": {"activation": "gelu_tanh"},
    "window": {"sliding_window": 7, "window_layers": (True, False, True)},
    "query_scale": {"query_scale": 0.4},
    "softcaps": {"attention_softcap": 2.0, "logit_softcap": 3.0},
    "embedding_scale": {"embedding_scale": 2.5},
    "partial_rotary": {"rotary_dim": 12},
    "local_theta": {"sliding_window": 9, "window_layers": (False, True, True), "rope_local_theta": 100.0},
    "tied_head": {"tied_head": True},
    "odd_sizes": {"hidden_size": 40, "intermediate_size": 50, "head_dim": 10, "vocab_size": 77},
    "one_group": {"num_kv_heads": 1, "num_heads": 5, "head_dim": 80},
    "linear_rope": {"rope_scaling": RopeScaling("linear", factor=2.0)},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_float32_matches_torch(switch: str) -> None:
    config = replace(LLAMA, **SWITCHES[switch])
    _check(config, "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4", "int8-a8", "int4-a8"])
@pytest.mark.parametrize("switch", ["plain", "odd_sizes", "everything"])
def test_rounded_dtypes_match_torch(switch: str, dtype: str) -> None:
    config = EVERYTHING if switch == "everything" else replace(LLAMA, **SWITCHES[switch])
    _check(config, dtype)


def _check(config: DecoderConfig, dtype: str) -> None:
    stored, _, narrow = dtype.partition("-")
    tokens = random_tokens(config, 21)
    model = decoder(config, dtype)
    assert model.dtype == dtype
    expected = Reference(config, random_weights(config), stored, 8 if narrow else 16).logits(tokens)
    logits = prefill(model, tokens)[1]
    assert logits.shape == expected.shape
    assert mean_error(logits, expected) < TOLERANCE[stored]


def test_stored_blocks_are_taken_as_they_are() -> None:
    """4-bit layers stay 4-bit and an 8-bit head 8-bit under "int4"; "int8" widens without a change."""
    weights = random_weights(LLAMA)
    stored = {
        name: weight if weight.dim() == 1 else quantize(weight, 8 if "embed" in name or "down" in name else 4)
        for name, weight in weights.items()
    }
    four, eight = (NativeDecoder.from_weights(LLAMA, stored, dtype) for dtype in ("int4", "int8"))
    tokens = random_tokens(LLAMA, 9)
    assert torch.equal(prefill(four, tokens)[1], prefill(eight, tokens)[1])
    assert four.weight_bytes < eight.weight_bytes
    expected = Reference(LLAMA, stored, "int4").logits(tokens)
    assert mean_error(prefill(four, tokens)[1], expected) < TOLERANCE["int4"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_embed_returns_the_stored_numbers(dtype: str) -> None:
    model = decoder(EVERYTHING, dtype)
    weights = random_weights(EVERYTHING)
    table = Reference(EVERYTHING, weights, dtype).matrix("model.embed_tokens", 8)
    tokens = random_tokens(EVERYTHING, 7)
    rows = model.embed([chain(model.new_cache(), tokens)])
    torch.testing.assert_close(rows, table[tokens] * EVERYTHING.embedding_scale, rtol=1e-6, atol=1e-6)


def test_attention_row_is_the_layers_attention() -> None:
    """The recomputed row, applied to the cached values, gives what the layer's output projection reads."""
    config = replace(EVERYTHING, num_layers=1, window_layers=(True,))
    model = decoder(config)
    tokens = random_tokens(config, 12)
    cache, _ = prefill(model, tokens)
    last = len(tokens) - 1
    hidden = model.embed([chain(model.new_cache(), tokens)])[last]
    row = model.attention_row(cache, 0, hidden, last)
    assert row.shape == (config.num_heads, len(tokens))
    torch.testing.assert_close(row.sum(1), torch.ones(config.num_heads))
    assert not row[:, : len(tokens) - config.sliding_window].any()

    reference = Reference(config, random_weights(config))
    inputs = reference.norm("model.layers.0.input_layernorm", model.embed([chain(model.new_cache(), tokens)]))
    expected = reference.attention(0, inputs)[last]
    values = cache.rows(0)[1].repeat_interleave(config.num_heads // config.num_kv_heads, dim=0)
    attended = torch.einsum("hn,hnd->hd", row, values).flatten()
    got = attended @ dense(reference.weights["model.layers.0.self_attn.o_proj.weight"]).T
    torch.testing.assert_close(
        got + reference.weights["model.layers.0.self_attn.o_proj.bias"], expected, rtol=1e-4, atol=1e-4
    )
