"""A decoder written as a transformers folder, which every other engine and converter reads.

The configuration is written and read back before any weight is: a model that ``config.json`` cannot express
is refused and not approximated.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers.processors import Sequence, TemplateProcessing
from torch import Tensor

from ventris.engine.errors import BadInput
from ventris.models.cache_folder import written_whole
from ventris.models.checkpoint_writing import write_json, write_tensors
from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.hf_config import read_folder_config
from ventris.models.safetensors_files import INDEX, SINGLE
from ventris.models.tokenizer import Tokenizer
from ventris.models.weight_names import Shape, weight_shapes
from ventris.models.weights import Weight, Weights, dense

FILE_BYTES = 2 << 30
"""Largest file of weights, as long as one tensor fits; a larger model is written in several."""

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
}
_REMEDY = "tune another model, or give other engines the checkpoint that this one was made from"


def write_target_folder(folder: Path, config: DecoderConfig, weights: Weights, tokenizer: Tokenizer) -> None:
    """Write a decoder: ``config.json``, safetensors, ``tokenizer.json`` and the chat templates.

    Matrices are stored in bfloat16. Vectors (norms and biases) keep the precision that they have.

    Args:
        folder: Where the files go; what lies there under other names stays.
        config: Sizes and switches.
        weights: By transformers' names, each read when it is written; all of
            :func:`ventris.models.weight_names.weight_shapes`.
        tokenizer: Written with its special tokens and templates.

    Raises:
        BadInput: as :func:`target_config`.
    """
    stored = target_config(config)
    _write_tokenizer(folder, tokenizer, config.context_length)
    _write_weights(folder, config, weights)
    write_json(folder / "generation_config.json", _ends(config))
    # Last, because without a config.json a folder is no checkpoint.
    write_json(folder / "config.json", stored)


def target_config(config: DecoderConfig) -> dict[str, Any]:
    """The ``config.json`` of a decoder.

    Raises:
        BadInput: for a decoder of a family whose folders are not written, or with a switch that the file has
            not.
    """
    if config.family not in _ARCHITECTURES:
        raise BadInput(
            f"a model of the family {config.family} cannot be written as a transformers folder, only one of "
            f"{', '.join(_ARCHITECTURES)}; {_REMEDY}"
        )
    stored = {
        "model_type": config.family,
        "architectures": [_ARCHITECTURES[config.family]],
        "torch_dtype": "bfloat16",
        **transformers_sizes(config),
        "hidden_act": config.activation,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config.rope_scaling),
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        **_windows(config),
        **_ends(config),
    }
    if config.family == "smollm3":
        stored |= {"no_rope_layers": [1] * config.num_layers, "pad_token_id": None}
    with tempfile.TemporaryDirectory() as trial:
        write_json(Path(trial) / "config.json", stored)
        read = read_folder_config(Path(trial))
    if read is None or _normal(read) != _normal(config):
        raise BadInput(
            f"this {config.family} model cannot be written as a transformers folder, for config.json cannot "
            f"say all that it is; {_REMEDY}"
        )
    return stored


def transformers_sizes(config: DecoderConfig) -> dict[str, Any]:
    """What every family has, by the names of transformers."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
    }


def _normal(config: DecoderConfig) -> DecoderConfig:
    """Forms that mean the same made one, for comparison."""
    scale = config.query_scale or config.head_dim**-0.5
    return replace(config, query_scale=scale, rotary_dim=config.rotary_dim or config.head_dim)


def _ends(config: DecoderConfig) -> dict[str, Any]:
    return {"bos_token_id": config.bos_id, "eos_token_id": list(config.eos_ids) or None}


def _windows(config: DecoderConfig) -> dict[str, Any]:
    if not config.window_layers:
        return {"sliding_window": None}
    kinds = ["sliding_attention" if here else "full_attention" for here in config.window_layers]
    return {"sliding_window": config.sliding_window, "use_sliding_window": True, "layer_types": kinds}


def _rope_scaling(scaling: RopeScaling) -> dict[str, Any] | None:
    """What differs from a plain decoder, and what transformers demands, by the names of ``config.json``."""
    if scaling.kind == "none":
        return None
    plain = asdict(RopeScaling())
    demanded = ("low_freq_factor", "high_freq_factor") if scaling.kind == "llama3" else ()
    stored = {
        name: value for name, value in asdict(scaling).items() if value != plain[name] or name in demanded
    }
    if "original_context" in stored:
        stored["original_max_position_embeddings"] = stored.pop("original_context")
    return {"rope_type": stored.pop("kind"), "factor": scaling.factor, **stored}


def _write_weights(folder: Path, config: DecoderConfig, weights: Weights) -> None:
    """One file, or several with an index of what is where."""
    files = list(_split(weight_shapes(config)))
    if len(files) == 1:
        names = [SINGLE]
    else:
        names = [f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)]
    total = 0
    for name, tensors in zip(names, files, strict=True):
        stored = {tensor: _as_stored(weights[tensor]) for tensor in tensors}
        total += sum(tensor.nbytes for tensor in stored.values())
        write_tensors(folder / name, stored)
    if len(files) > 1:
        where = {tensor: name for name, tensors in zip(names, files, strict=True) for tensor in tensors}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _as_stored(weight: Weight) -> Tensor:
    # Vectors cost next to nothing, and every reader casts them to the dtype that it computes in.
    if isinstance(weight, Tensor) and weight.dim() == 1:
        return weight
    return dense(weight, torch.bfloat16)


def _split(shapes: Mapping[str, Shape]) -> Iterator[list[str]]:
    """Names of the tensors of each file, in order."""
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        dtype = torch.float32 if len(shape) == 1 else torch.bfloat16
        more = dtype.itemsize * math.prod(shape)
        if names and size + more > FILE_BYTES:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    yield names


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, context_length: int) -> None:
    facts = tokenizer.facts
    with written_whole(folder / "tokenizer.json") as temporary:
        temporary.write_text(_with_beginning(tokenizer).to_str(pretty=False), encoding="utf-8")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": facts.add_bos,
        **facts.named_tokens,
    }
    templates = facts.chat_templates
    if templates.keys() == {"default"}:
        with written_whole(folder / "chat_template.jinja") as temporary:
            temporary.write_text(templates["default"], encoding="utf-8")
    elif templates:
        # Not files of their own: a name comes with the model and may be no file's name.
        listed = [{"name": name, "template": text} for name, text in templates.items()]
        settings["chat_template"] = listed
    write_json(folder / "tokenizer_config.json", settings)


def _with_beginning(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The backend, putting the beginning-of-text token before a prompt if and only if the model wants it."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    begin = tokenizer.bos_id if tokenizer.facts.add_bos else None
    if begin is not None and backend.encode("a").ids[:1] != [begin]:
        token = backend.id_to_token(begin)
        adds = TemplateProcessing(
            single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, begin)]
        )
        backend.post_processor = (
            adds if backend.post_processor is None else Sequence([backend.post_processor, adds])
        )
    return backend
