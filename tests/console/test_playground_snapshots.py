"""Pictures of the Playground: nothing yet, what was found, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from embedctl.errors import BackendTimeoutError
from embedctl.records import BackendState, Failure, Tokenisation
from tests.console.test_app_snapshots import Hold, picture, sizes
from tests.support import canned
from tests.support.fake_engine import FakeEngine


@sizes((80, 24))
def test_nothing_typed_and_nothing_loaded(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(
        native=canned.native(BackendState.UNLOADED), ollama=canned.ollama(BackendState.MODEL_MISSING)
    )
    assert picture(snap_compare, engine, size, "0")


@sizes((80, 24), (160, 50))
def test_texts_with_one_that_is_cut(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.token_limit = 9
    assert picture(snap_compare, engine, size, "0", "ctrl+r")


@sizes((80, 24), (160, 50))
def test_while_a_backend_embeds(
    snap_compare: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    engine, hold = FakeEngine(), Hold()
    tokens = engine.tokens

    def slowly(texts: Sequence[str]) -> Tokenisation:
        engine.now += 12
        return tokens(texts)

    monkeypatch.setattr(engine, "tokens", slowly)
    monkeypatch.setattr(engine, "embed", hold.call)
    assert hold.picture(snap_compare, engine, size, "0", "ctrl+r")


@sizes((80, 24))
def test_the_question_for_passages(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "0", "ctrl+o")


@sizes((80, 24))
def test_a_backend_that_fails_without_a_tokenizer(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.no_pieces = Failure("The files of BAAI/bge-m3 are not on this machine", "", "download them")
    engine.errors["embed"] = BackendTimeoutError("No answer came", why="60 s passed", remedy="try again")
    assert picture(snap_compare, engine, size, "0", "ctrl+r", "escape", "v")
