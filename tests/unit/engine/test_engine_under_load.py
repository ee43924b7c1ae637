"""Many clients embed without a pause while the engine switches, rolls back, and loses its worker."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedctl.backends.base import EmbedRequest
from embedctl.errors import BackendError, BackendTimeoutError, Cancelled, WorkerCrashedError
from embedctl.progress import CancelToken
from embedctl.records import BackendState, EmbedResult, JobState, Trial
from embedctl.settings import Settings
from tests.support.engines import Rig, only_one_fits, rig
from tests.support.fake_backend import FakeBackend, vector_of

CLIENTS = 64
TWIST = {"native": 0.0, "ollama": 0.05}
"""The two backends' vectors agree and differ, so that a wrong label is seen."""


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    settings = Settings.model_validate(
        {"telemetry": {"screen_hz": 20, "store_hz": 10}, "engine": {"settle_timeout_s": 0.5}}
    )
    with rig(tmp_path, settings) as made:
        made.ollama.twist = TWIST["ollama"]
        made.engine.load("native").wait(30)
        yield made


class Crowd:
    """Clients that embed until they are told to stop; every answer is checked."""

    def __init__(self, r: Rig) -> None:
        self._r = r
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.answered = [0] * CLIENTS
        self.by: set[str] = set()

    def client(self, number: int) -> None:
        while not self._stop.wait(0.02):  # a pause, or 64 clients leave the switch no turn to run
            text = f"client {number} text {self.answered[number]}"
            try:
                result = self._r.engine.embed([text], timeout=30.0)
            except Exception as error:
                self.wrong.append(repr(error))
                return
            expected = vector_of(text, TWIST[result.backend])
            if not np.allclose(result.vectors[0], expected, atol=1e-6):
                self.wrong.append(f"{result.backend}: {text}")
            self.by.add(result.backend)
            self.answered[number] += 1

    @contextmanager
    def embedding(self) -> Iterator[None]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            done = [pool.submit(self.client, number) for number in range(CLIENTS)]
            try:
                self.wait_for_answers()
                yield
                self.wait_for_answers()
            finally:
                self._stop.set()
            for each in done:
                each.result(60)
        assert self.wrong == []

    def wait_for_answers(self) -> None:
        """Until every client had another answer."""
        before = list(self.answered)
        wait_until(lambda: bool(self.wrong) or all(a > b for a, b in zip(self.answered, before, strict=True)))


@pytest.mark.parametrize("fit", [True, False], ids=["both fit", "only one fits"])
def test_switching_back_and_forth_costs_nobody_an_answer(r: Rig, fit: bool) -> None:
    if not fit:
        only_one_fits(r)
    crowd = Crowd(r)
    with crowd.embedding():
        for target in ("ollama", "native", "ollama"):
            assert r.engine.switch(target).wait(60).state is JobState.DONE
            crowd.wait_for_answers()
    assert crowd.by == {"native", "ollama"}


