"""Rotary tables against transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_decoders import LLAMA
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ventris.models.config import RopeScaling
from ventris.models.rope import rope_frequencies, rope_tables

SHORT, LONG = tuple(1.0 + i / 16 for i in range(16)), tuple(2.0 + i / 4 for i in range(16))
SCALINGS: dict[str, tuple[RopeScaling, dict[str, Any]]] = {
    "linear": (RopeScaling("linear", factor=3.0), {"factor": 3.0}),
    "dynamic": (RopeScaling("dynamic", factor=2.0), {"factor": 2.0}),
    "llama3": (
        RopeScaling("llama3", factor=8.0, original_context=64, low_freq_factor=1.5, high_freq_factor=5.0),
        {
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "low_freq_factor": 1.5,
            "high_freq_factor": 5.0,
        },
    ),
    "yarn": (
        RopeScaling("yarn", factor=4.0, original_context=64),
        {"factor": 4.0, "original_max_position_embeddings": 64},
    ),
    "yarn_mscale": (
        RopeScaling("yarn", factor=4.0, original_context=64, mscale=0.7, mscale_all_dim=1.2, truncate=False),
        {
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "mscale": 0.7,
            "mscale_all_dim": 1.2,
            "truncate": False,
        },
    ),
    "longrope": (
        RopeScaling("longrope", factor=4.0, original_context=64, short_factor=SHORT, long_factor=LONG),
        {"original_max_position_embeddings": 64, "short_factor": list(SHORT), "long_factor": list(LONG)},
    ),
}


def theirs(kind: str, parameters: dict[str, Any]) -> LlamaConfig:
    """A checkpoint's configuration for transformers."""
    return LlamaConfig(
        hidden_size=128,
        num_attention_heads=4,
        max_position_embeddings=256,
        rope_parameters={"rope_type": kind, "rope_theta": 10_000.0, **parameters},
    )


@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_match_transformers(name: str) -> None:
    scaling, parameters = SCALINGS[name]
    kind = scaling.kind
    expected, expected_factor = ROPE_INIT_FUNCTIONS[kind](theirs(kind, parameters), "cpu", seq_len=256)
    frequencies, factor = rope_frequencies(replace(LLAMA, rope_scaling=scaling), 10_000.0)
    assert torch.equal(frequencies, expected)
    assert factor == pytest.approx(expected_factor)


@pytest.mark.parametrize("context", [32, 63, 64, 65, 128, 256, 512])
@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_scaling_follows_the_context_in_use(name: str, context: int) -> None:
    """As transformers for a text that fills it; the checkpoint's own length is 256."""
    scaling, parameters = SCALINGS[name]
    expected, expected_factor = ROPE_INIT_FUNCTIONS[name](theirs(name, parameters), "cpu", seq_len=context)
    config = replace(LLAMA, rope_scaling=scaling).with_context_length(context)
    frequencies, factor = rope_frequencies(config, 10_000.0)
    assert torch.equal(frequencies, expected)
    assert factor == pytest.approx(expected_factor)


def test_the_context_in_use_can_be_changed_again() -> None:
    config = replace(LLAMA, rope_scaling=SCALINGS["dynamic"][0])
    again = config.with_context_length(1024).with_context_length(512)
    expected = rope_frequencies(config.with_context_length(512), 10_000.0)[0]
    assert torch.equal(rope_frequencies(again, 10_000.0)[0], expected)


def test_tables_continue_where_they_left_off() -> None:
    config = replace(LLAMA, rotary_dim=12, rope_scaling=RopeScaling("yarn", factor=2.0, original_context=64))
    whole = rope_tables(config, 10_000.0, 50)
    part = rope_tables(config, 10_000.0, 20, first=30)
    assert whole[0].shape == (50, 6)
    assert torch.equal(whole[0][30:], part[0])
    assert torch.equal(whole[1][30:], part[1])


def test_a_local_base_is_not_scaled() -> None:
    config = replace(
        LLAMA,
        rope_theta=1_000.0,
        rope_local_theta=100.0,
        sliding_window=8,
        window_layers=(True, False, True),
        rope_scaling=RopeScaling("linear", factor=4.0),
    )
    plain = replace(config, rope_scaling=RopeScaling())
    assert torch.equal(rope_tables(config, config.theta(0), 9)[0], rope_tables(plain, 100.0, 9)[0])
    assert not torch.equal(rope_tables(config, config.theta(1), 9)[0], rope_tables(plain, 1_000.0, 9)[0])
