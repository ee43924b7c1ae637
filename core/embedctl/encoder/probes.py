"""Assembling the fastest path that gives the right vectors on the device at hand.

What a kernel does on a device is found out by running it, not by looking the device up: kernels built for
another GPU have been seen to return NaN without raising (pytorch#176243, on sm_121). Known texts go through
sentence-transformers' own forward, through the plain path, and through each faster part; a part that raises
or disagrees is left out, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from embedctl.encoder import attention as attention_kinds
from embedctl.encoder import precision
from embedctl.encoder.architecture import Architecture, Unsupported
from embedctl.encoder.attention import AttentionKind
from embedctl.encoder.canary import TEXTS
from embedctl.encoder.cuda_runner import CudaRunner
from embedctl.encoder.forward import Forward, FusedSteps, PlainSteps
from embedctl.encoder.packing import Ints, pack
from embedctl.encoder.runner import HostRunner, Runner, Vectors
from embedctl.encoder.tokens import TextTokenizer

PROBES = (
    "",
    "A short question?",
    "Das Café schließt um acht; 東京は今日も雨です。",
    "one two three four five six seven eight nine ten " * 4,
    "the quick brown fox jumps over the lazy dog and runs away " * 16,
)
_FEW = 3
_BULK = 16
"""Times 300 tokens: about half of a full batch on a GPU."""
_LEAST_COSINE = {
    "float32": 0.99999,
    "float16": 0.999,
    "bfloat16": 0.995,
    precision.NAME: precision.LEAST_COSINE,
}
"""Between two orders of the same arithmetic; a wrong kernel is far below."""


_Steps = type[PlainSteps] | type[FusedSteps]


@dataclass(frozen=True, slots=True)
class Engine:
    """A model ready to run packed batches."""

    model: Architecture
    runner: Runner
    attention: AttentionKind
    dtype: str
    """What the layers' products are computed in, such as `float16` or `float8_e4m3`."""
    notes: tuple[str, ...]
    remake: Callable[[int], Runner]
    """The same pass in batches of so many tokens, for the tuner."""


def assemble(
    architecture: Architecture,
    tokenizer: TextTokenizer,
    expected: Vectors,
    *,
    attention: str,
    budget: int,
    graphs: bool,
    eight_bit: bool = False,
) -> Engine:
    """The fastest engine whose parts all pass.

    Args:
        expected: The vectors of `PROBES` as sentence-transformers' own forward gives them, of any length.
        attention: `auto`, or the only kind to try.
        budget: Most tokens of a batch of several texts.
        graphs: Try CUDA graphs.
        eight_bit: Try 8-bit products, and keep them if their vectors are close enough (see `precision`).

    Raises:
        Unsupported: Not even the plain path agrees with sentence-transformers.
    """
    expected = _unit(expected)
    ids = tokenizer(PROBES).ids()
    dtype = str(architecture.dtype).removeprefix("torch.")
    notes: list[str] = []
    for kind, steps in _candidates(architecture, attention):
        wrong = None
        try:
            forward = Forward(
                architecture, attention_kinds.attention(kind, architecture.heads), steps(architecture)
            )
            runner = _runner(architecture, kind, forward, budget)
            wrong = _disagreement(runner, architecture, ids, expected, dtype)
        except Exception as error:  # a part that cannot be imported, compiled or launched is one not to use
            wrong = _first_line(error)
        if wrong is None:
            break
        notes.append(f"{kind} attention with {steps.__name__} is off: {wrong}")
    else:
        raise Unsupported(
            "The fast path gives other vectors than sentence-transformers", why="; ".join(notes)
        )
    if eight_bit:
        try:
            forward, note = _eight_bit(architecture, tokenizer, runner, kind, budget)
            runner, dtype = _runner(architecture, kind, forward, budget), precision.NAME
        except Exception as error:
            note = f"8-bit products are off: {_first_line(error)}"
        notes.append(note)
    if graphs and isinstance(runner, CudaRunner) and kind != "grouped":
        try:
            expected = _vectors(runner, architecture, ids)
            runner.capture()
            wrong = _disagreement(runner, architecture, ids, expected, dtype)
        except Exception as error:
            wrong = _first_line(error)
        if wrong is not None:
            runner = _runner(architecture, kind, forward, budget)
            notes.append(f"CUDA graphs are off: {wrong}")
    captured = isinstance(runner, CudaRunner) and runner.graphs > 0

    def remake(tokens: int) -> Runner:
        made = _runner(architecture, kind, forward, tokens)
        if captured and isinstance(made, CudaRunner):
            made.capture()
        return made

    return Engine(architecture, runner, kind, dtype, tuple(notes), remake)


