"""A gradual migration: the candidate sees a share of the live requests before the switch.

Which requests those are is counted out, not drawn: 5 % is every 20th. Shadowed requests reach the candidate
on a thread of its own, after the active backend has answered; what finds it busy is dropped and counted.
Texts are let go as soon as they were compared; what is kept are figures.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.advance import Advance, Move
from embedctl.engine.agreement import WARN_BELOW
from embedctl.engine.journal import Journal
from embedctl.engine.trial_figures import Figures
from embedctl.errors import BackendError, Cancelled, UsageError
from embedctl.progress import CancelToken
from embedctl.records import BackendName, EmbedResult, Severity, Trial, TrialReport

log = logging.getLogger(__name__)

_WAITING: Final = 2
"""Requests that wait for the candidate: more would only be older when it gets to them."""
_SHADOW_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes of one request."""

    running: bool = False
    """A trial runs."""
    shared: BackendName | None = None
    """The candidate, where it is to answer."""
    shadowed: bool = False


NO_TRIAL: Final = Turn()


@dataclass(frozen=True, slots=True)
class _Shadow:
    request: EmbedRequest
    answer: EmbedResult


def check_trial(trial: Trial, active: BackendName) -> None:
    """Raises:
    UsageError: A share is no share, nothing would be tried, or the candidate is in charge already.
    """
    for name, share in (("shadow", trial.shadow), ("share", trial.share)):
        if not 0 <= share <= 1:
            raise UsageError(f"{name} = {share:g} is no share", remedy="use 0 to 1, such as 0.05 for 5 %")
    if trial.shadow == trial.share == 0:
        raise UsageError("Nothing would be tried", remedy="give a shadow or a share above 0")
    if trial.advance_after is not None:
        if trial.advance_after < 1:
            raise UsageError(f"{trial.advance_after} is no number of requests", remedy="use 1 or more")
        if trial.shadow == 0:
            raise UsageError("Nothing would be compared", remedy="give a shadow above 0, such as 0.1")
    if trial.candidate == active:
        raise UsageError(f"{active} is the active backend already", remedy="name the other one")


