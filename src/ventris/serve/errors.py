"""Errors as clients of OpenAI's API know them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ventris.engine.errors import BadInput, BrokenModel, Incompatible, StageLost, VentrisError
from ventris.engine.walk import DeadEnd

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    499: "cancelled",
    500: "server_error",
    503: "overloaded_error",
}

RETRY_SECONDS = 2
"""What a client that found the server busy is told to wait."""


class ApiError(Exception):
    """An answer that says why there is none.

    Args:
        status: HTTP status.
        message: One line for a person: what is wrong and what to do.
        code: Short, for programs.
        param: The field of the request that is to blame.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error as JSON values."""
        return {
            "error": {
                "message": self.message,
                "type": TYPES.get(self.status, TYPES[400 if self.status < 500 else 500]),
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_SECONDS)}
        # A deadline that passed will pass again.
        return {"x-should-retry": "false"} if self.status == 408 else {}


def refusal(error: Exception, param: str | None = None) -> ApiError:
    """What a client is told of an error that came up while its request was prepared or decoded."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BadInput | Incompatible):
        code = "incompatible_parts" if isinstance(error, Incompatible) else "invalid_value"
        return ApiError(400, _one_line(error), code, param)
    if isinstance(error, MemoryError):
        return ApiError(503, "the server has no memory left for this answer; try again", "out_of_memory")
    if isinstance(error, DeadEnd):
        # Guides, bans and biases are the client's; together they left nothing to say.
        return ApiError(400, _one_line(error), "decoding_stopped", param)
    if isinstance(error, BrokenModel):
        return ApiError(500, _one_line(error), "broken_model")
    if isinstance(error, StageLost):
        return ApiError(500, _one_line(error), "stage_lost")
    if isinstance(error, VentrisError):
        return ApiError(400, _one_line(error), "decoding_stopped", param)
    return ApiError(500, "the server met an error of its own; its log says more", "internal_error")


def invalid_body(first: Mapping[str, Any]) -> ApiError:
    """What a client is told of a body that is not as it should be.

    Args:
        first: The first entry of pydantic's list of errors.
    """
    param = ".".join(str(step) for step in first["loc"] if step != "body")[:200] or None
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['ctx']['error']}", "invalid_json")
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"unknown field {param!r}", "unknown_parameter", param)
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, "invalid_value", param)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
