"""A backend whose every move a test decides; its vectors depend on the text alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from embedctl.backends.base import EmbedRequest
from embedctl.errors import BackendError, BackendNotLoadedError, Cancelled
from embedctl.progress import CancelToken, Progress
from embedctl.records import (
    BackendState,
    BackendStatus,
    CanaryReport,
    EmbedResult,
    Fingerprint,
    LoadReport,
    Preflight,
    TextFailure,
)

DIMENSION = 16


def vector_of(text: str, twist: float = 0.0) -> np.ndarray:
    """A unit vector made of the text's hash; `twist` turns it away from the plain one."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    plain, other = np.random.default_rng(seed).standard_normal((2, DIMENSION))
    mixed = plain / np.linalg.norm(plain) + twist * other / np.linalg.norm(other)
    return (mixed / np.linalg.norm(mixed)).astype(np.float32)


class FakeBackend:
    """Fulfils `Backend`. Set the attributes to plant faults."""

    def __init__(self, name: str, *, expected_bytes: int | None = 2 * 1024**3) -> None:
        self.name = name
        self.expected_bytes = expected_bytes
        self.twist = 0.0
        self.preflight_error: BackendError | None = None
        self.load_error: BackendError | None = None
        self.embed_error: BackendError | None = None
        self.unload_error: BackendError | None = None
        self.on_load: Callable[[CancelToken], None] = lambda cancel: None
        self.on_embed: Callable[[Sequence[str]], None] = lambda texts: None
        self.gate: threading.Event | None = None
        """Embeds wait for it, if there is one; a request that is taken back does not wait any longer."""
        self.failing: dict[str, str] = {}
        """Texts that get no vector, and why."""
        self.poisoned: set[str] = set()
        """Texts whose vector is NaN without a word of it."""
        self.cut: set[str] = set()
        """Texts that are reported as cut."""
        self.counts_tokens = True
        self.dtype = "float32"
        self.taken_back = 0
        """Requests that ended because nobody wanted their answer any more."""
        self.calls: list[str] = []
        self.embedded = 0
        self.batch_sizes: list[int | None] = []
        """What each request asked for."""
        self._lock = threading.Lock()
        self._status = BackendStatus(name, BackendState.UNLOADED, dimension=DIMENSION)

    def status(self) -> BackendStatus:
        return self._status

    def refresh(self) -> BackendStatus:
        return self._status

    def preflight(self) -> Preflight:
        if self.preflight_error:
            raise self.preflight_error
        return Preflight(self.name, self.expected_bytes, "scripted")

    def load(self, progress: Progress, cancel: CancelToken) -> LoadReport:
        self.calls.append("load")
        progress("loading")
        self.on_load(cancel)
        cancel.raise_if_cancelled()
        if self.load_error:
            raise self.load_error
        self._status = replace(self._status, state=BackendState.READY)
        return LoadReport(self.name, 0.5, CanaryReport(True, 3, DIMENSION, 0.0, 1.0, "scripted"))

    def embed(self, request: EmbedRequest) -> EmbedResult:
        if self._status.state is not BackendState.READY:
            raise BackendNotLoadedError(f"{self.name} is not loaded")
        if self.gate is not None:
            self._wait(self.gate, request.cancel)
        if self.embed_error:
            raise self.embed_error
        self.on_embed(request.texts)
        with self._lock:
            self.embedded += len(request.texts)
            self.batch_sizes.append(request.batch_size)
        vectors = np.stack([vector_of(text, self.twist) for text in request.texts])
        failures = tuple(
            TextFailure(i, self.failing[text]) for i, text in enumerate(request.texts) if text in self.failing
        )
        silent = [i for i, text in enumerate(request.texts) if text in self.poisoned]
        vectors[[*silent, *(failure.index for failure in failures)]] = np.nan
        cut = tuple(i for i, text in enumerate(request.texts) if text in self.cut)
        tokens = len(request.texts) if self.counts_tokens else None
        return EmbedResult(vectors, self.name, tokens, cut, failures, 0.001)

    def unload(self) -> None:
        self.calls.append("unload")
        if self.unload_error:
            raise self.unload_error
        self._status = replace(self._status, state=BackendState.UNLOADED)

    def pids(self) -> frozenset[int]:
        return frozenset()

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            self.name,
            "1.0",
            "tiny",
            None,
            self.dtype,
            "mean",
            True,
            256,
            DIMENSION,
            "cpu",
            None,
            None,
            None,
            None,
        )

    def close(self) -> None:
        self.calls.append("close")

    def _wait(self, gate: threading.Event, cancel: CancelToken | None) -> None:
        ended = threading.Event()
        waiting = threading.Thread(target=lambda: (gate.wait(30), ended.set()), daemon=True)
        waiting.start()
        if cancel is not None:
            cancel.on_cancel(ended.set)
        assert ended.wait(30)
        if cancel is not None and cancel.cancelled:
            with self._lock:
                self.taken_back += 1
            raise Cancelled
