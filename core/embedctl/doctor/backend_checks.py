"""Judging the backends and the files: states, known faults of the Ollama version, model, disk. Pure."""

from __future__ import annotations

from embedctl.backends.ollama.versions import faults_of
from embedctl.records import BackendState, BackendStatus, Finding, ModelStatus, Severity

GIB = 1024**3

_SEVERITIES = {
    BackendState.READY: Severity.OK,
    BackendState.UNLOADED: Severity.OK,
    BackendState.LOADING: Severity.OK,
    BackendState.UNLOADING: Severity.OK,
    BackendState.UNKNOWN: Severity.INFO,
    BackendState.MODEL_MISSING: Severity.WARNING,
    BackendState.UNAVAILABLE: Severity.WARNING,
    BackendState.FAILED: Severity.ERROR,
}


def check_backend(status: BackendStatus, *, unified_memory: bool | None) -> list[Finding]:
    version = f" {status.version}" if status.version else ""
    found = [
        Finding(
            status.name,
            f"{status.name}{version}: {status.state}",
            _SEVERITIES[status.state],
            status.detail,
            status.remedy,
        )
    ]
    if status.name == "ollama" and status.version:
        found += [
            Finding(
                "ollama", f"known fault of {status.version}", Severity.INFO,
                f"{fault.what} ({fault.source})", fault.remedy,
            )
            for fault in faults_of(status.version, unified_memory=unified_memory)
        ]  # fmt: skip
    return found


def check_model(model: ModelStatus | None, error: str) -> list[Finding]:
    """`model` as the disk alone knows it; None with the `error` that stood in the way."""
    remedy = "embedctl models download, or d in the console"
    if model is None:
        return [Finding("model", "the model is not here", Severity.WARNING, error, remedy)]
    if model.complete:
        detail = f"{model.folder}" + ("; converted to safetensors" if model.converted else "")
        return [Finding("model", f"{model.repo} is here", Severity.OK, detail)]
    missing = ", ".join(file.path for file in model.files if file.on_disk == 0)
    detail = "; ".join(part for part in (model.detail, missing and f"missing: {missing}") if part)
    title = f"{model.repo} is not " + ("complete" if model.folder else "here")
    return [Finding("model", title, Severity.WARNING, detail or "not complete", remedy)]


def check_disk(free: int | None, needed: int | None) -> Finding:
    if free is None:
        return Finding("disk", "free space is not known", Severity.INFO, "the cache folder cannot be asked")
    tight = free < (needed or 0) + 2 * GIB
    if needed is None:
        detail = "how much is still to be fetched is not known before the Hub is asked"
    elif needed:
        detail = f"{needed / GIB:.1f} GiB are still to be fetched"
    else:
        detail = "nothing is still to be fetched"
    return Finding(
        "disk",
        f"{free / GIB:.1f} GiB free where models lie",
        Severity.WARNING if tight else Severity.OK,
        detail,
        "free some space, or point HF_HOME at another disk" if tight else "",
    )
