"""The weights of a decoder: their names in a transformers checkpoint and their shapes."""

from __future__ import annotations

from ventris.models.config import DecoderConfig

Shape = tuple[int, ...]


def weight_shapes(config: DecoderConfig) -> dict[str, Shape]:
    """Every weight that the runtimes ask for, by name, with its shape."""
    hidden = config.hidden_size
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    layer = _layer_shapes(config)
    for index in range(config.num_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config.tied_head:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def _layer_shapes(config: DecoderConfig) -> dict[str, Shape]:
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = {
        "self_attn.q_proj": ((queries, hidden), config.qkv_bias),
        "self_attn.k_proj": ((keys, hidden), config.qkv_bias),
        "self_attn.v_proj": ((keys, hidden), config.qkv_bias),
        "self_attn.o_proj": ((hidden, queries), config.output_bias),
        "mlp.gate_proj": ((inner, hidden), config.mlp_bias),
        "mlp.up_proj": ((inner, hidden), config.mlp_bias),
        "mlp.down_proj": ((hidden, inner), config.mlp_bias),
    }
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.cross_attention:
        norms.append("cross_attention_layernorm")
        matrices["cross_attn.q_proj"] = ((queries, hidden), config.qkv_bias)
        matrices["cross_attn.o_proj"] = ((hidden, queries), config.output_bias)
    if config.post_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    shapes: dict[str, Shape] = {f"{norm}.weight": (hidden,) for norm in norms}
    if config.qk_norm:
        shapes |= {f"self_attn.{part}_norm.weight": (config.head_dim,) for part in "qk"}
    for name, (shape, biased) in matrices.items():
        shapes[f"{name}.weight"] = shape
        if biased:
            shapes[f"{name}.bias"] = shape[:1]
    return shapes
