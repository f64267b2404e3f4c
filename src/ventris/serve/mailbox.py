"""News on its way from the scheduler's thread to a coroutine that answers a client."""

from __future__ import annotations

import asyncio
from collections import deque
from threading import Lock

from ventris.serve.job import Update


class Mailbox:
    """Holds what a client has not been sent yet; made and read within one event loop.

    Waking the reader costs more than all else that is done for a token, and takes a core from those that
    compute; so it is woken for the first news, for the end of an answer, and in between at most once in
    ``pause``.

    Args:
        backlog: Tokens held at most; a mailbox that has more is :attr:`overfull`.
        pause: Seconds.
    """

    def __init__(self, backlog: int, pause: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = Lock()
        self._held: deque[Update] = deque()
        self._backlog = backlog
        self._pause = pause
        self._tokens = 0
        self._quiet = False
        """The reader will look by itself."""

    @property
    def overfull(self) -> bool:
        """Whether the reader is so slow that it must be given up."""
        return self._tokens > self._backlog

    def put(self, update: Update) -> None:
        """Add news; may be called from any thread and never waits."""
        with self._lock:
            self._held.append(update)
            self._tokens += len(update.tokens)
            quiet, self._quiet = self._quiet, True
        if update.finished or not quiet:
            try:
                self._loop.call_soon_threadsafe(self._arrived.set)
            except RuntimeError:
                # The loop is closed; nobody will read this any more.
                return

    async def take(self) -> list[Update]:
        """Everything that has arrived; waits until there is something."""
        await self._arrived.wait()
        self._arrived.clear()
        with self._lock:
            updates = list(self._held)
            self._held.clear()
            self._tokens = 0
        self._loop.call_later(self._pause, self._look)
        return updates

    def _look(self) -> None:
        """Wake the reader if something has come during the pause; else it will be woken."""
        with self._lock:
            self._quiet = bool(self._held)
        if self._quiet:
            self._arrived.set()
