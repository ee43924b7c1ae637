"""Out-of-memory, told apart from other errors, on every device that torch knows."""

from __future__ import annotations

import gc

import torch

_MESSAGES = (
    "out of memory",  # CUDA, MPS, and cuBLAS or cuDNN workspaces
    "can't allocate memory",  # torch's allocator on the CPU
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory did not suffice. Torch has a class for it only on GPUs."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def release_cached(device: torch.device) -> None:
    """Give cached but unused memory back to the device, so that a smaller attempt can have it.

    Call it outside the `except` block that caught the error: a traceback keeps the batch's tensors alive.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
