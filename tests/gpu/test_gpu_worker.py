"""The worker on a real GPU: its bytes are where NVML sees them, they come back, and half precision is close.

Set EMBEDCTL_TEST_MODEL to a model's folder (a BGE-M3-shaped one, for the figures that matter); without it a
tiny model shows that the path works, and the share of memory is not checked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedctl.worker.client import WorkerClient
from embedctl.worker.protocol import WorkerOptions, WorkerReady

pynvml = pytest.importorskip("pynvml")
pytestmark = [pytest.mark.gpu, pytest.mark.torch, pytest.mark.timeout(600)]

GIB = 2**30
TEXTS = [
    f"Passage {n}: " + "the museum opens at nine and closes at six. " * (1 + n * 3 % 40) for n in range(96)
]
NAMED_MODEL = os.environ.get("EMBEDCTL_TEST_MODEL")


def nvml_or_skip() -> object:
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError as error:
        pytest.skip(f"no GPU: {error}")


def bytes_of(handle: object, pid: int) -> int | None:
    """GPU memory of one process as NVML attributes it; None if NVML does not list it."""
    for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
        if process.pid == pid:
            return int(process.usedGpuMemory)
    return None


def polled(condition: object, seconds: float) -> bool:
    """Whether `condition()` came true in time; NVML follows the driver with a delay."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def handle() -> object:
    return nvml_or_skip()


@pytest.fixture(scope="module")
def folder(handle: object) -> Path:
    if NAMED_MODEL:
        return Path(NAMED_MODEL)
    from tests.support.tiny_models import TinyModel, tiny_model

    return tiny_model(TinyModel(max_tokens=512))


@pytest.fixture(scope="module")
def half(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WorkerClient, WorkerReady]]:
    client = WorkerClient(
        WorkerOptions(str(folder), device="cuda"), log_file=tmp_path_factory.mktemp("gpu") / "half.log"
    )
    try:
        yield client, client.start(timeout=400)
    finally:
        client.stop()


def test_cuda_loads_in_half_precision_and_passes_the_canary(half: tuple[WorkerClient, WorkerReady]) -> None:
    _, ready = half
    print(f"attention {ready.attention}, canary {ready.canary}, notes {ready.notes}, memory {ready.memory}")
    assert ready.device == "cuda:0"
    assert ready.dtype == "float16"
    assert ready.canary.passed


def test_nvml_sees_what_torch_reserved_and_the_context(
    half: tuple[WorkerClient, WorkerReady], handle: object
) -> None:
    client, _ = half
    client.embed(TEXTS)
    memory = client.memory()
    assert client.pid is not None
    measured = bytes_of(handle, client.pid)
    if measured is None:
        pytest.skip("NVML lists no processes by their PID here (a container with its own PID namespace)")
    assert memory.reserved is not None
    context = measured - memory.reserved
    print(
        f"NVML {measured / GIB:.3f} GiB, torch {memory.reserved / GIB:.3f}, context {context / 2**20:.0f} MiB"
    )
    assert 100 * 2**20 < context < 1.5 * GIB, "what is not torch's is no CUDA context"
    if NAMED_MODEL:
        expected = memory.reserved + 512 * 2**20  # the context that the preflight estimates with
        assert abs(measured - expected) <= 0.10 * measured


def test_half_precision_is_close_to_single(
    half: tuple[WorkerClient, WorkerReady], folder: Path, tmp_path: Path
) -> None:
    client, _ = half
    single = WorkerClient(
        WorkerOptions(str(folder), device="cuda", dtype="float32"), log_file=tmp_path / "log"
    )
    try:
        single.start(timeout=400)
        cosines = (single.embed(TEXTS).vectors * client.embed(TEXTS).vectors).sum(axis=1)
    finally:
        single.stop()
    print(f"least cosine of float16 against float32: {cosines.min():.6f}")
    assert np.isfinite(cosines).all()
    assert cosines.min() >= 0.999


def test_a_stop_returns_the_memory(half: tuple[WorkerClient, WorkerReady], handle: object) -> None:
    client, _ = half
    pid = client.pid
    assert pid is not None
    before = bytes_of(handle, pid)
    started = time.monotonic()
    client.stop()
    assert polled(lambda: bytes_of(handle, pid) is None, 20), "NVML still attributes memory to a dead worker"
    print(f"{before} bytes were back {time.monotonic() - started:.2f} s after stop was called")
