from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedctl.metrics import METRICS
from embedctl.telemetry import combined, cuda_driver
from embedctl.telemetry.combined import open_probe
from embedctl.telemetry.cuda_driver import bus_key, integrated_gpus
from tests.support.fake_nvml import GIB, NO_LIBRARY, Fails, FakeNvml, gb10, h200, process

MINE = {"native": frozenset({os.getpid()}), "ollama": frozenset[int]()}
TELEMETRY = {
    key for key in METRICS if key.startswith(("gpu_", "host_")) or key.endswith(("_gpu_memory", "_rss"))
}


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the machine itself, with a CUDA driver that calls GB10 integrated."""
    monkeypatch.setattr(combined, "_in_nested_pid_namespace", lambda: False)
    monkeypatch.setattr(combined, "integrated_gpus", lambda: ({"f:01:00.0": True}, ""))


@pytest.mark.usefixtures("_here")
def test_host_and_gpu_come_as_one_reading() -> None:
    probe = open_probe(nvml=gb10(nvmlDeviceGetComputeRunningProcesses=[process(os.getpid(), 2 * GIB)]))
    machine, readings = probe.machine(), probe.read(MINE)
    assert machine.gpu is not None
    assert (machine.gpu.name, machine.gpu_absence, machine.cuda) == ("NVIDIA GB10", None, "13.0")
    assert readings.values["gpu_memory_total"] == machine.memory_total == readings.values["host_memory_total"]
    assert readings.values["native_gpu_memory"] == 2 * GIB
    assert readings.processes[0].owner == "native"
    assert readings.provenance.keys() == TELEMETRY
    assert {c.name for c in machine.capabilities} >= {
        "host_memory_available",
        "gpu_power",
        "gpu_unified_pool",
    }
    assert probe.read(MINE).provenance is readings.provenance


def test_without_a_driver_the_host_is_read_and_every_gpu_figure_says_why_not() -> None:
    probe = open_probe(nvml=FakeNvml(nvmlInit=Fails(NO_LIBRARY)))
    machine, readings = probe.machine(), probe.read(MINE)
    assert (machine.gpus, machine.gpu, machine.chosen_gpu) == ((), None, None)
    assert "not installed" in (machine.gpu_absence or "")
    assert readings.values["host_memory_total"] > 0
    assert readings.values["native_rss"] > 0
    assert "not installed" in (readings.provenance["native_gpu_memory"].absence or "")
    assert readings.provenance.keys() == TELEMETRY
    assert probe.read(MINE).provenance is readings.provenance
    probe.close()


def test_a_wrong_index_is_no_gpu_and_not_another_one() -> None:
    assert "no GPU 7" in (open_probe(7, nvml=h200()).machine().gpu_absence or "")


def test_bus_addresses_of_nvml_and_cuda_meet() -> None:
    assert bus_key("00000000:0F:00.0") == bus_key("0000:0f:00.0") == "0:0f:00.0"
    assert bus_key("0000000F:01:00.0") == bus_key("000F:01:00.0") != bus_key("00000000:01:00.0")


def test_the_cuda_driver_is_asked_without_a_filter_on_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import json, os\n"
        "seen = 'CUDA_VISIBLE_DEVICES' in os.environ\n"
        "print(json.dumps({'integrated': {'f:01:00.0': not seen}, 'why': ''}))\n"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(cuda_driver, "__file__", str(script))
    assert integrated_gpus() == ({"f:01:00.0": True}, "")


@pytest.mark.parametrize(
    ("script", "timeout", "says"),
    [
        ("import os; os.abort()", 10, "exit code -6"),
        ("print('libcuda says hello')", 10, "no answer"),
        ("import signal; signal.pause()", 0.05, "did not answer within 0.05 s"),
    ],
)
def test_a_driver_that_crashes_babbles_or_hangs_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, timeout: float, says: str
) -> None:
    (tmp_path / "driver.py").write_text(script)
    monkeypatch.setattr(cuda_driver, "__file__", str(tmp_path / "driver.py"))
    found, why = integrated_gpus(timeout)
    assert found == {}
    assert says in why


def test_the_question_to_the_driver_runs_alone_and_always_answers() -> None:
    """With a driver or without one: JSON, and a reason exactly where there is no GPU."""
    output = subprocess.run(
        [sys.executable, "-I", "-S", cuda_driver.__file__], capture_output=True, check=True, timeout=60
    ).stdout
    answer = json.loads(output)
    assert bool(answer["integrated"]) == (answer["why"] == "")
