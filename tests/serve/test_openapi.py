"""Random requests made from the OpenAPI document: never a 5xx, and every response is as documented."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.serve.running import NAME, Running
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
