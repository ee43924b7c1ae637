"""Every call of the façade through a real socket: what comes back is what the engine said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedctl.control.client import RemoteEngine
from embedctl.control.protocol import calls
from embedctl.errors import (
    BackendNotLoadedError,
    Cancelled,
    EmbedctlError,
    HubOfflineError,
    InvalidTextError,
    ServiceError,
    UsageError,
)
from embedctl.progress import CancelToken
from embedctl.records import JobState, Trial
from tests.support import canned
from tests.support.canned import NOW
from tests.support.control import client, served
from tests.support.fake_engine import FakeEngine

ASKED: dict[str, Callable[[Any], object]] = {
    "settings": lambda e: e.settings,
    "status": lambda e: e.status(),
    "embed": lambda e: e.embed(["one", "two ü 🙂"], backend="ollama", normalize=False),
    "cancel_job": lambda e: e.cancel_job(99),
    "fingerprint": lambda e: e.fingerprint("ollama"),
    "tokens": lambda e: e.tokens(["one", "two ü 🙂"]),
    "nearest": lambda e: e.nearest(e.embed(["one river"]), passages=["a", "b ü"], count=1),
    "refresh": lambda e: e.refresh(),
    "plan_switch": lambda e: e.plan_switch("ollama", keep_both=True),
    "trial": lambda e: e.trial(),
    "stop_trial": lambda e: e.stop_trial(),
    "health": lambda e: e.health(),
    "model": lambda e: e.model(online=False),
    "runs": lambda e: e.runs(2),
    "run": lambda e: e.run(3),
    "compare_runs": lambda e: e.compare_runs(3, 7),
    "history": lambda e: e.history(NOW - 600, NOW, metrics=["gpu_power", "ollama_p95"], points=50),
    "recorded_span": lambda e: e.recorded_span(),
    "events": lambda e: e.events(NOW - 2_000, kinds=["load", "error"], limit=3),
    "annotate": lambda e: e.annotate(NOW - 60, "new driver"),
    "add_run": lambda e: e.add_run(canned.run(9)),
    "claims": lambda e: e.claims(),
    "check_changes": lambda e: e.check_changes(),
    "studies": lambda e: e.studies("check", limit=5),
    "study": lambda e: e.study(4),
    "doctor": lambda e: e.doctor(),
}
STARTED: dict[str, Callable[[Any], Any]] = {
    "load": lambda e: e.load("ollama"),
    "unload": lambda e: e.unload("native"),
    "switch": lambda e: e.switch("ollama", keep_both=True),
    "start_trial": lambda e: e.start_trial(Trial("ollama", shadow=0.5)),
    "download": lambda e: e.download(),
    "pull": lambda e: e.pull(),
    "verify": lambda e: e.verify(),
    "remove_model": lambda e: e.remove_model(),
    "resume_benchmark": lambda e: e.resume_benchmark(3),
    "tune": lambda e: e.tune(),
    "check": lambda e: e.check(backends=["native"], texts=["a", "b"], texts_name="mine"),
    "quality": lambda e: e.quality(vary="dtype=float32,float16", sets=["xquad-en"], queries=50),
    "coexist": lambda e: e.coexist(backends=["native"], model="llama3.2:1b", rounds=2),
    "benchmark": lambda e: e.benchmark(backends=("native",), preset="quick", title="ü", minutes=2.5),
}
APART = {"export_csv"}
"""Crosses in a way of its own, with a test of its own."""


@pytest.fixture
def fake() -> FakeEngine:
    engine = FakeEngine()
    engine.running_trial = canned.trial_report(Trial("ollama", shadow=0.25), "native")
    return engine


@pytest.fixture
def remote(fake: FakeEngine, home: Path) -> Iterator[RemoteEngine]:
    with served(fake, home), client(home) as engine:
        yield engine


def same(a: Any, b: Any) -> bool:
    """Equal in value and kind; arrays too, whose `==` gives an array."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=True))
    if is_dataclass(a):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def test_every_call_of_the_facade_is_tried_here() -> None:
    assert set(calls()) == ASKED.keys() | STARTED.keys() | APART
    assert {name for name, call in calls().items() if call.makes_job} == STARTED.keys()


@pytest.mark.parametrize("name", ASKED)
def test_an_answer_comes_back_as_it_was_given(name: str, fake: FakeEngine, remote: RemoteEngine) -> None:
    twin = FakeEngine()
    twin.running_trial = fake.running_trial
    assert same(ASKED[name](remote), ASKED[name](twin))
    assert fake.calls == twin.calls


