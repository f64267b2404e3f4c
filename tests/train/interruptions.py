"""Runs that are killed where they tell about their progress, and begun again."""

from __future__ import annotations

import random
from collections.abc import Callable

from ventris.train.texts import Progress


class Killed(Exception):
    """What ends a run."""


def killed_again_and_again(train: Callable[[Progress | None], object], times: int, longest: int) -> None:
    """Run until it has been killed so often, then to the end.

    Args:
        longest: It lives to tell about its progress fewer times than that.
    """
    chance = random.Random(0)
    for _ in range(times):
        countdown = [chance.randrange(3, longest)]

        def progress(what: str, done: int, total: int, left: list[int] = countdown) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        try:
            train(progress)
            return
        except Killed:
            pass
    train(None)
