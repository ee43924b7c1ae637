"""Downloads: what is fetched and told, cancelled, and refused for want of space."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from embedctl.errors import (
    Cancelled,
    HubError,
    HubSpaceError,
)
from embedctl.hub import ModelHub
from embedctl.progress import CancelToken, silent
from embedctl.records import FileState, ProgressItem
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import NEEDED, REPO, REVISION, WEIGHTS, states


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


def test_verify_works_offline_and_tells_progress(hub: ModelHub, server: FaultyHub) -> None:
    total = hub.download(silent, CancelToken()).total_bytes
    server.stop()
    heard = Heard()
    assert set(states(hub.verify(heard, CancelToken())).values()) == {FileState.VERIFIED}
    assert heard.of("Verifying")[-1][:2] == (total, total)


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
