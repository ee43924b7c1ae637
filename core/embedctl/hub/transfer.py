"""Fetching one file: resumed after a cut, stopped within a block, never seen before its hash was checked.

`hf_hub_download` of huggingface_hub 2.x writes to a file with a random name and deletes it on any error, so
a cut download starts from nothing at the next call; it also stops only every 10 MiB. Its Xet path can be
stopped only by ending the session of the whole process. So the bytes are read here, with the library's own
client, addresses and headers; every repository in Xet storage also answers plain range requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    WeakFileLock,
    get_session,
    hf_raise_for_status,
)

from embedctl.errors import HubDamagedError
from embedctl.hub.cache import RepoCache
from embedctl.hub.checks import RemoteFile, is_sound
from embedctl.hub.failures import Origin, TransportError, explain
from embedctl.hub.remote import file_url, request_headers
from embedctl.progress import CancelToken

log = logging.getLogger(__name__)

_FRUITLESS_TRIES = 5
"""Tries in a row that bring no new byte before the server is given up."""
_LONGEST_PAUSE = 8.0


class Transfer:
    """Brings files of one commit into the cache."""

    def __init__(
        self, origin: Origin, commit: str, cache: RepoCache, cancel: CancelToken, *, first_pause: float = 0.5
    ) -> None:
        self._origin = origin
        self._commit = commit
        self._cache = cache
        self._cancel = cancel
        self._first_pause = first_pause

    def fetch(self, file: RemoteFile, have: Callable[[int], None]) -> None:
        """Make `file` part of the snapshot, checked. `have` hears how many of its bytes are here.

        Raises:
            Cancelled: The partial file stays, to be resumed.
            HubError: What was fetched so far stays, unless it was damaged.
        """
        lock = self._cache.lock(file)
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._cache.blob(file).parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                if not self._cache.blob(file).is_file():
                    self._fetch_blob(file, have)
                self._cache.place(self._commit, file)
        except OSError as error:  # the HTTP library's errors have been explained already
            raise explain(error, self._origin, file.path) from error
        have(file.size)

    def _fetch_blob(self, file: RemoteFile, have: Callable[[int], None]) -> None:
        partial = self._cache.partial(file)
        for last_try in (False, True):
            self._complete(file, partial, have)
            if is_sound(partial, file, lambda _: self._cancel.raise_if_cancelled()):
                partial.replace(self._cache.blob(file))
                return
            partial.unlink()
            if not last_try:
                log.warning("%s arrived damaged and is fetched again", file.path)
        raise HubDamagedError(
            f"{file.path} arrived damaged twice",
            why="its hash differs from the one that the Hub states",
            remedy="try again; if it stays, check the network, a proxy or the mirror (HF_ENDPOINT)",
        )

    def _complete(self, file: RemoteFile, partial: Path, have: Callable[[int], None]) -> None:
        """Append to `partial` until it is as long as the Hub says, over as many connections as it takes."""
        if partial.is_file() and partial.stat().st_size > file.size:
            partial.unlink()
        partial.touch()
        fruitless = 0
        while (before := partial.stat().st_size) < file.size:
            self._cancel.raise_if_cancelled()
            have(before)
            try:
                self._receive(file, partial, have)
                failure: Exception | None = None
            except HfHubHTTPError as error:
                if error.response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    partial.write_bytes(b"")
                elif error.response.status_code < 500:
                    raise explain(error, self._origin, file.path) from error
                failure = error
            except TransportError as error:
                failure = error
            if partial.stat().st_size > before:
                fruitless = 0
            else:
                fruitless += 1
            if fruitless >= _FRUITLESS_TRIES:
                raise explain(failure or EOFError("the server sends nothing"), self._origin, file.path)
            if failure is not None:
                log.info("%s was cut at %d bytes and is resumed", file.path, partial.stat().st_size)
                self._cancel.wait(min(self._first_pause * 2**fruitless, _LONGEST_PAUSE))

    def _receive(self, file: RemoteFile, partial: Path, have: Callable[[int], None]) -> None:
        """One request for what is missing of `partial`."""
        start = partial.stat().st_size
        headers = request_headers()
        if start:
            headers["Range"] = f"bytes={start}-"
        url = file_url(self._origin, self._commit, file.path)
        with get_session().stream(
            "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True
        ) as response:
            if response.is_error:
                response.read()
            hf_raise_for_status(response)
            if start and response.status_code != HTTPStatus.PARTIAL_CONTENT:
                start = 0  # the server does not know ranges and sends everything
            with partial.open("r+b") as stream:
                stream.seek(start)
                stream.truncate()
                for block in response.iter_bytes():
                    self._cancel.raise_if_cancelled()
                    stream.write(block)
                    start += len(block)
                    have(start)
                    if start > file.size:
                        return  # more than announced: the hash check will say so
