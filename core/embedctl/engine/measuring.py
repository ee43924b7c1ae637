"""A benchmark run: bring up what is measured, measure it, keep it as it goes, leave things as they were."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.memory import LatestSample
from embedctl.engine.surroundings import surroundings
from embedctl.engine.turns import in_turns, was_in_turns
from embedctl.errors import (
    BackendError,
    BackendOutOfMemoryError,
    Cancelled,
    UsageError,
)
from embedctl.lab.benchmark import run_benchmark
from embedctl.lab.cold_start import can_drop_page_cache, drop_page_cache
from embedctl.lab.presets import preset_of
from embedctl.lab.targets import Start, Target
from embedctl.lab.tokens import token_counter
from embedctl.lab.window import SampleWindow
from embedctl.progress import silent
from embedctl.records import BackendName, EmbedResult, Fingerprint, Machine, ProgressItem, Run

if TYPE_CHECKING:
    from embedctl.store import Store

log = logging.getLogger(__name__)

_SEEDS: Final = 2**31


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be measured."""

    preset: str
    title: str = ""
    resumed: Run | None = None
    minutes: float | None = None
    """For the whole, in place of the preset's."""
    all_of_them: bool = True
    """Every backend was asked for by name; else one that cannot be loaded is told of and done without."""


def measure(
    job: Job,
    backends: Sequence[Backend],
    lifecycle: Lifecycle,
    latest: LatestSample,
    store: Store,
    wish: Wish,
    *,
    folder: Path | None,
    machine: Machine | None,
) -> Run:
    """Measure the backends one beside the other; those that were not loaded are unloaded once idle.

    The run is stored from its beginning and after each stage, so that a crash costs one stage. A run that is
    cancelled or fails keeps its whole stages and says so; one without any is removed. Backends that do not
    fit into memory at once are measured in turns.

    Raises:
        BackendError: A backend could not be loaded, and it was asked for by name, or there is no other.
        Cancelled: The job was cancelled.
    """
    resumed = wish.resumed
    keeper = _Keeper(store)
    if resumed is not None:
        keeper.last = resumed
    borrowed = [backend.name for backend in backends if not lifecycle.ready(backend.name)]
    limit = wish.minutes * 60.0 if wish.minutes is not None else preset_of(wish.preset).limit
    discrete = machine is not None and machine.gpu is not None and machine.gpu.unified is False

    def target_of(backend: Backend, *, borrowed: bool) -> Target:
        return _loaded_target(backend, lifecycle, job, folder, machine, borrowed=borrowed)

    def run(
        targets: Sequence[Target],
        keep: Callable[[Run], Run],
        resumed: Run | None,
        *,
        begun: float,
        limit: float,
        absent: Sequence[str] = (),
        max_tokens: int | None = None,
        beside: Run | None = None,
    ) -> Run:
        return run_benchmark(
            targets,
            preset=wish.preset,
            title=wish.title,
            count_tokens=token_counter(folder) if folder else None,
            machine=machine,
            progress=job,
            cancel=job.cancel_token,
            sampling=lambda: latest.watched(SampleWindow(discrete=discrete)),
            environment={**surroundings(latest.sample), "minutes": wish.minutes},
            keep=keep,
            resumed=resumed,
            seed=random.randrange(_SEEDS),  # an order, no secret
            limit=limit,
            begun=begun,
            absent=absent,
            max_tokens=max_tokens,
            beside=beside,
        )

    def run_alone(
        name: BackendName, keep: Callable[[Run], Run], resumed: Run | None, beside: Run | None
    ) -> Run:
        begun = time.perf_counter()
        target = target_of(lifecycle.backend(name), borrowed=not lifecycle.ready(name))
        limits = [known for each in backends if (known := each.fingerprint().max_tokens) is not None]
        return run(
            [target], keep, resumed, begun=begun, limit=limit / len(backends),
            max_tokens=min(limits, default=None), beside=beside,
        )  # fmt: skip

    missing: dict[BackendName, BackendError] = {}

    def turns() -> Run:
        _let_go(borrowed, lifecycle)
        names = [each.name for each in backends if each.name not in missing]
        return keeper.keep(in_turns(names, lifecycle, job, run_alone, keeper.keep, resumed))

    try:
        if resumed is not None and was_in_turns(resumed):
            return turns()
        begun = time.perf_counter()
        targets: list[Target] = []
        for backend in backends:
            try:
                targets.append(target_of(backend, borrowed=backend.name in borrowed))
            except BackendOutOfMemoryError as error:
                if len(backends) == 1:
                    raise
                if resumed is not None:
                    raise _no_room_to_resume(resumed, error) from error
                return turns()
            except BackendError as error:
                if wish.all_of_them:
                    raise
                missing[backend.name] = error
        if not targets:
            raise next(iter(missing.values()))
        absent = [f"{name}: n/a, {error.sentence}" for name, error in missing.items()]
        return run(targets, keeper.keep, resumed, begun=begun, limit=limit, absent=absent)
    except Cancelled:
        keeper.end("cancelled")
        raise
    except BaseException:
        keeper.end("failed")
        raise
    finally:
        _let_go(borrowed, lifecycle)


