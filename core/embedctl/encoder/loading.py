"""Loading a sentence-transformers folder: from local files only, never running code that lies in it."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from embedctl.encoder.memory import is_out_of_memory
from embedctl.encoder.model_folder import require_model
from embedctl.errors import BackendError, BackendOutOfMemoryError, BackendUnavailableError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
EIGHT_BIT = "float8"
"""The dtype that asks for 8-bit products."""
_PAGE_BYTES = 4096
_UNBOUNDED = 1_000_000
"""A tokenizer without a limit states one of about 1e30 (transformers' VERY_LARGE_INTEGER)."""


def load_model(
    folder: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_tokens: int | None = None,
    threads: int | None = None,
) -> SentenceTransformer:
    """Load the model in `folder` for inference.

    Args:
        folder: A sentence-transformers folder (`modules.json`), or a plain transformers one.
        device: `auto` (CUDA if there is one, else MPS, else the CPU), `cpu`, `mps`, `cuda` or `cuda:N`.
        dtype: `auto` (float16 on CUDA, float32 elsewhere), `float32`, `float16`, `bfloat16`, or `float8`: as
            `auto`, since weights are rounded to 8 bits from it later (see `precision`). float16 stays closer
            to float32 than bfloat16 does, at the same speed.
        max_tokens: Length limit in tokens, special tokens included; never above what the model can take.
        threads: Torch's threads on the CPU; None leaves torch's choice.

    Returns:
        The model in evaluation mode on `device`, its `max_seq_length` set to the limit in force.

    Raises:
        ModelMissingError: `folder` holds no model.
        BackendUnavailableError: `device` is not there.
        BackendOutOfMemoryError: The weights do not fit.
        BackendError: The files cannot be loaded; says why.
    """
    path = require_model(folder)
    from transformers import PreTrainedModel

    # Without model.safetensors transformers would start a thread that converts the weights on the Hub.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    if threads is not None:
        torch.set_num_threads(threads)
    target = resolve_device(device)
    try:
        model = _load(path, target, resolve_dtype(dtype, target))
    except Exception as error:  # a damaged folder raises whatever its parser likes, down to bare Exceptions
        if is_out_of_memory(error):
            raise BackendOutOfMemoryError(
                f"The weights do not fit into the memory of {target}",
                why=_first_line(error),
                remedy="stop what else holds memory there, or set native.device = cpu",
            ) from error
        raise BackendError(
            f"The model in {path} cannot be loaded",
            why=_first_line(error),
            remedy="check its files with `embedctl models verify`",
        ) from error
    if not any(isinstance(module, PreTrainedModel) for module in model.modules()):
        raise BackendError(
            f"The model in {path} is not a transformer",
            why="static and word-count embeddings are not served",
            remedy="choose another model (setting model.repo)",
        )
    limit = token_limit(model)
    model.max_seq_length = limit if max_tokens is None else min(limit, max_tokens)
    return model.eval().requires_grad_(False)


def resolve_device(device: str) -> torch.device:
    """The device that `device` stands for, with an index for CUDA.

    Raises:
        BackendUnavailableError: Torch does not see that device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    wanted = torch.device(device)
    if wanted.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = wanted.index if wanted.index is not None else 0
        if index >= count:
            raise BackendUnavailableError(
                f"The device {device} is not there",
                why=f"torch {torch.__version__} sees {count} CUDA device(s)",
                remedy="look at `embedctl doctor`, or set native.device = auto",
            )
        return torch.device("cuda", index)
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise BackendUnavailableError(
            "The device mps is not there", why="torch finds no Metal GPU", remedy="set native.device = auto"
        )
    return wanted


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype that `dtype` stands for on `device`."""
    if dtype in ("auto", EIGHT_BIT):
        return torch.float16 if device.type == "cuda" else torch.float32
    return _DTYPES[dtype]


def name_of(device: torch.device) -> str:
    """The GPU's or the CPU's own name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return platform.processor() or platform.machine()


def token_limit(model: SentenceTransformer) -> int:
    """The most tokens, special tokens included, that one text may have: tokenizer and position table agree.

    Models of RoBERTa's kind number their positions from `padding_idx + 1`, so that a table of 514 rows
    serves 512 tokens; a tokenizer that states 514 would let the 513th index past its end.
    """
    stated = model.max_seq_length
    limits = [stated] if stated is not None and stated < _UNBOUNDED else []
    for name, module in model.named_modules():
        if name.endswith("embeddings.position_embeddings") and isinstance(module, torch.nn.Embedding):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - reserved)
    return min(limits) if limits else 8192


def _load(path: Path, device: torch.device, dtype: torch.dtype) -> SentenceTransformer:
    safetensors = (path / "model.safetensors").is_file() or (path / "model.safetensors.index.json").is_file()
    unified = shares_memory(device)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(path),
        # On a GPU that shares the CPU's memory, copying from a mapped file's cold pages is slow (52 s
        # against 2–4 s for 3B parameters, gb10-load-llm) and doubles the peak (safetensors#758): read
        # first, then move.
        device="cpu" if unified else str(device),
        trust_remote_code=False,
        local_files_only=True,
        model_kwargs={
            "dtype": dtype,
            "weights_only": True,  # a pickle may hold tensors, not code
            "use_safetensors": True if safetensors else None,
        },
    )
    if unified:
        touch_pages(model.parameters())
        model.to(device)
        gc.collect()  # lets go of the mapped file
    return model


def shares_memory(device: torch.device) -> bool:
    """Whether it is a GPU that works in the CPU's memory."""
    return device.type == "cuda" and bool(torch.cuda.get_device_properties(device).is_integrated)


def touch_pages(weights: Iterable[torch.Tensor]) -> None:
    """Read one byte of every page of the weights, so that they are in memory before they are copied."""
    for parameter in weights:
        if parameter.is_contiguous():
            parameter.detach().view(-1).view(torch.uint8)[::_PAGE_BYTES].sum()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
