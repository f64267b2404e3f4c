"""How long a forward takes, by its number of nodes, measured on this machine for this target."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter

from ventris.engine.errors import BadInput
from ventris.engine.target import Rows, Target

SIZES = (1, 2, 3, 4, 6, 8, 9, 12, 16, 17, 24, 25, 32, 33, 48, 49, 64)
"""Node counts to measure.

Kernels work on blocks of eight rows or of sixteen, so the cost may jump right behind those, by a fifth of a
pass and more (bfloat16 on a CPU). Drawn straight from 8 to 12, a ninth row would seem to cost little."""

CONTEXT = 128

SHORTEST = 1e-9
"""Seconds of a pass at least; a coarse clock may show none."""


@dataclass(frozen=True, slots=True)
class CostCurve:
    """T(n): median seconds of one forward over n nodes.

    Attributes:
        sizes: Ascending node counts, two at least.
        seconds: Time at each of them, above 0 and never falling.

    Raises:
        BadInput: if they are something else.
    """

    sizes: Sequence[int]
    seconds: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or len(self.sizes) != len(self.seconds):
            raise BadInput("a cost curve needs two node counts or more, and seconds for each of them")
        if any(after <= before for before, after in pairwise(self.sizes)) or self.sizes[0] < 1:
            raise BadInput("the node counts of a cost curve must be 1 or more and ascend")
        # Written so that NaN is refused too.
        good = all(0 < value < math.inf for value in self.seconds)
        if not good or any(after < before for before, after in pairwise(self.seconds)):
            raise BadInput("the seconds of a cost curve must be above 0, finite, and never fall")

    def __call__(self, nodes: int) -> float:
        """Seconds for ``nodes`` nodes: linear between the measured sizes and beyond the last."""
        right = min(max(bisect_left(self.sizes, nodes), 1), len(self.sizes) - 1)
        x0, x1 = self.sizes[right - 1], self.sizes[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * max(nodes - x0, 0) / (x1 - x0)


def fitting_sizes(target: Target, sizes: Sequence[int], context: int) -> list[int]:
    """The node counts that the target's context holds behind a prompt; two at least."""
    fitting = [size for size in sizes if size + context < target.context_length]
    return fitting if len(fitting) > 1 else [1, 2]


def measure(
    target: Target,
    sizes: Sequence[int] = SIZES,
    repeats: int = 7,
    progress: Callable[[int, int], None] | None = None,
    context: int = CONTEXT,
) -> CostCurve:
    """Time forwards of a chain of n nodes behind a short prompt; sizes take turns, medians count.

    Args:
        progress: Called with (rounds done, rounds).
        context: Tokens of the prompt; fewer where the target's context is too short for them.

    Raises:
        BadInput: if the target's context does not hold four tokens.
    """
    sizes = fitting_sizes(target, sizes, context)
    context = min(context, target.context_length - sizes[-1] - 1)
    if context < 1:
        raise BadInput(
            f"a context of {target.context_length} tokens is too short to draft in; use no drafter"
        )
    cache = target.new_cache(context + sizes[-1])
    token = min(17, target.vocab_size - 1)
    target.forward([Rows(cache, [token] * context, range(-1, context - 1), wanted=())])
    cache.commit(range(context))
    times: dict[int, list[float]] = {size: [] for size in sizes}
    for done in range(repeats + 1):
        for size in sizes:
            started = perf_counter()
            target.forward([Rows(cache, [token] * size, range(-1, size - 1))])
            # The first round warms caches and compiles kernels.
            if done:
                times[size].append(perf_counter() - started)
        if progress:
            progress(done + 1, repeats + 1)
    cache.release()
    seconds: list[float] = []
    for size in sizes:
        # A larger forward cannot be faster; where it seems so, that is noise.
        seconds.append(max(median(times[size]), seconds[-1] if seconds else SHORTEST))
    return CostCurve(tuple(sizes), tuple(seconds))
