"""Ctrl-C that cannot get lost.

Python raises ``KeyboardInterrupt`` wherever the program happens to be. In a weak reference's callback (the
import machinery has some) or a finalizer it is dropped with a note, and a library that is just being set up
may turn it into an error of its own. So the signal is also remembered until somebody has answered it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

_pending = False


def remember_interrupts() -> None:
    """From now on remember each Ctrl-C; a process that ignores them goes on to do so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _remember)


def take_interrupt() -> bool:
    """Whether there was a Ctrl-C that nobody has answered; the caller does."""
    global _pending
    taken, _pending = _pending, False
    return taken


def raise_pending_interrupt() -> None:
    """Raise a Ctrl-C that got lost.

    Raises:
        KeyboardInterrupt: if there was one that nobody has answered.
    """
    if _pending:
        raise KeyboardInterrupt


@contextmanager
def asyncio_interrupts() -> Iterator[None]:
    """Leave Ctrl-C to asyncio, which ends tasks in order but only takes over from Python's own handler."""
    before = signal.getsignal(signal.SIGINT)
    if before is not _remember:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _remember(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = True
    raise KeyboardInterrupt
