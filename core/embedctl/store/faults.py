"""SQLite's errors in the words of ours: what happened to the history file, why, and what to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from embedctl.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StoreNewerError,
    StoreReadOnlyError,
)

_ELSEWHERE = "name another folder with EMBEDCTL_HOME"


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """The `StoreError` for what SQLite said about the file at `path`."""
    # The low byte is the primary result code, the rest says which flavour of it.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    said = str(error)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StoreCorruptError(
            f"The history file {path} is damaged",
            why=f"SQLite says: {said}",
            remedy=f"move it away to start a new one, or rescue it with `sqlite3 {path} .recover`",
        )
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(
            f"The history file {path} cannot grow",
            why=f"SQLite says: {said}",
            remedy="free space on that disk; what was recorded so far is safe",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN) or path.is_dir():
        return read_only(path, _why_not_writable(path) or f"SQLite says: {said}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return held(path, f"SQLite says: {said}")
    return StoreError(
        f"The history file {path} could not be used", why=f"SQLite says: {said}", remedy=_ELSEWHERE
    )


def read_only(path: Path, why: str) -> StoreReadOnlyError:
    return StoreReadOnlyError(
        f"The history file {path} cannot be written",
        why=why,
        remedy=f"change the permissions, or {_ELSEWHERE}",
    )


def held(path: Path, why: str) -> StoreBusyError:
    return StoreBusyError(
        f"The history file {path} is held by another process",
        why=why,
        remedy="try again, or end the program that holds it",
    )


def newer(path: Path, found: int, known: int) -> StoreNewerError:
    return StoreNewerError(
        f"The history file {path} was written by a newer version of embedctl",
        why=f"its schema is version {found}, this program knows versions up to {known}",
        remedy=f"upgrade embedctl, or {_ELSEWHERE}",
    )


def foreign(path: Path) -> StoreForeignError:
    return StoreForeignError(
        f"{path} is a database of another program",
        why="it lacks embedctl's application id",
        remedy=f"move it away, or {_ELSEWHERE}",
    )


def closed(path: Path) -> StoreError:
    return StoreError(f"The history file {path} is closed", why="the program is ending")


def _why_not_writable(path: Path) -> str:
    folder = path.parent
    if path.is_dir():
        return "it is a folder"
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if path.exists() and not os.access(path, os.W_OK, effective_ids=_EFFECTIVE):
        return "the file is read-only for this user"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
        return f"the folder {folder} is read-only for this user"
    return ""


_EFFECTIVE = os.access in os.supports_effective_ids
