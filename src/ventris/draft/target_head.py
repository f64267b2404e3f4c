"""The part of a target's head that draft heads share: its final norm, and the rows of the listed tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ventris.draft.shortlist import Shortlist
from ventris.engine.errors import BadInput
from ventris.models.source import ModelSource
from ventris.models.weights import dense, dense_rows


@dataclass(frozen=True, slots=True)
class TargetHead:
    """Final norm and vocabulary rows, frozen.

    Attributes:
        norm: Weight of the final RMS norm, float32 ``[d]``.
        eps: Its epsilon.
        rows: W_lm of the listed tokens, float32 ``[shortlist, d]``.
    """

    norm: Tensor
    eps: float
    rows: Tensor

    @classmethod
    def of(cls, source: ModelSource, shortlist: Shortlist) -> TargetHead:
        """Read it from a checkpoint.

        Raises:
            BadInput: for a model that only transformers can run.
        """
        config, weights = source.config, source.weights
        if config is None:
            raise BadInput(f"{source.name} can only be run by transformers; heads need the native families")
        norm = dense(weights["model.norm.weight"]) + float(config.norm_plus_one)
        matrix = weights["model.embed_tokens.weight" if config.tied_head else "lm_head.weight"]
        return cls(norm, config.norm_eps, dense_rows(matrix, shortlist.ids))

    def normed(self, hidden: Tensor) -> Tensor:
        """Final-normed rows of last-layer outputs, float32 ``[..., d]``."""
        return rms_norm(hidden, self.norm, self.eps)

    def to(self, device: torch.device) -> TargetHead:
        return TargetHead(self.norm.to(device), self.eps, self.rows.to(device))


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm over the last axis in float32."""
    return F.rms_norm(hidden.float(), weight.shape, weight, eps)
