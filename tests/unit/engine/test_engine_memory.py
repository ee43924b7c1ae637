from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.engine.memory import GIB, LatestSample, held_bytes, room
from embedctl.lab.window import SampleWindow
from embedctl.records import GpuInfo, JobState, Machine, Sample
from tests.support.engines import rig

CARD = GpuInfo(0, "Card", "GPU-1", 24 * GIB, "nvmlDeviceGetMemoryInfo", unified=False)
MACHINE = Machine("m", "Linux", "x86_64", 8, 64 * GIB, "580", "13.0", (CARD,), 0, None)
UNIFIED = replace(MACHINE, gpus=(replace(CARD, unified=True),))
VALUES = {
    "gpu_memory_total": 24.0 * GIB,
    "gpu_memory_used": 4.0 * GIB,
    "host_memory_total": 64.0 * GIB,
    "host_memory_available": 40.0 * GIB,
}
SAMPLE = Sample(1.0, VALUES)


def test_a_card_of_its_own_has_its_own_room() -> None:
    found = room(MACHINE, SAMPLE, None)
    assert (found.available, found.floor, found.used_by_gpu) == (20 * GIB, 3 * GIB, 4 * GIB)
    assert found.fits(17 * GIB) is True
    assert found.fits(17 * GIB + 1) is False


def test_a_unified_pool_and_a_machine_without_gpu_go_by_what_is_available() -> None:
    bare = replace(MACHINE, gpus=(), chosen_gpu=None, gpu_absence="no driver")
    for machine in (UNIFIED, bare, None):
        found = room(machine, SAMPLE, None)
        assert (found.available, found.floor) == (40 * GIB, 8 * GIB)
    assert room(UNIFIED, SAMPLE, 0.5).floor == GIB // 2


def test_what_is_not_known_is_neither_room_nor_none() -> None:
    for machine, sample in ((UNIFIED, None), (MACHINE, Sample(1.0, {}))):
        found = room(machine, sample, None)
        assert found.available is None
        assert found.fits(1) is None
    assert room(UNIFIED, SAMPLE, None).fits(None) is None


def test_a_gpu_of_unknown_kind_is_judged_by_its_own_figures() -> None:
    unknown = replace(MACHINE, gpus=(replace(CARD, unified=None),))
    assert room(unknown, SAMPLE, None).available == 20 * GIB


def test_memory_that_the_source_frees_counts_when_it_goes_first() -> None:
    found = room(UNIFIED, SAMPLE, None)
    assert found.fits(33 * GIB) is False
    assert found.fits(33 * GIB, freed=GIB) is True


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ({"native_gpu_memory": 2.0 * GIB, "native_rss": 3.0 * GIB}, 2 * GIB),
        ({"native_gpu_memory": 0.0, "native_rss": 3.0 * GIB}, 3 * GIB),
        ({"native_rss": 3.0 * GIB}, 3 * GIB),
        ({"native_gpu_memory": 0.0, "native_rss": 0.0}, 0),
        ({}, None),
    ],
)
def test_a_backend_holds_what_its_processes_hold_on_the_gpu_else_on_the_host(
    values: dict[str, float], held: int | None
) -> None:
    assert held_bytes(Sample(1.0, values), "native") == held


def test_a_watcher_sees_all_that_come_and_apart_from_them_what_was_read_before() -> None:
    latest = LatestSample()

    def put(at: float) -> None:
        latest.put(Sample(at, {}), ())

    put(1.0)
    put(2.0)
    before = time.monotonic()
    with latest.watched(SampleWindow()) as window:
        assert (window.before, window.samples, window.known) == (latest.sample, [], [latest.sample])
        latest.put(Sample(2.5, {}), (), begun=before)  # its reading had begun: part of it is older
        assert window.before == Sample(2.5, {})
        put(3.0)
        put(4.0)
    put(5.0)
    assert [sample.at for sample in window.known] == [3.0, 4.0]


def test_only_a_sample_taken_from_now_on_counts() -> None:
    latest = LatestSample()
    latest.put(SAMPLE, ())
    assert not latest.wait_until(lambda _: True, 0.0)
    assert not latest.wait_until(lambda _: True, 10.0, stop=lambda: True)


def test_a_sample_from_before_is_given_only_when_no_other_comes() -> None:
    latest = LatestSample()
    assert latest.after(-math.inf, 0.0) is None
    latest.put(SAMPLE, ())
    assert latest.after(-math.inf, 0.0) is SAMPLE
    moment, newer = time.monotonic(), Sample(2.0, {})
    assert latest.after(moment, 0.0) is SAMPLE
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(latest.after, moment, 30.0)
        latest.put(newer, ())
        assert waiting.result(30) is newer


def test_a_reading_that_was_under_way_is_from_before() -> None:
    latest = LatestSample()
    begun = moment = time.monotonic()
    latest.put(SAMPLE, (), begun=begun)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(latest.after, moment, 30.0)
        newer = Sample(2.0, {})
        latest.put(newer, ())
        assert waiting.result(30) is newer


def test_the_room_after_a_load_is_not_that_of_before_it(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        assert r.engine._sampler is not None
        r.engine._sampler.stop()
        r.engine._latest.put(Sample(1.0, {"host_memory_available": 10.0 * GIB}), ())
        assert r.engine.load("native").wait(30).state is JobState.DONE
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(r.engine._room)
            r.engine._latest.put(Sample(2.0, {"host_memory_available": 8.0 * GIB}), ())
            assert looking.result(30).available == 8 * GIB
