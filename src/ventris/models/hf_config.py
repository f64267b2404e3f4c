"""``config.json`` of a transformers checkpoint, read as the description of a decoder.

Defaults are those of the transformers classes, for files leave out what equals them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from ventris.engine.errors import BadInput
from ventris.models.config import LONGEST_CONTEXT, DecoderConfig, RopeScaling

_LARGEST = 2**31 - 1
_MOST_LAYERS = 4096

_ACTIVATIONS: dict[str, Any] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast"), "gelu_tanh"),
}
_GEMMA = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
_LLAMA = {"max_position_embeddings": 2048, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True, slots=True)
class _Family:
    """What is particular about one ``model_type``.

    Attributes:
        defaults: Values for keys that ``config.json`` leaves out.
        qkv_bias, output_bias: Fixed, or ``None`` where ``attention_bias`` decides.
        windows: Which layers have the sliding window: ``none``, ``all``, ``types`` (listed, and only if
            ``use_sliding_window``), or ``every N`` (all but each N-th).
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    qk_norm: bool = False
    gemma: bool = False
    windows: str = "none"


_FAMILIES = {
    "llama": _Family(_LLAMA),
    "smollm3": _Family({"rope_theta": 2_000_000.0, "tie_word_embeddings": True}, windows="types"),
    "mistral": _Family(_LLAMA | {"sliding_window": 4096}, False, False, windows="all"),
    "qwen2": _Family({"sliding_window": 4096, "max_window_layers": 28}, True, False, windows="types"),
    "qwen3": _Family(
        {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128}, qk_norm=True, windows="types"
    ),
    "gemma2": _Family(
        _GEMMA
        | {
            "vocab_size": 256_000,
            "max_position_embeddings": 8192,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        gemma=True,
        windows="every 2",
    ),
    "gemma3_text": _Family(
        _GEMMA | {"vocab_size": 262_208, "max_position_embeddings": 131_072, "rope_theta": 1_000_000.0},
        qk_norm=True,
        gemma=True,
        windows="every 6",
    ),
    "phi3": _Family(
        {
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "bos_token_id": 1,
            "eos_token_id": 32000,
        },
        False,
        False,
        windows="all",
    ),
}


class _Inexpressible(Exception):
    """The configuration is sound, but the native block has no switch for it."""


def read_folder_config(folder: Path) -> DecoderConfig | None:
    """The configuration of the transformers checkpoint in ``folder``.

    Ending tokens come from ``generation_config.json`` too, as in transformers' ``generate``.

    Returns:
        ``None`` for a model that only transformers can run: another architecture, layers without rotary
        positions, weights in a quantisation of their own.

    Raises:
        BadInput: if a file is missing or damaged, or a value makes no sense.
    """
    stored = read_json(folder / "config.json", required=True)
    generation = read_json(folder / "generation_config.json")
    try:
        return _Reader(folder / "config.json", stored, generation).config()
    except _Inexpressible:
        return None


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """A JSON object from a file; an empty one if the file is not there and not ``required``.

    Raises:
        BadInput: if the file is missing or damaged.
    """
    try:
        stored = json.loads(path.read_bytes())
    except FileNotFoundError:
        if not required:
            return {}
        raise BadInput(f"{path.parent} has no {path.name}; give a transformers checkpoint's folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read {path}: {error}; download the file again") from None
    if not isinstance(stored, dict):
        raise BadInput(f"{path} does not hold a JSON object; download the file again")
    return stored


class _Reader:
    def __init__(self, path: Path, stored: dict[str, Any], generation: dict[str, Any]) -> None:
        self.path = path
        outer = stored
        if stored.get("model_type") == "gemma3":
            stored = self.section(stored, "text_config")
            stored = {"model_type": "gemma3_text", **stored}
        kind = stored.get("model_type")
        if not isinstance(kind, str):
            self.fail("model_type is missing")
        if kind not in _FAMILIES or outer.get("quantization_config") is not None:
            raise _Inexpressible
        self.kind = kind
        self.family = _FAMILIES[kind]
        self.values = {**self.family.defaults, **{k: v for k, v in stored.items() if v is not None}}
        self.nulls = {key for key, value in stored.items() if value is None}
        self.stops = [generation.get("eos_token_id"), outer.get("eos_token_id"), self.get("eos_token_id")]

    def fail(self, what: str) -> NoReturn:
        raise BadInput(f"{self.path} makes no sense: {what}; download the file again")

    def section(self, stored: Mapping[str, Any], key: str) -> dict[str, Any]:
        section = stored.get(key)
        if not isinstance(section, dict):
            self.fail(f"{key} must be a JSON object")
        return section

    def get(self, key: str) -> Any:
        """The value of ``key``; ``None`` where the file says ``null`` although there is a default."""
        return None if key in self.nulls else self.values.get(key)

    def size(self, key: str, default: int | None = None, largest: int = _LARGEST) -> int:
        value = self.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            self.fail(f"{key} must be a whole number from 1 to {largest}")
        return value

    def number(self, key: str, default: float, among: Mapping[str, Any] | None = None) -> float:
        """A positive number."""
        value = self.get(key) if among is None else among.get(key)
        if value is None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            self.fail(f"{key} must be a number")
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value) or value <= 0:
            self.fail(f"{key} must be a positive number")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(f"{key} must be true or false")
        return value

    def config(self) -> DecoderConfig:
        family, kind = self.family, self.kind
        if self.flag("use_bidirectional_attention"):
            raise _Inexpressible
        hidden = self.size("hidden_size")
        heads = self.size("num_attention_heads", largest=hidden)
        kv_heads = self.size("num_key_value_heads", default=heads)
        if heads % kv_heads:
            self.fail(f"{heads} query heads cannot share {kv_heads} key heads evenly")
        head_dim = self.size("head_dim", default=hidden // heads)
        layers = self.size("num_hidden_layers", largest=_MOST_LAYERS)
        vocab_size = self.size("vocab_size")
        context = self.size("max_position_embeddings", default=32_768, largest=LONGEST_CONTEXT)
        self.needs_rope_everywhere(layers)
        bias = self.flag("attention_bias")
        window, window_layers = self.windows(layers)
        rope, local = self.rope_parameters()
        rotary = int(head_dim * self.number("partial_rotary_factor", 1.0, rope))
        if rotary != head_dim and kind != "phi3":
            raise _Inexpressible
        if rotary > head_dim or rotary % 2 or rotary == 0:
            self.fail(f"{rotary} of {head_dim} dimensions of a head cannot be rotated")
        activation = self.get("hidden_activation") or self.get("hidden_act") or "silu"
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise _Inexpressible
        begins = self.ids([self.get("bos_token_id")], vocab_size)
        query_scale = self.number("query_pre_attn_scalar", head_dim) if family.gemma else head_dim
        return DecoderConfig(
            family=kind,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=self.size("intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            context_length=context,
            norm_eps=self.number("rms_norm_eps", 1e-6),
            rope_theta=self.number("rope_theta", self.number("rope_theta", 10_000.0), rope),
            rope_local_theta=local,
            rope_scaling=self.rope_scaling(rope, context, rotary),
            rotary_dim=rotary,
            tied_head=self.flag("tie_word_embeddings"),
            qkv_bias=bias if family.qkv_bias is None else family.qkv_bias,
            output_bias=bias if family.output_bias is None else family.output_bias,
            mlp_bias=self.flag("mlp_bias") if kind in ("llama", "smollm3") else False,
            qk_norm=family.qk_norm,
            norm_plus_one=family.gemma,
            post_norms=family.gemma,
            activation=_ACTIVATIONS[activation],
            sliding_window=window,
            window_layers=window_layers,
            query_scale=query_scale**-0.5,
            attention_softcap=self.number("attn_logit_softcapping", 0.0) if family.gemma else 0.0,
            logit_softcap=self.number("final_logit_softcapping", 0.0) if family.gemma else 0.0,
            embedding_scale=math.sqrt(hidden) if family.gemma else 1.0,
            bos_id=begins[0] if begins else None,
            eos_ids=self.ids(self.stops, vocab_size),
        )

    def ids(self, values: list[Any], vocab_size: int) -> tuple[int, ...]:
        """Token ids out of numbers, lists and nulls; ids that the model cannot produce drop out."""
        found: list[int] = []
        for value in values:
            for number in value if isinstance(value, list) else [value]:
                if number is None:
                    continue
                if not isinstance(number, int) or isinstance(number, bool):
                    self.fail("eos_token_id and bos_token_id must be whole numbers or lists of them")
                if 0 <= number < vocab_size:
                    found.append(number)
        return tuple(dict.fromkeys(found))

    def needs_rope_everywhere(self, layers: int) -> None:
        if self.kind != "smollm3":
            return
        rotated = self.get("no_rope_layers")
        if not isinstance(rotated, list) or len(rotated) < layers or not all(rotated[:layers]):
            raise _Inexpressible

    def windows(self, layers: int) -> tuple[int, tuple[bool, ...]]:
        """Sliding window, and which layers have it."""
        rule = self.family.windows
        switched_off = rule == "types" and not self.flag("use_sliding_window")
        if rule == "none" or switched_off or self.get("sliding_window") is None:
            return 0, ()
        window = self.size("sliding_window")
        if rule == "all":
            return window, (True,) * layers
        types = self.get("layer_types")
        if types is not None:
            kinds = {"sliding_attention": True, "full_attention": False}
            if not isinstance(types, list) or len(types) != layers:
                self.fail(f"layer_types must be a list with one entry for each of {layers} layers")
            if any(not isinstance(kind, str) or kind not in kinds for kind in types):
                raise _Inexpressible
            return window, tuple(kinds[kind] for kind in types)
        if rule == "types":
            first = self.get("max_window_layers") or 0
            if not isinstance(first, int):
                self.fail("max_window_layers must be a whole number")
            return window, tuple(layer >= first for layer in range(layers))
        period = self.size("sliding_window_pattern", default=int(rule.removeprefix("every ")))
        return window, tuple((layer + 1) % period != 0 for layer in range(layers))

    def rope_parameters(self) -> tuple[dict[str, Any], float]:
        """The rotary parameters of the layers without a window, and the base of those with one.

        transformers 5 writes ``rope_parameters`` (for Gemma 3 one set for each type of layer), older
        versions ``rope_scaling`` beside ``rope_theta``.
        """
        key = "rope_scaling" if self.get("rope_scaling") else "rope_parameters"
        rope = self.section(self.values, key) if self.get(key) is not None else {}
        local: dict[str, Any] = {}
        if "full_attention" in rope or "sliding_attention" in rope:
            local = self.section(rope, "sliding_attention") if rope.get("sliding_attention") else {}
            rope = self.section(rope, "full_attention") if rope.get("full_attention") else {}
        partial = {"partial_rotary_factor": self.get("partial_rotary_factor")}
        rope = partial | {name: value for name, value in rope.items() if value is not None}
        if self.kind != "gemma3_text":
            if local and local != rope:
                raise _Inexpressible
            return rope, 0.0
        if local.get("rope_type", "default") != "default":
            raise _Inexpressible
        return rope, self.number("rope_theta", self.number("rope_local_base_freq", 10_000.0), local)

    def rope_scaling(self, rope: dict[str, Any], context: int, rotary: int) -> RopeScaling:
        kind = rope.get("rope_type", rope.get("type", "default"))
        if self.kind == "phi3" and kind in ("su", "yarn"):
            kind = "longrope"
        if kind in ("default", "mrope", None):
            return RopeScaling()
        if kind not in ("linear", "dynamic", "llama3", "yarn", "longrope"):
            raise _Inexpressible
        original = self.original_context(rope, context)
        factor = self.number("factor", context / original, rope)
        attention = self.number("attention_factor", 0.0, rope) or None
        if kind == "longrope":
            return RopeScaling(
                kind=kind,
                factor=context / original,
                original_context=original,
                attention_factor=attention,
                short_factor=self.factors(rope, "short_factor", rotary),
                long_factor=self.factors(rope, "long_factor", rotary),
            )
        return RopeScaling(
            kind=kind,
            factor=factor,
            original_context=0 if kind in ("linear", "dynamic") else original,
            low_freq_factor=self.number("low_freq_factor", 1.0, rope),
            high_freq_factor=self.number("high_freq_factor", 4.0, rope),
            beta_fast=self.number("beta_fast", 32.0, rope),
            beta_slow=self.number("beta_slow", 1.0, rope),
            attention_factor=attention,
            mscale=self.number("mscale", 0.0, rope) or None,
            mscale_all_dim=self.number("mscale_all_dim", 0.0, rope) or None,
            truncate=rope.get("truncate", True) is not False,
        )

    def original_context(self, rope: Mapping[str, Any], context: int) -> int:
        key = "original_max_position_embeddings"
        value = self.get(key) if self.get(key) is not None else rope.get(key, context)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
            self.fail(f"{key} must be a whole number")
        return value

    def factors(self, rope: Mapping[str, Any], key: str, rotary: int) -> tuple[float, ...]:
        values = rope.get(key)
        if not isinstance(values, list) or len(values) != rotary // 2:
            self.fail(f"{key} must be a list of {rotary // 2} numbers")
        return tuple(self.number(key, 1.0, {key: value}) for value in values)
