"""What the console computes without a screen: state, recent samples, next step, keys, text, the bridge."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from textual.content import Content

from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    EventRecorded,
    JobChanged,
    Message,
    SampleTaken,
)
from embedctl.records import BackendState, Event, FileState, JobState, JobUpdate, Provenance
from embedctl_console.actions import ACTIONS, EVERYWHERE, SCREENS, actions_of, is_available, key_name
from embedctl_console.bridge import Bridge
from embedctl_console.next_step import next_step
from embedctl_console.recent import SPAN, RecentSamples
from embedctl_console.screens.dashboard_charts import chart_choices
from embedctl_console.state import ConsoleState, Topic
from embedctl_console.themes import THEMES, next_theme
from embedctl_console.widgets.bottom import job_line
from embedctl_console.widgets.card import card_text
from embedctl_console.widgets.lists import event_lines, here_line, process_lines
from embedctl_console.widgets.text import bar, changed_regions, spark, spread
from embedctl_console.widgets.top import machine_line
from embedctl_console.widgets.vitals import gpu_line
from tests.support import canned
from tests.support.canned import GIB, NOW
from tests.support.fake_engine import FakeEngine, fresh_engine

UNLOADED, MISSING, FAILED = BackendState.UNLOADED, BackendState.MODEL_MISSING, BackendState.FAILED


def state_of(engine: FakeEngine) -> ConsoleState:
    return ConsoleState(engine.status(), model=engine.model_status)


def job(job_id: int = 1, kind: str = "load", state: JobState = JobState.RUNNING) -> JobUpdate:
    return JobUpdate(job_id, kind, f"{kind} it", state, "starting", NOW)


class TestState:
    def test_a_message_says_what_it_changed(self) -> None:
        state = state_of(FakeEngine())
        assert state.apply(SampleTaken(canned.sample(), (), True)) is Topic.SAMPLE
        assert state.apply(ActiveChanged("ollama")) is Topic.BACKENDS
        assert state.status.active == "ollama"

    def test_a_backend_replaces_its_own_status_only(self) -> None:
        state = state_of(FakeEngine())
        state.apply(BackendChanged(canned.ollama(BackendState.UNAVAILABLE)))
        assert [status.state for status in state.status.backends] == [
            BackendState.READY,
            BackendState.UNAVAILABLE,
        ]

    def test_it_knows_since_when_the_active_backend_is_that(self) -> None:
        state = state_of(FakeEngine())
        assert state.active_since is None
        state.apply(EventRecorded(Event(NOW - 5, "switch", "ollama → native", "native")))
        state.take_stored_switch([Event(NOW - 60, "switch", "native → ollama", "ollama")])
        assert state.active_since == NOW - 5
        state.apply(ActiveChanged("ollama"))
        assert state.active_since is None

    def test_an_ended_job_is_remembered_until_one_of_its_kind_starts(self) -> None:
        state = state_of(FakeEngine())
        state.apply(JobChanged(job()))
        assert state.running("load") is not None
        state.apply(JobChanged(job(state=JobState.DONE)))
        assert state.running() is None
        assert state.ended["load"].job_id == 1
        state.apply(JobChanged(job(2)))
        assert "load" not in state.ended

    def test_stored_events_come_after_those_heard_and_none_twice(self) -> None:
        state = state_of(FakeEngine())
        heard, both = Event(NOW, "note", "new"), Event(NOW - 1, "note", "both")
        state.apply_all([EventRecorded(both), EventRecorded(heard)])
        state.take_stored_events([replace(both, id=5), Event(NOW - 9, "start", "old", id=4)])
        assert [event.title for event in state.events] == ["new", "both", "old"]

    def test_after_a_reconnection_old_events_stand_below_newer_stored_ones(self) -> None:
        state = state_of(FakeEngine())
        state.apply_all(
            [EventRecorded(Event(NOW - 900, "load", "long ago")), EventRecorded(Event(NOW, "note", "new"))]
        )
        state.take_stored_events([Event(NOW - 1, "switch", "missed"), Event(NOW - 60, "run", "missed too")])
        assert [event.title for event in state.events] == ["new", "missed", "missed too", "long ago"]

    def test_whether_it_records_is_told_with_every_sample(self) -> None:
        state = state_of(FakeEngine())
        assert "● recording" in machine_line(state.status, 160).plain
        assert state.apply(SampleTaken(canned.sample(), (), False)) == Topic.SAMPLE | Topic.MACHINE
        assert "○ not recording" in machine_line(state.status, 160).plain
        assert state.apply(SampleTaken(canned.sample(), (), False)) is Topic.SAMPLE


class TestRecentSamples:
    def test_it_keeps_a_quarter_of_an_hour(self) -> None:
        recent = RecentSamples()
        for second in range(2000):
            recent.add(canned.sample(NOW + second))
        at = recent.series("native_p50").at
        assert at[-1] == NOW + 1999
        assert at[-1] - at[0] == SPAN

    def test_a_clock_that_was_set_back_stops_nothing(self) -> None:
        recent = RecentSamples()
        for second in range(900):
            recent.add(canned.sample(NOW + second))
        recent.add(canned.sample(NOW + 897))
        assert recent.series("native_p50").at[-1] == NOW + 899, "merely late"
        recent.add(canned.sample(NOW + 300, native=False))
        recent.add(canned.sample(NOW + 301, native=False))
        assert list(recent.series("ollama_p50").at[-3:]) == [NOW + 299, NOW + 300, NOW + 301]
        assert not recent.has("native_p50", NOW + 300), "what was read in a time that is still to come"

    def test_an_absent_figure_leaves_no_reading(self) -> None:
        recent = RecentSamples()
        recent.add(canned.sample(NOW, native=False))
        assert len(recent.series("native_p50")) == 0
        assert len(recent.series("ollama_p50")) == 1

    def test_recorded_time_comes_before_what_was_heard_since(self) -> None:
        recent = RecentSamples()
        recent.add(canned.sample(NOW - 2))
        recent.preload(canned.history(NOW - 900, NOW, points=900))
        at = recent.series("gpu_memory_used").at
        assert np.all(np.diff(at) > 0)
        assert at[-1] == NOW - 2
        assert np.array_equal(recent.series("host_memory_total").at, at)

    def test_recorded_time_fills_what_a_lost_connection_left_open(self) -> None:
        recent = RecentSamples()
        heard = [*range(-100, -80), *range(-20, 0)]
        for second in heard:
            recent.add(canned.sample(NOW + second + 0.25))
        own = recent.series("gpu_memory_used")
        recent.preload(canned.history(NOW - 900, NOW, points=900))
        line = recent.series("gpu_memory_used")
        assert np.all(np.diff(line.at) > 0) and np.diff(line.at).max() < 5
        assert line.at[0] < NOW - 890
        kept = np.isin(line.at, own.at)
        assert np.array_equal(line.mean[kept], own.mean)
        inside = line.at[(line.at > NOW - 100) & ~kept]
        assert inside.min() > NOW - 80.8 and inside.max() < NOW - 19.7, "and only there"

    def test_recorded_time_that_nothing_was_heard_after_yet_is_taken_too(self) -> None:
        recent = RecentSamples()
        recent.add(canned.sample(NOW - 60))
        recent.preload(canned.history(NOW - 900, NOW, points=900))
        at = recent.series("gpu_memory_used").at
        assert at[-1] >= NOW - 1 and np.diff(at).max() < 5

    def test_what_was_read_long_ago_is_not_there_now(self) -> None:
        recent = RecentSamples()
        recent.add(canned.sample(NOW))
        assert recent.has("native_rate", NOW)
        assert not recent.has("native_rate", NOW + 1)
        assert not recent.has("gpu_throttled", NOW)


def test_eight_hours_leave_no_more_behind_than_a_quarter_of_one() -> None:
    state = state_of(FakeEngine())
    base = canned.sample()
    for second in range(0, 8 * 3600, 10):
        state.apply(SampleTaken(replace(base, at=NOW + second), (), True))
        state.apply(EventRecorded(Event(NOW + second, "note", f"second {second}")))
        state.apply(JobChanged(job(second, state=JobState.DONE)))
    assert len(state.events) == 100
    assert list(state.ended) == ["load"]
    assert state.status.jobs == ()
    held = {line._at.size for line in state.recent._lines.values()}
    assert max(held) <= 512


class TestNextStep:
    @pytest.mark.parametrize(
        ("native", "ollama", "active", "key"),
        [
            (MISSING, BackendState.UNAVAILABLE, "native", "d"),
            (MISSING, UNLOADED, "native", "d"),
            (MISSING, UNLOADED, "ollama", "l"),
            (BackendState.UNAVAILABLE, UNLOADED, "native", "s"),
            (UNLOADED, BackendState.UNAVAILABLE, "native", "l"),
            (FAILED, BackendState.READY, "ollama", "l"),
            (UNLOADED, BackendState.READY, "native", "s"),
            (BackendState.READY, UNLOADED, "native", "b"),
            (BackendState.READY, BackendState.UNAVAILABLE, "native", "b"),
            (BackendState.UNAVAILABLE, MISSING, "native", "2"),
            (BackendState.UNAVAILABLE, BackendState.UNAVAILABLE, "native", "7"),
        ],
    )
    def test_the_key_leads_on(
        self, native: BackendState, ollama: BackendState, active: str, key: str
    ) -> None:
        engine = FakeEngine(native=canned.native(native), ollama=canned.ollama(ollama), active=active)
        assert next_step(state_of(engine)).key == key

    def test_a_job_that_was_asked_to_stop_says_so_until_it_has_ended(self) -> None:
        state = state_of(fresh_engine())
        state.asked_to_stop(1)  # it had ended before
        state.apply_all([JobChanged(job(1)), JobChanged(job(2))])
        assert [one.step for one in state.status.jobs] == ["starting", "starting"]
        state.asked_to_stop(2)
        assert [one.step for one in state.status.jobs] == ["starting", "is being cancelled"]
        state.apply(JobChanged(job(2)))
        assert state.status.jobs[-1].step == "is being cancelled"
        state.apply(JobChanged(job(2, state=JobState.CANCELLED)))
        assert (state.ended["load"].step, state.cancelling) == ("starting", set())

    def test_the_download_is_named_with_its_size(self) -> None:
        assert "BAAI/bge-m3, 2.14 GiB" in next_step(state_of(fresh_engine())).text

    def test_what_runs_comes_first(self) -> None:
        state = state_of(fresh_engine())
        state.apply(JobChanged(job(kind="download")))
        assert next_step(state).key == "x"

    def test_a_lost_connection_comes_before_all_else(self) -> None:
        state = state_of(FakeEngine())
        state.apply(JobChanged(job(kind="download")))
        state.apply(ConnectionChanged(False, "the service", "its socket is gone", "start it"))
        assert next_step(state).text == "start it · no word from the service; what stands here is of before"

    def test_after_a_benchmark_its_run_is_next(self) -> None:
        state = state_of(FakeEngine())
        state.apply(JobChanged(job(kind="benchmark", state=JobState.DONE)))
        assert next_step(state).key == "3"


class TestActions:
    @pytest.mark.parametrize("where", [EVERYWHERE, *(name for name, _ in SCREENS)])
    def test_no_key_means_two_things_on_one_screen(self, where: str) -> None:
        keys = Counter(key for action in actions_of(where) for key in action.key.split(","))
        assert [key for key, times in keys.items() if times > 1] == []

    def test_binding_ids_are_unique(self) -> None:
        ids = [action.binding().id for action in ACTIONS]
        assert len(set(ids)) == len(ids)

    def test_before_the_engine_is_open_one_can_only_quit_and_look(self) -> None:
        assert is_available(EVERYWHERE, "quit", None)
        assert not is_available(EVERYWHERE, "load", None)

    def test_actions_depend_on_what_is_there(self) -> None:
        fresh, loaded = state_of(fresh_engine()), state_of(FakeEngine())
        assert is_available("models", "download", fresh)
        assert not is_available("models", "download", loaded)
        assert is_available("models", "verify", loaded)
        assert not is_available("models", "verify", fresh)
        assert not is_available(EVERYWHERE, "cancel", loaded)

    @pytest.mark.parametrize(("key", "shown"), [("question_mark", "?"), ("ctrl+c", "ctrl+c"), ("+", "+")])
    def test_keys_are_printed_as_they_stand_on_the_keyboard(self, key: str, shown: str) -> None:
        assert key_name(key) == shown


class TestBridge:
    async def test_what_is_superseded_is_delivered_once(self) -> None:
        got: list[tuple[Message, ...]] = []
        put, bridge = await opened(got)
        event = EventRecorded(Event(NOW, "note", "a"))
        for message in (
            SampleTaken(canned.sample(NOW), (), True),
            event,
            JobChanged(job(1)),
            JobChanged(job(2)),
            SampleTaken(canned.sample(NOW + 1), (), True),
            JobChanged(job(1, state=JobState.DONE)),
            EventRecorded(Event(NOW, "note", "b")),
        ):
            put(message)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (messages,) = got
        samples = [m.sample.at for m in messages if isinstance(m, SampleTaken)]
        jobs = [(m.update.job_id, m.update.state) for m in messages if isinstance(m, JobChanged)]
        titles = [m.event.title for m in messages if isinstance(m, EventRecorded)]
        assert samples == [NOW + 1]
        assert jobs == [(2, JobState.RUNNING), (1, JobState.DONE)]
        assert titles == ["a", "b"]
        bridge.close()

    async def test_nothing_is_lost_between_many_threads(self) -> None:
        got: list[tuple[Message, ...]] = []
        put, bridge = await opened(got)

        def publish(thread: int) -> None:
            for i in range(50):
                put(EventRecorded(Event(NOW, "note", f"{thread}-{i}")))

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        for _ in range(3):
            await asyncio.sleep(0)
        titles = [m.event.title for batch in got for m in batch if isinstance(m, EventRecorded)]
        assert sorted(titles) == sorted(f"{t}-{i}" for t in range(8) for i in range(50))
        bridge.close()

    async def test_a_closed_bridge_delivers_nothing_and_is_unsubscribed(self) -> None:
        engine, got = FakeEngine(), list[tuple[Message, ...]]()
        bridge = Bridge(got.append, interval=0.0)
        bridge.open(engine.subscribe)
        assert engine.subscribers == 1
        engine.tick()
        bridge.close()
        engine.tick()
        await asyncio.sleep(0)
        assert got == []
        assert engine.subscribers == 0

    async def test_a_burst_waits_for_the_interval(self) -> None:
        got: list[tuple[Message, ...]] = []
        put, bridge = await opened(got, interval=3600.0)
        put(ActiveChanged("native"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        put(ActiveChanged("ollama"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert got == [(ActiveChanged("native"),)]
        bridge.close()


async def opened(
    got: list[tuple[Message, ...]], interval: float = 0.0
) -> tuple[Callable[[Message], None], Bridge]:
    bridge = Bridge(got.append, interval=interval)
    bridge.open(lambda _: lambda: None)
    return bridge.put, bridge


class TestText:
    def test_only_the_cells_that_differ_are_repainted(self) -> None:
        before, after = Content("same\np50 24.1 ms"), Content("same\np50 25.1 ms")
        (region,) = changed_regions(before, after, 40)
        assert (region.x, region.y, region.width) == (5, 1, 6)

    def test_a_change_of_colour_alone_is_repainted_too(self) -> None:
        before, after = Content.assemble(("●", "red"), " x"), Content.assemble(("●", "green"), " x")
        assert changed_regions(before, after, 40)[0].x == 0

    def test_wrapped_lines_are_not_confined(self) -> None:
        assert changed_regions(Content("a" * 50), Content("b" * 50), 40) == ()

    @pytest.mark.parametrize(
        ("share", "full"), [(None, 0), (0.0, 0), (0.5, 5), (0.999, 9), (1.0, 10), (7.0, 10)]
    )
    def test_a_bar_is_full_only_when_done(self, share: float | None, full: int) -> None:
        assert bar(share, 10).plain.count("━") == full
        assert bar(share, 10).cell_length == 10

    def test_the_left_side_yields_when_a_line_is_too_short(self) -> None:
        line = spread(Content("a long name"), Content("right"), 12).plain
        assert len(line) == 12
        assert line.endswith("right")


class TestWords:
    def test_unknown_memory_is_not_zero(self) -> None:
        sample = canned.sample(native=False)
        text = card_text(canned.native(claimed_bytes=None), sample, now=NOW, lines=9).plain
        assert "n/a measured · n/a claimed" in text

    def test_claimed_stands_beside_measured(self) -> None:
        text = card_text(canned.native(), canned.sample(), now=NOW, lines=9).plain
        assert "1.68 GiB claimed" in text
        assert "measured" in text

    def test_a_figure_that_the_machine_lacks_has_its_reason_on_the_card(self) -> None:
        sample = replace(
            canned.sample(native=False),
            provenance={"native_gpu_memory": Provenance(absence="not visible here")},
        )
        text = card_text(canned.native(), sample, now=NOW, lines=9).plain
        assert "n/a measured · 1.68 GiB claimed  (not visible here)" in text
        away = card_text(canned.native(remote=True), sample, now=NOW, lines=9).plain
        assert "(runs on another machine)" in away

    def test_without_a_gpu_the_hosts_memory_is_what_a_backend_holds(self) -> None:
        text = card_text(canned.native(), canned.sample(gpu=False), now=NOW, lines=9, on_gpu=False).plain
        assert "3.02 GiB measured on the host" in text

    def test_a_small_card_has_requests_before_probes(self) -> None:
        line = card_text(canned.native(), canned.sample(), now=NOW, lines=4, width=36).plain.split("\n")[-1]
        assert line == "p50 26.0  p95 39.9 ms  277 texts/s"
        quiet = replace(canned.sample(), values={"native_probe": 21.4})
        line = card_text(canned.native(), quiet, now=NOW, lines=4, width=36).plain.split("\n")[-1]
        assert line == "probe 21.4 ms  no requests"
        busy = replace(
            canned.sample(), values={"native_p50": 1e3, "native_p95": 2e3, "native_rate": 12_345.0}
        )
        line = card_text(canned.native(), busy, now=NOW, lines=4, width=36).plain.split("\n")[-1]
        assert line == "p50 1,000  p95 2,000 ms  12,345/s"

    @pytest.mark.parametrize(
        ("values", "drawn"),
        [
            ([0.0, 50.0, 100.0], "▁▅█"),
            ([100.0, 101.0, 99.0], "▅▅▄"),
            ([math.nan, 5.0], " ▅"),
            ([0.0, 0.0], "▁▁"),
            ([math.nan], " "),
        ],
    )
    def test_a_sparkline_shows_the_course(self, values: list[float], drawn: str) -> None:
        assert spark(values) == drawn

    def test_a_failed_backend_says_why_and_what_to_do(self) -> None:
        text = card_text(canned.native(FAILED), None, now=NOW, lines=4).plain
        assert "signal 9" in text
        assert "→ free memory" in text

    def test_a_missing_figure_has_its_reason(self) -> None:
        line = gpu_line(canned.gb10(), canned.sample(), 200).plain
        assert "throttled n/a (reads 0 even while power-capped on this GPU)" in line

    def test_without_a_gpu_the_reason_is_given(self) -> None:
        line = gpu_line(canned.without_gpu(), canned.sample(gpu=False), 80).plain
        assert "no NVIDIA driver" in line

    def test_a_figure_is_there_whole_or_not_at_all(self) -> None:
        line = gpu_line(canned.gb10(), canned.sample(), 78)
        assert line.plain.endswith(" W")
        assert "MHz" in gpu_line(canned.gb10(), canned.sample(), 90).plain

    def test_what_is_here(self) -> None:
        line = here_line(state_of(fresh_engine(machine=canned.without_gpu())), 120).plain
        assert "GPU no NVIDIA driver" in line
        assert "Ollama not there" in line
        assert "2.14 GiB to download" in line

    @pytest.mark.parametrize("width", [58, 78, 118])
    def test_the_demo_says_so_at_every_width(self, width: int) -> None:
        line = machine_line(FakeEngine(demo=True).status(), width)
        assert "SIMULATED GB10 · demo" in line.plain
        assert line.cell_length <= width

    def test_a_job_line_has_rate_and_time_left_and_fits(self) -> None:
        update = replace(job(kind="download"), done=GIB, total=2 * GIB, unit="bytes", rate=1e8, eta=10.7)
        line = job_line(update, 78)
        assert "1.00 GiB of 2.00 GiB · 95.4 MiB/s · 11 s left" in line.plain
        assert line.cell_length <= 78

    def test_without_a_process_on_the_gpu_the_next_step_is_told(self) -> None:
        def words(engine: FakeEngine) -> list[str]:
            state = state_of(engine)
            state.status = replace(state.status, processes=())
            return process_lines(state, 8).plain.splitlines()

        none = "No process holds GPU memory."
        unloaded = FakeEngine(native=canned.native(UNLOADED), ollama=canned.ollama(UNLOADED))
        assert words(unloaded) == [none, "▶ l loads BAAI/bge-m3 into the native backend"]
        assert words(FakeEngine()) == [none], "loaded, and on the CPU then"
        without = FakeEngine(machine=canned.without_gpu())
        assert words(without) == ["There is no GPU.", "▶ 7 opens Doctor, which says why"]

    def test_no_events_is_said(self) -> None:
        assert event_lines([], 5, now=NOW).plain == "Nothing happened yet."


def test_every_theme_has_every_colour_of_ours() -> None:
    for theme in THEMES:
        assert set(THEMES[0].variables) - {"text-muted"} <= set(theme.variables)


@pytest.mark.parametrize(
    ("size", "first"),
    [
        ((80, 60), ("memory",)),
        ((120, 40), ("memory", "latency")),
        ((160, 50), ("memory", "latency", "traffic", "load")),
    ],
)
def test_every_chart_can_be_had_alone_at_any_size(size: tuple[int, int], first: tuple[str, ...]) -> None:
    choices = chart_choices(*size)
    assert choices[0] == first
    assert [choice[0] for choice in choices if len(choice) == 1] == ["memory", "latency", "traffic", "load"]


def test_themes_go_in_a_circle() -> None:
    name = THEMES[0].name
    for _ in THEMES:
        name = next_theme(name)
    assert name == THEMES[0].name
    assert next_theme("nord") == THEMES[0].name


def test_a_partial_file_makes_the_download_resume() -> None:
    from embedctl_console.screens.models_text import outcome_text

    model = canned.model(FileState.MISSING, partial={"pytorch_model.bin": GIB})
    state = state_of(fresh_engine(model=model))
    assert "goes on with the download of 1.14 GiB" in outcome_text(state).plain


def test_a_blank_last_line_on_one_side_is_a_line_like_any_other() -> None:
    before, after = Content("loading\nmodel\n"), Content("ready\nmodel\np50")
    assert [region.y for region in changed_regions(before, after, 20)] == [0, 2]
