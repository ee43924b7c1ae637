from __future__ import annotations

import os

import pytest

from embedctl.telemetry.gb10_model import GIB, MIB, POOL_TOTAL, Gb10Model, Load
from embedctl.telemetry.simulated import SimulatedGB10

LOADED = Load(resident=900 * MIB, cpu_seconds=5.0)
MINE = {"native": frozenset({os.getpid()}), "ollama": frozenset[int]()}
BGE_M3 = (0.45 * GIB + 568e6 * 2) / GIB


def run(model: Gb10Model, seconds: float, busy: float = 0.0, pid: int = 7, start: float = 0.0) -> None:
    """Let one process with the model loaded use `busy` of two cores."""
    steps = int(seconds * 2)
    for i in range(steps + 1):
        model.advance(start + i / 2, {pid: Load(900 * MIB, 5.0 + busy * 2 * i / 2)})


def test_a_load_rises_over_seconds_to_what_bge_m3_would_hold() -> None:
    model = Gb10Model(cores=2)
    curve = []
    for i in range(17):
        model.advance(i / 2, {7: LOADED})
        curve.append(model.holdings.get(7, 0) / GIB)
    assert curve[0] == 0
    assert curve == sorted(curve)
    assert curve[2] < 0.8 * BGE_M3
    assert curve[-1] == pytest.approx(BGE_M3, abs=0.01)


@pytest.mark.parametrize(("resident", "gib"), [(60, 0.0), (512, 0.45), (672, 0.45 + 0.529), (4000, BGE_M3)])
def test_resident_size_tells_how_far_a_process_is(resident: int, gib: float) -> None:
    model = Gb10Model(cores=2)
    model.advance(0, {7: Load(resident * MIB, 0)})
    model.advance(60, {7: Load(resident * MIB, 0)})
    assert model.holdings.get(7, 0) / GIB == pytest.approx(gib, abs=0.01)


def test_an_ended_process_holds_nothing_and_the_pool_takes_a_moment_to_have_it_back() -> None:
    model = Gb10Model(cores=2)
    run(model, 20)
    full = model.host()["host_memory_available"]
    model.advance(20.1, {})
    assert model.holdings == {}
    early = model.host()["host_memory_available"] - full
    model.advance(25, {})
    late = model.host()["host_memory_available"] - full
    assert 0 < early < 0.9 * late
    assert late / GIB == pytest.approx(BGE_M3 + 900 / 1024, abs=0.3)


def test_work_shows_in_every_figure_and_rest_brings_them_back() -> None:
    model = Gb10Model(cores=2)
    run(model, 5)
    idle = (model.utilization, model.sm_clock, round(model.power))
    run(model, 30, busy=0.8, start=5.0)
    assert model.utilization == pytest.approx(80, abs=2)
    assert model.sm_clock > 2000
    assert model.power > 50
    assert model.temperature > 50
    assert model.holdings[7] / GIB > BGE_M3 + 0.3, "activations"
    assert model.energy > 30 * 40
    run(model, 200, start=36.0)
    assert (model.utilization, model.sm_clock, round(model.power)) == idle
    assert model.temperature < 40


def test_the_work_of_importing_and_loading_is_not_the_gpus() -> None:
    model = Gb10Model(cores=2)
    for i in range(20):
        model.advance(i / 2, {7: Load(400 * MIB, cpu_seconds=i / 2)})
    assert model.utilization == 0


def test_long_full_work_is_held_back_by_temperature() -> None:
    model = Gb10Model(cores=2)
    run(model, 20, busy=1.0)
    assert (model.throttled, model.throttled_ns) == (False, 0)
    fast = model.sm_clock
    run(model, 120, busy=1.0, start=20.0)
    assert model.throttled
    assert model.throttled_ns > 0
    assert model.sm_clock < fast


@pytest.mark.parametrize("now", [0.0, 1234.5, 1.7e9, 1.8e9 + 97])
def test_the_pool_adds_up_at_any_time(now: float) -> None:
    model = Gb10Model(cores=2)
    model.advance(now, {7: LOADED})
    model.advance(now + 30, {7: LOADED})
    host = model.host()
    used_by_host = host["host_memory_total"] - host["host_memory_available"] - model.holdings[7]
    assert host["host_memory_total"] == POOL_TOTAL
    assert 6 * GIB < used_by_host < 8.5 * GIB
    assert host["host_memory_available"] == host["host_memory_free"] + host["host_memory_reclaimable"]


def test_equal_clocks_and_processes_give_equal_figures() -> None:
    one, other = Gb10Model(cores=2), Gb10Model(cores=2)
    for model in (one, other):
        run(model, 10, busy=0.4, start=1e9)
    assert (one.holdings, one.host(), one.power) == (other.holdings, other.host(), other.power)


def test_a_clock_that_jumps_back_or_far_ahead_does_no_harm() -> None:
    model = Gb10Model(cores=2)
    for now in (100.0, 50.0, 1e9):
        model.advance(now, {7: LOADED})
    assert 0 <= model.utilization <= 100
    assert model.energy <= 72 * 61


def test_the_machine_is_a_gb10_and_says_that_it_is_simulated() -> None:
    machine = SimulatedGB10(clock=lambda: 0.0).machine()
    assert machine.simulated
    assert machine.memory_total == POOL_TOTAL
    assert machine.gpu is not None
    assert (machine.gpu.name, machine.gpu.unified) == ("NVIDIA GB10 (simulated)", True)
    assert machine.gpu.compute_capability == (12, 1)
    found = {c.name: c for c in machine.capabilities}
    assert not found["gpu_memory_info"].available
    assert not found["gpu_power_limit"].available
    assert all(c.detail.startswith("simulated: ") for c in machine.capabilities)


def test_a_reading_is_labelled_and_adds_up_and_resident_sizes_are_real() -> None:
    now = [1e9]
    probe = SimulatedGB10(clock=lambda: now[0])
    probe.read(MINE)
    now[0] += 60
    readings = probe.read(MINE)
    values, notes = readings.values, readings.provenance
    real = {"native_rss", "ollama_rss", "host_pressure_some", "host_pressure_full"}
    assert all(
        (note.source or note.absence or "").startswith("simulated: ") != (key in real)
        for key, note in notes.items()
    )
    assert values.keys() - real == notes.keys() - real
    assert values["gpu_memory_total"] == values["host_memory_total"] == POOL_TOTAL
    assert values["gpu_memory_used"] == values["native_gpu_memory"] + values["gpu_memory_other"]
    assert values["native_rss"] > 10 * MIB
    assert probe.read(MINE).provenance is notes
    probe.close()
