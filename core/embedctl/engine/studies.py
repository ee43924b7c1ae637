"""Studies: the lab asks the backends, one after the other, and the answer is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.memory import LatestSample
from embedctl.engine.parts import Parts
from embedctl.engine.surroundings import surroundings
from embedctl.errors import BackendError, BackendOutOfMemoryError, CanaryError
from embedctl.records import (
    ENVIRONMENT,
    BackendName,
    ClaimsReport,
    EmbedResult,
    Fingerprint,
    Machine,
    Severity,
    Study,
)
from embedctl.settings import Settings
from embedctl.study_data import check_report, data_of, of_both

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedctl.engine.coexist_study import CoexistQuestion
    from embedctl.engine.quality_study import QualityQuestion
    from embedctl.lab.check_evidence import Evidence
    from embedctl.lab.check_texts import CheckTexts

log = logging.getLogger(__name__)

_DECIDING: Final = {
    "model": ("repo", "revision", "ollama_tag"),
    "native": ("device", "dtype", "attention", "max_tokens"),
    "ollama": ("num_ctx", "num_batch"),
}
"""Settings that vectors depend on."""
_SEVERITY: Final = {
    "safe with limits": Severity.WARNING,
    "undecided": Severity.WARNING,
    "not safe": Severity.ERROR,
    "worse": Severity.WARNING,
    "disturb each other": Severity.WARNING,
    "do not fit": Severity.ERROR,
}
"""Of a study's verdict; the others are good."""
_NEWEST: Final = 40
"""Runs, and studies of each kind, that the claims are judged by."""


