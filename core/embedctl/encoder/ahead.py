"""What makes the time until torch is imported shorter, or puts it to use.

The import takes seconds of one core. Meanwhile a disk can read the weights into memory, and the driver can
make the GPU's context, which takes it a good part of a second and which torch then finds there.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def importing() -> Iterator[None]:
    """Around large imports: looking for garbage among a million objects that all stay takes a fifth of them.

    Nor is it looked for there later, while requests wait.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def begin(folder: Path, device: str) -> None:
    """Start all that, in threads that nobody needs to wait for; what fails is left to the load to tell."""
    threading.Thread(target=_read, args=(folder,), name="read-ahead", daemon=True).start()
    if device == "auto" or device.startswith("cuda"):
        _, _, index = device.partition(":")
        threading.Thread(target=_make_context, args=(int(index or 0),), name="context", daemon=True).start()


def _read(folder: Path) -> None:
    if not hasattr(os, "posix_fadvise"):
        return
    for file in sorted(folder.glob("*.safetensors")):
        with suppress(OSError), file.open("rb") as weights:
            os.posix_fadvise(weights.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _make_context(index: int) -> None:
    """The device's primary context, which torch uses too; the process holds it to its end anyway."""
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")  # calls through ctypes leave the interpreter to others
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
