"""Keys, hosts, sizes, slow and vanished clients."""

from __future__ import annotations

import json
import logging
import socket
import time
from io import StringIO
from pathlib import Path

import pytest

from tests.serve.running import Running, chat_body, running, wait_until
from ventris.engine.errors import BadInput
from ventris.model import Model
from ventris.serve.keys import ApiKeys, read_keys
from ventris.serve.log import log_to
from ventris.serve.settings import ServerSettings

CHAT = "/v1/chat/completions"
KEYS = ("sk-first-0123456789", "sk-second-0123456789")
ENDLESS = {"max_tokens": 15_000, "ventris": {"ignore_eos": True}}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys(model: Model) -> None:
    with running(model, keys=KEYS) as server:
        for headers in (
            {},
            bearer("wrong"),
            bearer(""),
            {"Authorization": KEYS[0]},
            {"Authorization": "Bearer"},
        ):
            reply = server.chat(headers=headers)
            assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
            assert reply.error["type"] == "authentication_error"
            assert reply.headers["www-authenticate"] == "Bearer"
        for key in KEYS:
            assert server.chat(headers=bearer(key)).status == 200
        assert server.ask("GET", "/health").status == 200
        for path in ("/metrics", "/v1/models", "/openapi.json", "/nowhere"):
            assert server.ask("GET", path).status == 401
            assert server.ask("GET", path, headers=bearer(KEYS[1])).status in (200, 404)


def test_clients_with_keys_share_no_prefix(model: Model) -> None:
    with running(model, keys=KEYS) as server:

        def cached(key: str) -> int:
            usage = server.chat("a long beginning " * 10, headers=bearer(key)).json["usage"]
            return usage["prompt_tokens_details"]["cached_tokens"]

        assert cached(KEYS[0]) == 0
        assert cached(KEYS[1]) == 0
        assert cached(KEYS[0]) > 100


def test_reading_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\n{KEYS[0]}\n  {KEYS[1]}  \n")
    keys = read_keys(file, {"VENTRIS_API_KEYS": "sk-third-0123456789, "})
    assert len(keys) == 3
    assert [keys.holder(f"Bearer {key}") for key in KEYS] == ["key1", "key2"]
    assert keys.holder("bearer sk-third-0123456789") == "key3"
    assert keys.holder("Basic " + KEYS[0]) is None
    assert keys.holder("Bearer schlüssel") is None
    assert not read_keys(None, {})
    for content in ("", "# nothing\n", "short\n", "with a blank in it\n"):
        file.write_text(content)
        with pytest.raises(BadInput) as refused:
            read_keys(file, {})
        assert "short" not in str(refused.value)
    with pytest.raises(BadInput, match="cannot read"):
        read_keys(tmp_path / "none", {})


def test_nobody_serves_the_world_by_accident() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        ServerSettings(host=host).check_exposure(0)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(BadInput, match="without-keys"):
            ServerSettings(host=host).check_exposure(0)
        ServerSettings(host=host).check_exposure(1)
        ServerSettings(host=host, without_keys=True).check_exposure(0)


def test_a_page_cannot_reach_the_server_from_a_browser(server: Running) -> None:
    reply = server.chat(headers={"Host": "evil.example"})
    assert (reply.status, reply.error["code"]) == (403, "wrong_host")
    assert server.chat(headers={"Host": "localhost:1"}).status == 200
    reply = server.chat(headers={"Content-Type": "text/plain"})
    assert (reply.status, reply.error["code"]) == (415, "wrong_content_type")
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = server.ask("OPTIONS", CHAT, headers=origin)
    assert reply.status == 405
    assert "access-control-allow-origin" not in server.chat(headers=origin).headers


