from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from embedctl.records import GpuProcess, Machine, Provenance, Sample
from embedctl.telemetry.probe import Owners, Readings
from embedctl.telemetry.sampler import Beat, Sampler, ThrottleWatch

PROVENANCE = {"gpu_power": Provenance(source="nvmlDeviceGetPowerUsage")}
PROCESS = GpuProcess(7, "python", 1, "native")


class FakePacer:
    """Time that passes only while waiting; ends the sampler after `until` seconds."""

    def __init__(self, until: float) -> None:
        self.now = 1000.0
        self.stop_at = self.now + until
        self.wall_offset = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset

    def wait(self, seconds: float, stop: threading.Event) -> None:
        assert seconds >= 0
        self.now += seconds
        if self.now > self.stop_at:
            stop.set()


class FakeProbe:
    def __init__(self, pacer: FakePacer, takes: Callable[[int], float] = lambda _: 0.0) -> None:
        self.pacer = pacer
        self.takes = takes
        self.reads: list[Owners] = []
        self.error: Exception | None = None

    def machine(self) -> Machine:
        raise NotImplementedError

    def read(self, owners: Owners) -> Readings:
        self.reads.append(owners)
        self.pacer.now += self.takes(len(self.reads))
        if self.error is not None:
            raise self.error
        return Readings({"gpu_power": 10.0 + len(self.reads)}, PROVENANCE, (PROCESS,))

    def close(self) -> None: ...


class Taken:
    """Everything that a sampler gave out."""

    def __init__(self) -> None:
        self.published: list[Sample] = []
        self.processes: list[tuple[GpuProcess, ...]] = []
        self.stored: list[Sample] = []
        self.maintained = 0

    def publish(self, sample: Sample, processes: tuple[GpuProcess, ...]) -> None:
        self.published.append(sample)
        self.processes.append(processes)

    def maintain(self) -> None:
        self.maintained += 1


def sampler(probe: FakeProbe, taken: Taken, **options: Any) -> Sampler:
    extra: Callable[[], Mapping[str, float]] = dict
    defaults: dict[str, Any] = {
        "owners": lambda: {"native": frozenset({7})},
        "extra": extra,
        "publish": taken.publish,
        "store": taken.stored.append,
        "maintain": taken.maintain,
        "pacer": probe.pacer,
    }
    return Sampler(probe, **(defaults | options))


def offsets(samples: list[Sample]) -> list[float]:
    return [round(sample.at - 1_700_001_000, 3) for sample in samples]


