"""``config.json`` of every family: the decoder read from a saved folder computes what transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saved_models import LLAMA3, MODELS, saved_model
from tiny_models import LLAMA_CONFIG

from ventris.engine.errors import BadInput
from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.hf_config import read_folder_config
from ventris.models.safetensors_files import SafetensorsWeights


@pytest.mark.parametrize("name", MODELS)
def test_saved_models_compute_the_same(name: str, tmp_path: Path) -> None:
    from ventris.engine.target import Rows
    from ventris.models.torch_decoder import TorchDecoder

    model = saved_model(tmp_path, *MODELS[name])
    config = read_folder_config(tmp_path)
    assert config is not None
    decoder = TorchDecoder(config, SafetensorsWeights(tmp_path, config))
    tokens = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = Rows(decoder.new_cache(), tokens, range(-1, 39))
    with torch.no_grad():
        expected = model(torch.tensor([tokens]), use_cache=False).logits[0]
    torch.testing.assert_close(decoder.forward([rows]).logits[0], expected, atol=2e-4, rtol=1e-4)


def read(folder: Path, generation: object = None, **changes: object) -> DecoderConfig | None:
    folder.mkdir(parents=True, exist_ok=True)
    stored = {key: value for key, value in {**LLAMA_CONFIG, **changes}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(stored))
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return read_folder_config(folder)


def test_old_names_of_rope(tmp_path: Path) -> None:
    old = {**LLAMA3, "type": LLAMA3["rope_type"]}
    del old["rope_type"]
    config = read(tmp_path, rope_theta=5e5, rope_scaling=old)
    assert config is not None
    assert config.rope_theta == 5e5
    assert config.rope_scaling == RopeScaling("llama3", 8.0, 16, 1.0, 4.0)


def test_gemma3_bases_old_and_new(tmp_path: Path) -> None:
    common = {"model_type": "gemma3_text", "num_hidden_layers": 6}
    scaling = {"rope_type": "linear", "factor": 8.0}
    old = read(tmp_path / "old", **common, rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=scaling)
    layered = {
        "full_attention": {"rope_theta": 1e6, **scaling},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    }
    new = read(tmp_path / "new", **common, rope_parameters=layered)
    assert old == new
    assert new is not None
    assert (new.rope_theta, new.rope_local_theta) == (1e6, 1e4)
    assert new.rope_scaling == RopeScaling("linear", 8.0)
    assert new.window_layers == (True,) * 5 + (False,)


def test_gemma3_text_inside_a_model_of_images(tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106]})
    )
    config = read_folder_config(tmp_path)
    assert config is not None
    assert (config.vocab_size, config.num_heads, config.num_kv_heads, config.head_dim) == (262_208, 8, 4, 256)
    assert config.eos_ids == (1, 106)
    assert config.tied_head


def test_ends_come_from_both_files(tmp_path: Path) -> None:
    config = read(tmp_path, generation={"eos_token_id": [7, 2]}, eos_token_id=9)
    assert config is not None
    assert config.eos_ids == (7, 2, 9)


def test_ids_that_the_model_cannot_produce_drop_out(tmp_path: Path) -> None:
    config = read(tmp_path, eos_token_id=[-1, 2, 10**6], bos_token_id=None)
    assert config is not None
    assert config.eos_ids == (2,)
    assert config.bos_id is None


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gpt2"},
        {"model_type": "smollm3"},
        {"model_type": "smollm3", "no_rope_layers": [1, 0]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"rope_scaling": {"rope_type": "unheard-of", "factor": 2.0}},
        {"hidden_act": "relu2"},
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"model_type": "gemma3_text", "use_bidirectional_attention": True},
    ],
)
def test_what_the_block_cannot_express_is_left_to_transformers(tmp_path: Path, changes: Any) -> None:
    assert read(tmp_path, **changes) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "absent"}, "model_type"),
        ({"hidden_size": "absent"}, "hidden_size"),
        ({"hidden_size": -3}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "evenly"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"head_dim": 15}, "15"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": "</s>"}, "eos_token_id"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0]}}, "factor"),
        ({"model_type": "gemma3_text", "layer_types": ["full_attention"]}, "layer_types"),
        ({"max_position_embeddings": 2**40}, "max_position_embeddings"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        read(tmp_path, **changes)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"3", b"[" * 100_000])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"config\.json"):
        read_folder_config(tmp_path)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "full_attention", "type"]), st.text(max_size=3)),
)
KEYS = [
    *LLAMA_CONFIG,
    *("rope_scaling", "rope_parameters", "rope_theta", "sliding_window", "layer_types", "hidden_act"),
    *("use_sliding_window", "max_window_layers", "attention_bias", "query_pre_attn_scalar", "no_rope_layers"),
    *("text_config", "partial_rotary_factor", "sliding_window_pattern", "attn_logit_softcapping"),
]
FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gemma3", "phi3", "smollm3"]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(family=st.sampled_from(FAMILIES), changes=st.dictionaries(st.sampled_from(KEYS), ODD, max_size=4))
def test_odd_values_never_crash(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    stored = {**LLAMA_CONFIG, "model_type": family, **changes}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    try:
        config = read_folder_config(tmp_path)
    except BadInput as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017
    else:
        assert config is None or len(config.window_layers) in (0, config.num_layers)
