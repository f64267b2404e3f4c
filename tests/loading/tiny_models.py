"""Tiny models made on the spot: GGUF files, transformers folders, vocabularies."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_alphabet() -> list[str]:
    """GPT-2's characters for bytes 0 to 255, from transformers' description of them."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "l d", "Ġw or", "Ġwor ld", "1 2", "Ġ Ġ"]


def byte_level_tokens() -> list[str]:
    """Three special tokens, 256 bytes, and what the merges make."""
    return SPECIAL + byte_alphabet() + [merge.replace(" ", "") for merge in MERGES]


VOCAB = len(byte_level_tokens())
SIZES = {"hidden": 64, "inner": 96, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "context": 128}


def decoder_tensors(
    vocab: int = VOCAB, biased: bool = False, qk_norm: bool = False, post_norms: bool = False
) -> dict[str, Tensor]:
    """Random weights by transformers' names, float32."""
    torch.manual_seed(0)
    hidden, inner, queries = SIZES["hidden"], SIZES["inner"], SIZES["heads"] * SIZES["head_dim"]
    keys = SIZES["kv_heads"] * SIZES["head_dim"]
    tensors = {
        "model.embed_tokens.weight": torch.randn(vocab, hidden),
        "model.norm.weight": torch.rand(hidden),
    }
    for layer in range(SIZES["layers"]):
        name = f"model.layers.{layer}."
        tensors |= {
            name + "self_attn.q_proj.weight": torch.randn(queries, hidden),
            name + "self_attn.k_proj.weight": torch.randn(keys, hidden),
            name + "self_attn.v_proj.weight": torch.randn(keys, hidden),
            name + "self_attn.o_proj.weight": torch.randn(hidden, queries),
            name + "mlp.gate_proj.weight": torch.randn(inner, hidden),
            name + "mlp.up_proj.weight": torch.randn(inner, hidden),
            name + "mlp.down_proj.weight": torch.randn(hidden, inner),
            name + "input_layernorm.weight": torch.rand(hidden),
            name + "post_attention_layernorm.weight": torch.rand(hidden),
        }
        if biased:
            for part, size in (("q", queries), ("k", keys), ("v", keys)):
                tensors[f"{name}self_attn.{part}_proj.bias"] = torch.randn(size)
        if qk_norm:
            tensors[name + "self_attn.q_norm.weight"] = torch.rand(SIZES["head_dim"])
            tensors[name + "self_attn.k_norm.weight"] = torch.rand(SIZES["head_dim"])
        if post_norms:
            tensors[name + "pre_feedforward_layernorm.weight"] = torch.rand(hidden)
            tensors[name + "post_feedforward_layernorm.weight"] = torch.rand(hidden)
    return tensors


def interleaved(matrix: Tensor, heads: int) -> Tensor:
    """The row order that llama.cpp's converter gives to queries and keys of the llama architecture."""
    halves = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, *matrix.shape[1:])
    return halves.transpose(1, 2).reshape(matrix.shape)


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = GGUF_NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_tensors(tensors: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """Tensors as llama.cpp's converter names and orders them."""
    names = GEMMA_NAMES if arch.startswith("gemma") else GGUF_NAMES
    converted = {}
    for full, tensor in tensors.items():
        module, _, suffix = full.rpartition(".")
        prefix = ""
        if module.startswith("model.layers."):
            _, _, layer, module = module.split(".", 3)
            prefix = f"blk.{layer}."
        if arch == "llama" and module.endswith(("q_proj", "k_proj")):
            tensor = interleaved(tensor, SIZES["heads" if module.endswith("q_proj") else "kv_heads"])
        if arch.startswith("gemma") and module.endswith("norm"):
            tensor = tensor + 1
        converted[f"{prefix}{names[module]}.{suffix}"] = tensor
    if arch == "phi3":
        for layer in range(SIZES["layers"]):
            parts = [converted.pop(f"blk.{layer}.attn_{part}.weight") for part in "qkv"]
            converted[f"blk.{layer}.attn_qkv.weight"] = torch.cat(parts)
            halves = [converted.pop(f"blk.{layer}.ffn_{part}.weight") for part in ("gate", "up")]
            converted[f"blk.{layer}.ffn_up.weight"] = torch.cat(halves)
    return converted


def write_gguf(
    path: Path,
    tensors: Mapping[str, Tensor] | None = None,
    arch: str = "llama",
    kind: str = "F32",
    edit: Callable[[gguf.GGUFWriter], None] | None = None,
    vocabulary: bool = True,
) -> Path:
    """A GGUF file with ``tensors`` (by GGUF names; default: a tiny llama), matrices stored as ``kind``."""
    if tensors is None:
        tensors = gguf_tensors(decoder_tensors(), arch)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(SIZES["context"])
    writer.add_embedding_length(SIZES["hidden"])
    writer.add_block_count(SIZES["layers"])
    writer.add_feed_forward_length(SIZES["inner"])
    writer.add_head_count(SIZES["heads"])
    writer.add_head_count_kv(SIZES["kv_heads"])
    writer.add_rope_dimension_count(SIZES["head_dim"])
    writer.add_layer_norm_rms_eps(1e-5)
    if vocabulary:
        add_vocabulary(writer)
    if edit:
        edit(writer)
    for name, tensor in tensors.items():
        numbers = tensor.numpy().astype(np.float32)
        stored = gguf.GGMLQuantizationType[kind if numbers.ndim == 2 else "F32"]
        if stored.name == "F32":
            writer.add_tensor(name, numbers)
        else:
            writer.add_tensor(name, gguf.quants.quantize(numbers, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_vocabulary(writer: gguf.GGUFWriter, pre: str = "smollm") -> None:
    tokens = byte_level_tokens()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def tokenizer_json() -> str:
    """The same vocabulary as ``tokenizer.json``."""
    tokens = byte_level_tokens()
    added = [
        {
            "id": number,
            "content": token,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for number, token in enumerate(SPECIAL)
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Digits", "individual_digits": True},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                ],
            },
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": MERGES,
            },
        }
    )


LLAMA_CONFIG = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": SIZES["hidden"],
    "intermediate_size": SIZES["inner"],
    "num_hidden_layers": SIZES["layers"],
    "num_attention_heads": SIZES["heads"],
    "num_key_value_heads": SIZES["kv_heads"],
    "head_dim": SIZES["head_dim"],
    "max_position_embeddings": SIZES["context"],
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_folder(folder: Path, tensors: Mapping[str, Tensor] | None = None, **config: object) -> Path:
    """A transformers folder with a tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA_CONFIG, **config}))
    (folder / "tokenizer.json").write_text(tokenizer_json())
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file(dict(decoder_tensors() if tensors is None else tensors), folder / "model.safetensors")
    return folder