class Trials:
    """Runs at most one trial. Thread-safe; `turn` and `answered` never wait for the candidate."""

    def __init__(
        self,
        journal: Journal,
        *,
        rolled_back: Callable[[BackendName, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rolled_back` is told of a candidate that gets no more requests, and why; must not block."""
        self._journal = journal
        self._rolled_back = rolled_back
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def begin(self, trial: Trial, active: BackendName, candidate: Backend) -> TrialReport:
        """Start a trial; one of the same candidate goes on with other shares and keeps its figures."""
        with self._lock:
            running = self._running
            if running is not None and running.trial.candidate == trial.candidate:
                running.advance.begin(trial)
                return running.report()
        if running is not None:
            self.end(f"a trial of {trial.candidate}")
        running = _Running(trial, active, candidate, self._clock(), self._monotonic, self._moved)
        with self._lock:
            self._running = running
        running.thread.start()
        self._journal.add("trial", f"trial of {trial.candidate} began", trial.candidate, detail=asdict(trial))
        return running.report()

    def keep_from(self, title: str, backend: BackendName | None = None) -> None:
        """Refuse what would take the candidate away, or keep it busy, under a running trial.

        Args:
            title: What is refused.
            backend: It would touch this one alone; None: any.

        Raises:
            UsageError: A trial runs, and its candidate would be touched.
        """
        running = self._running
        if running is None or backend not in (None, running.trial.candidate):
            return
        raise UsageError(
            f"{title}: not started",
            why=f"{running.trial.candidate} is on trial, and would be taken away or kept busy while live "
            "requests are shared with it or compared",
            remedy="end the trial first: `embedctl trial stop`",
        )

    def report(self) -> TrialReport | None:
        """What the running trial has shown."""
        running = self._running
        return running.report() if running is not None else None

    def end(self, why: str) -> TrialReport | None:
        """End the trial, whose figures go to the time line; `why` names what ended it."""
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return None
        running.stop()
        report = running.report()
        figures = asdict(report) | {"ended_by": why, "seconds": self._clock() - report.since}
        name = running.trial.candidate
        severity = Severity.WARNING if report.failed else Severity.OK
        self._journal.add("trial", f"trial of {name} ended", name, severity, figures)
        return report

    # Requests ---

    def turn(self) -> Turn:
        """What becomes of the next request."""
        running = self._running
        return NO_TRIAL if running is None else running.turn()

    def answered(
        self, request: EmbedRequest, answer: EmbedResult, milliseconds: float | None, *, shadow: bool
    ) -> None:
        """The active backend has answered, in `milliseconds` unless it had to be loaded first."""
        running = self._running
        if running is None:
            return
        if milliseconds is not None:
            running.figures.active(milliseconds)
        if shadow:
            running.offer(_Shadow(replace(request, timeout=_SHADOW_SECONDS, cancel=running.cancel), answer))

    def shared(self, milliseconds: float | None) -> None:
        """The candidate has answered."""
        running = self._running
        if running is not None:
            running.figures.shared(milliseconds)

    def fell_back(self, why: str) -> None:
        """The candidate could not answer a request that was shared with it."""
        running = self._running
        if running is not None:
            running.failed(why)

    def _moved(self, move: Move) -> None:
        severity = Severity.WARNING if move.fault else Severity.OK
        detail = {"before": move.before, "share": move.trial.share, "why": move.fault}
        self._journal.add("trial", move.title, move.trial.candidate, severity, detail)
        if move.fault:
            self._rolled_back(move.trial.candidate, move.fault)


class _Running:
    """One trial, from its beginning to its end."""

    def __init__(
        self,
        trial: Trial,
        active: BackendName,
        candidate: Backend,
        since: float,
        monotonic: Callable[[], float],
        moved: Callable[[Move], None],
    ) -> None:
        self.advance = Advance(trial)
        self.figures = Figures()
        self.cancel = CancelToken()
        self.thread = threading.Thread(target=self._work, name="trial", daemon=True)
        self._active = active
        self._candidate = candidate
        self._since = since
        self._monotonic = monotonic
        self._moved = moved
        self._waiting: queue.Queue[_Shadow | None] = queue.Queue(_WAITING)
        self._counting = threading.Lock()
        self._seen = 0
        self._left = 0

    @property
    def trial(self) -> Trial:
        return self.advance.trial

    def turn(self) -> Turn:
        trial = self.trial
        with self._counting:
            self._seen += 1
            if _is_due(self._seen, trial.share):
                return Turn(running=True, shared=trial.candidate)
            self._left += 1
            return Turn(running=True, shadowed=_is_due(self._left, trial.shadow))

    def offer(self, shadow: _Shadow) -> None:
        try:
            self._waiting.put_nowait(shadow)
        except queue.Full:
            self.figures.dropped()

    def failed(self, why: str) -> None:
        self.figures.failed()
        self._note(self.advance.failed(why))

    def report(self) -> TrialReport:
        advance = self.advance
        report = self.figures.report(self.trial, self._active, self._since)
        return replace(report, step_compared=advance.good, rolled_back=advance.rolled_back)

    def stop(self) -> None:
        self.cancel.cancel()
        while True:  # the thread sees the end behind at most the one request that it works on
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                try:
                    self._waiting.get_nowait()
                except queue.Empty:
                    continue

    def _work(self) -> None:
        while (shadow := self._waiting.get()) is not None:
            try:
                self._compare(shadow)
            except Exception:  # a fault in the comparison must not end it unseen
                log.exception("a shadowed request could not be compared")
                self.failed("a shadowed request could not be compared")

    def _compare(self, shadow: _Shadow) -> None:
        started = self._monotonic()
        try:
            found = self._candidate.embed(shadow.request)
        except Cancelled:
            return
        except BackendError as error:
            log.info("the candidate failed on a shadowed request: %s", type(error).__name__)
            self.failed(error.what)
            return
        least = self.figures.compared(shadow.answer, found, (self._monotonic() - started) * 1e3)
        if more_failed(found, shadow.answer):
            self.failed("it could not embed a text that the active backend did")
        elif least is not None and least < WARN_BELOW:
            self._note(self.advance.failed(f"a text's cosine is {least:.4f}, under {WARN_BELOW}"))
        elif least is not None:
            self._note(self.advance.compared())

    def _note(self, move: Move | None) -> None:
        if move is not None:
            self._moved(move)


def more_failed(candidate: EmbedResult, active: EmbedResult) -> bool:
    """Whether the candidate failed on a text that the active backend could embed."""
    return not {each.index for each in candidate.failures} <= {each.index for each in active.failures}


def _is_due(number: int, share: float) -> bool:
    """Whether the `number`-th of a row is one of its `share`: the count chosen so far is `number * share`."""
    return int(number * share + 1e-9) > int((number - 1) * share + 1e-9)
