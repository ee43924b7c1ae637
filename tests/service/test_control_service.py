"""`EmbeddingService`: it uses what runs already, else an engine of its own, also after a fork."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import embedctl.service
from embedctl import EmbeddingService, get_embedding_service
from embedctl.errors import StoreReadOnlyError, UsageError
from embedctl.paths import Paths
from embedctl.settings import ModelSettings, Settings
from tests.support.control import served
from tests.support.fake_engine import FakeEngine


class Opened(list[FakeEngine]):
    """The engines that services opened for themselves, and with what."""

    options: list[dict[str, Any]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()
    found.options = []

    def open_engine(**options: Any) -> FakeEngine:
        found.append(FakeEngine())
        found.options.append(options)
        return found[-1]

    monkeypatch.setattr("embedctl.engine.opening.open_engine", open_engine)
    monkeypatch.setattr("embedctl.control.connection._PATIENCE_S", 0.02)
    return found


@contextmanager
def service(**options: Any) -> Iterator[EmbeddingService]:
    made = EmbeddingService(**options)
    try:
        yield made
    finally:
        made.close()


def embeds(engine: FakeEngine) -> list[tuple[object, ...]]:
    return [call for call in engine.calls if call[0] == "embed"]


def test_a_running_service_is_used(home: Path, opened: Opened) -> None:
    fake = FakeEngine()
    with served(fake, home):
        with service() as ours:
            assert ours.backend == "native"
            assert ours.dimension == 1024
            assert ours.embed("one") == FakeEngine().embed(["one"]).vectors.tolist()
        assert opened == []
        assert not fake.closed
    assert embeds(fake) == [("embed", 1, None)]


def test_without_one_it_opens_its_own_and_closes_it(opened: Opened) -> None:
    with service() as ours:
        ours.embed(["one"])
    assert [engine.closed for engine in opened] == [True]
    assert opened.options[0]["sampling"] is False


def test_the_flag_of_this_process_goes_before_the_services_choice(
    home: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    monkeypatch.setenv("EMBEDDING_BACKEND", "ollama")
    with served(fake, home), service() as ours, service(backend="native") as other:
        assert (ours.backend, other.backend) == ("ollama", "native")
        ours.embed("x"), other.embed("x")
    assert embeds(fake) == [("embed", 1, "ollama"), ("embed", 1, "native")]


def test_a_service_of_other_vectors_is_left_alone(
    home: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeEngine(settings=Settings(model=ModelSettings(repo="someone/else")))
    with served(fake, home), service() as ours:
        ours.embed("x")
    assert (len(opened), embeds(fake)) == (1, [])
    assert "other vectors" in caplog.text


def test_a_service_that_came_back_is_used_again(
    home: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.control.connection._PAUSES", (0.01,))
    monkeypatch.setattr("embedctl.control.connection._PATIENCE_S", 10.0)
    again = FakeEngine()
    with served(FakeEngine(), home) as first, service() as ours:
        ours.embed("x")
        first.stop()
        with served(again, home):
            ours.embed("x")
    assert opened == []
    assert len(embeds(again)) == 1


def test_when_the_service_is_gone_for_good_its_own_engine_answers(
    home: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    with served(FakeEngine(), home) as server, service() as ours:
        ours.embed("x")
        server.stop()
        assert len(ours.embed(["y", "z"])) == 2
        ours.embed("x")
    assert len(opened) == 1
    assert "an engine of its own" in caplog.text


def test_after_a_fork_the_child_has_an_engine_of_its_own(opened: Opened) -> None:
    with service() as ours:
        ours.embed("x")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - the child is not measured
            try:
                ours.embed(["a", "b"])
                ours.close()
                said = f"{len(opened)} {opened[0].closed} {opened[1].closed} {len(embeds(opened[0]))}"
            except BaseException as error:
                said = repr(error)
            os.write(writer, said.encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 1000) == b"2 False True 1"
        os.close(reader), os.close(writer)
        ours.embed("x")
        assert len(opened) == 1


def test_closing_an_inherited_service_in_the_child_leaves_the_parents_engine_alone(opened: Opened) -> None:
    with service() as ours:
        child = os.fork()
        if child == 0:  # pragma: no cover
            ours.close()
            os._exit(int(opened[0].closed))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ours.embed("x")


def test_without_a_writable_history_it_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folders: list[Paths] = []

    def open_engine(*, paths: Paths, **_: Any) -> FakeEngine:
        folders.append(paths)
        if len(folders) == 1:
            raise StoreReadOnlyError("history.db cannot be written", why="read-only")
        return FakeEngine()

    monkeypatch.setattr("embedctl.engine.opening.open_engine", open_engine)
    with caplog.at_level(logging.WARNING), service() as ours:
        ours.embed("x"), ours.embed("y")
    assert [record.message for record in caplog.records] == [
        "nothing is recorded by this process: history.db cannot be written — read-only"
    ]
    first, second = folders
    assert second.config_file == first.config_file
    assert second.data_dir != first.data_dir
    assert not second.data_dir.parent.exists()


def test_a_real_engine_opens_where_the_home_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBEDCTL_HOME", str(tmp_path / "file" / "home"))
    with service() as ours:
        assert ours.backend == "native"


def test_a_closed_service_opens_nothing_any_more(opened: Opened) -> None:
    ours = EmbeddingService()
    ours.close()
    ours._after_fork()
    with pytest.raises(UsageError, match="closed"):
        ours.embed("x")
    assert len(opened) == 1


def test_one_service_per_process(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedctl.service, "_service", None)
    with monkeypatch.context() as patch:
        patch.setattr("atexit.register", lambda function: function)
        assert get_embedding_service() is get_embedding_service()
    get_embedding_service().close()
    assert len(opened) == 1
