"""Draft as long as enough is kept, whatever it costs: what goodput is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from ventris.engine.parts import NO_DRAFT, Budget, DraftRecord, Load
from ventris.engine.tree import TokenTree
from ventris.policy.acceptance import Acceptance, judged

FIRST_ACCEPTANCE = 0.7
PRIOR_WEIGHT = 2.0
FORGETTING = 0.95


@dataclass(slots=True)
class _Known:
    """What is remembered about one request.

    Attributes:
        silent: Steps since it was last drafted for.
        drafted: The drafter proposed something in this step.
    """

    acceptance: Acceptance = field(default_factory=lambda: Acceptance(FORGETTING))
    silent: int = 0
    drafted: bool = False


class AcceptanceThreshold:
    """A fixed draft length while the estimated acceptance is high enough, one token now and then otherwise.

    A controller that watches acceptance alone: it cannot tell an idle machine from a busy one.

    Args:
        threshold: Least share of drafted tokens that must be kept.
        length: Tokens drafted ahead while it is.
        retry: Steps without a draft after which one token is tried.
    """

    name = "acceptance"

    class Options(BaseModel):
        """Options of the acceptance policy."""

        threshold: float = Field(0.5, ge=0, le=1, description="least acceptance at which to draft")
        length: int = Field(5, ge=1, le=64, description="tokens drafted ahead")
        retry: int = Field(16, ge=1, description="steps without a draft after which one token is tried")

    def __init__(self, threshold: float = 0.5, length: int = 5, retry: int = 16) -> None:
        self.threshold = threshold
        self.length = length
        self.retry = retry

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        return [self._plan_one(record) for record in records]

    def _plan_one(self, record: DraftRecord) -> Budget:
        known = _knowledge(record)
        known.drafted = False
        enough = known.acceptance.rate(FIRST_ACCEPTANCE, PRIOR_WEIGHT) >= self.threshold
        due = known.silent + 1 >= self.retry
        known.silent = 0 if enough or due else known.silent + 1
        if enough:
            return Budget(self.length, self.length)
        return Budget(1, 1) if due else NO_DRAFT

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        for record, tree in zip(records, trees, strict=True):
            _knowledge(record).drafted = len(tree) > 1
        return list(trees)

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        known = _knowledge(record)
        drafted, known.drafted = known.drafted, False
        # Tokens that a guide forced tell nothing about the drafter.
        if drafted:
            known.acceptance.observe(*judged(tree, path, record.request.tokens[-1] in record.request.end_ids))


def _knowledge(record: DraftRecord) -> _Known:
    if record.memory is None:
        record.memory = _Known()
    known: _Known = record.memory
    return known
