"""Files that people get from us: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedctl.errors import StoreError


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A place beside `target` to write to; it takes the target's place when the block has ended well.

    Raises:
        StoreError: The file cannot be written; what was there before still is.
    """
    target = target.resolve()  # what a link points to is replaced, never the link
    if target.exists() and not target.is_file():
        raise StoreError(
            f"{target} could not be written",
            why="it is a folder or a device, and the file would take its place",
            remedy="name a file",
        )
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{target} could not be written",
            why=error.strerror or str(error),
            remedy="choose another place or make room there",
        ) from error
