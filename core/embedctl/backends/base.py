"""What every backend can do. The engine knows backends only by this protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from embedctl.progress import CancelToken, Progress
from embedctl.records import BackendName, BackendStatus, EmbedResult, Fingerprint, LoadReport, Preflight


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    texts: Sequence[str]
    batch_size: int | None = None
    """Texts per forward pass; None: the backend's own choice."""
    normalize: bool = True
    timeout: float | None = None
    """Seconds for the whole request; None: the backend's setting."""
    cancel: CancelToken | None = None
    """Set when nobody wants the answer any more: the backend may then stop and raise `Cancelled`."""


class Backend(Protocol):
    """Turns texts into vectors. All methods may be called from any thread.

    `status`, `pids` and `fingerprint` answer at once from what is known; `refresh` and `preflight` may ask
    the server or the disk; `load`, `embed` and `unload` take as long as they take.
    """

    @property
    def name(self) -> BackendName: ...

    def status(self) -> BackendStatus:
        """What is known now. Never blocks, never raises."""

    def refresh(self) -> BackendStatus:
        """Look again, then `status()`. Never raises: what went wrong is in the status."""

    def preflight(self) -> Preflight:
        """Check that a load can work, without loading.

        Raises:
            BackendUnavailableError: The backend is not installed or does not answer.
            ModelMissingError: The model is not there; the remedy says how to fetch it.
        """

    def load(self, progress: Progress, cancel: CancelToken) -> LoadReport:
        """Load the model and run the canary. Loading what is loaded checks it and returns.

        Raises:
            BackendError: The load failed; the backend is as before.
            CanaryError: The vectors are wrong under every kernel that could be tried.
            Cancelled: `cancel` was set; nothing stays loaded.
        """

    def embed(self, request: EmbedRequest) -> EmbedResult:
        """Embed texts, in order. A text that fails alone costs its own row, not the request.

        Raises:
            BackendNotLoadedError: `load` has not been called.
            BackendError: The whole request failed.
            InvalidTextError: A text is no string.
            Cancelled: The request's `cancel` was set before the answer came.
        """

    def unload(self) -> None:
        """Give the memory back. Unloading what is not loaded does nothing.

        Returns when the backend's processes have let go, as far as that can be seen.
        """

    def pids(self) -> frozenset[int]:
        """The processes whose memory counts as this backend's, as last seen."""

    def fingerprint(self) -> Fingerprint:
        """What its vectors depend on, as far as known now."""

    def close(self) -> None:
        """End everything that this object started, loaded or not. Final."""
