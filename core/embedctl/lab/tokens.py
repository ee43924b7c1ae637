"""Counting tokens: one tokenizer for all backends, so that tokens/s mean the same for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

TokenCounter = Callable[[Sequence[str]], int]


def token_counter(folder: Path) -> TokenCounter | None:
    """Counts tokens with the model's own tokenizer, special tokens included; None if it has no fast one.

    Texts longer than the model's limit count in full, so that they can be told from those that fit.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    from tokenizers import Tokenizer  # light beside transformers: no torch comes with it

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def count(texts: Sequence[str]) -> int:
        return sum(len(encoding) for encoding in tokenizer.encode_batch_fast(list(texts)))

    return count
