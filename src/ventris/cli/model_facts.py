"""What a loaded model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ventris.model import Model
    from ventris.models.config import DecoderConfig


def model_facts(model: Model) -> dict[str, Any]:
    """Name, family, sizes and number format; ``None`` for what is not known."""
    target, source, tokenizer = model.target, model.source, model.tokenizer
    config = source.config if source is not None else None
    return {
        "name": source.name if source is not None else type(target).__name__,
        "family": config.family if config is not None else None,
        "parameters": parameter_count(config) if config is not None else None,
        "layers": target.num_layers,
        "dtype": str(getattr(target, "dtype", "unknown")).removeprefix("torch."),
        "runtime": f"{type(target).__name__} {getattr(target, 'kernel', '')}".strip(),
        "threads": getattr(target, "threads", None),
        "weight_bytes": getattr(target, "weight_bytes", None),
        "context": target.context_length,
        "vocabulary": target.vocab_size,
        "tokenizer": tokenizer.vocab_size if tokenizer is not None else None,
        "chat_template": tokenizer.has_chat_template if tokenizer is not None else None,
        "fingerprint": source.fingerprint if source is not None else None,
    }


def parameter_count(config: DecoderConfig) -> int:
    """Numbers in the weights of a decoder, shared ones counted once."""
    hidden, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_heads * head, config.num_kv_heads * head
    embedding = config.vocab_size * hidden
    layer = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * inner
    layer += (queries + 2 * keys) * config.qkv_bias + hidden * config.output_bias
    layer += (2 * inner + hidden) * config.mlp_bias
    layer += hidden * (4 if config.post_norms else 2) + 2 * head * config.qk_norm
    return embedding * (1 if config.tied_head else 2) + config.num_layers * layer + hidden
