"""The settings of a fit of Big Little Decoder's thresholds; see :mod:`ventris.train.thresholds`."""

from __future__ import annotations

from pydantic import BaseModel, Field, field_validator

from ventris.train.settings import TargetSettings


class GridSettings(BaseModel):
    """Which pairs of thresholds are tried, and how."""

    confidences: list[float] = Field(
        [0.0, 0.3, 0.5, 0.7, 0.9], min_length=1, description="probabilities below which the small model stops"
    )
    distances: list[float] = Field(
        [1.0, 2.0, 3.0, 5.0],
        min_length=1,
        description="nats above which the target rolls back; 0 is tried as well",
    )
    loss: float = Field(1.0, ge=0, description="points of quality, of 100, that may be lost")
    depth: int = Field(10, ge=1, le=64, description="tokens that the small model writes in a row at most")
    max_new_tokens: int = Field(64, ge=2, description="tokens of an answer at most")
    answer_batch: int = Field(8, ge=1, description="prompts answered side by side")

    @field_validator("confidences", "distances")
    @classmethod
    def _check_thresholds(cls, given: list[float]) -> list[float]:
        if min(given) < 0:
            raise ValueError("no threshold may be below 0")
        return sorted(set(given))


class ThresholdSettings(GridSettings, TargetSettings):
    """The thresholds of Big Little Decoder for a pair of models."""

    draft: str = Field(
        description="the small model, as for generate: aligned, aligned:FOLDER or model:FOLDER"
    )
    out: str = Field(description="YAML file of settings to write")
    data: str | None = Field(
        None,
        description="JSONL with a prompt, and the answer that it is scored against by ROUGE-L (the target's "
        "own if not given), in each line; generated tasks with right and wrong answers when not given",
    )
    limit: int | None = Field(None, ge=2, description="prompts used; all when not given")
    tasks: int = Field(120, ge=2, description="generated tasks; none of them is ever trained on")
    seed: int = Field(0, ge=0, description="start of the generated tasks")
