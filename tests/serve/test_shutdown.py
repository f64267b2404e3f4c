"""SIGTERM and Ctrl-C on a server of its own, and what its command line refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import pytest

import ventris
from tests.cli.tiny_model import write_tiny_model
from tests.serve.running import SECONDS, Reply, Running, chat_body, read_events, wait_until
from ventris.serve.run import LAST_SECONDS
from ventris.serve.service import STEP_SECONDS
from ventris.serve.settings import ServerSettings

SOURCES = Path(ventris.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("shutdown") / "tiny")


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    cache = {"VENTRIS_CACHE": str(folder.parent / "cache"), "PYTHONPATH": str(SOURCES)}
    return subprocess.Popen(
        [sys.executable, "-m", "ventris", "serve", str(folder), "--dtype", "float32", "--kernels", "torch",
         "--threads", "1", "--port", "0", *arguments],
        env={**os.environ, **cache, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError("the server did not come up")


@pytest.fixture
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    started = start(folder, "--grace", "1", "--api-keys", str(write_keys(folder)))
    yield started
    started.kill()
    started.communicate()


def write_keys(folder: Path) -> Path:
    file = folder.parent / "keys"
    file.write_text("sk-test-0123456789\n")
    return file


class Client(Running):
    """A client of a server in another process."""

    def __init__(self, port: int) -> None:
        super().__init__(None, port, {"Authorization": "Bearer sk-test-0123456789"})  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_ends_every_stream_properly(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    client = Client(port_of(process))
    wait_until(lambda: client.ask("GET", "/health").status == 200)
    endless = {"max_tokens": 15_000, "ventris": {"ignore_eos": True}}
    streams = []
    for n in range(4):
        connection, response = client.send(
            "POST", "/v1/chat/completions", chat_body(str(n), stream=True, **endless)
        )
        streams.append((connection, response, response.read(200)))
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(client.chat, "whole", **endless)
        short = pool.submit(client.chat, "short", max_tokens=2)
        assert short.result().status == 200
        process.send_signal(number)
        late = late_reply(client)
        bodies = [seen + response.read() for _, response, seen in streams]
        answer = whole.result()
    for body in bodies:
        assert read_events(body)[-1]["error"]["code"] == "shutting_down"
    assert (answer.status, answer.error["code"]) == (503, "shutting_down")
    if late is not None:
        assert (late.status, late.error["code"]) == (503, "shutting_down")
    assert process.wait(timeout=SECONDS) == 0
    for connection, _, _ in streams:
        connection.close()


def test_the_end_takes_no_ten_seconds_by_the_clocks_that_it_goes_by() -> None:
    assert ServerSettings().grace + STEP_SECONDS + LAST_SECONDS <= 10


@pytest.mark.long
def test_every_stream_ends_within_ten_seconds(folder: Path) -> None:
    # The usual grace, which endless answers use up; what is measured is the last stream's end.
    process = start(folder, "--api-keys", str(write_keys(folder)))
    try:
        client = Client(port_of(process))
        body = chat_body(stream=True, max_tokens=15_000, ventris={"ignore_eos": True})
        streams = [client.send("POST", "/v1/chat/completions", body) for _ in range(12)]
        begun = [response.read(200) for _, response in streams]
        process.terminate()
        told = time.monotonic()
        with ThreadPoolExecutor(len(streams)) as pool:
            ends = list(pool.map(lambda stream: stream[1].read(), streams))
        # Ten, and as much again for a machine that has other work to do.
        assert time.monotonic() - told < 20
        for first, rest in zip(begun, ends, strict=True):
            assert read_events(first + rest)[-1]["error"]["code"] == "shutting_down"
        for connection, _ in streams:
            connection.close()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()


def late_reply(client: Client) -> Reply | None:
    """The answer to a request that comes after the signal; ``None`` if the server is gone already."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            reply = client.chat("late", max_tokens=1)
        except OSError:
            return None
        if reply.status != 200:
            return reply
    raise AssertionError("the server goes on after the signal")


def test_running_answers_finish_if_there_is_time(folder: Path) -> None:
    process = start(folder, "--grace", "60", "--api-keys", str(write_keys(folder)))
    try:
        client = Client(port_of(process))
        connection, response = client.send(
            "POST", "/v1/chat/completions",
            chat_body("x", stream=True, max_tokens=300, ventris={"ignore_eos": True}),
        )  # fmt: skip
        first = response.read(100)
        process.terminate()
        events = read_events(first + response.read())
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        connection.close()
        assert process.wait(timeout=SECONDS) == 0
        assert process.stderr is not None
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert lines[-1]["new_tokens"] == 300
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_everything_at_once(folder: Path) -> None:
    process = start(folder, "--grace", "600", "--api-keys", str(write_keys(folder)))
    try:
        client = Client(port_of(process))
        body = chat_body(stream=True, max_tokens=15_000, ventris={"ignore_eos": True})
        connection, response = client.send("POST", "/v1/chat/completions", body)
        first = response.read(100)
        process.terminate()
        late = late_reply(client)
        assert late is not None
        assert late.error["code"] == "shutting_down"
        process.terminate()
        assert read_events(first + response.read())[-1]["error"]["code"] == "shutting_down"
        connection.close()
        assert process.wait(timeout=SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "0.0.0.0"), "--without-keys"),
        (("--api-keys", "/nonexistent/keys"), "cannot read the API keys"),
        (("--port", "99999"), "port is 99999"),
        (("--system", "x"), "--system"),
        (("--draft", "nothing"), "unknown drafter"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(
    folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    process = start(folder, *arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_port_that_is_taken(folder: Path, server: Running) -> None:
    process = start(folder, "--port", str(server.port))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {server.port}" in err


def test_connections_close_after_the_end(process: subprocess.Popen[str]) -> None:
    port = port_of(process)
    idle = HTTPConnection("127.0.0.1", port, timeout=60)
    idle.request("GET", "/health")
    assert idle.getresponse().read()
    process.terminate()
    assert process.wait(timeout=SECONDS) == 0
    idle.close()
