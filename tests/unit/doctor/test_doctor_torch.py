"""Torch's report, judged; and the process that makes it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from embedctl.doctor.torch_checks import ask_torch, check_torch
from embedctl.records import Finding, GpuInfo, Severity

WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""What torch's standard wheels hold from 2.15 on."""
OLD_WHEEL = ("sm_50", "sm_80", "sm_86", "sm_90", "sm_90a")
RIGHT = {"flash_attention": "right", "efficient_attention": "right", "cudnn_attention": "right"}

GB10 = GpuInfo(0, "NVIDIA GB10", "GPU-1", None, "unified pool", unified=True, compute_capability=(12, 1))
H200 = GpuInfo(0, "NVIDIA H200", "GPU-2", 150 * 2**30, "NVML", unified=False, compute_capability=(9, 0))


def on_cpu(**changes: Any) -> dict[str, Any]:
    return {
        "torch": "2.15.0",
        "cuda_build": "13.2",
        "archs": list(WHEEL),
        "cuda_available": False,
        "packages": {"sentence-transformers": "6.2.0", "transformers": "5.23.0", "triton": "3.9.0"},
        "ptxas": "/usr/local/cuda/bin/ptxas",
        **changes,
    }


def on_gpu(capability: tuple[int, int], **changes: Any) -> dict[str, Any]:
    return on_cpu(cuda_available=True, capability=list(capability), kernels=RIGHT) | changes


def the(found: Sequence[Finding], words: str) -> Finding:
    """The one finding with these words in its title."""
    [match] = [finding for finding in found if words in finding.title]
    return match


def test_a_machine_without_a_gpu_runs_on_the_cpu_and_is_asked_for_nothing() -> None:
    found = check_torch(on_cpu(), None)
    assert [f.severity for f in found] == [Severity.OK, Severity.INFO]
    assert "sentence-transformers 6.2.0" in found[0].detail
    assert the(found, "on the CPU").remedy == ""


def test_packages_that_are_not_installed_are_not_named() -> None:
    packages = {"sentence-transformers": "6.2.0", "transformers": "5.23.0", "triton": None}
    assert "triton" not in check_torch(on_cpu(packages=packages), None)[0].detail


def test_an_h200_with_the_standard_wheel_has_nothing_to_mend() -> None:
    found = check_torch(on_gpu((9, 0)), H200)
    assert {f.severity for f in found} == {Severity.OK}
    assert the(found, "sm_90 is in torch's build")
    assert the(found, "torch.compile can be used").detail == "triton 3.9.0 with /usr/local/cuda/bin/ptxas"


@pytest.mark.parametrize(
    ("capability", "archs", "severity", "title"),
    [
        ((12, 1), WHEEL, Severity.OK, "sm_121 runs torch's sm_120 code"),
        ((12, 1), (*WHEEL, "sm_121"), Severity.OK, "sm_121 is in torch's build"),
        ((12, 1), OLD_WHEEL, Severity.ERROR, "torch has no code for sm_121"),
        ((12, 1), (), Severity.ERROR, "torch has no code for sm_121"),
        ((12, 0), ("sm_90", "sm_121"), Severity.ERROR, "torch has no code for sm_120"),
        ((12, 1), ("sm_90", "compute_90"), Severity.WARNING, "sm_121 runs torch's compute_90 code"),
        ((9, 0), ("sm_80", "compute_120"), Severity.ERROR, "torch has no code for sm_90"),
        ((10, 3), (*WHEEL, "sm_100a"), Severity.OK, "sm_103 runs torch's sm_100 code"),
        ((12, 1), ("sm_120a", "sm_120f"), Severity.ERROR, "torch has no code for sm_121"),
        ((8, 9), WHEEL, Severity.OK, "sm_89 runs torch's sm_86 code"),
    ],
)
def test_code_for_the_gpu_is_looked_for_in_the_build(
    capability: tuple[int, int], archs: tuple[str, ...], severity: Severity, title: str
) -> None:
    finding = the(
        check_torch(on_gpu(capability, archs=list(archs)), GB10), f"sm_{capability[0]}{capability[1]}"
    )
    assert finding.title.startswith(title)
    assert finding.severity is severity
    assert (finding.remedy != "") == (severity is not Severity.OK)
    assert all(arch in finding.detail for arch in archs)


