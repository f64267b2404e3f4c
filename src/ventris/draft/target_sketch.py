"""What tells one target from another, whatever file and number format it was loaded from.

Drafts of heads that belong to another model would still be verified, so outputs would stay right; they would
only be useless. That is worth one clear refusal.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ventris.draft.tuning import Tuning
from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target
from ventris.models.source import ModelSource
from ventris.models.weights import dense_rows

PROBES = 16
"""Tokens whose embeddings are sampled, spread over the vocabulary."""

COLUMNS = 16
"""Numbers sampled of each embedding."""

TOLERANCE = 0.05
"""Relative difference that number formats may make: 0.4 % for bfloat16, 0.5 % for 8-bit blocks."""

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class TargetSketch:
    """Sizes of a target and a sample of its embedding.

    The sample is taken from what :meth:`Target.embed` returns, so it is of the dequantised weights, and is
    compared with a tolerance: float32, bfloat16 and 8-bit forms of one model agree. A fine-tuned model that
    left the embedding alone passes too; heads of its base do draft for it, only less well. Heads that were
    tuned together with their target bring what tells it from its base.

    Attributes:
        tokenizer: Fingerprint of the tokenizer; empty where the target came without one.
        embedding: Numbers of some tokens' embeddings, :data:`PROBES` x :data:`COLUMNS` at most.
        tuning: Where the target was tuned from another: what tells them apart.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    tokenizer: str
    embedding: tuple[float, ...]
    tuning: Tuning | None = None

    @classmethod
    def of(cls, target: Target, tokenizer: str = "") -> TargetSketch:
        """Take the sketch of a target."""
        rows = embedding_rows(target, _probes(target.vocab_size))
        return cls(target.vocab_size, target.hidden_size, target.num_layers, tokenizer, _sample(rows))

    @classmethod
    def of_source(cls, source: ModelSource) -> TargetSketch:
        """The same of a model that nobody runs.

        Raises:
            BadInput: for a model that only transformers can run.
        """
        config, matrix = source.config, source.weights["model.embed_tokens.weight"]
        assert config is not None  # or there were no weights
        rows = dense_rows(matrix, torch.tensor(_probes(config.vocab_size))) * config.embedding_scale
        sizes = config.vocab_size, config.hidden_size, config.num_layers
        return cls(*sizes, source.tokenizer.fingerprint, _sample(rows))

    @classmethod
    def read(cls, stored: dict[str, Any]) -> TargetSketch:
        """From the ``target`` entry of a checkpoint's ``config.json``."""
        tuning = stored.get("tuning") and Tuning.read(stored["tuning"])
        return cls(**{**stored, "embedding": tuple(stored["embedding"]), "tuning": tuning})

    def difference(self, other: TargetSketch) -> str:
        """In which way ``other`` is not the same target, in words; empty if it is."""
        for name in ("vocab_size", "hidden_size", "num_layers"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name.replace('_', ' ')} {theirs} in place of {mine}"
        if self.tokenizer and other.tokenizer and self.tokenizer != other.tokenizer:
            return "another tokenizer"
        apart = math.dist(self.embedding, other.embedding)
        size = math.hypot(*self.embedding)
        return f"other weights ({apart / size:.0%} apart)" if apart > TOLERANCE * size else ""

    def mismatch(self, target: Target, tokenizer: str = "") -> str:
        """In which way a target is another one, in words; empty if it is this."""
        if difference := self.difference(TargetSketch.of(target, tokenizer)):
            return difference
        untuned = self.tuning is not None and self.tuning.share(target) < 0.5
        return "the weights from before it was tuned" if untuned else ""

    def check(self, target: Target, what: str, tokenizer: str = "") -> None:
        """Refuse a target that this sketch is not of.

        Raises:
            BadInput: naming ``what`` was made for another target, and the difference.
        """
        self._refuse(self.mismatch(target, tokenizer), what)

    def check_source(self, source: ModelSource, what: str) -> None:
        """As :meth:`check`, of a model that nobody runs; what tuning changed is not looked at.

        Raises:
            BadInput: as :meth:`check`, and for a model that only transformers can run.
        """
        self._refuse(self.difference(TargetSketch.of_source(source)), what)

    def _refuse(self, difference: str, what: str) -> None:
        if difference:
            raise BadInput(
                f"{what} was trained for another target: this one has {difference}; train one with "
                "'ventris train', or load the model that it belongs to"
            )

    @property
    def digest(self) -> str:
        """Key for what depends on all that a sketch holds; of the weights that is the embedding alone."""
        return hashlib.sha256(json.dumps(self.stored()).encode()).hexdigest()[:16]

    def stored(self) -> dict[str, Any]:
        """For a checkpoint's ``config.json``."""
        facts = asdict(self)
        return facts if self.tuning else {name: facts[name] for name in facts if name != "tuning"}


def _probes(vocab_size: int) -> list[int]:
    return sorted({i * (vocab_size - 1) // (PROBES - 1) for i in range(PROBES)})


def _sample(rows: Tensor) -> tuple[float, ...]:
    """Of the probes' embeddings ``[n, hidden]``."""
    sample = rows[:, :: max(rows.shape[1] // COLUMNS, 1)][:, :COLUMNS]
    return tuple(float(f"{x:.6g}") for x in sample.flatten().tolist())


@torch.no_grad()
def embedding_rows(target: Target, tokens: Sequence[int]) -> Tensor:
    """What the target's first layer reads for these tokens, float32 ``[n, hidden]`` on its device."""
    cache = target.new_cache(1)
    parts = []
    for first in range(0, len(tokens), _CHUNK):
        # All of them follow the empty prefix, so however many there are, none stands past the context.
        some = list(tokens[first : first + _CHUNK])
        parts.append(target.embed([Rows(cache, some, [-1] * len(some))]).float())
    cache.release()
    return torch.cat(parts)
