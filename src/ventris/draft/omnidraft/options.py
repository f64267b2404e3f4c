"""The options of OmniDraft, declared once for Python, the command line and the docs."""

from __future__ import annotations

from pydantic import BaseModel, Field

from ventris.draft.omnidraft.learner import Divergence, MergedWeight
from ventris.draft.omnidraft.teaching import Schedule


class OmniDraftOptions(BaseModel):
    """Options of OmniDraft."""

    model: str | None = Field(
        None,
        description="name, folder or .gguf of the draft model; its tokenizer may be any. The one that comes "
        "with Ventris if not given",
    )
    depth: int = Field(6, ge=1, le=64, description="tokens of its own that are drafted ahead at most")
    stop: float = Field(
        0.6, gt=0, le=1, description="chance of a refusal beyond which drafting stops; 1 for a fixed length"
    )
    draw: bool = Field(
        False, description="draw drafts at temperature > 0, as translated-rejection needs; else the best"
    )
    merge: bool = Field(True, description="learn which of its tokens the target writes as one")
    learn: Schedule = Field("background", description="background, between (repeatable, slower) or off")
    rank: int = Field(16, ge=0, le=512, description="of the changes to each matrix; 0 trains all weights")
    learning_rate: float | None = Field(
        None, gt=0, description="of learning; 5e-4 for changes of some rank, 1e-4 for all weights"
    )
    merged_weight: MergedWeight = Field(
        0.2,
        description="of the loss on merged tokens (lambda); target for how likely the target finds each",
    )
    divergence: Divergence = Field(
        "forward", description="of draft model and target, made small by learning; the paper's is the reverse"
    )
    user: str = Field(
        "default", pattern=r"^[A-Za-z0-9][\w.-]*$", description="whose requests; each has a memory of its own"
    )
    memory: str | None = Field(
        None, description="folder for what is learnt, or none; in Ventris's own cache if not given"
    )
    disk: float = Field(64, gt=0, description="megabytes that one user's memory may take")
