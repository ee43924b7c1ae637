"""Judging the machine: Python, driver, what NVML can tell, the memory pool, container limits. Pure."""

from __future__ import annotations

import platform

from embedctl.records import Capability, Finding, Machine, Severity

TOPIC = "machine"
GIB = 1024**3
_BGE_M3 = 2.4 * GIB


def check_python() -> Finding:
    return Finding(
        TOPIC,
        f"Python {platform.python_version()}",
        Severity.OK,
        f"{platform.python_implementation()} on {platform.system()} {platform.machine()}",
    )


def check_machine(machine: Machine) -> list[Finding]:
    found = [*_gpu(machine), *_capabilities(machine.capabilities)]
    if machine.simulated:
        found.insert(
            0,
            Finding(TOPIC, "this GPU is simulated", Severity.INFO, "the demo shows what a GB10 would report"),
        )
    return found


def _gpu(machine: Machine) -> list[Finding]:
    gpu = machine.gpu
    if gpu is None:
        return [
            Finding(
                TOPIC,
                "no GPU is watched",
                Severity.WARNING,
                machine.gpu_absence or "reason unknown",
                "install the NVIDIA driver; in a container pass the GPU in (--gpus all)",
            )
        ]
    others = len(machine.gpus) - 1
    detail = f"index {gpu.index}, driver {machine.driver or 'n/a'}, CUDA up to {machine.cuda or 'n/a'}"
    found = [
        Finding(TOPIC, gpu.name, Severity.OK, detail + (f", {others} more not watched" if others else ""))
    ]
    if gpu.unified:
        found.append(
            Finding(
                TOPIC,
                "CPU and GPU share one memory pool",
                Severity.INFO,
                f"GPU memory: {gpu.memory_source}; MemAvailable, not cudaMemGetInfo, tells what is free",
            )
        )
    if machine.cuda and int(machine.cuda.split(".")[0]) < 13 and gpu.unified:
        found.append(
            Finding(
                TOPIC,
                f"the driver supports CUDA {machine.cuda} only",
                Severity.WARNING,
                "torch's standard wheels for this kind of machine are CUDA 13 builds",
                "update the driver to 580 or newer",
            )
        )
    return found


def _capabilities(capabilities: tuple[Capability, ...]) -> list[Finding]:
    """One finding for NVML's figures, one for the host's, one for a container's limit.

    Whether there is a unified pool is told with the GPU: a discrete GPU lacks nothing by having none.
    """
    found: list[Finding] = []
    for prefix, what in (("gpu_", "NVML"), ("host_", "the host")):
        group = [c for c in capabilities if c.name.startswith(prefix) and c.name != "gpu_unified_pool"]
        missing = [c for c in group if not c.available]
        if not group:
            continue
        found.append(
            Finding(
                TOPIC,
                f"{what} gives {len(group) - len(missing)} of {len(group)} figures",
                Severity.OK if not missing else Severity.INFO,
                "; ".join(f"{c.name.removeprefix(prefix)} n/a ({c.detail})" for c in missing) or "all there",
            )
        )
    found += [
        Finding(
            TOPIC,
            "a container limits memory",
            Severity.WARNING,
            limit.detail,
            "a load that fits the machine can still be killed; raise the container's memory limit",
        )
        for limit in capabilities
        if limit.name == "container_memory_limit" and limit.available
    ]
    return found


def check_memory(machine: Machine, available: float | None, floor: int) -> Finding:
    """`floor`: bytes that a load must leave available."""
    total = machine.memory_total
    if total is None or available is None:
        return Finding(TOPIC, "memory is not known", Severity.WARNING, "the host's memory cannot be read")
    scarce = available < floor + _BGE_M3
    return Finding(
        TOPIC,
        f"{available / GIB:.1f} of {total / GIB:.1f} GiB memory available",
        Severity.WARNING if scarce else Severity.OK,
        f"BGE-M3 in float16 held {_BGE_M3 / GIB:.1f} GiB on an H200, its CUDA context of 0.7 among them; "
        f"{floor / GIB:.1f} are to stay available",
        "end what else uses memory before loading" if scarce else "",
    )
