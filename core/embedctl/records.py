"""What flows between the parts: frozen dataclasses, no behaviour beyond trivial derivations.

Times are Unix seconds (UTC, float); sizes are bytes; durations are seconds unless the name says `_ms`.
A field that a machine may lack is `None`, and its reason stands beside it: unknown is never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # numpy costs start-up time and these are annotations only
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    """Shape (n, dimension), C-contiguous."""

BackendName = str
"""`"native"` or `"ollama"`."""

# Figures of the machine --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a figure comes from, or why it is absent. Exactly one of the two is set."""

    source: str | None = None
    """For example `"nvmlDeviceGetMemoryInfo"` or `"/proc/meminfo MemAvailable"`."""
    absence: str | None = None
    """For example `"NVML answers Not Supported on this GPU"`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of the machine. A metric that is not in `values` is absent; `absence` says why."""

    at: float
    values: Mapping[str, float]
    """By metric key (see `embedctl.metrics`)."""
    provenance: Mapping[str, Provenance] = field(default_factory=dict)
    """By metric key; shared between samples while nothing changes."""

    def get(self, key: str) -> float | None:
        return self.values.get(key)

    def absence(self, key: str) -> str:
        """Why `key` is missing, in a few words."""
        note = self.provenance.get(key)
        return (note.absence if note and note.absence else None) or "not measured"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """One process that holds memory on a GPU."""

    pid: int
    name: str | None
    gpu_memory: int | None
    owner: str
    """`"native"`, `"ollama"` or `"other"`."""


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What is fixed about one GPU while the program runs."""

    index: int
    name: str
    uuid: str
    memory_total: int | None
    memory_source: str
    """Where memory figures of this GPU come from, or why there are none."""
    unified: bool | None
    """True where CPU and GPU share one pool (the CUDA attribute `integrated`); None if nobody could say."""
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether one figure can be read on this machine."""

    name: str
    available: bool
    detail: str
    """The source when available, the reason when not."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is fixed about this machine while the program runs."""

    hostname: str
    system: str
    processor: str
    cores: int
    memory_total: int | None
    driver: str | None
    cuda: str | None
    """The newest CUDA version that the driver supports."""
    gpus: tuple[GpuInfo, ...]
    chosen_gpu: int | None
    """Index into NVML's list of the GPU that is watched; None without a GPU."""
    gpu_absence: str | None
    """Why there is no GPU, when there is none."""
    capabilities: tuple[Capability, ...] = ()
    simulated: bool = False

    @property
    def gpu(self) -> GpuInfo | None:
        return next((gpu for gpu in self.gpus if gpu.index == self.chosen_gpu), None)


# Embedding ----------------------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a vector or a measurement depends on. None: not known or does not apply."""

    backend: BackendName
    backend_version: str | None
    model: str
    revision: str | None
    """The Hub's commit, or Ollama's manifest digest."""
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
class LoadReport:
    """What a load did."""

    backend: BackendName
    seconds: float
    canary: CanaryReport | None
    notes: tuple[str, ...] = ()


# Models -------------------------------------------------------------------------------------------------


class FileState(StrEnum):
    MISSING = "missing"
    PARTIAL = "partial"
    PRESENT = "present"
    """On disk with the right size; its hash was not looked at since."""
    VERIFIED = "verified"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class ModelFile:
    path: str
    """Relative to the repository."""
    size: int | None
    """Bytes, as the Hub states."""
    sha256: str | None
    """As the Hub states, for files in LFS; smaller files are checked by their git blob hash."""
    on_disk: int
    state: FileState


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: what is needed of it, and what is here."""

    repo: str
    revision: str | None
    """The full commit hash once known."""
    files: tuple[ModelFile, ...]
    """Empty when neither the Hub nor the disk could say."""
    folder: str | None
    """The snapshot's folder, once any of it is here."""
    free_bytes: int | None
    complete: bool
    """Every needed file is present."""
    converted: bool
    """A safetensors file made from a pickle stands beside it."""
    detail: str = ""

    @property
    def total_bytes(self) -> int | None:
        sizes = [file.size for file in self.files]
        return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None

    @property
    def missing_bytes(self) -> int | None:
        if self.total_bytes is None:
            return None
        return sum(max(0, (f.size or 0) - f.on_disk) for f in self.files)


