"""One line of answers, made by the server's own code.

A line is the same in every run of the same job: clocks, random ids, and what depends on who was decoded
beside whom (cached tokens, accepted drafts) are left out or derived from the request.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson
from pydantic import ValidationError

from ventris.batch.requests_file import RequestLine
from ventris.serve.answers import Answer, ChatAnswer, TextAnswer
from ventris.serve.errors import ApiError, invalid_body, refusal
from ventris.serve.requests import AnswerRequest, ChatRequest, CompletionRequest
from ventris.serve.service import Service

KINDS: dict[str, tuple[type[AnswerRequest], type[Answer]]] = {
    "/v1/chat/completions": (ChatRequest, ChatAnswer),
    "/v1/completions": (CompletionRequest, TextAnswer),
}

HOLDER = "batch"
SEED_BITS = 62

Json = dict[str, Any]


def request_key(line: RequestLine, body: Json, job: str) -> str:
    """A digest that names a request: the same for the same request of the same job.

    Args:
        job: What else answers depend on.
    """
    said = orjson.dumps([job, line.custom_id, line.url, body])
    return sha256(said).hexdigest()[:24]


async def answer_line(service: Service, line: RequestLine, body: Json, key: str) -> Json:
    """The answer to a request, or the error in its place, as a line of OpenAI's batch output."""
    try:
        status, content = 200, await _answer(service, line.url, body, key)
    except ApiError as error:
        status, content = error.status, error.body()
    return {
        "id": f"batch_req_{key}",
        "custom_id": line.custom_id,
        "response": {"status_code": status, "request_id": f"req-{key}", "body": content},
        "error": None,
    }


async def _answer(service: Service, url: str, given: Json, key: str) -> Json:
    request_kind, answer_kind = KINDS[url]
    try:
        body = request_kind.model_validate(given)
    except ValidationError as error:
        raise invalid_body(error.errors()[0]) from None
    for field, wanted in (("stream", body.stream), ("ventris.trace", body.ventris.trace)):
        if wanted:
            raise ApiError(400, f"{field} is not for batches; leave it out", "unsupported", field)
    if body.seed is None and "seed" not in service.defaults:
        # Drawn at random, as a server does it, a second run could not tell the same.
        body.seed = int(sha256(key.encode()).hexdigest(), 16) % 2**SEED_BITS
    requests = await service.prepare(body, HOLDER)
    conversation = service.submit(requests, body, HOLDER)
    try:
        completions = await conversation.whole()
    except Exception as error:
        raise refusal(error) from error
    finally:
        conversation.cancel()
    answer = service.answer(answer_kind, requests, traced=False)
    answer.id, answer.created = f"{answer.prefix}-{key}", 0
    return _settled(answer.whole(completions))


def _settled(content: Json) -> Json:
    """An answer without what differs from run to run."""
    usage = {name: content["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    facts = [
        {name: value for name, value in entry.items() if name in ("guarantee", "valid")}
        for entry in content["ventris"]
    ]
    return {**content, "usage": usage, "ventris": facts}
