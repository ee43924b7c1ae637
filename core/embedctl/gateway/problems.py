"""What a request is refused with, and how each API writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.responses import Response

from embedctl.errors import (
    BackendError,
    BackendNotLoadedError,
    BackendOutOfMemoryError,
    BackendTimeoutError,
    EmbedctlError,
    InvalidTextError,
    ModelMissingError,
    SwitchError,
    UsageError,
)
from embedctl.records import TextFailure

RETRY_AFTER_S: Final = 1.0
"""A worker is back within seconds, a queue moves within one: a client that asks too early is told again."""
_SHOWN_FAILURES: Final = 20


class Problem(Exception):
    """A request that gets an error for an answer.

    Args:
        status: The HTTP status.
        message: What is wrong and, where it helps, what to do: one or two sentences.
        code: The problem's kind in one word, for programs.
        param: The part of the request that is wrong, such as `input[3]`.
        retry_after: Seconds after which the same request may succeed.
        close: The connection cannot be used any more, as when a body was not read to its end.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        close: bool = False,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(math.ceil(retry_after))
        if close:
            self.headers["connection"] = "close"
        self.details = dict(details or {})


class ClientGone(Exception):
    """The client closed the connection: nobody waits for an answer."""


def problem_of(error: EmbedctlError) -> Problem:
    """An engine's error as an answer."""
    retry_after = RETRY_AFTER_S if error.retryable else None
    match error:
        case InvalidTextError():
            return Problem(400, str(error), code="invalid_text", param=f"input[{error.index}]")
        case UsageError():
            return Problem(400, str(error), code="invalid_request")
        case BackendTimeoutError():
            return Problem(504, str(error), code="timeout")
        case ModelMissingError() | BackendOutOfMemoryError() | BackendNotLoadedError() | SwitchError():
            return Problem(503, str(error), code="backend_unavailable", retry_after=retry_after)
        case BackendError() if not error.retryable:
            return Problem(502, str(error), code="backend_failed")
    return Problem(503, str(error), code="backend_unavailable", retry_after=retry_after)


def failed_texts(failures: Sequence[TextFailure], *, single: bool) -> Problem:
    """Texts that got no vector, in a request whose API has no place for one text's error."""
    indices = [failure.index for failure in failures]
    shown = "; ".join(f"input[{f.index}]: {f.what}" for f in failures[:_SHOWN_FAILURES])
    more = f"; and {len(failures) - _SHOWN_FAILURES} more" if len(failures) > _SHOWN_FAILURES else ""
    number = "1 text" if len(failures) == 1 else f"{len(failures)} texts"
    advice = "" if single else ". Leave these out: the other texts of the request are fine"
    return Problem(
        400,
        f"{number} could not be embedded: {shown}{more}{advice}",
        code="text_failed",
        param="input" if single else f"input[{indices[0]}]",
        details={"indices": indices},
    )


def is_ollama_path(path: str) -> bool:
    return path == "/api" or path.startswith("/api/")


def answer_to(problem: Problem, path: str) -> Response:
    """The answer in the shape of the API that `path` belongs to."""
    body = {"error": problem.message} if is_ollama_path(path) else {"error": openai_error(problem)}
    return json_response(body, problem.status, problem.headers)


def openai_error(problem: Problem) -> dict[str, Any]:
    if problem.status == 429:
        kind = "rate_limit_error"
    elif problem.status == 401:
        kind = "authentication_error"
    else:
        kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    return {
        "message": problem.message,
        "type": kind,
        "param": problem.param,
        "code": problem.code,
        **problem.details,
    }


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
