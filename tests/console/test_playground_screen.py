"""The Playground: what is typed is embedded when asked for, and shown as it comes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual import events
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from embedctl.errors import BackendError, UsageError
from embedctl.progress import CancelToken
from embedctl.records import BackendState, EmbedResult, Failure, Piece, TextFailure, Tokenised
from embedctl_console.screens.playground_findings import EXAMPLES, MOST_TEXTS, Findings, texts_in
from embedctl_console.screens.playground_passages import read_passages
from embedctl_console.screens.playground_pieces import tokens_text
from embedctl_console.screens.playground_text import absence_text, vectors_text
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.matrix import CosineMatrix, level_of, nearest_others, number_text
from tests.support import canned
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine

PLAIN: Callable[[str], str] = lambda action_id: action_id.split(".")[1]  # noqa: E731


def area(pilot: Pilot[None]) -> TextArea:
    return pilot.app.screen.query_one("#texts", TextArea)


def asked(engine: FakeEngine) -> list[object]:
    return [call[0] for call in engine.calls if call[0] in ("tokens", "embed", "nearest")]


class TestScreen:
    async def test_typing_embeds_nothing_until_it_is_asked_for_and_errors_are_told(self) -> None:
        engine = FakeEngine()
        async with running(engine, (160, 50)) as pilot:
            await press(pilot, "0")
            await pilot.press(*"how s q 1", "enter", "x")
            await settle(pilot)
            assert area(pilot).text == "how s q 1\nx"
            assert asked(engine) == []
            await press(pilot, "ctrl+r")
            assert asked(engine) == ["tokens", "embed", "embed", "nearest"]
            shown = screen_text(pilot)
            for words in ("│▁how│▁s│▁q│", "24.6 ms", "1.0000", "1.00000", "5 passages", "2 texts"):
                assert words in shown
            await press(pilot, "y")
            assert "changed since: ctrl+r" in screen_text(pilot)
            # The texts keep the letters; left, the letters are keys again, and a paste still finds its way.
            await press(pilot, "escape", "v")
            assert not area(pilot).has_focus
            pilot.app.screen.post_message(events.Paste("pasted\r\ntext"))
            await settle(pilot)
            assert area(pilot).has_focus
            assert texts_in(area(pilot).text)[-1] == "text"
            await press(pilot, "escape", "o")
            assert engine.calls[-1] == ("nearest", "ollama", None, 3)
            await press(pilot, "o")  # back: what native has found is still there
            assert asked(engine).count("nearest") == 2

            engine.errors["tokens"] = BackendError("No pieces", why="a reason", remedy="do this")
            await press(pilot, "ctrl+r")
            for words in ("✗ No pieces", "a reason", "→ do this"):
                assert words in screen_text(pilot)
            del engine.errors["tokens"]
            engine.errors["nearest"] = BackendError("No search", remedy="do that")
            engine.no_pieces = Failure("The files are not here", "none", "download it")
            await press(pilot, "ctrl+r")
            for words in ("✗ No search", "→ do that", "→ download it", "1.00000"):
                assert words in screen_text(pilot)
            assert "No pieces" not in screen_text(pilot)

    async def test_the_screen_is_copied_while_a_text_is_typed(self, tmp_path: Path) -> None:
        engine = FakeEngine(home=tmp_path)
        async with running(engine) as pilot:
            await press(pilot, "0", "a", "b", "ctrl+z", "ctrl+y")
            assert area(pilot).has_focus
            assert "copied" in next(iter(pilot.app._notifications)).title
            assert "Texts" in (engine.paths.exports_dir / "copied.txt").read_text(encoding="utf-8")
            await press(pilot, "ctrl+shift+z")
            assert area(pilot).text == "ab"

    async def test_own_passages_and_many_texts(self, tmp_path: Path) -> None:
        engine, file = FakeEngine(), tmp_path / "passages.txt"
        file.write_text("one passage\n\nanother one\n", encoding="utf-8")
        async with running(engine, (80, 24)) as pilot:
            await press(pilot, "0", "ctrl+r")
            assert area(pilot).text == "\n".join(EXAMPLES)
            await press(pilot, "f2", "f2", "f2", "ctrl+o")
            pilot.app.screen.query_one(Input).value = str(file)
            await press(pilot, "enter")
            assert engine.calls[-1] == ("nearest", "native", 2, 3)
            assert "another one" in screen_text(pilot)
            await press(pilot, "f4")
            assert "1 Who discovered oxygen?" in screen_text(pilot)
            await press(pilot, "escape")
            assert area(pilot).has_focus
            await press(pilot, "ctrl+o")
            pilot.app.screen.query_one(Input).value = str(tmp_path / "none.txt")
            await press(pilot, "enter")
            assert "cannot be read" in next(iter(pilot.app._notifications)).title
            await press(pilot, "ctrl+o")
            pilot.app.screen.query_one(Input).value = "~nobody-of-that-name/passages.txt"
            await press(pilot, "enter")
            assert len(pilot.app._notifications) == 2
            await press(pilot, "ctrl+o", "enter")  # no path: the built-in ones
            assert engine.calls[-1] == ("nearest", "native", None, 3)
            # In a large matrix the labels and the numbers of the columns stay where they are.
            area(pilot).text = "\n".join(f"text number {number}" for number in range(1, 41))
            await press(pilot, "ctrl+r", "escape", "v", "v", "v")
            matrix = pilot.app.screen.query_one(CosineMatrix)
            matrix.scroll_to(60, 20, animate=False)
            await settle(pilot)
            lines = [matrix.render_line(y).text for y in (0, 1)]
            assert lines[0].split()[0] == "11"
            assert lines[1].startswith(" 21 text number 21")
            assert lines[0].index("11") - lines[1].index("0.") in (2, 3)

    async def test_what_is_not_loaded_says_what_to_do_and_what_runs_is_stopped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = FakeEngine(
            native=canned.native(BackendState.UNLOADED), ollama=canned.ollama(BackendState.UNAVAILABLE)
        )
        async with running(engine, (160, 50)) as pilot:
            await press(pilot, "0")
            assert "native: unloaded; esc l loads it" in screen_text(pilot)
            await press(pilot, "escape")
            assert not area(pilot).has_focus
            assert "native: unloaded; l loads it" in screen_text(pilot)
            await press(pilot, "e", "a", "ctrl+r")
            assert asked(engine) == ["tokens"]  # pieces need no backend
            assert "│▁a│" in screen_text(pilot)
            assert "no backend was loaded: esc l" in screen_text(pilot)
            assert "ollama is unavailable" in screen_text(pilot)
            await press(pilot, "escape", "l")
            assert ("load", "native") in engine.calls
            engine.job("load").finish()
            await settle(pilot)
            assert "native is loaded by now: ctrl+r asks it too" in screen_text(pilot)
            await press(pilot, "e")

            mine, entered = list[CancelToken](), threading.Event()

            def embed(texts: list[str], *, backend: str, cancel: CancelToken) -> EmbedResult:
                mine.append(cancel)
                entered.set()
                cancel.wait(30)
                raise BackendError("taken back too late to matter")

            monkeypatch.setattr(engine, "embed", embed)
            await pilot.press("ctrl+r")
            await run_in_thread(entered.wait, 30)
            await pilot.press("b")
            await pilot.pause()
            assert area(pilot).text == "ab"
            assert "native embeds 1 text" in screen_text(pilot)
            assert "esc stops" in screen_text(pilot)
            await press(pilot, "escape")
            assert mine[0].cancelled
            assert "stopped" in screen_text(pilot)
            assert area(pilot).has_focus
            await press(pilot, "escape")
            assert not area(pilot).has_focus


class TestPassages:
    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("~nobody-of-that-name/x", "home directory"),
            ("a text that was pasted " * 200, "name too long"),
            ("x\0y", "null byte"),
            ("none.txt", "No such file"),
        ],
    )
    def test_no_path_is_more_than_a_mistake(self, path: str, why: str) -> None:
        with pytest.raises(UsageError, match="cannot be read") as told:
            read_passages(Path(path))
        assert why in told.value.why
        assert len(told.value.what) < 120

    def test_what_might_never_end_is_not_read(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
            with pytest.raises(UsageError, match="is no plain file"):
                read_passages(path)

    def test_a_folder_that_one_may_not_enter_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self: Path) -> None:  # permissions do not bind root, who may run the tests
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "stat", refuse)
        with pytest.raises(UsageError, match="cannot be read") as told:
            read_passages(Path("/root/passages.txt"))
        assert told.value.why == "Permission denied"


def answer(backend: str, **changes: Any) -> EmbedResult:
    vectors = np.eye(3, 4, dtype=np.float32)
    return replace(EmbedResult(vectors, backend, 9, (), (), 0.5), **changes)


class TestWords:
    BACKENDS = (canned.native(), canned.ollama())

    def said(self, **answers: Any) -> str:
        found = Findings(("a", "b", "c"), asked=tuple(answers), answers=answers)
        return vectors_text(found, self.BACKENDS, 76, PLAIN).plain

    def test_what_was_cut_or_failed_stands_beside_its_text(self) -> None:
        broken = np.eye(3, 4, dtype=np.float32)
        broken[1] = np.nan
        said = self.said(
            native=answer("native", truncated=(2,)),
            ollama=answer("ollama", vectors=broken, failures=(TextFailure(1, "too odd"),), notes=("halved",)),
        )
        lines = {line.split()[0]: line for line in said.splitlines() if line.split()[0] in "123"}
        assert lines["1"].endswith("1.00000")
        assert "no vector" in lines["2"] and lines["2"].endswith("n/a")
        assert "1.0000 cut" in lines["3"]
        assert "✗ ollama, text 2: too odd" in said
        assert "· ollama: halved" in said

    def test_vectors_of_different_length_have_no_cosine(self) -> None:
        said = self.said(
            native=answer("native"), ollama=answer("ollama", vectors=np.eye(3, dtype=np.float32))
        )
        assert "differ in length" in said
        assert "n/a" in said.splitlines()[-2]

    def test_a_backend_that_counts_other_tokens_than_the_pieces_is_told(self) -> None:
        tokens = canned.tokenisation(["a", "b", "c"])
        found = Findings(("a", "b", "c"), tokens=tokens, answers={"native": answer("native")})
        assert "counts" not in vectors_text(found, self.BACKENDS, 76, PLAIN).plain
        found.answers["native"] = answer("native", tokens=8)
        assert "! native counts 8 tokens where the pieces that are read are 9" in (
            vectors_text(found, self.BACKENDS, 76, PLAIN).plain
        )

    def test_a_backend_that_failed_says_why_beside_the_other_ones_vectors(self) -> None:
        said = self.said(native=answer("native"), ollama=BackendError("It broke", remedy="mend it"))
        assert "✗ ollama: It broke" in said and "→ mend it" in said and "1.0000" in said

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (BackendState.FAILED, "load loads it"),
            (BackendState.MODEL_MISSING, "show-models opens Models"),
            (BackendState.LOADING, "native: loading; "),
            (BackendState.READY, "native is loaded by now: run asks it too"),
        ],
    )
    def test_every_state_has_its_next_step(self, state: BackendState, words: str) -> None:
        found = Findings(("a",), asked=("ollama",), answers={"ollama": answer("ollama")})
        assert words in absence_text(canned.native(state), found, PLAIN).plain

    def test_only_lines_that_say_something_are_texts(self) -> None:
        assert texts_in(" a \r\n\n  \nb\rc") == (" a ", "b", "c")
        assert len(texts_in("x\n" * (MOST_TEXTS + 5))) == MOST_TEXTS + 5


class TestPieces:
    def text(self, one: Tokenised, width: int = 60) -> Content:
        tokens = replace(canned.tokenisation(["x"]), texts=(one,))
        return tokens_text(["the text"], tokens, width)

    def test_pieces_are_separated_and_wrapped_between_two(self) -> None:
        one = canned.tokenisation(["word " * 40]).texts[0]
        lines = self.text(one, 50).plain.splitlines()
        assert max(map(len, lines)) <= 50
        assert all(line.endswith("│") for line in lines[1:])
        assert "".join(lines[1:]).count("│") == 42

    def test_the_cut_is_marked_before_the_first_piece_that_is_lost(self) -> None:
        (one,) = canned.tokenisation(["a b c d"], 4).texts
        text = self.text(one).plain
        assert "4 of 6 tokens read · characters 4–7 lost" in text
        assert "▁b│ CUT: 2 not read │▁c│▁d│</s>" in text

    def test_of_a_long_text_the_begin_the_cut_and_the_end_are_shown(self) -> None:
        pieces = tuple(Piece(f"p{number}", number, number + 1) for number in range(9_000))
        shown = self.text(Tokenised(pieces, (8_192, 9_000), (8_192, 9_000))).plain.replace("\n    ", "")
        for words in ("p0│", "p1199│… 6,692 more …│p7892│", "p8191│ CUT: 808 not read │p8192│", "p8999│"):
            assert words in shown
        assert shown.count("│") < 2_500

    def test_blank_pieces_can_be_seen(self) -> None:
        assert "↵│⇥│" in self.text(Tokenised((Piece("\n", 0, 1), Piece("\t", 1, 2)))).plain


class TestMatrix:
    def test_numbers_have_four_characters(self) -> None:
        shown = [number_text(value) for value in (1.0, 0.834, 0.0, -0.001, -0.129, -0.999)]
        assert shown == ["1.00", "0.83", "0.00", "0.00", "-.13", "-1.0"]

    def test_shades_have_the_same_steps_everywhere(self) -> None:
        assert [level_of(value) for value in (-1.0, 0.0, 0.13, 0.5, 0.99, 1.0)] == [0, 0, 1, 4, 7, 7]

    def test_the_nearest_other_of_a_row(self) -> None:
        values = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, np.nan], [np.nan, np.nan, np.nan]])
        assert nearest_others(values) == {0: 2, 1: 0}
