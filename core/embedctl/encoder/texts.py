"""What can be said about texts before any model sees them."""

from __future__ import annotations

from collections.abc import Sequence

from embedctl.errors import InvalidTextError
from embedctl.records import TextFailure


def require_strings(texts: Sequence[object]) -> None:
    """Raise for the first element that is no string.

    Raises:
        InvalidTextError: Names the index and the type.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidTextError(
                f"Text {index} is not a string",
                why=f"it is of type {type(text).__name__}",
                remedy="pass strings only",
                index=index,
            )


def unencodable(texts: Sequence[str]) -> tuple[TextFailure, ...]:
    """The texts that are not valid Unicode: a lone surrogate has no UTF-8, and no tokenizer takes it.

    They fail alone rather than being repaired: a vector for a text that was not given would be silent loss.
    """
    failures = []
    for index, text in enumerate(texts):
        if text.isascii():
            continue
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            character = ord(text[error.start])
            failures.append(
                TextFailure(
                    index, f"not valid Unicode: lone surrogate U+{character:04X} at character {error.start}"
                )
            )
    return tuple(failures)
