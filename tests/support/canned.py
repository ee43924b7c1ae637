"""Records as a real machine would give them, at one frozen moment. What the scripted engine answers with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from embedctl.metrics import METRICS
from embedctl.records import (
    BackendState,
    BackendStatus,
    CanaryReport,
    Capability,
    CheckReport,
    CheckRow,
    Comparison,
    Event,
    FileState,
    Finding,
    Fingerprint,
    GpuInfo,
    GpuProcess,
    Interval,
    LengthAgreement,
    LengthLimit,
    LoadReport,
    Machine,
    Measurement,
    ModelFile,
    ModelStatus,
    Outcome,
    ParityGroup,
    Provenance,
    Retrieval,
    Run,
    RunComparison,
    RunDelta,
    RunSummary,
    Sample,
    Severity,
    StepRecord,
    Study,
    StudySummary,
    SwitchPlan,
    SwitchReport,
    Threshold,
    Trial,
    TrialReport,
    TuneReport,
    WorstText,
)
from embedctl.series import History, Series
from embedctl.study_data import data_of

NOW: Final = 1_772_625_600.0
"""2026-03-04 12:00:00 UTC: the moment at which every scripted engine starts."""
MIB: Final = 2**20
GIB: Final = 2**30
REVISION: Final = "5617a9f61b028005a4858fdac845db406aefb181"
DIGEST: Final = "7907646426070047a77226ac3e684fbbe8410524f7b4a74d02837e43f2146bab"
POOL: Final = int(121.6 * GIB)

# The machine ---------------------------------------------------------------------------------------------


def gb10(*, simulated: bool = False) -> Machine:
    """A DGX Spark: one pool for CPU and GPU, NVML's memory figures not supported."""
    return Machine(
        hostname="spark-3f2a",
        system="Linux 6.11.0 aarch64",
        processor="NVIDIA Grace (20 cores)",
        cores=20,
        memory_total=POOL,
        driver="580.95.05",
        cuda="13.0",
        gpus=(
            GpuInfo(
                index=0,
                name="NVIDIA GB10",
                uuid="GPU-6b2f4c1e",
                memory_total=POOL,
                memory_source="unified pool: sum of NVML's bytes per process",
                unified=True,
                compute_capability=(12, 1),
            ),
        ),
        chosen_gpu=0,
        gpu_absence=None,
        capabilities=(
            Capability("GPU memory of the device", False, "NVML answers Not Supported on this GPU"),
            Capability("GPU memory per process", True, "nvmlDeviceGetComputeRunningProcesses"),
        ),
        simulated=simulated,
    )


def without_gpu() -> Machine:
    """A laptop: host figures only."""
    return replace(
        gb10(),
        hostname="laptop",
        processor="AMD Ryzen 7",
        cores=16,
        memory_total=32 * GIB,
        driver=None,
        cuda=None,
        gpus=(),
        chosen_gpu=None,
        gpu_absence="no NVIDIA driver (libnvidia-ml.so.1 was not found)",
        capabilities=(),
    )


_GPU_SOURCES: Final[Mapping[str, Provenance]] = {
    "gpu_memory_total": Provenance(source="/proc/meminfo MemTotal (unified pool)"),
    "gpu_memory_used": Provenance(source="sum of NVML's bytes per process"),
    "gpu_throttled": Provenance(absence="reads 0 even while power-capped on this GPU"),
    "ollama_p95": Provenance(absence="fewer than 20 requests in the window"),
}


