"""The examination as a whole: what is looked at, in which order, and what an absent part does to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from embedctl.doctor import examine
from embedctl.errors import HubError
from embedctl.records import Finding, Machine, ModelStatus, Severity, Status
from tests.support import canned

CPU_TORCH: dict[str, Any] = {
    "torch": "2.15.0",
    "cuda_build": None,
    "archs": [],
    "cuda_available": False,
    "packages": {},
    "ptxas": None,
}


def examined(
    machine: Machine | None,
    tmp_path: Path,
    *,
    model: Callable[[], ModelStatus] = canned.model,
    ollama_version: str = "0.31.0",
    recording: bool = True,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Finding, ...]:
    status = Status(
        at=canned.NOW,
        active="native",
        backends=(canned.native(), canned.ollama(version=ollama_version)),
        machine=machine,
        sample=canned.sample() if machine else None,
        processes=(),
        jobs=(),
        store_path=str(tmp_path / "history.db"),
        demo=False,
        recording=recording,
    )
    return examine(
        status,
        model,
        store_path=tmp_path / "history.db",
        memory_floor=8 * 2**30,
        torch=lambda: CPU_TORCH,
        environment=environment,
    )


def topics(found: tuple[Finding, ...]) -> list[str]:
    """Topics in the order in which they are first met; each must stand together."""
    order = list(dict.fromkeys(finding.topic for finding in found))
    assert [f.topic for f in sorted(found, key=lambda f: order.index(f.topic))] == [f.topic for f in found]
    return order


def titles(found: tuple[Finding, ...], topic: str) -> str:
    return " | ".join(finding.title for finding in found if finding.topic == topic)


def test_topics_come_from_the_ground_up_and_each_stands_together(tmp_path: Path) -> None:
    found = examined(canned.gb10(), tmp_path)
    assert topics(found) == ["machine", "torch", "native", "ollama", "model", "disk", "history"]
    assert found[0].title.startswith("Python")
    assert "88." in titles(found, "machine")  # GiB available, out of the sample


def test_a_cpu_build_beside_a_real_gpu_is_found_and_beside_a_simulated_one_is_not(tmp_path: Path) -> None:
    assert "torch cannot use NVIDIA GB10" in titles(examined(canned.gb10(), tmp_path), "torch")
    simulated = examined(canned.gb10(simulated=True), tmp_path)
    assert "torch runs on the CPU" in titles(simulated, "torch")
    assert Severity.ERROR not in {finding.severity for finding in simulated}


def test_faults_of_unified_memory_are_told_on_such_machines_and_where_nobody_knows(tmp_path: Path) -> None:
    def stalls(machine: Machine) -> bool:
        return any("near 80" in finding.detail for finding in examined(machine, tmp_path))

    discrete = tuple(replace(gpu, unified=False) for gpu in canned.gb10().gpus)
    unknown = tuple(replace(gpu, unified=None) for gpu in canned.gb10().gpus)
    assert stalls(canned.gb10())
    assert stalls(replace(canned.gb10(), gpus=unknown))
    assert not stalls(replace(canned.gb10(), gpus=discrete))


def test_a_variable_that_nobody_reads_is_told_before_the_backends(tmp_path: Path) -> None:
    found = examined(canned.gb10(), tmp_path, environment={"EMBEDCTL_NATIVE_DTYPE": "float32"})
    assert topics(found)[1:4] == ["torch", "environment", "native"]


def test_an_unseen_machine_leaves_the_rest_to_be_looked_at(tmp_path: Path) -> None:
    found = examined(None, tmp_path)
    assert topics(found) == ["machine", "torch", "native", "ollama", "model", "disk", "history"]
    assert [finding.title.split()[0] for finding in found if finding.topic == "machine"] == ["Python"]


def test_a_hub_that_fails_is_one_finding_and_leaves_the_disk_unknown(tmp_path: Path) -> None:
    def fails() -> ModelStatus:
        raise HubError("The cache cannot be read", why="permission denied")

    found = examined(canned.gb10(), tmp_path, model=fails)
    [model] = [finding for finding in found if finding.topic == "model"]
    assert model.detail == "The cache cannot be read"
    assert titles(found, "disk") == "free space is not known"


def test_the_history_file_is_told_with_its_size_and_who_writes_it(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"\0" * 3 * 2**20)
    found = examined(canned.gb10(), tmp_path, recording=False)[-1]
    assert found.title == str(tmp_path / "history.db")
    assert found.detail == "3.0 MiB; nobody records now"
    assert "this process records" in examined(canned.gb10(), tmp_path)[-1].detail
