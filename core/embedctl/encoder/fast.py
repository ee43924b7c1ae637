"""The fast encoder: packed batches, our own forward pass, batches across requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sentence_transformers import SentenceTransformer

from embedctl.encoder.architecture import recognise
from embedctl.encoder.base import Answer, Encoded, EncoderInfo
from embedctl.encoder.cuda_runner import MOST_TEXTS, TOKEN_BUCKETS, CudaRunner
from embedctl.encoder.jobs import Job
from embedctl.encoder.probes import Engine, assemble
from embedctl.encoder.scheduler import Scheduler
from embedctl.encoder.texts import require_strings
from embedctl.encoder.tokens import TextTokenizer

_SMALL_TEXTS = 64
_SMALL_CHARACTERS = 100_000
"""Requests below both are tokenised by the calling thread: a hand-over would cost more than it hides."""
_CPU_BUDGET = 2048
_GPU_BUDGET = 8192


class FastEncoder:
    """Encodes as `SentenceTransformer.encode` does, with as little as possible around the arithmetic.

    Safe to call from several threads: requests that meet are packed into batches together (see `Scheduler`).
    Made by `build`, which checks every part on the device at hand before it is used.
    """

    def __init__(self, engine: Engine, tokenizer: TextTokenizer, *, token_budget: int) -> None:
        model = engine.model
        self._engine = engine
        self._tokenizer = tokenizer
        self._scheduler = Scheduler(
            engine.runner,
            token_budget=token_budget,
            most_texts=MOST_TEXTS,
            first_position=model.first_position,
            skipped_id=model.skipped_id,
        )
        # On the CPU the tokenizer's threads would take the cores from the arithmetic.
        self._background = (
            ThreadPoolExecutor(2, thread_name_prefix="tokenizing") if model.device.type == "cuda" else None
        )
        self._info = EncoderInfo(
            kind="packed",
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            attention=engine.attention,
            dimension=model.dimension,
            max_tokens=model.max_tokens,
            pooling=model.pooling,
            notes=engine.notes,
        )

    @classmethod
    def build(
        cls,
        model: SentenceTransformer,
        *,
        attention: str = "auto",
        token_budget: int | None = None,
        graphs: bool = True,
    ) -> FastEncoder:
        """The fast encoder over `model`, which keeps working as it is.

        Args:
            model: A loaded model, in evaluation mode.
            attention: `auto` (the fastest that passes its check), `tiled`, `varlen` or `grouped`.
            token_budget: Most tokens of a batch; None for the device's default.
            graphs: Capture CUDA graphs for small batches.

        Raises:
            Unsupported: The model, or its answer on this device, is not what the fast path can vouch for.
        """
        architecture = recognise(model)
        tokenizer = TextTokenizer(model, architecture.max_tokens, architecture.prompt)
        on_gpu = architecture.device.type == "cuda"
        budget = token_budget or (_GPU_BUDGET if on_gpu else _CPU_BUDGET)
        engine = assemble(model, architecture, tokenizer, attention=attention, budget=budget, graphs=graphs)
        if isinstance(engine.runner, CudaRunner):
            for tokens in TOKEN_BUCKETS:
                engine.runner.capture(tokens)
        return cls(engine, tokenizer, token_budget=budget)

    @property
    def info(self) -> EncoderInfo:
        return self._info

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
