"""What every request passes first: who asks, from where, how much; and what is written down about it."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Collection
from time import monotonic
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ventris.serve.errors import ApiError
from ventris.serve.event_stream import to_json
from ventris.serve.keys import ApiKeys
from ventris.serve.metrics import Metrics
from ventris.serve.settings import ServerSettings

logger = logging.getLogger("ventris.serve")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """Checks host, key, size and kind of a request before the app sees it.

    Leaves in ``scope["state"]`` the request id, the ``holder`` (whose turn it is in the queue) and a
    dictionary ``note`` whose entries go into the log line.

    Args:
        app: What comes after.
        open_paths: Paths for which no key is needed.
        paths: Known paths, for counting; others are counted together.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        keys: ApiKeys,
        metrics: Metrics,
        open_paths: Collection[str],
        paths: Collection[str],
    ) -> None:
        self.app = app
        self.settings = settings
        self.keys = keys
        self.metrics = metrics
        self.open_paths = frozenset(open_paths)
        self.paths = frozenset(paths)
        self._hosts = self._known_hosts()

    def _known_hosts(self) -> frozenset[str] | None:
        """Names under which clients may speak to the server; ``None`` for any.

        On loopback, a page in a browser could otherwise reach it under a name of its own choosing.
        """
        if not self.settings.loopback:
            return None
        host = self.settings.host
        return LOOPBACK_NAMES | {host, f"[{host}]"} | {name.lower() for name in self.settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        given = headers.get("x-request-id", "")
        state["request_id"] = given if REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        note: dict[str, Any] = {}
        state["note"] = note
        client = scope.get("client")
        state["holder"] = client[0] if client else "local"
        started, status = monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = state["request_id"]
            await send(message)

        try:
            self._check(scope, headers, state)
            body = _BoundedBody(receive, self.settings.max_body_kib * 1024, self.settings.stall)
            await self.app(scope, body, answer)
        except ApiError as error:
            if not status:
                response = Response(
                    to_json(error.body()), error.status, error.headers(), media_type="application/json"
                )
                await response(scope, receive, answer)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.answered(path, status)
            self._log(scope, state, status, monotonic() - started, note)

    def _check(self, scope: Scope, headers: Headers, state: dict[str, Any]) -> None:
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        host = headers.get("host", "") if host.startswith("[") and not host.endswith("]") else host
        if self._hosts is not None and host.lower() not in self._hosts:
            raise ApiError(403, "this server is not known by that name; see --allowed-host", "wrong_host")
        if self.keys and scope["path"] not in self.open_paths and scope["method"] != "OPTIONS":
            holder = self.keys.holder(headers.get("authorization", ""))
            if holder is None:
                raise ApiError(401, "give a valid API key as 'Authorization: Bearer KEY'", "invalid_api_key")
            state["holder"] = holder
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.settings.max_body_kib * 1024:
            raise _too_large(self.settings.max_body_kib * 1024)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            # A web page can send anything else to this server without asking the browser's leave.
            raise ApiError(415, "send the body as application/json", "wrong_content_type")

    def _log(
        self, scope: Scope, state: dict[str, Any], status: int, seconds: float, note: dict[str, Any]
    ) -> None:
        entry = {
            "request_id": state["request_id"],
            "holder": state["holder"],
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
            **note,
        }
        logger.info("request", extra={"entry": entry})


class _BoundedBody:
    """``receive`` with limits on the size of the body and on the time between its pieces."""

    def __init__(self, receive: Receive, limit: int, stall: float) -> None:
        self._receive = receive
        self._limit = limit
        self._stall = stall
        self._size = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            # What follows is only the client going away, whenever that is.
            return await self._receive()
        try:
            async with asyncio.timeout(self._stall):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "the body did not arrive in time", "slow_body") from None
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise _too_large(self._limit)
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit:,} bytes", "body_too_large")
