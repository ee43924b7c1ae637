"""The Dashboard under a person's hands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from textual.pilot import Pilot

from embedctl.records import BackendState, Event
from embedctl_console.widgets.card import BackendCard
from embedctl_console.widgets.chart import TimeSeriesChart
from embedctl_console.widgets.text import Text
from tests.support import canned
from tests.support.canned import NOW
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine, fresh_engine


async def test_a_fresh_machine_is_told_what_is_here_and_what_to_press() -> None:
    async with running(fresh_engine(), (80, 24)) as pilot:
        text = screen_text(pilot)
        assert "▶ d shows what there is to download" in text
        assert "model missing" in text
        assert "unavailable" in text


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
async def test_the_essentials_are_there_at_every_size(size: tuple[int, int]) -> None:
    async with running(FakeEngine(), size) as pilot:
        text = screen_text(pilot)
        for words in (
            "active since 11:40",
            "1.68 GiB claimed",
            "p50",
            "277 texts/s",
            "Memory pool",
            "q Quit",
        ):
            assert words in text


async def test_figures_move_with_the_samples() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        before = screen_text(pilot)
        for _ in range(20):
            engine.tick(5.0)
            await pilot.pause()
        await settle(pilot)
        assert screen_text(pilot) != before
        chart = pilot.app.screen.query_one("#memory", TimeSeriesChart)
        assert chart._series[0].series.at[-1] == NOW + 100


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_what_is_repainted_in_part_shows_the_same_as_a_whole_repaint(size: tuple[int, int]) -> None:
    engine = FakeEngine()
    async with running(engine, size) as pilot:
        for _ in range(12):
            engine.tick(7.0)
            await settle(pilot)
        in_part = screen_text(pilot)
        for text in pilot.app.screen.query(Text):
            text.refresh()
        await settle(pilot)
        assert in_part == screen_text(pilot)


async def test_load_and_unload_are_about_the_focused_card() -> None:
    unloaded = BackendState.UNLOADED
    engine = FakeEngine(native=canned.native(unloaded), ollama=canned.ollama(unloaded))
    async with running(engine) as pilot:
        assert isinstance(pilot.app.focused, BackendCard)
        await press(pilot, "tab", "l")
        assert ("load", "ollama") in engine.calls
        engine.job("load").finish()
        await settle(pilot)
        await press(pilot, "u")
        assert ("unload", "ollama") in engine.calls


async def test_unload_of_a_backend_that_is_not_loaded_only_says_so() -> None:
    engine = FakeEngine(native=canned.native(BackendState.UNLOADED))
    async with running(engine) as pilot:
        await press(pilot, "u")
        assert [call for call in engine.calls if call[0] == "unload"] == []
        assert "native is not loaded" in next(iter(pilot.app._notifications)).message


_TITLES = ("Memory pool", "Latency", "Traffic", "GPU busy")


async def test_m_goes_round_the_charts_that_have_room() -> None:
    async with running(FakeEngine(), (80, 24)) as pilot:
        shown = []
        for size, presses in (((80, 24), 5), ((160, 50), 2)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            for _ in range(presses):
                text = screen_text(pilot)
                shown.append([title for title in _TITLES if title in text])
                await press(pilot, "m")
        alone = [[title] for title in _TITLES]
        assert shown == [*alone, ["Memory pool"], list(_TITLES), ["Memory pool"]]


async def test_every_line_takes_the_width_that_the_terminal_has_now() -> None:
    names = ("#here", "#standing", "#vitals")

    def lines(pilot: Pilot[None]) -> list[str]:
        return [str(pilot.app.screen.query_one(name, Text).render()) for name in names]

    fresh = {}
    for width in (80, 160):
        async with running(FakeEngine(), (width, 40)) as pilot:
            fresh[width] = lines(pilot)
    assert fresh[80][0] != fresh[160][0]
    async with running(FakeEngine(), (80, 40)) as pilot:
        for width in (160, 80):
            await pilot.resize_terminal(width, 40)
            await settle(pilot)
            assert lines(pilot) == fresh[width]


async def test_a_paused_chart_keeps_what_it_shows_and_says_where_there_is_more() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        chart = pilot.app.screen.query_one("#latency", TimeSeriesChart)
        chart.focus()
        await press(pilot, "f")
        window = chart.window
        for _ in range(60):
            engine.tick(20.0)
            await pilot.pause()
        await settle(pilot)
        assert chart.window == window
        held = chart._series[0].series
        assert np.any((held.at >= window[0]) & (held.at < window[0] + 20)), "its begin as well"
        assert "No requests yet" not in screen_text(pilot)
        for _ in range(40):
            chart.action_pan(-1)
        await settle(pilot)
        assert chart.empty == "The Dashboard keeps 15 minutes; 4 shows History, which has more."
        assert "The Dashboard keeps 15 minutes" in screen_text(pilot)
        await press(pilot, "equals_sign")
        engine.tick()
        await settle(pilot)
        assert chart.live and "History, which" not in chart.empty
        assert chart._series[0].series.at[-1] == engine.now


async def test_a_gpu_with_memory_of_its_own_is_charted_by_itself() -> None:
    machine = canned.gb10()
    card = replace(machine, gpus=tuple(replace(gpu, unified=False) for gpu in machine.gpus))
    async with running(FakeEngine(machine=card), (80, 24)) as pilot:
        assert "● used 3.98 GiB" in screen_text(pilot)


async def test_the_active_backend_is_marked_where_it_is() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        engine.set_active("ollama")
        await settle(pilot)
        subtitles = {card.backend: card.border_subtitle for card in pilot.app.screen.query(BackendCard)}
        assert subtitles == {"native": "", "ollama": "◆ active"}  # since when is in the switch's event
        engine.record(Event(engine.now, "switch", "native → ollama", "ollama"))
        engine.set_active("ollama")
        await settle(pilot)
        assert "◆ active since 12:00" in screen_text(pilot)
        assert "active ollama" in screen_text(pilot)


async def test_without_a_gpu_the_host_is_charted() -> None:
    async with running(FakeEngine(machine=canned.without_gpu())) as pilot:
        text = screen_text(pilot)
        assert "Host memory (no GPU)" in text
        assert "no NVIDIA driver" in text


async def test_events_appear_as_they_are_recorded() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        engine.record(Event(engine.now, "throttling", "the GPU is slowed down by heat"))
        await settle(pilot)
        assert "the GPU is slowed down by heat" in screen_text(pilot)


async def test_d_leads_to_models() -> None:
    async with running(fresh_engine()) as pilot:
        await press(pilot, "d")
        assert pilot.app.current_mode == "models"


async def test_a_hidden_dashboard_catches_up_when_it_comes_back() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        await press(pilot, "7")
        engine.set_backend(canned.native(BackendState.FAILED))
        await settle(pilot)
        await press(pilot, "1")
        assert "signal 9" in screen_text(pilot)
