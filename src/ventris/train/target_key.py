"""What the training cache knows a target by: everything that its answers and its rows depend on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from ventris.draft.target_sketch import TargetSketch
from ventris.model import Model
from ventris.models.embedded import EMBEDDED_NAME
from ventris.models.source import ModelSource
from ventris.models.weights import Weights, dense_rows

ROWS = 16
"""Rows of each matrix that go into a digest: tuning, low-rank changes too, leaves next to none as it was."""


@dataclass(frozen=True, slots=True)
class TargetKey:
    """A target in one number format.

    Attributes:
        target: Digest of sizes, tokenizer, embedding and weights.
        kind: Number format and kernels.
    """

    target: str
    kind: str

    @classmethod
    def of(cls, model: Model, sketch: TargetSketch) -> TargetKey:
        """The key of a model whose target has this sketch."""
        kind = "-".join(str(getattr(model.target, name, "")) for name in ("dtype", "kernel"))
        source = model.source
        if source is None or source.name == EMBEDDED_NAME:
            # The embedded model is one file whose checksum is known, so its sketch says all.
            return cls(sketch.digest, kind)
        both = f"{sketch.digest} {_weights_of(source)}"
        return cls(hashlib.sha256(both.encode()).hexdigest()[:16], kind)


def _weights_of(source: ModelSource) -> str:
    # What only transformers can run has no weights to look into.
    return source.fingerprint if source.config is None else weights_digest(source.weights)


def weights_digest(weights: Weights) -> str:
    """Digest of all vectors and of :data:`ROWS` rows of every matrix, wherever their file lies."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = weights[name]
        chosen = torch.arange(weight.shape[0])
        if len(weight.shape) > 1:
            chosen = torch.arange(ROWS) * (len(chosen) - 1) // (ROWS - 1)
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(dense_rows(weight, chosen).numpy().tobytes())
    return digest.hexdigest()
