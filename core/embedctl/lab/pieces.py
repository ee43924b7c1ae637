"""What the model's own tokenizer makes of texts: the pieces, and where the length limit would cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedctl.errors import InvalidTextError
from embedctl.lab.tokens import open_tokenizer
from embedctl.records import Piece, Tokenised

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_UNBOUNDED: Final = 1_000_000
"""Limits from here on are transformers' way of saying that there is none."""


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """A model folder's tokenizer with what its other files say of it. Thread-safe."""

    tokenizer: Tokenizer
    prompt: str
    """Put before every text."""
    unknown: str | None
    """The token for what the vocabulary has no pieces for."""
    limit: int | None
    """The model's own, added tokens included."""
    limit_source: str
    keeps_end: bool
    """A text that is too long loses its beginning."""

    def __call__(self, texts: Sequence[str], limit: int | None) -> tuple[Tokenised, ...]:
        """The pieces of each text, of which the model would read `limit` (None: not known).

        Raises:
            InvalidTextError: A text is not valid Unicode.
        """
        for index, text in enumerate(texts):
            _require_unicode(text, index)
        encodings = self.tokenizer.encode_batch([self.prompt + text for text in texts])
        return tuple(
            self._tokenised(encoding, len(text), limit)
            for text, encoding in zip(texts, encodings, strict=True)
        )

    def _tokenised(self, encoding: Encoding, length: int, limit: int | None) -> Tokenised:
        pieces = tuple(
            self._piece(token, start, end, bool(special))
            for token, (start, end), special in zip(
                encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True
            )
        )
        own = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        if limit is None or len(pieces) <= limit or not own:
            return Tokenised(pieces)
        room = max(0, limit - (len(pieces) - len(own)))  # special tokens stay; the text makes room for them
        if self.keeps_end:
            first = own[-room] if room else own[-1] + 1
            return Tokenised(pieces, (own[0], first), (0, pieces[first].start if room else length))
        first = own[room]
        return Tokenised(pieces, (first, own[-1] + 1), (pieces[first - 1].end if room else 0, length))

    def _piece(self, token: str, start: int, end: int, special: bool) -> Piece:
        before = len(self.prompt)
        added = special or 0 < end <= before
        return Piece(token, max(0, start - before), max(0, end - before), added, token == self.unknown)


def model_tokenizer(folder: Path) -> ModelTokenizer | None:
    """The tokenizer of a model's folder; None if it has no fast one. Takes up to a second."""
    tokenizer = open_tokenizer(folder)
    if tokenizer is None:
        return None
    config = _json(folder / "tokenizer_config.json")
    limit, source = _limit(folder, config)
    return ModelTokenizer(
        tokenizer, _prompt(folder), _content(config.get("unk_token")), limit, source,
        config.get("truncation_side") == "left",
    )  # fmt: skip


def _limit(folder: Path, config: dict[str, Any]) -> tuple[int | None, str]:
    for file, found in (
        ("sentence_bert_config.json", _json(folder / "sentence_bert_config.json").get("max_seq_length")),
        ("tokenizer_config.json", config.get("model_max_length")),
    ):
        if isinstance(found, int) and 0 < found < _UNBOUNDED:
            return found, file
    return None, "the model's files state no length limit"


def _prompt(folder: Path) -> str:
    config = _json(folder / "config_sentence_transformers.json")
    return str((config.get("prompts") or {}).get(config.get("default_prompt_name")) or "")


def _content(token: object) -> str | None:
    """A special token, which is written as a string or as an object with the string in it."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _json(file: Path) -> dict[str, Any]:
    """An object; empty where there is none that can be read, as these files are all optional."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _require_unicode(text: str, index: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"Text {index} is not valid Unicode",
            why=f"lone surrogate U+{ord(text[error.start]):04X} at character {error.start}",
            remedy="leave out that character",
            index=index,
        ) from error
