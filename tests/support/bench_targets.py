"""What a benchmark's tests measure over a local server that speaks Ollama's protocol, on the real clock."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama import OllamaBackend
from embedctl.demo.ollama_server import Interceptor
from embedctl.lab.stages import Bench
from embedctl.lab.targets import RealPace, Target
from embedctl.lab.window import SampleWindow, Sampling
from embedctl.progress import CancelToken, silent
from embedctl.records import EmbedResult
from embedctl.settings import ModelSettings, OllamaSettings
from tests.support.fake_processes import FakeProcesses
from tests.support.lab import WORKLOAD
from tests.support.ollama_faults import WordSumRunner, count_words, running_ollama


@contextmanager
def served(name: str = "ollama", fault: Interceptor | None = None) -> Iterator[Target]:
    """A loaded Ollama backend, called `name`, whose server goes wrong from now on."""
    with running_ollama(runner=WordSumRunner) as (server, _):
        backend = OllamaBackend(OllamaSettings(host=server.host), ModelSettings(), table=FakeProcesses())
        try:
            backend.load(silent, CancelToken())
            server.intercept = fault

            def embed(texts: Sequence[str], batch_size: int | None) -> EmbedResult:
                return backend.embed(EmbedRequest(texts, batch_size))

            yield Target(name, embed, backend.fingerprint)
        finally:
            backend.close()


def real_bench(
    *targets: Target, sampling: Sampling = lambda: nullcontext(SampleWindow()), seed: int = 0
) -> Bench:
    """What a stage needs to measure these on the real clock."""
    cancel = CancelToken()
    return Bench(
        list(targets), WORKLOAD, count_words, 8192, random.Random(seed), RealPace(cancel), cancel, sampling
    )