# Jobs ---------------------------------------------------------------------------------------------------


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ProgressItem:
    """One part of a job that has its own bar, such as one file."""

    name: str
    done: float
    total: float | None
    state: Literal["waiting", "running", "done", "failed"] = "running"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a job that ended or runs."""

    name: str
    state: Literal["running", "done", "failed", "skipped", "warning"]
    seconds: float | None = None
    detail: str = ""
    gpu_memory: int | None = None
    """GPU memory in use when the step ended, if it could be read."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a record: what happened, why, what to do."""

    what: str
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """Where a job stands."""

    job_id: int
    kind: str
    """`download`, `load`, `unload`, `switch`, `benchmark`, `verify`, `pull`."""
    title: str
    state: JobState
    step: str
    started: float
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate: float | None = None
    """Units per second over the last few seconds."""
    eta: float | None = None
    """Seconds left at that rate."""
    items: tuple[ProgressItem, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    failure: Failure | None = None
    result: object | None = None
    """The record that the job made, once it is done."""


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """What a switch would do, for the dialog before it."""

    source: BackendName
    target: BackendName
    target_loaded: bool
    gpu_memory_used: int | None
    source_bytes: int | None
    """What the source holds now, measured where possible."""
    expected_bytes: int | None
    """What the target is expected to hold."""
    expected_source: str
    available_bytes: int | None
    floor_bytes: int
    unloads_source: bool
    fits_beside: bool | None
    """Whether both fit at once above the floor; None if nobody can say."""
    steps: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    obstacle: Failure | None = None
    """Why the switch cannot be started, if it cannot."""


@dataclass(frozen=True, slots=True)
class SwitchReport:
    source: BackendName
    target: BackendName
    seconds: float
    steps: tuple[StepRecord, ...]
    agreement: float | None
    """Least cosine between the two backends on the agreement texts; None if the source was not loaded."""
    unloaded_source: bool
    warnings: tuple[str, ...] = ()


# Runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate with its confidence interval."""

    estimate: float
    low: float | None
    high: float | None
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of a run: one backend under one request shape."""

    backend: BackendName
    shape: str
    """`one text`, `batch of 32`, …"""
    batch: int
    requests: int
    errors: int
    latencies_ms: tuple[float, ...]
    """Raw, one per good request, in the order sent."""
    p50_ms: float | None
    p95_ms: float | None
    p95_note: str
    """Empty, or why p95 is not to be trusted (`n too small`)."""
    texts_per_s: float | None
    tokens_per_s: float | None
    tokens: int | None
    """Useful tokens sent, counted by one tokenizer for all backends where there is one."""
    peak_bytes: int | None
    """Peak of the backend's own processes while this row ran."""
    peak_source: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One shape, two backends: how many times as fast native is as Ollama."""

    shape: str
    metric: Literal["latency", "throughput"]
    baseline: BackendName
    candidate: BackendName
    ratio: Interval
    """Baseline time over candidate time: above 1, the candidate is faster."""
    verdict: Literal["faster", "slower", "no difference that matters", "undecided"]


@dataclass(frozen=True, slots=True)
class Run:
    """One benchmark with all that is needed to judge it later."""

    id: int
    at: float
    preset: str
    seconds: float
    backends: tuple[BackendName, ...]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    fingerprints: tuple[Fingerprint, ...]
    workload: str
    """Name and content hash of the texts."""
    state: Literal["done", "cancelled", "failed"] = "done"
    notes: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run without its raw measurements, for lists."""

    id: int
    at: float
    preset: str
    title: str
    backends: tuple[BackendName, ...]
    state: str
    seconds: float
    headline: str
    """The run in one line, such as `one text: native 3.1× faster (2.9–3.3)`."""


@dataclass(frozen=True, slots=True)
class RunDelta:
    """One backend under one shape in two runs, laid side by side. Ratios are B over A."""

    backend: BackendName
    shape: str
    a_p50_ms: float | None
    b_p50_ms: float | None
    p50_ratio: float | None
    a_texts_per_s: float | None
    b_texts_per_s: float | None
    texts_per_s_ratio: float | None
    a_peak_bytes: int | None
    b_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class RunComparison:
    a: RunSummary
    b: RunSummary
    rows: tuple[RunDelta, ...]
    differences: tuple[str, ...]
    """Fingerprint fields in which the runs differ: `native dtype: float16 → float32`."""


# Downloads ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Download:
    """One download that ended, well or not."""

    repo: str
    revision: str | None
    started: float
    ended: float
    bytes: int | None
    """Size of what was fetched; None if nobody counted."""
    outcome: str
    """`done`, `cancelled`, or what went wrong."""
    id: int | None = None
    """Set by the store."""


# Doctor ---------------------------------------------------------------------------------------------------


class Severity(StrEnum):
    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doctor looked at."""

    topic: str
    title: str
    severity: Severity
    detail: str
    remedy: str = ""


# Time line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """A dated fact on the time line."""

    at: float
    kind: str
    """`start`, `stop`, `switch`, `load`, `unload`, `download`, `run`, `error`, `throttling`, `note`."""
    title: str
    backend: BackendName | None = None
    severity: Severity = Severity.INFO
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
    """Set by the store."""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole state at one moment."""

    at: float
    active: BackendName
    backends: tuple[BackendStatus, ...]
    machine: Machine | None
    """None until the first look has finished."""
    sample: Sample | None
    processes: tuple[GpuProcess, ...]
    jobs: tuple[JobUpdate, ...]
    """Running jobs."""
    store_path: str
    demo: bool
    recording: bool
    """Samples are being written."""
    recorder: int | None = None
    """PID of another process that records to this history, if one does."""

    def backend(self, name: BackendName) -> BackendStatus:
        return next(status for status in self.backends if status.name == name)
