"""One repository revision in the Hub's cache, and what we keep beside it.

The layout is the documented one of huggingface_hub, so every other program finds the files too:
```
models--BAAI--bge-m3/
  blobs/<etag>                 contents, named by the Hub's hash
  blobs/<etag>.incomplete      a download that was cut; resumed from here
  snapshots/<commit>/<path>    links to blobs
  refs/<branch>                the commit that a branch or tag stood at
  embedctl/<commit>.json       ours: what the revision needs, and what was checked when
  embedctl/<commit>/           ours: the snapshot with converted weights in place of pickled ones
```
The converted weights do not lie in the snapshot itself: any program that loads the model from this cache
would then get weights rounded to float16 instead of the repository's own, without being told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from embedctl.hub.checks import RemoteFile
from embedctl.records import FileState

_COMMIT = re.compile(r"[0-9a-f]{40}")
_RECORD_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Check:
    """The last hash check of one file, valid while size and time of the file stay the same."""

    size: int
    mtime_ns: int
    sound: bool


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered about one revision, so that offline questions have answers."""

    files: tuple[RemoteFile, ...] = ()
    """The files that dense embedding needs."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """By path."""
    converted: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each converted file, by its path."""


def default_root() -> Path:
    """Where huggingface_hub keeps its cache (`HF_HUB_CACHE`, else `HF_HOME`/hub)."""
    from huggingface_hub import constants  # costs start-up time

    return Path(constants.HF_HUB_CACHE)


