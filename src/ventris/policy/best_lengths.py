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
    """:func:`best_depths` where every drafted token of a request is kept with one chance.

    Args:
        rates: Chance of each request's drafted tokens to be kept once all before are.
        longest: Length at most.
        running, scoring, drafting, margin: As for :func:`best_depths`.
    """
    levels = np.arange(1, longest + 1)
    reach = np.asarray(rates, dtype=np.float64)[:, None] ** levels
    return best_depths(reach, running, scoring, drafting, margin)


def best_depths(
    reach: npt.NDArray[np.float64],
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
        reach: Chance that a drafted token and all before it are kept, by request and depth,
            ``[requests, longest]``; it never rises with the depth.
        running: Requests in the step, those among them without drafts included.
        scoring: Seconds of the step by drafted tokens.
        drafting: Seconds of drafting by depth and by drafted tokens; ``None`` if it takes none.
        margin: Share by which drafting has to be better than not drafting.
    """
    requests, longest = reach.shape
    levels = np.arange(1, longest + 1)
    chances = reach.ravel()
    depths = np.tile(levels, requests)
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
        return [0] * requests
    chosen = order[: last + 1][within[bound, : last + 1]]
    return [int(length) for length in np.bincount(chosen // longest, minlength=requests)]
