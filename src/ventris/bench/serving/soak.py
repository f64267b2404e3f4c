"""Hours of what real clients do: ask, leave, send nonsense, read slowly; and then every answer is checked.

An answer is right if it is the one that the same request gets when it runs alone, in this process, greedy
and in float32.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ventris.bench.serving.client import Client, RequestFailed, events, parts
from ventris.bench.serving.measure import chat_prompts, server_arguments
from ventris.bench.serving.process import ServerProcess, served
from ventris.bench.serving.settings import ServingSettings

if TYPE_CHECKING:
    from ventris.model import Model

Progress = Callable[[str, int, int], None]

LOADING_SHARE = 0.1
"""Of the time, for which memory does not count: loading takes more than serving does, and gives it back."""

WARM_SHARE = 0.2
"""Of the time, at whose end memory has its level: what was held most between the two."""

MOST_GROWTH = 0.05
LENGTHS = (1, 5, 17, 40)
"""Of answers, in tokens. Few, as each prompt is answered once more at each length to check the others."""

SHARES = (0.3, 0.7, 1.0)
"""Of the words of a prompt."""

SETTLE_SECONDS = 30.0

NONSENSE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"model": 5}',
    b'{"model": "x", "messages": []}',
    b"\xff\xfe\x00",
    b"[" * 20_000,
    b'{"a": "' + b"x" * 2_000_000 + b'"}',
)


class SoakReport(BaseModel):
    """What became of it.

    Attributes:
        did: How often each kind of client came.
        checked, wrong: Answers compared with the same request run alone, and those that differed.
        problems: Responses that no client should get.
        stuck: Answers that the server still held at the end, when all clients had gone.
        warm_bytes, peak_bytes: The most resident memory in the second half of the warm-up, which is the first
            fifth of the time, and the most ever since.
    """

    seconds: float
    did: dict[str, int]
    checked: int
    wrong: int
    problems: list[str]
    stuck: int
    warm_bytes: int
    peak_bytes: int

    @property
    def growth(self) -> float:
        """Growth of memory after warm-up, as a share."""
        return self.peak_bytes / self.warm_bytes - 1 if self.warm_bytes else 0.0

    @property
    def failures(self) -> list[str]:
        """Everything that must not be."""
        found = list(self.problems)
        if self.wrong:
            found.append(f"{self.wrong} of {self.checked} answers are not those of the request run alone")
        if self.stuck:
            found.append(f"{self.stuck} answers are stuck")
        if self.growth > MOST_GROWTH:
            found.append(f"memory grew by {100 * self.growth:.1f} % after warm-up")
        return found


@dataclass
class _Soak:
    """What the clients share."""

    client: Client
    server: ServerProcess
    name: str
    prompts: list[str]
    did: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    answers: dict[str, tuple[dict[str, Any], set[str]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def run_soak(settings: ServingSettings, progress: Progress) -> SoakReport:
    """Misuse a server for ``settings.soak`` minutes.

    Raises:
        BadInput: if the server does not start.
    """
    assert settings.soak is not None
    length = 60 * settings.soak
    exact = settings.model_copy(update={"dtype": "float32", "streams": [settings.clients]})
    # Kept prefixes reach their bound during the warm-up if there is little room for them.
    arguments = [*server_arguments(exact), "--stall", "2", "--prefix-mib", "64"]
    with served(arguments) as server:
        client = Client(server.url)
        name = client.ask("GET", "/v1/models")[1]["data"][0]["id"]
        soak = _Soak(client, server, name, chat_prompts(12))
        started = time.monotonic()
        end = started + length
        threads = [
            threading.Thread(target=_live, args=(soak, random.Random(settings.seed * 1000 + n), end))
            for n in range(settings.clients)
        ]
        for thread in threads:
            thread.start()
        held: list[tuple[float, int]] = []
        while (now := time.monotonic()) < end and server.alive:
            progress("soaking", int(now - started), int(length))
            held.append(((now - started) / length, server.resident_bytes()))
            time.sleep(min(1.0, length / 50))
        for thread in threads:
            thread.join(SETTLE_SECONDS * 4)
        if not server.alive:
            soak.problems.append(f"the server has ended: {' '.join(server.lines)[-500:]}")
        soak.problems += [f"the client {thread.name} hangs" for thread in threads if thread.is_alive()]
        stuck = _stuck(client) if server.alive else 0
    checked, wrong = _check(exact, soak.answers, progress)
    warm, peak = levels(held)
    return SoakReport(
        seconds=time.monotonic() - started,
        did=dict(soak.did),
        checked=checked,
        wrong=wrong,
        problems=soak.problems[:50],
        stuck=stuck,
        warm_bytes=warm,
        peak_bytes=peak,
    )


def levels(held: Sequence[tuple[float, int]]) -> tuple[int, int]:
    """The most memory in the second half of the warm-up, and the most afterwards, in bytes.

    Args:
        held: Share of the time that had passed, and the memory then.
    """
    warm = [size for share, size in held if LOADING_SHARE <= share < WARM_SHARE]
    later = [size for share, size in held if share >= WARM_SHARE]
    return max(warm, default=0), max(later, default=0)


def _live(soak: _Soak, chance: random.Random, end: float) -> None:
    """One client after the other, until the time is over."""
    kinds = (_ask, _ask, _ask, _stream, _stream, _stream, _leave, _leave, _nonsense, _read_slowly, _impatient)
    while time.monotonic() < end and soak.server.alive:
        act = chance.choice(kinds)
        with soak.lock:
            soak.did[act.__name__.strip("_")] += 1
        try:
            act(soak, chance)
        except (OSError, RequestFailed, ValueError, KeyError) as error:
            with soak.lock:
                soak.problems.append(f"{act.__name__.strip('_')}: {type(error).__name__}: {error}"[:300])


def _random_body(soak: _Soak, chance: random.Random) -> dict[str, Any]:
    words = chance.choice(soak.prompts).split()
    prompt = " ".join(words[: int(len(words) * chance.choice(SHARES)) or 1])
    return {
        "model": soak.name,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": chance.choice(LENGTHS),
        "temperature": 0,
        "ventris": {"draft": chance.choice(["none", "ngram"])},
    }


def _remember(soak: _Soak, body: dict[str, Any], text: str) -> None:
    # What is drafted must not matter, so it is no part of what tells requests apart.
    alone = {"messages": body["messages"], "max_new_tokens": body["max_tokens"]}
    with soak.lock:
        soak.answers.setdefault(json.dumps(alone, sort_keys=True), (alone, set()))[1].add(text)


def _ask(soak: _Soak, chance: random.Random) -> None:
    body = _random_body(soak, chance)
    status, answer = soak.client.ask("POST", "/v1/chat/completions", body)
    if status != 200:
        raise RequestFailed(f"status {status}: {answer}")
    _remember(soak, body, answer["choices"][0]["message"]["content"])


def _stream(soak: _Soak, chance: random.Random) -> None:
    body = _random_body(soak, chance)
    _remember(soak, body, soak.client.stream(body).text)


def _leave(soak: _Soak, chance: random.Random) -> None:
    """Go away in the middle of an answer."""
    body = _random_body(soak, chance) | {"max_tokens": 2000, "stream": True}
    body["ventris"]["ignore_eos"] = True
    connection, response = soak.client.send("POST", "/v1/chat/completions", json.dumps(body).encode())
    for _, _ in zip(range(chance.randint(1, 12)), events(parts(response)), strict=False):
        pass
    connection.close()
    response.close()


def _nonsense(soak: _Soak, chance: random.Random) -> None:
    path = chance.choice(["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/nowhere"])
    try:
        connection, response = soak.client.send("POST", path, chance.choice(NONSENSE))
    except (BrokenPipeError, ConnectionResetError):
        # The server need not read what is too large.
        return
    try:
        status = response.status
        error = json.loads(response.read())["error"]
    finally:
        connection.close()
    if not 400 <= status < 500 or not error["message"]:
        raise RequestFailed(f"status {status} for nonsense on {path}")


def _read_slowly(soak: _Soak, chance: random.Random) -> None:
    """Ask for a long answer, read a little, stop reading, and stay."""
    body = _random_body(soak, chance) | {"max_tokens": 400, "stream": True}
    body["ventris"] |= {"ignore_eos": True, "trace": True}
    data = json.dumps(body).encode()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(SETTLE_SECONDS)
        raw.connect(("127.0.0.1", soak.server.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        raw.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
        raw.recv(500)
        time.sleep(chance.uniform(0.5, 4))


def _impatient(soak: _Soak, chance: random.Random) -> None:
    """Give the server too little time."""
    body = _random_body(soak, chance) | {"max_tokens": 2000}
    body["ventris"] |= {"ignore_eos": True, "deadline": chance.uniform(0.01, 0.5)}
    status, answer = soak.client.ask("POST", "/v1/chat/completions", body)
    if status != 408 or answer["error"]["code"] != "deadline_exceeded":
        raise RequestFailed(f"status {status} after the deadline: {answer}")


def _stuck(client: Client) -> int:
    """Answers that the server still has when nobody waits for one."""
    end = time.monotonic() + SETTLE_SECONDS
    left = 1
    while left and time.monotonic() < end:
        time.sleep(0.2)
        health = client.ask("GET", "/health")[1]
        left = int(health["running"] + health["queued"])
    return left


def _check(
    settings: ServingSettings, answers: dict[str, tuple[dict[str, Any], set[str]]], progress: Progress
) -> tuple[int, int]:
    from ventris.model import load

    model: Model = load(settings.model, "float32", settings.kernels, threads=settings.threads)  # type: ignore[arg-type]
    wrong = 0
    for number, (request, texts) in enumerate(answers.values()):
        progress("checking the answers", number, len(answers))
        alone = model.generate(request["messages"], max_new_tokens=request["max_new_tokens"])
        wrong += texts != {alone.text}
    return len(answers), wrong
