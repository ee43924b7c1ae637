"""The backends, their model, and what loads, switches and trials of them answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from embedctl.records import (
    BackendState,
    BackendStatus,
    CanaryReport,
    FileState,
    Fingerprint,
    LoadReport,
    ModelFile,
    ModelStatus,
    StepRecord,
    SwitchPlan,
    SwitchReport,
    Trial,
    TrialReport,
    TuneReport,
)
from tests.support.canned.machine import GIB, NOW

REVISION: Final = "5617a9f61b028005a4858fdac845db406aefb181"
DIGEST: Final = "7907646426070047a77226ac3e684fbbe8410524f7b4a74d02837e43f2146bab"


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
