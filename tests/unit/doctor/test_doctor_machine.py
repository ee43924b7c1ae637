"""Findings on the machine, from records of machines that were seen in the wild."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from embedctl.doctor.machine_checks import check_machine, check_memory
from embedctl.records import Capability, Finding, GpuInfo, Machine, Severity
from embedctl.telemetry.simulated import SimulatedGB10
from tests.support.canned import gb10, without_gpu

GIB = 1024**3


def h200(count: int = 1) -> Machine:
    """A server with discrete GPUs of which everything can be read."""
    gpus = tuple(
        GpuInfo(n, "NVIDIA H200", f"GPU-{n}", 140 * GIB, "nvmlDeviceGetMemoryInfo", unified=False)
        for n in range(count)
    )
    return replace(
        gb10(),
        driver="570.86.10",
        cuda="12.8",
        gpus=gpus,
        capabilities=(
            Capability("gpu_utilization", True, "nvmlDeviceGetUtilizationRates"),
            Capability("gpu_memory_info", True, "nvmlDeviceGetMemoryInfo"),
            Capability("gpu_unified_pool", False, "the CUDA attribute `integrated` is 0"),
            Capability("host_memory_total", True, "/proc/meminfo MemTotal"),
            Capability("container_memory_limit", False, "no control group limits memory"),
        ),
    )


def the(found: Sequence[Finding], words: str) -> Finding:
    [match] = [finding for finding in found if words in finding.title]
    return match


def test_a_discrete_gpu_that_tells_all_has_nothing_to_mend() -> None:
    found = check_machine(h200())
    assert {f.severity for f in found} == {Severity.OK}
    assert the(found, "NVIDIA H200").detail == "index 0, driver 570.86.10, CUDA up to 12.8"
    assert the(found, "NVML gives 2 of 2 figures").detail == "all there"


def test_gpus_that_are_not_watched_are_counted() -> None:
    assert "3 more not watched" in the(check_machine(h200(4)), "NVIDIA H200").detail


def test_a_gb10_is_known_as_one_pool_whose_missing_figures_are_no_fault() -> None:
    machine = replace(
        gb10(),
        capabilities=(
            Capability("gpu_memory_info", False, "NVML answers Not Supported on this GPU"),
            Capability("gpu_processes", True, "NVML lists 0 at the start"),
        ),
    )
    found = check_machine(machine)
    assert {f.severity for f in found} == {Severity.OK, Severity.INFO}
    assert "MemAvailable" in the(found, "share one memory pool").detail
    figures = the(found, "NVML gives 1 of 2 figures")
    assert figures.severity is Severity.INFO
    assert figures.detail == "memory_info n/a (NVML answers Not Supported on this GPU)"


@pytest.mark.parametrize(
    ("cuda", "warned"), [("12.8", True), ("13.0", False), ("14.1", False), (None, False)]
)
def test_a_gb10_under_a_driver_older_than_its_wheels_is_told_so(cuda: str | None, warned: bool) -> None:
    found = [f for f in check_machine(replace(gb10(), cuda=cuda)) if "driver supports" in f.title]
    assert [(f.severity, "580" in f.remedy) for f in found] == ([(Severity.WARNING, True)] if warned else [])


def test_no_gpu_is_a_warning_with_the_reason_and_the_container_in_mind() -> None:
    [finding] = check_machine(without_gpu())
    assert finding.severity is Severity.WARNING
    assert finding.detail == "no NVIDIA driver (libnvidia-ml.so.1 was not found)"
    assert "--gpus" in finding.remedy


def test_a_containers_limit_is_a_warning_of_its_own() -> None:
    limit = Capability("container_memory_limit", True, "8.0 GiB by /sys/fs/cgroup/memory.max")
    finding = the(check_machine(replace(h200(), capabilities=(limit,))), "container limits memory")
    assert finding.severity is Severity.WARNING
    assert finding.detail == limit.detail


def test_the_demos_gpu_is_called_simulated_before_anything_is_said_of_it() -> None:
    found = check_machine(SimulatedGB10().machine())
    assert found[0].title == "this GPU is simulated"
    assert "NVIDIA GB10" in found[1].title
    missing = the(found, "NVML gives").detail
    assert "memory_info n/a" in missing
    assert "unified_pool" not in missing
    assert {f.severity for f in found} <= {Severity.OK, Severity.INFO, Severity.WARNING}


@pytest.mark.parametrize(
    ("available", "severity"),
    [
        (88.2 * GIB, Severity.OK),
        (10.5 * GIB, Severity.OK),
        (10.3 * GIB, Severity.WARNING),
        (None, Severity.WARNING),
    ],
)
def test_memory_is_scarce_when_a_load_would_not_fit(available: float | None, severity: Severity) -> None:
    finding = check_memory(gb10(), available, 8 * GIB)
    assert finding.severity is severity
    if available is None:
        assert "not known" in finding.title
    else:
        assert finding.title == f"{available / GIB:.1f} of 121.6 GiB memory available"
        assert (finding.remedy != "") == (severity is Severity.WARNING)


def test_a_machine_that_does_not_tell_its_memory_is_not_called_small() -> None:
    finding = check_memory(replace(gb10(), memory_total=None), 5.0 * GIB, GIB)
    assert "not known" in finding.title
    assert "0.0" not in finding.title
