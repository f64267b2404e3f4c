"""Running the server until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from ventris.engine.errors import BadInput
from ventris.serve.service import Service
from ventris.serve.settings import ServerSettings

LAST_SECONDS = 2
"""For connections to close, once their answers have ended."""


def serve(app: FastAPI, service: Service, announce: bool = True) -> None:
    """Serve until SIGTERM or Ctrl-C; then running answers get some seconds to finish.

    Raises:
        BadInput: if the address cannot be used.
    """
    settings = service.settings
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=LAST_SECONDS,
        limit_concurrency=settings.max_connections,
    )
    if announce:
        shown = f"[{host}]" if ":" in host else host
        print(f"ventris: serving {service.name} on http://{shown}:{port} (Ctrl-C stops)", file=sys.stderr)
    Server(config, service).run([listener])


class Server(uvicorn.Server):
    """A server that lets running answers finish before it stops.

    While they do, it still takes connections, to say that it is shutting down. A second signal ends them.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, and remember the loop for signals."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; called by a signal."""
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._drain())
        else:
            self._hurry.set()

    async def _drain(self) -> None:
        await self.service.drain(self.service.settings.grace, self._hurry)
        self.should_exit = True


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family[0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(family[4])
    except OSError as error:
        raise BadInput(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; choose another --port"
        ) from None
    listener.listen(512)
    return listener
