"""What the packed path is built from: rules, weights and tokenizer, and the answers to check them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedctl.encoder.architecture import Architecture, recognise
from embedctl.encoder.packing import Ints
from embedctl.encoder.probes import PROBES
from embedctl.encoder.runner import Vectors
from embedctl.encoder.tokens import probe_ids

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Source:
    architecture: Architecture
    tokenizer: Tokenizer
    probe_ids: tuple[Ints, ...]
    """Of `tokens.PROBES`, as sentence-transformers makes them."""
    probe_vectors: Vectors
    """Of `probes.PROBES`, by sentence-transformers' own forward; shape (texts, dimension)."""


def source_of(model: SentenceTransformer) -> Source:
    """The source that a loaded model is; it keeps working as it is.

    Raises:
        Unsupported: The packed path does not know the model.
    """
    architecture = recognise(model)
    return Source(
        architecture,
        cast(Any, model.tokenizer).backend_tokenizer,
        probe_ids(model, architecture.prompt),
        np.asarray(model.encode(list(PROBES), show_progress_bar=False), np.float32),
    )
