"""From texts to token ids, by the tokenizers library directly.

transformers' tokenizer call pads, builds lists of lists and tensors, and counts offsets that nobody reads;
`encode_batch_fast` gives the same ids at about twice the speed and without holding the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from embedctl.encoder.architecture import Unsupported
from embedctl.encoder.packing import Ints

_PROBES = (
    "",
    "  two  blanks\tand a tab\n",
    "Grüße aus Zürich — naïve café",
    "東京で寿司を食べた。 مرحبا بالعالم",
    "e\u0301 \U0001f469\u200d\U0001f52c \x00\x07 <mask> [SEP] </s> <pad>",
    "word " * 12_000,
)
"""Texts on which our ids must be those that sentence-transformers makes."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokenizer's answers for some texts, special tokens included.

    Unpacking the ids is Python work that holds the interpreter; it is left to whoever feeds the device, which
    has time for it while the device works, and would otherwise wait for the interpreter at every launch.
    """

    encodings: list[Any]
    max_tokens: int

    def ids(self) -> list[Ints]:
        """Token ids of each text."""
        return [np.array(encoding.ids, np.int32) for encoding in self.encodings]

    def truncated(self) -> list[int]:
        """Indices of texts that were cut."""
        return [
            index
            for index, encoding in enumerate(self.encodings)
            if len(encoding) >= self.max_tokens and encoding.overflowing
        ]


class TextTokenizer:
    """A model's tokenizer, its length limit and its prompt.

    Args:
        model: The model whose `preprocess` is to be matched.
        max_tokens: Longest text, special tokens included.
        prompt: Put before every text.

    Raises:
        Unsupported: The ids differ from those of `model.preprocess`.
    """

    def __init__(self, model: SentenceTransformer, max_tokens: int, prompt: str) -> None:
        self._tokenizer: Any = model.tokenizer.backend_tokenizer
        self._max_tokens = max_tokens
        self._prompt = prompt
        self._side = str(model.tokenizer.truncation_side)
        self._check(model)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenise `texts`, which must be valid Unicode. The interpreter is free meanwhile."""
        self._configure()
        if self._prompt:
            texts = [self._prompt + text for text in texts]
        return Tokens(self._tokenizer.encode_batch_fast(texts), self._max_tokens)

    def _configure(self) -> None:
        """transformers sets padding and truncation on the same object whenever it is called."""
        tokenizer = self._tokenizer
        if tokenizer.padding is not None:
            tokenizer.no_padding()
        truncation = tokenizer.truncation
        if truncation is None or (truncation["max_length"], truncation["direction"]) != (
            self._max_tokens,
            self._side,
        ):
            tokenizer.enable_truncation(self._max_tokens, direction=self._side)

    def _check(self, model: SentenceTransformer) -> None:
        features = model.preprocess(list(_PROBES), prompt=self._prompt or None)
        mask = features["attention_mask"].bool()
        theirs = [row[keep].numpy() for row, keep in zip(features["input_ids"], mask, strict=True)]
        types = features.get("token_type_ids")
        if types is not None and bool(types[mask].any()):
            raise _different("it gives single texts a token type other than 0")
        for probe, expected, ids in zip(_PROBES, theirs, self(_PROBES).ids(), strict=True):
            if not np.array_equal(expected, ids):
                raise _different(f"its tokenizer gives {probe[:30]!r} ids that the fast path does not")
            if len(ids) == 0:
                raise _different("its tokenizer gives an empty text no tokens at all")


def _different(why: str) -> Unsupported:
    return Unsupported("The fast path does not know this model", why=why)