def sample(at: float = NOW, *, native: bool = True, ollama: bool = True, gpu: bool = True) -> Sample:
    """One reading, gently moving with time; the flags say what is loaded and whether there is a GPU."""
    wave = math.sin(at / 40.0)
    ripple = math.sin(at / 7.0)
    values: dict[str, float] = {
        "host_memory_total": float(POOL),
        "host_memory_available": (88.2 + 0.4 * wave) * GIB,
        "host_memory_free": (41.5 + 0.3 * wave) * GIB,
        "host_memory_reclaimable": 46.7 * GIB,
        "host_swap_used": 0.0,
        "host_pressure_some": 0.0,
        "host_pressure_full": 0.0,
    }
    native_bytes = (2.13 + 0.11 * max(0.0, wave)) * GIB if native else 0.0
    ollama_bytes = (1.34 + 0.05 * max(0.0, ripple)) * GIB if ollama else 0.0
    if native:
        values |= {
            "native_gpu_memory": native_bytes,
            "native_rss": 3.02 * GIB,
            "native_p50": 24.6 + 2.1 * wave + 0.8 * ripple,
            "native_p95": 37.8 + 3.4 * wave + 1.9 * ripple,
            "native_probe": 21.9 + 1.1 * ripple,
            "native_rate": 262.0 + 18 * wave,
        }
    if ollama:
        values |= {
            "ollama_gpu_memory": ollama_bytes,
            "ollama_rss": 0.71 * GIB,
            "ollama_p50": 96.4 + 6.5 * wave + 3.1 * ripple,
            "ollama_p95": 131.0 + 9.0 * wave + 4.4 * ripple,
            "ollama_probe": 88.1 + 3.9 * ripple,
            "ollama_rate": 9.7 + 0.6 * wave,
        }
    if gpu:
        other = 0.42 * GIB
        values |= {
            "gpu_memory_total": float(POOL),
            "gpu_memory_used": native_bytes + ollama_bytes + other,
            "gpu_memory_other": other,
            "gpu_utilization": 31 + 9 * wave,
            "gpu_temperature": 47 + 2 * wave,
            "gpu_power": 18.4 + 4 * wave,
            "gpu_sm_clock": 2411.0,
            "gpu_energy": 1_250_000 + 18.4 * (at - NOW),
        }
    return Sample(at=at, values=values, provenance=_GPU_SOURCES if gpu else {})


def processes(*, native: bool = True, ollama: bool = True) -> tuple[GpuProcess, ...]:
    """The processes that hold GPU memory."""
    found = []
    if native:
        found.append(GpuProcess(41207, "embedctl worker", int(2.13 * GIB), "native"))
    if ollama:
        found.append(GpuProcess(38811, "ollama runner", int(1.34 * GIB), "ollama"))
    found.append(GpuProcess(2210, "Xorg", int(0.42 * GIB), "other"))
    return tuple(found)


# Backends ------------------------------------------------------------------------------------------------


def native(state: BackendState = BackendState.READY, **changes: Any) -> BackendStatus:
    """The native backend in `state`."""
    base = BackendStatus(
        name="native",
        state=state,
        model="BAAI/bge-m3",
        revision=REVISION,
        version="sentence-transformers 6.0.1, torch 2.15.0",
        dimension=1024,
        max_tokens=8192,
    )
    if state is BackendState.READY:
        base = replace(
            base,
            device="cuda:0",
            dtype="float16",
            attention="sdpa",
            pids=frozenset({41207}),
            claimed_bytes=int(1.68 * GIB),
            claimed_source="torch's reserved bytes",
            ready_since=NOW - 1_260,
        )
    elif state is BackendState.MODEL_MISSING:
        base = replace(
            base,
            detail="BAAI/bge-m3 is not on this machine",
            remedy="press d to open Models and download it",
        )
    elif state is BackendState.FAILED:
        base = replace(
            base,
            detail="The worker ended with signal 9 while it loaded the model",
            remedy="free memory, then load again",
        )
    return replace(base, **changes)


def ollama(state: BackendState = BackendState.READY, **changes: Any) -> BackendStatus:
    """The Ollama backend in `state`."""
    base = BackendStatus(
        name="ollama",
        state=state,
        model="bge-m3",
        revision=DIGEST,
        version="0.13.5",
        dimension=1024,
        max_tokens=8192,
    )
    if state is BackendState.READY:
        base = replace(
            base,
            device="GPU",
            dtype="F16",
            attention="flash",
            pids=frozenset({38811}),
            claimed_bytes=int(1.21 * GIB),
            claimed_source="size_vram of /api/ps",
            ready_since=NOW - 340,
            expires_at=NOW + 1_460,
        )
    elif state is BackendState.UNAVAILABLE:
        base = replace(
            base,
            version=None,
            revision=None,
            detail="No server answers at http://127.0.0.1:11434",
            remedy="start it with `ollama serve`, or install it from ollama.com",
        )
    elif state is BackendState.MODEL_MISSING:
        base = replace(
            base, revision=None, detail="Ollama has no model bge-m3", remedy="press p in Models to pull it"
        )
    return replace(base, **changes)