@pytest.mark.parametrize("fit", [True, False], ids=["both fit", "only one fits"])
@pytest.mark.parametrize("fault", ["load", "flip", "cancel"])
def test_a_switch_that_is_rolled_back_costs_nobody_an_answer(
    r: Rig, fit: bool, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fit:
        only_one_fits(r)
    if fault == "load":
        r.ollama.load_error = BackendError("The canary failed")
    elif fault == "cancel":
        r.ollama.on_load = lambda cancel: cancel.cancel()
    else:

        def broken_flip(_: str) -> None:
            raise BackendError("The flip failed")

        monkeypatch.setattr(r.engine._switcher, "_activate", broken_flip)
    crowd = Crowd(r)
    with crowd.embedding():
        final = r.engine.switch("ollama").wait(60)
        assert final.state is (JobState.CANCELLED if fault == "cancel" else JobState.FAILED)
    assert crowd.by == {"native"}
    assert r.engine.status().active == "native"
    assert (r.native.status().state, r.ollama.status().state) == (BackendState.READY, BackendState.UNLOADED)


def test_a_trial_beside_costs_nobody_an_answer_and_shares_out_as_told(r: Rig) -> None:
    assert r.engine.start_trial(Trial("ollama", shadow=0.5, share=0.25)).wait(30).state is JobState.DONE
    crowd = Crowd(r)
    with crowd.embedding():
        crowd.wait_for_answers()
        assert r.engine.switch("ollama").wait(60).state is JobState.DONE
    ended = r.engine.events(kinds=["trial"])[0].detail
    assert ended["shared"] > 0 and ended["failed"] == 0
    assert crowd.by == {"native", "ollama"}


# Requests that name their backend


def test_who_asks_for_the_backend_that_goes_waits_for_it_and_gets_its_own(r: Rig) -> None:
    """A request by name during the retirement of the old backend: answered by it, not refused, not misled."""
    answers: list[str] = []

    def ask() -> None:
        answers.append(r.engine.embed(["by name"], backend="native", timeout=30.0).backend)

    asker = threading.Thread(target=ask)
    unload = r.native.unload

    def slow_unload() -> None:
        asker.start()
        asker.join(0.1)
        assert answers == []
        unload()

    r.native.unload = slow_unload  # type: ignore[method-assign]
    assert r.engine.switch("ollama").wait(30).state is JobState.DONE
    asker.join(30)
    assert answers == ["native"]


def test_who_asks_by_name_while_only_one_fits_waits_no_longer_than_the_deadline(r: Rig) -> None:
    only_one_fits(r)
    entered, release = threading.Event(), threading.Event()

    def wait_there(_: CancelToken) -> None:
        entered.set()
        assert release.wait(30)

    r.ollama.on_load = wait_there
    job = r.engine.switch("ollama")
    assert entered.wait(30)
    for name in ("native", "ollama", None):
        with pytest.raises(BackendTimeoutError, match="not started"):
            r.engine.embed(["text"], backend=name, timeout=0.02)
    release.set()
    assert job.wait(30).state is JobState.DONE
    assert r.engine.embed(["text"]).backend == "ollama"


def test_a_cancel_during_the_drain_ends_the_switch_at_once(r: Rig) -> None:
    """The drain may take 30 s; the request in flight does not end meanwhile."""
    only_one_fits(r)
    r.native.gate = threading.Event()
    asker = threading.Thread(target=r.engine.embed, args=(["slow"],))
    asker.start()
    wait_until(lambda: r.engine._traffic.in_flight("native") == 1)
    job = r.engine.switch("ollama")
    wait_until(lambda: any(step.name == "drain" for step in job.update.steps))
    job.cancel()
    assert job.wait(10).state is JobState.CANCELLED
    r.native.gate.set()
    asker.join(30)
    assert r.engine.embed(["after"]).backend == "native"


# Deadlines, cancels and loads


def test_the_deadline_covers_the_load_which_goes_on_for_the_next(r: Rig) -> None:
    entered, release = threading.Event(), threading.Event()

    def wait_there(_: CancelToken) -> None:
        entered.set()
        assert release.wait(30)

    r.ollama.on_load = wait_there
    with pytest.raises(BackendTimeoutError, match="its load goes on") as caught:
        r.engine.embed(["text"], backend="ollama", timeout=0.05)
    assert caught.value.retryable
    assert entered.wait(30)
    release.set()
    assert r.engine.embed(["text"], backend="ollama", timeout=30.0).backend == "ollama"
    assert r.ollama.calls == ["load"]


def test_a_request_that_waited_for_a_load_counts_in_the_rate_and_not_in_the_latency(r: Rig) -> None:
    r.engine.embed(["cold"], backend="ollama")
    figures = r.engine._traffic.figures()
    assert figures["ollama_rate"] > 0
    assert "ollama_p50" not in figures
    r.engine.embed(["warm"], backend="ollama")
    assert "ollama_p50" in r.engine._traffic.figures()


def test_a_request_that_nobody_wants_any_more_stops_waiting_for_gate_and_load(r: Rig) -> None:
    release = threading.Event()

    def wait_there(_: CancelToken) -> None:
        assert release.wait(30)

    r.ollama.on_load = wait_there
    cancel = CancelToken()
    threading.Timer(0.05, cancel.cancel).start()
    with pytest.raises(Cancelled):
        r.engine.embed(["text"], backend="ollama", cancel=cancel)
    release.set()
    cancel = CancelToken()
    threading.Timer(0.05, cancel.cancel).start()
    with r.engine._traffic.held("native"), pytest.raises(Cancelled):
        r.engine.embed(["text"], cancel=cancel)
    with pytest.raises(Cancelled):
        r.engine.embed(["text"], cancel=cancel)
    assert r.engine.embed(["text"]).backend == "native"


# A worker that dies


class Mortal:
    """Makes a scripted backend die as a worker does: whoever is in flight at that moment gets the error."""

    def __init__(self, backend: FakeBackend, *, poison: str | None = None, deaths: int = 1) -> None:
        self._backend = backend
        self._embed = backend.embed
        self._poison = poison
        self._lock = threading.Lock()
        self._lives = itertools.count()
        self._dead: set[int] = set()
        self._life = next(self._lives)
        self.deaths = deaths
        self.died = 0
        backend.embed = self.embed  # type: ignore[method-assign]

    def embed(self, request: EmbedRequest) -> EmbedResult:
        life = self._life
        result = self._embed(request)
        if self._poison in request.texts:
            self.die()
        if life in self._dead:
            raise WorkerCrashedError("The native worker ended while it was needed")
        return result

    def die(self) -> None:
        with self._lock:
            if self.died < self.deaths:
                self.died += 1
                self._dead.add(self._life)
                self._life = next(self._lives)
                self._backend.unload()


def test_a_worker_that_dies_under_load_costs_nobody_an_answer(r: Rig) -> None:
    mortal = Mortal(r.native)
    crowd = Crowd(r)
    with crowd.embedding():
        mortal.die()
        crowd.wait_for_answers()
    assert mortal.died == 1
    assert r.native.calls.count("load") == 2


def test_a_text_that_kills_the_worker_costs_its_own_request_only(r: Rig) -> None:
    """Those in flight with it are asked again one after the other, so it takes none of them down twice."""
    mortal = Mortal(r.native, poison="poison", deaths=100)
    r.native.gate = threading.Event()
    outcomes: dict[str, object] = {}

    def ask(text: str) -> None:
        try:
            outcomes[text] = r.engine.embed([text], timeout=30.0).notes
        except BackendError as error:
            outcomes[text] = type(error)

    texts = [f"fine {number}" for number in range(8)]
    askers = [threading.Thread(target=ask, args=(text,)) for text in (*texts, "poison")]
    for asker in askers:
        asker.start()
    wait_until(lambda: r.engine._traffic.in_flight("native") == len(askers))
    r.native.gate.set()
    for asker in askers:
        asker.join(30)
    assert outcomes.pop("poison") is WorkerCrashedError
    assert len(outcomes) == 8 and WorkerCrashedError not in outcomes.values()
    assert mortal.died == 2


def test_a_request_without_time_left_gets_an_error_that_says_that_it_may_be_sent_again(r: Rig) -> None:
    Mortal(r.native, poison="poison", deaths=100)
    with pytest.raises(WorkerCrashedError) as caught:
        r.engine.embed(["poison"], timeout=30.0)
    assert caught.value.retryable
    assert r.engine.embed(["fine"]).backend == "native"


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll other threads' work; the deadline only ends a test that has failed."""
    for _ in range(30_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came true")
