"""The door: who may call, from which page, by which name; and what became of each request."""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedctl.errors import EmbedctlError
from embedctl.gateway.keys import Keys, is_loopback
from embedctl.gateway.metrics import RESULT_IN_SCOPE, GatewayMetrics
from embedctl.gateway.problems import ClientGone, Problem, answer_to, is_ollama_path, problem_of
from embedctl.settings import GatewaySettings

log = logging.getLogger(__name__)
access = logging.getLogger("embedctl.gateway.access")

OPEN_PATHS: Final = frozenset({"/healthz"})
"""What needs no key: it says no more than that the process lives."""
_LOCAL_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})


class Guard:
    """Wraps the application: checks each request before it is read, and turns every error into an answer.

    The name in `Host` must be one of this machine's: a page that has its own name resolved to this machine
    (DNS rebinding) would otherwise get past the browser's same-origin rule. An IP address is nobody's name.
    Texts are never logged, nor query strings, nor keys.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings, keys: Keys, metrics: GatewayMetrics) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics
        self._names = _LOCAL_NAMES | {name.lower() for name in settings.allowed_hosts}
        if not is_loopback(settings.host):
            own = socket.gethostname().lower()
            self._names |= {settings.host.lower(), own, f"{own}.local"}
        self._origins = frozenset(settings.cors_origins)
        # Applications send the same name with every request.
        self._knows = lru_cache(maxsize=64)(self._is_ours)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path: str = scope["path"]
        status = 0
        size = 0

        async def noted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            self._admit(path, scope["headers"])
            await self._app(scope, receive, noted)
        except ClientGone:
            self._metrics.abandoned.inc()
            return
        except Exception as error:
            problem = self._problem(error)
            if status:  # half of an answer is out: only the end of the connection can tell
                raise
            self._metrics.refused(problem.code)
            await answer_to(problem, path)(scope, receive, noted)
        seconds = time.perf_counter() - started
        api = "openai" if path.startswith("/v1/") else "ollama" if is_ollama_path(path) else "service"
        self._metrics.answered(api, status, scope.get(RESULT_IN_SCOPE), seconds)
        # As it came over the wire: decoded, a path could hold line ends and write log lines of its own.
        raw = scope["raw_path"][:200].decode("ascii", "backslashreplace")
        access.info("%s %s %d %d B %.1f ms", scope["method"], raw, status, size, seconds * 1e3)

    def _problem(self, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, EmbedctlError):
            return problem_of(error)
        log.error("a request failed unexpectedly", exc_info=error)
        return Problem(500, f"embedctl failed unexpectedly ({type(error).__name__})", code="internal_error")

    def _admit(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        hosts, origins, given = [], [], []
        for name, value in headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"authorization":
                given.append(value[7:] if value[:7].lower() == b"bearer " else b"")
            elif name == b"x-api-key":
                given.append(value)
        if len(hosts) != 1 or not self._knows(hosts[0].decode("latin-1")):
            raise Problem(
                403 if len(hosts) == 1 else 400,
                "The Host header names no host that this gateway is called by (gateway.allowed_hosts)",
                code="invalid_host",
                close=True,
            )
        if any(origin.decode("latin-1") not in self._origins for origin in origins):
            raise Problem(
                403,
                "This page's origin may not call the gateway (gateway.cors_origins)",
                code="invalid_origin",
                close=True,
            )
        if self._keys and path not in OPEN_PATHS and not self._keys.accept_any(given):
            raise Problem(
                401,
                "A valid API key is needed: Authorization: Bearer …, or X-API-Key",
                code="invalid_api_key",
                close=True,
                headers={"www-authenticate": "Bearer"},
            )

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not name or "@" in host or "/" in host:
            return False
        if name.rstrip(".") in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
