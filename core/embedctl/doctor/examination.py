"""All looks in one call, topic by topic."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedctl.doctor.backend_checks import check_backend, check_disk, check_model
from embedctl.doctor.environment_checks import check_environment
from embedctl.doctor.machine_checks import check_machine, check_memory, check_python
from embedctl.doctor.torch_checks import ask_torch, check_torch
from embedctl.errors import HubError
from embedctl.records import Finding, ModelStatus, Severity, Status
from embedctl.settings import setting_names


def examine(
    status: Status,
    model: Callable[[], ModelStatus],
    *,
    store_path: Path,
    memory_floor: int,
    torch: Callable[[], Mapping[str, Any] | str] = ask_torch,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Finding, ...]:
    """Look at everything that commonly goes wrong. Takes seconds: torch is asked in a process of its own.

    Args:
        status: The engine's state, just refreshed.
        model: Gives the model's state from the disk alone.
        store_path: The history file.
        memory_floor: Bytes that a load must leave available.
        torch: Gives torch's report; for tests.
        environment: The process's variables; for tests.
    """
    found = [check_python()]
    machine = status.machine
    if machine is not None:
        found += check_machine(machine)
        available = status.sample.get("host_memory_available") if status.sample else None
        found.append(check_memory(machine, available, memory_floor))
    real_gpu = machine.gpu if machine is not None and not machine.simulated else None
    found += check_torch(torch(), real_gpu)
    unified = machine.gpu.unified if machine is not None and machine.gpu is not None else None
    found += check_environment(
        environment,
        setting_names(),
        unified_memory=unified,
        ollama_here=not any(backend.name == "ollama" and backend.remote for backend in status.backends),
    )
    for backend in status.backends:
        found += check_backend(backend, unified_memory=unified)
    try:
        known: ModelStatus | None = model()
        error = ""
    except HubError as failure:
        known, error = None, failure.what
    found += check_model(known, error)
    found.append(check_disk(known.free_bytes if known else None, known.missing_bytes if known else None))
    found.append(_store(status, store_path))
    return tuple(found)


def _store(status: Status, path: Path) -> Finding:
    files = (path, path.with_name(f"{path.name}-wal"))
    size = sum(file.stat().st_size for file in files if file.is_file())
    if status.recording:
        who = "this process records"
    elif status.recorder is not None:
        who = f"another embedctl (PID {status.recorder}) records"
    else:
        who = "nobody records now"
    return Finding("history", str(path), Severity.OK, f"{size / 1024**2:.1f} MiB; {who}")
