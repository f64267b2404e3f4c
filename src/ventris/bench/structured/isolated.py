"""Work in a process of its own that is killed when it takes too long, and whose memory is bounded."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from ventris.bench.memory import limit_address_space, peak_of_group
from ventris.engine.errors import BadInput, VentrisError

Ending = Literal["timeout", "memory", "crash", "error"]

START_SECONDS = 300.0
"""Loading a model on a busy machine; no limit on anybody's schema."""


class Stopped(VentrisError):
    """A case that did not come to an end.

    Attributes:
        kind: ``timeout``, ``memory``, ``crash`` (the process died) or ``error`` (it raised).
    """

    def __init__(self, kind: Ending, detail: str) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one case may take.

    Attributes:
        seconds: Time.
        memory_bytes: Memory beyond what the process holds when it is ready.
    """

    seconds: float = 60.0
    memory_bytes: int = 4_000_000_000


class Isolated:
    """A worker process; it starts with the first case, and anew after it was killed.

    Args:
        prepare: Called with ``arguments`` in the process; returns the function that is called with every
            case. Both must be importable, and cases and results must be picklable.
        bounds: Limits of one case.
    """

    def __init__(
        self, prepare: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], bounds: Bounds
    ) -> None:
        self._job = (prepare, arguments, bounds.memory_bytes)
        self._seconds = bounds.seconds
        self._process: Any = None
        self._pipe: Connection | None = None
        self.peak_bytes: int | None = None
        """The highest resident memory of the process with its children, over all cases so far."""

    def run(self, case: Any) -> Any:
        """The result of one case.

        Raises:
            Stopped: if the case was stopped, or died.
            BadInput: if the process could not be prepared.
        """
        pipe = self._started()
        try:
            pipe.send(case)
            if not pipe.poll(self._seconds):
                self.close()
                raise Stopped("timeout", f"more than {self._seconds:g} s")
            kind, value = pipe.recv()
        except (EOFError, OSError):
            code = self._exit_code()
            self.close()
            raise Stopped("crash", f"the process ended with {code}") from None
        self._note_peak()
        if kind == "done":
            return value
        if kind == "memory":
            self.close()
        raise Stopped(kind, value)

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process is None:
            return
        self._note_peak()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # It may not have made its own group yet.
        self._process.kill()
        self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _started(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._job), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        try:
            ready = ours.poll(START_SECONDS) and ours.recv()
        except EOFError:
            ready = None
        if ready != ("ready", ""):
            self.close()
            raise BadInput(ready[1] if ready else "the worker process of the benchmark does not start")
        return ours

    def _exit_code(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"

    def _note_peak(self) -> None:
        found = peak_of_group(self._process.pid)
        if found is not None:
            self.peak_bytes = max(self.peak_bytes or 0, found)


def _serve(
    pipe: Connection, prepare: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], memory: int
) -> None:
    # A group of its own, so that what it starts can be killed with it; Ctrl-C is for the parent to handle.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        handle = prepare(*arguments)
    except VentrisError as error:
        pipe.send(("refused", str(error)))
        return
    limit_address_space(memory)
    pipe.send(("ready", ""))
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("done", handle(case))
        except MemoryError:
            answer = ("memory", f"more than {memory / 1e9:.1f} GB")
        except Exception as error:  # a failing case is a finding; the next one goes on
            answer = ("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        pipe.send(answer)
