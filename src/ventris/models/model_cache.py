"""What is kept of a model between runs: its description, its tokenizer, and its packed weights.

``packed/<fingerprint>/`` holds ``model.json`` (configuration, special tokens, chat templates),
``tokenizer.json``, and one ``weights-<dtype>-v<version>.bin`` for each form in which the native runtime has
run the model. With these a warm start reads neither the checkpoint's tensors nor its metadata.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers

from ventris.models.cache_folder import cache_folder, written_whole
from ventris.models.config import DecoderConfig, RopeScaling
from ventris.models.tokenizer import Tokenizer, TokenizerFacts

_LAYOUT = 1
"""Raised when the meaning of ``model.json`` changes; older entries are then written anew."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a model is, without its weights.

    Attributes:
        config: ``None`` for a model that only transformers can run.
        bits: Bits in which the checkpoint keeps most of its weights without loss: 4, 8, or 16.
    """

    config: DecoderConfig | None
    tokenizer: Tokenizer
    bits: int


class CacheEntry:
    """The cached files of the model with one fingerprint; nothing is created before something is saved."""

    def __init__(self, fingerprint: str) -> None:
        self.folder = cache_folder() / "packed" / fingerprint

    def weights_file(self, dtype: str, version: object) -> Path:
        """Where the weights packed for ``dtype`` by this version of the runtime belong."""
        return self.folder / f"weights-{dtype}-v{version}.bin"

    def load(self) -> Description | None:
        """The saved description; ``None`` if there is none, or it is damaged or of another layout."""
        try:
            stored = json.loads((self.folder / "model.json").read_bytes())
            if stored["layout"] != _LAYOUT:
                return None
            backend = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            config = stored["config"]
            return Description(
                _config(config) if config is not None else None,
                Tokenizer(backend, _facts(stored["tokenizer"])),
                int(stored["bits"]),
            )
        except Exception:  # whatever is wrong with a cached file, the remedy is the same: make it anew
            return None

    def save(self, description: Description) -> None:
        """Keep a description for the next start.

        Raises:
            OSError: if the folder cannot be written; nothing half-written is left.
        """
        config = description.config
        stored = {
            "layout": _LAYOUT,
            "config": asdict(config) if config is not None else None,
            "tokenizer": asdict(description.tokenizer.facts),
            "bits": description.bits,
        }
        with written_whole(self.folder / "tokenizer.json") as temporary:
            temporary.write_text(description.tokenizer.backend.to_str(), encoding="utf-8")
        with written_whole(self.folder / "model.json") as temporary:
            temporary.write_text(json.dumps(stored), encoding="utf-8")


def _config(stored: dict[str, Any]) -> DecoderConfig:
    scaling = stored.pop("rope_scaling")
    return DecoderConfig(rope_scaling=RopeScaling(**_tuples(scaling)), **_tuples(stored))


def _facts(stored: dict[str, Any]) -> TokenizerFacts:
    return TokenizerFacts(**_tuples(stored))


def _tuples(stored: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, and the descriptions hold no lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
