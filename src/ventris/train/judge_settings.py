"""The settings of a judge, which learns from marked answers and not from texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ventris.engine.errors import BadInput
from ventris.train.settings import PlaceSettings


class JudgeSettings(PlaceSettings):
    """A judge of drafted tokens: one logistic unit on the target's hidden rows."""

    data: str | None = Field(
        None,
        description="JSONL with question and answer, and wrong_at (place of the first wrong character) where "
        "the answer goes wrong; or worked problems as in GSM8K; beside the generated tasks",
    )
    limit: int | None = Field(None, ge=1, description="lines of the data used; all when not given")
    tasks: int = Field(500, ge=0, description="generated questions with known critical words")
    families: list[str] = Field(default_factory=list, description="families of generated tasks; all if empty")
    left_out: list[str] = Field(
        default_factory=list, description="families that nothing is learnt from, to see what that costs"
    )
    labels: Literal["marked", "swaps", "both"] = Field(
        "marked",
        description="marked: right answers and broken ones whose first wrong token is known; swaps: a "
        "drafter's tokens in place of the target's, wrong where the answer then ends wrong; or both",
    )
    draft: str | None = Field(None, description="drafter whose refused tokens are swapped in")
    swaps: int = Field(6, ge=1, description="swaps tried in an answer at most")
    after: Literal["ignored", "wrong"] = Field(
        "ignored", description="what the tokens behind the first wrong one of a broken answer count as"
    )
    max_new_tokens: int = Field(48, ge=4, description="tokens of an answer at most")
    answer_batch: int = Field(16, ge=1, description="questions answered side by side")

    layer: int | None = Field(
        None, ge=0, description="whose inputs the judge reads; the final norm's if not given"
    )
    weighted: bool = Field(True, description="weigh right and wrong tokens so that both sum to the same")
    penalties: list[float] = Field(
        [1.0, 0.1, 0.01, 1e-3, 1e-4],
        min_length=1,
        description="squared-weight penalties tried; the best on held-out questions stays",
    )
    caught: float = Field(0.9, gt=0, le=1, description="share of wrong tokens that the threshold must refuse")
    held_out: float = Field(0.2, gt=0, lt=1, description="share of the questions kept for measuring")
    seed: int = Field(0, ge=0, description="start of every random stream")

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            BadInput: naming them.
        """
        if not self.tasks and self.data is None:
            raise BadInput("there is nothing to learn from; give --data, or --tasks above 0")
        if self.labels != "marked" and (self.draft is None or not self.tasks):
            raise BadInput(
                f"--labels {self.labels} tries out what a drafter says on generated tasks; give --draft, and "
                "--tasks above 0"
            )

    def examples(self) -> dict[str, Any]:
        """The settings that the labelled rows depend on; of files their names alone."""
        names = {"limit", "tasks", "families", "labels", "draft", "swaps", "max_new_tokens", "layer", "seed"}
        return self.model_dump(include=names)

    def deciding(self) -> dict[str, Any]:
        """The settings that the result depends on; of files their names alone."""
        places = {"out", "cache", "device", "threads", "answer_batch"}
        files = {
            "data": Path(self.data).name if self.data else None,
            "draft": re.sub(r"[^\s,:=\"']*/", "", self.draft) if self.draft else None,
        }
        return self.model_dump(exclude=places) | files
