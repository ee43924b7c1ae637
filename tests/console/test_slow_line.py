"""A slow line: how it is told, what is sent over it, and that the console stays usable there."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from embedctl_console.app import ConsoleApp
from embedctl_console.bridge import FLUSH_SELDOM
from embedctl_console.line import Line, Speed
from embedctl_console.paint import Cell, cells_of, difference
from tests.support.fake_engine import FakeEngine
from tests.support.grid import Grid
from tests.support.line import on_line

# How the line is judged -----------------------------------------------------------------------------------

JUDGED = {
    "answers at once": ([0.1], Speed.FAST),
    "the first answer is late": ([1.0], Speed.SLOW),
    "a later one is late": ([0.1, 1.5, 0.1, 1.5], Speed.FAST),
    "two in succession are late": ([0.1, 1.5, 1.5], Speed.SLOW),
    "one is very late": ([0.1, 3.0], Speed.SLOW),
    "slow stays slow": ([5.0, 0.1, 0.1, 0.1], Speed.SLOW),
    "never answers": ([None, None], Speed.FAST),
    "answered once, then not for a while": ([0.1, None], Speed.SLOW),
    "answers after it was given up": ([None, None, 0.0], Speed.SLOW),
}


@pytest.mark.parametrize("case", list(JUDGED))
def test_the_line_is_judged_by_its_answers(case: str) -> None:
    answers, expected = JUDGED[case]
    line, now = Line(), 100.0
    assert line.speed is Speed.UNKNOWN
    for answer in answers:
        now += 10.0
        if line.worth_asking(now, 1.0):
            line.asked(now)
        if answer is None:
            now += line.wait_s()
            line.look(now)
        else:
            line.look(now + min(answer, 0.9))
            line.answered(now + answer)
    assert line.speed is expected


def test_a_terminal_that_does_not_answer_is_asked_twice() -> None:
    line, waited = Line(), []
    for now in (0.0, 100.0):
        assert line.worth_asking(now, 1.0)
        line.asked(now)
        assert not line.worth_asking(now + 50.0, 1.0), "one question is open"
        waited.append(line.wait_s())
        line.look(now + line.wait_s())
    assert waited == [1.0, 8.0]
    assert not line.worth_asking(1000.0, 1.0)


@pytest.mark.parametrize(
    ("setting", "speed", "toggled"),
    [("auto", Speed.UNKNOWN, True), ("always", Speed.SLOW, False), ("never", Speed.FAST, True)],
)
def test_the_setting_decides_and_so_does_the_user(setting: str, speed: Speed, toggled: bool) -> None:
    app = ConsoleApp(FakeEngine)
    usual = app._bridge.interval
    app.pace.take_setting(setting)  # type: ignore[arg-type]
    assert app.pace.speed is speed
    assert app._bridge.interval == (FLUSH_SELDOM if speed is Speed.SLOW else usual)
    assert app.pace.toggle() is toggled
    assert app.pace.speed is (Speed.SLOW if toggled else Speed.FAST)


# What is sent ---------------------------------------------------------------------------------------------

COLOURS = ("", "red", "#102030", "#ffffff on #102030", "bold #aabbcc", "reverse", "underline dim on #445566")
TEXTS = (" ", "  ", "a", "word", "漢字", "é", "─│", "⣿⡇", "      ")


def lines_of(seed: int, width: int = 40, rows: int = 6) -> list[list[Cell]]:
    chance = random.Random(seed)
    lines = []
    for _ in range(rows):
        segments, room = [], width
        while room > 0:
            text = chance.choice(TEXTS)
            if cell_len(text) > room:
                break
            segments.append(Segment(text, Style.parse(chance.choice(COLOURS))))
            room -= cell_len(text)
        lines.append(cells_of(Strip(segments), width))
    return lines


def looks(cells: list[list[tuple[str, str]]]) -> list[list[tuple[str, frozenset[str]]]]:
    """Cells with the numbers in force, whatever their order and however often they were given."""
    return [[(text, _in_force(codes)) for text, codes in line] for line in cells]


def _in_force(codes: str) -> frozenset[str]:
    numbers, colours, others = iter(codes.split(";")), {}, set()
    for number in numbers:
        if number in ("38", "48"):
            colours[number] = f"{number};{next(numbers)};{next(numbers)}"
        elif number[:1] in ("3", "4") and len(number) == 2:
            colours[f"{number[0]}8"] = number
        elif number:
            others.add(number)
    return frozenset((*colours.values(), *others))


def shown(*sent: str, rows: int = 6) -> Grid:
    grid = Grid(40, rows)
    for part in sent:
        grid.feed(part.encode())
    return grid


@pytest.mark.parametrize("erases", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_what_differs_makes_one_screen_of_the_other(seed: int, erases: bool) -> None:
    before, now = lines_of(seed), lines_of(seed + 100)
    for y in range(0, 6, 2):  # some lines differ in one place, some wholly
        halved = any("" in (line[17][0], line[20][0]) for line in (before[y], now[y]))
        now[y] = before[y] if halved else [*before[y][:17], *now[y][17:20], *before[y][20:]]
    whole = difference(None, now, erases=False, colours=True)
    changes = difference(before, now, erases=erases, colours=True)
    grid = shown(difference(None, before, erases=erases, colours=True), changes)
    assert looks(grid.cells) == looks(shown(whole).cells)
    assert grid.text.splitlines() == ["".join(text for text, _ in line).rstrip() for line in now]
    assert len(changes) < len(whole)
    assert difference(now, now, erases=erases, colours=True) == ""


def test_a_digit_takes_some_bytes_and_an_empty_line_takes_few() -> None:
    style = Style.parse("bold #aabbcc on #102030")
    before = [cells_of(Strip([Segment("p50 26.1 ms", style)]), 40)]
    now = [cells_of(Strip([Segment("p50 26.2 ms", style)]), 40)]
    assert len(difference(before, now, erases=True, colours=True)) < 40
    assert difference(before, now, erases=True, colours=False) == "\x1b[1;8H\x1b[1m2\x1b[0m"
    blank = [cells_of(Strip([Segment(" " * 40, Style.parse("on #102030"))]), 40)]
    assert len(difference(None, blank, erases=True, colours=True)) < 30
    assert len(difference(None, blank, erases=False, colours=True)) > 40


# The console at its end -----------------------------------------------------------------------------------

CONSOLE = """
import os, sys, threading
import embedctl_console.line as line
import embedctl_console.pace as pace
from embedctl_console.app import ConsoleApp
from tests.support.fake_engine import FakeEngine

