"""A local server that speaks Ollama's API over the weights of a sentence-transformers folder.

    python -m embedctl.demo.ollama_server --model-folder DIR --tag all-minilm --log-dir DIR --port 0

Prints one line `{"port": …}` once it listens, and ends with its parent (when stdin closes). It speaks of
itself as simulated in its version; what it answers is real: the vectors come from the model, in a process
of its own, one text at a time, as Ollama does it. Beside it stands a simulated language model.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

from embedctl.demo.language_model import DemoLanguageModel
from embedctl.demo.loopback import LoopbackServer
from embedctl.demo.ollama_api import PULL_RATE, VERSION, OllamaApi, Reply, error_reply, full_name
from embedctl.demo.ollama_scheduler import Scheduler, ServedModel, StartRunner


class Cut(Exception):
    """Raised by an interceptor to drop the connection without an answer."""


Interceptor = Callable[[str, Mapping[str, Any], Callable[[], Reply]], Reply]
"""Called with path, request body and the ordinary way on; what it returns is sent."""


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
        self._http = _HttpServer(port, _Handler)
        self._http.ollama = self
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-ollama", daemon=True
        )

    @property
    def port(self) -> int:
        return self._http.port

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
        self._http.hang_up()
        self.scheduler.unload()

    def handle(self, method: str, path: str, body: Mapping[str, Any]) -> Reply:
        def proceed() -> Reply:
            return self.api.answer(method, path, body)

        return self.intercept(path, body, proceed) if self.intercept else proceed()


class _HttpServer(LoopbackServer):
    ollama: OllamaServer


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
            self._send(error_reply(400, str(error)))
            return
        if not isinstance(body, dict):
            self._send(error_reply(400, "the request body is no object"))
            return
        try:
            self._send(self.server.ollama.handle(self.command, self.path.rstrip("/") or "/", body))
        except (Cut, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:  # what a Go server would answer to a panic in a handler
            self._send(error_reply(500, f"{type(error).__name__}: {error}"))

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


def main(arguments: list[str] | None = None) -> int:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="python -m embedctl.demo.ollama_server", description=__doc__)
    parser.add_argument("--model-folder", type=Path, required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log-dir", type=Path, required=True, help="for the runner's log")
    parser.add_argument("--references", type=Path, help="where a load leaves what makes the next one quick")
    given = parser.parse_args(arguments)

    from embedctl.demo.ollama_model import describe_folder, runner_starter

    model = describe_folder(given.model_folder, full_name(given.tag))
    start = runner_starter(given.model_folder, given.log_dir, given.references)
    with OllamaServer(model, start, port=given.port, language_model=DemoLanguageModel()) as server:
        sys.stdout.write(json.dumps({"port": server.port, "version": VERSION}) + "\n")
        sys.stdout.flush()
        sys.stdin.buffer.read()  # until the parent closes it or ends
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
