"""A server in a thread of this process, on a tiny model, and a plain HTTP client for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from threading import Thread
from typing import Any

import uvicorn

from ventris.model import Model
from ventris.playground import PAGE_PATHS, playground
from ventris.serve.app import OPEN_PATHS, create_app
from ventris.serve.keys import ApiKeys
from ventris.serve.run import Server
from ventris.serve.service import Service
from ventris.serve.settings import ServerSettings

NAME = "tiny"
SECONDS = 60.0
"""How long a test waits for what must happen at some time; nothing is measured by it."""


@dataclass
class Reply:
    """A response that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, after a look at its shape."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "\n" not in error["message"]
        assert isinstance(error["type"], str)
        return error

    @property
    def events(self) -> list[Any]:
        """The values of a stream of events, which must be well-formed and end with ``[DONE]``."""
        return read_events(self.body)


def read_events(body: bytes) -> list[Any]:
    """Read server-sent events the strict way."""
    text = body.decode("utf-8")
    assert text.endswith("\n\n")
    blocks = text[:-2].split("\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), blocks
    values = [block.removeprefix("data: ") for block in blocks]
    assert values[-1] == "[DONE]"
    return [json.loads(value) for value in values[:-1]]


@dataclass
class Running:
    """A running server."""

    service: Service
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Send a request; the response is still to be read."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if method == "POST" else {}
        given = {**kind, **self.headers, **(headers or {})}
        connection.request(method, path, data, {k: v for k, v in given.items() if v})
        return connection, connection.getresponse()

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request and read the whole response."""
        connection, response = self.send(method, path, body, headers)
        try:
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def chat(self, text: str = "hello", headers: Mapping[str, str] | None = None, **fields: Any) -> Reply:
        """Ask for a chat answer."""
        return self.ask("POST", "/v1/chat/completions", chat_body(text, **fields), headers)

    def complete(self, prompt: Any = "hello", **fields: Any) -> Reply:
        """Ask for a continuation."""
        body = {"model": NAME, "prompt": prompt, "max_tokens": 8, "temperature": 0, **fields}
        return self.ask("POST", "/v1/completions", body)

    @property
    def held(self) -> int:
        """Bytes of caches that are in use, kept prefixes left out."""
        ledger = self.service.scheduler._engine.ledger
        return ledger.total - self.service.scheduler._engine.prefixes.nbytes


def chat_body(text: str = "hello", **fields: Any) -> dict[str, Any]:
    """The body of a short greedy chat request."""
    messages = [{"role": "user", "content": text}]
    return {"model": NAME, "messages": messages, "max_tokens": 8, "temperature": 0, **fields}


@contextmanager
def running(
    model: Model, keys: tuple[str, ...] = (), defaults: Mapping[str, Any] | None = None, **settings: Any
) -> Iterator[Running]:
    """Run a server until the block ends."""
    chosen = ServerSettings(**{"grace": 1.0, **settings})
    service = Service(model, NAME, chosen, defaults, ApiKeys(keys))
    app = create_app(service, [playground()], OPEN_PATHS | PAGE_PATHS)
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on")
    server = Server(config, service)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started
    try:
        yield Running(service, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def wait_until(there: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
