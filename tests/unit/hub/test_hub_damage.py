"""Cut connections and damaged files: what is resumed, fetched again, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedctl.errors import (
    HubDamagedError,
    HubOfflineError,
)
from embedctl.hub import ModelHub
from embedctl.progress import CancelToken, silent
from embedctl.records import FileState
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import NEEDED, REPO, REVISION, WEIGHTS, blob_of, states


def test_a_cut_connection_is_resumed_within_one_download(
    hub: ModelHub, server: FaultyHub, served: Path
) -> None:
    server.cut_after[WEIGHTS] = 200_000
    assert hub.download(silent, CancelToken()).complete
    assert [seen.range for seen in server.requests_for(WEIGHTS)] == [None, "bytes=200000-"]
    assert server.sent[WEIGHTS] == (served / WEIGHTS).stat().st_size


def test_a_later_process_resumes_where_the_last_one_stopped(
    hub: ModelHub, server: FaultyHub, served: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.hub.transfer._FRUITLESS_TRIES", 1)
    server.cut_after[WEIGHTS] = 200_000
    refuse_rest = server.blocks
    monkeypatch.setattr(
        server, "blocks", lambda file, start: refuse_rest(file, start) if start == 0 else _cut()
    )
    with pytest.raises(HubOfflineError):
        hub.download(silent, CancelToken())
    monkeypatch.undo()
    assert states(hub.status())[WEIGHTS] is FileState.PARTIAL
    total = (served / WEIGHTS).stat().st_size
    assert hub.status().missing_bytes == total - 200_000

    server.seen.clear()
    server.sent.clear()
    later = ModelHub(REPO, REVISION, cache_dir=cache, endpoint=server.endpoint)
    assert later.download(silent, CancelToken()).complete
    assert [seen.range for seen in server.requests_for("/resolve/")] == ["bytes=200000-"]
    assert server.sent == {WEIGHTS: total - 200_000}


def _cut() -> list[bytes]:
    raise ConnectionResetError("cut as ordered")


def test_a_server_without_ranges_sends_everything_again(
    hub: ModelHub, server: FaultyHub, served: Path
) -> None:
    server.cut_after[WEIGHTS] = 200_000
    server.ignore_range = True
    assert hub.download(silent, CancelToken()).complete
    assert server.sent[WEIGHTS] == 200_000 + (served / WEIGHTS).stat().st_size


def test_a_file_that_arrives_damaged_is_fetched_once_more(hub: ModelHub, server: FaultyHub) -> None:
    server.damage[WEIGHTS] = 1
    assert hub.download(silent, CancelToken()).complete
    assert len(server.requests_for(WEIGHTS)) == 2


def test_a_small_file_that_arrives_damaged_is_noticed_by_its_git_hash(
    hub: ModelHub, server: FaultyHub
) -> None:
    server.damage["config.json"] = 1
    assert hub.download(silent, CancelToken()).complete
    assert len(server.requests_for(f"{REVISION}/config.json")) == 2


def test_a_file_that_always_arrives_damaged_is_never_shown(hub: ModelHub, server: FaultyHub) -> None:
    server.damage[WEIGHTS] = 99
    with pytest.raises(HubDamagedError, match="arrived damaged twice"):
        hub.download(silent, CancelToken())
    assert states(hub.status())[WEIGHTS] is FileState.MISSING
    assert hub.folder() is None


def test_verify_names_a_damaged_file_and_download_fetches_it_alone(
    hub: ModelHub, server: FaultyHub, served: Path, cache: Path
) -> None:
    hub.download(silent, CancelToken())
    blob = blob_of(cache)
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    assert states(hub.status(online=False))[WEIGHTS] is FileState.PRESENT  # only its time tells

    status = hub.verify(silent, CancelToken())
    assert {path for path, state in states(status).items() if state is FileState.DAMAGED} == {WEIGHTS}
    assert not status.complete
    assert WEIGHTS in status.detail
    assert hub.folder() is None

    server.seen.clear()
    assert hub.download(silent, CancelToken()).complete
    assert [seen.path.rsplit("/", 1)[1] for seen in server.seen] == [WEIGHTS]
    assert blob_of(cache).read_bytes() == (served / WEIGHTS).read_bytes()


def test_download_itself_finds_a_damaged_file_that_nobody_checked(
    hub: ModelHub, server: FaultyHub, cache: Path
) -> None:
    hub.download(silent, CancelToken())
    blob_of(cache, "tokenizer.json").write_text('{"version": "9.9"}')
    assert hub.download(silent, CancelToken()).complete
    assert blob_of(cache, "tokenizer.json").read_text() == '{"version": "1.0"}'


def test_a_truncated_file_is_damaged_without_hashing(hub: ModelHub, cache: Path) -> None:
    hub.download(silent, CancelToken())
    blob_of(cache).write_bytes(b"short")
    assert states(hub.status(online=False))[WEIGHTS] is FileState.DAMAGED


def test_files_that_another_program_fetched_count_and_are_checked_once(
    hub: ModelHub, server: FaultyHub, cache: Path
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, WEIGHTS, revision=REVISION, cache_dir=cache, endpoint=server.endpoint)
    assert states(hub.status())[WEIGHTS] is FileState.PRESENT
    server.seen.clear()
    assert set(states(hub.download(silent, CancelToken())).values()) == {FileState.VERIFIED}
    assert server.requests_for(WEIGHTS) == []


def test_verifying_what_another_program_left_does_not_hide_what_is_missing(
    hub: ModelHub, server: FaultyHub, cache: Path
) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "config.json", revision=REVISION, cache_dir=cache, endpoint=server.endpoint)
    assert not hub.verify(silent, CancelToken()).complete
    assert set(states(hub.download(silent, CancelToken()))) == NEEDED
