"""A decoder stored as GGUF: its configuration, and its weights under transformers' names.

What conversion to GGUF changed is undone here, so that nobody else needs to know:

- the ``llama`` architecture stores the rows of queries and keys in the order of interleaved RoPE;
- Phi-3 fuses queries, keys and values, and the two halves of the feed-forward block;
- Gemma's norms already contain the ``1 +``, so ``norm_plus_one`` is false for a Gemma read from GGUF.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ventris.engine.errors import BadInput
from ventris.models.config import LONGEST_CONTEXT, DecoderConfig, RopeScaling
from ventris.models.gguf import GgufFile
from ventris.models.gguf_vocabulary import bos_id, stop_ids
from ventris.models.weight_names import weight_shapes
from ventris.models.weights import QuantizedMatrix, Weight, Weights, dense

_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_POST_NORM_PARTS = _PARTS | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_ROPE_TABLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_LARGEST = 2**31 - 1
# llama.cpp knows the 27B members of the Gemma family by their depth, for the file does not say how they scale
# their attention scores.
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}


@dataclass(frozen=True, slots=True)
class _Family:
    """What is particular about one GGUF architecture."""

    permuted: bool = False
    fused: bool = False
    gemma: bool = False
    qk_norm: bool = False


_FAMILIES = {
    "llama": _Family(permuted=True),
    "qwen2": _Family(),
    "qwen3": _Family(qk_norm=True),
    "gemma2": _Family(gemma=True),
    "gemma3": _Family(gemma=True, qk_norm=True),
    "phi3": _Family(fused=True),
}


def read_config(file: GgufFile) -> DecoderConfig:
    """The configuration of the decoder in ``file``.

    Raises:
        BadInput: if the architecture is unknown or a size is missing, absurd, or at odds with the tensors.
    """
    return _Reader(file).config()


def read_weights(file: GgufFile, config: DecoderConfig) -> Weights:
    """The weights of ``file`` by transformers' names; each is read when it is asked for.

    Raises:
        BadInput: if a tensor is missing, left over, or of another shape than ``config`` demands.
    """
    return GgufWeights(file, config)


class _Reader:
    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.arch: str = file.get("general.architecture", str)
        family = _FAMILIES.get(self.arch)
        if family is None:
            raise BadInput(
                f"{file.path.name} holds the architecture {self.arch!r}, which cannot be run from GGUF; "
                f"known are {', '.join(_FAMILIES)}; use the transformers checkpoint of the model instead"
            )
        self.family = family

    def size(self, key: str, default: int | None = None, largest: int = _LARGEST) -> int:
        """A positive whole number; a list with one value for every layer counts if all are equal."""
        name = f"{self.arch}.{key}"
        value = self.file.metadata.get(name)
        if isinstance(value, np.ndarray) and value.size and bool((value == value[0]).all()):
            value = value[0].item()
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            self.file.fail(f"the metadata entry {name} must be a whole number from 1 to {largest}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value: float = self.file.get(f"{self.arch}.{key}", float, default)
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.number(key, default)
        if value <= 0:
            self.file.fail(f"the metadata entry {self.arch}.{key} must be positive")
        return value

    def config(self) -> DecoderConfig:
        file, family = self.file, self.family
        if file.metadata.get(f"{self.arch}.expert_count"):
            raise BadInput(
                f"{file.path.name} is a mixture of experts, which is not supported; use a dense model"
            )
        embedding = file.tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            file.fail("it has no token embeddings")
        vocab_size, hidden = embedding.shape
        layers = self.size("block_count", largest=max(len(file.tensors), 1))
        heads = self.size("attention.head_count", largest=hidden)
        kv_heads = self.size("attention.head_count_kv", default=heads)
        if heads % kv_heads:
            file.fail(f"{heads} query heads cannot share {kv_heads} key heads evenly")
        head_dim = self.size("attention.key_length", default=hidden // heads)
        if self.size("attention.value_length", default=head_dim) != head_dim or head_dim < 1:
            file.fail("its keys and values have different widths, which is not supported")
        context = self.size("context_length", largest=LONGEST_CONTEXT)
        rotary = self.size("rope.dimension_count", default=head_dim)
        if rotary > head_dim or rotary % 2 or (family.permuted and rotary != head_dim):
            file.fail(f"it rotates {rotary} of {head_dim} dimensions of a head")
        window, window_layers = self.windows(layers, context)
        tensors = file.tensors
        return DecoderConfig(
            family=self.arch,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=self.size("feed_forward_length"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            context_length=context,
            norm_eps=self.positive("attention.layer_norm_rms_epsilon"),
            rope_theta=self.positive("rope.freq_base", default=10_000.0),
            rope_local_theta=self.positive("rope.freq_base_swa", 10_000.0) if self.arch == "gemma3" else 0.0,
            rope_scaling=self.rope_scaling(context, rotary),
            rotary_dim=rotary,
            tied_head="output.weight" not in tensors,
            qkv_bias="blk.0.attn_q.bias" in tensors or "blk.0.attn_qkv.bias" in tensors,
            output_bias="blk.0.attn_output.bias" in tensors,
            mlp_bias="blk.0.ffn_up.bias" in tensors,
            qk_norm=family.qk_norm,
            post_norms=family.gemma,
            activation="gelu_tanh" if family.gemma else "silu",
            sliding_window=window,
            window_layers=window_layers,
            query_scale=self.query_scale(hidden, heads, head_dim, layers),
            attention_softcap=self.number("attn_logit_softcapping", 50.0) if self.arch == "gemma2" else 0.0,
            logit_softcap=self.number("final_logit_softcapping", 30.0) if self.arch == "gemma2" else 0.0,
            embedding_scale=math.sqrt(hidden) if family.gemma else 1.0,
            bos_id=bos_id(file),
            eos_ids=stop_ids(file),
        )

    def query_scale(self, hidden: int, heads: int, head_dim: int, layers: int) -> float:
        if _GEMMA_27B_LAYERS.get(self.arch) == layers:
            return float((hidden // heads) ** -0.5)
        return float(head_dim**-0.5)

    def windows(self, layers: int, context: int) -> tuple[int, tuple[bool, ...]]:
        """Sliding window and the layers that have it."""
        window = self.size("attention.sliding_window", default=4096 if self.arch == "gemma2" else 0)
        if self.family.gemma:
            period = self.size("attention.sliding_window_pattern", default=2 if self.arch == "gemma2" else 6)
            pattern = tuple((layer + 1) % period != 0 for layer in range(layers))
        elif self.arch == "phi3":
            pattern = (True,) * layers
        else:
            return 0, ()
        if window == 0 or (window >= context and self.arch == "phi3"):
            return 0, ()
        return window, pattern

    def rope_scaling(self, context: int, rotary: int) -> RopeScaling:
        # Old files give a factor alone and mean linear scaling.
        factor = self.positive("rope.scaling.factor", self.positive("rope.scale_linear", 1.0))
        kind = self.file.get(f"{self.arch}.rope.scaling.type", str, "linear")
        original = self.size("rope.scaling.original_context_length", default=context)
        if "rope_factors_long.weight" in self.file.tensors or kind == "longrope":
            return RopeScaling(
                kind="longrope",
                factor=context / original,
                original_context=original,
                attention_factor=self.number("rope.scaling.attn_factor", 0.0) or None,
                short_factor=self.factors("rope_factors_short.weight", rotary),
                long_factor=self.factors("rope_factors_long.weight", rotary),
            )
        if "rope_freqs.weight" in self.file.tensors:
            return self.llama3_scaling(self.factors("rope_freqs.weight", rotary))
        if kind == "none" or factor == 1.0:
            return RopeScaling()
        if kind == "linear":
            return RopeScaling(kind="linear", factor=factor)
        if kind == "yarn" and self.number("rope.scaling.attn_factor", 1.0) == 1.0:
            return RopeScaling(
                kind="yarn",
                factor=factor,
                original_context=original,
                beta_fast=self.positive("rope.scaling.yarn_beta_fast", 32.0),
                beta_slow=self.positive("rope.scaling.yarn_beta_slow", 1.0),
            )
        raise BadInput(
            f"{self.file.path.name} stretches its context in a way that is not supported ({kind}); "
            "use the transformers checkpoint of the model instead"
        )

    def factors(self, name: str, rotary: int) -> tuple[float, ...]:
        values = dense(self.file.read(name)).flatten()
        if values.numel() != rotary // 2 or not bool((torch.isfinite(values) & (values > 0)).all()):
            self.file.fail(f"the tensor {name} must hold {rotary // 2} positive numbers")
        return tuple(values.tolist())

    def llama3_scaling(self, divisors: tuple[float, ...]) -> RopeScaling:
        """Llama 3's four parameters from the table of frequency divisors that conversion made of them."""
        if all(abs(divisor - 1.0) < 1e-6 for divisor in divisors):
            return RopeScaling()
        theta = self.positive("rope.freq_base", default=10_000.0)
        for original in (8192, 4096, 2048, 16384, 32768, 65536):
            guess = RopeScaling("llama3", max(divisors), original, low_freq_factor=1.0, high_freq_factor=4.0)
            if np.allclose(divisors, llama3_divisors(guess, theta, 2 * len(divisors)), rtol=1e-3):
                return guess
        raise BadInput(
            f"{self.file.path.name} stretches its context by a table of frequencies that does not follow "
            "Llama 3's rule; use the transformers checkpoint of the model instead"
        )


