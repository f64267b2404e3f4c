"""The shapes of responses, for ``/openapi.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class ErrorFacts(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """Every error."""

    error: ErrorFacts


class Usage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class AssistantMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(BaseModel):
    """One answer to a conversation."""

    index: int
    message: AssistantMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatResponse(BaseModel):
    """The response of ``/v1/chat/completions``, if it is no stream."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    ventris: list[dict[str, Any]]


class TextChoice(BaseModel):
    """One continuation of a prompt."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class CompletionResponse(BaseModel):
    """The response of ``/v1/completions``, if it is no stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage
    ventris: list[dict[str, Any]]


class ModelCard(BaseModel):
    """A model; ``ventris`` says what its clients may ask for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    ventris: dict[str, Any]


class ModelList(BaseModel):
    """All models: there is one."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "shutting_down"]
    running: int
    queued: int
