"""Who runs when: contestants take turns, and none is always first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rotated(contestants: Sequence[T], turn: int) -> list[T]:
    """The contestants in order, beginning with number ``turn`` (counted around).

    Over as many turns as there are contestants each of them takes every place once, so a machine that
    slows down or speeds up in the meantime favours nobody.
    """
    start = turn % len(contestants) if contestants else 0
    return [*contestants[start:], *contestants[:start]]
