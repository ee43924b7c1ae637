"""Making an engine out of settings: the one place that chooses the parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from embedctl.backends.base import Backend
from embedctl.backends.native import NativeBackend
from embedctl.backends.ollama import OllamaBackend
from embedctl.backends.ollama.generate import language_model
from embedctl.backends.ollama.host import find_host
from embedctl.engine.engine import Engine
from embedctl.engine.journal import Journal
from embedctl.engine.memory import GIB
from embedctl.engine.parts import Parts
from embedctl.engine.variants import with_changes
from embedctl.events import BackendChanged, EventBus
from embedctl.hub import ModelHub
from embedctl.paths import Paths
from embedctl.progress import CancelToken
from embedctl.records import BackendStatus
from embedctl.settings import NativeSettings, Settings, load_settings
from embedctl.store import Store
from embedctl.telemetry.probe import Probe


def open_engine(
    *,
    demo: bool = False,
    sampling: bool = True,
    recording: bool = True,
    settings: Settings | None = None,
    paths: Paths | None = None,
) -> Engine:
    """Open the engine on this machine's settings and history.

    Args:
        demo: A simulated GB10, a small real model and local servers, in a data folder of their own.
        sampling: Read the machine all the time (a console, a recorder, a switch); without it the engine
            does only what it is asked.
        recording: Store what is sampled.
        settings: In place of the settings file and the environment.
        paths: In place of this user's own folders.

    Raises:
        SettingsError: A setting is not allowed.
        StoreError: The history cannot be opened.
    """
    paths = paths or Paths.find(demo=demo)
    settings = settings or load_settings(paths)
    if demo:
        return _open_demo(paths, settings, sampling=sampling, recording=recording)
    from embedctl.telemetry.combined import open_probe

    hub = ModelHub(settings.model.repo, settings.model.revision)
    probe = open_probe(settings.telemetry.gpu)
    return _assemble(paths, settings, hub, probe, sampling=sampling, recording=recording)


def _open_demo(paths: Paths, settings: Settings, *, sampling: bool, recording: bool) -> Engine:
    from embedctl.demo.session import DemoSession
    from embedctl.telemetry.simulated import SimulatedGB10

    session = DemoSession.start(paths, settings)
    try:
        return _assemble(
            paths,
            session.settings,
            session.hub,
            SimulatedGB10(),
            sampling=sampling,
            recording=recording,
            demo=True,
            at_close=session.close,
        )
    except BaseException:
        session.close()
        raise


def _assemble(
    paths: Paths,
    settings: Settings,
    hub: ModelHub,
    probe: Probe,
    *,
    sampling: bool,
    recording: bool,
    demo: bool = False,
    at_close: Callable[[], None] | None = None,
) -> Engine:
    bus = EventBus()
    store = Store.open(paths.database, retention=settings.history)
    journal = Journal(store, bus)

    def changed(status: BackendStatus) -> None:
        bus.publish(BackendChanged(status))

    floor = settings.engine.memory_floor_gib

    def make_native(asked: NativeSettings, log_dir: Path, **told: Any) -> NativeBackend:
        exact = _runs_in_float32(asked, probe)
        return NativeBackend(
            asked,
            settings.model,
            folder=lambda: hub.folder(dtype="float32" if exact else None),
            log_dir=log_dir,
            budgets_file=paths.token_budgets,
            references=paths.references,
            memory_floor=None if floor is None else int(floor * GIB),
            **told,
        )

    def native_with(changes: Mapping[str, Any]) -> Backend:
        return make_native(with_changes(settings.native, changes), paths.log_dir / "variant")

    def admitted(cancel: CancelToken) -> AbstractContextManager[object]:
        return engine.admitted("native", cancel)

    native = make_native(
        settings.native, paths.log_dir, on_change=changed, on_event=journal.record, admitted=admitted
    )
    ollama = OllamaBackend(settings.ollama, settings.model, on_change=changed, on_event=journal.record)
    backends: dict[str, Backend] = {"native": native, "ollama": ollama}
    engine = Engine(
        settings,
        paths,
        Parts(
            bus=bus,
            store=store,
            journal=journal,
            probe=probe,
            hub=hub,
            backends=backends,
            pull=ollama.pull,
            tune=native.tune,
            native_with=native_with,
            language_model=lambda name: language_model(find_host(settings.ollama.host), name),
            **({} if demo else {"fetch_set": _fetch_set}),
            at_close=(at_close,) if at_close else (),
        ),
        starting_backend=settings.engine.backend if os.environ.get("EMBEDDING_BACKEND") else None,
        demo=demo,
        sampling=sampling,
        recording=recording,
    )
    return engine


def _fetch_set(repo: str, revision: str | None, split: str, cancel: CancelToken) -> tuple[Path, Path]:
    from embedctl.hub.background import run_cancellable
    from embedctl.hub.data_sets import fetch_retrieval_set

    return run_cancellable(lambda: fetch_retrieval_set(repo, revision, split), cancel)


def _runs_in_float32(settings: NativeSettings, probe: Probe) -> bool:
    """Whether the worker will compute in float32, for which the converted float16 weights are too coarse."""
    if settings.dtype not in ("auto", "float8"):
        return settings.dtype == "float32"
    return settings.device == "cpu" or (settings.device == "auto" and probe.machine().gpu is None)