@pytest.mark.parametrize("name", STARTED)
def test_a_job_is_followed_to_its_result(name: str, fake: FakeEngine, remote: RemoteEngine) -> None:
    twin = FakeEngine(jobs="immediate")
    expected = STARTED[name](twin).update
    job = STARTED[name](remote)
    assert (job.id, job.update.state) == (expected.job_id, JobState.RUNNING)
    assert [call for call in fake.calls if call[0] == name] == [c for c in twin.calls if c[0] == name]
    with pytest.raises(TimeoutError, match="still runs"):
        job.wait(0.0)
    fake.running[job.id].progress("half", done=1.0, total=2.0)
    fake.running[job.id].finish()
    ended = job.wait(10.0)
    assert ended.state is JobState.DONE
    assert same(ended.result, expected.result)
    assert job.update == ended


@pytest.mark.parametrize("name", sorted(ASKED.keys() - {"settings", "status", "trial", "health"}))
def test_an_error_comes_back_with_its_kind_and_its_three_lines(
    name: str, fake: FakeEngine, remote: RemoteEngine
) -> None:
    fake.errors[name] = HubOfflineError("what", why="why ü", remedy="remedy")
    with pytest.raises(HubOfflineError) as caught:
        ASKED[name](remote)
    assert (caught.value.what, caught.value.why, caught.value.remedy) == ("what", "why ü", "remedy")


def test_a_job_that_is_refused_raises_at_once(fake: FakeEngine, remote: RemoteEngine) -> None:
    fake.errors["load"] = UsageError("Load native: not started", why="“Switch” is still running")
    with pytest.raises(UsageError, match="not started"):
        remote.load("native")


def test_a_text_error_keeps_its_index(fake: FakeEngine, remote: RemoteEngine) -> None:
    fake.errors["embed"] = InvalidTextError("bad text", index=7)
    with pytest.raises(InvalidTextError) as caught:
        remote.embed(["x"])
    assert caught.value.index == 7


def test_an_error_that_nobody_foresaw_is_told_and_the_service_goes_on(
    fake: FakeEngine, remote: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "runs", lambda limit: 1 / 0)
    with pytest.raises(ServiceError, match="failed on 'runs'") as caught:
        remote.runs()
    assert "ZeroDivisionError" in caught.value.why
    assert remote.run(3).id == 3


def test_what_is_no_call_is_refused(remote: RemoteEngine) -> None:
    for name in ("close", "paths", "_called", "errors", "no_such"):
        with pytest.raises(UsageError, match="no call"):
            remote._connection.link().call(name, (), {})


def test_vectors_cross_bit_by_bit_and_may_be_changed(remote: RemoteEngine) -> None:
    texts = [f"text {i}" for i in range(300)]
    vectors = remote.embed(texts).vectors
    assert same(vectors, FakeEngine().embed(texts).vectors)
    assert vectors.flags.writeable
    assert vectors.flags.aligned
    vectors[0] = 0.0


def test_no_text_gives_no_vector(remote: RemoteEngine) -> None:
    assert remote.embed([]).vectors.shape == (0, 1024)


def test_a_job_that_fails_or_is_cancelled_says_so(fake: FakeEngine, remote: RemoteEngine) -> None:
    job = remote.load("ollama")
    fake.running[job.id].fail("No memory", why="full", remedy="unload")
    update = job.wait(10.0)
    assert update.failure is not None
    assert (update.state, update.failure.remedy) == (JobState.FAILED, "unload")
    job = remote.download()
    job.cancel()
    assert job.wait(10.0).state is JobState.CANCELLED


def test_a_request_is_taken_back(
    fake: FakeEngine, remote: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = CancelToken()

    def embed(texts: list[str], *, cancel: CancelToken, **_: object) -> None:
        mine.cancel()
        assert cancel.wait(10.0), "the wish did not arrive"
        raise Cancelled("taken back")

    monkeypatch.setattr(fake, "embed", embed)
    with pytest.raises(Cancelled, match="taken back"):
        remote.embed(["x"], cancel=mine)


def test_a_table_is_written_by_the_client_itself(
    fake: FakeEngine, remote: RemoteEngine, tmp_path: Path
) -> None:
    target, twin = tmp_path / "table.csv", tmp_path / "twin.csv"
    rows = remote.export_csv(target, NOW - 60, NOW, metrics=["gpu_power"])
    assert rows == FakeEngine().export_csv(twin, NOW - 60, NOW, metrics=["gpu_power"])
    assert target.read_bytes() == twin.read_bytes()
    fake.errors["export_csv"] = UsageError("there is no such figure")
    with pytest.raises(EmbedctlError, match="no such figure"):
        remote.export_csv(target, NOW - 60, NOW)
    assert target.read_bytes() == twin.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("*.csv*")) == ["table.csv", "twin.csv"]


def test_the_paths_are_the_clients_own(remote: RemoteEngine, home: Path) -> None:
    assert remote.paths.exports_dir == home / "data" / "exports"


def test_embedding_before_a_load_is_refused_as_by_an_engine_of_ones_own(home: Path) -> None:
    from embedctl.records import BackendState

    fake = FakeEngine(native=canned.native(BackendState.UNLOADED))
    with served(fake, home), client(home) as remote, pytest.raises(BackendNotLoadedError):
        remote.embed(["x"])