def _no_room_to_resume(run: Run, error: BackendOutOfMemoryError) -> BackendOutOfMemoryError:
    return BackendOutOfMemoryError(
        f"Run {run.id} was not resumed: its backends no longer fit into memory at once",
        why=f"{error.sentence}. Its rows so far were measured side by side, and rows measured one backend "
        "after the other are not to be mixed with them",
        remedy="end what else uses memory and resume it, or start a new run, which then goes in turns",
    )


def _let_go(borrowed: Sequence[BackendName], lifecycle: Lifecycle) -> None:
    for name in borrowed:
        if lifecycle.ready(name):
            try:
                lifecycle.unload_when_idle(name)
            except BackendError as error:  # somebody began to use it: their requests matter more
                log.warning("%s stays loaded after the benchmark: %s", name, error)


def require_resumable(run: Run) -> None:
    """Refuse to go on with a run that has ended, or that a living process measures.

    Raises:
        UsageError: Says which.
    """
    if run.state == "done":
        raise UsageError(f"Run {run.id} is complete", remedy="`embedctl bench run` starts a new one")
    if run.state == "unfinished" and _lives(run.environment.get("pid"), run.environment.get("pid_started")):
        raise UsageError(
            f"Run {run.id} is being measured",
            why=f"process {run.environment['pid']} measures it",
            remedy="wait for it, or cancel it there",
        )


def _lives(pid: object, started: object) -> bool:
    if not isinstance(pid, int) or not isinstance(started, float) or pid == psutil.Process().pid:
        return False  # jobs exclude each other within one process
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.Error:
        return False


class _Keeper:
    """Stores a run as it grows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.last: Run | None = None

    def keep(self, run: Run) -> Run:
        if run.id:
            self._store.put_run(run)
        else:
            run = self._store.add_run(run)
        self.last = run
        return run

    def end(self, state: str) -> None:
        """What becomes of a run that ended early."""
        if self.last is None:
            return
        if not self.last.measurements:
            self._store.remove_run(self.last.id)
        else:
            self._store.put_run(replace(self.last, state="cancelled" if state == "cancelled" else "failed"))


class _Steps:
    """Times the steps that a load tells of, and hands them on."""

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        self._name = name
        self._begun: list[tuple[str, float]] = []

    def __call__(
        self,
        step: str,
        *,
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        items: tuple[ProgressItem, ...] = (),
    ) -> None:
        if not self._begun or self._begun[-1][0] != step:
            self._begun.append((step, time.perf_counter()))
        self._job(f"{self._name}: {step}", done=done, total=total, unit=unit, items=items)

    def start(self, began: float, scenario: str) -> Start:
        ended = time.perf_counter()
        ends = [at for _, at in self._begun[1:]] + [ended]
        steps = tuple((step, end - at) for (step, at), end in zip(self._begun, ends, strict=True))
        return Start(ended - began, steps, scenario)


def _loaded_target(
    backend: Backend,
    lifecycle: Lifecycle,
    job: Job,
    folder: Path | None,
    machine: Machine | None,
    *,
    borrowed: bool,
) -> Target:
    def load(scenario: str) -> Start:
        steps, began = _Steps(job, backend.name), time.perf_counter()
        lifecycle.load(backend.name, steps, job.cancel_token)
        return steps.start(began, scenario)

    def restart(drop_cache: bool) -> Start:
        lifecycle.unload_when_idle(backend.name)
        if drop_cache and folder is not None:
            drop_page_cache(folder)
        return load("page cache of its files dropped" if drop_cache else "page cache as it was left")

    first = load("first load of this run") if borrowed else None
    if not borrowed:
        lifecycle.load(backend.name, silent, job.cancel_token)  # checks it again

    def fingerprint() -> Fingerprint:
        known = backend.fingerprint()
        if machine is None:
            return known
        gpu = machine.gpu.name if machine.gpu else "no GPU"
        return replace(known, driver=machine.driver, machine=f"{machine.hostname}, {gpu}")

    def embed(texts: Sequence[str], batch_size: int | None) -> EmbedResult:
        return backend.embed(EmbedRequest(texts, batch_size))

    def claimed() -> tuple[int | None, str]:
        status = backend.status()
        return status.claimed_bytes, status.claimed_source or "the backend does not say"

    restarts: Callable[[bool], Start] | None = restart if borrowed else None
    return Target(
        backend.name, embed, fingerprint, claimed, first, restarts,
        why_no_disk_start=_why_no_disk_start(backend.name, folder),
    )  # fmt: skip


def _why_no_disk_start(name: BackendName, folder: Path | None) -> str:
    if name != "native":
        return "its files are another program's, and stay in the page cache"
    if folder is None:
        return "the model's files are not known"
    return "" if can_drop_page_cache() else "this system cannot be asked to drop files from its page cache"
