"""What a loaded model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ventris.models.parameter_count import parameter_count

if TYPE_CHECKING:
    from ventris.model import Model


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
