"""How long a forward takes, by its number of nodes, measured on this machine for this target."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from ventris.engine.target import Rows, Target

SIZES = (1, 2, 3, 4, 6, 8, 9, 12, 16, 17, 24, 25, 32, 33, 48, 49, 64)
"""Node counts to measure.

Kernels work on blocks of eight rows or of sixteen, so the cost may jump right behind those, by half of a pass
(bfloat16 on a CPU). Drawn straight from 8 to 12, a ninth row would seem to cost little."""

CONTEXT = 128


@dataclass(frozen=True, slots=True)
class CostCurve:
    """T(n): median seconds of one forward over n nodes.

    Attributes:
        sizes: Ascending node counts.
        seconds: Time at each of them, never falling.
    """

    sizes: Sequence[int]
    seconds: Sequence[float]

    def __call__(self, nodes: int) -> float:
        """Seconds for ``nodes`` nodes: linear between the measured sizes and beyond the last."""
        right = min(max(bisect_left(self.sizes, nodes), 1), len(self.sizes) - 1)
        x0, x1 = self.sizes[right - 1], self.sizes[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * max(nodes - x0, 0) / (x1 - x0)


def fitting_sizes(target: Target, sizes: Sequence[int], context: int) -> list[int]:
    """The node counts that the target's context holds behind a prompt."""
    return [size for size in sizes if size + context < target.context_length] or [1, 2]


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
    """
    sizes = fitting_sizes(target, sizes, context)
    context = min(context, target.context_length - sizes[-1] - 1)
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
        seconds.append(max(median(times[size]), seconds[-1] if seconds else 0.0))
    return CostCurve(tuple(sizes), tuple(seconds))
