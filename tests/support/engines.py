"""A real engine over a real store, with backends and a machine that a test decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from embedctl.engine.engine import Engine
from embedctl.engine.journal import Journal
from embedctl.engine.parts import Parts
from embedctl.events import EventBus
from embedctl.paths import Paths
from embedctl.progress import CancelToken, Progress
from embedctl.records import GpuInfo, Machine, ModelStatus, Provenance
from embedctl.settings import Settings
from embedctl.store import Store
from embedctl.telemetry.probe import Owners, Readings
from tests.support import canned
from tests.support.fake_backend import FakeBackend

GIB = 1024**3


@dataclass
class ScriptedProbe:
    """A machine with one unified pool whose figures a test sets; loaded backends hold 2 GiB each."""

    backends: Mapping[str, FakeBackend]
    total: float = 64 * GIB
    others: float = 8 * GIB
    held: float = 2 * GIB
    lingering: dict[str, float] = field(default_factory=dict)
    """Memory that a backend does not give back, by name."""

    def machine(self) -> Machine:
        gpu = GpuInfo(0, "Scripted GPU", "GPU-0", None, "scripted", unified=True)
        return Machine("test", "Linux", "x86_64", 2, int(self.total), "580", "13.0", (gpu,), 0, None)

    def read(self, owners: Owners) -> Readings:
        values = {"host_memory_total": self.total}
        for name, backend in self.backends.items():
            ready = backend.status().state.value == "ready"
            values[f"{name}_gpu_memory"] = self.held if ready else self.lingering.get(name, 0.0)
        used = sum(value for key, value in values.items() if key.endswith("_gpu_memory"))
        values["gpu_memory_used"] = used
        values["host_memory_available"] = self.total - self.others - used
        return Readings(values, {key: Provenance("scripted") for key in values})

    def close(self) -> None:
        pass


class NoModel:
    """A hub without a model: the scripted backends need none."""

    def __init__(self) -> None:
        self.place: Path | None = None
        """Where its files are said to lie; a test may name a folder."""

    def status(self, *, online: bool) -> ModelStatus:
        where = str(self.place) if self.place else None
        return ModelStatus("scripted/model", None, (), where, None, where is not None, False)

    def folder(self) -> None:
        return None

    def remove(self) -> int:
        return 7


@dataclass
class Rig:
    engine: Engine
    native: FakeBackend
    ollama: FakeBackend
    probe: ScriptedProbe
    bus: EventBus
    hub: NoModel


@contextmanager
def rig(
    folder: Path,
    settings: Settings | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[Rig]:
    """An engine that samples 20 times a second; closed at the end. `parts` are further `Parts`, by name."""
    settings = settings or Settings.model_validate(
        {"telemetry": {"screen_hz": 20, "store_hz": 10}, "engine": {"settle_timeout_s": 5}}
    )
    native, ollama = FakeBackend("native"), FakeBackend("ollama")
    backends = {"native": native, "ollama": ollama}
    probe = ScriptedProbe(backends)
    bus, hub = EventBus(), NoModel()
    paths = Paths.in_folder(folder)
    store = Store.open(paths.database, retention=settings.history)

    def no_pull(progress: Progress, cancel: CancelToken) -> None:
        raise AssertionError("nobody asked for a pull")

    made = Parts(
        bus=bus,
        store=store,
        journal=Journal(store, bus),
        probe=probe,
        hub=cast(Any, hub),
        backends=backends,
        pull=no_pull,
        tune=lambda progress, cancel: canned.tune_report(),
        **(parts or {}),
    )
    engine = Engine(settings, paths, made, **options)
    try:
        yield Rig(engine, native, ollama, probe, bus, hub)
    finally:
        engine.close()


def only_one_fits(r: Rig) -> None:
    """9 GiB are available beside the loaded one's 2, and 8 are kept free."""
    r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
    assert r.engine._latest.wait_until(lambda _: True, 10)
