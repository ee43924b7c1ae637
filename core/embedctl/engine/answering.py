"""From a request to its answer: routed, loaded for if need be, labelled, and asked again after a crash."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from embedctl.backends.base import EmbedRequest
from embedctl.engine.deadline import Deadline
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.traffic import Ticket, Traffic
from embedctl.engine.trial import Trials, more_failed
from embedctl.errors import (
    BackendAnswerError,
    BackendError,
    BackendNotLoadedError,
    BackendTimeoutError,
    InvalidTextError,
    WorkerCrashedError,
)
from embedctl.progress import CancelToken
from embedctl.records import BackendName, EmbedResult

_CHANGES: Final = 3
"""How often a request may find that its backend became another one, or went away, while it was asked."""
_CANDIDATE_SECONDS: Final = 30.0
"""A shared request waits no longer for the candidate; with a shorter deadline, half of that."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller of `embed` asks for."""

    texts: Sequence[str]
    batch_size: int | None
    normalize: bool
    cancel: CancelToken | None

    def request(self, deadline: Deadline) -> EmbedRequest:
        return EmbedRequest(self.texts, self.batch_size, self.normalize, deadline.left(), self.cancel)


class Answering:
    """Answers requests. Thread-safe."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        traffic: Traffic,
        trials: Trials,
        backends: Iterable[BackendName],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifecycle = lifecycle
        self._traffic = traffic
        self._trials = trials
        self._monotonic = monotonic
        self._again = {name: threading.Lock() for name in backends}

    def embed(self, wanted: Wanted, backend: BackendName | None, timeout: float | None) -> EmbedResult:
        """See `EngineFacade.embed`."""
        deadline = Deadline(timeout)
        if backend is not None:
            self._lifecycle.backend(backend)
            return self._ask(wanted, backend, deadline)[0]
        turn = self._trials.turn()
        answer = None
        if turn.shared is not None:
            answer = self._ask_candidate(wanted, turn.shared, timeout)
            if answer is not None and not answer.failures:
                return answer
        result, milliseconds = self._ask(wanted, None, deadline)
        if answer is not None and more_failed(answer, result):  # else the texts are to blame
            self._trials.fell_back("it could not embed a text that the active backend did")
        if turn.running:
            self._trials.answered(wanted.request(deadline), result, milliseconds, shadow=turn.shadowed)
        return result

    def _ask_candidate(
        self, wanted: Wanted, candidate: BackendName, timeout: float | None
    ) -> EmbedResult | None:
        """The candidate's answer; None where it has none. What it could not embed the active backend may."""
        patience = min(_CANDIDATE_SECONDS, timeout / 2) if timeout is not None else _CANDIDATE_SECONDS
        if not self._lifecycle.ready(candidate):  # nobody waits for its load: it is on trial, not in charge
            self._trials.fell_back("it is not loaded")
            return None
        try:
            result, milliseconds = self._ask(wanted, candidate, Deadline(patience), patient=False)
        except InvalidTextError:
            raise
        except BackendError as error:
            self._trials.fell_back(error.what)
            return None
        if not result.failures:
            self._trials.shared(milliseconds)
        return result

    def _ask(
        self, wanted: Wanted, backend: BackendName | None, deadline: Deadline, *, patient: bool = True
    ) -> tuple[EmbedResult, float | None]:
        """The answer and its milliseconds (None: it waited for a load).

        `patient` also waits for loads and asks again after a crash.
        """
        started = self._monotonic()
        with self._traffic.request(backend, len(wanted.texts), deadline, wanted.cancel) as ticket:
            try:
                result = self._labelled(wanted, ticket, deadline, patient)
            except WorkerCrashedError:
                if not patient or deadline.passed:
                    raise
                ticket.cold = True
                # One after the other: where a text of one was the cause, it takes no other down again.
                with self._in_turn(ticket.backend, deadline):
                    result = self._labelled(wanted, ticket, deadline, patient)
                note = "asked again: the native worker ended during the first attempt"
                result = replace(result, notes=(*result.notes, note))
        return result, None if ticket.cold else (self._monotonic() - started) * 1e3

    def _labelled(self, wanted: Wanted, ticket: Ticket, deadline: Deadline, patient: bool) -> EmbedResult:
        """The answer with the fingerprint that it was made under.

        A backend that was unloaded between the look and the call, or that became another one meanwhile (a
        reload on another device), is asked again.
        """
        chosen = self._lifecycle.backend(ticket.backend)
        for attempt in range(1, _CHANGES + 1):
            if patient and not self._lifecycle.ready(ticket.backend):
                ticket.cold = True
                self._lifecycle.ensure_ready(ticket.backend, deadline, wanted.cancel)
            if deadline.passed:
                raise BackendTimeoutError(
                    "The request was not started",
                    why=f"its {deadline.seconds:g} s passed before {ticket.backend} was ready",
                    remedy="try again, or allow a longer timeout",
                )
            before = chosen.fingerprint().digest
            try:
                result = chosen.embed(wanted.request(deadline))
            except BackendNotLoadedError:
                if attempt == _CHANGES or not patient:
                    raise
                continue
            if len(result.vectors) != len(wanted.texts):
                raise BackendAnswerError(
                    f"{ticket.backend} answered {len(result.vectors)} vectors for {len(wanted.texts)} texts",
                    why="so which vector belongs to which text cannot be known",
                    remedy="please report it as a bug",
                )
            if chosen.fingerprint().digest == before:
                return replace(result, fingerprint=before)
        raise BackendError(
            f"{ticket.backend} changed {_CHANGES} times while it answered",
            why="so which model, device or precision the vectors come from cannot be told",
            remedy="try again once it is loaded",
        )

    @contextmanager
    def _in_turn(self, name: BackendName, deadline: Deadline) -> Iterator[None]:
        left = deadline.left()
        if not self._again[name].acquire(timeout=-1 if left is None else left):
            raise BackendTimeoutError(
                "The request was not sent again",
                why=f"others that the crash of {name}'s worker hit go first, and its time has passed",
                remedy="try again, or allow a longer timeout",
            )
        try:
            yield
        finally:
            self._again[name].release()
