"""An answer as one JSON object, for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ventris.engine.request import Completion
    from ventris.models.tokenizer import Tokenizer


def answer_object(completion: Completion, model: str, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Everything about an answer in plain dictionaries, lists, strings and numbers."""
    stats = completion.stats
    answer: dict[str, Any] = {
        "model": model,
        "text": completion.text,
        "tokens": list(completion.tokens),
        "finish_reason": completion.finish_reason,
        "guarantee": asdict(completion.guarantee) if completion.guarantee is not None else None,
        "stats": {
            **asdict(stats),
            "tokens_per_second": stats.tokens_per_second,
            "tokens_per_step": stats.tokens_per_step,
            "acceptance": stats.acceptance,
        },
    }
    if completion.valid is not None:
        answer["valid"] = completion.valid
    if completion.logprobs is not None:
        answer["logprobs"] = [
            {
                **_scored(entry.token, entry.logprob, tokenizer),
                "top": [_scored(token, logprob, tokenizer) for token, logprob in entry.top],
            }
            for entry in completion.logprobs
        ]
    return answer


def print_json(value: Any, indent: int | None = 2) -> None:
    """One JSON value on stdout; numbers that JSON has no word for become null."""
    print(json.dumps(_finite(value), ensure_ascii=False, indent=indent, allow_nan=False))


def _scored(token: int, logprob: float, tokenizer: Tokenizer | None) -> dict[str, Any]:
    spelled = {} if tokenizer is None else {"text": tokenizer.decode([token], special=True)}
    return {"token": token, **spelled, "logprob": logprob}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