# The model -----------------------------------------------------------------------------------------------

_FILES: Final = (
    ("config.json", 687, False),
    ("config_sentence_transformers.json", 123, False),
    ("modules.json", 349, False),
    ("1_Pooling/config.json", 191, False),
    ("pytorch_model.bin", 2_271_145_830, True),
    ("sentence_bert_config.json", 54, False),
    ("sentencepiece.bpe.model", 5_069_051, True),
    ("special_tokens_map.json", 964, False),
    ("tokenizer.json", 17_098_108, True),
    ("tokenizer_config.json", 444, False),
)


def model(state: FileState = FileState.VERIFIED, *, partial: Mapping[str, int] | None = None) -> ModelStatus:
    """BGE-M3 with every file in `state`; `partial` names files that are here in part, with their bytes."""
    here = state in (FileState.PRESENT, FileState.VERIFIED, FileState.DAMAGED)
    files = []
    for path, size, lfs in _FILES:
        on_disk, file_state = (size if here else 0), state
        if partial and path in partial:
            on_disk, file_state = partial[path], FileState.PARTIAL
        files.append(ModelFile(path, size, "d2" * 32 if lfs else None, on_disk, file_state))
    anything = any(file.on_disk for file in files)
    return ModelStatus(
        repo="BAAI/bge-m3",
        revision=REVISION,
        files=tuple(files),
        folder=f"/home/ada/.cache/huggingface/hub/models--BAAI--bge-m3/snapshots/{REVISION}"
        if anything
        else None,
        free_bytes=int(412.7 * GIB),
        complete=here and not partial,
        converted=here and not partial,
        detail="",
    )


# Loads and switches --------------------------------------------------------------------------------------

SWITCH_STEPS: Final = (
    "preflight",
    "load ollama",
    "canary",
    "agreement",
    "flip",
    "drain",
    "unload native",
    "settle",
)


def canary(backend: str) -> CanaryReport:
    return CanaryReport(
        passed=True,
        texts=12,
        dimension=1024,
        worst_norm_error=3.1e-7,
        least_cosine=0.99998,
        reference=f"{backend} under the math attention kernel",
    )


def tune_report() -> TuneReport:
    return TuneReport(4096, 8192, ((2048, 520_000.0), (4096, 690_000.0), (8192, 692_000.0)), "NVIDIA GB10")


def load_report(backend: str) -> LoadReport:
    return LoadReport(backend=backend, seconds=8.4, canary=canary(backend))


def switch_plan(source: str = "native", target: str = "ollama", **changes: Any) -> SwitchPlan:
    """A switch that fits: memory now, what is expected, what is unloaded."""
    plan = SwitchPlan(
        source=source,
        target=target,
        target_loaded=False,
        gpu_memory_used=int(2.55 * GIB),
        source_bytes=int(2.13 * GIB),
        expected_bytes=int(1.3 * GIB),
        expected_source="size of the model's weights and a context of 8,192 tokens",
        available_bytes=int(88.2 * GIB),
        floor_bytes=8 * GIB,
        unloads_source=True,
        fits_beside=True,
        steps=SWITCH_STEPS,
    )
    return replace(plan, **changes)


def switch_steps(done: int, *, running: bool = True) -> tuple[StepRecord, ...]:
    """The first `done` steps of a switch, and the one that runs."""
    details = {
        "preflight": "Ollama 0.13.5 answers, bge-m3 is there, 88.2 GiB available",
        "load ollama": "1.34 GiB",
        "canary": "12 texts: finite, unit norm, 1,024 dimensions, least cosine 0.99998",
        "agreement": "least cosine native/ollama 0.9991 on 8 texts",
        "flip": "new requests go to ollama",
        "drain": "3 requests ended",
        "unload native": "worker 41207 ended",
        "settle": "2.13 GiB came back",
    }
    memory = (2.55, 3.89, 3.94, 3.94, 3.94, 3.91, 1.83, 1.76)
    seconds = (0.1, 4.2, 0.6, 0.4, 0.0, 0.3, 0.8, 1.1)
    steps = [
        StepRecord(name, "done", seconds[i], details[name], int(memory[i] * GIB))
        for i, name in enumerate(SWITCH_STEPS[:done])
    ]
    if running and done < len(SWITCH_STEPS):
        steps.append(StepRecord(SWITCH_STEPS[done], "running"))
    return tuple(steps)


