"""Models beside the target: draft models, and those that guides ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ventris.engine.errors import BadInput

if TYPE_CHECKING:
    from ventris.engine.target import Target
    from ventris.models.load import DType
    from ventris.models.tokenizer import Tokenizer


class FurtherModels:
    """Loads models beside a target, each once.

    Args:
        target: They are to speak its vocabulary.
        tokenizer: Its tokenizer; without one, sizes alone are compared.
        load: Loads by name and ``dtype``; ``None`` where nothing can be loaded.
    """

    def __init__(
        self,
        target: Target,
        tokenizer: Tokenizer | None,
        load: Callable[..., tuple[Target, Any, Any]] | None,
    ) -> None:
        self._target = target
        self._tokenizer = tokenizer
        self._load = load
        self._loaded: dict[str, Target] = {}

    def get(self, name: str, dtype: DType = "auto", any_size: bool = False) -> Target:
        """As :meth:`ventris.model.Model.further_model`."""
        key = f"{name} {dtype}"
        if key in self._loaded and (any_size or self._fits(self._loaded[key])):
            return self._loaded[key]
        if self._load is None:
            raise BadInput(f"cannot load the draft model {name!r}: this model was not loaded by name")
        model, tokenizer, _ = self._load(name, dtype=dtype)
        if self._tokenizer is not None and tokenizer.fingerprint != self._tokenizer.fingerprint:
            raise BadInput(
                f"the draft model {name!r} has another tokenizer than the target; "
                "drafts are token ids, so both must share one vocabulary"
            )
        if not any_size and not self._fits(model):
            raise BadInput(
                f"the draft model {name!r} has {model.vocab_size} tokens and the target "
                f"{self._target.vocab_size}; both must share one vocabulary"
            )
        self._loaded[key] = model
        return model

    def _fits(self, model: Target) -> bool:
        return model.vocab_size == self._target.vocab_size
