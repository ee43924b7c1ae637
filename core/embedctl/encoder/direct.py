"""Loading a model without sentence-transformers, by what an earlier load has kept of it.

Importing transformers and sentence-transformers takes longer than reading the weights. Once they have said
what a model is made of (see `kept`), its weights are read from the files straight to the device. What comes
out is checked like any other load: ids and vectors of known texts must be those that sentence-transformers
gave.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from embedctl.encoder.architecture import build
from embedctl.encoder.kept import Kept, Places
from embedctl.encoder.loading import shares_memory, touch_pages
from embedctl.encoder.source import Source
from embedctl.encoder.spec import ModelSpec, spec_fields

_READERS: Final = 4
_WEIGHTS: Final = "model.safetensors"
_PREFIXES: Final = ("", "bert.", "roberta.")
"""Before the names of a backbone that was saved with a head on it."""


def load_direct(folder: Path, kept: Kept, device: torch.device, dtype: torch.dtype) -> Source:
    """The source that `source_of` would make of the loaded model.

    Raises:
        OSError, SafetensorError, KeyError: The files are not as they were.
        RuntimeError: Memory did not suffice.
    """
    with ThreadPoolExecutor(_READERS, "weights") as pool:
        weights = _FileWeights(folder, kept.places, device, dtype)
        reading = pool.map(weights.read, _groups(kept.spec))
        # Beside the copies, which do without the interpreter; this does not.
        tokenizer: Tokenizer = Tokenizer.from_buffer(kept.tokenizer)
        ready = dict(reading)
    architecture = build(kept.spec, lambda *names: ready.pop(names))
    return Source(architecture, tokenizer, kept.probe_ids, kept.probe_vectors)


def to_keep(folder: Path, source: Source, reference: NDArray[np.float32]) -> Kept | None:
    """What `load_direct` needs the next time; None where the weights are no safetensors that it can read.

    Args:
        source: Of the completely loaded model.
        reference: The canary's.
    """
    spec = ModelSpec(**spec_fields(source.architecture))
    places = _find(folder, spec)
    if places is None:
        return None
    return Kept(
        made=datetime.now(UTC).date().isoformat(),
        spec=spec,
        places=places,
        tokenizer=source.tokenizer.to_str().encode(),
        probe_ids=source.probe_ids,
        probe_vectors=source.probe_vectors,
        reference=reference,
    )


class _FileWeights:
    """Reads parameters from safetensors files to a device."""

    def __init__(self, folder: Path, places: Places, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._unified = shares_memory(device)
        self._files = {file: safe_open(folder / file, framework="pt", device="cpu") for file in places}
        self._places = {name: (file, key) for file, keys in places.items() for name, key in keys.items()}

    def read(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], Tensor]:
        """The parameters of these names as one tensor, and the names."""
        parts = [self._read(name) for name in names]
        return names, parts[0] if len(parts) == 1 else torch.cat(parts)

    def _read(self, name: str) -> Tensor:
        file, key = self._places[name]
        mapped: Tensor = self._files[file].get_tensor(key)  # type: ignore[no-untyped-call]
        if self._unified:
            touch_pages([mapped])
        # Rounded on the CPU: half the bytes to copy, and no float32 on a GPU whose memory is counted.
        return mapped.to(self._dtype).to(self._device)


def _groups(spec: ModelSpec) -> list[tuple[str, ...]]:
    """The names of a model's parameters, by the tensors that they are joined to."""
    groups: list[tuple[str, ...]] = []

    def note(*names: str) -> Tensor:
        groups.append(names)
        return torch.empty(1, device="meta")

    build(spec, note)
    return groups


def _find(folder: Path, spec: ModelSpec) -> Places | None:
    """Where the parameters lie; None unless all of them are found."""
    try:
        chain = json.loads((folder / "modules.json").read_bytes())
        folders = [str(module["path"]) for module in chain]
    except FileNotFoundError:
        folders = [""]  # a plain transformers folder
    places: dict[str, dict[str, str]] = {}
    wanted = {name for group in _groups(spec) for name in group}
    for number, path in enumerate(folders):
        own = f"{number}."
        names = {name for name in wanted if (name.startswith(own) if number else not name[0].isdigit())}
        for file in _weight_files(folder / path) if names else []:
            with safe_open(file, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118 (it is no mapping)
                    name = own + key if number else _bare(key, names)
                    if name in names:
                        names.discard(name)
                        places.setdefault(str(file.relative_to(folder)), {})[name] = key
        wanted -= {name for found in places.values() for name in found}
    return places if not wanted else None


def _bare(key: str, names: set[str]) -> str:
    return next((bare for prefix in _PREFIXES if (bare := key.removeprefix(prefix)) in names), key)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    try:
        index: dict[str, Any] = json.loads((folder / f"{_WEIGHTS}.index.json").read_bytes())
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(set(index["weight_map"].values()))]
