"""The probe on a real NVIDIA GPU: figures, attribution against torch's own, memory given back."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import pytest

from embedctl.metrics import METRICS
from embedctl.records import GpuInfo
from embedctl.telemetry.combined import open_probe
from embedctl.telemetry.probe import Probe, Readings

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

MIB = 2**20
ALLOCATION = 4096 * MIB
DEADLINE_S = 20.0

CHILD = """
import json, sys
import torch
held = [torch.zeros(1, device="cuda")]
torch.cuda.synchronize()
def tell(**more):
    print(json.dumps({"reserved": torch.cuda.memory_reserved(), **more}), flush=True)
device = torch.cuda.get_device_properties(0)
tell(
    total=device.total_memory,
    integrated=bool(device.is_integrated),
    capability=[device.major, device.minor],
)
for line in sys.stdin:
    held.append(torch.ones(int(line), dtype=torch.uint8, device="cuda"))
    torch.cuda.synchronize()
    tell()
"""


class Holder:
    """A process that has a CUDA context and allocates what it is told to."""

    def __init__(self, gpu: GpuInfo) -> None:
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu.uuid}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.device = self._told()

    @property
    def pid(self) -> int:
        return self._process.pid

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes; what torch has reserved then, bytes."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{size}\n")
        self._process.stdin.flush()
        return int(self._told()["reserved"])

    def end(self) -> None:
        """Kill it; it holds nothing once this returns, as far as the process table knows."""
        self._process.kill()
        self._process.communicate()

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            pytest.skip("torch cannot use CUDA here: the child process ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    begin = time.perf_counter()
    opened = open_probe()
    print(f"opening the probe took {time.perf_counter() - begin:.2f} s")
    with ExitStack() as stack:
        stack.callback(opened.close)
        if opened.machine().gpu is None:
            pytest.skip(f"no GPU: {opened.machine().gpu_absence}")
        yield opened


@contextmanager
def holding(probe: Probe) -> Iterator[Holder]:
    gpu = probe.machine().gpu
    assert gpu is not None
    with Holder(gpu) as holder:
        yield holder


def until(condition: Callable[[], bool]) -> bool:
    """Poll until true; false when it is still not after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def share(readings: Readings) -> float:
    """The native backend's GPU memory; skips the test where a container hides the processes."""
    figure = readings.values.get("native_gpu_memory")
    if figure is None:
        why = readings.provenance["native_gpu_memory"].absence or ""
        assert "container" in why, f"absent for another reason than a container: {why}"
        pytest.skip(why)
    return figure


def test_every_gpu_figure_is_plausible_or_absent_with_a_reason(probe: Probe) -> None:
    readings = probe.read({"native": frozenset(), "ollama": frozenset()})
    print({key: readings.values.get(key) for key in readings.provenance})
    print([f"{key}: {note.absence}" for key, note in readings.provenance.items() if note.absence])
    for key in METRICS:
        if key.startswith("gpu_"):
            note = readings.provenance[key]
            assert (key in readings.values) == bool(note.source) != bool(note.absence)
    limits = {
        "gpu_utilization": (0, 100),
        "gpu_temperature": (5, 110),
        "gpu_power": (1, 2000),
        "gpu_sm_clock": (100, 5000),
        "gpu_energy": (0, 1e13),
        "gpu_throttled": (0, 1),
    }
    for key, (low, high) in limits.items():
        if key in readings.values:
            assert low <= readings.values[key] <= high, key


def test_the_machine_agrees_with_torch(probe: Probe) -> None:
    machine = probe.machine()
    gpu = machine.gpu
    assert gpu is not None
    print(machine)
    assert machine.driver
    assert machine.cuda
    with holding(probe) as holder:
        assert gpu.unified is holder.device["integrated"]
        assert gpu.compute_capability == tuple(holder.device["capability"])
        assert gpu.memory_total == pytest.approx(holder.device["total"], rel=0.05)


def test_bytes_attributed_to_a_process_match_torch_and_its_context_within_a_tenth(probe: Probe) -> None:
    with holding(probe) as holder:
        owners = {"native": frozenset({holder.pid}), "ollama": frozenset[int]()}
        context = share(probe.read(owners)) - holder.device["reserved"]
        assert 50 * MIB < context < 2048 * MIB
        reserved = holder.allocate(ALLOCATION)
        readings = probe.read(owners)
        figure = share(readings)
        print(f"NVML {figure / MIB:.0f} MiB, torch {reserved / MIB:.0f}, context {context / MIB:.0f}")
        assert figure == pytest.approx(reserved + context, rel=0.1)
        (process,) = [process for process in readings.processes if process.pid == holder.pid]
        assert (process.owner, process.gpu_memory) == ("native", figure)


def test_a_child_of_the_owner_counts_for_the_owner(probe: Probe) -> None:
    with holding(probe):
        # The holder is a child of this process, which holds nothing on the GPU itself.
        figure = share(probe.read({"native": frozenset({os.getpid()}), "ollama": frozenset()}))
        assert figure > 50 * MIB


def test_memory_moves_by_what_is_allocated_and_is_back_after_the_end(probe: Probe) -> None:
    with holding(probe) as holder:
        owners = {"native": frozenset({holder.pid}), "ollama": frozenset[int]()}

        def used() -> float:
            values = probe.read(owners).values
            if "gpu_memory_used" not in values:
                pytest.skip(probe.read(owners).provenance["gpu_memory_used"].absence or "")
            return values["gpu_memory_used"]

        before = used()
        holder.allocate(ALLOCATION)
        assert used() - before == pytest.approx(ALLOCATION, rel=0.1)
        holder.end()
        assert until(lambda: used() < before), "the context is gone too"
        assert probe.read(owners).values.get("native_gpu_memory", 0) == 0


def test_a_reading_is_cheap(probe: Probe) -> None:
    owners = {"native": frozenset({os.getpid()}), "ollama": frozenset[int]()}
    times = []
    for _ in range(100):
        begin = time.perf_counter()
        probe.read(owners)
        times.append(time.perf_counter() - begin)
    print(f"median {statistics.median(times) * 1e3:.2f} ms, longest {max(times) * 1e3:.2f} ms")
    assert statistics.median(times) < 0.025