def switch_report(source: str = "native", target: str = "ollama") -> SwitchReport:
    return SwitchReport(
        source=source,
        target=target,
        seconds=7.5,
        steps=switch_steps(len(SWITCH_STEPS)),
        agreement=0.9991,
        unloaded_source=True,
    )


# Runs ----------------------------------------------------------------------------------------------------

_SHAPES: Final = (
    ("one text", 1, 24.6, 96.4),
    ("batch of 32", 32, 118.0, 492.0),
    ("batch of 16", 16, 64.0, 251.0),
    ("batch of 64", 64, 229.0, 981.0),
    ("batch of 128", 128, 455.0, 1990.0),
)


def trial_report(trial: Trial, active: str = "native") -> TrialReport:
    return TrialReport(
        trial=trial,
        active=active,
        since=NOW - 600,
        shadowed=480,
        compared=7_680,
        dropped=12,
        failed=1,
        shared=240,
        least_cosine=0.99871,
        low_cosine=0.99942,
        median_cosine=0.99997,
        active_p50_ms=4.1,
        active_p95_ms=9.8,
        candidate_p50_ms=22.6,
        candidate_p95_ms=61.3,
    )


def fingerprint(backend: str, **changes: Any) -> Fingerprint:
    native_side = backend == "native"
    return replace(
        Fingerprint(
            backend=backend,
            backend_version="sentence-transformers 6.0.1" if native_side else "0.13.5",
            model="BAAI/bge-m3" if native_side else "bge-m3",
            revision=REVISION if native_side else DIGEST,
            dtype="float16" if native_side else "F16",
            pooling="cls",
            normalized=True,
            max_tokens=8192,
            dimension=1024,
            device="cuda:0" if native_side else "GPU",
            attention="sdpa" if native_side else "flash",
            torch="2.15.0" if native_side else None,
            driver="580.95.05",
            machine="NVIDIA GB10",
        ),
        **changes,
    )


def _measurement(backend: str, shape: str, batch: int, p50: float) -> Measurement:
    requests = 80 if batch == 1 else 24
    enough = requests >= 72
    rng = np.random.default_rng(batch)
    return Measurement(
        backend=backend,
        shape=shape,
        batch=batch,
        requests=requests,
        errors=0 if backend == "native" else int(batch == 128),
        latencies_ms=tuple(float(x) for x in p50 * rng.normal(1.0, 0.05, requests)),
        p50_ms=p50,
        p95_ms=p50 * 1.31,
        p95_note="" if enough else "n too small",
        texts_per_s=batch / p50 * 1000,
        tokens_per_s=batch / p50 * 1000 * 61,
        tokens=batch * 61 * requests,
        peak_bytes=int((2.31 if backend == "native" else 1.39) * GIB),
        peak_source="NVML's bytes of the backend's processes",
    )


def run(run_id: int = 7, *, slowdown: float = 1.0) -> Run:
    """A quick benchmark of both backends."""
    rows, ratios = [], []
    for shape, batch, native_ms, ollama_ms in _SHAPES:
        rows.append(_measurement("native", shape, batch, native_ms * slowdown))
        rows.append(_measurement("ollama", shape, batch, ollama_ms))
        ratio = ollama_ms / (native_ms * slowdown)
        ratios.append(
            Comparison(
                shape=shape,
                metric="latency" if batch == 1 else "throughput",
                baseline="ollama",
                candidate="native",
                ratio=Interval(ratio, ratio * 0.94, ratio * 1.07),
                verdict="faster" if batch < 128 else "undecided",
            )
        )
    return Run(
        id=run_id,
        at=NOW - 86_400 * (8 - run_id),
        preset="quick",
        seconds=94.0,
        backends=("native", "ollama"),
        measurements=tuple(rows),
        comparisons=tuple(ratios),
        fingerprints=(fingerprint("native"), fingerprint("ollama")),
        workload="queries-multilingual-v1 (sha256 4b1f…)",
        notes=("GPU clock held at 2,411 MHz throughout",),
    )


