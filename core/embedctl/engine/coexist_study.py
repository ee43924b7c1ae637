"""A study of coexistence: the language model on the Ollama server, and each backend beside it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from embedctl.backends.base import Backend, EmbedRequest
from embedctl.engine.jobs import Job
from embedctl.engine.memory import LatestSample, room
from embedctl.engine.parts import Parts
from embedctl.engine.variants import require_backends
from embedctl.errors import UsageError
from embedctl.lab.coexist import Plan, Room, judged, side_by_side
from embedctl.lab.stages import Bench
from embedctl.lab.targets import RealPace, Target
from embedctl.lab.window import SampleWindow
from embedctl.lab.workloads import built_in
from embedctl.records import BackendName, CoexistReport, Fingerprint, Machine, Sample


@dataclass(frozen=True, slots=True)
class CoexistQuestion:
    backends: tuple[BackendName, ...]
    model: str | None = None
    """The Ollama tag; None: the smallest that can generate."""
    plan: Plan = field(default_factory=Plan)


def coexist_question(
    known: Collection[BackendName],
    *,
    backends: Sequence[BackendName] | None,
    model: str | None,
    rounds: int,
    block_seconds: float,
    least_kept: float,
    most_slower: float,
) -> CoexistQuestion:
    """The question, refused now and not after minutes of loading.

    Raises:
        UsageError: It makes no sense.
    """
    require_backends(known, backends)
    if rounds < 1 or not 0 < block_seconds <= 600 or not 0 < least_kept <= 1 or most_slower < 1:
        raise UsageError(
            "That makes no measurement",
            why="it takes a round, blocks of up to 600 s, a share of tokens to keep of at most 1, "
            "and a p99 that may be 1 or more times as long",
        )
    names = tuple(dict.fromkeys(backends or known))
    return CoexistQuestion(names, model, Plan(rounds, block_seconds, least_kept, most_slower))


@dataclass(frozen=True, slots=True)
class Memory:
    """Where the memory is read, and how much of it is kept free."""

    machine: Machine | None
    latest: LatestSample
    floor_gib: float | None

    def room(self) -> Room:
        def available(sample: Sample) -> int | None:
            return room(self.machine, sample, self.floor_gib).available

        now = room(self.machine, self.latest.sample, self.floor_gib)
        return Room(available, now.floor, now.source)


def ask(
    job: Job,
    question: CoexistQuestion,
    parts: Parts,
    loaded: Callable[[BackendName, Job], AbstractContextManager[Backend]],
    fingerprint: Callable[[BackendName], Fingerprint],
    memory: Memory,
) -> tuple[CoexistReport, tuple[Fingerprint, ...]]:
    """The whole answer, and the backends' fingerprints.

    Raises:
        ModelMissingError: The Ollama server has no such language model.
        BackendError: Something does not work even alone.
        Cancelled: The job was cancelled.
    """
    rows, marks, notes = [], [], []
    seconds = question.plan.rounds * question.plan.block_seconds * 3
    total = seconds * len(question.backends)
    job("language model")
    with parts.language_model(question.model) as model:
        for number, name in enumerate(question.backends):

            def report(share: float, name: str = name, before: float = number * seconds) -> None:
                job(f"{model.name} and {name}", done=before + share * seconds, total=total, unit="seconds")

            report(0.0)
            with loaded(name, job) as backend:
                marks.append(fingerprint(name))
                bench = Bench(
                    [], built_in(), None, None, random.Random(), RealPace(job.cancel_token),  # an order
                    job.cancel_token, lambda: memory.latest.watched(SampleWindow()), report,
                )  # fmt: skip
                target = _target(backend, marks[-1])
                rows.append(side_by_side(target, model, bench, question.plan, memory.room()))
        if model.simulated:
            notes.append("the language model is simulated: what it costs says nothing of a real one")
        return judged(rows, model, question.plan, notes), tuple(marks)


def _target(backend: Backend, mark: Fingerprint) -> Target:
    return Target(
        backend.name,
        lambda texts, batch_size: backend.embed(EmbedRequest(texts, batch_size)),
        lambda: mark,
    )
