"""The drop-in for applications: texts in, lists of floats out, whichever backend is configured.

    from embedctl import get_embedding_service

    service = get_embedding_service()
    vectors = service.embed(["first text", "second text"])

`EMBEDDING_BACKEND=native|ollama` chooses the backend, as do the settings and the console's last switch. Where
a service or a console runs already, its engine and its loaded model are used.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl.errors import ConnectionLostError, InvalidTextError, ServiceError, StoreError, UsageError
from embedctl.records import BackendName, EmbedResult

if TYPE_CHECKING:
    import tempfile

    from embedctl.engine.facade import EngineFacade
    from embedctl.paths import Paths
    from embedctl.records.backends import Vectors
    from embedctl.settings import Settings

log = logging.getLogger(__name__)


class EmbeddingService:
    """Embeds through the engine that runs already, else through one of its own, whose model stays loaded.

    It may be used by many threads, and after a fork: the child gets an engine of its own, or attaches anew.
    """

    def __init__(self, backend: BackendName | None = None, *, engine: EngineFacade | None = None) -> None:
        """
        Args:
            backend: `"native"` or `"ollama"`; None: `EMBEDDING_BACKEND`, else the remembered choice.
            engine: Use this engine and no other; it is not closed by `close`.
        """
        self._backend = backend
        self._owned = engine is None
        self._lock = threading.Lock()
        self._closed = False
        self._dimension: int | None = None
        self._source: _Source | None = _Source(engine) if engine is not None else _open()
        if self._owned:
            _services.add(self)

    @property
    def backend(self) -> BackendName:
        """Where the next call goes."""
        source = self._current()
        return self._backend or source.flag or source.engine.status().active

    @property
    def dimension(self) -> int:
        """Length of one vector; embeds one text if it is not known yet.

        Raises:
            BackendError: The backend could not be asked.
        """
        known = self._current().engine.status().backend(self.backend).dimension or self._dimension
        return known if known is not None else int(self.embed_array("dimension").shape[1])

    def embed(
        self, texts: str | list[str], batch_size: int = 32, normalize: bool = True
    ) -> list[list[float]]:
        """Vectors of the texts, in their order; one text gives a list of one vector.

        Raises:
            BackendError: The backend could not embed.
            InvalidTextError: One text could not be embedded; names its index. No vectors are returned.
        """
        vectors: list[list[float]] = self.embed_array(texts, batch_size, normalize).tolist()
        return vectors

    def embed_array(self, texts: str | list[str], batch_size: int = 32, normalize: bool = True) -> Vectors:
        """Like `embed`, as a float32 array of shape (n, dimension)."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        result = self._ask(listed, batch_size, normalize)
        _raise_first_failure(result)
        self._dimension = int(result.vectors.shape[1])
        return result.vectors

    async def aembed(
        self, texts: str | list[str], batch_size: int = 32, normalize: bool = True
    ) -> list[list[float]]:
        """Like `embed`, for asyncio: the event loop goes on while the backend works."""
        import asyncio  # only here: `import embedctl` stays cheap for those who need no event loop

        return await asyncio.to_thread(self.embed, texts, batch_size, normalize)

    def close(self) -> None:
        """Unload what this service loaded. Safe to call twice."""
        with self._lock:
            self._closed = True
            source = self._source
        if self._owned and source is not None:
            source.close()

    def _ask(self, texts: list[str], batch_size: int, normalize: bool) -> EmbedResult:
        def embed(source: _Source) -> EmbedResult:
            return source.engine.embed(
                texts, backend=self._backend or source.flag, batch_size=batch_size, normalize=normalize
            )

        source = self._current()
        try:
            return embed(source)
        except ConnectionLostError:
            if not self._owned or self._closed:
                raise
        try:
            return embed(source)  # waits a while for a service that is just being started anew
        except ConnectionLostError as error:
            log.warning("%s; this process goes on with an engine of its own", error)
            self._drop(source)
            return embed(self._current())

    def _current(self) -> _Source:
        with self._lock:
            if self._source is None:
                if self._closed:
                    raise UsageError("This EmbeddingService is closed", remedy="make a new one")
                self._source = _open()
            return self._source

    def _drop(self, source: _Source) -> None:
        with self._lock:
            if self._source is source:
                self._source = None
        source.close()

    def _after_fork(self) -> None:
        """In the child: leave the parent's engine alone; its threads are not here, its worker is not ours."""
        self._lock = threading.Lock()
        if self._source is not None:
            _left_to_parents.append(self._source)
            self._source = None


class _Source:
    """An engine, and what belongs to it.

    Args:
        flag: The backend that `EMBEDDING_BACKEND` asks for, where the engine does not know of this.
        folder: Where it keeps its history, if that is to go with it.
    """

    def __init__(
        self,
        engine: EngineFacade,
        flag: BackendName | None = None,
        folder: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self.engine = engine
        self.flag = flag
        self._folder = folder

    def close(self) -> None:
        self.engine.close()
        if self._folder is not None:
            self._folder.cleanup()


def _open() -> _Source:
    """What runs already if it makes the vectors that this process is set to, else an engine of its own."""
    from embedctl.paths import Paths
    from embedctl.settings import load_settings

    paths = Paths.find()
    settings = load_settings(paths)
    return _attached(paths, settings) or _own(paths, settings)


def _attached(paths: Paths, settings: Settings) -> _Source | None:
    from embedctl.control.attach import attach

    try:
        engine = attach(paths)
    except ServiceError as error:
        log.warning("an engine of this process's own is used: %s", error)
        return None
    if engine is None:
        return None
    theirs = engine.settings
    if (theirs.model, theirs.native.dtype, theirs.native.max_tokens) != (
        settings.model, settings.native.dtype, settings.native.max_tokens
    ):  # fmt: skip
        log.warning("%s is set to other vectors than this process, which uses its own engine",
                    engine.connection.where)  # fmt: skip
        engine.close()
        return None
    return _Source(engine, settings.engine.backend if os.environ.get("EMBEDDING_BACKEND") else None)


def _own(paths: Paths, settings: Settings) -> _Source:
    import tempfile

    from embedctl.engine.opening import open_engine

    try:
        return _Source(open_engine(sampling=False, settings=settings, paths=paths))
    except StoreError as error:
        log.warning("nothing is recorded by this process: %s", error)
    folder = tempfile.TemporaryDirectory(prefix="embedctl-")
    inside = Path(folder.name)
    passing = replace(paths, data_dir=inside / "data", log_dir=inside / "log")
    return _Source(open_engine(sampling=False, settings=settings, paths=passing), folder=folder)


def _raise_first_failure(result: EmbedResult) -> None:
    if result.failures:
        first = result.failures[0]
        others = len(result.failures) - 1
        raise InvalidTextError(
            f"Text {first.index} could not be embedded" + (f" (and {others} more)" if others else ""),
            why=first.what,
            remedy="leave that text out or shorten it; the other texts of the request are fine",
            index=first.index,
        )


_lock = threading.Lock()
_service: EmbeddingService | None = None
_services: weakref.WeakSet[EmbeddingService] = weakref.WeakSet()
_left_to_parents: list[_Source] = []
"""Kept, so that nothing of them is closed by being collected."""


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    for service in _services:
        service._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def get_embedding_service() -> EmbeddingService:
    """The process's one service, made at the first call and closed when the process ends."""
    global _service  # one model per process is the point
    with _lock:
        if _service is None:
            _service = EmbeddingService()
            atexit.register(_service.close)
        return _service