def summary(of: Run) -> RunSummary:
    first = next((c for c in of.comparisons if c.shape == "one text"), None)
    headline = (
        f"one text: native {first.ratio.estimate:.1f}× faster ({first.ratio.low:.1f}–{first.ratio.high:.1f})"
        if first
        else "one backend only"
    )
    return RunSummary(of.id, of.at, of.preset, of.title, of.backends, of.state, of.seconds, headline)


def compare(a: Run, b: Run) -> RunComparison:
    """Two runs side by side, as the engine would lay them."""

    def ratio(x: float | None, y: float | None) -> float | None:
        return y / x if x and y else None

    later = {(m.backend, m.shape): m for m in b.measurements}
    rows = []
    for old in a.measurements:
        new = later.get((old.backend, old.shape))
        if new is None:
            continue
        rows.append(
            RunDelta(
                backend=old.backend,
                shape=old.shape,
                a_p50_ms=old.p50_ms,
                b_p50_ms=new.p50_ms,
                p50_ratio=ratio(old.p50_ms, new.p50_ms),
                a_texts_per_s=old.texts_per_s,
                b_texts_per_s=new.texts_per_s,
                texts_per_s_ratio=ratio(old.texts_per_s, new.texts_per_s),
                a_peak_bytes=old.peak_bytes,
                b_peak_bytes=new.peak_bytes,
            )
        )
    return RunComparison(summary(a), summary(b), tuple(rows), ("native dtype: float32 → float16",))


# Doctor and time line ------------------------------------------------------------------------------------


def check_study(study_id: int = 4, *, at: float = NOW - 3_600, **changes: Any) -> Study:
    """A check in which Ollama cuts long texts without saying so."""
    rng = np.random.default_rng(5)
    cosines = np.sort(1 - rng.exponential(2e-5, 1_240))[::-1]
    languages = ("en", "de", "es", "zh", "ar", "ru")
    cut = "texts over 2,047 tokens are cut by ollama, silently (it claims 8,192)"
    same = "one text, a list, concurrent requests, a list of mixed lengths: the same vectors"
    whole = "1,240 texts in lists: finite, unit norm, 1,024 dimensions, distinct"
    report = CheckReport(
        verdict="safe with limits",
        reasons=(cut,),
        backends=("native", "ollama"),
        not_compared="",
        texts="xquad-6-languages, 1000 questions, 240 passages 659f68213ee0",
        settings={"native.dtype": "auto", "ollama.num_ctx": "8192"},
        rows=(
            CheckRow("vectors", "native", Outcome.OK, whole),
            CheckRow("requests", "native", Outcome.OK, f"{same} (least cosine 0.999998)"),
            CheckRow("limit", "native", Outcome.OK, "reads 8,192 tokens, as it says; longer texts are cut"),
            CheckRow("vectors", "ollama", Outcome.OK, whole),
            CheckRow("requests", "ollama", Outcome.OK, f"{same} (least cosine 1.000000)"),
            CheckRow("limit", "ollama", Outcome.LIMIT, cut),
            CheckRow("parity", None, Outcome.OK, "least cosine 0.99986, 1st percentile 0.99991"),
            CheckRow("neighbours", None, Outcome.OK, "99.4% of the 10 nearest of 240 passages are the same"),
        ),
        limits=(
            LengthLimit("native", "tokens", 8192, 8192, False, False, True, 8192, 3),
            LengthLimit("ollama", "tokens", 8192, 2047, False, False, False, 2047, 15),
        ),
        parity=tuple(
            ParityGroup(name, texts, float(cosines[-1]), 0.99991, 0.99998)
            for name, texts in (("all", 1_240), *((language, 206) for language in languages))
        ),
        worst=(
            WorstText("这座桥是什么时候建成的？", "zh", 14, float(cosines[-1])),
            WorstText("How many points did the Panthers defense surrender?", "en", 12, float(cosines[-2])),
        ),
        lengths=tuple(LengthAgreement(length, 0.9999) for length in (8, 64, 512, 513, 1024, 2047)),
        overlap=0.994,
        retrieval=(
            Retrieval("native", "native", 0.942),
            Retrieval("ollama", "ollama", 0.942),
            Retrieval("native", "ollama", 0.941, -0.0004, -0.0016, 0.0008),
            Retrieval("ollama", "native", 0.942, 0.0001, -0.0009, 0.0011),
        ),
        thresholds=(Threshold("least cosine", 0.999, 0.95, "the same weights give 0.999 across engines"),),
        cosines=tuple(float(value) for value in cosines),
    )
    study = Study(
        id=study_id,
        at=at,
        kind="check",
        title="native and ollama",
        verdict=report.verdict,
        headline=f"safe with limits: {cut}",
        backends=report.backends,
        fingerprints=(fingerprint("native"), fingerprint("ollama")),
        seconds=212.0,
        data=data_of(report),
    )
    return replace(study, **changes)


