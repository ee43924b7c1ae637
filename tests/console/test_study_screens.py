"""Check and Quality: a study as it runs, its findings, the evidence; and what the Dashboard says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedctl.errors import BackendError, StoreCorruptError
from embedctl.records import BackendState, Condition, Event, Outcome, Trial
from embedctl.study_data import check_report, quality_report
from embedctl_console.screens.check_text import answer_text, row_cells, shown_rows
from embedctl_console.screens.quality_text import columns, difference_cells
from embedctl_console.state import ConsoleState, Standing
from embedctl_console.widgets.distribution import Readings, fine_label, histogram, shares
from embedctl_console.widgets.standing import standing_line, trial_words, verdict_words
from embedctl_console.widgets.text import Text
from tests.support import canned
from tests.support.canned import NOW, quality_study
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine, fresh_engine


class TestDistribution:
    def test_a_histogram_has_every_reading_and_hides_no_single_one(self) -> None:
        values = np.concatenate([np.full(1000, 5.0), [50.0]])
        lines = histogram(Readings("a", "", values), 60, 4, "{:.0f}".format).plain.splitlines()
        assert lines[0].strip().startswith("1,000")
        assert lines[3].rstrip()[-1] in "▁█"
        assert lines[-1].split() == ["5", "28", "50"]

    def test_readings_that_are_all_the_same_have_an_axis_too(self) -> None:
        assert "█" in histogram(Readings("a", "", np.full(9, 1.0)), 40, 3, "{:.3f}".format).plain

    def test_shares_rise_from_the_least_to_the_greatest_reading(self) -> None:
        drawn = shares([Readings("a", "", np.arange(1.0, 11.0))], 40, 8, "{:.0f}".format, charset="ascii")
        lines = drawn.plain.splitlines()
        first, last = lines[6].index("*"), lines[0].rindex("*")
        assert first < 12
        assert last > 35
        assert [line.split()[0] for line in lines if "%" in line] == ["100%", "95%", "50%", "0%"]

    @pytest.mark.parametrize("charset", ["braille", "block", "ascii"])
    def test_nothing_is_wider_than_asked(self, charset: str) -> None:
        values = np.random.default_rng(1).lognormal(3, 1, 500)
        for drawn in (
            histogram(Readings("a", "", values), 78, 5, "{:.1f}".format, charset=charset),
            shares([Readings("a", "", values)], 78, 5, "{:.1f}".format, charset=charset),
        ):
            assert max(len(line) for line in drawn.plain.splitlines()) <= 78

    def test_labels_tell_near_readings_apart(self) -> None:
        assert fine_label(0.99986, 1.0)(0.99991) == "0.99991"


class TestWords:
    def test_the_worst_finding_comes_first_with_its_threshold(self) -> None:
        report = check_report(canned.check_study())
        assert shown_rows(report)[0].outcome is Outcome.LIMIT
        parity = next(row for row in report.rows if row.part == "parity")
        assert row_cells(parity, report, (9, 11, 6, 60, 9))[4].plain == "≥ 0.999"
        assert "(least cosine must be ≥ 0.999)" in row_cells(parity, report, (9, 11, 6, 60))[3].plain.replace(
            "\n", " "
        )

    def test_a_stale_answer_says_what_has_changed(self) -> None:
        study = canned.check_study()
        text = answer_text(study, check_report(study), ["ollama backend_version: 1 → 2"], 78).plain
        assert "SAFE WITH LIMITS" in text
        assert "has changed since: ollama backend_version: 1 → 2" in text

    @pytest.mark.parametrize(
        ("verdict", "said"),
        [("safe", "✓ safe to switch: yes, 2 d ago"), ("not safe", "✗ safe to switch: no, 2 d ago")],
    )
    def test_the_badge(self, verdict: str, said: str) -> None:
        found = canned.study_summary(canned.check_study(at=NOW - 2 * 86_400, verdict=verdict))
        assert verdict_words(Standing(found), "k", NOW).plain == said
        stale = verdict_words(Standing(found, ("a: 1 → 2", "b: 1 → 2")), "k", NOW).plain
        assert stale == f"{said} · stale: a: 1 → 2 (and 1 more)"

    def test_before_the_first_check_the_badge_says_what_to_press(self) -> None:
        badge = verdict_words(Standing(None), "5", NOW).plain
        assert badge == "? safe to switch: not checked yet · press 5"

    def test_other_studies_have_badges_where_there_is_room(self) -> None:
        engine = FakeEngine()
        state = ConsoleState(engine.status())
        quality = canned.study_summary(canned.quality_study(at=NOW - 3 * 86_400))
        state.standing = Standing(canned.study_summary(canned.check_study(at=NOW)), (), (quality,))
        wide = standing_line(state, 100, NOW).plain
        assert wide == f"! safe to switch: with limits, just now   = quality: {quality.verdict}, 3 d ago"
        assert standing_line(state, 60, NOW).plain == "! safe to switch: with limits, just now"

    @pytest.mark.parametrize(
        ("width", "failed", "said"),
        [
            (118, 1, "shadow 10% share 5% · least cosine 0.99871 in 7,680 texts · 12 dropped · 1 failed"),
            (78, 0, "shadow 10% share 5% · least 0.99871 of 7,680 · 12 dropped"),
            (78, 1, "shadow 10% share 5%: least 0.9987 of 7,680, 12 dropped, 1 failed"),
        ],
    )
    def test_a_trial_is_told_in_the_room_there_is(self, width: int, failed: int, said: str) -> None:
        report = replace(canned.trial_report(Trial("ollama", 0.1, 0.05)), failed=failed)
        words = trial_words(report, width)
        assert words.plain == f"trial ollama {said}"
        assert words.cell_length <= width


class TestCheckScreen:
    async def test_from_the_first_key_to_the_worst_text(self) -> None:
        engine = fresh_engine()
        async with running(engine, (80, 24)) as pilot:
            await press(pilot, "k")
            assert pilot.app.current_mode == "check"
            engine.job("check").progress("ollama: texts", done=780, total=3120, rate=20.0, eta=117.0)
            await settle(pilot)
            text = screen_text(pilot)
            assert "25%  780 of 3,120 · 20.0/s · 1 min 57 s left" in text
            assert "x cancels" in text
            engine.job("check").finish()
            await settle(pilot)
            assert "SAFE WITH LIMITS" in screen_text(pilot)
            await press(pilot, "w")
            assert "How many points did the Panthers defense surrender?" in screen_text(pilot)
            await press(pilot, "escape", "enter")
            assert "cut in silence" in screen_text(pilot)

    async def test_a_cancelled_and_a_failed_check_say_so(self) -> None:
        engine = fresh_engine()
        async with running(engine, (80, 24)) as pilot:
            await press(pilot, "k", "x")
            assert "cancelled" in screen_text(pilot)
            await press(pilot, "k")
            engine.job("check").fail("No backend could be loaded", remedy="ollama serve")
            await settle(pilot)
            assert "→ ollama serve" in screen_text(pilot)

    async def test_an_earlier_check_is_shown_when_it_is_chosen(self) -> None:
        engine = FakeEngine()
        engine.stored_studies[2] = canned.check_study(2, at=NOW - 9 * 86_400)
        async with running(engine) as pilot:
            await press(pilot, "5")
            assert "check 4 ·" in screen_text(pilot)
            await press(pilot, "tab", "down")
            assert "check 2 · 2026-02-23" in screen_text(pilot)
            await pilot.resize_terminal(80, 24)
            await settle(pilot)
            assert "check 2 · 2026-02-23" in screen_text(pilot)
            await press(pilot, "k")
            engine.job("check").finish()
            await settle(pilot)
            assert "check 5 · 2026-03-04" in screen_text(pilot)

    async def test_a_store_that_cannot_be_read_and_data_of_another_version_are_told(self) -> None:
        engine = FakeEngine()
        engine.stored_studies[4] = canned.check_study(4, data={"verdict": "maybe"})
        engine.stored_studies[2] = canned.check_study(2, at=NOW - 9 * 86_400)
        async with running(engine) as pilot:
            await press(pilot, "5")
            assert "Study 4 cannot be shown" in screen_text(pilot)
            await press(pilot, "tab", "down")
            assert "check 2 · 2026-02-23" in screen_text(pilot)
            await press(pilot, "up")
            assert "Study 4 cannot be shown" in screen_text(pilot)
            await press(pilot, "down")
            assert "check 2 · 2026-02-23" in screen_text(pilot)
            engine.errors["studies"] = StoreCorruptError("The history is damaged")
            await press(pilot, "k")
            engine.job("check").finish()
            await settle(pilot)
            assert "The history is damaged" in screen_text(pilot)


async def test_quality_from_the_first_key_to_the_queries_that_lost_most() -> None:
    engine = fresh_engine()
    async with running(engine) as pilot:
        await press(pilot, "6", "m")
        assert "x cancels" in screen_text(pilot)
        engine.job("quality").finish()
        await settle(pilot)
        text = screen_text(pilot)
        assert "-0.0031  -0.0052 to -0.0010  = no difference that matters" in text
        assert "of 2,380 the same" in text
        await press(pilot, "w")
        assert "1.000 → 0.630" in screen_text(pilot)


def test_a_loss_is_told_by_word_and_sign() -> None:
    report = quality_report(quality_study())
    row = replace(report.differences[0], verdict="worse")
    assert difference_cells(report, row, [20, 10, 8, 18, 28])[-1].plain == "▼ worse"
    several = replace(report, differences=(row, replace(row, variant="native max_tokens=512")))
    names, widths = zip(*columns(several, 78), strict=True)
    assert names == ("set", "variant", "change", "95 % interval", "verdict")
    assert sum(widths) + 2 * len(widths) <= 78
    cells = difference_cells(several, several.differences[1], widths)
    assert cells[0].plain == "xquad-en\nNDCG@10"
    assert cells[1].plain == "native max_t\nokens=512"


class TestDashboard:
    async def test_a_slow_backend_says_why(self) -> None:
        engine = FakeEngine()
        engine.conditions = {"ollama": Condition.SLOW}
        async with running(engine, (80, 24)) as pilot:
            assert "ollama · ! slow" in screen_text(pilot)
            assert "scripted: slow" in screen_text(pilot)

    async def test_health_and_trial_are_asked_for_every_two_seconds_and_after_their_events(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            assert "✓ healthy" in screen_text(pilot)
            engine.conditions = {"native": Condition.HUNG}
            engine.tick(0.5)
            await settle(pilot)
            assert "hung" not in screen_text(pilot)
            engine.tick(2.0)
            await settle(pilot)
            assert "✗ hung" in screen_text(pilot)
            engine.running_trial = canned.trial_report(Trial("ollama", 0.1))
            engine.record(Event(engine.now, "trial", "trial of ollama began"))
            await settle(pilot)
            assert "trial ollama shadow 10%" in screen_text(pilot)
            engine.running_trial = replace(engine.running_trial, rolled_back="cosine 0.9")
            why = {"why": "a text's cosine is 0.9000, under 0.99"}
            engine.record(Event(engine.now, "trial", "trial of ollama rolled back from 5%", detail=why))
            await settle(pilot)
            assert "trial ollama shadow 10% rolled back" in screen_text(pilot)
            notice = list(pilot.app._notifications)[-1]
            assert (notice.title, notice.message) == ("trial of ollama rolled back from 5%", why["why"])

    async def test_a_verdict_goes_stale_when_a_backend_changes(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            assert "safe to switch: with limits, 1 h ago" in screen_text(pilot)
            engine.changes = ("ollama backend_version: 0.13.5 → 0.14.0",)
            engine.set_backend(canned.ollama(BackendState.READY, version="0.14.0"))
            await settle(pilot)
            assert "stale: ollama backend_version: 0.13.5 → 0.14.0" in screen_text(pilot)
            assert "k asks again whether it is safe to switch" in screen_text(pilot)

    async def test_an_engine_that_cannot_tell_leaves_both_unsaid(self) -> None:
        engine = FakeEngine()
        engine.errors["studies"] = BackendError("It cannot be asked")
        async with running(engine) as pilot:
            standing = pilot.app.screen.query_one("#standing", Text)._shown
            assert standing is not None
            assert standing.plain == ""
