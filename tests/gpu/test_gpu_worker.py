"""The worker on a real GPU: its bytes are where NVML sees them, they come back, and half precision is close.

Set EMBEDCTL_TEST_MODEL to a model's folder (a BGE-M3-shaped one, for the figures that matter); without it a
tiny model shows that the path works, and the share of memory is not checked.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
Loaded = tuple[WorkerClient, WorkerReady]
NAMED_MODEL = os.environ.get("EMBEDCTL_TEST_MODEL")


class Gpu:
    """The first GPU as NVML tells it. `at_rest` is what was used before any worker started."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self.at_rest = self.used()

    def used(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def held_by(self, pid: int) -> tuple[int, str]:
        """Bytes of one process, and how they were found.

        In a container with PIDs of its own NVML's list is empty or names other PIDs; there it is what the
        device uses beyond its rest, which is the same while nobody else is on it.
        """
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
            if process.pid == pid:
                return int(process.usedGpuMemory), "of its PID"
        return self.used() - self.at_rest, "by the device's use"


def polled(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition()` came true in time; NVML follows the driver with a delay."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    try:
        return Gpu()
    except pynvml.NVMLError as error:
        pytest.skip(f"no GPU: {error}")


@pytest.fixture(scope="module")
def folder(gpu: Gpu) -> Path:
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
    started = time.monotonic()

    def tell(step: str, **_: object) -> None:
        print(f"{time.monotonic() - started:6.2f} s {step}")

    try:
        ready = client.start(tell, timeout=400)
        client.embed(["the first one"])
        tell("first vector")
        yield client, ready
    finally:
        client.stop()


def test_cuda_loads_in_half_precision_and_passes_the_canary(half: Loaded) -> None:
    _, ready = half
    print(f"attention {ready.attention}, canary {ready.canary}, notes {ready.notes}, memory {ready.memory}")
    assert ready.device == "cuda:0"
    assert ready.dtype == "float16"
    assert ready.canary.passed


def test_nvml_sees_what_torch_reserved_and_the_context(half: Loaded, gpu: Gpu) -> None:
    client, _ = half
    client.embed(TEXTS)
    memory = client.memory()
    assert client.pid is not None
    assert memory.reserved is not None
    measured, how = gpu.held_by(client.pid)
    context = measured - memory.reserved
    print(
        f"NVML {measured / GIB:.3f} GiB {how}, torch {memory.reserved / GIB:.3f}, context {context / GIB:.3f}"
    )
    assert 100 * 2**20 < context < 1.5 * GIB, "what is not torch's is no CUDA context"
    if NAMED_MODEL:
        expected = memory.reserved + 768 * 2**20  # the context that the preflight estimates with
        assert abs(measured - expected) <= 0.10 * measured


def test_one_query_and_many_clients_across_the_process_boundary(half: Loaded) -> None:
    """Prints what crossing costs; see also `python -m tests.e2e.bench_boundary`, which needs no GPU."""
    client, _ = half
    query = ["how long may a deposit be kept after the end of a tenancy agreement?"]
    alone = client.embed(query).vectors[0]
    taken = []
    for _ in range(500):
        started = time.perf_counter()
        client.embed(query)
        taken.append((time.perf_counter() - started) * 1e3)
    clients, each = 32, 200
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        rows = list(pool.map(lambda _: client.embed(query).vectors[0], range(clients * each)))
    rate = clients * each / (time.perf_counter() - started)
    print(f"one query p50 {statistics.median(taken[100:]):.2f} ms, {clients} clients {rate:.0f} texts/s")
    assert min(float(row @ alone) for row in rows) >= 0.9999


def test_pings_and_queries_are_answered_beside_a_bulk_job_and_a_canary(half: Loaded) -> None:
    client, _ = half
    query = ["how long may a deposit be kept after the end of a tenancy agreement?"]
    with ThreadPoolExecutor(2) as pool:
        bulk = pool.submit(client.embed, TEXTS * 50)
        waits = []
        while not bulk.done():
            client.ping()
            started = time.perf_counter()
            assert np.isfinite(client.embed(query).vectors).all()
            waits.append((time.perf_counter() - started) * 1e3)
        assert np.isfinite(bulk.result().vectors).all()
        canary = pool.submit(client.canary)
        client.ping()
        client.embed(query)
        assert canary.result().passed
    print(f"queries beside a bulk job: p50 {statistics.median(waits):.1f} ms, most {max(waits):.1f} ms")


def test_half_precision_is_close_to_single(half: Loaded, folder: Path, tmp_path: Path) -> None:
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


def test_a_stop_returns_the_memory(half: Loaded, gpu: Gpu) -> None:
    client, _ = half
    pid = client.pid
    assert pid is not None
    before, how = gpu.held_by(pid)
    started = time.monotonic()
    client.stop()
    assert polled(lambda: gpu.held_by(pid)[0] < before // 20, 20), "the memory of a dead worker is not back"
    print(f"{before / GIB:.3f} GiB {how} were back {time.monotonic() - started:.2f} s after stop was called")
