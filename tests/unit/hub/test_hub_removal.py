"""What is removed and what stays; a disk without a network, and folders of the users."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedctl.errors import (
    HubOfflineError,
    UsageError,
)
from embedctl.hub import ModelHub
from embedctl.progress import CancelToken, silent
from embedctl.records import FileState
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import NEEDED, REPO, REVISION, WEIGHTS, states, write_model_folder


def test_remove_gives_back_every_byte(hub: ModelHub, cache: Path) -> None:
    total = hub.download(silent, CancelToken()).total_bytes
    assert hub.remove() == total
    assert not list(cache.glob("models--*"))
    assert hub.remove() == 0
    assert hub.status(online=False).files == ()


def test_remove_takes_partial_files_too(
    hub: ModelHub, server: FaultyHub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.hub.transfer._FRUITLESS_TRIES", 1)
    server.cut_after[WEIGHTS] = 200_000
    monkeypatch.setattr("embedctl.hub.transfer.Transfer._complete", _cut_after(200_000))
    with pytest.raises(HubOfflineError):
        hub.download(silent, CancelToken())
    assert hub.remove() >= 200_000
    assert not list(cache.rglob("*.incomplete"))


def _cut_after(count: int):  # type: ignore[no-untyped-def]
    from embedctl.hub.transfer import Transfer

    complete = Transfer._complete

    def cut(self, file, partial, have):  # type: ignore[no-untyped-def]
        if file.path != WEIGHTS:
            return complete(self, file, partial, have)
        partial.write_bytes(b"x" * count)
        raise HubOfflineError("cut as ordered")

    return cut


def test_remove_leaves_other_revisions_and_other_models(
    hub: ModelHub, served: Path, cache: Path, tmp_path: Path
) -> None:
    hub.download(silent, CancelToken())
    (served / "config.json").write_text('{"model_type": "bert"}')
    other_revision = "f" * 40
    other_folder = write_model_folder(tmp_path / "other")
    with (
        FaultyHub({REPO: served}, other_revision) as newer,
        FaultyHub({"acme/mirror": other_folder}, REVISION) as mirror,
    ):
        kept = ModelHub(REPO, other_revision, cache_dir=cache, endpoint=newer.endpoint)
        kept.download(silent, CancelToken())
        copy = ModelHub("acme/mirror", REVISION, cache_dir=cache, endpoint=mirror.endpoint)
        copy.download(silent, CancelToken())
    freed = hub.remove()
    assert freed == len('{"model_type": "xlm-roberta"}')  # all other contents are shared
    assert set(states(kept.verify(silent, CancelToken())).values()) == {FileState.VERIFIED}
    assert set(states(copy.verify(silent, CancelToken())).values()) == {FileState.VERIFIED}


# Offline, local folders


def test_offline_the_disk_answers(hub: ModelHub, server: FaultyHub) -> None:
    online = hub.download(silent, CancelToken())
    server.stop()
    offline = hub.status(online=False)
    assert (offline.files, offline.complete, offline.folder) == (online.files, True, online.folder)
    assert "cannot be reached" in hub.status().detail
    assert hub.download(silent, CancelToken()).complete


def test_offline_with_nothing_on_disk(hub: ModelHub, server: FaultyHub) -> None:
    server.stop()
    assert hub.status(online=False).files == ()
    with pytest.raises(HubOfflineError, match="cannot be reached"):
        hub.status()


def test_a_cache_without_our_record_is_judged_by_its_files(hub: ModelHub, cache: Path) -> None:
    hub.download(silent, CancelToken())
    (record,) = cache.rglob(f"embedctl/{REVISION}.json")
    record.unlink()
    status = hub.status(online=False)
    assert set(states(status).values()) == {FileState.PRESENT}
    assert status.complete
    assert set(states(hub.verify(silent, CancelToken())).values()) == {FileState.VERIFIED}


def test_a_folder_of_the_users_is_used_as_it_is_and_never_deleted(served: Path) -> None:
    hub = ModelHub(str(served), "main")
    assert hub.folder() == served
    status = hub.status()
    assert {file.path for file in status.files} == NEEDED
    assert status.complete
    with pytest.raises(UsageError, match="is not deleted"):
        hub.remove()
    assert served.is_dir()
