"""Progress of several files, told as one update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from embedctl.hub.checks import RemoteFile
from embedctl.progress import Progress
from embedctl.records import ProgressItem


class FileBars:
    """One bar per file, in bytes, and their sum.

    One thread may change the bars while another shows them.
    """

    def __init__(self, files: Iterable[RemoteFile], step: str, progress: Progress) -> None:
        self._step = step
        self._progress = progress
        self._items = {file.path: ProgressItem(file.path, 0, file.size, "waiting") for file in files}

    def start_at(self, path: str, done: int) -> None:
        """Bytes of a file that were here before the work began."""
        self._items[path] = replace(self._items[path], done=done)

    def put(self, path: str, done: int) -> None:
        item = self._items[path]
        self._items[path] = replace(item, done=min(done, item.total or done), state="running")

    def advance(self, path: str, count: int) -> None:
        self.put(path, int(self._items[path].done) + count)

    def finish(self, path: str, good: bool) -> None:
        item = self._items[path]
        self._items[path] = replace(item, done=item.total or 0, state="done" if good else "failed")

    def show(self) -> None:
        items = tuple(self._items.values())
        self._progress(
            self._step,
            done=sum(item.done for item in items),
            total=sum(item.total or 0 for item in items),
            unit="bytes",
            items=items,
        )
