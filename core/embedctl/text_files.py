"""Texts out of a file that the user named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from embedctl.errors import UsageError


def lines_of(file: Path) -> list[str]:
    """The lines of a file, or of standard input (`-`); the line feed that ends the last one starts no other.

    Not `splitlines()`: that also ends a line at form feeds and Unicode separators, which stand within texts.

    Raises:
        UsageError: The file is empty, is not UTF-8, or cannot be read.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{'standard input' if str(file) == '-' else file} cannot be read",
            why=str(error),
            remedy="give a text file in UTF-8 that you may read",
        ) from error
    lines = text.removesuffix("\n").split("\n") if text else []
    if not lines:
        raise UsageError("There is nothing to embed", why=f"{file} is empty", remedy="give one text per line")
    return lines


def texts_of(file: Path) -> list[str]:
    """The texts of a file, one a line; of a `.jsonl` file the field `text` of each. Blank lines are left out.

    Raises:
        UsageError: As `lines_of`; or a line of JSON has no such field.
    """
    lines = [line for line in lines_of(file) if line.strip()]
    if file.suffix != ".jsonl":
        return lines
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(str(json.loads(line)["text"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{file}: text {number} cannot be read",
                why=f"{type(error).__name__}: {error}",
                remedy='write each line as {"text": "…"}, or give a file that does not end in .jsonl',
            ) from error
    return texts
