"""One model at one revision: what is needed of it, what is here, and bringing the two together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl.errors import HubError, UsageError
from embedctl.hub import account, selection
from embedctl.hub.background import run_cancellable
from embedctl.hub.bars import FileBars
from embedctl.hub.cache import Record, RepoCache, default_root
from embedctl.hub.checks import Listing, RemoteFile, is_sound, sha256_of
from embedctl.hub.conversion import convert_weights
from embedctl.progress import CancelToken, Progress
from embedctl.records import FileState, ModelStatus

if TYPE_CHECKING:  # huggingface_hub costs start-up time
    from embedctl.hub.failures import Origin

_SPARE_BYTES = 128 << 20
"""Room that a download leaves on the disk."""


def free_bytes(place: Path) -> int | None:
    """Free bytes of the disk on which `place` lies or will lie; None if the system cannot say."""
    for folder in (place, *place.parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


class ModelHub:
    """One model at one revision.

    Args:
        repo: A repository on the Hub, or a folder of a sentence-transformers model, which is used as it is.
        revision: A commit, branch or tag.
        cache_dir: The Hub's cache; None: as huggingface_hub has it (`HF_HUB_CACHE`, `HF_HOME`).
        endpoint: The Hub's address; None: as huggingface_hub has it (`HF_ENDPOINT`).
        include_heads: Also fetch BGE-M3's ColBERT and sparse heads.
        free_space: Tells the free bytes of a folder's disk.

    All methods may be called from any thread; two downloads of the same file wait for one another.
    """

    def __init__(
        self,
        repo: str,
        revision: str,
        *,
        cache_dir: Path | None = None,
        endpoint: str | None = None,
        include_heads: bool = False,
        free_space: Callable[[Path], int | None] = free_bytes,
    ) -> None:
        self.repo = repo
        self.revision = revision
        self._cache_dir = cache_dir
        self._endpoint = endpoint
        self._include_heads = include_heads
        self._free_space = free_space

    # Questions

    def status(self, *, online: bool = True) -> ModelStatus:
        """What is needed, and what is on disk by name and size; no content is read.

        With `online`, the Hub says what is needed; if it cannot be asked, or without `online`, the disk says
        what it knows, and `detail` tells that.

        Raises:
            HubError: The Hub could not be asked, and nothing is on disk.
        """
        if self._local_folder is not None:
            return self._local_status(self._local_folder)
        if not online:
            return self._status(self._known())
        try:
            return self._status(self._look_up())
        except HubError as error:
            known = self._known()
            if known is None:
                raise
            return self._status(known, note=f"the disk's own account: {error.what}")

    def folder(self, *, dtype: str | None = None) -> Path | None:
        """The folder that `SentenceTransformer` loads, or None while the model is incomplete.

        Where pickled weights were converted, that is the folder with the float16 safetensors file, and
        loading from it never unpickles. `dtype="float32"` asks for the repository's own weights instead: the
        converted ones are rounded, and float32 results would differ from the model's published ones.
        """
        if self._local_folder is not None:
            return self._local_folder
        known = self._known()
        if known is None or not self._status(known).complete:
            return None
        converted = self._cache.converted(known.commit)
        return converted if converted.is_dir() and dtype != "float32" else self._cache.snapshot(known.commit)

    # Work

    def download(self, progress: Progress, cancel: CancelToken) -> ModelStatus:
        """Fetch what is missing, check every file's hash, and convert pickled weights.

        A file that is here is hashed once and fetched again alone if it is damaged. A cut download goes on
        where it stopped, also in a later process.

        Raises:
            Cancelled: Within about a second of the wish; everything fetched so far is kept.
            HubError: One of its subclasses says what is wrong; everything fetched so far is kept.
        """
        if self._local_folder is not None:
            return self._local_status(self._local_folder)
        listing = self._needed(progress, cancel)
        try:
            self._check(listing, progress, cancel, only_unchecked=True)
            for file in self._damaged(listing):
                self._cache.discard(listing.commit, file)
            self._require_space(listing)
            self._save(listing, self._record(listing))
            self._fetch(listing, progress, cancel)
            self._cache.note_ref(self.revision, listing.commit)
            self._convert(listing, progress, cancel)
        except OSError as error:
            from embedctl.hub.failures import explain_system

            raise explain_system(error) from error
        return self._status(listing)

    def verify(self, progress: Progress, cancel: CancelToken) -> ModelStatus:
        """Hash every file that is here, also the converted ones. Works offline once the model was fetched.

        A damaged file stays in place and is named in the status; `download` fetches it again. A damaged
        converted file is deleted; `download` makes it again.

        Raises:
            Cancelled: What was hashed so far is remembered.
            HubError: Nothing is on disk and the Hub could not be asked, or a file cannot be read.
        """
        if self._local_folder is not None:
            return self._local_status(self._local_folder)
        listing = self._known() or self._needed(progress, cancel)
        try:
            self._check(listing, progress, cancel, only_unchecked=False)
            note = self._check_converted(listing, progress, cancel)
        except OSError as error:
            from embedctl.hub.failures import explain_system

            raise explain_system(error) from error
        return self._status(listing, note=note)

    def remove(self) -> int:
        """Delete this revision from the cache: its files, partial and converted ones too.

        Contents that another revision of the repository shows as well stay.

        Returns:
            Bytes freed; 0 when nothing was here.

        Raises:
            UsageError: The model is a folder of the user's.
            HubError: A file cannot be deleted.
        """
        if self._local_folder is not None:
            raise UsageError(
                f"{self.repo} is not deleted",
                why="it is a folder of yours, not a part of the cache",
                remedy="delete it yourself if you do not need it",
            )
        commit = self._cache.commit_of(self.revision)
        if commit is None:
            return 0
        from embedctl.hub.failures import explain_system
        from embedctl.hub.remote import delete_revision

        known = self._known()
        try:
            freed = self._cache.remove_own(commit, known.files if known else ())
            freed += delete_revision(self._cache.root, self.repo, commit)
            self._cache.drop_if_empty()
        except OSError as error:
            raise explain_system(error) from error
        return freed

    # What is needed

    @cached_property
    def _cache(self) -> RepoCache:
        return RepoCache(self._cache_dir or default_root(), self.repo)

    @cached_property
    def _origin(self) -> Origin:
        from embedctl.hub.failures import Origin
        from embedctl.hub.remote import default_endpoint

        return Origin(self.repo, self.revision, (self._endpoint or default_endpoint()).rstrip("/"))

    @property
    def _local_folder(self) -> Path | None:
        folder = Path(self.repo).expanduser()
        return folder if folder.is_dir() else None

    def _look_up(self) -> Listing:
        from embedctl.hub.remote import look_up

        return look_up(self._origin, include_heads=self._include_heads)

    def _needed(self, progress: Progress, cancel: CancelToken) -> Listing:
        """What to fetch. A commit never changes, so what is recorded of it need not be asked again."""
        if self._cache.commit_of(self.revision) == self.revision and not self._include_heads:
            record = self._cache.read_record(self.revision)
            if record is not None and record.files:
                return Listing(self.revision, record.files)
        progress("Asking the Hub")
        try:
            return run_cancellable(self._look_up, cancel)
        except HubError:
            known = self._known()
            if known is None or not self._status(known).complete:
                raise
            return known

    def _known(self) -> Listing | None:
        """What the disk knows to be needed: our record, else what lies in the snapshot."""
        commit = self._cache.commit_of(self.revision)
        if commit is None:
            return None
        record = self._cache.read_record(commit)
        if record is not None and record.files:
            return Listing(commit, record.files)
        present = {file.path: file for file in self._cache.listing(commit)}
        chosen = selection.select_files(present, account.modules_in(self._cache.snapshot(commit)))
        return Listing(commit, tuple(present[path] for path in chosen), stated=False) if chosen else None

    # Steps of the work

    def _record(self, listing: Listing) -> Record:
        record = self._cache.read_record(listing.commit) or Record()
        return replace(record, files=listing.files) if listing.stated else record

    def _save(self, listing: Listing, record: Record) -> None:
        self._cache.write_record(listing.commit, record)

    def _damaged(self, listing: Listing) -> list[RemoteFile]:
        checks = self._record(listing).checks
        return [
            file
            for file in listing.files
            if self._cache.look(listing.commit, file, checks.get(file.path))[0] is FileState.DAMAGED
        ]

    def _check(
        self, listing: Listing, progress: Progress, cancel: CancelToken, *, only_unchecked: bool
    ) -> None:
        """Hash files that are here and remember the outcome."""
        record = self._record(listing)
        checks = dict(record.checks)
        due = []
        for file in listing.files:
            state, _ = self._cache.look(listing.commit, file, checks.get(file.path))
            here = state in (FileState.PRESENT, FileState.VERIFIED, FileState.DAMAGED)
            if file.etag and (state is FileState.PRESENT if only_unchecked else here):
                due.append(file)
        bars = FileBars(due, "Verifying", progress)
        try:
            for file in due:

                def told(count: int, path: str = file.path) -> None:
                    cancel.raise_if_cancelled()
                    bars.advance(path, count)
                    bars.show()

                sound = is_sound(self._cache.snapshot(listing.commit) / file.path, file, told)
                checks[file.path] = self._cache.check_of(listing.commit, file.path, sound)
                bars.finish(file.path, sound)
                bars.show()
        finally:
            if due:
                self._save(listing, replace(record, checks=checks))

    def _check_converted(self, listing: Listing, progress: Progress, cancel: CancelToken) -> str:
        """Hash the converted files; one that is damaged or gone costs the folder. Returns a note."""
        record = self._record(listing)
        folder = self._cache.converted(listing.commit)
        for path, sha256 in record.converted.items() if folder.is_dir() else ():
            progress(f"Verifying {path} (converted)")
            file = folder / path
            if not file.is_file() or sha256_of(file, lambda _: cancel.raise_if_cancelled()) != sha256:
                shutil.rmtree(folder)
                return f"the converted {path} was damaged and is deleted; a download makes it again"
        return ""

    def _require_space(self, listing: Listing) -> None:
        status = self._status(listing)
        needed = status.missing_bytes or 0
        if not status.converted:
            # float32 becomes float16; a checkpoint that already is float16 is told by the conversion itself.
            needed += sum(file.size for file in listing.files if selection.is_pickled(file.path)) // 2
        if needed and status.free_bytes is not None and status.free_bytes < needed + _SPARE_BYTES:
            from embedctl.hub.failures import not_enough_space

            raise not_enough_space(needed, status.free_bytes, self._cache.root)

    def _fetch(self, listing: Listing, progress: Progress, cancel: CancelToken) -> None:
        from embedctl.hub.transfer import Transfer

        record = self._record(listing)
        checks = dict(record.checks)
        transfer = Transfer(self._origin, listing.commit, self._cache, cancel)
        bars = FileBars(listing.files, "Downloading", progress)
        missing = []
        for file in listing.files:
            state, on_disk = self._cache.look(listing.commit, file, checks.get(file.path))
            bars.start_at(file.path, on_disk)
            if state in account.ON_DISK:
                bars.finish(file.path, True)
            else:
                missing.append(file)
        if not missing:
            return
        bars.show()  # so that a rate is measured from what was here already

        def fetch_all() -> None:
            for file in missing:

                def have(count: int, path: str = file.path) -> None:
                    bars.put(path, count)

                transfer.fetch(file, have)
                bars.finish(file.path, True)
                # Its hash was checked before it was placed.
                checks[file.path] = self._cache.check_of(listing.commit, file.path, True)

        try:
            run_cancellable(fetch_all, cancel, tick=bars.show)
        finally:
            self._save(listing, replace(record, checks=dict(checks)))

    def _convert(self, listing: Listing, progress: Progress, cancel: CancelToken) -> None:
        paths = [file.path for file in listing.files]
        conversions = selection.pickled_weights(paths)
        if not conversions or self._cache.converted(listing.commit).is_dir():
            return
        scratch = self._cache.scratch(listing.commit)
        try:
            hashes = {}
            for source, target in conversions.items():

                def told(step: str, done: float, total: float) -> None:
                    progress(f"Converting: {step}", done=done, total=total)

                convert_weights(self._cache.snapshot(listing.commit) / source, scratch / target, told, cancel)
                hashes[target] = sha256_of(scratch / target, lambda _: cancel.raise_if_cancelled())
            linked = [path for path in paths if not selection.is_pickled(path)]
            self._save(listing, replace(self._record(listing), converted=hashes))
            self._cache.publish_converted(listing.commit, scratch, linked)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _local_status(self, folder: Path) -> ModelStatus:
        return account.of_folder(
            self.repo, folder, self._free_space(folder), include_heads=self._include_heads
        )

    def _status(self, listing: Listing | None, *, note: str = "") -> ModelStatus:
        free = self._free_space(self._cache.root)
        if listing is None:
            return account.of_nothing(self.repo, self._cache.commit_of(self.revision), free)
        return account.of_cache(self._cache, listing, self._record(listing).checks, free, note)
