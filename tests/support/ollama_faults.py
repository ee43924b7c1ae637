"""An in-process Ollama over made-up weights, and the ways in which real ones go wrong."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from embedctl.demo.ollama_api import Reply
from embedctl.demo.ollama_scheduler import Embedded, ServedModel
from embedctl.demo.ollama_server import Cut, Interceptor, OllamaServer

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

    def too_long(self, text: str) -> bool:
        return len(text.split()) + 2 > self.limit

    def embed(self, text: str) -> Embedded:
        self.embedded.append(text)
        words = text.split()
        kept = words[: self.limit - 2]
        return Embedded(made_up_vector(" ".join(kept)), len(kept) + 2, len(kept) < len(words))

    def close(self) -> None:
        self.closed = True


class MadeUpWeights:
    """Starts runners and remembers them, so that tests see loads and reloads."""

    def __init__(self, runner: type[MadeUpRunner] = MadeUpRunner) -> None:
        self.runners: list[MadeUpRunner] = []
        self._runner = runner

    def __call__(self, limit: int) -> MadeUpRunner:
        self.runners.append(self._runner(limit))
        return self.runners[-1]

    @property
    def open(self) -> int:
        return sum(not runner.closed for runner in self.runners)


class WordSumRunner(MadeUpRunner):
    """Cheap and smooth: a vector is the sum of its words' vectors, so that every word counts a little.

    What comes first counts most, a word at the thousandth place still shows, and texts that begin alike are
    alike: what real models do, at a thousandth of the cost.
    """

    _words: ClassVar[dict[str, Any]] = {}

    def embed(self, text: str) -> Embedded:
        words = text.split()
        kept = words[: self.limit - 2]
        rows = np.stack([self._of("<s>"), *map(self._of, kept)])
        weights = 1 / np.sqrt(np.arange(1, len(rows) + 1))
        return Embedded((weights @ rows).tolist(), len(kept) + 2, len(kept) < len(words))

    def _of(self, word: str) -> Any:
        if word not in self._words:
            self._words[word] = np.array(made_up_vector(word))
        return self._words[word]


def count_words(texts: Sequence[str]) -> int:
    """The tokenizer of `MadeUpRunner` and `WordSumRunner`: a word is a token, and two special ones."""
    return sum(len(text.split()) + 2 for text in texts)


class Journal:
    """Every request that reached the server."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Mapping[str, Any]]] = []

    def bodies(self, path: str) -> list[Mapping[str, Any]]:
        return [body for seen, body in self.requests if seen == path]


@contextmanager
def running_ollama(
    fault: Interceptor | None = None,
    *,
    version: str = "0.33.0",
    journal: Journal | None = None,
    runner: type[MadeUpRunner] = MadeUpRunner,
) -> Iterator[tuple[OllamaServer, MadeUpWeights]]:
    """A server on a random port; `fault` stands before every answer."""
    weights = MadeUpWeights(runner)

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


def cuts_silently(limit: int) -> Interceptor:
    """Texts are cut at `limit` tokens whatever was asked for, and nothing says so (ollama#14259)."""

    def change(texts: list[str], rows: list[Any]) -> list[Any]:
        runner = WordSumRunner(limit)
        return [
            _unit(runner.embed(text).vector) if len(text.split()) + 2 > limit else row
            for text, row in zip(texts, rows, strict=True)
        ]

    return changes(change)


def scaled(factor: float) -> Interceptor:
    """Vectors that are not of unit norm."""
    return changes(lambda texts, rows: [[value * factor for value in row] for row in rows])


def swaps_in_lists() -> Interceptor:
    """The last two vectors of a list of more than seven come in the wrong order: the canary passes."""
    return changes(lambda texts, rows: [*rows[:-2], rows[-1], rows[-2]] if len(rows) > 7 else rows)


def drifts_from(tokens: int, *, by: float = 0.6) -> Interceptor:
    """Texts of `tokens` tokens and more get a vector that is turned away (ollama#11856)."""

    def turned(row: list[float]) -> list[float]:
        return _unit([value + by * (-1) ** place / len(row) ** 0.5 for place, value in enumerate(row)])

    return changes(
        lambda texts, rows: [
            turned(row) if len(text.split()) + 2 >= tokens else row
            for text, row in zip(texts, rows, strict=True)
        ]
    )


class WrongAtOnce:
    """A text gets a wrong vector where another request is under way, and the right one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0

    def __call__(self, path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if path != "/api/embed" or len(_texts(body)) != 1:
            return proceed()
        with self._changed:
            self._inside += 1
            self._changed.notify_all()
            # Long enough for a request that is on its way to arrive, and little beside what a test may take.
            others = self._changed.wait_for(lambda: self._inside > 1, 0.003)
        try:
            reply = proceed()
        finally:
            with self._changed:
                self._inside -= 1
        if not others or reply.body is None or reply.status != 200:
            return reply
        [row] = reply.body["embeddings"]
        return Reply(200, {**reply.body, "embeddings": [[*row[1:], row[0]]]})


class SlowStart:
    """The first `requests` texts that are asked for take `seconds` more, as where kernels are compiled."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._left, self._seconds = requests, seconds

    def __call__(self, path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if path == "/api/embed" and _texts(body) and self._left > 0:
            self._left -= 1
            time.sleep(self._seconds)
        return proceed()


class Stalls:
    """Nothing is answered for `seconds`, for the first time `first` after the first request, then `every`."""

    def __init__(self, seconds: float, *, first: float, every: float) -> None:
        self._seconds, self._first, self._every = seconds, first, every
        self._lock = threading.Lock()
        self._begun: float | None = None

    def __call__(self, path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if path == "/api/embed" and _texts(body):
            with self._lock:
                now = time.monotonic()
                self._begun = now if self._begun is None else self._begun
            since = now - self._begun - self._first
            if since >= 0 and since % self._every < self._seconds:
                time.sleep(self._seconds - since % self._every)
        return proceed()


class Leaks:
    """The server holds more memory for every second since it was first asked for a text."""

    def __init__(self, held: float, per_second: float) -> None:
        self._held, self._per_second = held, per_second
        self._begun: float | None = None

    def held_at(self, moment: float) -> float:
        """Bytes at a moment by `time.time()`."""
        return self._held + self._per_second * (0.0 if self._begun is None else moment - self._begun)

    def __call__(self, path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        if self._begun is None and path == "/api/embed" and _texts(body):
            self._begun = time.time()
        return proceed()


def _unit(row: Sequence[float]) -> list[float]:
    norm = math.hypot(*row)
    return [value / norm for value in row]


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


class Repulled:
    """Once `happened`, the tag names other weights: answers waited for their load, and tags and ps show
    another digest."""

    DIGEST = "5" * 64

    def __init__(self) -> None:
        self.happened = False

    def __call__(self, path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
        reply = proceed()
        if not self.happened or reply.body is None:
            return reply
        if path == "/api/embed":
            return Reply(200, {**reply.body, "load_duration": 700_000_000})
        if path in ("/api/tags", "/api/ps"):
            return Reply(200, {"models": [{**each, "digest": self.DIGEST} for each in reply.body["models"]]})
        return reply


def cuts_connection(path: str, body: Mapping[str, Any], proceed: Callable[[], Reply]) -> Reply:
    """The server dies while it embeds."""
    if path == "/api/embed" and _texts(body):
        raise Cut
    return proceed()
