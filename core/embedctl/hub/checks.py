"""Hashes as the Hub states them: SHA-256 for files in LFS, Git's blob hash for all others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 4 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as the Hub describes it."""

    path: str
    size: int
    sha256: str | None
    """Set for files in LFS."""
    blob_id: str | None
    """Git's hash of the blob; for a file in LFS that is the pointer's hash and of no use here."""

    @property
    def etag(self) -> str:
        """The name of the file's blob in the cache: its SHA-256 in LFS, its Git blob hash otherwise."""
        return self.sha256 or self.blob_id or ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is needed of a repository at one commit."""

    commit: str
    files: tuple[RemoteFile, ...]
    stated: bool = True
    """The Hub said so; False: guessed from what lies on disk."""


def is_sound(file: Path, expected: RemoteFile, told: Callable[[int], None] | None = None) -> bool:
    """Whether `file` has the size and hash that the Hub states.

    `told` hears the number of bytes of each block that was read, and may raise to stop.

    Raises:
        OSError: The file cannot be read.
    """
    if file.stat().st_size != expected.size:
        return False
    if expected.sha256:
        return hash_file(file, hashlib.sha256(), told) == expected.sha256
    return hash_file(file, _git_blob(expected.size), told) == expected.blob_id


def sha256_of(file: Path, told: Callable[[int], None] | None = None) -> str:
    return hash_file(file, hashlib.sha256(), told)


def git_blob_hash(content: bytes) -> str:
    """Git's name for a file with this content."""
    digest = _git_blob(len(content))
    digest.update(content)
    return digest.hexdigest()


def hash_file(file: Path, digest: hashlib._Hash, told: Callable[[int], None] | None = None) -> str:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            if told:
                told(len(block))
    return digest.hexdigest()


def _git_blob(size: int) -> hashlib._Hash:
    # Git's object format, not a protection: whoever can forge SHA-1 here controls the Hub's answer anyway.
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
