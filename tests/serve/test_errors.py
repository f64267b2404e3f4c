"""What clients are told when something is wrong: status, type, param and code, one line each."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.serve.running import NAME, Running, chat_body
from ventris.engine.errors import BrokenModel
from ventris.serve.errors import ApiError, refusal

CHAT = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]

WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": None}, "messages", "invalid_value"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "invalid_value"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None, "invalid_value"),
    ({"temperature": -1}, "temperature", "invalid_value"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"temperature": "warm"}, "temperature", "invalid_value"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 100}, "n", "too_large"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"presence_penalty": 5}, "presence_penalty", "invalid_value"),
    ({"logit_bias": {"5": 200}}, "logit_bias.5", "invalid_value"),
    ({"logit_bias": {"99999": 1}}, None, "invalid_value"),
    ({"seed": 2**70}, "seed", "invalid_value"),
    ({"stop": ["x"] * 20}, None, "invalid_value"),
    ({"top_logprobs": 3}, None, "invalid_value"),
    ({"logprobs": True, "top_logprobs": 50}, "top_logprobs", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, None, "invalid_value"),
    ({"functions": []}, "functions", "unknown_parameter"),
    ({"ventris": {"speed": 1}}, "ventris.speed", "unknown_parameter"),
    ({"ventris": {"draft": "model:/etc/passwd"}}, "ventris.draft", "invalid_value"),
    ({"ventris": {"draft": "ngram:max_nodes=200"}}, "ventris.draft", "invalid_value"),
    ({"ventris": {"draft": "ngram:nodes=2"}}, "ventris.draft", "invalid_value"),
    ({"ventris": {"policy": "fixed:nodes=100"}}, "ventris.policy", "invalid_value"),
    ({"ventris": {"verifier": "none such"}}, "ventris.verifier", "invalid_value"),
    ({"temperature": 1, "ventris": {"verifier": "greedy"}}, None, "incompatible_parts"),
    (
        {"ventris": {"verifier": "synthetic", "draft": "ngram", "guarantee": "exact"}},
        "ventris.guarantee",
        "no_such_guarantee",
    ),
    (
        {"ventris": {"guides": [{"json-schema": {"schema": "/etc/passwd"}}]}},
        "ventris.guides",
        "invalid_value",
    ),
    ({"ventris": {"guides": [{"mine": {}}]}}, "ventris.guides", "invalid_value"),
    ({"ventris": {"guides": [{"regex": {}}]}}, "ventris.guides", "invalid_value"),
    ({"ventris": {"guides": [{"regex": {"pattern": "("}}]}}, None, "invalid_value"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "invalid_value"),
    ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "unheard of"}}}},
        "response_format",
        "invalid_value",
    ),
    ({"messages": [{"role": "user", "content": "x" * 30_000}]}, "messages", "context_length_exceeded"),
    ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools.0.function.name",
        "invalid_value",
    ),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
        "tool_choice",
        "invalid_value",
    ),
    ({"tools": TOOLS * 2}, "tools", "invalid_value"),
    ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), WRONG, ids=[str(w[0])[:60] for w in WRONG])
def test_a_bad_field_is_named(server: Running, fields: dict[str, Any], param: str | None, code: str) -> None:
    reply = server.ask("POST", CHAT, {**chat_body(), **fields})
    assert reply.status == 400
    error = reply.error
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    if param is not None:
        assert error["param"] == param


def test_a_schema_that_is_too_deep(server: Running) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(60):
        schema = {"type": "object", "properties": {"a": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "deep", "schema": schema}}
    reply = server.chat(response_format=form)
    assert (reply.status, reply.error["param"]) == (400, "response_format")


def test_a_grammar_never_names_a_file(server: Running, tmp_path: Any) -> None:
    secret = tmp_path / "grammar"
    secret.write_text('start: "secret"\n')
    reply = server.chat(ventris={"guides": [{"grammar": {"source": str(secret)}}]})
    assert reply.status == 400
    assert b"secret" not in reply.body.replace(str(secret).encode(), b"")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"model": "\\ud800"}'],
    ids=range(8),
)
def test_a_body_that_is_no_request(server: Running, body: bytes) -> None:
    reply = server.ask("POST", CHAT, body)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


def test_completions_have_their_own_fields(server: Running) -> None:
    for fields in (
        {"echo": True},
        {"suffix": "x"},
        {"best_of": 3},
        {"prompt": []},
        {"prompt": ""},
        {"prompt": [[]]},
    ):
        reply = server.complete(**fields)
        assert (reply.status, reply.error["type"]) == (400, "invalid_request_error"), fields
    assert server.complete([5, 10**6]).error["code"] == "invalid_value"
    assert server.complete(["a"] * 20).error["param"] == "n"


def test_paths_and_methods(server: Running) -> None:
    assert server.ask("GET", "/nowhere").error["code"] == "not_found"
    reply = server.ask("GET", CHAT)
    assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
    assert server.ask("GET", "/v1/models/gpt-4").error["code"] == "model_not_found"
    reply = server.ask("POST", CHAT, {**chat_body(), "model": "gpt-4"})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    reply = server.ask("POST", "/v1/embeddings", {"model": NAME, "input": "x"})
    assert (reply.status, reply.error["code"]) == (400, "unsupported")


def test_the_openai_client_knows_the_errors(server: Running) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**{**chat_body(), "temperature": 9})
    assert (bad.value.param, bad.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**chat_body(), "model": "gpt-4"})
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=NAME, input="x")


def test_an_error_in_a_stream_is_an_event(server: Running) -> None:
    body = chat_body(max_tokens=15_000, stream=True, ventris={"deadline": 0.2, "ignore_eos": True})
    reply = server.ask("POST", CHAT, body)
    assert reply.status == 200
    assert reply.events[-1]["error"]["code"] == "deadline_exceeded"
    body["stream"] = False
    reply = server.ask("POST", CHAT, body)
    assert (reply.status, reply.error["type"]) == (408, "timeout_error")
    assert reply.headers["x-should-retry"] == "false"
    client = OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    body["stream"] = True
    own = {"ventris": body.pop("ventris")}
    with pytest.raises(openai.APIError) as told:
        list(client.chat.completions.create(**body, extra_body=own))
    assert told.value.code == "deadline_exceeded"


def test_a_guide_that_dead_ends_is_the_clients_affair(server: Running) -> None:
    fields = {"ventris": {"guides": [{"choice": {"options": ["yes"]}}], "banned_words": ["yes", "y"]}}
    reply = server.chat(**fields)
    assert (reply.status, reply.error["code"]) == (400, "decoding_stopped")


def test_the_stream_of_an_answer_that_fails_holds_all_its_text(server: Running) -> None:
    # Forced at once up to its last letter, and only then it shows that both ways on break a rule.
    schema = {"enum": ["written whole: a", "written whole: b"], "not": {"pattern": "a|b"}}
    form = {"type": "json_schema", "json_schema": {"name": "dead end", "schema": schema}}
    reply = server.chat("hello", stream=True, max_tokens=40, response_format=form)
    *told, last = reply.events
    assert "would end the text with a rule broken" in last["error"]["message"]
    text = "".join(choice["delta"].get("content") or "" for chunk in told for choice in chunk["choices"])
    assert text == '"written whole: '
    assert {choice["finish_reason"] for chunk in told for choice in chunk["choices"]} == {None}


def test_errors_of_the_server_tell_nothing_of_its_inside() -> None:
    assert "secret" not in refusal(RuntimeError("secret")).message
    assert refusal(RuntimeError("x")).status == 500
    assert refusal(BrokenModel("NaN")).status == 500
    assert refusal(MemoryError("x")).status == 503
    again = ApiError(429, "x", "y")
    assert refusal(again) is again
    assert again.headers() == {"Retry-After": "2"}
