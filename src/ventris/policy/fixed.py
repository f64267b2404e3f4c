"""Drafts as much as it is told, always."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from ventris.engine.parts import Budget, DraftRecord, Load
from ventris.engine.tree import TokenTree


class Fixed:
    """The same budget at every step; by default the drafter's own limits apply.

    Args:
        nodes: Drafted tokens at most.
        depth: Drafted tokens in a row at most.
    """

    name = "fixed"

    class Options(BaseModel):
        """Options of the fixed policy."""

        nodes: int = Field(256, ge=0, le=256, description="drafted tokens at most")
        depth: int = Field(64, ge=0, le=64, description="drafted tokens in a row at most")

    def __init__(self, nodes: int = 256, depth: int = 64) -> None:
        self.budget = Budget(nodes, depth)

    def plan(self, records: Sequence[DraftRecord], load: Load) -> list[Budget]:
        return [self.budget] * len(records)

    def trim(self, records: Sequence[DraftRecord], trees: Sequence[TokenTree], load: Load) -> list[TokenTree]:
        return list(trees)

    def observe(self, record: DraftRecord, tree: TokenTree, path: Sequence[int], seconds: float) -> None:
        """A fixed policy learns nothing."""
