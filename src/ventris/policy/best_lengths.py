"""How far to draft for each request of a batch, before anything is drafted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]


def best_lengths(
    rates: Sequence[float],
    longest: int,
    running: int,
    scoring: Callable[[Counts], Seconds],
    drafting: Callable[[Counts, Counts], Seconds] | None,
    margin: float,
) -> list[int]:
    """Draft lengths with the most expected tokens a second, one for each request.

    Tokens of equal depth bring less the deeper they are, so for any total the likeliest ones are the best,
    and every total is tried; since levels of a draft model are passes of their own, under every bound on the
    depth. All of it in a few array operations: this is done at every step, and what it takes is lost to all.

    Args:
        rates: Chance of each request's drafted tokens to be kept once all before are.
        longest: Length at most.
        running: Requests in the step, those among them without drafts included.
        scoring: Seconds of the step by drafted tokens.
        drafting: Seconds of drafting by depth and by drafted tokens; ``None`` if it takes none.
        margin: Share by which drafting has to be better than not drafting.
    """
    levels = np.arange(1, longest + 1)
    chances = (np.asarray(rates, dtype=np.float64)[:, None] ** levels).ravel()
    depths = np.tile(levels, len(rates))
    # Likeliest first; among equals what stands above comes before what stands below it.
    order = np.lexsort((depths, -chances))
    bounds = levels[:, None] if drafting else levels[-1:, None]
    within = depths[order] <= bounds
    counts = within.cumsum(axis=1)
    table = scoring(np.arange(len(chances) + 1))
    seconds = table[counts]
    if drafting:
        seconds = seconds + drafting(bounds, counts)
    running = max(running, 1)
    goodput = (running + (within * chances[order]).cumsum(axis=1)) / seconds
    bound, last = divmod(int(goodput.argmax()), len(chances))
    if goodput[bound, last] <= running / table[0] * (1 + margin):
        return [0] * len(rates)
    chosen = order[: last + 1][within[bound, : last + 1]]
    return [int(length) for length in np.bincount(chosen // longest, minlength=len(rates))]
