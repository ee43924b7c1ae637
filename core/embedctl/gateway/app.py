"""The application: the paths, and the parts that answer them."""

from __future__ import annotations

from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import embedctl
from embedctl.engine.facade import EngineFacade
from embedctl.errors import HubError
from embedctl.gateway.calls import FINGERPRINT_HEADER, Calls
from embedctl.gateway.embedding import BACKEND_HEADER, TRUNCATED_HEADER, Embedder
from embedctl.gateway.guard import OPEN_PATHS, Guard
from embedctl.gateway.health import Health
from embedctl.gateway.inputs import TokenIds
from embedctl.gateway.keys import Keys
from embedctl.gateway.metrics import GatewayMetrics
from embedctl.gateway.names import ModelNames
from embedctl.gateway.ollama_api import OllamaApi
from embedctl.gateway.openai_api import OpenAIApi
from embedctl.gateway.openapi import describe
from embedctl.gateway.problems import RETRY_AFTER_S, Problem, answer_to, json_response
from embedctl.gateway.shortcut import Shortcut
from embedctl.settings import GatewaySettings

_READABLE_HEADERS: Final = (FINGERPRINT_HEADER, BACKEND_HEADER, TRUNCATED_HEADER, "Retry-After")


class GatewayApp:
    """The ASGI application over one engine. Make it on the event loop that it will run on."""

    def __init__(self, engine: EngineFacade, settings: GatewaySettings, keys: Keys) -> None:
        self.calls = Calls(settings)
        self.metrics = GatewayMetrics(engine, self.calls.admission)
        names = ModelNames(engine.settings.model, settings)
        tokens = TokenIds(lambda: _model_folder(engine))
        embedder = Embedder(engine, settings, tokens)
        self._description = describe(names, settings, keyed=bool(keys))
        openai = OpenAIApi(self.calls, embedder, names)
        ollama = OllamaApi(engine, self.calls, embedder, names)
        routes = [
            *openai.routes(),
            *ollama.routes(),
            *Health(engine, self.calls, embedder, self.metrics).routes(),
            Route("/openapi.json", self._openapi),
            Route("/", self._root),
        ]
        busy = {"/v1/embeddings": openai.embeddings, "/api/embed": ollama.embed}
        middleware = [
            Middleware(Guard, settings=settings, keys=keys, metrics=self.metrics),
            Middleware(Shortcut, handlers=busy),
        ]
        if settings.cors_origins:
            pages = Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=_READABLE_HEADERS,
            )
            middleware.insert(0, pages)
        self.asgi = Starlette(
            routes=routes, middleware=middleware, exception_handlers={HTTPException: _no_such_path}
        )
        self.asgi.router.redirect_slashes = False

    def close(self) -> None:
        """End what it started; the engine stays open."""
        self.metrics.close()
        self.calls.close()

    async def full(self, scope: Scope, receive: Receive, send: Send) -> None:
        """In place of `asgi` for a connection beyond those that may be open: it learns that, and what needs
        no key."""
        if scope["path"] in OPEN_PATHS:
            await self.asgi(scope, receive, send)
            return
        problem = Problem(
            429,
            "Too many connections are open (gateway.max_connections)",
            code="too_many_connections",
            retry_after=RETRY_AFTER_S,
            close=True,
        )
        self.metrics.refused(problem.code)
        await answer_to(problem, scope["path"])(scope, receive, send)

    async def _openapi(self, request: Request) -> Response:
        return json_response(self._description)

    async def _root(self, request: Request) -> Response:
        return json_response({"name": "embedctl", "version": embedctl.__version__, "api": "/openapi.json"})


def _model_folder(engine: EngineFacade) -> str | None:
    try:
        return engine.model(online=False).folder
    except HubError:  # nothing of the model is on this disk
        return None


async def _no_such_path(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    said = {404: "There is no such path here", 405: f"{request.method} is not allowed here"}
    message = said.get(error.status_code, str(error.detail))
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    problem = Problem(error.status_code, message, code=code, headers=error.headers)
    return answer_to(problem, request.url.path)
