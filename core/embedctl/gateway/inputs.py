"""The texts of a request, checked; and token ids turned back into texts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

from embedctl.gateway.counting import count_tokens
from embedctl.gateway.problems import Problem
from embedctl.settings import GatewaySettings

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BYTES_PER_TOKEN: Final = 4
"""Of English in most vocabularies; only where a model has no tokenizer on this disk."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a request wants to have embedded: texts, or lists of token ids."""

    items: Sequence[str] | Sequence[Sequence[int]]
    single: bool
    """It was not in a list."""

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        """What error answers call one of them."""
        return "input" if self.single else f"input[{index}]"


def read_inputs(value: object, settings: GatewaySettings, *, token_ids: bool, name: str = "input") -> Inputs:
    """Check the `input` of a request.

    Args:
        token_ids: Whether token ids may stand in place of texts.
        name: What error answers call the field.

    Raises:
        Problem: It is empty, has too many texts or token ids, or a text that cannot be embedded; names the
            index.
    """
    if isinstance(value, str):
        _check_text(value, name)
        return Inputs([value], single=True)
    if not isinstance(value, list):
        raise _invalid(
            name, "must be a string or a list of strings" + (", or token ids" if token_ids else "")
        )
    if not value:
        raise _invalid(name, "must not be an empty list")
    if token_ids and _is_id(value[0]):
        _check_count(len(value), settings.max_tokens)  # before each of millions is looked at
        _check_ids(value, name)
        return Inputs([value], single=True)
    if len(value) > settings.max_texts:
        raise _invalid(
            name, f"has {len(value)} texts and may have {settings.max_texts}; send several requests",
            code="too_many_texts",
        )  # fmt: skip
    if token_ids and isinstance(value[0], list):
        _check_count(sum(len(item) for item in value if isinstance(item, list)), settings.max_tokens)
        for index, item in enumerate(value):
            if not isinstance(item, list):
                raise _invalid(f"{name}[{index}]", f"is {_kind(item)} among lists of token ids")
            _check_ids(item, f"{name}[{index}]")
        return Inputs(value, single=False)
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise _invalid(f"{name}[{index}]", f"must be a string and is {_kind(item)}")
        _check_text(item, f"{name}[{index}]")
    return Inputs(value, single=False)


class TokenIds:
    """The model's own vocabulary, read when it is first needed.

    Args:
        folder: The model's folder, or None while the model is not on disk; may take long.
    """

    def __init__(self, folder: Callable[[], str | None]) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None

    def texts(self, inputs: Inputs, most_tokens: int) -> Sequence[str]:
        """The texts of `inputs`; token ids are decoded.

        Raises:
            Problem: An id is not in the vocabulary, there is no vocabulary, or texts have too many tokens.
        """
        if isinstance(inputs.items[0], str):
            texts = [item for item in inputs.items if isinstance(item, str)]
            self._check_size(texts, most_tokens)
            return texts
        ids = [item for item in inputs.items if not isinstance(item, str)]
        tokenizer = self._load()
        if tokenizer is None:
            raise Problem(
                400,
                "Token ids cannot be decoded: the model's tokenizer.json is not on this machine. Send texts",
                code="no_tokenizer",
                param="input",
            )
        size = tokenizer.get_vocab_size()
        for index, item in enumerate(ids):
            wrong = next((i for i in item if i >= size), None)
            if wrong is not None:
                raise _invalid(
                    inputs.name(index),
                    f"has the token id {wrong}, and the vocabulary of this model ends at {size - 1}; ids of "
                    "another model's tokenizer mean nothing to it",
                    code="invalid_token_id",
                )
        return tokenizer.decode_batch([list(item) for item in ids], skip_special_tokens=True)

    def count(self, texts: Sequence[str]) -> int | None:
        """The tokens of the texts, in full; None where there is no vocabulary."""
        tokenizer = self._load()
        return None if tokenizer is None else count_tokens(tokenizer, texts, sys.maxsize)

    def _check_size(self, texts: Sequence[str], most_tokens: int) -> None:
        characters = sum(map(len, texts))
        if 4 * characters + 2 * len(texts) <= most_tokens:
            return  # no token is shorter than one byte
        size = sum(len(text.encode()) for text in texts)
        if size + 2 * len(texts) <= most_tokens:
            return
        tokenizer = self._load()
        if tokenizer is None:
            _check_count(estimated_tokens(texts), most_tokens, about="about ")
        else:
            _check_count(count_tokens(tokenizer, texts, most_tokens), most_tokens, about="at least ")

    def _load(self) -> Tokenizer | None:
        with self._lock:
            if self._tokenizer is None:
                folder = self._folder()
                file = Path(folder) / "tokenizer.json" if folder else None
                if file is None or not file.is_file():
                    return None
                from tokenizers import Tokenizer

                self._tokenizer = Tokenizer.from_file(str(file))
                self._tokenizer.no_truncation()
                self._tokenizer.no_padding()
            return self._tokenizer


def estimated_tokens(texts: Iterable[str]) -> int:
    """About how many tokens the texts have, by their length alone."""
    return sum(1 + len(text.encode()) // _BYTES_PER_TOKEN for text in texts)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_ids(ids: Sequence[object], name: str) -> None:
    if not ids:
        raise _invalid(name, "must not be an empty list")
    if set(map(type, ids)) == {int} and min(cast("Sequence[int]", ids)) >= 0:
        return  # a million are looked at so in 25 ms
    for place, value in enumerate(ids):
        if not _is_id(value):
            raise _invalid(name, f"has {_kind(value)} among token ids, at place {place}")
        if value < 0:
            raise _invalid(name, f"has the token id {value}", code="invalid_token_id")


def _check_text(text: str, name: str) -> None:
    if "\0" in text:
        raise _invalid(name, "holds a NUL character, which backends cut or refuse")


def _check_count(tokens: int, most: int, *, about: str = "") -> None:
    if tokens > most:
        raise _invalid(
            "input",
            f"has {about}{tokens} tokens and may have {most} in one request; send several requests",
            code="too_many_tokens",
        )


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")


def _invalid(name: str, what: str, *, code: str = "invalid_input") -> Problem:
    return Problem(400, f"{name} {what}", code=code, param=name)