def test_it_publishes_twice_and_stores_once_a_second_with_wall_clock_stamps() -> None:
    pacer, taken = FakePacer(until=3.2), Taken()
    sampler(FakeProbe(pacer), taken).run()
    assert offsets(taken.published) == [0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert offsets(taken.stored) == [0, 1.0, 2.0, 3.0]
    assert taken.processes[0] == (PROCESS,)


@pytest.mark.parametrize(
    ("screen_hz", "store_hz", "shown", "kept"), [(3, 1, 10, 4), (1, 4, 4, 13), (2, 2, 7, 7)]
)
def test_each_rate_is_its_own(screen_hz: float, store_hz: float, shown: int, kept: int) -> None:
    pacer, taken = FakePacer(until=3.1), Taken()
    probe = FakeProbe(pacer)
    sampler(probe, taken, screen_hz=screen_hz, store_hz=store_hz).run()
    assert (len(taken.published), len(taken.stored)) == (shown, kept)
    assert len(probe.reads) == max(shown, kept), "a beat that is both is one reading"


def test_reading_time_does_not_shift_the_beats() -> None:
    pacer, taken = FakePacer(until=30), Taken()
    sampler(FakeProbe(pacer, takes=lambda _: 0.07), taken).run()
    assert offsets(taken.published)[-1] == 30.0


def test_beats_missed_by_a_slow_reading_are_one_late_beat_and_the_grid_is_kept() -> None:
    pacer, taken = FakePacer(until=4.7), Taken()
    sampler(FakeProbe(pacer, takes=lambda n: 2.3 if n == 3 else 0.0), taken).run()
    assert offsets(taken.published) == [0, 0.5, 1.0, 3.3, 3.5, 4.0, 4.5]
    assert offsets(taken.stored) == [0, 1.0, 3.3, 4.0]


def test_after_a_suspend_there_is_a_gap_and_no_burst() -> None:
    pacer, taken = FakePacer(until=2.2), Taken()
    probe = FakeProbe(pacer)

    def sleep_of_the_machine(sample: Sample, processes: tuple[GpuProcess, ...]) -> None:
        taken.publish(sample, processes)
        if len(taken.published) == 3:
            pacer.wall_offset += 3600  # the monotonic clock stood still meanwhile

    sampler(probe, taken, publish=sleep_of_the_machine).run()
    assert offsets(taken.published) == [0, 0.5, 1.0, 3601.5, 3602.0]


def test_figures_from_elsewhere_join_the_sample_if_they_are_numbers() -> None:
    pacer, taken = FakePacer(until=0.1), Taken()
    extra = {"native_p50": 12.5, "native_p95": float("nan"), "gpu_power": 99.0}
    sampler(FakeProbe(pacer), taken, extra=lambda: extra).run()
    (sample,) = taken.published
    assert dict(sample.values) == {"gpu_power": 99.0, "native_p50": 12.5}
    assert sample.provenance is PROVENANCE


@pytest.mark.parametrize("broken", ["publish", "store", "maintain", "extra", "owners"])
def test_a_failing_callback_costs_nothing_else_and_is_tried_again(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    pacer, taken, calls = FakePacer(until=125), Taken(), []

    def fail(*args: object) -> Any:
        calls.append(args)
        raise OSError("disk full")

    with caplog.at_level(logging.WARNING):
        sampler(FakeProbe(pacer), taken, **{broken: fail}).run()
    assert len(calls) == {"maintain": 2, "store": 126}.get(broken, 251)
    assert len(taken.published) == (0 if broken == "publish" else 251)
    assert len(taken.stored) == (0 if broken == "store" else 126)
    assert taken.maintained == (0 if broken == "maintain" else 2)
    assert len(caplog.records) == (2 if broken == "maintain" else 3), "once a minute"


def test_a_probe_that_raises_leaves_an_empty_sample_and_the_sampler_running() -> None:
    pacer, taken = FakePacer(until=1.1), Taken()
    probe = FakeProbe(pacer)
    probe.error = RuntimeError("ctypes went wrong")
    sampler(probe, taken, extra=lambda: {"native_p50": 3.0}).run()
    assert [dict(sample.values) for sample in taken.published] == [{"native_p50": 3.0}] * 3


def test_owners_that_cannot_be_had_are_unknown_to_the_probe() -> None:
    pacer = FakePacer(until=0.1)
    probe = FakeProbe(pacer)

    def fail() -> Owners:
        raise OSError

    sampler(probe, Taken(), owners=fail).run()
    assert probe.reads == [{}]


def test_the_thread_starts_once_stops_at_once_and_can_start_again() -> None:
    seen = threading.Event()
    probe = FakeProbe(FakePacer(until=0))
    subject = Sampler(
        probe,
        owners=dict,
        extra=dict,
        publish=lambda sample, processes: seen.set(),
        screen_hz=0.001,
        store_hz=0.001,
    )
    for _ in range(2):
        seen.clear()
        subject.start()
        subject.start()
        assert seen.wait(5)
        running = [t for t in threading.enumerate() if t.name == "embedctl-sampler"]
        assert len(running) == 1
        subject.stop()
        assert not running[0].is_alive()
    subject.stop()


def test_a_beat_is_taken_once_and_missed_ones_are_dropped() -> None:
    beat = Beat(10.0, 0.5)
    assert [beat.take(now) for now in (9.9, 10.0, 10.0, 10.4, 10.5, 13.1, 13.2, 13.5)] == [
        False,
        True,
        False,
        False,
        True,
        True,
        False,
        True,
    ]


def throttle(at: float, flag: float | None, **values: float) -> Sample:
    figures = dict(values) if flag is None else {"gpu_throttled": flag, **values}
    return Sample(at, figures, {"gpu_throttled": Provenance(source="NVML clock event reasons: power limit")})


def test_throttling_makes_one_event_per_spell_with_its_figures() -> None:
    watch = ThrottleWatch(quiet_s=30)
    flags = [(0, 0.0), (1, 1.0), (2, 1.0), (3, 0.0), (20, 1.0), (49, None), (50.5, 1.0), (60, 0.0)]
    events = [watch.event(throttle(at, flag, gpu_temperature=80)) for at, flag in flags]
    assert [event.at for event in events if event] == [1, 50.5]
    first = events[1]
    assert first is not None
    assert (first.kind, first.severity) == ("throttling", "warning")
    assert first.detail == {"gpu_temperature": 80, "source": "NVML clock event reasons: power limit"}


def test_an_absent_flag_is_no_throttling() -> None:
    assert ThrottleWatch().event(throttle(0, None)) is None
