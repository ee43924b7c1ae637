"""The reference encoder: sentence-transformers' own preprocessing and forward pass, batch by batch.

It is what faster paths are measured against, and what runs where they cannot.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from embedctl.encoder.attention_kernels import kernel_context, select_kernel
from embedctl.encoder.base import Encoded, EncoderInfo
from embedctl.encoder.memory import is_out_of_memory, release_cached
from embedctl.encoder.texts import require_strings, unencodable
from embedctl.errors import BackendOutOfMemoryError, Cancelled
from embedctl.records import TextFailure


class ReferenceEncoder:
    """Encodes as `SentenceTransformer.encode` does, and besides counts tokens and survives bad texts.

    Beyond `encode`: vectors are normalised in float32 even for a half-precision model, truncation is
    reported, a batch that does not fit in memory is halved, and a text that fails alone costs its own row.

    Args:
        model: A loaded model (see `load_model`).
        attention: One of `attention_kernels.LADDER`.
        batch_size: Texts per forward pass unless a call says otherwise.
    """

    def __init__(self, model: SentenceTransformer, *, attention: str = "sdpa", batch_size: int = 32) -> None:
        select_kernel(model, attention)
        self._model = model
        self._batch_size = batch_size
        self._alone = threading.Lock()
        """Neither a tokenizer nor the choice of a kernel can be shared by two threads."""
        # A model may prefix every text ("query: "), by its own configuration; `encode` does so too.
        self._prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name else None
        self._info = _describe(model, attention)

    @property
    def info(self) -> EncoderInfo:
        return self._info

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> Encoded:
        """See `Encoder.encode`.

        `normalize=False` returns what the model itself puts out. A model that ends with a Normalize module
        puts out unit vectors, so there the two differ only in rounding.
        """
        require_strings(texts)
        with self._alone:
            return self._encode(texts, batch_size or self._batch_size, normalize, cancelled)

    def _encode(
        self, texts: Sequence[str], size: int, normalize: bool, cancelled: Callable[[], bool] | None
    ) -> Encoded:
        answer = _Answer(len(texts), self._info.dimension)
        for failure in unencodable(texts):
            answer.fail(failure.index, failure.what)
        # Like lengths together waste least padding; the longest first meets a lack of memory at once.
        order = sorted(
            (i for i in range(len(texts)) if i not in answer.failures),
            key=lambda i: len(texts[i]),
            reverse=True,
        )
        halvings: list[tuple[int, int]] = []
        start = 0
        while start < len(order):
            if cancelled is not None and cancelled():
                raise Cancelled
            batch = order[start : start + size]
            outcome = self._attempt([texts[i] for i in batch])
            if outcome is None:
                release_cached(self._model.device)
                if len(batch) > 1:
                    halvings.append((len(batch), (len(batch) + 1) // 2))
                    size = (len(batch) + 1) // 2
                    continue
                answer.fail(batch[0], "memory does not suffice for this text, even alone", out_of_memory=True)
            else:
                answer.add(batch, outcome, normalize=normalize)
            start += len(batch)
        return answer.finish(halvings, str(self._model.device))

    def _attempt(self, texts: list[str]) -> _Batch | None:
        """One forward pass; None if memory did not suffice."""
        try:
            with kernel_context(self._info.attention):
                return self._forward(texts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _forward(self, texts: list[str]) -> _Batch:
        features = self._model.preprocess(texts, prompt=self._prompt)
        counts = features["attention_mask"].sum(dim=1, dtype=torch.int32).numpy()
        cut = self._cut(texts, features, counts)
        moved = {
            key: value.to(self._model.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in features.items()
        }
        output = self._model(moved)["sentence_embedding"]
        if self._model.truncate_dim is not None:
            output = output[:, : self._model.truncate_dim]
        return _Batch(output.float().cpu().numpy(), counts, cut)

    def _cut(self, texts: list[str], features: Any, counts: NDArray[np.int32]) -> list[bool]:
        """Which texts lost tokens to the length limit."""
        encodings = getattr(features, "encodings", None)
        if encodings is not None:  # the tokenizer keeps what it cut off: nothing is tokenized twice
            return [bool(encoding.overflowing) for encoding in encodings]
        # A tokenizer in Python keeps nothing; only texts that fill the limit can have been cut.
        limit = self._info.max_tokens
        tokenizer = self._model.tokenizer
        prompt = self._prompt or ""
        return [
            count >= limit and len(tokenizer(prompt + text, truncation=False)["input_ids"]) > limit
            for text, count in zip(texts, counts, strict=True)
        ]


def _describe(model: SentenceTransformer, attention: str) -> EncoderInfo:
    dimension = model.get_embedding_dimension()
    if dimension is None:  # a model without a pooling module that states its width: look at one vector
        dimension = int(model.encode([""], show_progress_bar=False).shape[1])
    return EncoderInfo(
        kind="reference",
        device=str(model.device),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        attention=attention,
        dimension=dimension,
        max_tokens=int(model.max_seq_length or 0),
        pooling=_pooling(model),
    )


def _pooling(model: SentenceTransformer) -> str:
    for module in model.children():
        mode: Any = getattr(module, "pooling_mode", None)
        if mode is not None:
            return mode if isinstance(mode, str) else "+".join(mode)
    return "none"


@dataclass(frozen=True, slots=True)
class _Batch:
    vectors: NDArray[np.float32]
    counts: NDArray[np.int32]
    truncated: list[bool]


@dataclass(slots=True)
class _Answer:
    """Collects rows of batches into the order of the request."""

    texts: int
    dimension: int
    vectors: NDArray[np.float32] = field(init=False)
    counts: NDArray[np.int32] = field(init=False)
    truncated: list[int] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    out_of_memory: int = 0

    def __post_init__(self) -> None:
        self.vectors = np.full((self.texts, self.dimension), np.nan, dtype=np.float32)
        self.counts = np.zeros(self.texts, dtype=np.int32)

    def fail(self, index: int, what: str, *, out_of_memory: bool = False) -> None:
        self.failures[index] = what
        self.vectors[index] = np.nan
        self.out_of_memory += out_of_memory

    def add(self, indices: list[int], batch: _Batch, *, normalize: bool) -> None:
        norms = np.linalg.norm(batch.vectors, axis=1, keepdims=True)
        lengths = np.where(np.isfinite(norms) & (norms > 0), norms, 1)
        self.vectors[indices] = batch.vectors / lengths if normalize else batch.vectors
        self.counts[indices] = batch.counts
        self.truncated += [index for index, cut in zip(indices, batch.truncated, strict=True) if cut]
        # A norm is finite only if every component is.
        for index, norm in zip(indices, norms[:, 0], strict=True):
            if not np.isfinite(norm):
                self.fail(index, "the model returned a vector that is not finite")
            elif normalize and norm == 0:
                self.fail(index, "the model returned a vector of zeros, which cannot be normalised")

    def finish(self, halvings: list[tuple[int, int]], device: str) -> Encoded:
        """The answer.

        Raises:
            BackendOutOfMemoryError: Memory sufficed for no text at all.
        """
        if self.out_of_memory and self.out_of_memory == self.texts:
            raise BackendOutOfMemoryError(
                f"Memory on {device} does not suffice for a single text",
                why="the batch was halved down to one text and still did not fit",
                remedy="shorten the texts, set native.max_tokens, or free memory on the device",
            )
        notes: tuple[str, ...] = ()
        if halvings:
            notes = (
                f"out of memory on {device} with {halvings[0][0]} texts per batch: "
                f"went on with {halvings[-1][1]}",
            )
        return Encoded(
            vectors=self.vectors,
            token_counts=self.counts,
            truncated=tuple(sorted(self.truncated)),
            failures=tuple(TextFailure(index, self.failures[index]) for index in sorted(self.failures)),
            notes=notes,
        )
