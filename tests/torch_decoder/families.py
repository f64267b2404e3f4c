"""Tiny random models of every family that the native decoders take, with their configurations.

Other tests may use :func:`build`; the models are small enough to be made in a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from ventris.models.config import DecoderConfig, RopeScaling

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

ROPE = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
}

RENAMED = {"rope_type": "kind", "original_max_position_embeddings": "original_context"}


@dataclass
class Family:
    """One tiny random model, in transformers' form and in ours."""

    name: str
    hf_model: Any
    config: DecoderConfig
    weights: dict[str, Tensor]

    @torch.no_grad()
    def reference(self, tokens: list[int]) -> Tensor:
        """Logits of transformers for a whole sequence, ``[tokens, vocab]``."""
        logits: Tensor = self.hf_model(torch.tensor([tokens]), use_cache=False).logits[0]
        return logits


def _llama(rope: str = "none", **changes: Any) -> tuple[Any, dict[str, Any]]:
    rope_parameters = {"rope_theta": 5000.0, **ROPE.get(rope, {"rope_type": "default"})}
    scaling = RopeScaling(**{RENAMED.get(k, k): v for k, v in ROPE[rope].items()}) if rope in ROPE else None
    config = hf.LlamaConfig(**SIZES, rope_parameters=rope_parameters, **changes)
    ours = {"rope_theta": 5000.0, **({"rope_scaling": scaling} if scaling else {})}
    return hf.LlamaForCausalLM(config), ours


def _smollm() -> tuple[Any, dict[str, Any]]:
    return _llama(tie_word_embeddings=True)[0], {"rope_theta": 5000.0, "tied_head": True}


def _biased_llama() -> tuple[Any, dict[str, Any]]:
    model, ours = _llama(attention_bias=True, mlp_bias=True)
    return model, {**ours, "qkv_bias": True, "output_bias": True, "mlp_bias": True}


def _mistral() -> tuple[Any, dict[str, Any]]:
    config = hf.MistralConfig(**SIZES, sliding_window=7, head_dim=12)
    return hf.MistralForCausalLM(config), {"sliding_window": 7, "window_layers": (True,) * 4, "head_dim": 12}


def _qwen2() -> tuple[Any, dict[str, Any]]:
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**SIZES)), {"qkv_bias": True}


def _qwen3() -> tuple[Any, dict[str, Any]]:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**SIZES, head_dim=16)), {"qk_norm": True, "head_dim": 16}


GEMMA = {
    "head_dim": 16,
    "sliding_window": 6,
    "norm_plus_one": True,
    "post_norms": True,
    "tied_head": True,
    "activation": "gelu_tanh",
    "query_scale": 24.0**-0.5,
    "embedding_scale": 32.0**0.5,
}


def _gemma2() -> tuple[Any, dict[str, Any]]:
    config = hf.Gemma2Config(
        **SIZES,
        head_dim=16,
        sliding_window=6,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=3.0,
        attn_implementation="eager",
    )
    softcaps = {"attention_softcap": 2.0, "logit_softcap": 3.0}
    return hf.Gemma2ForCausalLM(config), {**GEMMA, **softcaps, "window_layers": (True, False, True, False)}


def _gemma3() -> tuple[Any, dict[str, Any]]:
    config = hf.Gemma3TextConfig(
        **SIZES,
        head_dim=16,
        sliding_window=6,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
        },
    )
    return hf.Gemma3ForCausalLM(config), {
        **GEMMA,
        "qk_norm": True,
        "rope_theta": 5000.0,
        "rope_local_theta": 100.0,
        "rope_scaling": RopeScaling("linear", 4.0),
        "window_layers": (True, True, False, True),
    }


def _phi3() -> tuple[Any, dict[str, Any]]:
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}
    config = hf.Phi3Config(**SIZES, rope_parameters=rope, sliding_window=None)
    return hf.Phi3ForCausalLM(config), {"rotary_dim": 4}


BUILDERS = {
    "llama": _llama,
    "llama-linear": lambda: _llama("linear"),
    "llama-llama3": lambda: _llama("llama3"),
    "llama-yarn": lambda: _llama("yarn"),
    "llama-biased": _biased_llama,
    "smollm": _smollm,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
}
NAMES = tuple(BUILDERS)


def build(name: str, seed: int = 0) -> Family:
    """A tiny random model of the family ``name`` (one of :data:`NAMES`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, switches = BUILDERS[name]()
        # Larger than the usual initialization, and on biases and norms too, so that every switch shows.
        for weight_name, parameter in model.named_parameters():
            parameter.data.normal_(std=0.25)
            if "norm" in weight_name and not switches.get("norm_plus_one"):
                parameter.data += 1
    model.eval()
    config = DecoderConfig(
        **{
            "family": name,
            "vocab_size": SIZES["vocab_size"],
            "hidden_size": SIZES["hidden_size"],
            "intermediate_size": SIZES["intermediate_size"],
            "num_layers": SIZES["num_hidden_layers"],
            "num_heads": SIZES["num_attention_heads"],
            "num_kv_heads": SIZES["num_key_value_heads"],
            "head_dim": 8,
            "context_length": SIZES["max_position_embeddings"],
            "norm_eps": model.config.rms_norm_eps,
            **switches,
        }
    )
    return Family(name, model, config, split_fused(model.state_dict(), config))


def split_fused(weights: dict[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """Phi-3's fused matrices cut into the ones that all other families have."""
    heads, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    split = {}
    for name, weight in weights.items():
        if "qkv_proj" in name:
            parts = zip(("q_proj", "k_proj", "v_proj"), weight.split([heads, kv, kv]), strict=True)
            split.update({name.replace("qkv_proj", part): rows for part, rows in parts})
        elif "gate_up_proj" in name:
            parts = zip(("gate_proj", "up_proj"), weight.chunk(2), strict=True)
            split.update({name.replace("gate_up_proj", part): rows for part, rows in parts})
        else:
            split[name] = weight
    return split
