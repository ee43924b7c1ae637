"""The drop-in for applications: texts in, lists of floats out, whichever backend is configured.

    from embedctl import get_embedding_service

    service = get_embedding_service()
    vectors = service.embed(["first text", "second text"])

`EMBEDDING_BACKEND=native|ollama` chooses the backend, as do the settings and the console's last switch.
"""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING

from embedctl.errors import InvalidTextError
from embedctl.records import BackendName, EmbedResult

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade
    from embedctl.records.backends import Vectors


class EmbeddingService:
    """Embeds through an engine of its own; the model is loaded at the first call and stays loaded."""

    def __init__(self, backend: BackendName | None = None, *, engine: EngineFacade | None = None) -> None:
        """
        Args:
            backend: `"native"` or `"ollama"`; None: `EMBEDDING_BACKEND`, else the remembered choice.
            engine: Use this engine in place of one of its own; it is not closed by `close`.
        """
        self._owned = engine is None
        if engine is None:
            from embedctl.engine.opening import open_engine

            engine = open_engine(sampling=False)
        self._engine = engine
        self._backend = backend
        self._dimension: int | None = None

    @property
    def backend(self) -> BackendName:
        """Where the next call goes."""
        return self._backend or self._engine.status().active

    @property
    def dimension(self) -> int:
        """Length of one vector; embeds one text if it is not known yet.

        Raises:
            BackendError: The backend could not be asked.
        """
        known = self._engine.status().backend(self.backend).dimension or self._dimension
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
        result = self._engine.embed(listed, backend=self._backend, batch_size=batch_size, normalize=normalize)
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
        if self._owned:
            self._engine.close()


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


def get_embedding_service() -> EmbeddingService:
    """The process's one service, made at the first call and closed when the process ends."""
    global _service  # one model per process is the point
    with _lock:
        if _service is None:
            _service = EmbeddingService()
            atexit.register(_service.close)
        return _service
