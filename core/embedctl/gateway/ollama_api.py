"""Ollama's API as far as embedding needs it: `/api/embed`, `/api/embeddings`, and what lists models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import embedctl
from embedctl.engine.facade import EngineFacade
from embedctl.gateway.calls import Calls
from embedctl.gateway.embedding import Embedder
from embedctl.gateway.inputs import Inputs, read_inputs
from embedctl.gateway.names import ModelNames, Target
from embedctl.gateway.openai_api import read_dimensions
from embedctl.gateway.problems import Problem, failed_texts, json_response
from embedctl.gateway.vectors import cut, plain_rows, wrap
from embedctl.records import BackendState, BackendStatus, EmbedResult

API_VERSION: Final = "0.33.0"
"""The version of Ollama whose API this is; clients compare it with what they need."""
_FOREVER: Final = datetime(2318, 1, 1, tzinfo=UTC)
"""What Ollama states for a model that is kept for ever."""


class OllamaApi:
    """The handlers of Ollama's paths. `keep_alive` and `options` are accepted and have no effect: the
    engine's settings say how long a model stays, and how it is run."""

    def __init__(self, engine: EngineFacade, calls: Calls, embedder: Embedder, names: ModelNames) -> None:
        self._engine = engine
        self._calls = calls
        self._embedder = embedder
        self._names = names

    def routes(self) -> list[Route]:
        return [
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/embeddings", self.embeddings, methods=["POST"]),
            Route("/api/show", self.show, methods=["POST"]),
            Route("/api/tags", self.tags),
            Route("/api/ps", self.running),
            Route("/api/version", self.version),
        ]

    async def embed(self, request: Request) -> Response:
        started = time.perf_counter()
        async with self._calls.open(request) as call:
            body = await call.json()
            target = self._target(body)
            _check_ignored(body)
            dimensions = None if _is_zero(body.get("dimensions")) else read_dimensions(body)
            may_cut = _flag(body, "truncate", default=True)
            value = body.get("input")
            if value is None or value in ("", []):  # what preloads a model at Ollama
                return json_response({"model": target.model, "embeddings": []})
            settings = self._calls.settings
            inputs = await call.beside(lambda: read_inputs(value, settings, token_ids=False))

            def render(result: EmbedResult) -> bytes:
                if result.truncated and not may_cut:
                    raise _too_long(result, inputs)
                vectors, failures = cut(result, dimensions)
                if failures:
                    raise failed_texts(list(failures.values()), single=inputs.single)
                tail = {
                    "model": target.model,
                    "total_duration": int((time.perf_counter() - started) * 1e9),
                    **({} if result.tokens is None else {"prompt_eval_count": result.tokens}),
                }
                return wrap(b'{"embeddings":[', plain_rows(vectors), tail)

            answer = await self._embedder.embed(call, request, target, inputs, render)
        return Response(answer.body, headers=answer.headers, media_type="application/json")

    async def embeddings(self, request: Request) -> Response:
        """The older API. Its vectors are normalised here, as everywhere: one model, one fingerprint."""
        async with self._calls.open(request) as call:
            body = await call.json()
            target = self._target(body)
            _check_ignored(body)
            prompt = body.get("prompt")
            if prompt is None or prompt == "":
                return json_response({"embedding": []})
            if not isinstance(prompt, str):
                raise Problem(400, "prompt must be a string", code="invalid_input", param="prompt")
            inputs = read_inputs(prompt, self._calls.settings, token_ids=False, name="prompt")

            def render(result: EmbedResult) -> bytes:
                vectors, failures = cut(result, None)
                if failures:
                    raise failed_texts(list(failures.values()), single=True)
                return b'{"embedding":' + b"".join(plain_rows(vectors)) + b"}"

            answer = await self._embedder.embed(call, request, target, inputs, render)
        return Response(answer.body, headers=answer.headers, media_type="application/json")

    async def tags(self, request: Request) -> Response:
        names = (self._names.names[0] + ":latest", *self._names.pinned)
        return json_response({"models": [self._entry(self._names.target(name)) for name in names]})

    async def running(self, request: Request) -> Response:
        status = self._engine.status()
        loaded = [backend for backend in status.backends if backend.state is BackendState.READY]
        return json_response(
            {"models": [self._loaded_entry(b, active=b.name == status.active) for b in loaded]}
        )

    async def version(self, request: Request) -> Response:
        return json_response({"version": f"{API_VERSION}+embedctl.{embedctl.__version__}"})

    async def show(self, request: Request) -> Response:
        async with self._calls.open(request) as call:
            body = await call.json()
        target = self._target({"model": body.get("model") or body.get("name")})
        known = self._engine.fingerprint(target.backend)
        info = {
            "general.architecture": "embedding",
            "embedding.context_length": known.max_tokens,
            "embedding.embedding_length": known.dimension,
            "embedding.pooling_type": known.pooling,
        }
        return json_response(
            {
                "modelfile": f"# Served by embedctl.\nFROM {known.model}\n",
                "details": _details(known.dtype),
                "model_info": {key: value for key, value in info.items() if value is not None},
                "capabilities": ["embedding"],
            }
        )

    def _target(self, body: Mapping[str, Any]) -> Target:
        try:
            return self._names.target(body.get("model"))
        except Problem as problem:
            if problem.status != 404:
                raise
            name = str(body.get("model"))[:100]
            raise Problem(
                404,
                f'model "{name}" not found, try pulling it first; here it is called '
                + ", ".join(self._names.names),
                code=problem.code,
            ) from None

    def _entry(self, target: Target) -> dict[str, Any]:
        known = self._engine.fingerprint(target.backend)
        return {
            "name": target.model,
            "model": target.model,
            **({} if known.revision is None else {"digest": known.revision}),
            "details": _details(known.dtype),
        }

    def _loaded_entry(self, backend: BackendStatus, *, active: bool) -> dict[str, Any]:
        name = self._names.names[0] + ":latest" if active else f"{backend.name}:{self._names.names[0]}"
        expires = backend.expires_at
        when = _FOREVER if expires is None else datetime.fromtimestamp(expires, UTC)
        entry = {
            "name": name,
            "model": name,
            "digest": backend.revision,
            "size_vram": backend.claimed_bytes,
            "context_length": backend.max_tokens,
            "expires_at": when.isoformat(),
            "details": _details(backend.dtype),
        }
        return {key: value for key, value in entry.items() if value is not None}


def _details(dtype: str | None) -> dict[str, Any]:
    known = {} if dtype is None else {"quantization_level": dtype}
    return {"family": "embedding", "families": ["embedding"], **known}


def _flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Problem(400, f"{name} must be true or false", code="invalid_parameter", param=name)
    return value


def _is_zero(value: object) -> bool:
    """Zero asks Ollama for all dimensions; false, which equals it in Python, is no number of them."""
    return value == 0 and not isinstance(value, bool)


def _check_ignored(body: Mapping[str, Any]) -> None:
    keep_alive, options = body.get("keep_alive"), body.get("options")
    if keep_alive is not None and (
        isinstance(keep_alive, bool) or not isinstance(keep_alive, str | int | float)
    ):
        raise Problem(
            400, "keep_alive must be a duration or a number", code="invalid_parameter", param="keep_alive"
        )
    if options is not None and not isinstance(options, dict):
        raise Problem(400, "options must be an object", code="invalid_parameter", param="options")


def _too_long(result: EmbedResult, inputs: Inputs) -> Problem:
    which = inputs.name(result.truncated[0])
    return Problem(
        400,
        f"the input length exceeds the context length ({which}; {len(result.truncated)} in all)",
        code="too_long",
        param=which,
    )
