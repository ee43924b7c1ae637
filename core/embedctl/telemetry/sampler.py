"""The paced thread that reads the machine: publish each reading, store some, tidy up now and then."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from embedctl.records import Event, GpuProcess, Sample, Severity
from embedctl.telemetry.probe import Owners, Probe

log = logging.getLogger(__name__)
T = TypeVar("T")

_MAINTAIN_EVERY_S = 60.0
_COMPLAIN_EVERY_S = 60.0
_ROUNDING_S = 1e-3


class Pacer(Protocol):
    """The sampler's sense of time."""

    def monotonic(self) -> float:
        """Seconds that never jump; they may stand still while the machine is suspended."""

    def wall(self) -> float:
        """Unix seconds, for the samples' stamps."""

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Pause for `seconds` or until `stop` is set."""


class RealPacer:
    """The system's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(seconds)


class Beat:
    """An absolute schedule: `start`, `start + period`, … Beats that were missed are left out, not made up."""

    def __init__(self, start: float, period: float) -> None:
        self._start = start
        self._period = period
        self._next = 0

    @property
    def due_at(self) -> float:
        return self._start + self._next * self._period

    def take(self, now: float) -> bool:
        """Whether a beat is due; if so the next one lies after `now`."""
        if now + _ROUNDING_S < self.due_at:
            return False
        self._next = math.floor((now + _ROUNDING_S - self._start) / self._period) + 1
        return True


class Sampler:
    """Reads the probe at a steady pace on a thread of its own.

    Nothing that a callback does ends the sampler: an exception is logged (at most once a minute for each
    callback) and the callback is called again on its next beat. Slow readings or a suspended machine cost
    beats and leave a gap; they never make a burst.

    Args:
        probe: Read from the sampler's thread alone.
        owners: The backends' processes now.
        extra: Further figures by metric key, such as the backends' latencies; they win over the probe's.
        publish: Gets every sample with the GPU's processes, `screen_hz` times a second. Must return at once.
        store: Gets `store_hz` of the samples a second.
        maintain: Called once a minute.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        owners: Callable[[], Owners],
        extra: Callable[[], Mapping[str, float]],
        publish: Callable[[Sample, tuple[GpuProcess, ...]], None],
        store: Callable[[Sample], None] | None = None,
        maintain: Callable[[], None] | None = None,
        screen_hz: float = 2.0,
        store_hz: float = 1.0,
        pacer: Pacer | None = None,
    ) -> None:
        self._probe = probe
        self._owners = owners
        self._extra = extra
        self._publish = publish
        self._store = store
        self._maintain = maintain
        self._screen_period = 1 / screen_hz
        self._store_period = 1 / store_hz
        self._pacer = pacer or RealPacer()
        self._complaints = _Complaints(self._pacer)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin sampling; a sampler that runs goes on."""
        if self._thread is None:
            self._stop = threading.Event()  # a thread that `stop` gave up on keeps its own
            # A daemon: a driver call that never returns must not keep the program from ending.
            self._thread = threading.Thread(target=self.run, name="embedctl-sampler", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End sampling; waits for a reading in progress at most `timeout` seconds. Safe to call twice."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def run(self) -> None:
        """The thread's work, until `stop`."""
        stop, pacer = self._stop, self._pacer
        start = pacer.monotonic()
        screen, store = Beat(start, self._screen_period), Beat(start, self._store_period)
        maintain = Beat(start + _MAINTAIN_EVERY_S, _MAINTAIN_EVERY_S)
        while not stop.is_set():
            now = pacer.monotonic()
            to_screen, to_store = screen.take(now), self._store is not None and store.take(now)
            if to_screen or to_store:
                self._sample(to_screen=to_screen, to_store=to_store)
            if self._maintain is not None and maintain.take(now):
                self._guard("maintenance", self._maintain)
            dues = [screen.due_at] if self._store is None else [screen.due_at, store.due_at]
            pacer.wait(max(0.0, min(dues) - pacer.monotonic()), stop)

    def _sample(self, *, to_screen: bool, to_store: bool) -> None:
        owners = self._guard("finding the backends' processes", self._owners)
        at = self._pacer.wall()
        readings = self._guard("reading the machine", lambda: self._probe.read(owners or {}))
        extra = self._guard("collecting further figures", self._extra)
        values = dict(readings.values) if readings else {}
        values.update((key, value) for key, value in (extra or {}).items() if math.isfinite(value))
        sample = Sample(at, values, readings.provenance if readings else {})
        processes = readings.processes if readings else ()
        if to_screen:
            self._guard("publishing a sample", lambda: self._publish(sample, processes))
        store = self._store
        if to_store and store is not None:
            self._guard("storing a sample", lambda: store(sample))

    def _guard(self, doing: str, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:
            self._complaints.add(doing, error)
            return None


class _Complaints:
    """Logs each kind of failure at most once a minute, with how often it happened."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._silent_until: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def add(self, doing: str, error: Exception) -> None:
        now = self._pacer.monotonic()
        if now < self._silent_until.get(doing, -math.inf):
            self._unsaid[doing] = self._unsaid.get(doing, 0) + 1
            return
        unsaid = self._unsaid.pop(doing, 0)
        self._silent_until[doing] = now + _COMPLAIN_EVERY_S
        more = f" ({unsaid} more in the last minute)" if unsaid else ""
        log.warning("%s failed and is tried again: %s%s", doing, error, more, exc_info=error)


class ThrottleWatch:
    """Turns the flag `gpu_throttled` into one event per spell of throttling.

    A spell is over after `quiet_s` without it, so that clocks that flutter at a limit make one event.
    """

    def __init__(self, quiet_s: float = 30.0) -> None:
        self._quiet_s = quiet_s
        self._last_throttled = -math.inf

    def event(self, sample: Sample) -> Event | None:
        """The event that begins with this sample, if one does. Samples come in order of time."""
        if not sample.get("gpu_throttled"):
            return None
        begins = sample.at - self._last_throttled > self._quiet_s
        self._last_throttled = sample.at
        if not begins:
            return None
        note = sample.provenance.get("gpu_throttled")
        figures = ("gpu_temperature", "gpu_power", "gpu_sm_clock", "gpu_utilization")
        detail: dict[str, object] = {key: sample.values[key] for key in figures if key in sample.values}
        if note is not None and note.source:
            detail["source"] = note.source
        return Event(
            at=sample.at,
            kind="throttling",
            title="the GPU's clocks are held back",
            severity=Severity.WARNING,
            detail=detail,
        )
