"""The description of a decoder-only transformer that the native runtime can run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

LONGEST_CONTEXT = 2**24
"""Tokens a model may be configured for; beyond that the rotary tables alone would fill the memory."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched past the trained context.

    ``kind`` follows transformers' ``rope_type``; the other fields keep the names of ``config.json``.

    Attributes:
        factor: How far the checkpoint stretches its context. For longrope the ratio of its two lengths; only
            the attention factor follows from it.
        original_context: The trained context in tokens; 0 for that of the configuration.
    """

    kind: Literal["none", "linear", "dynamic", "llama3", "yarn", "longrope"] = "none"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes and switches of a Llama-like decoder.

    Every family that the runtime takes (Llama, SmolLM2, Mistral, Qwen2, Qwen3, Gemma 2 and 3, Phi-3)
    is this one block with switches, not a class of its own.

    Attributes:
        family: Name of the family, for messages only; nothing branches on it.
        sliding_window: Keys at most this many positions back are seen, in the layers where
            ``window_layers`` is true; 0 for none.
        norm_plus_one: The norm multiplies by ``1 + weight`` (Gemma).
        post_norms: Extra norms after attention and after the feed-forward block (Gemma 2 and 3).
        qk_norm: RMS norm over each head of queries and keys (Qwen3, Gemma 3).
        embedding_scale: Factor on the embeddings (Gemma: square root of the hidden size).
        query_scale: Factor on the attention scores; normally ``head_dim ** -0.5``.
        rope_local_theta: Base for the window layers, where it differs (Gemma 3); 0 for the same.
        rotary_dim: Leading dimensions of a head that are rotated.
        token_beside_hidden: Attention reads the embedding of each node's token, normed by itself, beside the
            hidden row (EAGLE-3). Such a decoder starts from given hidden rows.
        cross_attention: Behind attention each layer has a second one, to the rows of :attr:`Rows.lent` and to
            nothing else (LongSpec). Its queries are rotated as those of the first.
        borrowed_embedding: There is no embedding among the weights; that of another decoder is read.
        head_size: Tokens that the head scores where they are not the whole vocabulary; 0 where they are.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_local_theta: float = 0.0
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    rotary_dim: int = 0
    tied_head: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_plus_one: bool = False
    post_norms: bool = False
    activation: Literal["silu", "gelu_tanh", "gelu"] = "silu"
    sliding_window: int = 0
    window_layers: tuple[bool, ...] = ()
    query_scale: float = 0.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    token_beside_hidden: bool = False
    cross_attention: bool = False
    borrowed_embedding: bool = False
    head_size: int = 0
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def window(self, layer: int) -> int:
        """Sliding window of a layer in positions; 0 when it sees everything."""
        return self.sliding_window if self.window_layers and self.window_layers[layer] else 0

    def theta(self, layer: int) -> float:
        """Rotary base of a layer."""
        local = self.rope_local_theta and self.window(layer)
        return self.rope_local_theta if local else self.rope_theta

    def with_layers(self, first: int, last: int) -> DecoderConfig:
        """Layers ``first .. last - 1`` of the model as one of their own."""
        windows = self.window_layers[first:last]
        return replace(self, num_layers=last - first, window_layers=windows)

    def with_context_length(self, tokens: int) -> DecoderConfig:
        """The same model for another longest text; scaling that depends on the length follows."""
        scaling = self.rope_scaling
        if scaling.kind == "dynamic" and not scaling.original_context:
            # What the checkpoint says is the trained context, whatever is in use.
            scaling = replace(scaling, original_context=self.context_length)
        return replace(self, context_length=tokens, rope_scaling=scaling)
