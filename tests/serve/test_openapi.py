"""Random requests made from the OpenAPI document: never a 5xx, and every response is as documented."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serve.running import NAME, Running, chat_body
from ventris.serve.errors import TYPES

schemathesis = pytest.importorskip("schemathesis")


def test_the_document(server: Running) -> None:
    document = server.ask("GET", "/openapi.json").json
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{name}",
        "/health",
        "/metrics",
    }
    chat = document["components"]["schemas"]["ChatRequest"]["properties"]
    for field in ("messages", "stream", "tools", "response_format", "logit_bias", "seed", "ventris"):
        assert field in chat
    for path in document["paths"].values():
        for operation in path.values():
            assert "ErrorResponse" in str(operation["responses"]["400"])


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_random_requests_meet_no_bug(server: Running) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: set[int] = set()
    for operation in schema.get_all_operations():
        case_strategy = operation.ok().as_strategy()

        @settings(
            max_examples=150,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=case_strategy)
        def run(case) -> None:  # type: ignore[no-untyped-def]
            if isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = NAME
                case.body["max_tokens"] = min(case.body.get("max_tokens") or 4, 4)
                case.body.pop("max_completion_tokens", None)
            response = case.call(base_url=server.url)
            seen.add(response.status_code)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.json()["error"]["type"] in TYPES.values()

        run()
    assert {200, 400} <= seen


ODD_SCHEMAS: list[dict[str, Any]] = [
    {},
    {"type": 5},
    {"type": "array"},
    {"type": ["object", "null"]},
    {"$ref": "#/nowhere"},
    {"$ref": "http://host/schema"},
    {"$ref": "#"},
    {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"type": "object", "properties": 5},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+$"}}},
    {"type": "object", "properties": {"a": {"enum": []}}},
    {"type": "object", "properties": {"": True, "\u0000": False}},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1e308, "maximum": -1e308}}},
    {"type": "object", "properties": {"a": {"type": "array", "minItems": 10**9}}},
    {"type": "object", "properties": {"a": {"type": "string", "maxLength": -1}}},
    {"type": "object", "properties": {"a": {"multipleOf": 0}}},
    {"type": "object", "minProperties": 10**18},
    {"type": "object", "required": ["x"], "additionalProperties": False},
    {"type": "object", "patternProperties": {"[": {}}},
    {"allOf": []},
    {"oneOf": [{"type": "object"}, {"type": "object"}]},
    {"not": {}},
    {"if": True, "then": False},
]


@pytest.mark.long
@pytest.mark.parametrize("schema", ODD_SCHEMAS, ids=str)
@pytest.mark.parametrize("stream", [False, True])
def test_odd_schemas_are_kept_or_refused(server: Running, schema: dict[str, Any], stream: bool) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    form = {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}
    for field, fields in (
        ("tools", {"tools": tools, "tool_choice": "required"}),
        ("tools", {"tools": [{**tools[0], "function": {**tools[0]["function"], "strict": True}}]}),
        ("response_format", {"response_format": form}),
        (
            "response_format",
            {"response_format": {**form, "json_schema": {**form["json_schema"], "strict": True}}},
        ),
    ):
        reply = server.ask("POST", "/v1/chat/completions", chat_body(stream=stream, max_tokens=6, **fields))
        if reply.status == 200:
            assert reply.events if stream else reply.json["choices"]
        else:
            error = reply.error
            assert (reply.status, error["type"]) == (400, "invalid_request_error")
            assert error["param"] == field
            assert error["code"]
