"""What torch says of itself and of its device, as JSON on stdout.

Runs in a process of its own (`python -m embedctl.doctor.torch_report`): importing torch takes seconds and
initialising CUDA takes memory, and the console wants neither.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any


def report() -> dict[str, Any]:
    """Versions, the build's architectures, the device, its attention kernels, and what compiling needs."""
    import torch

    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda_build": torch.version.cuda,
        "archs": torch.cuda.get_arch_list() if torch.version.cuda else [],
        "cuda_available": torch.cuda.is_available(),
        "packages": {name: _version(name) for name in ("sentence-transformers", "transformers", "triton")},
    }
    if facts["cuda_available"]:
        facts |= _device_facts(torch)
    facts["ptxas"] = _ptxas()
    return facts


def _device_facts(torch: Any) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    facts: dict[str, Any] = {
        "device": properties.name,
        "capability": list(torch.cuda.get_device_capability(0)),
        "integrated": bool(getattr(properties, "is_integrated", False)),
        "free_bytes": torch.cuda.mem_get_info(0)[0],
        "kernels": _attention_kernels(torch),
    }
    return facts


def _attention_kernels(torch: Any) -> dict[str, str]:
    """Each fused attention kernel: right, wrong or not usable."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
    attend = torch.nn.functional.scaled_dot_product_attention
    outcomes: dict[str, str] = {}
    try:
        generator = torch.Generator("cuda").manual_seed(0)
        q, k, v = torch.randn(3, 1, 4, 64, 64, generator=generator, device="cuda", dtype=torch.float16)
        with sdpa_kernel(SDPBackend.MATH):
            reference = attend(q.float(), k.float(), v.float())
    except RuntimeError as error:  # a build without code for this GPU runs nothing at all
        return {name.lower(): f"not usable: {_first_line(error)}" for name in names}
    for name in names:
        try:
            with sdpa_kernel(getattr(SDPBackend, name)):
                off = (attend(q, k, v).float() - reference).abs().max().item()
            # A kernel built for another chip can return NaN without raising (pytorch#176243).
            outcomes[name.lower()] = "right" if off < 0.02 else f"wrong (off by {off:.3g})"
        except RuntimeError as error:
            outcomes[name.lower()] = f"not usable: {_first_line(error)}"
    return outcomes


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ptxas() -> str | None:
    """The ptxas that Triton will use: the one named, CUDA's own, or the one that Triton brought along."""
    named = os.environ.get("TRITON_PTXAS_PATH")
    if named:
        return named if Path(named).is_file() else None
    found = shutil.which("ptxas") or "/usr/local/cuda/bin/ptxas"
    if Path(found).is_file():
        return found
    try:
        import triton
    except ImportError:
        return None
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    return str(bundled) if bundled.is_file() else None


if __name__ == "__main__":
    print(json.dumps(report()))  # noqa: T201  # the report is this program's output