def llama3_divisors(scaling: RopeScaling, theta: float, rotary: int) -> list[float]:
    """What Llama 3's rule divides each rotary frequency by, ``rotary / 2`` numbers."""
    divisors = []
    for index in range(0, rotary, 2):
        wavelength = 2 * math.pi * theta ** (index / rotary)
        turns = scaling.original_context / wavelength
        share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        share = min(max(share, 0.0), 1.0)
        divisors.append(1 / ((1 - share) / scaling.factor + share))
    return divisors


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How one weight is made of a tensor: which of its rows, and in which order.

    Attributes:
        heads: Number of heads whose rows are put back into the order of half-split RoPE; 0 for none.
    """

    tensor: str
    shape: tuple[int, ...]
    first: int = 0
    heads: int = 0


class GgufWeights(Mapping[str, Weight]):
    """Weights of a GGUF file by transformers' names, read one at a time and not kept."""

    def __init__(self, file: GgufFile, config: DecoderConfig) -> None:
        self.file = file
        self._recipes = _recipes(config, _FAMILIES[config.family])
        self._check()

    def __getitem__(self, name: str) -> Weight:
        recipe = self._recipes[name]
        weight = self.file.read(recipe.tensor)
        rows = recipe.shape[0]
        if recipe.heads:
            return _take(weight, _half_split_order(rows, recipe.heads))
        if self.file.tensors[recipe.tensor].shape != recipe.shape:
            return _take(weight, torch.arange(recipe.first, recipe.first + rows))
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)

    def _check(self) -> None:
        """Every tensor is there, in full, and none is left over that the decoder would not use."""
        demanded: dict[str, tuple[int, ...]] = {}
        for recipe in self._recipes.values():
            rows = max(recipe.first + recipe.shape[0], demanded.get(recipe.tensor, (0,))[0])
            demanded[recipe.tensor] = (rows, *recipe.shape[1:])
        for name, shape in demanded.items():
            entry = self.file.tensors.get(name)
            if entry is None:
                self.file.fail(f"the tensor {name} is missing")
            if entry.shape != shape:
                self.file.fail(f"the tensor {name} has the shape {entry.shape} in place of {shape}")
        for name in self.file.tensors:
            if name not in demanded and name not in _ROPE_TABLES and not name.endswith("rot_embd.freqs"):
                self.file.fail(f"the tensor {name} does not belong to this architecture")


