"""The HTTP side: OpenAI's paths over a service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from ventris import __version__
from ventris.engine.request import Completion
from ventris.serve.answers import Answer, ChatAnswer, TextAnswer
from ventris.serve.errors import ApiError, invalid_body, refusal
from ventris.serve.event_stream import DONE, EventStream, event, to_json, watch_client
from ventris.serve.guard import Guard
from ventris.serve.metrics import CONTENT_TYPE
from ventris.serve.requests import AnswerRequest, ChatRequest, CompletionRequest
from ventris.serve.responses import (
    ChatResponse,
    CompletionResponse,
    ErrorResponse,
    Health,
    ModelCard,
    ModelList,
)
from ventris.serve.service import Conversation, Service

logger = logging.getLogger("ventris.serve")

OPEN_PATHS = frozenset({"/health"})
"""For these no key is needed."""

STATUSES = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)


def create_app(
    service: Service, pages: Sequence[APIRouter] = (), open_paths: Collection[str] = OPEN_PATHS
) -> FastAPI:
    """The application.

    Args:
        service: What answers; it is started and closed with the application.
        pages: Further routes, such as those of a web page.
        open_paths: Paths for which no key is needed.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="Ventris",
        version=__version__,
        description="OpenAI's HTTP API over one engine; Ventris' own fields are under the key `ventris`.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    routers = [_api(service), *pages]
    for router in routers:
        app.include_router(router)
    paths = [route.path for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(
        Guard,
        settings=service.settings,
        keys=service.keys,
        metrics=service.metrics,
        open_paths=open_paths,
        paths=[*paths, "/openapi.json"],
    )
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id"],
        )
    return app


class _StrictJson(Request):
    """A request whose body is read as JSON is meant to be: no NaN, no lone surrogates, no duplicate ends."""

    async def json(self) -> Any:
        return orjson.loads(await self.body())


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Any:
            return await handle(_StrictJson(request.scope, request.receive))

        return strict


def _api(service: Service) -> APIRouter:
    errors: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in STATUSES}
    api = APIRouter(route_class=_Route, responses=errors)

    @api.post("/v1/chat/completions", response_model=ChatResponse, summary="Answer a conversation")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await _answer(service, request, body, ChatAnswer)

    @api.post("/v1/completions", response_model=CompletionResponse, summary="Continue a text")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await _answer(service, request, body, TextAnswer)

    @api.post("/v1/embeddings", summary="Refused: this server has no embedding model", status_code=400)
    async def embeddings() -> Response:
        raise ApiError(
            400, f"{service.name} decodes text and has no embeddings; use an embedding model", "unsupported"
        )

    @api.get("/v1/models", response_model=ModelList, summary="List the model")
    async def models() -> Response:
        return _json({"object": "list", "data": [_card(service)]})

    @api.get("/v1/models/{name:path}", response_model=ModelCard, summary="Show the model")
    async def model(name: str) -> Response:
        if name != service.name:
            raise ApiError(404, f"there is no model {name[:200]!r} here", "model_not_found", "model")
        return _json(_card(service))

    @api.get("/health", response_model=Health, summary="Say whether the server takes requests")
    async def health() -> Response:
        now = service.scheduler.snapshot()
        status = "shutting_down" if service.scheduler.draining else "ok"
        body = {"status": status, "running": now.running, "queued": now.queued}
        return _json(body, 200 if status == "ok" else 503)

    @api.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    return api


def _card(service: Service) -> dict[str, Any]:
    target = service.model.target
    return {
        "id": service.name,
        "object": "model",
        "created": service.created,
        "owned_by": "ventris",
        "ventris": {
            "context": target.context_length,
            "vocabulary": target.vocab_size,
            "dtype": str(getattr(target, "dtype", "unknown")).removeprefix("torch."),
            "defaults": {key: value for key, value in service.defaults.items() if _plain(value)},
            **service.offered.describe(),
        },
    }


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | list)


