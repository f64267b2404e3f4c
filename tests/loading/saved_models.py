"""Tiny models of every family as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 3.0]}
LINEAR = {"rope_type": "linear", "factor": 2.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, biased": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("Llama", {"rope_parameters": {"rope_theta": 5e5, **LLAMA3}}),
    "llama, yarn": ("Llama", {"rope_parameters": {"rope_theta": 1e4, **YARN}}),
    "llama, linear": ("Llama", {"rope_parameters": {"rope_theta": 1e4, **LINEAR}}),
    "mistral": ("Mistral", {"sliding_window": 7, "head_dim": 16}),
    "mistral without window": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2, windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 10}),
    "gemma3": ("Gemma3", {"head_dim": 16, "sliding_window": 6, "num_hidden_layers": 7}),
    "phi3": ("Phi3", {"sliding_window": 9}),
    "phi3, long": (
        "Phi3",
        {
            "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, **LONG},
            "original_max_position_embeddings": 16,
        },
    ),
    "smollm3 with rope everywhere": ("SmolLM3", {"no_rope_layers": [1, 1, 1, 1]}),
}


def saved_model(folder: Path, family: str, changes: dict[str, Any]) -> Any:
    import transformers

    torch.manual_seed(0)
    text = "Text" if family == "Gemma3" else ""
    config = getattr(transformers, f"{family}{text}Config")(**{**SIZES, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "norm.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    return model