def study_summary(of: Study) -> StudySummary:
    return StudySummary(
        of.id, of.at, of.kind, of.title, of.verdict, of.headline, of.backends, of.seconds, of.state
    )


def findings() -> tuple[Finding, ...]:
    return (
        Finding("python", "Python 3.12.3", Severity.OK, "3.11 or newer is needed"),
        Finding("torch", "torch 2.15.0 has code for this GPU", Severity.OK, "sm_120 code runs on sm_121"),
        Finding(
            "memory",
            "CPU and GPU share one pool",
            Severity.INFO,
            "121.6 GiB in all; NVML answers Not Supported for the device, so bytes per process are used",
        ),
        Finding(
            "ollama",
            "Ollama 0.13.0 cuts long texts",
            Severity.WARNING,
            "versions before 0.13.2 embed only the first num_batch tokens of a text",
            "update Ollama: curl -fsSL https://ollama.com/install.sh | sh",
        ),
        Finding(
            "compile",
            "ptxas does not know sm_121a",
            Severity.ERROR,
            "torch.compile would fail: the bundled ptxas is from CUDA 12.8",
            "export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas",
        ),
        Finding("disk", "412.7 GiB free where models lie", Severity.OK, "the model needs 2.1 GiB"),
    )


def events() -> tuple[Event, ...]:
    """Newest first, as the engine gives them."""
    return (
        Event(NOW - 340, "load", "ollama is ready after 4.2 s", "ollama", id=14),
        Event(NOW - 900, "run", "quick benchmark: native 3.9× faster for one text", id=13),
        Event(NOW - 1_150, "switch", "ollama → native in 9.8 s", "native", id=12),
        Event(NOW - 1_260, "load", "native is ready after 8.4 s", "native", id=11),
        Event(
            NOW - 1_900,
            "error",
            "native: the worker ended with signal 9",
            "native",
            Severity.ERROR,
            id=10,
        ),
        Event(NOW - 2_400, "download", "BAAI/bge-m3 is complete (2.14 GiB)", id=9),
        Event(NOW - 2_700, "start", "embedctl 0.1.0", id=8),
    )


def history(
    since: float,
    until: float,
    *,
    metrics: Sequence[str] | None = None,
    points: int = 600,
    native: bool = True,
    ollama: bool = True,
    gpu: bool = True,
) -> History:
    """The window as `sample` would have read it, in about `points` entries per metric.

    Nothing is recorded later than `NOW`, and nothing between 40 and 43 minutes before it (a pause).
    """
    step = max(1.0, (until - since) / max(1, points))
    times = np.arange(math.ceil(since / step) * step, min(until, NOW) + step / 2, step)
    times = times[(times < NOW - 2_580) | (times > NOW - 2_400)]
    readings = [sample(float(t), native=native, ollama=ollama, gpu=gpu).values for t in times]
    series = {}
    for key in metrics if metrics is not None else METRICS:
        rows = [(t, reading[key]) for t, reading in zip(times, readings, strict=True) if key in reading]
        if not rows:
            series[key] = Series.empty(key)
            continue
        at, mean = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
        spread = 0.0 if step <= 1.0 else 0.03
        series[key] = Series(key, at, mean * (1 - spread), mean, mean * (1 + spread), gap=3 * step)
    inside = tuple(event for event in events() if since <= event.at <= until)
    return History(since, until, step, series, inside)
