"""Assembling the fastest path that gives the right vectors on the device at hand.

What a kernel does on a device is found out by running it, not by looking the device up: kernels built for
another GPU have been seen to return NaN without raising (pytorch#176243, on sm_121). Known texts go through
sentence-transformers' own forward, through the plain path, and through each faster part; a part that raises
or disagrees is left out, and a note says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from embedctl.encoder import attention as attention_kinds
from embedctl.encoder.architecture import Architecture, Unsupported
from embedctl.encoder.attention import AttentionKind
from embedctl.encoder.cuda_runner import CudaRunner
from embedctl.encoder.forward import Forward, FusedSteps, PlainSteps
from embedctl.encoder.packing import Ints, pack
from embedctl.encoder.runner import HostRunner, Runner, Vectors
from embedctl.encoder.tokens import TextTokenizer

_PROBES = (
    "",
    "A short question?",
    "Das Café schließt um acht; 東京は今日も雨です。",
    "one two three four five six seven eight nine ten " * 4,
    "the quick brown fox jumps over the lazy dog and runs away " * 16,
)
_FEW = 3
_LEAST_COSINE = {torch.float32: 0.99999, torch.float16: 0.999, torch.bfloat16: 0.995}
"""Between two orders of the same arithmetic; a wrong kernel is far below."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A model ready to run packed batches."""

    model: Architecture
    runner: Runner
    attention: AttentionKind
    notes: tuple[str, ...]


def assemble(
    model: SentenceTransformer,
    architecture: Architecture,
    tokenizer: TextTokenizer,
    *,
    attention: str,
    budget: int,
    graphs: bool,
) -> Engine:
    """The fastest engine whose parts all pass.

    Args:
        attention: `auto`, or the only kind to try.
        budget: Most tokens of a batch of several texts.
        graphs: Try CUDA graphs.

    Raises:
        Unsupported: Not even the plain path agrees with sentence-transformers.
    """
    expected = _unit(np.asarray(model.encode(list(_PROBES), show_progress_bar=False), np.float32))
    ids = tokenizer(_PROBES).ids()
    notes: list[str] = []
    for kind, steps in _candidates(architecture, attention):
        wrong = None
        try:
            runner = _runner(architecture, kind, steps, budget, graphs=False)
            wrong = _disagreement(runner, architecture, ids, expected)
        except Exception as error:  # a part that cannot be imported, compiled or launched is one not to use
            wrong = _first_line(error)
        if wrong is None:
            break
        notes.append(f"{kind} attention with {steps.__name__} is off: {wrong}")
    else:
        raise Unsupported(
            "The fast path gives other vectors than sentence-transformers", why="; ".join(notes)
        )
    if graphs and architecture.device.type == "cuda" and kind != "grouped":
        try:
            with_graphs = _runner(architecture, kind, steps, budget, graphs=True)
            wrong = _disagreement(with_graphs, architecture, ids, expected)
        except Exception as error:
            wrong = _first_line(error)
        if wrong is None:
            runner = with_graphs
        else:
            notes.append(f"CUDA graphs are off: {wrong}")
    return Engine(architecture, runner, kind, tuple(notes))


def _candidates(
    model: Architecture, wanted: str
) -> list[tuple[AttentionKind, type[PlainSteps] | type[FusedSteps]]]:
    """What to try, the fastest first."""
    candidates: list[tuple[AttentionKind, type[PlainSteps] | type[FusedSteps]]] = []
    if model.device.type == "cuda":
        if model.dtype in (torch.float16, torch.bfloat16):
            candidates += [("tiled", FusedSteps), ("varlen", FusedSteps), ("varlen", PlainSteps)]
        candidates.append(("grouped", FusedSteps))
    candidates.append(("grouped", PlainSteps))
    return [candidate for candidate in candidates if wanted in ("auto", candidate[0])]


def _runner(
    model: Architecture,
    kind: AttentionKind,
    steps: type[PlainSteps] | type[FusedSteps],
    budget: int,
    *,
    graphs: bool,
) -> Runner:
    forward = Forward(model, attention_kinds.attention(kind, model.heads), steps(model))
    if model.device.type != "cuda":
        return HostRunner(forward, model.device)
    return CudaRunner(
        forward,
        model.device,
        kind=kind,
        dimension=model.dimension,
        budget=budget,
        capacity=max(budget, model.max_tokens),
        graphs=graphs,
    )


def _disagreement(runner: Runner, model: Architecture, ids: Sequence[Ints], expected: Vectors) -> str | None:
    """What is wrong with the runner's vectors; None if nothing is.

    The first texts also go alone, since batches of few tokens take kernels and graphs of their own.
    """
    wanted = _LEAST_COSINE.get(model.dtype, _LEAST_COSINE[torch.float32])
    for count in (_FEW, len(ids)):
        batch = pack(ids[:count], first_position=model.first_position, skipped_id=model.skipped_id)
        vectors = runner.stage(batch, normalize=True).launch().collect()
        if not np.isfinite(vectors).all():
            return "its vectors are not finite"
        least = float((vectors * expected[:count]).sum(axis=1).min())
        if not least >= wanted:  # so that a NaN of sentence-transformers' own counts as disagreement too
            return f"least cosine {least:.6f} to sentence-transformers' own forward"
    return None


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
