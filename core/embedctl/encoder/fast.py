"""The fast encoder: packed batches, our own forward pass, batches across requests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from embedctl.encoder import tuning
from embedctl.encoder.base import Answer, Encoded, EncoderInfo
from embedctl.encoder.cuda_runner import MOST_TEXTS
from embedctl.encoder.jobs import Job
from embedctl.encoder.memory import is_out_of_memory
from embedctl.encoder.probes import Engine, assemble
from embedctl.encoder.runner import Runner
from embedctl.encoder.scheduler import Scheduler
from embedctl.encoder.source import Source, source_of
from embedctl.encoder.texts import require_strings
from embedctl.encoder.tokens import TextTokenizer
from embedctl.errors import Cancelled

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SMALL_TEXTS = 64
_SMALL_CHARACTERS = 100_000
"""Requests below both are tokenised by the calling thread: a hand-over would cost more than it hides."""


class FastEncoder:
    """Encodes as `SentenceTransformer.encode` does, with as little as possible around the arithmetic.

    Safe to call from several threads: requests that meet are packed into batches together (see `Scheduler`).
    Made by `build`, which checks every part on the device at hand before it is used.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        *,
        token_budget: int,
        memory_floor: int | None = None,
    ) -> None:
        model = engine.model
        self._engine = engine
        self._tokenizer = tokenizer
        self._memory_floor = memory_floor
        self._scheduler = self._make_scheduler(engine.runner, token_budget)
        # On the CPU the tokenizer's threads would take the cores from the arithmetic.
        self._background = (
            ThreadPoolExecutor(2, thread_name_prefix="tokenizing") if model.device.type == "cuda" else None
        )
        self._info = EncoderInfo(
            kind="packed",
            device=str(model.device),
            dtype=engine.dtype,
            attention=engine.attention,
            dimension=model.dimension,
            max_tokens=model.max_tokens,
            pooling=model.pooling,
            notes=engine.notes,
        )

    @classmethod
    def build(
        cls,
        model: SentenceTransformer | Source,
        *,
        attention: str = "auto",
        token_budget: int | None = None,
        memory_floor: int | None = None,
        graphs: bool = True,
        eight_bit: bool = False,
    ) -> FastEncoder:
        """The fast encoder over `model`.

        Args:
            model: A loaded model, in evaluation mode, which keeps working as it is; or what the packed path
                takes of one.
            attention: `auto` (the fastest that passes its check), `tiled`, `varlen` or `grouped`.
            token_budget: Most tokens of a batch; None for the device's default. Less where memory is short.
            memory_floor: Bytes of host memory to leave free (see `tuning.affordable`).
            graphs: Capture CUDA graphs.
            eight_bit: Use 8-bit products where the device has them and the vectors stay close enough.

        Raises:
            Unsupported: The model, or its answer on this device, is not what the fast path can vouch for.
        """
        source = model if isinstance(model, Source) else source_of(model)
        architecture = source.architecture
        tokenizer = TextTokenizer(source.tokenizer, architecture, source.probe_ids)
        on_gpu = architecture.device.type == "cuda"
        wanted = token_budget or (tuning.GPU_DEFAULT if on_gpu else tuning.CPU_DEFAULT)
        budget, note = tuning.affordable(architecture, wanted, floor=memory_floor)
        engine = assemble(
            architecture, tokenizer, source.probe_vectors,
            attention=attention, budget=budget, graphs=graphs, eight_bit=eight_bit,
        )  # fmt: skip
        if note is not None:
            engine = replace(engine, notes=(*engine.notes, note))
        return cls(engine, tokenizer, token_budget=budget, memory_floor=memory_floor)

    @property
    def info(self) -> EncoderInfo:
        return self._info

    @property
    def batches(self) -> int:
        """Batches put on the device since it was built."""
        return self._scheduler.batches

    @property
    def token_budget(self) -> int:
        """Most tokens of a batch of several texts."""
        return self._scheduler.token_budget

    def close(self) -> None:
        """End what runs: requests that wait fail, the batch on the device is waited for. Final.

        Raises in whoever waits in `encode`:
            BackendNotLoadedError: The encoder was closed.
        """
        self._scheduler.close()
        if self._background is not None:
            self._background.shutdown(cancel_futures=True)

    def tune(self, *, cancelled: Callable[[], bool] = lambda: False) -> tuning.Tuned:
        """Measure which token budget is best here; this encoder keeps its own. Requests wait during a trial.

        Raises:
            Cancelled: `cancelled` said so, between two trials.
            MemoryError: Not even the smallest budget fits.
        """
        model = self._engine.model
        candidates = tuning.GPU_CANDIDATES if model.device.type == "cuda" else tuning.CPU_CANDIDATES
        most, _ = tuning.affordable(model, candidates[-1], floor=self._memory_floor)
        runners: dict[int, Runner] = {}

        def measure(budget: int, texts: list[str]) -> float:
            job = Job(texts, self._tokenizer, dimension=model.dimension)
            job.prepare(sys.maxsize, wait=True)
            with self._scheduler.paused():
                if budget not in runners:
                    runners[budget] = self._remake(budget)
                trial = self._make_scheduler(runners[budget], budget)
                started = time.perf_counter()
                trial.run(job)
                seconds = time.perf_counter() - started
            result = job.result(self._info.device)
            if result.notes or result.failures:
                raise MemoryError("a batch of this budget does not fit")
            return seconds

        def ask() -> None:
            if cancelled():
                raise Cancelled

        return tuning.tune(
            measure,
            [budget for budget in candidates if budget <= most] or [most],
            count=lambda texts: sum(len(ids) for ids in self._tokenizer(texts).ids()),
            cancelled=ask,
        )

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> Encoded:
        """See `Encoder.encode`. `batch_size` caps the texts of a batch beside the token budget."""
        job = self._job(texts, batch_size, normalize, cancelled)
        self._scheduler.run(job)
        return job.result(self._info.device)

    def submit(
        self,
        key: int,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> bool:
        """Leave a request to `drive`; true if nobody drives, and the caller has to now.

        Args: As of `encode`; `key` names the request when its answer is delivered.

        Raises:
            InvalidTextError: A text is not a string; the request was not taken.
        """
        job = self._job(texts, batch_size, normalize, cancelled)
        job.key = key
        return self._scheduler.submit(job)

    def drive(
        self, deliver: Callable[[list[Answer]], None], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Run batches until all that was submitted is answered.

        Args:
            deliver: Gets what each batch has finished. Must not raise.
            meanwhile: Called again and again while the device works; may `submit`.
        """
        device = self._info.device
        self._scheduler.drive(
            lambda jobs: deliver([(job.key, _outcome(job, device)) for job in jobs]), meanwhile
        )

    def _remake(self, budget: int) -> Runner:
        try:
            return self._engine.remake(budget)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryError("graphs of this budget do not fit") from error

    def _make_scheduler(self, runner: Runner, token_budget: int) -> Scheduler:
        model = self._engine.model
        return Scheduler(
            runner,
            token_budget=token_budget,
            most_texts=MOST_TEXTS,
            first_position=model.first_position,
            skipped_id=model.skipped_id,
        )

    def _job(
        self,
        texts: Sequence[str],
        batch_size: int | None,
        normalize: bool,
        cancelled: Callable[[], bool] | None,
    ) -> Job:
        require_strings(texts)
        small = len(texts) <= _SMALL_TEXTS and sum(map(len, texts)) <= _SMALL_CHARACTERS
        job = Job(
            texts,
            self._tokenizer,
            dimension=self._info.dimension,
            normalize=normalize or self._engine.model.normalizes,
            most_texts=batch_size,
            cancelled=cancelled,
            background=None if small else self._background,
        )
        if small:
            job.prepare(_SMALL_CHARACTERS, wait=True)
        return job


def _outcome(job: Job, device: str) -> Encoded | Exception:
    try:
        return job.result(device)
    except Exception as error:
        return error
