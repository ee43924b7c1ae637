"""A study of retrieval quality: each variant loaded for its turn, asked, and let go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.parts import Parts
from embedctl.engine.variants import parse_vary, require_backends, with_changes
from embedctl.errors import BackendOutOfMemoryError, UsageError
from embedctl.lab.quality import THRESHOLD, Found, QualityTarget, collect, judge, work_of
from embedctl.lab.quality_sets import SearchSet, search_sets
from embedctl.records import BackendName, Fingerprint, QualityReport
from embedctl.settings import NativeSettings

Loaded = Callable[[BackendName, Job], AbstractContextManager[Backend]]
"""A backend, loaded for the time of a block."""
NATIVE: Final = "native"


@dataclass(frozen=True, slots=True)
class QualityQuestion:
    """What is searched, with which vectors."""

    backends: tuple[BackendName, ...]
    variants: tuple[Mapping[str, Any], ...] = ()
    """Settings of the native backend; if there are any, only it is asked, once under each."""
    sets: tuple[str, ...] = ("xquad",)
    split: str = "test"
    queries: int | None = None
    documents: int | None = None
    threshold: float = THRESHOLD


def quality_question(
    known: Collection[BackendName],
    settings: NativeSettings,
    *,
    backends: Sequence[BackendName] | None,
    vary: str,
    sets: Sequence[str],
    split: str,
    queries: int | None,
    documents: int | None,
    threshold: float,
) -> QualityQuestion:
    """The question, refused now and not after minutes of loading.

    Raises:
        UsageError: It makes no sense.
    """
    variants = parse_vary(vary)
    for changes in variants:
        with_changes(settings, changes)
    require_backends(known, backends)
    if variants and backends and set(backends) != {NATIVE}:
        raise UsageError(
            "Only the native backend can be varied",
            why=f"`{vary}` are settings of its own",
            remedy="leave out either --vary or --backend",
        )
    if not sets or min(queries or 2, documents or 2) < 2 or threshold <= 0:
        raise UsageError(
            "There is nothing to search",
            why="it takes a set, two queries and documents of it, and a threshold above 0",
            remedy="leave out the options for all of the built-in sets",
        )
    return QualityQuestion(
        tuple(dict.fromkeys(backends or known)), variants, tuple(sets), split, queries, documents, threshold
    )


class QualityStudy:
    """Asks the variants one after the other.

    Args:
        loaded: Gives a backend of the engine.
        fingerprint: A backend's fingerprint with the machine in it.
    """

    def __init__(
        self,
        parts: Parts,
        lifecycle: Lifecycle,
        loaded: Loaded,
        fingerprint: Callable[[BackendName], Fingerprint],
    ) -> None:
        self._parts = parts
        self._lifecycle = lifecycle
        self._loaded = loaded
        self._fingerprint = fingerprint

    def ask(self, job: Job, question: QualityQuestion) -> QualityReport:
        """The whole answer.

        Raises:
            BackendError: A variant could not be loaded, or does not embed.
            UsageError: There is no such set.
            HubError: A set could not be fetched.
            Cancelled: The job was cancelled.
        """
        job("texts")
        sets = search_sets(
            question.sets,
            split=question.split,
            most_queries=question.queries,
            most_documents=question.documents,
            fetch=lambda repo, revision, split: self._parts.fetch_set(
                repo, revision, split, job.cancel_token
            ),
        )
        turns: list[tuple[BackendName, Mapping[str, Any]]] = [
            *((NATIVE, changes) for changes in question.variants),
            *((name, {}) for name in question.backends if not question.variants),
        ]
        if not question.variants:  # what is loaded first, so that little has to be loaded twice
            turns.sort(key=lambda turn: not self._lifecycle.ready(turn[0]))
        each = work_of(sets)
        found: dict[str, Found] = {}
        for number, (name, changes) in enumerate(turns):

            def report(step: str, done: float, before: int = number * each) -> None:
                job(step, done=before + done, total=each * len(turns), unit="texts")

            one = self._turn(job, name, changes, sets, report)
            found[one.variant.name] = one
        job("comparing")
        order = [_name(NATIVE, changes) for changes in question.variants] or list(question.backends)
        return judge([found[name] for name in order], sets, threshold=question.threshold)

    def _turn(
        self,
        job: Job,
        name: BackendName,
        changes: Mapping[str, Any],
        sets: Sequence[SearchSet],
        report: Callable[[str, float], None],
    ) -> Found:
        shown = _name(name, changes)
        report(f"{shown}: loading", 0)
        opened = self._guest(job, changes) if changes else self._loaded(name, job)
        with opened as backend:
            mark = self._fingerprint(name)
            notes: tuple[str, ...] = ()
            if changes:
                own = backend.fingerprint()
                mark = replace(own, driver=mark.driver, machine=mark.machine)
                notes = _unlike_asked(changes, own)
            target = QualityTarget(
                shown,
                name,
                {key: str(value) for key, value in changes.items()},
                lambda texts: backend.embed(EmbedRequest(texts, cancel=job.cancel_token)),
                mark,
                notes,
            )
            return collect(target, sets, report, job.cancel_token)

    @contextmanager
    def _guest(self, job: Job, changes: Mapping[str, Any]) -> Iterator[Backend]:
        """The native backend under other settings, in a worker of its own.

        Beside the engine's own worker; where both do not fit, that one is away meanwhile.
        """
        backend = self._parts.native_with(changes)
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lifecycle.guest(backend, job, job.cancel_token))
            except BackendOutOfMemoryError:
                if not self._lifecycle.ready(NATIVE):
                    raise
                stack.enter_context(self._lifecycle.away(NATIVE, job))
                again = self._parts.native_with(changes)  # a backend that was closed stays so
                stack.enter_context(self._lifecycle.guest(again, job, job.cancel_token))
                backend = again
            yield backend


def _name(backend: BackendName, changes: Mapping[str, Any]) -> str:
    return " ".join((backend, *(f"{key}={value}" for key, value in changes.items())))


def _unlike_asked(changes: Mapping[str, Any], mark: Fingerprint) -> tuple[str, ...]:
    """Where the worker does something else than it was asked, such as 8-bit products on a CPU."""
    asked = changes.get("dtype")
    if asked in (None, "auto") or mark.dtype is None or str(asked) in mark.dtype:
        return ()
    return (f"{asked} was asked for, and this machine computes in {mark.dtype}",)
