"""Downloads: what is fetched, resumed, repaired, cancelled and removed."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from embedctl.errors import (
    Cancelled,
    HubDamagedError,
    HubError,
    HubOfflineError,
    HubSpaceError,
    UsageError,
)
from embedctl.hub import ModelHub
from embedctl.progress import CancelToken, silent
from embedctl.records import FileState, ModelStatus, ProgressItem
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import NEEDED, REPO, REVISION, write_model_folder

WEIGHTS = "model.safetensors"


def states(status: ModelStatus) -> dict[str, FileState]:
    return {file.path: file.state for file in status.files}


def blob_of(cache: Path, path: str = WEIGHTS) -> Path:
    (snapshot,) = (cache / f"models--{REPO.replace('/', '--')}" / "snapshots").iterdir()
    return (snapshot / path).resolve()


class Heard:
    """A `Progress` that keeps what it heard."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, float | None, float | None, str, tuple[ProgressItem, ...]]] = []

    def __call__(
        self,
        step: str,
        *,
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        items: tuple[ProgressItem, ...] = (),
    ) -> None:
        self.updates.append((step, done, total, unit, items))

    def of(self, step: str) -> list[tuple[float | None, float | None, tuple[ProgressItem, ...]]]:
        return [(done, total, items) for name, done, total, _, items in self.updates if name == step]


def test_status_lists_what_is_needed_and_writes_nothing(hub: ModelHub, cache: Path, served: Path) -> None:
    status = hub.status()
    assert set(states(status)) == NEEDED
    assert set(states(status).values()) == {FileState.MISSING}
    assert status.total_bytes == sum((served / path).stat().st_size for path in NEEDED)
    assert status.missing_bytes == status.total_bytes
    assert status.revision == REVISION
    assert not status.complete
    assert hub.folder() is None
    assert not cache.exists()


def test_download_brings_exactly_the_needed_files_in_the_hubs_own_layout(
    hub: ModelHub, server: FaultyHub, served: Path, cache: Path
) -> None:
    status = hub.download(silent, CancelToken())
    assert status.complete
    assert set(states(status).values()) == {FileState.VERIFIED}
    folder = hub.folder()
    assert folder is not None
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == NEEDED
    assert all((folder / path).read_bytes() == (served / path).read_bytes() for path in NEEDED)

    from huggingface_hub import hf_hub_download, scan_cache_dir

    asked = len(server.seen)
    found = hf_hub_download(REPO, WEIGHTS, revision=REVISION, cache_dir=cache, endpoint=server.endpoint)
    assert Path(found) == folder / WEIGHTS
    assert len(server.seen) == asked
    assert scan_cache_dir(cache).warnings == []


def test_progress_tells_every_file_and_the_sum_in_bytes(hub: ModelHub) -> None:
    heard = Heard()
    total = hub.download(heard, CancelToken()).total_bytes
    updates = heard.of("Downloading")
    assert updates[0][0] == 0
    assert updates[-1][:2] == (total, total)
    assert {item.name for item in updates[-1][2]} == NEEDED
    assert {item.state for item in updates[-1][2]} == {"done"}
    assert {update[3] for update in heard.updates if update[0] == "Downloading"} == {"bytes"}
    sums = [done for done, _, _ in updates if done is not None]
    assert sums == sorted(sums)


def test_a_branch_is_resolved_and_remembered(server: FaultyHub, cache: Path) -> None:
    hub = ModelHub(REPO, "main", cache_dir=cache, endpoint=server.endpoint)
    assert hub.download(silent, CancelToken()).revision == REVISION
    assert hub.status(online=False).complete
    assert hub.folder() is not None


def test_a_second_download_asks_the_hub_nothing(hub: ModelHub, server: FaultyHub) -> None:
    hub.download(silent, CancelToken())
    server.seen.clear()
    assert hub.download(silent, CancelToken()).complete
    assert server.seen == []


# Cuts and damage


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


