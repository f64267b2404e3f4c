"""How often drafted tokens are kept, depth by depth."""

from __future__ import annotations

from collections.abc import Sequence

FIRST_ACCEPTANCE = 0.6
"""Acceptance assumed before anything was judged."""

WEIGHT = 2.0
"""Judgements that what is thought of a depth otherwise counts for."""

FADING = 0.95
"""Factor on the judgements of depths that were not drafted to, so that they are tried again."""


class ByDepth:
    """Acceptance of tokens at each depth, once all above them were kept.

    Args:
        forgetting: Factor on old judgements of a depth at each new one, so that they follow the text.
    """

    __slots__ = ("_forgetting", "_judged", "_kept")

    def __init__(self, forgetting: float) -> None:
        self._forgetting = forgetting
        self._kept: list[float] = []
        self._judged: list[float] = []

    def rates(self, depth: int, usual: Sequence[float] | None = None) -> list[float]:
        """Acceptance at the depths from 1 to ``depth``.

        A depth that was seldom judged is thought to be as much better than usual as the one before it.

        Args:
            usual: Acceptance elsewhere, by depth; where nothing else is known, the same at every depth.
        """
        usual = usual or [FIRST_ACCEPTANCE] * depth
        better, found = 1.0, []
        for level, other in enumerate(usual[:depth]):
            rate = min(better * other, 1.0)
            if level < len(self._kept):
                rate = (self._kept[level] + WEIGHT * rate) / (self._judged[level] + WEIGHT)
            found.append(rate)
            better = rate / other if other else 1.0
        return found

    def judge(self, level: int, kept: float) -> None:
        """Count a judgement of a depth; ``level`` 0 is the first."""
        while len(self._kept) <= level:
            self._kept.append(0.0)
            self._judged.append(0.0)
        self._kept[level] = self._forgetting * self._kept[level] + kept
        self._judged[level] = self._forgetting * self._judged[level] + 1.0

    def fade(self, first: int) -> None:
        """Forget some of the depths from ``first`` on, which were not judged."""
        for level in range(first, len(self._kept)):
            self._kept[level] *= FADING
            self._judged[level] *= FADING
