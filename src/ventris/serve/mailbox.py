"""News on its way from the scheduler's thread to a coroutine that answers a client."""

from __future__ import annotations

import asyncio
from collections import deque
from threading import Lock

from ventris.serve.job import Update


class Mailbox:
    """Holds what a client has not been sent yet; made and read within one event loop.

    Args:
        backlog: Tokens held at most; a mailbox that has more is :attr:`overfull`.
    """

    def __init__(self, backlog: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = Lock()
        self._held: deque[Update] = deque()
        self._backlog = backlog
        self._tokens = 0
        self._told = False

    @property
    def overfull(self) -> bool:
        """Whether the reader is so slow that it must be given up."""
        return self._tokens > self._backlog

    def put(self, update: Update) -> None:
        """Add news; may be called from any thread and never waits."""
        with self._lock:
            self._held.append(update)
            self._tokens += len(update.tokens)
            told, self._told = self._told, True
        if not told:
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
            self._told = False
        return updates