def test_verify_works_offline_and_tells_progress(hub: ModelHub, server: FaultyHub) -> None:
    total = hub.download(silent, CancelToken()).total_bytes
    server.stop()
    heard = Heard()
    assert set(states(hub.verify(heard, CancelToken())).values()) == {FileState.VERIFIED}
    assert heard.of("Verifying")[-1][:2] == (total, total)


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


# Cancel


def test_cancel_stops_a_stalled_transfer_and_the_next_download_resumes(
    hub: ModelHub, server: FaultyHub
) -> None:
    server.stall = {WEIGHTS}
    cancel = CancelToken()
    some_bytes_here = threading.Event()
    outcome: list[BaseException] = []

    def watch(step: str, *, items: tuple[ProgressItem, ...] = (), **_: object) -> None:
        if any(item.name == WEIGHTS and item.done for item in items):
            some_bytes_here.set()

    def download() -> None:
        try:
            hub.download(watch, cancel)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=download)
    thread.start()
    assert some_bytes_here.wait(20)
    cancel.cancel()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(outcome[0], Cancelled)

    server.go_on.set()
    assert hub.download(silent, CancelToken()).complete
    resumed_at = server.requests_for(WEIGHTS)[-1].range
    assert resumed_at is not None
    assert 0 < int(resumed_at.removeprefix("bytes=").removesuffix("-")) <= 64 << 10


def test_cancel_in_the_middle_of_verification_keeps_what_was_hashed(hub: ModelHub) -> None:
    hub.download(silent, CancelToken())
    cancel = CancelToken()

    def stop_at_once(step: str, **_: object) -> None:
        cancel.cancel()

    with pytest.raises(Cancelled):
        hub.verify(stop_at_once, cancel)
    assert hub.status(online=False).complete


# Space


def test_too_little_space_is_told_before_anything_is_fetched(server: FaultyHub, cache: Path) -> None:
    hub = ModelHub(REPO, REVISION, cache_dir=cache, endpoint=server.endpoint, free_space=lambda _: 1_000_000)
    with pytest.raises(HubSpaceError, match=r"needs 0\.00 GB more, the disk has 0\.00 GB free") as caught:
        hub.download(silent, CancelToken())
    assert "HF_HOME" in caught.value.remedy
    assert server.requests_for(WEIGHTS) == []
    assert not cache.exists()


def test_a_disk_that_fills_up_meanwhile_is_told_and_the_partial_file_stays(
    hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cut_after[WEIGHTS] = 100_000
    from embedctl.hub import transfer

    receive = transfer.Transfer._receive

    def full_at_the_second_request(self, file, partial, have):  # type: ignore[no-untyped-def]
        if file.path == WEIGHTS and partial.stat().st_size:
            raise OSError(28, "No space left on device", str(partial))
        return receive(self, file, partial, have)

    monkeypatch.setattr(transfer.Transfer, "_receive", full_at_the_second_request)
    with pytest.raises(HubSpaceError, match="disk is full"):
        hub.download(silent, CancelToken())
    assert states(hub.status())[WEIGHTS] is FileState.PARTIAL


def test_a_cache_that_cannot_be_written_is_told(server: FaultyHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    hub = ModelHub(REPO, REVISION, cache_dir=tmp_path / "file" / "cache", endpoint=server.endpoint)
    with pytest.raises(HubError, match="cannot be read or written"):
        hub.download(silent, CancelToken())


# Remove


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


# The token


def test_the_token_is_sent_and_never_told(
    hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = "hf_secretsecretsecretsecret"
    monkeypatch.setenv("HF_TOKEN", token)
    caplog.set_level(logging.DEBUG)
    server.cut_after[WEIGHTS] = 100_000
    server.damage["config.json"] = 1
    hub.download(silent, CancelToken())
    assert {seen.authorization for seen in server.seen} == {f"Bearer {token}"}
    assert token not in caplog.text
