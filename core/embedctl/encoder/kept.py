"""What a complete load leaves for the next one: how a model is made up, and the answers to check it by.

A complete load has sentence-transformers read a model's files, and takes its vectors of known texts for the
reference. Both cost seconds and give the same as long as nothing that they depend on changes: the files,
the dtype, the length limit, the device, the versions of the libraries, the texts. So they are kept in one
file per model and device, beside a list of all that (the basis). A later load whose basis is the same goes
without sentence-transformers (see `direct`). Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embedctl.encoder import canary
from embedctl.encoder.packing import Ints
from embedctl.encoder.spec import ModelSpec, from_json, to_json
from embedctl.errors import EmbedctlError
from embedctl.files import whole_file

_FORMAT: Final = "1"
_MOST_FILES: Final = 8
"""Kept in one folder; each has a tokenizer, of up to 20 MB."""
_NAMES: Final = {
    "files": "the model's files",
    "device": "the device",
    "texts": "the known texts",
    "format": "the form of the reference",
}
"""What a basis' entries are called when one has changed; versions bear their library's name."""

Basis = Mapping[str, str]
Places = Mapping[str, Mapping[str, str]]
"""By file, relative to the model's folder: the name of a parameter (see `architecture.Weights`), and its name
in that file."""


class NotKept(EmbedctlError):
    """There is no reference that holds now; `why` is empty where there never was one."""


@dataclass(frozen=True, slots=True)
class Kept:
    made: str
    """The day, such as 2026-11-22."""
    spec: ModelSpec
    places: Places
    tokenizer: bytes
    """As transformers set it up, which is not always as tokenizer.json says."""
    probe_ids: tuple[Ints, ...]
    """See `source.Source`."""
    probe_vectors: NDArray[np.float32]
    reference: NDArray[np.float32]
    """See `canary.reference_vectors`."""


def basis_of(folder: Path, *, device: str, dtype: str, max_tokens: int | None, texts: object) -> Basis:
    """All that a reference depends on.

    Args:
        folder: The model's.
        device: Its kind and name.
        max_tokens: The limit that was asked for.
        texts: The known texts beside the canary's.
    """
    return {
        "folder": str(folder.resolve()),
        "device": device,
        "dtype": dtype,
        "max_tokens": str(max_tokens),
        "files": _files(folder),
        **{name: version(name) for name in ("torch", "transformers", "sentence-transformers", "tokenizers")},
        "texts": _digest(repr((canary.TEXTS, texts))),
        "format": _FORMAT,
    }


def file_for(references: Path, basis: Basis) -> Path:
    """Where the reference of this model, dtype, limit and device lies; the whole basis stands in it."""
    key = [basis[name] for name in ("folder", "device", "dtype", "max_tokens")]
    return references / f"{_digest(repr(key))[:24]}.npz"


def recall(file: Path, basis: Basis) -> Kept:
    """What `keep` wrote.

    Raises:
        NotKept: There is nothing, or of another basis, or the file is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            _require_same(about["basis"], basis)
            bounds = np.cumsum(arrays["lengths"])[:-1]
            return Kept(
                made=about["made"],
                spec=from_json(about["spec"]),
                places=about["places"],
                tokenizer=arrays["tokenizer"].tobytes(),
                probe_ids=tuple(np.split(arrays["ids"], bounds)),
                probe_vectors=arrays["probes"],
                reference=arrays["reference"],
            )
    except FileNotFoundError as error:
        raise _not_kept("") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise _not_kept(f"the kept reference is damaged ({type(error).__name__})") from error


def keep(file: Path, basis: Basis, kept: Kept) -> None:
    """Write it in place of what was there, and remove the oldest files beside it that are too many.

    Raises:
        StoreError: The file cannot be written.
    """
    about = {"basis": dict(basis), "made": kept.made, "spec": to_json(kept.spec), "places": kept.places}
    with whole_file(file) as part, part.open("wb") as stream:
        np.savez(
            stream,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            tokenizer=np.frombuffer(kept.tokenizer, np.uint8),
            ids=np.concatenate(kept.probe_ids),
            lengths=np.array([len(ids) for ids in kept.probe_ids]),
            probes=kept.probe_vectors,
            reference=kept.reference,
        )
    others = sorted(file.parent.glob("*.npz"), key=lambda other: other.stat().st_mtime, reverse=True)
    for other in others[_MOST_FILES:]:
        other.unlink(missing_ok=True)


def _require_same(kept: Any, basis: Basis) -> None:
    for name, value in basis.items():
        if kept.get(name) != value:
            change = f" ({kept.get(name)}, now {value})" if name not in _NAMES else ""
            raise _not_kept(f"{_NAMES.get(name, name)} changed since the reference was kept{change}")


def _files(folder: Path) -> str:
    """Stands for the content of all files of a model, without reading them.

    The Hub's cache names a file's content by its hash and has a snapshot link to it; of any other file it is
    the size and the time of its last change.
    """
    entries = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            target = path.readlink() if path.is_symlink() else path
            if target.parent.name == "blobs":
                content = target.name
            else:
                stat = path.stat()
                content = f"{stat.st_size} {stat.st_mtime_ns}"
            entries.append(f"{path.relative_to(folder)} {content}")
    return _digest("\n".join(sorted(entries)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _not_kept(why: str) -> NotKept:
    return NotKept("There is no kept reference", why=why)
