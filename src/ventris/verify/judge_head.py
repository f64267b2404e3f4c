"""The judge: one logistic unit on the target's own hidden rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6
"""Keeps a row of zeros finite."""


class JudgeHead(nn.Module):
    """The probability that a token is right where it stands, from the row that has read it.

    Bachmann et al. 2025, section 4: as many weights as the hidden row has numbers. A row is brought to a root
    mean square of 1 first, as the target's final norm does; that norm's own weights are part of these.

    Args:
        hidden: Width of a row.
        layer: Which of the target's rows are read (see :class:`~ventris.engine.target.Scores`).
    """

    def __init__(self, hidden: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.sizes: dict[str, Any] = {"hidden": hidden, "layer": layer}
        self.unit = nn.Linear(hidden, 1)

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Tensor:
        """Rows ``[n, hidden]`` to probabilities, float32 ``[n]``."""
        scores: Tensor = self.unit(scaled(rows)).squeeze(-1).sigmoid()
        return scores


def scaled(rows: Tensor) -> Tensor:
    """Rows with a root mean square of 1, float32 ``[n, hidden]``."""
    return F.rms_norm(rows.float(), rows.shape[-1:], eps=EPS)
