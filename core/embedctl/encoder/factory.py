"""Which encoder serves a loaded model: the fastest one whose vectors pass the canary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from embedctl.encoder.attention_kernels import ladder
from embedctl.encoder.base import Encoder
from embedctl.encoder.canary import check, reference_vectors
from embedctl.encoder.fast import FastEncoder
from embedctl.encoder.reference import ReferenceEncoder
from embedctl.errors import BackendError, CanaryError, EmbedctlError
from embedctl.records import CanaryReport


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    attention: str = "auto"
    """`auto` or one of `attention_kernels.LADDER`."""
    batch_size: int = 32
    """Texts per forward pass of the reference encoder; the fast one goes by tokens."""
    fast: bool = True
    """Try the packed path first, where `attention` leaves the choice."""
    token_budget: int | None = None
    memory_floor: int | None = None
    eight_bit: bool = False
    """Of the packed path; see `FastEncoder.build`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The encoder that was chosen, and why."""

    encoder: Encoder
    canary: CanaryReport
    reference: NDArray[np.float32]
    """What `canary.check` needs to judge the encoder again later."""
    notes: tuple[str, ...]
    """One line for every path and kernel that was tried and failed."""


def build_encoder(model: SentenceTransformer, options: EncoderOptions) -> Encoder:
    """The encoder for one kernel (`options.attention` is not `auto`).

    Raises:
        ValueError: The model cannot run on that kernel.
    """
    return ReferenceEncoder(model, attention=options.attention, batch_size=options.batch_size)


def select_encoder(
    model: SentenceTransformer,
    options: EncoderOptions,
    *,
    build: Callable[[SentenceTransformer, EncoderOptions], Encoder] = build_encoder,
) -> Selection:
    """Take the packed path if it knows the model and passes the canary, else the first kernel that passes.

    Kernels are tried from the fastest to the safest.

    Raises:
        CanaryError: None passed; says what each one showed.
        BackendOutOfMemoryError: Not even one canary text fits.
    """
    reference = reference_vectors(model)
    notes: list[str] = []
    for eight_bit in _precisions(options):
        try:
            fast = FastEncoder.build(
                model,
                token_budget=options.token_budget,
                memory_floor=options.memory_floor,
                eight_bit=eight_bit,
            )
            report = check(fast, reference)
            problem = report.detail
        except (RuntimeError, ValueError, EmbedctlError) as error:
            problem = _first_line(error)
        else:
            if report.passed:
                return Selection(fast, report, reference, tuple(notes))
        notes.append(f"the packed path{' with 8-bit products' * eight_bit} is not used: {problem}")
    for kernel in ladder(options.attention, model.device):
        try:
            encoder = build(model, replace(options, attention=kernel))
            report = check(encoder, reference)
            problem = report.detail
        except (RuntimeError, ValueError) as error:  # a kernel that is not built in, or that CUDA refuses
            problem = _first_line(error)
        except BackendError as error:
            problem = str(error)
        else:
            if report.passed:
                return Selection(encoder, report, reference, tuple(notes))
        notes.append(f"attention kernel {kernel} failed the canary: {problem}")
    raise CanaryError(
        "The loaded model gives wrong vectors under every attention kernel that may be used",
        why="; ".join(notes),
        remedy="set native.dtype = float32 or native.attention = math, or check the files with "
        "`embedctl models verify`",
    )


def _precisions(options: EncoderOptions) -> tuple[bool, ...]:
    """Whether to try the packed path with 8-bit products, in turn; empty if it is not to be tried."""
    if not options.fast or options.attention != "auto":
        return ()
    return (True, False) if options.eight_bit else (False,)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
