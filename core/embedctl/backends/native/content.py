"""What stands for a revision where a model is a folder of the user's: a hash over what decides vectors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

_DECIDING: Final = frozenset({".json", ".txt", ".model", ".safetensors", ".bin"})
"""Configuration, vocabulary, weights."""
_WHOLE: Final = 4 * 2**20
_SAMPLES: Final = 256
_SAMPLE: Final = 16 * 2**10


def content_hash(folder: Path) -> str | None:
    """SHA-256 over names, sizes and contents; None if the folder cannot be read. Milliseconds.

    Of a large file its beginning, its end and pieces between count (4 MiB in all): training changes all of
    the weights, and to read gigabytes of them would delay each load by seconds.
    """
    total = hashlib.sha256()
    try:
        for file in sorted(folder.rglob("*")):
            inside = file.relative_to(folder)
            hidden = any(part.startswith(".") for part in inside.parts)
            if hidden or file.suffix not in _DECIDING or not file.is_file():
                continue
            size = file.stat().st_size
            total.update(f"{inside.as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
            _add(total, file, size)
    except OSError:
        return None
    return total.hexdigest()


def _add(total: hashlib._Hash, file: Path, size: int) -> None:
    with file.open("rb", buffering=0) as content:
        if size <= _WHOLE:
            total.update(content.read())
            return
        for number in range(_SAMPLES):
            content.seek((size - _SAMPLE) * number // (_SAMPLES - 1))
            total.update(content.read(_SAMPLE))
