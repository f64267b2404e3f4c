"""How many numbers a decoder's weights are."""

from __future__ import annotations

from ventris.models.config import DecoderConfig


def parameter_count(config: DecoderConfig) -> int:
    """Numbers in the weights of a decoder; shared ones are counted once, borrowed ones not at all."""
    hidden, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads * head, config.num_kv_heads * head
    embedding = 0 if config.borrowed_embedding else config.vocab_size * hidden
    scored = 0 if config.tied_head else (config.head_size or config.vocab_size) * hidden
    layer = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * inner
    layer += (queries + 2 * keys) * config.qkv_bias + hidden * config.output_bias
    layer += (2 * inner + hidden) * config.mlp_bias
    layer += hidden * (4 if config.post_norms else 2) + 2 * head * config.qk_norm
    return embedding + scored + config.num_layers * layer + hidden
