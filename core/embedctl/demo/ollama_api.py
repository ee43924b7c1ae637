"""What a simulated Ollama server answers to each path: routes and answers, without HTTP.

The embeddings are real, made by the runner behind the scheduler. What speaks of itself says "simulated".
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from embedctl.demo.language_model import TAG as LANGUAGE_TAG
from embedctl.demo.language_model import DemoLanguageModel
from embedctl.demo.ollama_scheduler import Scheduler, keep_alive_seconds

VERSION: Final = "0.33.0-simulated"
PULL_RATE: Final = 60_000_000
"""Bytes per second at which a pull of the demo proceeds."""
_FOREVER: Final = datetime(2318, 1, 1, tzinfo=UTC)
"""Ollama states an expiry some 290 years ahead for a model that is kept for ever."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to the client."""

    status: int = 200
    body: Mapping[str, Any] | None = None
    lines: Iterator[Mapping[str, Any]] | None = None
    """Instead of `body`: objects sent one a line as they come (NDJSON)."""


class OllamaApi:
    """What each path answers. Knows no HTTP beyond status codes."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        version: str = VERSION,
        pull_rate: float = PULL_RATE,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
        language_model: DemoLanguageModel | None = None,
    ) -> None:
        self.scheduler = scheduler
        self._language_model = language_model
        self.version = version
        self._pull_rate = pull_rate
        self._clock = clock
        self._pause = pause
        self._pulled: dict[str, int] = dict(scheduler.model.layers)

    def answer(self, method: str, path: str, body: Mapping[str, Any]) -> Reply:
        model = str(body.get("model") or body.get("name") or "")
        match method, path:
            case "GET", "/":
                return Reply(200, {"status": "Ollama is running (simulated)"})
            case "GET", "/api/version":
                return Reply(200, {"version": self.version})
            case "GET", "/api/tags":
                entries = [self._entry()] if self.scheduler.present else []
                generating = [self._language_model.entry()] if self._language_model else []
                return Reply(200, {"models": entries + generating})
            case "GET", "/api/ps":
                return Reply(200, {"models": self._running()})
            case "POST", "/api/pull":
                return Reply(lines=self._pull(model))
            case "POST", "/api/generate" | "/api/show" if (
                self._language_model is not None and full_name(model) == LANGUAGE_TAG
            ):
                return self._of_language_model(self._language_model, path, body)
            case "POST", "/api/generate" if (
                self.scheduler.present and full_name(model) == self.scheduler.model.tag
            ):
                return error_reply(400, f'"{model}" does not support generate')
            case ("POST", "/api/show" | "/api/embed" | "/api/embeddings" | "/api/generate") | (
                "DELETE",
                "/api/delete",
            ):
                if not self.scheduler.present or full_name(model) != self.scheduler.model.tag:
                    return error_reply(404, f'model "{model}" not found, try pulling it first')
                return self._of_model(path, body)
        return error_reply(404, "404 page not found")

    def _of_language_model(self, model: DemoLanguageModel, path: str, body: Mapping[str, Any]) -> Reply:
        if path == "/api/show":
            return Reply(200, model.show())
        if body.get("keep_alive") == 0 and not body.get("prompt"):
            model.unload()
            return Reply(200, {"model": body["model"], "response": "", "done": True, "done_reason": "unload"})
        if body.get("stream", True):
            return Reply(lines=model.lines(body))
        return Reply(200, model.whole(body))

    def _of_model(self, path: str, body: Mapping[str, Any]) -> Reply:
        if path == "/api/show":
            return Reply(200, self._show())
        if path == "/api/delete":
            self.scheduler.present = False
            self._pulled = {}
            self.scheduler.unload()
            return Reply(200, {})
        try:
            keep_alive = keep_alive_seconds(body.get("keep_alive"))
        except ValueError as error:
            return error_reply(400, str(error))
        options = self.scheduler.options(body.get("options") or {})
        if path == "/api/embeddings":
            prompt = str(body.get("prompt") or "")
            with self.scheduler.lease(options, keep_alive) as lease:
                vector = lease.embed(prompt).vector if prompt else []
            return Reply(200, {"embedding": vector})
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) and texts else texts or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return error_reply(400, "invalid input type")
        started = time.monotonic()
        with self.scheduler.lease(options, keep_alive) as lease:
            if not texts:
                return Reply(200, {"model": body["model"], "embeddings": []})
            results = []
            for text in texts:
                # Ollama tokenizes each text before it embeds it, and embeds no further after a refusal.
                if body.get("truncate") is False and lease.too_long(text):
                    return error_reply(400, "the input length exceeds the context length")
                results.append(lease.embed(text))
        try:
            vectors = [_unit(result.vector, int(body.get("dimensions") or 0)) for result in results]
        except ValueError as error:
            return error_reply(400, str(error))
        return Reply(
            200,
            {
                "model": body["model"],
                "embeddings": vectors,
                "total_duration": int((time.monotonic() - started) * 1e9),
                "load_duration": int(lease.load_seconds * 1e9),
                "prompt_eval_count": sum(result.tokens for result in results),
            },
        )

    def _details(self) -> dict[str, Any]:
        model = self.scheduler.model
        return {
            "format": "safetensors",
            "family": model.architecture,
            "families": [model.architecture],
            "quantization_level": model.dtype,
        }

    def _entry(self) -> dict[str, Any]:
        model = self.scheduler.model
        return {
            "name": model.tag,
            "model": model.tag,
            "size": model.size,
            "digest": model.digest,
            "details": self._details(),
        }

    def _running(self) -> list[dict[str, Any]]:
        loaded = self.scheduler.loaded
        generating = self._running_language_model()
        if loaded is None:
            return generating
        options, expires = loaded
        expiry = _FOREVER if math.isinf(expires) else datetime.fromtimestamp(expires, UTC)
        return [
            {
                **self._entry(),
                "expires_at": expiry.isoformat(),
                "size_vram": self.scheduler.model.size,  # the simulated GPU holds all of it
                "context_length": options.num_ctx,
            },
            *generating,
        ]

    def _running_language_model(self) -> list[dict[str, Any]]:
        model = self._language_model
        if model is None or not model.loaded:
            return []
        entry = model.entry()
        return [{**entry, "expires_at": _FOREVER.isoformat(), "size_vram": entry["size"]}]

    def _show(self) -> dict[str, Any]:
        model = self.scheduler.model
        info = {"context_length": model.context_length, "embedding_length": model.dimension, **model.info}
        return {
            "modelfile": f"# A simulated server over a sentence-transformers folder.\nFROM {model.blob}\n",
            "details": self._details(),
            "model_info": {
                "general.architecture": model.architecture,
                **{f"{model.architecture}.{key}": value for key, value in info.items()},
            },
            "capabilities": ["embedding"],
        }

    def _pull(self, tag: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a pull. What was fetched is kept, so that one that was cut goes on from there."""
        yield {"status": "pulling manifest"}
        model = self.scheduler.model
        if full_name(tag) != model.tag:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for digest, size in model.layers:
            step = max(1, int(self._pull_rate / 10))
            while True:
                done = self._pulled.setdefault(digest, 0)
                name = digest.removeprefix("sha256:")[:12]
                yield {"status": f"pulling {name}", "digest": digest, "total": size, "completed": done}
                if done >= size:
                    break
                self._pulled[digest] = min(size, done + step)
                self._pause(min(step, size - done) / self._pull_rate)
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self.scheduler.present = True
        yield {"status": "success"}


def error_reply(status: int, message: str) -> Reply:
    return Reply(status, {"error": message})


def full_name(name: str) -> str:
    return name.lower() if ":" in name else f"{name.lower()}:latest"


def _unit(vector: list[float], dimensions: int) -> list[float]:
    """Normalised as Ollama does it: cut to `dimensions` if asked, then scaled to unit norm.

    Raises:
        ValueError: With Ollama's words, if a value is not finite.
    """
    if not all(map(math.isfinite, vector)):
        raise ValueError("embedding contains NaN or Inf values")
    kept = vector[:dimensions] if dimensions else vector
    scale = 1 / max(math.hypot(*kept), 1e-12)
    return [value * scale for value in kept]
