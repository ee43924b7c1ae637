"""The model: its files on the Hub and on disk."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FileState(StrEnum):
    MISSING = "missing"
    PARTIAL = "partial"
    PRESENT = "present"
    """On disk with the right size; its hash was not looked at since."""
    VERIFIED = "verified"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class ModelFile:
    path: str
    """Relative to the repository."""
    size: int | None
    """Bytes, as the Hub states."""
    sha256: str | None
    """As the Hub states, for files in LFS; smaller files are checked by their git blob hash."""
    on_disk: int
    state: FileState


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model: what is needed of it, and what is here."""

    repo: str
    revision: str | None
    """The full commit hash once known."""
    files: tuple[ModelFile, ...]
    """Empty when neither the Hub nor the disk could say."""
    folder: str | None
    """The snapshot's folder, once any of it is here."""
    free_bytes: int | None
    complete: bool
    """Every needed file is present."""
    converted: bool
    """A safetensors file made from a pickle stands beside it."""
    detail: str = ""

    @property
    def total_bytes(self) -> int | None:
        sizes = [file.size for file in self.files]
        return sum(s for s in sizes if s is not None) if sizes and None not in sizes else None

    @property
    def missing_bytes(self) -> int | None:
        if self.total_bytes is None:
            return None
        return sum(max(0, (f.size or 0) - f.on_disk) for f in self.files)


@dataclass(frozen=True, slots=True)
class Download:
    """One download that ended, well or not."""

    repo: str
    revision: str | None
    started: float
    ended: float
    bytes: int | None
    """Size of what was fetched; None if nobody counted."""
    outcome: str
    """`done`, `cancelled`, or what went wrong."""
    id: int | None = None
    """Set by the store."""
