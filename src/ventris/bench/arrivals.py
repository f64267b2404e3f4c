"""An open loop: requests come when they come, and each one's time from arrival to end is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Protocol

import numpy as np

from ventris.engine.batch import Engine
from ventris.engine.request import Completion, Request


class Time(Protocol):
    """A clock that one can also wait by."""

    def __call__(self) -> float:
        """Seconds from any beginning."""
        ...

    def wait_until(self, moment: float) -> None:
        """Return at ``moment`` or, if that is over, at once."""
        ...


class WallTime:
    """The time of this machine."""

    def __call__(self) -> float:
        return perf_counter()

    def wait_until(self, moment: float) -> None:
        sleep(max(moment - perf_counter(), 0.0))


@dataclass(frozen=True, slots=True)
class Served:
    """What became of a request.

    Attributes:
        seconds: From its arrival, waiting included, to its last token.
    """

    seconds: float
    completion: Completion


def poisson(rates: Sequence[float], seed: int) -> list[float]:
    """Moments of arrival of a Poisson process whose rate (a second) may change from request to request."""
    gaps = np.random.default_rng(seed).exponential(size=len(rates))
    return [float(moment) for moment in np.cumsum(gaps / np.asarray(rates))]


def serve_arrivals(
    engine: Engine,
    requests: Sequence[Callable[[], Request]],
    moments: Sequence[float],
    time: Time,
    one_at_a_time: bool = False,
) -> list[Served]:
    """Serve requests as they come in and return them in that order.

    Args:
        engine: Runs on ``time``.
        requests: Make the requests; called when one arrives.
        moments: When each arrives, ascending, in seconds from now.
        one_at_a_time: Let each arrive when the one before it has ended, whatever ``moments`` say: the machine
            is idle but for this one.
    """
    started = time()
    arrived: list[tuple[float, Completion]] = []
    ends: dict[int, float] = {}
    while len(ends) < len(requests):
        while len(arrived) < len(requests):
            moment = time() if one_at_a_time else started + moments[len(arrived)]
            if moment > time() or (one_at_a_time and engine.busy):
                break
            arrived.append((moment, engine.add(requests[len(arrived)]())))
        if not engine.busy:
            time.wait_until(started + moments[len(arrived)])
            continue
        for event in engine.step():
            if event.finished:
                ends[id(event.completion)] = time()
    return [Served(ends[id(completion)] - moment, completion) for moment, completion in arrived]
