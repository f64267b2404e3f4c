"""Work in a process of its own: stopped in time, bounded in memory, and replaced after a crash."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ventris.bench.structured.isolated import Bounds, Isolated, Stopped
from ventris.engine.errors import BadInput


def prepare(offset: int) -> Callable[[Any], Any]:
    def handle(case: Any) -> Any:
        if case == "sleep":
            time.sleep(60)
        if case == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "raise":
            raise RuntimeError("two\nlines")
        if case == "large":
            return len(bytearray(2_000_000_000))
        if case == "limit":
            return Path("/proc/self/limits").read_text()
        return case + offset

    return handle


def refuse() -> Callable[[Any], Any]:
    raise BadInput("there is no such model")


@pytest.fixture
def worker() -> Iterator[Isolated]:
    made = Isolated(prepare, (1,), Bounds(seconds=3.0, memory_bytes=500_000_000))
    yield made
    made.close()


def test_cases_are_answered_and_failures_are_named(worker: Isolated) -> None:
    assert worker.run(1) == 2
    for case, kind in (("raise", "error"), ("kill", "crash"), ("sleep", "timeout")):
        with pytest.raises(Stopped) as stopped:
            worker.run(case)
        assert stopped.value.kind == kind
        assert "\n" not in str(stopped.value)
        assert worker.run(2) == 3
    assert worker.peak_bytes is None or worker.peak_bytes > 1_000_000


def test_memory_is_bounded(worker: Isolated) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not tell how much memory a process holds")
    with pytest.raises(Stopped) as stopped:
        worker.run("large")
    assert stopped.value.kind == "memory"
    assert worker.run(1) == 2


def test_what_cannot_be_prepared_is_refused() -> None:
    with pytest.raises(BadInput, match="no such model"):
        Isolated(refuse, (), Bounds()).run(1)
