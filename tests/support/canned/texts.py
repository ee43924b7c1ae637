"""Pieces of texts, and passages near to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedctl.records import Nearest, NearPassage, Piece, Tokenisation, Tokenised

PASSAGES = (
    ("en", "The river is 2,850 km long and flows through ten countries before it reaches the Black Sea."),
    ("de", "Der Fluss ist 2850 km lang und fließt durch zehn Länder, bevor er das Schwarze Meer erreicht."),
    ("es", "La contraseña se puede cambiar en la página de la cuenta, bajo seguridad."),
    ("en", "To reset your password, open the page of your account and choose security."),
    ("zh", "这座桥于一九三二年建成，长五百米。"),
)
"""Language and text."""


def tokenisation(texts: Sequence[str], limit: int | None = 8192) -> Tokenisation:
    """A piece per word, after the manner of SentencePiece; an emoji is unknown."""
    return Tokenisation(
        "BAAI/bge-m3",
        tuple(_tokenised(text, limit) for text in texts),
        limit,
        "native, as it is loaded" if limit is not None else "the model's files state no length limit",
    )


def _tokenised(text: str, limit: int | None) -> Tokenised:
    words = [
        Piece("<unk>", *word.span(), unknown=True)
        if ord(word.group()[0]) > 0x1F000
        else Piece(f"▁{word.group()}", *word.span())
        for word in re.finditer(r"\S+", text)
    ]
    end = len(text)
    pieces = (Piece("<s>", 0, 0, added=True), *words, Piece("</s>", end, end, added=True))
    if limit is None or len(pieces) <= limit:
        return Tokenised(pieces)
    return Tokenised(pieces, (limit - 1, len(pieces) - 1), (words[limit - 3].end if limit > 2 else 0, end))


def nearest(
    backend: str, passages: Sequence[tuple[str, str]], scores: np.ndarray[Any, Any], count: int
) -> Nearest:
    """`scores`: shape (texts, passages)."""
    return Nearest(
        backend,
        f"{len(passages)} passages",
        len(passages),
        len(passages),
        0,
        0,
        tuple(
            tuple(NearPassage(int(i), passages[i][1], passages[i][0], float(row[i])) for i in order)
            for row, order in zip(scores, np.argsort(-scores, axis=1)[:, :count], strict=True)
        ),
        0.41,
    )