def _take(weight: Weight, order: torch.Tensor) -> Weight:
    return weight.take_rows(order) if isinstance(weight, QuantizedMatrix) else weight[order]


def _half_split_order(rows: int, heads: int) -> torch.Tensor:
    """Where each row of the half-split order lies in the interleaved one, int64 ``[rows]``."""
    return torch.arange(rows).view(heads, rows // heads // 2, 2).transpose(1, 2).reshape(-1)


def _recipes(config: DecoderConfig, family: _Family) -> dict[str, _Recipe]:
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    fused = {
        "attn_q": ("attn_qkv", 0),
        "attn_k": ("attn_qkv", queries),
        "attn_v": ("attn_qkv", queries + keys),
        "ffn_gate": ("ffn_up", 0),
        "ffn_up": ("ffn_up", config.intermediate_size),
    }
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads} if family.permuted else {}
    parts = _POST_NORM_PARTS if config.post_norms else _PARTS
    recipes = {}
    for name, shape in weight_shapes(config).items():
        if name in _OUTSIDE:
            recipes[name] = _Recipe(_OUTSIDE[name], shape)
            continue
        _, _, layer, rest = name.split(".", 3)
        module, _, suffix = rest.rpartition(".")
        part = parts[module]
        stored, first = fused.get(part, (part, 0)) if family.fused else (part, 0)
        recipes[name] = _Recipe(f"blk.{layer}.{stored}.{suffix}", shape, first, heads.get(part, 0))
    return recipes


def storage_bits(file: GgufFile) -> int:
    """In how many bits the layers can be kept as they are.

    4 if all their matrices are blocks of 4 bits, or 4 and 8 with 4 in the majority; 8 if most of them are
    blocks of 8 bits, or of 4 beside other formats (which 8 bits hold well and 4 would not); otherwise 16.
    """
    sizes = {4: 0, 8: 0, 16: 0}
    for entry in file.tensors.values():
        if entry.name.startswith("blk.") and len(entry.shape) == 2:
            sizes[{"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}.get(entry.kind, 16)] += math.prod(entry.shape)
    if sizes[16] > sizes[4] + sizes[8] or not sum(sizes.values()):
        return 16
    return 4 if sizes[4] > sizes[8] and not sizes[16] else 8
