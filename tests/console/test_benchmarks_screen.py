"""The Benchmarks screens: the list, a run, two runs side by side."""

from __future__ import annotations

from dataclasses import replace

from embedctl.errors import StoreCorruptError
from embedctl.lab import presets
from embedctl_console.screens.benchmarks_dialog import PRESETS
from embedctl_console.screens.benchmarks_text import comparison_text
from tests.support import canned
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine, fresh_engine


async def test_an_empty_list_says_how_to_begin() -> None:
    async with running(fresh_engine(), (80, 24)) as pilot:
        await press(pilot, "3")
        assert "b measures both backends" in screen_text(pilot)


async def test_a_benchmark_shows_its_progress_and_lands_in_the_list() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        await press(pilot, "b")
        assert pilot.app.current_mode == "benchmarks"
        engine.job("benchmark").progress("batch of 32", done=20, total=80, rate=4.0, eta=15.0)
        await settle(pilot)
        assert "20 of 80 requests · 4.00 requests/s · 15 s left" in screen_text(pilot)
        assert "  8  2026-03-04 12:00" not in screen_text(pilot)
        engine.job("benchmark").finish()
        await settle(pilot)
        assert "  8  2026-03-04 12:00" in screen_text(pilot)


async def test_enter_opens_a_run_and_escape_comes_back() -> None:
    async with running(FakeEngine()) as pilot:
        await press(pilot, "3", "enter")
        text = screen_text(pilot)
        assert "Run 7" in text
        assert "1,285*" in text
        assert "* n too small: 72 requests bound p95, 368 bound p99" in text
        assert "3.92×  3.68–4.19" in text
        assert "▲ faster" in text
        assert "? undecided" in text
        assert "judged by: the whole interval beyond 1.05 times as fast" in text
        await press(pilot, "escape")
        assert "3 runs" in screen_text(pilot)


async def test_two_marked_runs_are_laid_side_by_side() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        await press(pilot, "3", "c")
        assert [call for call in engine.calls if call[0] == "compare_runs"] == []
        await press(pilot, "space", "down", "space", "c")
        assert engine.calls.count(("compare_runs", 6, 7)) == 1
        text = screen_text(pilot)
        assert "0.62▲" in text
        assert "native dtype: float32 → float16" in text
        assert "judged by: the whole interval beyond 1.05×" in text


async def test_a_third_mark_drops_the_first() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        await press(pilot, "3", "space", "down", "space", "down", "space", "c")
        assert ("compare_runs", 3, 6) in engine.calls
        await press(pilot, "escape")
        assert "took" in screen_text(pilot)
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "took" not in screen_text(pilot)
        assert "c Compare" in screen_text(pilot)


async def test_the_key_of_the_screen_leads_back_to_the_list() -> None:
    async with running(FakeEngine()) as pilot:
        await press(pilot, "3", "enter", "1", "3")
        assert "Run 7 ·" in screen_text(pilot)
        await press(pilot, "3")
        assert "3 runs" in screen_text(pilot)


async def test_a_store_that_cannot_be_read_is_told() -> None:
    engine = FakeEngine()
    engine.errors["runs"] = StoreCorruptError("The history is damaged", remedy="move it away")
    async with running(engine) as pilot:
        await press(pilot, "3")
        assert "The history is damaged" in screen_text(pilot)


def test_an_arrow_stands_only_where_the_interval_decides() -> None:
    base, fast = canned.run(6, slowdown=1.6), canned.run(7)
    both = canned.compare(base, fast)
    lines = comparison_text(both, 100).plain.splitlines()

    def ratios(shape: str, backend: str) -> str:
        return next(line for line in lines if line.startswith(f"{shape:<13}{backend}"))

    assert "0.62▲" in ratios("one text", "native")
    assert "1.00=" in ratios("one text", "ollama")
    assert "1.60 " in ratios("one text", "native"), "texts/s of one client have no interval"
    assert "1.00 " in ratios("batch of 128", "ollama"), "a request in 24 failed"
    other = replace(both, conflicts=("native dtype: float32 → float16",))
    said = comparison_text(other, 100).plain
    assert "0.62 " in said and "▲ better" in said and "0.62▲" not in said
    assert "Changes that matter" not in said
    noted = replace(both, notes=("native, one text: no verdict on its speed, 9 of 80 requests failed (B)",))
    assert "9 of 80 requests failed (B)" in comparison_text(noted, 100).plain


async def test_a_preset_is_chosen_from_a_list() -> None:
    engine = FakeEngine()
    async with running(engine, (80, 24)) as pilot:
        await press(pilot, "3", "p")
        assert all(name in screen_text(pilot) for name in ("quick", "standard", "thorough"))
        await press(pilot, "escape")
        assert not [call for call in engine.calls if call[0] == "benchmark"]
        await press(pilot, "p", "down", "enter")
        assert [call for call in engine.calls if call[0] == "benchmark"] == [
            ("benchmark", None, "standard", "", None)
        ]
        await settle(pilot)
        assert "p Preset" not in screen_text(pilot), "one at a time"


def test_the_presets_are_the_labs() -> None:
    assert list(presets.PRESETS) == list(PRESETS)


async def test_an_unfinished_run_is_gone_on_with_and_another_is_not() -> None:
    engine = FakeEngine()
    engine.stored_runs[6] = replace(engine.stored_runs[6], state="cancelled")
    async with running(engine, (120, 40)) as pilot:
        await press(pilot, "3", "r")
        assert "r Resume" not in screen_text(pilot)
        await press(pilot, "down")
        assert "r Resume" in screen_text(pilot)
        await press(pilot, "r")
        assert [call for call in engine.calls if call[0] == "resume_benchmark"] == [("resume_benchmark", 6)]
        engine.job("benchmark").finish()
        await settle(pilot)
        assert "cancelled" not in screen_text(pilot)
        assert "r Resume" not in screen_text(pilot)
