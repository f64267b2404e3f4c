"""Two replicas of the server on a local Ray cluster: answers, errors and the end are those of one server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ventris
from tests.cli.tiny_model import write_tiny_model
from tests.serve.running import Running, chat_body, read_events
from ventris.cli.main import main

SOURCES = Path(ventris.__file__).parents[1]
KEY = "sk-test-0123456789"


class Client(Running):
    """A client of the replicas, with a key."""

    def __init__(self, port: int) -> None:
        super().__init__(None, port, {"Authorization": f"Bearer {KEY}"})  # type: ignore[arg-type]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def process(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    pytest.importorskip("ray.serve", reason="ray is not installed; pip install 'ventris[ray]'")
    folder = write_tiny_model(tmp_path_factory.mktemp("ray") / "tiny")
    port = free_port()
    environment = {
        "VENTRIS_CACHE": str(folder.parent / "cache"),
        "VENTRIS_API_KEYS": KEY,
        "PYTHONPATH": f"{SOURCES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray gives its helpers some seconds to start, which a busy machine may need longer for.
        "RAY_agent_register_timeout_ms": "180000",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "180",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "180",
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "ventris", "serve", str(folder), "--dtype", "float32", "--kernels", "torch",
         "--threads", "1", "--port", str(port), "--grace", "1", "--ray", "--replicas", "2"],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert started.stderr is not None
    told = ""
    for told in started.stderr:
        if "on http://" in told:
            break
    assert "2 replicas" in told, told
    yield started, Client(port)
    started.kill()
    started.communicate()


@pytest.mark.long
def test_replicas_answer_as_one_server_does(
    process: tuple[subprocess.Popen[str], Client], server: Running
) -> None:
    started, client = process
    assert client.ask("GET", "/health", headers={"Authorization": ""}).status == 200
    assert client.chat(headers={"Authorization": ""}).error["code"] == "invalid_api_key"
    assert client.chat(temperature=9).error["param"] == "temperature"
    assert client.ask("GET", "/nowhere").error["code"] == "not_found"
    assert client.ask("GET", "/").status == 200

    questions = [f"question {n}" for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(client.chat, questions))
    alone = [server.chat(question) for question in questions]
    texts = [[reply.json["choices"][0]["message"] for reply in replies] for replies in (together, alone)]
    assert texts[0] == texts[1]
    # Both have had a part in it: each measures its own steps.
    pages = {client.ask("GET", "/metrics").body.decode() for _ in range(20)}
    found = {line for page in pages for line in page.splitlines() if "_step_seconds_sum" in line}
    assert len(found) == 2
    assert all(float(line.split()[1]) > 0 for line in found)

    streams = []
    for n in range(4):
        body = chat_body(str(n), stream=True, max_tokens=15_000, ventris={"ignore_eos": True})
        connection, response = client.send("POST", "/v1/chat/completions", body)
        streams.append((connection, response, response.read(200)))
    started.send_signal(signal.SIGTERM)
    for connection, response, seen in streams:
        assert read_events(seen + response.read())[-1]["error"]["code"] == "shutting_down"
        connection.close()
    assert started.wait(timeout=120) == 0


def test_replicas_need_ray_and_a_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["serve", "--replicas", "2"]) == 2
    assert "add --ray" in capsys.readouterr().err
    monkeypatch.setattr("ventris.cli.serve.find_spec", lambda name: None if name == "ray" else object())
    assert main(["serve", "--ray"]) == 2
    assert "pip install 'ventris[ray]'" in capsys.readouterr().err
