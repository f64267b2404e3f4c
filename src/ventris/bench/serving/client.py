"""A client that reads streams and notes when their pieces came."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from ventris.engine.errors import VentrisError

SECONDS = 600.0


class RequestFailed(VentrisError):
    """A server did not answer as it should."""


@dataclass
class Streamed:
    """A streamed answer.

    Attributes:
        asked: When the request was sent, on the clock of ``perf_counter``.
        arrived: When each piece of text came.
        tokens: Tokens of the answer, by the server's own count.
    """

    asked: float
    text: str = ""
    arrived: list[float] = field(default_factory=list)
    ended: float = 0.0
    tokens: int = 0

    @property
    def first_seconds(self) -> float:
        """From the request to the first piece of text."""
        return (self.arrived[0] if self.arrived else self.ended) - self.asked

    @property
    def total_seconds(self) -> float:
        """From the request to the end."""
        return self.ended - self.asked


class Client:
    """Talks to one server of OpenAI's API.

    Args:
        url: Where it is, without ``/v1``.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.hostname is None:
            raise RequestFailed(f"{url!r} is no address; write http://HOST:PORT")
        self._place = (parts.hostname, parts.port or 80)

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[HTTPConnection, HTTPResponse]:
        """Send a request; the response is still to be read, the connection to be closed."""
        connection = HTTPConnection(*self._place, timeout=SECONDS)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, body, headers)
        return connection, connection.getresponse()

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and JSON of a response."""
        connection, response = self.send(method, path, None if body is None else json.dumps(body).encode())
        try:
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def stream(self, body: Mapping[str, Any]) -> Streamed:
        """A chat answer, piece by piece.

        What came is taken apart once all of it is there: a client has better to do with the cores that it
        shares with the server while the answer is being written.

        Raises:
            RequestFailed: if the answer is an error.
        """
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        data = json.dumps(asked).encode()
        answer = Streamed(perf_counter())
        connection, response = self.send("POST", "/v1/chat/completions", data)
        try:
            if response.status != 200:
                raise RequestFailed(f"status {response.status}: {response.read()[:300]!r}")
            came = list(parts(response))
        finally:
            connection.close()
        answer.ended = perf_counter()
        for moment, event in events(came):
            if "error" in event:
                raise RequestFailed(f"{event['error']['code']}: {event['error']['message']}")
            for choice in event["choices"]:
                if piece := choice["delta"].get("content"):
                    answer.text += piece
                    answer.arrived.append(moment)
            if event.get("usage"):
                answer.tokens = event["usage"]["completion_tokens"]
        # A server that does not count sends one piece for each token.
        answer.tokens = answer.tokens or len(answer.arrived)
        return answer


def parts(response: HTTPResponse) -> Iterator[tuple[float, bytes]]:
    """What is received of a stream, and when.

    Raises:
        RequestFailed: if the connection breaks.
    """
    try:
        while part := response.read1():
            yield perf_counter(), part
    except (OSError, HTTPException) as error:
        raise RequestFailed(f"the stream broke off before its end: {error!r}") from None


def events(came: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """The JSON values of a stream of server-sent events up to ``[DONE]``, each with when its line was whole.

    Args:
        came: What was received, and when.

    Raises:
        RequestFailed: if the stream breaks off before.
    """
    line = b""
    for moment, part in came:
        *whole, line = (line + part).split(b"\n")
        for each in whole:
            if each.startswith(b"data: "):
                data = each[6:].strip()
                if data == b"[DONE]":
                    return
                yield moment, json.loads(data)
    raise RequestFailed("the stream broke off before its end")
