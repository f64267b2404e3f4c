"""One measurement: so many requests, so many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from pydantic import BaseModel

from ventris.bench.serving.client import Client


class LoadRun(BaseModel):
    """What a load came to.

    Attributes:
        streams: Requests at a time.
        tokens: Output tokens of all requests together, in ``seconds`` from the first request to the last end.
        first_seconds: Time to the first piece of text, of every request.
        token_seconds: Mean time of a token after the first, of every request.
    """

    server: str
    draft: str
    streams: int
    repeat: int
    tokens: int
    seconds: float
    first_seconds: list[float]
    token_seconds: list[float]

    @property
    def rate(self) -> float:
        """Output tokens a second, all streams together."""
        return self.tokens / self.seconds


def run_load(
    server: str,
    client: Client,
    bodies: Sequence[Mapping[str, Any]],
    streams: int,
    draft: str = "none",
    repeat: int = 0,
) -> LoadRun:
    """Send all bodies, ``streams`` of them at a time, and read the answers as streams."""
    started = perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        answers = list(pool.map(client.stream, bodies))
    return LoadRun(
        server=server,
        draft=draft,
        streams=streams,
        repeat=repeat,
        tokens=sum(answer.tokens for answer in answers),
        seconds=perf_counter() - started,
        first_seconds=[answer.first_seconds for answer in answers],
        token_seconds=[
            (answer.total_seconds - answer.first_seconds) / (answer.tokens - 1)
            for answer in answers
            if answer.tokens > 1
        ],
    )
