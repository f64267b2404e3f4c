"""Server-sent events: chunks go out as they come, and whoever leaves or stops reading is noticed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"


def to_json(value: Any) -> bytes:
    """JSON bytes; numbers that JSON has no word for become null."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def event(value: Any) -> bytes:
    """One event."""
    return b"data: " + to_json(value) + b"\n\n"


class EventStream(Response):
    """A response of events.

    Args:
        events: Encoded events; closed when the client has gone.
        leave: Called when the client goes away, or takes longer than ``stall`` seconds to read on.
        stall: Seconds.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None], stall: float) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._leave = leave
        self._stall = stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_client(receive, self._leave))
        try:
            async with _StallWatch(self._stall) as stall:
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                async for data in self._events:
                    stall.begin()
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                    stall.end()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, OSError):
            # Nobody reads any more; the connection is the server's to close.
            return
        finally:
            watch.cancel()
            self._leave()


class _StallWatch:
    """Raises ``TimeoutError`` in its block when what lies between ``begin`` and ``end`` takes too long.

    A timer looks now and then, at most a quarter of the time late; one for each event would take a third of
    all the work that an event makes.

    Args:
        seconds: Time allowed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._begun = math.inf
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> _StallWatch:
        await self._limit.__aenter__()
        self._look()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(*error)

    def begin(self) -> None:
        """The time runs."""
        self._begun = self._loop.time()

    def end(self) -> None:
        """It does not."""
        self._begun = math.inf

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._begun >= self._seconds:
            self._limit.reschedule(now)
        self._timer = self._loop.call_later(self._seconds / 4, self._look)


async def watch_client(receive: Receive, leave: Callable[[], None]) -> None:
    """Call ``leave`` when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    leave()
