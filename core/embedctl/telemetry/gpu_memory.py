"""What a GPU's memory figures mean, and whom the memory belongs to. Pure; no NVML.

On a discrete card NVML's memory information is the truth. On a unified pool it is Not Supported (GB10:
nvitop#208), or claims the whole machine's memory (nvtop#463), or reports a small part of it (8128 MiB on the
N1X, unsloth#10283). MemTotal − MemAvailable is no substitute: it showed 34 GiB on an idle GPU (nvtop#466). So
there the GPU's use is the sum of what NVML attributes to each process (nvtop#511). That undercounts
cudaMallocManaged (pynvml#63).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROCESS_SUM = "sum of NVML's bytes per process"
POOL_TOTAL = "MemTotal: CPU and GPU share one pool"

_NOT_AVAILABLE = 0xFFFF_FFFF_FFFF_FFFF  # NVML_VALUE_NOT_AVAILABLE as an unsigned 64-bit number
_SAME_SIZE = 0.05  # firmware keeps up to a few per cent of a pool from MemTotal
_CONTEXT_BYTES = 256 * 2**20  # an idle GPU uses less than this, a single CUDA context more


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What nvmlDeviceGetMemoryInfo answered, in bytes."""

    total: int
    used: int
    source: str


def implausible(
    memory: DeviceMemory, *, unified: bool | None, pool_total: int | None, process_sum: int
) -> str | None:
    """Why NVML's memory information cannot be this GPU's memory; None if it can.

    Args:
        unified: Whether CPU and GPU share one pool, if anybody could say.
        pool_total: The host's MemTotal, bytes.
        process_sum: What NVML attributes to processes, bytes.
    """
    if memory.total <= 0:
        return "NVML reports a total of 0"
    if memory.used > memory.total:
        return "NVML reports more used than there is"
    if unified:
        if resembles_pool(memory, pool_total):
            return "NVML counts the whole machine's memory as the GPU's"
        return "NVML reports only a part of the shared pool"
    if process_sum > memory.total:
        return "NVML attributes more to processes than it reports as the total"
    return None


def resembles_pool(memory: DeviceMemory, pool_total: int | None) -> bool:
    """Whether the reported total is the host's MemTotal, give or take what firmware keeps."""
    return bool(pool_total) and abs(memory.total - (pool_total or 0)) <= _SAME_SIZE * (pool_total or 0)


def merge_processes(lists: Iterable[Iterable[tuple[int, int | None]]]) -> dict[int, int | None]:
    """Bytes by PID from NVML's lists (compute, graphics, MPS).

    A PID may stand in several lists with the same figure and is counted once. None: NVML does not tell.
    """
    merged: dict[int, int | None] = {}
    for entries in lists:
        for pid, figure in entries:
            known = None if figure is None or figure >= _NOT_AVAILABLE else figure
            before = merged.get(pid)
            merged[pid] = known if before is None else before if known is None else max(known, before)
    return merged


def why_hidden(
    bytes_by_pid: Mapping[int, int | None],
    *,
    memory: DeviceMemory | None,
    foreign_pids: bool,
    nested: bool,
) -> str | None:
    """Why NVML's list of processes does not show this machine's processes; None if it does.

    Args:
        memory: NVML's own figure where it can be trusted.
        foreign_pids: The list names a PID that does not exist here.
        nested: This process lives in a PID namespace below the machine's.
    """
    if bytes_by_pid:
        if foreign_pids and nested:
            return "NVML lists PIDs of the host, which mean nothing inside this container"
        return None
    if memory is not None:
        in_use = memory.used >= _CONTEXT_BYTES
        return "GPU memory is in use and NVML lists no process: a container hides them" if in_use else None
    return "NVML lists no process, and inside a container that means nothing" if nested else None