async def _answer(
    service: Service, request: Request, body: AnswerRequest, kind: type[ChatAnswer] | type[TextAnswer]
) -> Response:
    """Prepare, queue, and answer whole or as a stream."""
    note = request.state.note
    try:
        requests = await service.prepare(body, request.state.holder)
        conversation = service.submit(requests, body, request.state.holder)
    except ApiError as error:
        if error.status >= 500 and error.code == "internal_error":
            logger.exception("a request could not be prepared", exc_info=error.__cause__ or error)
        raise
    if service.settings.log_prompts:
        note["body"] = body.model_dump(exclude_unset=True)
    answer = service.answer(kind, requests, body.ventris.trace)
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        events = _events(conversation, answer, usage, note)
        return EventStream(events, conversation.cancel, service.settings.stall)
    watch = asyncio.create_task(watch_client(request.receive, conversation.cancel))
    try:
        completions = await conversation.whole()
    except Exception as error:
        raise _failed(error, note) from error
    finally:
        watch.cancel()
        conversation.cancel()
    _note(note, completions, service.settings.log_prompts)
    return _json(answer.whole(completions))


async def _events(
    conversation: Conversation, answer: Answer, with_usage: bool, note: dict[str, Any]
) -> AsyncIterator[bytes]:
    """The events of a stream, those that are there at a time together; an error is the last but one."""
    choices = len(conversation.job.requests)
    for chunk in answer.opening(choices):
        yield event(chunk)
    async for updates in conversation.news():
        pieces: list[bytes] = []
        for update in updates:
            if update.error is not None:
                # What was written before it failed is the client's all the same.
                rest = answer.encoded(replace(update, finished=False))
                error = _failed(update.error, note)
                conversation.cancel()
                yield b"".join([*pieces, rest or b"", event(error.body()), DONE])
                return
            if (piece := answer.encoded(update)) is not None:
                pieces.append(piece)
        if pieces:
            yield b"".join(pieces)
    if with_usage:
        yield event(answer.usage_chunk(conversation.answered))
    _note(note, conversation.answered, conversation.service.settings.log_prompts)
    yield DONE


def _note(note: dict[str, Any], completions: Sequence[Completion], with_text: bool) -> None:
    """Figures for the log line."""
    stats = [completion.stats for completion in completions]
    note |= {
        "prompt_tokens": sum(s.prompt_tokens for s in stats),
        "new_tokens": sum(s.new_tokens for s in stats),
        "first_token_seconds": round(max(s.first_token_seconds for s in stats), 4),
        "finish_reason": [completion.finish_reason for completion in completions],
    }
    if with_text:
        note["answers"] = [completion.text for completion in completions]


def _failed(error: Exception, note: dict[str, Any]) -> ApiError:
    """What the client is told of an answer that failed, and the log."""
    told = refusal(error)
    note["error"] = told.code
    if told.code == "internal_error":
        logger.error("an answer failed", exc_info=error)
    return told


def _json(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def _error_response(error: ApiError) -> Response:
    return Response(to_json(error.body()), error.status, error.headers(), media_type="application/json")


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ApiError):
        # FastAPI takes whatever goes wrong while it reads a body for a malformed one.
        return _error_response(error.__cause__)
    path = request.url.path[:200]
    known = {
        404: ApiError(404, f"there is no {path!r} here", "not_found"),
        405: ApiError(405, f"{request.method} is not allowed on {path!r}", "method_not_allowed"),
    }
    told = known.get(error.status_code) or ApiError(error.status_code, str(error.detail), "bad_request")
    response = _error_response(told)
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    """The first thing that is wrong with a body, in one line."""
    assert isinstance(error, RequestValidationError)
    return _error_response(invalid_body(error.errors()[0]))


async def _bug(request: Request, error: Exception) -> Response:
    logger.error("a bug", exc_info=error)
    with suppress(AttributeError):
        request.state.note["error"] = "internal_error"
    return _error_response(refusal(error))