def test_cors_can_be_asked_for(model: Model) -> None:
    with running(model, keys=KEYS, cors_origins=["https://mine.example"]) as server:
        asking = {"Origin": "https://mine.example", "Access-Control-Request-Method": "POST"}
        reply = server.ask("OPTIONS", CHAT, headers=asking)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "https://mine.example"
        other = server.ask("OPTIONS", CHAT, headers={**asking, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_bodies_are_bounded(model: Model) -> None:
    with running(model, max_body_kib=4, max_prompt=1000, max_output=10, max_choices=2) as server:
        reply = server.chat("x" * 5000)
        assert (reply.status, reply.error["code"]) == (413, "body_too_large")
        # A body of unknown length is stopped on its way.
        with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for _ in range(3):
                raw.sendall(b"800\r\n" + b" " * 0x800 + b"\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 413")
        assert server.chat("x" * 2000).error["code"] == "context_length_exceeded"
        assert server.chat(max_tokens=11).error["param"] == "max_tokens"
        assert server.chat(n=3).error["param"] == "n"
        body = chat_body()
        del body["max_tokens"]
        assert server.ask("POST", CHAT, body).json["usage"]["completion_tokens"] <= 10


def test_a_body_that_does_not_come(model: Model) -> None:
    with (
        running(model, stall=0.2) as server,
        socket.create_connection(("127.0.0.1", server.port), 60) as raw,
    ):
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_streams_of_a_key_are_bounded(model: Model) -> None:
    with running(model, keys=KEYS, max_streams=1) as server:
        body = chat_body(stream=True, **ENDLESS)
        connection, response = server.send("POST", CHAT, body, bearer(KEYS[0]))
        response.read(1)
        reply = server.chat(headers=bearer(KEYS[0]))
        assert (reply.status, reply.error["code"]) == (429, "too_many_streams")
        assert reply.error["type"] == "rate_limit_error"
        assert reply.headers["retry-after"]
        assert server.chat(headers=bearer(KEYS[1])).status == 200
        connection.sock.close() if connection.sock else None
        response.close()
        connection.close()
        wait_until(lambda: server.chat(headers=bearer(KEYS[0])).status == 200)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_gives_its_memory_back(model: Model, stream: bool) -> None:
    with running(model) as server:
        data = json.dumps(chat_body(stream=stream, **ENDLESS)).encode()
        with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
            raw.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data
            )
            wait_until(lambda: server.held > 0)
        wait_until(lambda: server.service.scheduler.idle)
        wait_until(lambda: server.held == 0)
        assert server.chat().status == 200


def test_a_client_that_does_not_read_is_given_up(model: Model) -> None:
    with running(model, stall=0.5) as server, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        own = {"ignore_eos": True, "trace": True}
        data = json.dumps(chat_body(stream=True, max_tokens=15_000, ventris=own)).encode()
        raw.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        )
        wait_until(lambda: server.held > 0)
        wait_until(lambda: server.service.scheduler.idle)
        assert server.held == 0
        assert server.chat().status == 200


def test_request_ids_and_log_lines(model: Model) -> None:
    log = StringIO()
    known = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in LOGGERS}
    log_to(log)
    try:
        with running(model, keys=KEYS) as server:
            reply = server.chat("a secret prompt", headers={**bearer(KEYS[0]), "X-Request-Id": "mine-1"})
            assert reply.headers["x-request-id"] == "mine-1"
            bad = server.chat(headers={"X-Request-Id": 'no "id"'})
            assert bad.headers["x-request-id"].startswith("req-")
            server.chat("again", headers={**bearer(KEYS[1])}, stream=True)
            wait_until(lambda: log.getvalue().count("\n") >= 3)
        with running(model, log_prompts=True) as server:
            server.chat("an open prompt")
            wait_until(lambda: "an open prompt" in log.getvalue())
    finally:
        for name, (handlers, propagate) in known.items():
            logging.getLogger(name).handlers = handlers
            logging.getLogger(name).propagate = propagate
    first, second, third, *_ = (json.loads(line) for line in log.getvalue().splitlines())
    assert first["request_id"] == "mine-1"
    assert (first["holder"], first["status"], first["path"]) == ("key1", 200, CHAT)
    assert first["new_tokens"] > 0
    assert second["status"] == 401
    assert third["finish_reason"]
    assert "secret" not in log.getvalue()
    assert not any(key in log.getvalue() for key in KEYS)


LOGGERS = ("ventris.serve", "uvicorn")


def test_keys_are_compared_in_full() -> None:
    keys = ApiKeys(KEYS)
    compared = []

    def spy(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return given == known

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ventris.serve.keys.hmac.compare_digest", spy)
        assert keys.holder(f"Bearer {KEYS[0]}") == "key1"
    assert len(compared) == len(KEYS)


def test_a_schema_that_takes_long_to_check_holds_up_nobody(model: Model) -> None:
    # Every string must match a pattern on which backtracking takes for ever; no mask has anything to say.
    schema = {"type": "string", "maxLength": 30, "not": {"pattern": "^(a|a)*$"}}
    form = {"type": "json_schema", "json_schema": {"name": "slow", "schema": schema}}
    with running(model, compile_seconds=0.5) as server:
        started = time.monotonic()
        assert server.chat(response_format=form).status in (200, 400)
        assert server.chat().status == 200
        assert time.monotonic() - started < 60
