"""OpenAI's API: `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedctl.gateway.calls import PARTIAL_HEADER, Calls
from embedctl.gateway.embedding import Embedder
from embedctl.gateway.inputs import Inputs, estimated_tokens, read_inputs
from embedctl.gateway.names import ModelNames
from embedctl.gateway.problems import Problem, failed_texts, json_response, openai_error
from embedctl.gateway.vectors import cut, openai_rows, wrap
from embedctl.records import EmbedResult

MOST_DIMENSIONS: Final = 65_536


class OpenAIApi:
    """The handlers of OpenAI's paths."""

    def __init__(self, calls: Calls, embedder: Embedder, names: ModelNames) -> None:
        self._calls = calls
        self._embedder = embedder
        self._names = names
        self._since = int(time.time())

    def routes(self) -> list[Route]:
        return [
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
        ]

    async def embeddings(self, request: Request) -> Response:
        async with self._calls.open(request) as call:
            body = await call.json()
            target = self._names.target(body.get("model"))
            value, settings = _required(body, "input"), self._calls.settings
            inputs = await call.beside(lambda: read_inputs(value, settings, token_ids=True))
            as_base64 = _is_base64(body.get("encoding_format"))
            dimensions = read_dimensions(body)
            partial = call.headers.get(PARTIAL_HEADER) in ("1", "true")

            def render(result: EmbedResult) -> bytes:
                vectors, failures = cut(result, dimensions)
                if failures and not partial:
                    raise failed_texts(list(failures.values()), single=inputs.single)
                errors = {
                    index: openai_error(
                        Problem(400, failure.what, code="text_failed", param=inputs.name(index))
                    )
                    for index, failure in failures.items()
                }
                return wrap(
                    b'{"object":"list","data":[',
                    openai_rows(vectors, errors, as_base64=as_base64),
                    {"model": target.model, "usage": _usage(result, inputs)},
                )

            answer = await self._embedder.embed(call, request, target, inputs, render)
        return Response(answer.body, headers=answer.headers, media_type="application/json")

    async def models(self, request: Request) -> Response:
        listed = [self._entry(name) for name in (*self._names.names, *self._names.pinned)]
        return json_response({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        target = self._names.target(request.path_params["name"])
        return json_response(self._entry(target.model))

    def _entry(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "embedctl"}


def read_dimensions(body: Mapping[str, Any]) -> int | None:
    """How many numbers of each vector are wanted; None: all.

    Raises:
        Problem: It is no whole number above 0, or larger than any model's.
    """
    value = body.get("dimensions")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_DIMENSIONS:
        raise Problem(
            400,
            f"dimensions must be a whole number from 1 to {MOST_DIMENSIONS}",
            code="invalid_dimensions",
            param="dimensions",
        )
    return value


def _required(body: Mapping[str, Any], name: str) -> object:
    if name not in body:
        raise Problem(400, f"{name} is missing", code="missing_parameter", param=name)
    return body[name]


def _usage(result: EmbedResult, inputs: Inputs) -> dict[str, Any]:
    """Numbers always: many clients are typed and would fail on null. An estimate says that it is one."""
    if result.tokens is not None:
        return {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    # Nobody has counted: there is no vocabulary here, so what was sent are texts.
    about = estimated_tokens(text for text in inputs.items if isinstance(text, str))
    return {"prompt_tokens": about, "total_tokens": about, "estimated": True}


def _is_base64(value: object) -> bool:
    if value not in (None, "float", "base64"):
        raise Problem(
            400,
            "encoding_format must be float or base64",
            code="invalid_encoding_format",
            param="encoding_format",
        )
    return value == "base64"
