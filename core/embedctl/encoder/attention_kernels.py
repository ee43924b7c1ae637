"""Which attention kernel the model runs on, and the order in which safer ones are tried.

Kernels built for one GPU can return NaN on another without raising (pytorch#176243 on sm_121), so the
choice is made by the canary, not by a belief about the hardware.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

LADDER: Final = ("sdpa", "efficient", "math", "eager")
"""From the fastest to the safest. `sdpa` leaves the choice among torch's fused kernels to torch (flash where
no text of a batch is padded, memory-efficient where one is); `efficient` shuts out flash and cuDNN; `math` is
plain matrix products inside torch; `eager` is transformers' own Python code."""

_BACKENDS: Final = {
    # Math stands behind the efficient kernel for shapes and devices that it does not serve.
    "efficient": [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}


def ladder(requested: str, device: torch.device) -> tuple[str, ...]:
    """The kernels to try in order; a kernel asked for by name is the only one.

    The CPU has no memory-efficient kernel, so its ladder goes without that rung.
    """
    if requested != "auto":
        return (requested,)
    return tuple(kernel for kernel in LADDER if kernel != "efficient" or device.type == "cuda")


def select_kernel(model: SentenceTransformer, kernel: str) -> None:
    """Have the model's attention go through torch's `scaled_dot_product_attention`, or not for `eager`.

    Raises:
        ValueError: The model's code does not support it.
    """
    implementation = "eager" if kernel == "eager" else "sdpa"
    for module in _transformers(model):
        if module.config._attn_implementation != implementation:
            module.set_attn_implementation(implementation)


def kernel_context(kernel: str) -> AbstractContextManager[None]:
    """Restrict `scaled_dot_product_attention` to `kernel` while the context is open (8 µs to enter)."""
    backends = _BACKENDS.get(kernel)
    return nullcontext() if backends is None else sdpa_kernel(backends)


def _transformers(model: SentenceTransformer) -> list[PreTrainedModel]:
    return [module for module in model.modules() if isinstance(module, PreTrainedModel)]
