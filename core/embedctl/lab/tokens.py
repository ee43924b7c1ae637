"""Counting tokens: one tokenizer for all backends, so that tokens/s mean the same for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TokenCounter = Callable[[Sequence[str]], int]


def token_counter(folder: Path) -> TokenCounter | None:
    """Counts tokens with the model's own tokenizer, special tokens included; None if it has no fast one.

    Texts longer than the model's limit count in full, so that they can be told from those that fit.
    """
    tokenizer = open_tokenizer(folder)
    if tokenizer is None:
        return None

    def count(texts: Sequence[str]) -> int:
        return sum(len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts)))

    return count


def open_tokenizer(folder: Path) -> Tokenizer | None:
    """The folder's tokenizer, which neither pads nor cuts; None if there is no fast one."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer  # light beside transformers: no torch comes with it

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
