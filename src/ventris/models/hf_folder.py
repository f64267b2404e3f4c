"""A model written as a transformers folder: ``config.json``, safetensors and the tokenizer's files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole
from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.hf_config import read_folder_config
from ventris.models.tokenizer import Tokenizer

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""By ``model_type``; of other families the weights are stored in other forms."""


def folder_config(config: DecoderConfig) -> dict[str, Any]:
    """``config.json`` of a decoder.

    Raises:
        BadInput: for a decoder of a family that cannot be written, or with a switch that the file has not.
    """
    if config.family not in ARCHITECTURES:
        raise BadInput(
            f"a tuned model of the family {config.family} cannot be written as a folder; only "
            f"{', '.join(ARCHITECTURES)} can"
        )
    stored = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config.rope_scaling),
        "hidden_act": config.activation,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "sliding_window": config.sliding_window or None,
        "use_sliding_window": bool(config.sliding_window),
        "layer_types": [
            "sliding_attention" if config.window(layer) else "full_attention"
            for layer in range(config.num_layers)
        ],
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": config.bos_id,
        "eos_token_id": list(config.eos_ids) or None,
        "torch_dtype": "bfloat16",
    }
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(stored), encoding="utf-8")
        read = read_folder_config(Path(folder))
    if read is None or _normal(read) != _normal(config):
        raise BadInput(f"a config.json cannot say what this {config.family} model is; tune another one")
    return stored


def write_model_folder(
    folder: Path, config: DecoderConfig, tokenizer: Tokenizer, weights: Mapping[str, Tensor]
) -> None:
    """Write the folder: matrices in bfloat16, vectors as they are; a reader sees all of it or no model.

    Raises:
        BadInput: as :func:`folder_config`.
    """
    stored = folder_config(config)
    facts = tokenizer.facts
    templates: Any = [{"name": name, "template": text} for name, text in facts.chat_templates.items()]
    settings = {
        **facts.named_tokens,
        "add_bos_token": facts.add_bos,
        "chat_template": facts.chat_templates.get("default") if len(templates) == 1 else templates or None,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    rounded = {
        name: (weight.to(torch.bfloat16) if weight.dim() > 1 else weight).contiguous()
        for name, weight in weights.items()
    }
    with written_whole(folder / "tokenizer.json") as temporary:
        tokenizer.backend.save(str(temporary))
    _write(folder / "tokenizer_config.json", settings)
    with written_whole(folder / "model.safetensors") as temporary:
        temporary.write_bytes(save(rounded, {"format": "pt"}))
    _write(folder / "config.json", stored)


def _rope_scaling(scaling: RopeScaling) -> dict[str, Any] | None:
    if scaling.kind == "none":
        return None
    named: dict[str, Any] = {
        "rope_type": scaling.kind,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_context or None,
    }
    if scaling.kind == "llama3":
        named |= {"low_freq_factor": scaling.low_freq_factor, "high_freq_factor": scaling.high_freq_factor}
    elif scaling.kind == "yarn":
        named |= {
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention_factor,
            "mscale": scaling.mscale,
            "mscale_all_dim": scaling.mscale_all_dim,
            "truncate": scaling.truncate,
        }
    return {name: value for name, value in named.items() if value is not None}


def _normal(config: DecoderConfig) -> DecoderConfig:
    """Forms that mean the same made one, for comparison."""
    scale = config.query_scale or config.head_dim**-0.5
    return replace(config, query_scale=scale, rotary_dim=config.rotary_dim or config.head_dim)


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(dict(facts), indent=1) + "\n", encoding="utf-8")