class Studies:
    """Puts the lab's questions to the backends and keeps what was found.

    Args:
        active: Which backend is active; it is never unloaded for the sake of a study.
        fingerprint: A backend's fingerprint with the machine in it.
        latest: Where the machine's memory is read.
    """

    def __init__(
        self,
        parts: Parts,
        lifecycle: Lifecycle,
        settings: Settings,
        *,
        active: Callable[[], BackendName],
        fingerprint: Callable[[BackendName], Fingerprint],
        machine: Machine | None,
        latest: LatestSample,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parts = parts
        self._machine = machine
        self._latest = latest
        self._lifecycle = lifecycle
        self._settings = settings
        self._active = active
        self._fingerprint = fingerprint
        self._clock = clock

    def check_changes(self) -> tuple[str, ...] | None:
        """What has changed since the last check of both backends; None if there is none with an answer."""
        from embedctl.lab.changes import changes

        store = self._parts.store
        newest = of_both(store.studies("check", _NEWEST))
        last = store.study(newest.id) if newest is not None else None
        if last is None or last.verdict == "undecided":
            return None
        for backend in self._parts.backends.values():
            backend.refresh()
        now = [_with_installed(self._fingerprint(name)) for name in self._parts.backends]
        settings = check_report(last).settings
        return changes(last.fingerprints, now, settings, self._deciding_settings())

    def check(
        self, job: Job, names: Sequence[BackendName], own: Sequence[str] | None, own_name: str
    ) -> Study:
        """Check one or two backends and keep the study; a backend that was not loaded is not left loaded.

        Raises:
            BackendError: No backend could be loaded.
            Cancelled: The job was cancelled; nothing is kept.
        """
        from embedctl.lab.check import headline, judge
        from embedctl.lab.check_texts import texts_for_check
        from embedctl.lab.tokens import token_counter

        at, started = self._clock(), time.monotonic()
        around = surroundings(self._latest.sample)  # before anything of ours computes
        texts = texts_for_check(own, own_name)
        folder = self._parts.hub.folder()
        count = token_counter(folder) if folder else None
        evidences, missing = self._collect(job, names, texts, count)
        job("comparing")
        absent = "; ".join(f"{name} could not be loaded: {_sentence(error)}" for name, error in missing)
        if not absent and len(names) == 1:
            absent = f"only {names[0]} was asked for"
        report = judge(evidences, texts, count, settings=self._deciding_settings(), not_compared=absent)
        return self._keep(
            Study(
                id=0,
                at=at,
                kind="check",
                title=" and ".join(names),
                verdict=report.verdict,
                headline=headline(report),
                backends=report.backends,
                fingerprints=tuple(evidence.fingerprint for evidence in evidences),
                seconds=time.monotonic() - started,
                data={**data_of(report), ENVIRONMENT: around},
            )
        )

    def quality(self, job: Job, question: QualityQuestion) -> Study:
        """Measure retrieval quality and keep the study.

        Raises:
            BackendError: A variant could not be loaded, or does not embed.
            UsageError: There is no such set.
            HubError: A set could not be fetched.
            Cancelled: The job was cancelled; nothing is kept.
        """
        from embedctl.engine.quality_study import QualityStudy
        from embedctl.lab.quality import headline

        at, started = self._clock(), time.monotonic()
        around = surroundings(self._latest.sample)
        report = QualityStudy(self._parts, self._lifecycle, self._loaded, self._fingerprint).ask(
            job, question
        )
        return self._keep(
            Study(
                id=0,
                at=at,
                kind="quality",
                title=" and ".join(one.name for one in report.variants),
                verdict=report.verdict,
                headline=headline(report),
                backends=tuple(dict.fromkeys(one.backend for one in report.variants)),
                fingerprints=tuple(one.fingerprint for one in report.variants),
                seconds=time.monotonic() - started,
                data={**data_of(report), ENVIRONMENT: around},
            )
        )

    def coexist(self, job: Job, question: CoexistQuestion) -> Study:
        """Measure backends beside a language model and keep the study.

        Raises:
            ModelMissingError: The Ollama server has no such language model.
            BackendError: Something does not work even alone.
            Cancelled: The job was cancelled; nothing is kept.
        """
        from embedctl.engine.coexist_study import Memory, ask
        from embedctl.lab.coexist import headline

        at, started = self._clock(), time.monotonic()
        around = surroundings(self._latest.sample)
        memory = Memory(self._machine, self._latest, self._settings.engine.memory_floor_gib)
        report, marks = ask(job, question, self._parts, self._loaded, self._fingerprint, memory)
        return self._keep(
            Study(
                id=0,
                at=at,
                kind="coexist",
                title=f"{report.model} beside {' and '.join(question.backends)}",
                verdict=report.verdict,
                headline=headline(report),
                backends=question.backends,
                fingerprints=marks,
                seconds=time.monotonic() - started,
                data={**data_of(report), ENVIRONMENT: around},
            )
        )

    def claims(self, *, simulated: bool) -> ClaimsReport:
        """The design document's claims, by the newest runs and studies."""
        from embedctl.lab.claims import claims

        store = self._parts.store
        runs = [run for one in store.runs(_NEWEST) if (run := store.run(one.id)) is not None]
        studies = [
            study
            for kind in ("check", "quality", "coexist")  # a check a day must not hide the others
            for one in store.studies(kind, _NEWEST)
            if (study := store.study(one.id)) is not None
        ]
        return claims(runs, studies, at=self._clock(), simulated=simulated)

    def _keep(self, study: Study) -> Study:
        kept = self._parts.store.add_study(study)
        self._parts.journal.add(
            kept.kind, f"{kept.kind} {kept.id}: {kept.headline}",
            severity=_SEVERITY.get(kept.verdict, Severity.OK),
            detail={"study": kept.id, "seconds": kept.seconds},
        )  # fmt: skip
        return kept

    def _collect(
        self, job: Job, names: Sequence[BackendName], texts: CheckTexts, count: Any
    ) -> tuple[list[Evidence], list[tuple[BackendName, BackendError]]]:
        """What each backend shows, one at a time, and which could not be loaded."""
        from embedctl.lab.check_evidence import CheckTarget, Evidence, collect, work_of

        evidences: dict[BackendName, Evidence] = {}
        missing: list[tuple[BackendName, BackendError]] = []
        each = work_of(texts)
        for name in sorted(names, key=lambda name: not self._lifecycle.ready(name)):  # those loaded first
            before = len(evidences) * each

            def report(step: str, done: float, before: float = before) -> None:
                job(step, done=before + done, total=each * len(names), unit="texts")

            try:
                with self._loaded(name, job) as backend:
                    target = CheckTarget(name, _embed(backend), self._fingerprint(name))
                    evidences[name] = collect(target, texts, count, report, job.cancel_token)
            except CanaryError as error:
                evidences[name] = Evidence.of_wrong_load(
                    name, self._fingerprint(name), len(texts.texts), error.why or error.what
                )
            except BackendError as error:
                missing.append((name, error))
        if not evidences:
            raise missing[0][1]
        return [evidences[name] for name in names if name in evidences], missing

    @contextmanager
    def _loaded(self, name: BackendName, job: Job) -> Iterator[Backend]:
        """The backend loaded, and afterwards all as it was. Where both do not fit, in turns."""
        borrowed = not self._lifecycle.ready(name)
        with ExitStack() as away:
            try:
                try:
                    self._lifecycle.load(name, job, job.cancel_token)
                except BackendOutOfMemoryError:
                    others = [
                        other
                        for other in self._parts.backends
                        if other not in (name, self._active()) and self._lifecycle.ready(other)
                    ]
                    if not others:
                        raise
                    for other in others:
                        away.enter_context(self._lifecycle.away(other, job))
                    self._lifecycle.load(name, job, job.cancel_token)
                yield self._lifecycle.backend(name)
            finally:  # before those that are away come back
                if borrowed and self._lifecycle.ready(name):
                    try:
                        self._lifecycle.unload_when_idle(name)
                    except BackendError as error:  # somebody began to use it: their requests matter more
                        log.warning("%s stays loaded after the study: %s", name, error)

    def _deciding_settings(self) -> dict[str, str]:
        return {
            f"{section}.{key}": str(getattr(getattr(self._settings, section), key))
            for section, keys in _DECIDING.items()
            for key in keys
        }


def _embed(backend: Backend) -> Callable[[Sequence[str]], EmbedResult]:
    return lambda texts: backend.embed(EmbedRequest(texts))


def _with_installed(mark: Fingerprint) -> Fingerprint:
    """The native backend's libraries as its next worker would find them, where no worker tells."""
    if mark.backend != "native" or mark.torch is not None:
        return mark
    found: dict[str, str] = {}
    for name in ("torch", "transformers", "sentence-transformers"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return replace(mark, torch=found.get("torch"), options={**mark.options, **found})


def _sentence(error: BackendError) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what