def _candidates(model: Architecture, wanted: str) -> list[tuple[AttentionKind, _Steps]]:
    """What to try, the fastest first."""
    candidates: list[tuple[AttentionKind, _Steps]] = []
    if model.device.type == "cuda":
        if model.dtype in (torch.float16, torch.bfloat16):
            candidates += [("tiled", FusedSteps), ("varlen", FusedSteps), ("varlen", PlainSteps)]
        candidates.append(("grouped", FusedSteps))
    candidates.append(("grouped", PlainSteps))
    return [candidate for candidate in candidates if wanted in ("auto", candidate[0])]


def _eight_bit(
    model: Architecture, tokenizer: TextTokenizer, runner: Runner, kind: AttentionKind, budget: int
) -> tuple[Forward, str]:
    """The forward pass with 8-bit products, and how close it is to 16 bits.

    Args:
        runner: The one with 16-bit products.

    Raises:
        Unsupported: It is not close enough, or this device or model has no such products.
    """
    if kind != "tiled":
        raise _no_eight_bit("they need a CUDA device and a 16-bit dtype with tiled attention")
    from embedctl.encoder.precision_forward import EightBitForward

    peaks = precision.PeakSteps(FusedSteps(model))
    watched = Forward(model, attention_kinds.attention(kind, model.heads), peaks)
    _vectors(_runner(model, kind, watched, budget), model, tokenizer(TEXTS).ids())
    forward = EightBitForward(model, precision.eight_bit_layers(model, peaks.peak))
    ids = tokenizer(precision.GATE_TEXTS).ids()
    candidate = _runner(model, kind, forward, budget)
    batches = (ids[:1], ids[1:_FEW], ids)  # batches of few tokens take kernels of their own
    vectors, expected = (
        np.concatenate([_vectors(each, model, batch) for batch in batches]) for each in (candidate, runner)
    )
    if (problem := precision.shortfall(vectors, expected)) is not None:
        raise _no_eight_bit(problem)
    return forward, f"8-bit products: {precision.compare(vectors, expected)}, over {len(ids)} texts"


def _no_eight_bit(why: str) -> Unsupported:
    return Unsupported("This model is not run with 8-bit products here", why=why)


def _runner(model: Architecture, kind: AttentionKind, forward: Forward, budget: int) -> Runner:
    if model.device.type != "cuda":
        return HostRunner(forward, model.device)
    return CudaRunner(
        forward,
        model.device,
        kind=kind,
        dimension=model.dimension,
        budget=budget,
        capacity=max(budget, model.max_tokens),
    )


def _vectors(runner: Runner, model: Architecture, ids: Sequence[Ints]) -> Vectors:
    """The unit vectors of some texts that go as one batch."""
    batch = pack(ids, first_position=model.first_position, skipped_id=model.skipped_id)
    return runner.stage(batch, normalize=True).launch().collect().copy()


def _disagreement(
    runner: Runner, model: Architecture, ids: Sequence[Ints], expected: Vectors, dtype: str
) -> str | None:
    """What is wrong with the runner's vectors; None if nothing is.

    The first texts also go alone, since batches of few tokens take kernels and graphs of their own; on a GPU
    all go several times over too, as a bulk batch.
    """
    wanted = _LEAST_COSINE.get(dtype, _LEAST_COSINE["float32"])
    bulk = [(len(ids), _BULK)] if isinstance(runner, CudaRunner) else []
    for few, times in [(_FEW, 1), (len(ids), 1), *bulk]:
        vectors = _vectors(runner, model, list(ids[:few]) * times)
        if not np.isfinite(vectors).all():
            return "its vectors are not finite"
        least = float((vectors * np.tile(expected[:few], (times, 1))).sum(axis=1).min())
        if not least >= wanted:  # so that a NaN of sentence-transformers' own counts as disagreement too
            return f"least cosine {least:.6f} to sentence-transformers' own forward"
    return None


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
