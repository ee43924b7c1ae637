"""The only writer to stdout, and the talk on stderr."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from embedctl.errors import EmbedctlError

SCHEMA_VERSION = 1
"""Of every `--json` document. It grows when a field changes its meaning or goes; new fields leave it."""


def emit(text: str) -> None:
    """Write data to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def emit_file(file: Path) -> None:
    """Write a text file's content to stdout."""
    with file.open(encoding="utf-8", newline="") as lines:
        shutil.copyfileobj(lines, sys.stdout)
    sys.stdout.flush()


def emit_json(kind: str, data: object) -> None:
    """Write one JSON document: `schema_version`, `kind` and the data under `data`."""
    document = {"schema_version": SCHEMA_VERSION, "kind": kind, "data": plain(data)}
    emit(json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def emit_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] = frozenset()
) -> None:
    """Write a table with aligned columns; those named in `right` align to the right, as numbers do."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        emit("  ".join(cells).rstrip())


def filled(text: str, *, widest: int = 110) -> str:
    """A sentence in lines of the terminal's width; 80 columns where there is none."""
    return textwrap.fill(text, min(widest, shutil.get_terminal_size((80, 24)).columns))


def say(text: str) -> None:
    """Tell something that is not data, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def say_error(error: EmbedctlError) -> None:
    """What happened, why, what to do: three lines, fewer where there is nothing to say."""
    say(f"error: {error.what}")
    if error.why:
        say(f"  why: {error.why}")
    if error.remedy:
        say(f"  try: {error.remedy}")


def plain(value: object) -> Any:
    """Records as what JSON knows: dataclasses as objects, not-finite numbers as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
