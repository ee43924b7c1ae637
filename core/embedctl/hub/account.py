"""What the disk holds of a model, as the record that all faces show. Reads names and sizes, no content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from embedctl.hub import selection
from embedctl.hub.cache import Check, RepoCache
from embedctl.hub.checks import Listing
from embedctl.records import FileState, ModelFile, ModelStatus

ON_DISK = (FileState.PRESENT, FileState.VERIFIED)


def of_nothing(repo: str, commit: str | None, free: int | None) -> ModelStatus:
    """A model of which nobody could say anything."""
    return ModelStatus(
        repo=repo,
        revision=commit,
        files=(),
        folder=None,
        free_bytes=free,
        complete=False,
        converted=False,
        detail="nothing is on disk, and the Hub was not asked",
    )


def of_cache(
    cache: RepoCache, listing: Listing, checks: Mapping[str, Check], free: int | None, note: str = ""
) -> ModelStatus:
    """A model in the Hub's cache, against what is needed of it."""
    files = []
    for file in listing.files:
        state, on_disk = cache.look(listing.commit, file, checks.get(file.path))
        files.append(ModelFile(file.path, file.size, file.sha256, on_disk, state))
    snapshot = cache.snapshot(listing.commit)
    return ModelStatus(
        repo=cache.repo,
        revision=listing.commit,
        files=tuple(files),
        folder=str(snapshot) if snapshot.is_dir() else None,
        free_bytes=free,
        complete=all(file.state in ON_DISK for file in files) and _loadable([file.path for file in files]),
        converted=cache.converted(listing.commit).is_dir(),
        detail=". ".join(part for part in (_summary(files), note) if part),
    )


def of_folder(repo: str, folder: Path, free: int | None, *, include_heads: bool) -> ModelStatus:
    """A folder of the user's, used as it is."""
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    chosen = selection.select_files(names, modules_in(folder), include_heads=include_heads)
    sizes = {path: (folder / path).stat().st_size for path in chosen}
    return ModelStatus(
        repo=repo,
        revision=None,
        files=tuple(ModelFile(path, size, None, size, FileState.PRESENT) for path, size in sizes.items()),
        folder=str(folder),
        free_bytes=free,
        complete=_loadable(chosen),
        converted=False,
        detail="a local folder, used as it is",
    )


def modules_in(folder: Path) -> list[dict[str, object]] | None:
    """The module list of a model folder; None where there is none that can be read."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return modules if isinstance(modules, list) else None


def _loadable(paths: list[str] | tuple[str, ...]) -> bool:
    return bool(selection.weights_of(paths)) and not selection.lacks_shards(paths)


def _summary(files: list[ModelFile]) -> str:
    damaged = [file.path for file in files if file.state is FileState.DAMAGED]
    if damaged:
        return f"damaged: {', '.join(damaged)}; a download fetches only what is damaged"
    here = sum(file.state in ON_DISK for file in files)
    if here < len(files):
        return f"{here} of {len(files)} files are on disk"
    checked = all(file.state is FileState.VERIFIED for file in files)
    return "all files are on disk and verified" if checked else "all files are on disk"
