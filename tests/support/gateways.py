"""A gateway on a free port over a real engine whose backends a test decides."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from embedctl.gateway.keys import Keys
from embedctl.gateway.server import Gateway
from embedctl.settings import Settings
from tests.support.engines import Rig, rig

MODEL = "bge-m3"


@dataclass
class Served:
    rig: Rig
    gateway: Gateway
    client: httpx.Client

    @property
    def url(self) -> str:
        return self.gateway.url

    def embed(self, given: object, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """`POST /v1/embeddings`."""
        whole = {"model": MODEL, "input": given, **body}
        return self.client.post("/v1/embeddings", json=whole, headers=headers)

    def ollama(self, path: str, **body: Any) -> httpx.Response:
        """`POST` to one of Ollama's paths."""
        return self.client.post(f"/api/{path}", json={"model": MODEL, **body})

    def on_loop(self, do: Callable[[], Any]) -> Any:
        """What `do` gives on the gateway's own event loop."""
        loop = self.gateway._loop
        assert loop is not None

        async def run() -> Any:
            return do()

        return asyncio.run_coroutine_threadsafe(run(), loop).result(10)


@contextmanager
def served(folder: Path, *, keys: tuple[str, ...] = (), **settings: Any) -> Iterator[Served]:
    """A gateway with these settings; native is active and loaded, Ollama is loaded beside it."""
    whole = Settings.model_validate(
        {
            "telemetry": {"screen_hz": 20, "store_hz": 10},
            "engine": {"settle_timeout_s": 5, "unload_after_switch": False},
            "gateway": {"port": 0, **settings},
        }
    )
    with rig(folder, whole) as made:
        for name in ("native", "ollama"):
            made.engine.load(name).wait(30)
        gateway = Gateway(made.engine, whole.gateway, keys=Keys(keys))
        url = gateway.start()
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                yield Served(made, gateway, client)
        finally:
            gateway.stop()


def vectors(answer: httpx.Response) -> np.ndarray:
    """The vectors of an answer of `/v1/embeddings`, whichever way they are written."""
    assert answer.status_code == 200, answer.text
    rows = [item["embedding"] for item in answer.json()["data"]]
    if isinstance(rows[0], str):
        return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    return np.asarray(rows, dtype=np.float32)


def in_thread(do: Callable[[], Any]) -> Callable[[], Any]:
    """Run `do` in a thread; the result waits for its end and returns what it returned or raises it."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["value"] = do()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> Any:
        thread.join(30)
        assert not thread.is_alive()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

    return join


def wait_until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as `true()` is; fails after `seconds`."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if true():
            return
        tick.wait(0.005)
    raise AssertionError("it did not become true in time")
