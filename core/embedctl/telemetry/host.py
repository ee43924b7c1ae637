"""Figures of the host: memory, swap, memory pressure, the backends' resident sizes, container limits.

On a unified pool these are the truth about memory for the GPU too: NVIDIA's guidance for such machines is to
read /proc/meminfo. `MemFree` is what cudaMemGetInfo calls free there (unsloth#10704): it leaves out what the
kernel would give back, so it is never the figure to admit a load by.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from embedctl.metrics import BACKENDS
from embedctl.records import Capability, Machine, Provenance
from embedctl.telemetry.probe import Owners, Readings
from embedctl.telemetry.process_tree import ProcessTrees
from embedctl.telemetry.readings import ReadingBuilder

NO_PROCESS = "no process of this backend runs"
UNKNOWN_PROCESSES = "the backend's processes are not known"

_NO_LIMIT = 1 << 60  # cgroup v1 writes "no limit" as a number near 2**63

_FIGURES = {
    "host_memory_total": "MemTotal",
    "host_memory_available": "MemAvailable",
    "host_memory_free": "MemFree",
}


@dataclass(frozen=True, slots=True)
class ContainerLimit:
    """The tightest memory limit that a control group puts on this process."""

    limit: int
    """Bytes."""
    source: str


class HostProbe:
    """A `Probe` of the host alone.

    Args:
        root: Where /proc and /sys are found; tests point it at a folder of their own.
        trees: The backends' processes, shared with the GPU's probe.
    """

    def __init__(self, *, root: Path = Path("/"), trees: ProcessTrees | None = None) -> None:
        self._root = root
        self._trees = trees or ProcessTrees()
        self._has_meminfo = (root / "proc/meminfo").is_file()
        self._provenance: Mapping[str, Provenance] = {}
        self._machine = self._look()

    def machine(self) -> Machine:
        return self._machine

    def read(self, owners: Owners) -> Readings:
        figures = ReadingBuilder(self._provenance)
        if self._has_meminfo:
            self._read_meminfo(figures)
        else:
            _read_psutil(figures)
        self._read_pressure(figures)
        self._trees.update(owners)
        for backend in BACKENDS:
            self._read_resident(figures, backend, owners)
        readings = figures.finish()
        self._provenance = readings.provenance
        return readings

    def close(self) -> None:
        """Nothing is held open."""

    def _look(self) -> Machine:
        readings = self.read({})
        total = readings.values.get("host_memory_total")
        capabilities = [
            Capability(key, key in readings.values, note.source or note.absence or "")
            for key, note in readings.provenance.items()
            if key.startswith("host_")
        ]
        limit = container_limit(self._root)
        if limit is not None and total is not None and limit.limit >= total:
            limit = None  # a limit beyond the machine's own memory limits nothing
        capabilities.append(
            Capability(
                "container_memory_limit",
                limit is not None,
                f"{limit.limit / 2**30:.1f} GiB by {limit.source}"
                if limit
                else "no control group limits memory",
            )
        )
        return Machine(
            hostname=platform.node(),
            system=f"{platform.system()} {platform.release()}",
            processor=platform.machine(),
            cores=psutil.cpu_count() or 1,
            memory_total=int(total) if total is not None else None,
            driver=None,
            cuda=None,
            gpus=(),
            chosen_gpu=None,
            gpu_absence="only the host is watched",
            capabilities=tuple(capabilities),
        )

    def _read_meminfo(self, figures: ReadingBuilder) -> None:
        try:
            info = parse_meminfo((self._root / "proc/meminfo").read_text())
        except OSError as error:
            for key in (*_FIGURES, "host_memory_reclaimable", "host_swap_used"):
                figures.lack(key, f"/proc/meminfo cannot be read: {error.strerror}")
            return
        for key, name in _FIGURES.items():
            if name in info:
                figures.put(key, info[name], f"/proc/meminfo {name}")
            else:
                figures.lack(key, f"/proc/meminfo has no {name}")
        if {"MemAvailable", "MemFree"} <= info.keys():
            # MemAvailable keeps the kernel's low watermark aside, so it can lie a little below MemFree.
            reclaimable = max(0, info["MemAvailable"] - info["MemFree"])
            figures.put("host_memory_reclaimable", reclaimable, "/proc/meminfo MemAvailable − MemFree")
        else:
            figures.lack("host_memory_reclaimable", "/proc/meminfo lacks MemAvailable or MemFree")
        if {"SwapTotal", "SwapFree"} <= info.keys():
            used = info["SwapTotal"] - info["SwapFree"]
            figures.put("host_swap_used", used, "/proc/meminfo SwapTotal − SwapFree")
        else:
            figures.lack("host_swap_used", "/proc/meminfo has no swap figures")

    def _read_pressure(self, figures: ReadingBuilder) -> None:
        try:
            lines = parse_pressure((self._root / "proc/pressure/memory").read_text())
        except OSError:
            # Missing without CONFIG_PSI; opening it is refused when the kernel was started with psi=0.
            for kind in ("some", "full"):
                figures.lack(f"host_pressure_{kind}", "this system has no /proc/pressure/memory")
            return
        for kind in ("some", "full"):
            if kind in lines:
                figures.put(f"host_pressure_{kind}", lines[kind], f"/proc/pressure/memory {kind} avg10")
            else:
                figures.lack(f"host_pressure_{kind}", f"/proc/pressure/memory has no line {kind!r}")

    def _read_resident(self, figures: ReadingBuilder, backend: str, owners: Owners) -> None:
        key = f"{backend}_rss"
        if backend not in owners:
            figures.lack(key, UNKNOWN_PROCESSES)
            return
        if not owners[backend]:
            figures.put(key, 0, NO_PROCESS)
            return
        total = 0
        for process in self._trees.processes(backend):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # ended since the last look: it holds nothing
            except psutil.Error:
                figures.lack(key, f"the system refuses to show process {process.pid}")
                return
        figures.put(
            key, total, "sum of the resident sizes (RSS) of its processes; shared pages count in each"
        )


def parse_meminfo(text: str) -> dict[str, int]:
    """The lines of /proc/meminfo that are in kB, in bytes."""
    figures: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[1] == "kB" and parts[0].isdigit():
            figures[name] = int(parts[0]) * 1024
    return figures


def parse_pressure(text: str) -> dict[str, float]:
    """`avg10` by line ("some", "full") of a pressure file: per cent of the last ten seconds."""
    figures: dict[str, float] = {}
    for line in text.splitlines():
        kind, *fields = line.split()
        for part in fields:
            name, _, value = part.partition("=")
            if name == "avg10":
                figures[kind] = float(value)
    return figures


def container_limit(root: Path = Path("/")) -> ContainerLimit | None:
    """The tightest memory limit on this process's control group or one above it; None without one.

    /proc/meminfo shows the whole machine inside a container, so a load that "fits" can still be killed.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found: list[ContainerLimit] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            base, name = PurePosixPath("sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            base, name = PurePosixPath("sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        # Inside a container the group's own path may not be mounted; the levels above it still are.
        path = PurePosixPath(group.lstrip("/"))
        for level in (path, *path.parents):
            file = base / level / name
            try:
                text = (root / file).read_text().strip()
            except OSError:
                continue
            if text.isdigit() and int(text) < _NO_LIMIT:
                found.append(ContainerLimit(int(text), f"/{file}"))
    return min(found, key=lambda limit: limit.limit, default=None)


def _read_psutil(figures: ReadingBuilder) -> None:
    """The same figures where there is no /proc/meminfo (macOS, Windows)."""
    try:
        memory = psutil.virtual_memory()
        swap = psutil.swap_memory()
    except (OSError, psutil.Error, RuntimeError) as error:
        for key in (*_FIGURES, "host_memory_reclaimable", "host_swap_used"):
            figures.lack(key, f"psutil cannot tell: {error}")
        return
    figures.put("host_memory_total", memory.total, "psutil virtual_memory total")
    figures.put("host_memory_available", memory.available, "psutil virtual_memory available")
    figures.put("host_memory_free", memory.free, "psutil virtual_memory free")
    reclaimable = max(0, memory.available - memory.free)
    figures.put("host_memory_reclaimable", reclaimable, "psutil virtual_memory available − free")
    figures.put("host_swap_used", swap.used, "psutil swap_memory used")