line.BEHIND_S = 0.0  # so that no answer is in time
pace.FLUSH_SELDOM = 0.0  # news come when the test says so
engine = FakeEngine()
app = ConsoleApp(lambda: engine, clock=engine.clock, flush_every=0.0)

def publish():
    while os.read({asks}, 1):
        for _ in range(8):
            engine.tick(0.5)
        drawn = threading.Event()
        app.call_from_thread(app.call_after_refresh, drawn.set)
        drawn.wait()
        os.write({tells}, b".")

threading.Thread(target=publish, daemon=True).start()
app.run()
"""


def test_on_a_slow_line_the_console_stays_usable() -> None:
    """Counted in bytes, of which a line of 9,600 baud carries 960 a second."""
    (asked, ask), (told, tell) = os.pipe(), os.pipe()
    code = CONSOLE.format(asks=asked, tells=tell)
    environment = {
        **os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT),
    }  # fmt: skip

    def four_seconds_pass() -> None:
        os.write(ask, b"t")
        assert os.read(told, 1) == b"."

    with on_line(
        [sys.executable, "-c", code], environment, columns=80, rows=24, pass_fds=(asked, tell)
    ) as line:
        line.take_until("does not keep up", "Memory pool", most=12_000)

        # Idle: what the news of 4 s take.
        line.answers = False
        sizes = []
        for _ in range(10):
            line.answer()
            before = line.taken
            four_seconds_pass()
            while not line.asked:
                assert line.take()
            sizes.append(line.taken - before)
        assert sum(sizes) / len(sizes) < 4 * 960 / 2
        assert max(sizes) < 4 * 960

        # While a frame is on the way, nothing follows it, however much happens; then a key has the next one.
        for _ in range(5):
            four_seconds_pass()
        line.press(b"2")
        four_seconds_pass()
        assert len(line.take(patience=0.0)) < 50, "no frame"
        line.answers = True
        line.answer()
        line.take_until("tokenizer.json", "verified", most=6_000)

        line.press(b"\x0c")
        line.take_until("off: all is drawn at once", most=30_000)
    for end in (asked, ask, told, tell):
        os.close(end)


ROOT = Path(__file__).parents[2]
