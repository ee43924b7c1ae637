"""An in-process Ollama over made-up weights, and the ways in which real ones go wrong."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from embedctl.demo.ollama_scheduler import Embedded, ServedModel
from embedctl.demo.ollama_server import Cut, Interceptor, OllamaServer, Reply

DIMENSION = 16
CONTEXT = 8192
MODEL = ServedModel(
    tag="bge-m3:latest",
    digest="790764642607fe7c9d6b31f1a3f1f3b1a6c3dfcd6a8a1ce5d1ef1c0b3f9f6c8a",
    size=1_157_671_296,
    blob="/models/blobs/sha256-daec91ffb5dd0c27411bd71f29932917c49cf529a641d0168496c3a501e3062c",
    dimension=DIMENSION,
    context_length=CONTEXT,
    architecture="bert",
    dtype="F16",
    info={"feed_forward_length": 4096, "attention.head_count": 16, "pooling_type": 2},
    layers=(("sha256:daec91ffb5dd0c27411bd71f", 4000), ("sha256:a406579cd136771c705c521d", 1000)),
)


def made_up_vector(text: str) -> list[float]:
    """The vector of a text: different texts, different vectors; no two alike. Its norm is not 1."""
    numbers = random.Random(text)
    return [numbers.gauss(0, 1) for _ in range(DIMENSION)]


class MadeUpRunner:
    """A word is a token, and two special tokens stand around them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = False
        self.embedded: list[str] = []

    def embed(self, text: str) -> Embedded:
        self.embedded.append(text)
        words = text.split()
        kept = words[: self.limit - 2]
        return Embedded(made_up_vector(" ".join(kept)), len(kept) + 2, len(kept) < len(words))

    def close(self) -> None:
        self.closed = True


class MadeUpWeights:
    """Starts runners and remembers them, so that tests see loads and reloads."""

    def __init__(self) -> None:
        self.runners: list[MadeUpRunner] = []

    def __call__(self, limit: int) -> MadeUpRunner:
        self.runners.append(MadeUpRunner(limit))
        return self.runners[-1]

    @property
    def open(self) -> int:
        return sum(not runner.closed for runner in self.runners)


class Journal:
    """Every request that reached the server."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Mapping[str, Any]]] = []

    def bodies(self, path: str) -> list[Mapping[str, Any]]:
        return [body for seen, body in self.requests if seen == path]


@contextmanager
def running_ollama(
    fault: Interceptor | None = None, *, version: str = "0.33.0", journal: Journal | None = None
) -> Iterator[tuple[OllamaServer, MadeUpWeights]]:
    """A server on a random port; `fault` stands before every answer."""
    weights = MadeUpWeights()

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if journal is not None:
            journal.requests.append((path, body))
        return fault(path, body, proceed) if fault else proceed()

    server = OllamaServer(MODEL, weights, intercept=intercept, version=version, pull_rate=1e9)
    with server:
        yield server, weights


def _texts(body: Mapping[str, Any]) -> list[str]:
    given = body.get("input") or []
    return [given] if isinstance(given, str) else list(given)


def refuses(bad: str, status: int, message: str) -> Interceptor:
    """One text fails every request that holds it, with the server's own words."""

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if path == "/api/embed" and bad in _texts(body):
            return Reply(status, {"error": message})
        return proceed()

    return intercept


def changes(change: Callable[[list[str], list[Any]], list[Any]]) -> Interceptor:
    """`change(texts, embeddings)` gives the embeddings that are sent instead."""

    def intercept(path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        reply = proceed()
        texts = _texts(body)
        if path != "/api/embed" or not texts or reply.status != 200 or reply.body is None:
            return reply
        return Reply(200, {**reply.body, "embeddings": change(texts, reply.body["embeddings"])})

    return intercept


def value_for(bad: str, value: float | None) -> Interceptor:
    """One text's vector holds `value` (NaN; or None, as JavaScript writes it), as old servers sent it."""
    return changes(
        lambda texts, rows: [
            [value, *row[1:]] if text == bad else row for text, row in zip(texts, rows, strict=True)
        ]
    )


def constant_vector() -> Interceptor:
    """Every text gets the same vector."""
    return changes(lambda texts, rows: [rows[0] for _ in rows] if len(rows) > 1 else rows)


def replies(path: str, status: int, body: Mapping[str, Any]) -> Interceptor:
    """One path always answers this."""

    def intercept(seen: str, request: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        return (
            Reply(status, body) if seen == path and (path != "/api/embed" or _texts(request)) else proceed()
        )

    return intercept


class Hang:
    """Requests to embed wait until `release`; `reached` says that one does."""

    def __init__(self, *, only: Callable[[Mapping[str, Any]], bool] = lambda body: True) -> None:
        self.reached = threading.Event()
        self._only = only
        self._released = threading.Event()

    def __call__(self, path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if path == "/api/embed" and self._only(body):
            self.reached.set()
            self._released.wait(30)
        return proceed()

    def release(self) -> None:
        self._released.set()


def cuts_connection(path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
    """The server dies while it embeds."""
    if path == "/api/embed" and _texts(body):
        raise Cut
    return proceed()