class RepoCache:
    """The cache folder of one model repository."""

    def __init__(self, root: Path, repo: str) -> None:
        self.root = root
        self.repo = repo
        self.folder = root / f"models--{repo.replace('/', '--')}"

    # Where things are

    def blob(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / file.etag

    def partial(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / f"{file.etag}.incomplete"

    def lock(self, file: RemoteFile) -> Path:
        """The lock that huggingface_hub takes for the same file."""
        return self.root / ".locks" / self.folder.name / f"{file.etag}.lock"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def converted(self, commit: str) -> Path:
        return self.folder / "embedctl" / commit

    def _record_file(self, commit: str) -> Path:
        return self.folder / "embedctl" / f"{commit}.json"

    def commit_of(self, revision: str) -> str | None:
        """The commit that `revision` is known to stand for without asking the Hub."""
        if _COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        return commit if _COMMIT.fullmatch(commit) else None

    # What is remembered

    def read_record(self, commit: str) -> Record | None:
        """The record of a revision; None when there is none that can be read."""
        try:
            data = json.loads(self._record_file(commit).read_text(encoding="utf-8"))
            if data["format"] != _RECORD_FORMAT:
                return None
            return Record(
                files=tuple(RemoteFile(**entry) for entry in data["files"]),
                checks={path: Check(**entry) for path, entry in data["checks"].items()},
                converted=dict(data["converted"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None  # it can be made anew from the Hub's answer

    def write_record(self, commit: str, record: Record) -> None:
        file = self._record_file(commit)
        file.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "format": _RECORD_FORMAT,
            "files": [asdict(entry) for entry in record.files],
            "checks": {path: asdict(check) for path, check in record.checks.items()},
            "converted": dict(record.converted),
        }
        beside = file.with_suffix(".json.new")
        beside.write_text(json.dumps(data, indent=1), encoding="utf-8")
        beside.replace(file)

    def note_ref(self, revision: str, commit: str) -> None:
        """Remember which commit a branch or tag stands at."""
        if revision == commit or self.commit_of(revision) == commit:
            return
        file = self.folder / "refs" / revision
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.new")
        beside.write_text(commit, encoding="ascii")
        beside.replace(file)

    # What is on disk

    def listing(self, commit: str) -> tuple[RemoteFile, ...]:
        """The snapshot's files as far as the disk can tell; the names of blobs are their hashes."""
        snapshot = self.snapshot(commit)
        found = []
        for file in sorted(snapshot.rglob("*")):
            if file.is_file():
                etag = file.readlink().name if file.is_symlink() else ""
                found.append(
                    RemoteFile(
                        path=file.relative_to(snapshot).as_posix(),
                        size=file.stat().st_size,
                        sha256=etag if len(etag) == 64 else None,
                        blob_id=etag if len(etag) == 40 else None,
                    )
                )
        return tuple(found)

    def look(self, commit: str, file: RemoteFile, check: Check | None) -> tuple[FileState, int]:
        """The state of one file, and its bytes on disk. Reads no content."""
        try:
            stat = (self.snapshot(commit) / file.path).stat()
        except OSError:
            partial = self.partial_bytes(file)
            return (FileState.PARTIAL if partial else FileState.MISSING), partial
        if stat.st_size != file.size:
            return FileState.DAMAGED, stat.st_size
        if check is None or (check.size, check.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            return FileState.PRESENT, stat.st_size
        return (FileState.VERIFIED if check.sound else FileState.DAMAGED), stat.st_size

    def partial_bytes(self, file: RemoteFile) -> int:
        """Bytes that a cut download left, or that lie in a blob without a link to it."""
        for path in (self.blob(file), self.partial(file)):
            try:
                return min(path.stat().st_size, file.size)
            except OSError:
                continue
        return 0

    def check_of(self, commit: str, path: str, sound: bool) -> Check:
        """A note that `path` was hashed just now.

        Raises:
            OSError: The file is gone.
        """
        stat = (self.snapshot(commit) / path).stat()
        return Check(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sound=sound)

    # Changes

    def place(self, commit: str, file: RemoteFile) -> None:
        """Let the snapshot show the file's blob."""
        pointer = self.snapshot(commit) / file.path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        blob = self.blob(file)
        beside = pointer.with_name(f"{pointer.name}.new")
        beside.unlink(missing_ok=True)
        try:
            beside.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # a file system without links: the snapshot holds the file itself, as on Windows
            blob.replace(beside)
        beside.replace(pointer)

    def discard(self, commit: str, file: RemoteFile) -> None:
        """Delete one file's content and its link, so that it is fetched anew."""
        (self.snapshot(commit) / file.path).unlink(missing_ok=True)
        self.blob(file).unlink(missing_ok=True)
        self.partial(file).unlink(missing_ok=True)

    def scratch(self, commit: str) -> Path:
        """A new folder in which a converted model is put together."""
        beside = self.converted(commit).parent
        beside.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{commit}.", dir=beside))

    def publish_converted(self, commit: str, scratch: Path, linked: Iterable[str]) -> None:
        """Complete `scratch`, which holds the converted files, with links to all others, and show it.

        The folder appears in one step: it is there as a whole or not at all.
        """
        for path in linked:
            link = scratch / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(self.snapshot(commit) / path, link.parent))
        scratch.chmod(0o755)
        shutil.rmtree(self.converted(commit), ignore_errors=True)
        scratch.replace(self.converted(commit))

    def remove_own(self, commit: str, files: Iterable[RemoteFile]) -> int:
        """Delete what huggingface_hub does not count as part of a revision: partial files, converted
        weights, the record, and links that show nothing (with which it would not touch the repository).

        Returns:
            Bytes freed.
        """
        converted = self.converted(commit)
        folders = [converted, *converted.parent.glob(f"{commit}.*/")]
        doomed = [self.partial(file) for file in files]
        for folder in folders:
            doomed += [file for file in folder.rglob("*") if not file.is_symlink() and file.is_file()]
        freed = 0
        for path in doomed:
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            freed += size
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._record_file(commit).unlink(missing_ok=True)
        for pointer in list(self.snapshot(commit).rglob("*")):
            if pointer.is_symlink() and not pointer.exists():
                pointer.unlink()
        return freed

    def drop_if_empty(self) -> None:
        """Take the repository's folder away once no revision and no content is left in it."""
        snapshots = self.folder / "snapshots"
        if snapshots.is_dir() and any(snapshots.iterdir()):
            return
        blobs = self.folder / "blobs"
        if blobs.is_dir() and any(blobs.iterdir()):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.root / ".locks" / self.folder.name, ignore_errors=True)
