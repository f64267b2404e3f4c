"""The settings of Medusa-2, which has two phases and a target to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ventris.train.settings import MedusaSettings


class Medusa2Settings(MedusaSettings):
    """Medusa-2: heads and target tuned together, the target by low-rank changes."""

    start: str | None = Field(
        None, description="folder of Medusa heads for the target to go on from; trained first if not given"
    )
    head_steps: int = Field(1000, ge=0, description="steps in which heads alone learn, before both do")
    head_learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of these steps")
    head_factor: float = Field(
        4.0, gt=0, description="learning rate of the heads as a multiple of the target's, when both learn"
    )
    base_loss: Literal["kl", "cross_entropy"] = Field(
        "kl",
        description="what keeps the target as it was: kl to itself without changes (self-distillation), or "
        "cross_entropy with the text",
    )
    head_weight: float | None = Field(
        None, gt=0, description="factor on the heads' loss at the end; 0.01 with kl, 0.2 with cross_entropy"
    )
    rank: int = Field(32, ge=1, description="rank of the changes of each matrix")
    alpha: float = Field(16.0, gt=0, description="the changes are scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description="share of a change's input dropped in training")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of the target's changes")
    batch: int = Field(4, ge=1, description="windows of a step")
    positions: int = Field(256, ge=1, description="positions of a step whose guesses are scored, at most")

    def first(self) -> Medusa2Settings:
        """The settings of the steps in which heads alone learn."""
        return self.model_copy(
            update={"steps": self.head_steps, "learning_rate": self.head_learning_rate, "head_factor": 1.0}
        )

    def weight_of_heads(self) -> float:
        """The factor on the heads' loss with the paper's choices filled in."""
        return self.head_weight or {"kl": 0.01, "cross_entropy": 0.2}[self.base_loss]

    def rate_factor(self, parameter: str) -> float:
        return self.head_factor if parameter.startswith("heads.") else 1.0

    def deciding(self) -> dict[str, Any]:
        return super().deciding() | {"start": self.start and Path(self.start).name}
