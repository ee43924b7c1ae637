"""Whether the process lives, and whether it can answer now."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import embedctl
from embedctl.engine.facade import EngineFacade
from embedctl.errors import EmbedctlError
from embedctl.gateway.calls import Calls
from embedctl.gateway.embedding import Embedder
from embedctl.gateway.metrics import GatewayMetrics
from embedctl.gateway.problems import Problem, json_response
from embedctl.metrics import BACKENDS
from embedctl.records import BackendName, BackendState

KEPT_S: Final = 5.0
"""How long a probe, or a live request that was answered, counts as the proof that the next will be too."""
_PROBE_S: Final = 5.0
_PROBE_TEXT: Final = "Can this backend answer now?"


class Health:
    """`/healthz`, `/readyz`, `/metrics` and `/fingerprint`."""

    def __init__(
        self, engine: EngineFacade, calls: Calls, embedder: Embedder, metrics: GatewayMetrics
    ) -> None:
        self._engine = engine
        self._calls = calls
        self._embedder = embedder
        self._metrics = metrics
        self._probing = asyncio.Lock()
        self._failed: tuple[float, BackendName, str] | None = None
        self._probe_ms: float | None = None

    def routes(self) -> list[Route]:
        return [
            Route("/healthz", self.alive),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/fingerprint", self.fingerprint),
        ]

    async def alive(self, request: Request) -> Response:
        return json_response({"status": "ok", "version": embedctl.__version__})

    async def ready(self, request: Request) -> Response:
        """503 with reasons while a request would have to wait or would fail. A backend that is not loaded
        is not loaded by being asked after: the first real request does that."""
        reasons = await self._reasons()
        health = self._engine.health()
        return json_response(
            {
                "ready": not reasons,
                "active": health.active,
                "reasons": reasons,
                "probe_ms": self._probe_ms,
                "backends": [
                    {"backend": b.backend, "condition": b.condition.value, "why": b.why}
                    for b in health.backends
                ],
            },
            503 if reasons else 200,
        )

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    async def fingerprint(self, request: Request) -> Response:
        """What the active backend's vectors depend on, or those of `?backend=`. The digest is null while the
        backend is not loaded: what it will be is only known then."""
        asked = request.query_params.get("backend")
        if asked is not None and asked not in BACKENDS:
            raise Problem(
                400,
                f"backend must be one of {', '.join(BACKENDS)}",
                code="invalid_parameter",
                param="backend",
            )
        status = self._engine.status()
        known = self._engine.fingerprint(asked or status.active)
        loaded = status.backend(known.backend).state is BackendState.READY
        body: dict[str, Any] = {
            "digest": known.digest if loaded else None,
            "active": known.backend == status.active,
            "loaded": loaded,
            **asdict(known),
        }
        return json_response(body)

    async def _reasons(self) -> list[str]:
        if self._calls.stopped:
            return ["the gateway is being stopped"]
        status = self._engine.status()
        backend = status.backend(status.active)
        if backend.state is not BackendState.READY:
            return [
                f"{backend.name} is {backend.state.value}" + (f": {backend.detail}" if backend.detail else "")
            ]
        failed = await self._probe(backend.name)
        return [failed] if failed else []

    async def _probe(self, backend: BackendName) -> str:
        """Why `backend` cannot answer; empty when it can. Asked anew only when nothing recent is known."""
        async with self._probing:
            now = time.monotonic()
            if now - self._embedder.last_success.get(backend, float("-inf")) <= KEPT_S:
                return ""
            if self._failed and self._failed[1] == backend and now - self._failed[0] <= KEPT_S:
                return self._failed[2]
            try:
                await asyncio.to_thread(self._engine.embed, [_PROBE_TEXT], backend=backend, timeout=_PROBE_S)
            except EmbedctlError as error:
                self._probe_ms = None
                self._failed = time.monotonic(), backend, f"{backend} did not answer a probe: {error}"
                return self._failed[2]
            ended = time.monotonic()
            self._probe_ms = round((ended - now) * 1e3, 3)
            self._embedder.last_success[backend] = ended
            self._failed = None
            return ""
