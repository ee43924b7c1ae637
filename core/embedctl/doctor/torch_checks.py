"""Judging torch's report against the GPU. Pure, but for `ask_torch`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from embedctl.records import Finding, GpuInfo, Severity

TOPIC = "torch"
_ASK_SECONDS = 180.0


def ask_torch() -> Mapping[str, Any] | str:
    """Torch's report, or why there is none."""
    try:
        done = subprocess.run(
            # -P keeps a stray torch.py in the current folder out of the look.
            [sys.executable, "-P", "-m", "embedctl.doctor.torch_report"],
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"importing torch took longer than {_ASK_SECONDS:g} s"
    except OSError as error:  # too little memory for another process, for one
        return f"no process could be started: {error}"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"the process ended with {done.returncode}"
    facts: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def check_torch(facts: Mapping[str, Any] | str, gpu: GpuInfo | None) -> list[Finding]:
    """Findings from torch's report; `gpu` is what NVML sees, simulated GPUs left out."""
    if isinstance(facts, str):
        return [
            Finding(
                TOPIC,
                "torch cannot be used",
                Severity.ERROR,
                facts,
                "install embedctl again in a fresh environment; the native backend needs torch",
            )
        ]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    found = [
        Finding(
            TOPIC,
            f"torch {facts['torch']}",
            Severity.OK,
            f"CUDA build {facts['cuda_build'] or 'none'}; {packages}",
        )
    ]
    if gpu is not None and not facts["cuda_available"]:
        return [*found, _cuda_missing(facts, gpu)]
    if not facts["cuda_available"]:
        return [*found, Finding(TOPIC, "torch runs on the CPU", Severity.INFO, "there is no GPU to use")]
    return [*found, _architecture(facts), *_kernels(facts), _compiler(facts)]


def _cuda_missing(facts: Mapping[str, Any], gpu: GpuInfo) -> Finding:
    if facts["cuda_build"] is None:
        why, remedy = "this torch is a CPU build", "pip install --force-reinstall torch (2.15 or newer)"
    else:
        why = f"torch built for CUDA {facts['cuda_build']} finds no usable device"
        remedy = "update the NVIDIA driver; in a container pass the GPU in (--gpus all)"
    return Finding(TOPIC, f"torch cannot use {gpu.name}", Severity.ERROR, why, remedy)


def _architecture(facts: Mapping[str, Any]) -> Finding:
    major, minor = facts["capability"]
    wanted, archs = f"sm_{major}{minor}", list(facts["archs"])
    if wanted in archs:
        return Finding(TOPIC, f"{wanted} is in torch's build", Severity.OK, ", ".join(archs))
    known = [(arch, *parsed) for arch in archs if (parsed := _parse(arch)) is not None]
    # Code for an earlier minor version of the same major version runs: sm_120 on sm_121 (GB10).
    older = [arch for arch, kind, v in known if kind == "sm" and (major, 0) <= v <= (major, minor)]
    if older:
        return Finding(
            TOPIC,
            f"{wanted} runs torch's {older[-1]} code",
            Severity.OK,
            f"same major version; the build has {', '.join(archs)}. A warning of torch about it is harmless",
        )
    virtual = [arch for arch, kind, v in known if kind == "compute" and v <= (major, minor)]
    if virtual:
        return Finding(
            TOPIC,
            f"{wanted} runs torch's {virtual[-1]} code, compiled by the driver",
            Severity.WARNING,
            f"the first load is slow and the kernels are not made for it; the build has {', '.join(archs)}",
            "pip install --upgrade torch (2.15 or newer has sm_120, which GB10 runs)",
        )
    return Finding(
        TOPIC,
        f"torch has no code for {wanted}",
        Severity.ERROR,
        f"the build has {', '.join(archs) or 'none'}",
        "pip install --upgrade torch (2.15 or newer has sm_120, which GB10 runs)",
    )


def _parse(arch: str) -> tuple[str, tuple[int, int]] | None:
    """`sm_120` → `("sm", (12, 0))`; None for code of one chip alone, such as `sm_90a`."""
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)", arch)
    return (match[1], (int(match[2]), int(match[3]))) if match else None


def _kernels(facts: Mapping[str, Any]) -> list[Finding]:
    found = []
    for name, outcome in facts["kernels"].items():
        title = f"attention kernel {name.removesuffix('_attention')}: {outcome.split(':')[0].split(' (')[0]}"
        if outcome == "right":
            found.append(Finding(TOPIC, title, Severity.OK, "agrees with the math kernel"))
        elif outcome.startswith("wrong"):
            remedy = 'nothing to do: the canary chooses another; or set native.attention = "math"'
            found.append(Finding(TOPIC, title, Severity.WARNING, outcome, remedy))
        else:
            found.append(Finding(TOPIC, title, Severity.INFO, outcome))
    return found


def _compiler(facts: Mapping[str, Any]) -> Finding:
    ptxas, triton = facts["ptxas"], facts["packages"].get("triton")
    if triton and ptxas:
        return Finding(TOPIC, "torch.compile can be used", Severity.OK, f"triton {triton} with {ptxas}")
    return Finding(
        TOPIC,
        "torch.compile cannot be used",
        Severity.INFO,
        "Triton is not installed" if not triton else "no ptxas was found",
        "export TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas (a ptxas that knows the GPU); nothing needs it",
    )