def test_a_cpu_build_beside_a_gpu_is_an_error_that_says_which_build_to_take() -> None:
    found = check_torch(on_cpu(cuda_build=None, archs=[]), GB10)
    finding = the(found, "torch cannot use NVIDIA GB10")
    assert finding.severity is Severity.ERROR
    assert finding.detail == "this torch is a CPU build"
    assert "install" in finding.remedy
    assert "CUDA build none" in found[0].detail


def test_a_cuda_build_that_finds_no_device_points_at_driver_and_container() -> None:
    finding = the(check_torch(on_cpu(), H200), "torch cannot use NVIDIA H200")
    assert finding.severity is Severity.ERROR
    assert "CUDA 13.2" in finding.detail
    assert "driver" in finding.remedy
    assert "--gpus" in finding.remedy


@pytest.mark.parametrize(
    ("outcome", "severity", "title"),
    [
        ("right", Severity.OK, "attention kernel flash: right"),
        ("wrong (off by nan)", Severity.WARNING, "attention kernel flash: wrong"),
        ("not usable: No available kernel.", Severity.INFO, "attention kernel flash: not usable"),
    ],
)
def test_each_attention_kernel_is_judged(outcome: str, severity: Severity, title: str) -> None:
    found = check_torch(on_gpu((12, 1), kernels={**RIGHT, "flash_attention": outcome}), GB10)
    finding = the(found, "attention kernel flash")
    assert (finding.title, finding.severity) == (title, severity)
    assert ("native.attention" in finding.remedy) == (severity is Severity.WARNING)
    if outcome != "right":
        assert finding.detail == outcome
    assert the(found, "attention kernel cudnn").severity is Severity.OK


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ptxas": None}, "no ptxas was found"),
        ({"packages": {"triton": None}}, "Triton is not installed"),
    ],
)
def test_what_compiling_lacks_is_named_and_is_no_fault(changes: dict[str, Any], why: str) -> None:
    finding = the(check_torch(on_gpu((12, 1), **changes), GB10), "torch.compile cannot be used")
    assert finding.severity is Severity.INFO
    assert finding.detail == why
    assert "TRITON_PTXAS_PATH" in finding.remedy


def test_no_report_is_an_error_with_its_reason() -> None:
    [finding] = check_torch("ImportError: libcudnn.so.9: cannot open shared object file", GB10)
    assert finding.severity is Severity.ERROR
    assert "libcudnn" in finding.detail
    assert finding.remedy


# Asking --------------------------------------------------------------------------------------------------


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Sequence[str]]]:
    """Makes the process answer as told; gives the command lines that were run."""

    def install(
        code: int = 0, out: str = "", err: str = "", raises: Exception | None = None
    ) -> list[Sequence[str]]:
        ran: list[Sequence[str]] = []

        def run(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
            ran.append(command)
            if raises is not None:
                raise raises
            return subprocess.CompletedProcess(command, code, out, err)

        monkeypatch.setattr(subprocess, "run", run)
        return ran

    return install


def test_the_report_is_the_last_line_whatever_torch_says_before_it(
    answer: Callable[..., list[Sequence[str]]],
) -> None:
    ran = answer(out=f"a library greets\n{json.dumps(on_cpu())}\n", err="a warning")
    assert ask_torch() == on_cpu()
    assert ran[0][0] == sys.executable
    assert "-P" in ran[0]


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        ({"code": 1, "err": "Traceback …\nModuleNotFoundError: No module named 'torch'\n"},
         "ModuleNotFoundError: No module named 'torch'"),
        ({"code": -11}, "the process ended with -11"),
        ({"raises": subprocess.TimeoutExpired("python", 180)}, "importing torch took longer than 180 s"),
        ({"raises": OSError(12, "Cannot allocate memory")}, "Cannot allocate memory"),
    ],
)  # fmt: skip
def test_a_process_that_gives_no_report_gives_a_reason(
    happens: Mapping[str, Any], reason: str, answer: Callable[..., list[Sequence[str]]]
) -> None:
    answer(**happens)
    said = ask_torch()
    assert isinstance(said, str)
    assert reason in said


@pytest.mark.torch
def test_torch_reports_on_itself() -> None:
    facts = ask_torch()
    assert not isinstance(facts, str), facts
    assert facts["torch"].split("+")[0] == importlib.metadata.version("torch").split("+")[0]
    assert facts["packages"]["transformers"] == importlib.metadata.version("transformers")
    if facts["cuda_build"]:
        assert "sm_120" in facts["archs"]
    found = check_torch(facts, None)
    assert Severity.ERROR not in {finding.severity for finding in found}
