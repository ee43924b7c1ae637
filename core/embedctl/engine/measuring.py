"""A benchmark run: bring up what is measured, measure it, leave things as they were."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.memory import LatestSample
from embedctl.errors import BackendError
from embedctl.lab.benchmark import Target, run_benchmark
from embedctl.lab.tokens import token_counter
from embedctl.records import EmbedResult, Fingerprint, Machine, Run

log = logging.getLogger(__name__)


def measure(
    job: Job,
    backends: Sequence[Backend],
    lifecycle: Lifecycle,
    latest: LatestSample,
    *,
    preset: str,
    title: str,
    folder: Path | None,
    machine: Machine | None,
) -> Run:
    """Measure the backends one beside the other; those that were not loaded are unloaded once idle.

    Raises:
        BackendError: A backend could not be loaded.
        Cancelled: The job was cancelled; nothing is kept.
    """
    borrowed = [backend.name for backend in backends if not lifecycle.ready(backend.name)]
    try:
        for backend in backends:
            lifecycle.load(backend.name, job, job.cancel_token)
        return run_benchmark(
            [_target(backend, latest, machine) for backend in backends],
            preset=preset,
            title=title,
            count_tokens=token_counter(folder) if folder else None,
            machine=machine,
            progress=job,
            cancel=job.cancel_token,
        )
    finally:
        for name in borrowed:
            if lifecycle.ready(name):
                try:
                    lifecycle.unload_when_idle(name)
                except BackendError as error:  # somebody began to use it: their requests matter more
                    log.warning("%s stays loaded after the benchmark: %s", name, error)


def _target(backend: Backend, latest: LatestSample, machine: Machine | None) -> Target:
    def fingerprint() -> Fingerprint:
        known = backend.fingerprint()
        if machine is None:
            return known
        gpu = machine.gpu.name if machine.gpu else "no GPU"
        return replace(known, driver=machine.driver, machine=f"{machine.hostname}, {gpu}")

    def embed(texts: Sequence[str], batch_size: int | None) -> EmbedResult:
        return backend.embed(EmbedRequest(texts, batch_size))

    return Target(backend.name, embed, fingerprint=fingerprint, peak=lambda: latest.peak(backend.name))
