"""The probe of a real machine: the host, and the GPU if there is one."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedctl.metrics import METRICS
from embedctl.records import Machine
from embedctl.telemetry.cuda_driver import integrated_gpus
from embedctl.telemetry.host import HostProbe
from embedctl.telemetry.nvml import NvmlProbe
from embedctl.telemetry.nvml_device import NoGpu
from embedctl.telemetry.probe import Owners, Probe, Readings
from embedctl.telemetry.process_tree import ProcessTrees
from embedctl.telemetry.readings import SharedProvenance, absence

_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # the inode of the machine's own PID namespace: PROC_PID_INIT_INO in Linux


class CombinedProbe:
    """Host and GPU as one `Probe`; without a GPU the host alone, with the reason at every `gpu_*` figure.

    Args:
        gpu: The GPU's probe, or why there is none.
    """

    def __init__(self, host: HostProbe, gpu: NvmlProbe | NoGpu) -> None:
        self._host = host
        self._gpu = gpu if isinstance(gpu, NvmlProbe) else None
        self._provenance = SharedProvenance()
        if isinstance(gpu, NvmlProbe):
            self._machine = replace(
                host.machine(),
                driver=gpu.driver,
                cuda=gpu.cuda,
                gpus=gpu.gpus,
                chosen_gpu=gpu.chosen,
                gpu_absence=None,
                capabilities=host.machine().capabilities + gpu.capabilities,
            )
        else:
            self._machine = replace(host.machine(), gpu_absence=str(gpu))
        self._without_gpu = {
            key: absence(f"no GPU: {gpu}")
            for key in METRICS
            if key.startswith("gpu_") or key.endswith("_gpu_memory")
        }

    def machine(self) -> Machine:
        return self._machine

    def read(self, owners: Owners) -> Readings:
        host = self._host.read(owners)
        if self._gpu is None:
            return Readings(host.values, self._provenance.join(self._without_gpu, host.provenance))
        gpu = self._gpu.read(owners)
        provenance = self._provenance.join(gpu.provenance, host.provenance)
        return Readings({**gpu.values, **host.values}, provenance, gpu.processes)

    def close(self) -> None:
        self._host.close()
        if self._gpu is not None:
            self._gpu.close()


def open_probe(gpu: int | None = None, *, nvml: Any = None) -> Probe:
    """The probe of this machine. Takes up to a second where there is a GPU; never raises.

    Args:
        gpu: Index of the GPU to watch in NVML's list; None: the first.
        nvml: Stands in for the `pynvml` module.
    """
    trees = ProcessTrees()
    host = HostProbe(trees=trees)
    try:
        if nvml is None:
            nvml = importlib.import_module("pynvml")  # costs start-up time, and only a probe needs it
        found: NvmlProbe | NoGpu = NvmlProbe(
            nvml,
            index=gpu,
            pool_total=host.machine().memory_total,
            trees=trees,
            nested=_in_nested_pid_namespace(),
            integrated=integrated_gpus,
        )
    except NoGpu as error:
        found = error
    except ImportError as error:
        found = NoGpu(f"nvidia-ml-py cannot be imported ({error})")
    return CombinedProbe(host, found)


def _in_nested_pid_namespace() -> bool:
    """Whether this process lives in a container's PID namespace."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE
    except OSError:
        return False
