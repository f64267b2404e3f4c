"""Tiny random decoders, and a plain torch reference that mirrors the native arithmetic step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ventris.engine.cache import KVCache
from ventris.engine.target import Rows
from ventris.models.config import DecoderConfig
from ventris.models.native import NativeDecoder
from ventris.models.rope import rope_tables
from ventris.models.weights import QuantizedMatrix, Weights, dense, quantize

LLAMA = DecoderConfig(
    family="llama",
    vocab_size=203,  # no multiple of 16: the last panel is padded
    hidden_size=64,
    intermediate_size=96,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    context_length=256,
)

EVERYTHING = replace(
    LLAMA,
    family="everything",
    qkv_bias=True,
    output_bias=True,
    mlp_bias=True,
    qk_norm=True,
    norm_plus_one=True,
    post_norms=True,
    activation="gelu_tanh",
    sliding_window=5,
    window_layers=(True, False, True),
    rope_local_theta=500.0,
    query_scale=0.2,
    attention_softcap=20.0,
    logit_softcap=15.0,
    embedding_scale=3.0,
    rotary_dim=16,
    tied_head=True,
)


def random_weights(config: DecoderConfig, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    def norm(size: int) -> Tensor:
        return torch.rand(size, generator=generator) + (-0.5 if config.norm_plus_one else 0.5)

    hidden, wide = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    weights = {
        "model.embed_tokens.weight": normal(config.vocab_size, hidden) * 4,
        "model.norm.weight": norm(hidden),
    }
    if not config.tied_head:
        weights["lm_head.weight"] = normal(config.vocab_size, hidden)
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        shapes = {
            "self_attn.q_proj": (queries, hidden, config.qkv_bias),
            "self_attn.k_proj": (keys, hidden, config.qkv_bias),
            "self_attn.v_proj": (keys, hidden, config.qkv_bias),
            "self_attn.o_proj": (hidden, queries, config.output_bias),
            "mlp.gate_proj": (wide, hidden, config.mlp_bias),
            "mlp.up_proj": (wide, hidden, config.mlp_bias),
            "mlp.down_proj": (hidden, wide, config.mlp_bias),
        }
        if config.cross_attention:
            shapes["cross_attn.q_proj"] = (queries, hidden, config.qkv_bias)
            shapes["cross_attn.o_proj"] = (hidden, queries, config.output_bias)
        for name, (rows, columns, bias) in shapes.items():
            weights[f"{prefix}.{name}.weight"] = normal(rows, columns)
            if bias:
                weights[f"{prefix}.{name}.bias"] = torch.randn(rows, generator=generator) * 0.1
        norms = ["input_layernorm", "post_attention_layernorm"]
        if config.cross_attention:
            norms.append("cross_attention_layernorm")
        if config.post_norms:
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for name in norms:
            weights[f"{prefix}.{name}.weight"] = norm(hidden)
        if config.qk_norm:
            weights[f"{prefix}.self_attn.q_norm.weight"] = norm(config.head_dim)
            weights[f"{prefix}.self_attn.k_norm.weight"] = norm(config.head_dim)
    return weights


def decoder(config: DecoderConfig, dtype: str = "float32", threads: int = 2, seed: int = 0) -> NativeDecoder:
    """A native decoder with random weights; ``dtype`` may end in "-a8" for activations of 8 bits."""
    stored, _, narrow = dtype.partition("-")
    weights = random_weights(config, seed)
    return NativeDecoder.from_weights(config, weights, stored, threads, activation_bits=8 if narrow else 16)


def random_tokens(config: DecoderConfig, count: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (count,), generator=generator).tolist()


def chain(cache: KVCache, tokens: Sequence[int]) -> Rows:
    """A batch entry whose nodes follow one another."""
    return Rows(cache, tokens, list(range(-1, len(tokens) - 1)))


def prefill(model: NativeDecoder, tokens: Sequence[int], chunk: int = 1000) -> tuple[KVCache, Tensor]:
    """A cache with these tokens committed, and the logits of all of them."""
    cache = model.new_cache(8)
    logits = []
    for first in range(0, len(tokens), chunk):
        part = tokens[first : first + chunk]
        logits.append(model.forward([chain(cache, part)]).logits[0])
        cache.commit(range(len(part)))
    return cache, torch.cat(logits)


class Reference:
    """The same model in torch, with the roundings of a dtype of the native runtime.

    Args:
        dtype: "float32", "bfloat16" (weights, inputs of products, queries, keys and values rounded) or
            "int8" / "int4" (blocks of weights; inputs of products rounded to integers by blocks of 32).
        activation_bits: Of these integers: 8, or 16 whose high byte is at most 127 after rounding.
    """

    def __init__(
        self, config: DecoderConfig, weights: Weights, dtype: str = "float32", activation_bits: int = 16
    ) -> None:
        self.config = config
        self.weights = weights
        self.dtype = dtype
        self.largest_level = 127.0 if activation_bits == 8 else 127.0 * 256.0

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Logits after every token of one sequence, ``[n, vocab]``."""
        hidden = self.matrix("model.embed_tokens", 8)[torch.tensor(tokens)] * self.config.embedding_scale
        for layer in range(self.config.num_layers):
            hidden = self.layer(layer, hidden)
        name = "model.embed_tokens" if self.config.tied_head else "lm_head"
        logits = self.round_inputs(self.norm("model.norm", hidden)) @ self.matrix(name, 8).T
        return _soft_cap(logits, self.config.logit_softcap)

    def layer(self, layer: int, hidden: Tensor) -> Tensor:
        config, prefix = self.config, f"model.layers.{layer}"
        attended = self.attention(layer, self.norm(f"{prefix}.input_layernorm", hidden))
        if config.post_norms:
            attended = self.norm(f"{prefix}.post_attention_layernorm", attended)
        hidden = hidden + attended
        second = "pre_feedforward_layernorm" if config.post_norms else "post_attention_layernorm"
        inputs = self.norm(f"{prefix}.{second}", hidden)
        activation: Callable[[Tensor], Tensor] = {
            "silu": torch.nn.functional.silu,
            "gelu": torch.nn.functional.gelu,
            "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        }[config.activation]
        gated = activation(self.linear(f"{prefix}.mlp.gate_proj", inputs))
        out = self.linear(f"{prefix}.mlp.down_proj", gated * self.linear(f"{prefix}.mlp.up_proj", inputs))
        if config.post_norms:
            out = self.norm(f"{prefix}.post_feedforward_layernorm", out)
        return hidden + out

    def attention(self, layer: int, inputs: Tensor) -> Tensor:
        config, prefix, count = self.config, f"model.layers.{layer}.self_attn", len(inputs)
        heads = {
            name: self.linear(f"{prefix}.{name}_proj", inputs).view(count, -1, config.head_dim)
            for name in "qkv"
        }
        if config.qk_norm:
            heads["q"] = self.norm(f"{prefix}.q_norm", heads["q"])
            heads["k"] = self.norm(f"{prefix}.k_norm", heads["k"])
        cosines, sines = rope_tables(config, config.theta(layer), count)
        scale = config.query_scale or config.head_dim**-0.5
        queries = self.round_cache(_rotate(heads["q"], cosines, sines) * scale)
        keys = self.round_cache(_rotate(heads["k"], cosines, sines))
        group = config.num_heads // config.num_kv_heads
        keys = keys.repeat_interleave(group, dim=1)
        values = self.round_cache(heads["v"]).repeat_interleave(group, dim=1)
        scores = _soft_cap(torch.einsum("qhd,khd->hqk", queries, keys), config.attention_softcap)
        distance = torch.arange(count)[:, None] - torch.arange(count)[None, :]
        unseen = distance < 0
        if window := config.window(layer):
            unseen |= distance >= window
        attended = torch.einsum("hqk,khd->qhd", scores.masked_fill(unseen, -torch.inf).softmax(-1), values)
        return self.linear(f"{prefix}.o_proj", attended.flatten(1))

    def linear(self, name: str, inputs: Tensor) -> Tensor:
        out = self.round_inputs(inputs) @ self.matrix(name, 4).T
        bias = self.weights.get(f"{name}.bias")
        return out if bias is None else out + dense(bias)

    def matrix(self, name: str, plain_bits: int) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        if self.dtype in ("int4", "int8"):
            if weight.shape[1] % 32:
                return dense(weight).bfloat16().float()
            bits = 8 if self.dtype == "int8" else plain_bits
            return dense(weight if isinstance(weight, QuantizedMatrix) else quantize(weight, bits))
        matrix = dense(weight)
        return matrix.bfloat16().float() if self.dtype == "bfloat16" else matrix

    def round_inputs(self, inputs: Tensor) -> Tensor:
        if self.dtype == "float32":
            return inputs
        if self.dtype == "bfloat16" or inputs.shape[1] % 32:
            return inputs.bfloat16().float()
        blocks = inputs.view(len(inputs), -1, 32)
        largest = blocks.abs().amax(-1, keepdim=True)
        levels = (blocks * (self.largest_level / largest)).nan_to_num().round()
        return (levels * (largest / self.largest_level)).view_as(inputs)

    def round_cache(self, rows: Tensor) -> Tensor:
        return rows if self.dtype == "float32" else rows.bfloat16().float()

    def norm(self, name: str, rows: Tensor) -> Tensor:
        weight = dense(self.weights[f"{name}.weight"]) + float(self.config.norm_plus_one)
        return rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + self.config.norm_eps) * weight


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    half = cosines.shape[1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    cosines, sines = cosines[:, None], sines[:, None]
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines, rest], dim=-1)


def _soft_cap(values: Tensor, cap: float) -> Tensor:
    return torch.tanh(values / cap) * cap if cap else values


def mean_error(got: Tensor, expected: Tensor) -> float:
    """Mean error in units of the expected values' spread."""
    error = float((got - expected).abs().mean() / expected.std())
    return math.inf if math.isnan(error) else error
