"""Whether a GPU shares its memory with the CPU, asked of the CUDA driver in a process of its own.

The attribute `integrated` is the one reliable sign of a unified pool: names change, and comparing the sizes
of both memories took a discrete RTX 5090 for a unified one (llama.cpp#17536). No context is created. The
question is put in a short-lived process because initialising the driver can hang on a sick GPU, and because
a process that has done so keeps the driver's memory and can no longer fork children that use CUDA.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def integrated_gpus(timeout_s: float = 10.0) -> tuple[dict[str, bool], str]:
    """Ask the CUDA driver about every GPU.

    Returns:
        Whether each GPU is integrated, by `bus_key` of its PCI address; and, if that is empty, why.
    """
    # A filter on visible devices is meant for programs that compute, and would hide what we ask about.
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except OSError as error:
        return {}, f"the CUDA driver could not be asked: {error}"
    try:
        output, _ = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()  # not waited for: a process stuck in the driver may not end
        return {}, f"the CUDA driver did not answer within {timeout_s:g} s"
    try:
        answer = json.loads(output)
        return {str(key): bool(value) for key, value in answer["integrated"].items()}, str(answer["why"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}, f"asking the CUDA driver ended with exit code {child.returncode} and no answer"


def bus_key(address: str) -> str:
    """A PCI address in one spelling: NVML writes `00000000:0F:00.0` where CUDA writes `0000:0f:00.0`."""
    domain, _, rest = address.strip().lower().partition(":")
    return f"{domain.lstrip('0') or '0'}:{rest}"


def _ask() -> tuple[dict[str, bool], str]:
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError:
        return {}, f"{_LIBRARY} is not installed"
    if code := cuda.cuInit(0):
        return {}, f"the CUDA driver answers error {code} to cuInit"
    count = ctypes.c_int()
    if code := cuda.cuDeviceGetCount(ctypes.byref(count)):
        return {}, f"the CUDA driver answers error {code} to cuDeviceGetCount"
    found: dict[str, bool] = {}
    for ordinal in range(count.value):
        device, value = ctypes.c_int(), ctypes.c_int()
        address = ctypes.create_string_buffer(32)
        if (
            cuda.cuDeviceGet(ctypes.byref(device), ordinal) == 0
            and cuda.cuDeviceGetPCIBusId(address, len(address), device) == 0
            and cuda.cuDeviceGetAttribute(ctypes.byref(value), _INTEGRATED, device) == 0
        ):
            found[bus_key(address.value.decode())] = bool(value.value)
    return found, "" if found else "the CUDA driver names no GPU"


if __name__ == "__main__":
    integrated, why = _ask()
    sys.stdout.write(json.dumps({"integrated": integrated, "why": why}))
