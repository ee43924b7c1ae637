"""A local server that speaks Ollama's API over the weights of a sentence-transformers folder.

    python -m embedctl.demo.ollama_server --model-folder DIR --tag all-minilm --log-dir DIR --port 0

Prints one line `{"port": …}` once it listens, and ends with its parent (when stdin closes). It speaks of
itself as simulated in its version; what it answers is real: the vectors come from the model, in a process
of its own, one text at a time, as Ollama does it. Beside it stands a simulated language model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self

from embedctl.demo.language_model import TAG as LANGUAGE_TAG
from embedctl.demo.language_model import DemoLanguageModel
from embedctl.demo.ollama_scheduler import Scheduler, ServedModel, StartRunner, keep_alive_seconds

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


class Cut(Exception):
    """Raised by an interceptor to drop the connection without an answer."""


Interceptor = Callable[[str, Mapping[str, Any], Callable[[], Reply]], Reply]
"""Called with path, request body and the ordinary way on; what it returns is sent."""


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
                self._language_model is not None and _full(model) == LANGUAGE_TAG
            ):
                return self._of_language_model(self._language_model, path, body)
            case "POST", "/api/generate" if (
                self.scheduler.present and _full(model) == self.scheduler.model.tag
            ):
                return _error(400, f'"{model}" does not support generate')
            case ("POST", "/api/show" | "/api/embed" | "/api/embeddings" | "/api/generate") | (
                "DELETE",
                "/api/delete",
            ):
                if not self.scheduler.present or _full(model) != self.scheduler.model.tag:
                    return _error(404, f'model "{model}" not found, try pulling it first')
                return self._of_model(path, body)
        return _error(404, "404 page not found")

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
            return _error(400, str(error))
        options = self.scheduler.options(body.get("options") or {})
        if path == "/api/embeddings":
            prompt = str(body.get("prompt") or "")
            with self.scheduler.lease(options, keep_alive) as lease:
                vector = lease.embed(prompt).vector if prompt else []
            return Reply(200, {"embedding": vector})
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) and texts else texts or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return _error(400, "invalid input type")
        started = time.monotonic()
        with self.scheduler.lease(options, keep_alive) as lease:
            if not texts:
                return Reply(200, {"model": body["model"], "embeddings": []})
            results = []
            for text in texts:
                results.append(lease.embed(text))
                # The rest is not embedded in vain.
                if results[-1].truncated and body.get("truncate") is False:
                    return _error(400, "the input length exceeds the context length")
        try:
            vectors = [_unit(result.vector, int(body.get("dimensions") or 0)) for result in results]
        except ValueError as error:
            return _error(400, str(error))
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
        if _full(tag) != model.tag:
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


class OllamaServer:
    """The API on a random port of the loopback interface, for as long as the `with` block runs."""

    def __init__(
        self,
        model: ServedModel,
        start: StartRunner,
        *,
        port: int = 0,
        intercept: Interceptor | None = None,
        version: str = VERSION,
        pull_rate: float = PULL_RATE,
        language_model: DemoLanguageModel | None = None,
    ) -> None:
        self.scheduler = Scheduler(model, start)
        self.api = OllamaApi(
            self.scheduler, version=version, pull_rate=pull_rate, language_model=language_model
        )
        self.intercept = intercept
        self._http = _HttpServer(("127.0.0.1", port), _Handler)
        self._http.ollama = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-ollama", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._http.cut_connections()
        self.scheduler.unload()

    def handle(self, method: str, path: str, body: Mapping[str, Any]) -> Reply:
        def proceed() -> Reply:
            return self.api.answer(method, path, body)

        return self.intercept(path, body, proceed) if self.intercept else proceed()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # the standard library's 5 resets connections when 200 clients come at once
    block_on_close = False
    ollama: OllamaServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut_connections(self) -> None:
        """End connections that clients keep open, as the end of a process would."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: requests are not news."""

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw) if raw else {}
        except json.JSONDecodeError as error:
            self._send(_error(400, str(error)))
            return
        if not isinstance(body, dict):
            self._send(_error(400, "the request body is no object"))
            return
        try:
            self._send(self.server.ollama.handle(self.command, self.path.rstrip("/") or "/", body))
        except (Cut, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # what a Go server would answer to a panic in a handler
            self._send(_error(500, f"{type(error).__name__}: {error}"))

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        if reply.lines is None:
            payload = json.dumps(reply.body).encode()
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
            return
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for line in reply.lines:
                payload = json.dumps(line).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(payload), payload))
        finally:
            if isinstance(reply.lines, Generator):
                reply.lines.close()  # a client that left must not hold up the next one
        self.wfile.write(b"0\r\n\r\n")


def _error(status: int, message: str) -> Reply:
    return Reply(status, {"error": message})


def _full(name: str) -> str:
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


def main(arguments: list[str] | None = None) -> int:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="python -m embedctl.demo.ollama_server", description=__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log-dir", type=Path, required=True, help="for the runner's log")
    given = parser.parse_args(arguments)

    from embedctl.demo.ollama_model import describe_folder, runner_starter

    model = describe_folder(given.model_folder, _full(given.tag))
    start = runner_starter(given.model_folder, given.log_dir)
    with OllamaServer(model, start, port=given.port, language_model=DemoLanguageModel()) as server:
        sys.stdout.write(json.dumps({"port": server.port, "version": VERSION}) + "\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()  # until the parent closes it or ends
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
