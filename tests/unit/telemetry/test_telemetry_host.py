from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedctl.telemetry import process_tree
from embedctl.telemetry.host import HostProbe, container_limit
from embedctl.telemetry.process_tree import ProcessTrees

KIB = 1024

MEMINFO = """\
MemTotal:       127506000 kB
MemFree:        43000000 kB
MemAvailable:   121300000 kB
HugePages_Total:       0
SwapTotal:      16777212 kB
SwapFree:       16000000 kB
"""
PRESSURE = """\
some avg10=1.25 avg60=0.40 avg300=0.10 total=123456
full avg10=0.75 avg60=0.20 avg300=0.05 total=23456
"""


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, proc__meminfo=MEMINFO, proc__pressure__memory=PRESSURE)
    return tmp_path


def test_memory_swap_and_pressure_come_from_proc_with_their_lines_named(root: Path) -> None:
    readings = HostProbe(root=root).read({})
    values = readings.values
    assert values["host_memory_total"] == 127506000 * KIB
    assert values["host_memory_available"] == 121300000 * KIB
    assert values["host_memory_free"] == 43000000 * KIB
    assert values["host_memory_reclaimable"] == 78300000 * KIB
    assert values["host_swap_used"] == 777212 * KIB
    assert (values["host_pressure_some"], values["host_pressure_full"]) == (1.25, 0.75)
    assert readings.provenance["host_memory_free"].source == "/proc/meminfo MemFree"


def test_reclaimable_is_never_below_nothing(root: Path) -> None:
    write(root, proc__meminfo=MEMINFO.replace("MemAvailable:   121300000", "MemAvailable:   42000000"))
    assert HostProbe(root=root).read({}).values["host_memory_reclaimable"] == 0


def test_a_missing_line_or_file_blanks_its_figures_alone(root: Path) -> None:
    write(root, proc__meminfo=MEMINFO.replace("MemAvailable", "MemOther"))
    (root / "proc/pressure/memory").unlink()
    readings = HostProbe(root=root).read({})
    assert "host_memory_total" in readings.values
    for key in ("host_memory_available", "host_memory_reclaimable", "host_pressure_some"):
        assert key not in readings.values
        assert readings.provenance[key].absence


def test_meminfo_that_vanishes_is_said_and_does_not_raise(root: Path) -> None:
    probe = HostProbe(root=root)
    (root / "proc/meminfo").unlink()
    assert "cannot be read" in (probe.read({}).provenance["host_memory_total"].absence or "")


def test_without_proc_psutil_answers(tmp_path: Path) -> None:
    readings = HostProbe(root=tmp_path).read({})
    assert readings.values["host_memory_total"] == psutil.virtual_memory().total
    assert (readings.provenance["host_memory_total"].source or "").startswith("psutil")


def test_provenance_is_one_object_while_nothing_changes(root: Path) -> None:
    probe = HostProbe(root=root)
    first = probe.read({"native": frozenset({os.getpid()})})
    assert probe.read({"native": frozenset({os.getpid()})}).provenance is first.provenance


def test_a_backend_without_a_process_holds_nothing_and_an_unknown_one_is_absent(root: Path) -> None:
    readings = HostProbe(root=root).read({"native": frozenset()})
    assert readings.values["native_rss"] == 0
    assert "ollama_rss" not in readings.values
    assert "not known" in (readings.provenance["ollama_rss"].absence or "")


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process and its child, as PIDs; both end when their standard input is closed."""
    child = "import sys; print(__import__('os').getpid(), flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())


def test_resident_size_counts_the_children_too(root: Path, family: tuple[int, int]) -> None:
    parent, child = family
    rss = HostProbe(root=root).read({"native": frozenset({parent})}).values["native_rss"]
    assert rss == psutil.Process(parent).memory_info().rss + psutil.Process(child).memory_info().rss


def test_an_ended_process_holds_nothing(root: Path) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert HostProbe(root=root).read({"native": frozenset({process.pid})}).values["native_rss"] == 0


def test_a_tree_holds_the_owners_process_and_its_child(family: tuple[int, int]) -> None:
    trees = ProcessTrees()
    trees.update({"ollama": frozenset({family[0]})})
    assert [process.pid for process in trees.processes("ollama")] == list(family)


def test_a_child_born_after_the_look_is_found_by_its_parents(
    monkeypatch: pytest.MonkeyPatch, family: tuple[int, int]
) -> None:
    monkeypatch.setattr(process_tree, "_children", lambda _process: [])
    trees = ProcessTrees()
    trees.update({"ollama": frozenset({family[0]})})
    assert trees.owner_of(family[1]) == "ollama"
    assert trees.owner_of(os.getpid()) is None


def test_a_backends_process_below_another_backend_is_its_own(family: tuple[int, int]) -> None:
    parent, child = family
    trees = ProcessTrees()
    trees.update({"native": frozenset({parent}), "ollama": frozenset({child})})
    assert [p.pid for p in trees.processes("native")] == [parent]
    assert trees.owner_of(child) == "ollama"


def test_trees_are_walked_again_when_old_or_when_the_owners_change(
    monkeypatch: pytest.MonkeyPatch, family: tuple[int, int]
) -> None:
    now = [100.0]
    trees = ProcessTrees(clock=lambda: now[0], refresh_s=2.0)
    walks: list[float] = []
    monkeypatch.setattr(trees, "_walk", lambda: walks.append(now[0]))
    owners = {"native": frozenset({family[0]})}
    for now[0] in (100.0, 101.0, 101.9, 102.0, 103.0):
        trees.update(owners)
    assert walks == [100.0, 102.0]
    trees.update({})
    assert walks == [100.0, 102.0, 103.0]


@pytest.mark.parametrize(
    ("files", "limit", "named"),
    [
        ({"sys__fs__cgroup__memory.max": "8589934592"}, 8 << 30, "/sys/fs/cgroup/memory.max"),
        (
            {"sys__fs__cgroup__a__b__memory.max": "max", "sys__fs__cgroup__a__memory.max": "4096"},
            4096,
            "/sys/fs/cgroup/a/memory.max",
        ),
    ],
)
def test_the_tightest_limit_along_the_control_groups_counts(
    tmp_path: Path, files: dict[str, str], limit: int, named: str
) -> None:
    write(tmp_path, proc__self__cgroup="0::/a/b\n", **files)
    found = container_limit(tmp_path)
    assert found is not None
    assert (found.limit, found.source) == (limit, named)


def test_version_1_control_groups_are_read_and_their_huge_number_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, proc__self__cgroup="4:memory:/docker/x\n3:cpu:/docker/x\n")
    write(tmp_path, **{"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712"})
    assert container_limit(tmp_path) is None
    write(tmp_path, **{"sys__fs__cgroup__memory__memory.limit_in_bytes": "1073741824"})
    assert container_limit(tmp_path) is not None


def test_a_container_limit_stands_among_the_capabilities(root: Path) -> None:
    write(root, proc__self__cgroup="0::/\n", **{"sys__fs__cgroup__memory.max": str(48 << 30)})
    found = {c.name: c for c in HostProbe(root=root).machine().capabilities}["container_memory_limit"]
    assert (found.available, found.detail) == (True, "48.0 GiB by /sys/fs/cgroup/memory.max")
