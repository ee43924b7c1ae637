"""The Models screen: download, cancel, resume, verify, remove, pull."""

from __future__ import annotations

import threading

import pytest

from embedctl.errors import HubOfflineError
from embedctl.records import BackendState, FileState, ModelStatus, ProgressItem
from tests.support import canned
from tests.support.canned import GIB
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine, fresh_engine


async def test_every_needed_file_stands_there_with_its_size() -> None:
    async with running(fresh_engine(), (80, 24)) as pilot:
        await press(pilot, "2")
        text = screen_text(pilot)
        for file in canned.model().files:
            assert file.path in text
        assert "0 B of 2.14 GiB on disk · 413 GiB free" in text


async def test_the_hub_is_asked_when_the_screen_opens_not_before() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        assert ("model", True) not in engine.calls
        await press(pilot, "2")
        assert ("model", True) in engine.calls


async def test_a_download_shows_each_file_and_all_of_it() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        await press(pilot, "2", "d")
        items = (
            ProgressItem("pytorch_model.bin", GIB, 2_271_145_830, "running"),
            ProgressItem("config.json", 687, 687, "done"),
        )
        engine.job("download").progress(
            "fetching", done=GIB, total=2.14 * GIB, rate=1e8, eta=12.2, items=items
        )
        await settle(pilot)
        text = screen_text(pilot)
        assert "1.00 GiB of 2.14 GiB · 95.4 MiB/s · 12 s left" in text
        assert " 47%" in text
        assert "✓ done" in text
        assert "1 of 2 files done" in text


async def test_enter_starts_the_download_too() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        await press(pilot, "2", "enter")
        assert ("download",) in engine.calls


async def test_enter_does_nothing_when_all_is_here() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        await press(pilot, "2", "enter")
        assert ("download",) not in engine.calls


async def test_a_cancelled_download_can_be_taken_up_again() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        await press(pilot, "2", "d")
        engine.model_status = canned.model(FileState.MISSING, partial={"pytorch_model.bin": GIB})
        await press(pilot, "x")
        text = screen_text(pilot)
        assert "cancelled" in text
        assert "d goes on with the download of 1.14 GiB" in text
        await press(pilot, "d")
        assert engine.calls.count(("download",)) == 2


async def test_a_finished_download_names_the_next_step() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        await press(pilot, "2", "d")
        engine.job("download").finish()
        await settle(pilot)
        text = screen_text(pilot)
        assert "✓ Complete. l loads it into the native backend." in text
        assert "✓ verified" in text


async def test_a_failure_stands_there_with_its_remedy_and_is_told_once() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        await press(pilot, "2", "d")
        engine.job("download").fail("No room", why="2 GB needed", remedy="make room")
        await settle(pilot)
        text = screen_text(pilot)
        assert "✗ No room" in text
        assert "→ make room" in text
        assert len(pilot.app._notifications) == 0


async def test_a_damaged_file_is_pointed_out() -> None:
    async with running(FakeEngine(model=canned.model(FileState.DAMAGED))) as pilot:
        await press(pilot, "2")
        assert "d fetches those again" in screen_text(pilot)


async def test_removal_is_done_only_when_confirmed() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        await press(pilot, "2", "r", "n")
        assert ("remove_model",) not in engine.calls
        await press(pilot, "r", "y")
        engine.job("remove").finish()
        await settle(pilot)
        assert "0 B of 2.14 GiB on disk" in screen_text(pilot)


async def test_ollamas_copy_is_pulled() -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.MODEL_MISSING))
    async with running(engine) as pilot:
        await press(pilot, "2")
        assert "p pulls it" in screen_text(pilot)
        await press(pilot, "p")
        engine.job("pull").finish()
        await settle(pilot)
        assert "bge-m3: unloaded" in screen_text(pilot)


async def test_a_hub_that_does_not_answer_is_waited_for_only_as_long_as_one_likes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, may_answer = FakeEngine(), threading.Event()
    model = engine.model

    def slowly(*, online: bool = True) -> ModelStatus:
        if online:
            may_answer.wait(30)
        return model(online=online)

    monkeypatch.setattr(engine, "model", slowly)
    async with running(engine) as pilot:
        await pilot.press("2")
        await pilot.pause()
        engine.now += 31
        pilot.app.screen._show_model()  # type: ignore[attr-defined]
        await pilot.pause()
        assert "▸ asking the Hub · 31 s · esc stops" in screen_text(pilot)
        assert "esc Stop" in screen_text(pilot)
        await press(pilot, "escape")
        assert "asking the Hub" not in screen_text(pilot)
        assert "esc Stop" not in screen_text(pilot)
        assert "of 2.14 GiB on disk" in screen_text(pilot)
        may_answer.set()


async def test_without_hub_and_files_the_reason_is_shown() -> None:
    engine = fresh_engine()
    engine.errors["model"] = HubOfflineError("The Hub cannot be reached", remedy="check the network")
    async with running(engine) as pilot:
        await press(pilot, "2")
        assert "The Hub cannot be reached — check the network" in screen_text(pilot)
