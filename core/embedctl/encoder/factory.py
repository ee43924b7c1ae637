"""Which encoder serves a model: the fastest one whose vectors pass the canary.

`open_encoder` takes a folder and goes the quick way where it can: by what an earlier load has kept of the
model. `select_encoder` takes a model that sentence-transformers has loaded, and knows every way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from embedctl.encoder import probes, tokens
from embedctl.encoder.ahead import importing
from embedctl.encoder.architecture import Unsupported
from embedctl.encoder.base import Encoder
from embedctl.encoder.canary import check, reference_vectors
from embedctl.encoder.direct import load_direct, to_keep
from embedctl.encoder.fast import FastEncoder
from embedctl.encoder.kept import Basis, NotKept, basis_of, file_for, keep, recall
from embedctl.encoder.loading import load_model, name_of
from embedctl.encoder.memory import release_cached
from embedctl.encoder.source import Source, source_of
from embedctl.errors import BackendError, CanaryError, EmbedctlError
from embedctl.records import CanaryReport

if TYPE_CHECKING:  # takes seconds, and a direct load does without it
    from sentence_transformers import SentenceTransformer


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
    source: Source | None = None
    """What the packed path was built from; None where another one serves."""
    way: str = "loaded by sentence-transformers"


def build_encoder(model: SentenceTransformer, options: EncoderOptions) -> Encoder:
    """The encoder for one kernel (`options.attention` is not `auto`).

    Raises:
        ValueError: The model cannot run on that kernel.
    """
    from embedctl.encoder.reference import ReferenceEncoder

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
    from embedctl.encoder.attention_kernels import ladder

    reference = reference_vectors(model)
    notes: list[str] = []
    if precisions := _precisions(options):
        try:
            source = source_of(model)
        except (RuntimeError, ValueError, EmbedctlError) as error:  # it goes through torch's attention too
            notes.append(f"the packed path is not used: {_first_line(error)}")
        else:
            selection = _packed(source, reference, options, precisions, notes)
            if selection is not None:
                return selection
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


def open_encoder(
    folder: Path,
    options: EncoderOptions,
    *,
    device: torch.device,
    dtype: torch.dtype,
    max_tokens: int | None = None,
    threads: int | None = None,
    references: Path | None = None,
    step: Callable[[str], None],
) -> Selection:
    """Load the model in `folder` and take the fastest encoder that passes the canary.

    Where an earlier load has kept a reference that still holds, the model is loaded directly and judged by
    it; if that fails, and everywhere else, sentence-transformers loads it.

    Args:
        max_tokens: See `load_model`.
        threads: See `load_model`.
        references: Where references are kept; None: nowhere.
        step: Gets the name of what is being done.

    Raises:
        See `load_model` and `select_encoder`.
    """
    precisions = _precisions(options)
    notes: list[str] = []
    place: tuple[Path, Basis] | None = None
    if references is not None and precisions:
        try:
            basis = basis_of(
                folder,
                device=f"{device} {name_of(device)}",
                dtype=str(dtype).removeprefix("torch."),
                max_tokens=max_tokens,
                texts=(probes.PROBES, tokens.PROBES),
            )
            place = (file_for(references, basis), basis)
            return _open_direct(folder, options, place, device, dtype, threads, step)
        except NotKept as error:
            notes += [f"not loaded directly: {error.why}"] if error.why else []
        except Exception as error:  # damaged files raise whatever their parsers like; the long way tells
            notes.append(f"not loaded directly: {_first_line(error)}")
        release_cached(device)
    step("importing sentence-transformers")
    with importing():
        import sentence_transformers  # noqa: F401
    step("loading weights")
    model = load_model(
        folder,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        max_tokens=max_tokens,
        threads=threads,
    )
    step("canary")
    selection = select_encoder(model, options)
    if place is not None and selection.source is not None:
        try:
            kept = to_keep(folder, selection.source, selection.reference)
            if kept is not None:
                keep(*place, kept)
        except Exception as error:  # of no consequence for this load
            notes.append(f"the reference for a quicker start was not kept: {_first_line(error)}")
    return replace(selection, notes=(*notes, *selection.notes))


def _open_direct(
    folder: Path,
    options: EncoderOptions,
    place: tuple[Path, Basis],
    device: torch.device,
    dtype: torch.dtype,
    threads: int | None,
    step: Callable[[str], None],
) -> Selection:
    """
    Raises:
        NotKept: There is no reference that holds.
        Unsupported: What was loaded is not what the reference is of.
        Exception: The files could not be read, or memory did not suffice.
    """
    kept = recall(*place)
    if threads is not None:
        torch.set_num_threads(threads)
    step("loading weights")
    source = load_direct(folder, kept, device, dtype)
    step("canary")
    notes: list[str] = []
    selection = _packed(source, kept.reference, options, _precisions(options), notes)
    if selection is None:
        raise Unsupported("The model that was loaded directly gives other vectors", why="; ".join(notes))
    return replace(selection, way=f"loaded directly; checked against the reference of {kept.made}")


def _packed(
    source: Source,
    reference: NDArray[np.float32],
    options: EncoderOptions,
    precisions: tuple[bool, ...],
    notes: list[str],
) -> Selection | None:
    """The packed path in the first precision that passes the canary; `notes` gets what failed before."""
    for eight_bit in precisions:
        try:
            fast = FastEncoder.build(
                source,
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
                return Selection(fast, report, reference, tuple(notes), source)
        notes.append(f"the packed path{' with 8-bit products' * eight_bit} is not used: {problem}")
    return None


def _precisions(options: EncoderOptions) -> tuple[bool, ...]:
    """Whether to try the packed path with 8-bit products, in turn; empty if it is not to be tried."""
    if not options.fast or options.attention != "auto":
        return ()
    return (True, False) if options.eight_bit else (False,)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
