"""What backends say of themselves, and what they answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy costs start-up time and these are annotations only
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    """Shape (n, dimension), C-contiguous."""

BackendName = str
"""`"native"` or `"ollama"`."""


@dataclass(frozen=True, slots=True)
class TextFailure:
    """One text of a request that got no vector."""

    index: int
    what: str


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The answer to one request, in the order of its texts."""

    vectors: Vectors
    """float32, shape (n, dimension), L2-normalised unless asked otherwise; a failed text's row is NaN."""
    backend: BackendName
    tokens: int | None
    """Tokens embedded, special tokens included, as the backend counts them; None if it does not say."""
    truncated: tuple[int, ...]
    """Indices of texts that were cut at the length limit."""
    failures: tuple[TextFailure, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    """What the backend had to do to get through, such as halving a batch."""
    fingerprint: str | None = None
    """`Fingerprint.digest` of the backend as it was during this request; None where nobody looked."""
    rescaled: tuple[int, ...] = ()
    """Indices of texts whose vectors arrived without unit norm although they should have it."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a vector or a measurement depends on. None: not known or does not apply."""

    backend: BackendName
    backend_version: str | None
    model: str
    revision: str | None
    """The Hub's commit, Ollama's manifest digest, or a hash over the content of a local folder."""
    dtype: str | None
    pooling: str | None
    normalized: bool
    max_tokens: int | None
    dimension: int | None
    device: str | None
    attention: str | None
    torch: str | None
    driver: str | None
    machine: str | None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str | None:
        """Twelve hex digits over what decides a vector: equal digests may share one index.

        None until the backend has been loaded once: before, what it will compute in is not settled. The
        backend counts in, since two backends give the same weights' vectors with small differences. Versions,
        device, kernel and machine do not: they differ by rounding, and an index outlives an update.
        """
        if self.dimension is None:
            return None
        parts = (
            self.backend, self.model, self.revision, self.dtype, self.pooling, self.normalized,
            self.max_tokens, self.dimension,
        )  # fmt: skip
        return _digest(parts)


@cache  # asked twice of every request, and there are as many as backends were loaded differently
def _digest(parts: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


# Backends -----------------------------------------------------------------------------------------------


class BackendState(StrEnum):
    UNKNOWN = "unknown"
    """Not looked at yet."""
    UNAVAILABLE = "unavailable"
    """Not installed, or does not answer."""
    MODEL_MISSING = "model missing"
    UNLOADED = "unloaded"
    """Ready to be loaded."""
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """What is known of one backend, cheap to ask for at any time."""

    name: BackendName
    state: BackendState
    detail: str = ""
    """One sentence: why it is in this state, or what it does now."""
    remedy: str = ""
    model: str | None = None
    revision: str | None = None
    version: str | None = None
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None
    dimension: int | None = None
    max_tokens: int | None = None
    pids: frozenset[int] = frozenset()
    claimed_bytes: int | None = None
    """What the backend says it holds (torch's reserved bytes, Ollama's size_vram)."""
    claimed_source: str | None = None
    ready_since: float | None = None
    expires_at: float | None = None
    """When the backend will unload by itself (Ollama's keep_alive)."""
    notes: tuple[str, ...] = ()
    remote: bool = False
    """It runs on another machine: this one's GPU and memory say nothing of it."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a load would need, looked up without loading."""

    backend: BackendName
    expected_bytes: int | None
    """Memory that the loaded backend will hold."""
    expected_source: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What known texts showed after a load."""

    passed: bool
    texts: int
    dimension: int | None
    worst_norm_error: float | None
    least_cosine: float | None
    """Against the reference named in `reference`; None when there was none."""
    reference: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TuneReport:
    """Which token budget is best for a loaded model, as measured."""

    token_budget: int
    """The smallest that is as fast as any; in use from the next load on."""
    before: int
    """The one in use now."""
    rates: tuple[tuple[int, float], ...]
    """Tokens per second for each budget that was tried."""
    device: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did."""

    backend: BackendName
    seconds: float
    canary: CanaryReport | None
    notes: tuple[str, ...] = ()
    way: str = ""
    """How the model was loaded, in words, where there are several ways."""
