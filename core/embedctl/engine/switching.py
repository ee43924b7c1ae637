"""The switch: which backend is active changes, no request is lost, and a failure leaves all as it was.

Where both backends fit in memory at once the new one is loaded and checked beside the old one, and requests
never wait. Where they do not fit, requests for the active backend are held while one makes room for the
other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from embedctl.engine.agreement import WARN_BELOW, known_vectors, least_cosine
from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.memory import GIB, LatestSample, Room, held_bytes
from embedctl.engine.traffic import Traffic
from embedctl.errors import BackendError, Cancelled, EmbedctlError, SwitchError
from embedctl.progress import CancelToken
from embedctl.records import (
    BackendName,
    Failure,
    Preflight,
    StepRecord,
    SwitchPlan,
    SwitchReport,
)
from embedctl.settings import EngineSettings

if TYPE_CHECKING:
    from embedctl.records.backends import Vectors

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Step:
    """What a running step may still say of itself."""

    detail: str = ""
    warned: bool = False


class _Steps:
    """The steps of one switch, shown by the job as they begin and end."""

    def __init__(self, job: Job, gpu_memory: Callable[[], int | None]) -> None:
        self._job = job
        self._gpu_memory = gpu_memory
        self._standing = False
        self.records: list[StepRecord] = []

    def stand(self) -> None:
        """The switch is done: what follows tidies up, and a cancel cannot undo it any more."""
        self._standing = True

    @contextmanager
    def step(self, name: str) -> Iterator[_Step]:
        if not self._standing:
            self._job.cancel_token.raise_if_cancelled()
        started = time.monotonic()
        note = _Step()
        self.records.append(StepRecord(name, "running"))
        self._job(name)
        self._show()
        try:
            yield note
        except BaseException as error:
            note.detail = note.detail or (error.what if isinstance(error, EmbedctlError) else str(error))
            self._end(name, "failed", started, note)
            raise
        self._end(name, "warning" if note.warned else "done", started, note)

    def _end(
        self, name: str, state: Literal["done", "failed", "warning"], started: float, note: _Step
    ) -> None:
        seconds = time.monotonic() - started
        self.records[-1] = StepRecord(name, state, seconds, note.detail, self._gpu_memory())
        self._show()

    def undo(self, name: str, work: Callable[[], object]) -> None:
        """A step of the way back: what fails here is told and never hides the error that led here."""
        started = time.monotonic()
        note = _Step()
        self.records.append(StepRecord(name, "running"))
        self._show()
        try:
            work()
        except EmbedctlError as error:
            log.error("%s failed: %s", name, error)
            note.detail = error.what
            self._end(name, "failed", started, note)
        else:
            self._end(name, "done", started, note)

    def skip(self, name: str, detail: str) -> None:
        self.records.append(StepRecord(name, "skipped", detail=detail))
        self._show()

    def _show(self) -> None:
        self._job.show_steps(tuple(self.records))


@dataclass(frozen=True, slots=True)
class _Before:
    """How things stood when a switch began."""

    source: BackendName
    target: BackendName
    source_loaded: bool
    target_loaded: bool


_LAST_LOOK_S: Final = 10.0
"""Requests are held meanwhile."""
_FIT_DETAIL: Final = {
    True: "both fit at once",
    False: "requests wait while memory is freed",
    None: "not known whether both fit at once; tried",
}


def _not_switched(source: BackendName, failure: Failure) -> SwitchError:
    return SwitchError(
        f"Not switched: {source} is still the active backend",
        why=f"{failure.what}. {failure.why}".rstrip(". "),
        remedy=failure.remedy,
    )


class Switcher:
    """Plans and carries out switches between the engine's backends."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        traffic: Traffic,
        latest: LatestSample,
        room: Callable[[], Room],
        settings: EngineSettings,
        *,
        activate: Callable[[BackendName], None],
    ) -> None:
        """`activate` makes a backend the one that requests go to; it must not fail."""
        self._lifecycle = lifecycle
        self._traffic = traffic
        self._latest = latest
        self._room = room
        self._settings = settings
        self._activate = activate

    def plan(self, target: BackendName, keep_both: bool | None) -> SwitchPlan:
        """What `run` would do now; what stands in its way is in the plan."""
        source = self._traffic.active
        keep = self._keep(keep_both)
        loaded = self._lifecycle.ready(target)
        source_loaded = self._lifecycle.ready(source)
        preflight, obstacle = self._preflight(target)
        if source == target:
            obstacle = Failure(f"{target} is already the active backend", remedy="choose the other one")
        room = self._room()
        expected = 0 if loaded else preflight.expected_bytes if preflight else None
        source_bytes = held_bytes(self._latest.sample, source)
        # What is loaded asks for no more, however little is left.
        fits = True if loaded else room.fits(expected)
        if fits is False and obstacle is None:
            obstacle = self._no_room(room, expected, source_bytes if source_loaded else None)
        warnings = (
            (f"both were to stay loaded, but there is not the memory for it: {source} is unloaded first",)
            if keep and source_loaded and fits is False
            else ()
        )
        return SwitchPlan(
            source=source,
            target=target,
            target_loaded=loaded,
            gpu_memory_used=room.used_by_gpu,
            source_bytes=source_bytes,
            expected_bytes=expected,
            expected_source="already loaded" if loaded else preflight.expected_source if preflight else "",
            available_bytes=room.available,
            floor_bytes=room.floor,
            unloads_source=source_loaded and (not keep or fits is False),
            fits_beside=fits,
            steps=self._step_names(source, target, source_loaded, keep, fits),
            warnings=(*(preflight.warnings if preflight else ()), *warnings),
            obstacle=obstacle,
        )

    def run(
        self,
        job: Job,
        target: BackendName,
        keep_both: bool | None,
        *,
        begins: Callable[[], None] = lambda: None,
    ) -> SwitchReport:
        """Switch to `target`; `begins` is called once nothing is known to stand in its way.

        Raises:
            SwitchError: It could not be done; the old backend is active as before.
            Cancelled: Cancelled before the flip; the old backend is active as before.
        """
        started = time.monotonic()
        steps = _Steps(job, self._gpu_memory)
        source = self._traffic.active
        before = _Before(source, target, self._lifecycle.ready(source), self._lifecycle.ready(target))
        with steps.step("preflight") as step:
            plan = self.plan(target, keep_both)
            if plan.obstacle:
                step.detail = plan.obstacle.what
                raise _not_switched(source, plan.obstacle)
            step.detail = _FIT_DETAIL[plan.fits_beside]
        begins()
        with ExitStack() as held:
            if plan.fits_beside is False:
                held.enter_context(self._traffic.held(source, target))
            try:
                reference = self._make_room(steps, job, plan) if plan.fits_beside is False else None
                agreement = self._bring_up(steps, job, plan, reference)
                with steps.step("flip"):
                    self._activate(target)
                    steps.stand()
            except Exception as error:
                # Before held requests are let go: they must find the old backend as it was.
                self._roll_back(steps, job, before)
                if isinstance(error, Cancelled) or not isinstance(error, EmbedctlError):
                    raise
                raise _not_switched(source, Failure(error.what, error.why, error.remedy)) from error
        unloaded = self._retire(steps, job, plan) if plan.fits_beside is not False else True
        return SwitchReport(
            source=source,
            target=target,
            seconds=time.monotonic() - started,
            steps=tuple(steps.records),
            agreement=agreement,
            unloaded_source=unloaded,
            warnings=tuple(record.detail for record in steps.records if record.state == "warning"),
        )

    # Steps ------------------------------------------------------------------------------------------

    def _last_look(self, source: BackendName, cancel: CancelToken) -> Vectors | None:
        """The old backend's vectors of known texts; None where it gives none."""
        if not self._lifecycle.ready(source):
            return None
        try:
            return known_vectors(self._lifecycle.backend(source), seconds=_LAST_LOOK_S, cancel=cancel)
        except BackendError as error:
            log.warning("%s cannot be compared with: %s", source, error.what)
            return None

    def _bring_up(self, steps: _Steps, job: Job, plan: SwitchPlan, reference: Vectors | None) -> float | None:
        """Load and check the target; the least cosine with the source, where that one is or was loaded."""
        with steps.step(f"load {plan.target}") as step:
            report = self._lifecycle.load(plan.target, job, job.cancel_token)
            told = (report.way, *report.notes)  # the step has the seconds
            step.detail = "; ".join(part for part in told if part)
        with steps.step("canary") as step:
            canary = report.canary
            step.detail = (
                canary.detail or f"{canary.texts} texts right" if canary else "none for this backend"
            )
        if reference is None and not self._lifecycle.ready(plan.source):
            why = "did not answer" if plan.unloads_source else "is not loaded"
            steps.skip("agreement", f"{plan.source} {why}")
            return None
        with steps.step("agreement") as step:
            try:
                if reference is None:
                    reference = known_vectors(self._lifecycle.backend(plan.source))
                agreement = least_cosine(reference, known_vectors(self._lifecycle.backend(plan.target)))
            except BackendError as error:  # the old backend's trouble must not keep anyone on it
                step.warned = True
                step.detail = f"could not be checked: {error.what}"
                return None
            step.detail = f"least cosine {agreement:.4f}"
            if agreement < self._settings.least_agreement:
                raise SwitchError(
                    f"{plan.target} does not serve the model that {plan.source} does",
                    why=f"the least cosine of known texts is {agreement:.4f}, under "
                    f"{self._settings.least_agreement:g} (engine.least_agreement)",
                    remedy="set model.repo and model.ollama_tag to one model's weights; or, where they are "
                    "meant to differ, set engine.least_agreement to -1",
                )
            step.warned = agreement < WARN_BELOW
            if step.warned:
                step.detail += f", under {WARN_BELOW}: an index made with {plan.source} will not match well"
            return agreement

    def _make_room(self, steps: _Steps, job: Job, plan: SwitchPlan) -> Vectors | None:
        """Unload the source; its vectors of known texts, from before that."""
        with steps.step("drain") as step:
            if not self._traffic.drained(plan.source, self._settings.drain_timeout_s, job.cancel_token):
                job.cancel_token.raise_if_cancelled()
                raise SwitchError(
                    f"{plan.source} still answers requests after {self._settings.drain_timeout_s:g} s",
                    remedy="try when there is less load, or raise engine.drain_timeout_s",
                )
            step.detail = "new requests wait"
        reference = self._last_look(plan.source, job.cancel_token)  # it has nothing else to do any more
        with steps.step(f"unload {plan.source}"):
            self._lifecycle.unload(plan.source)
        self._settle(steps, plan.source)
        return reference

    def _retire(self, steps: _Steps, job: Job, plan: SwitchPlan) -> bool:
        """Let the old backend go, after the flip: trouble here is a warning, the switch stands."""
        if not plan.unloads_source:
            return False
        # Those who ask for the old backend by name wait meanwhile, and find it as they would have: unloaded.
        with self._traffic.held(plan.source):
            if not self._let_go(steps, job, plan.source):
                return False
        self._settle(steps, plan.source)
        return True

    def _let_go(self, steps: _Steps, job: Job, source: BackendName) -> bool:
        with steps.step("drain") as step:
            drained = self._traffic.drained(source, self._settings.drain_timeout_s, job.cancel_token)
            if job.cancel_token.cancelled:
                step.warned = True
                step.detail = f"cancelled after the flip: {source} stays loaded"
            elif not drained:
                step.warned = True
                step.detail = (
                    f"{self._traffic.in_flight(source)} requests still run on {source}; it stays loaded"
                )
        if step.warned:
            return False
        with steps.step(f"unload {source}") as step:
            try:
                self._lifecycle.unload(source)
            except BackendError as error:
                step.warned = True
                step.detail = str(error)
        return not step.warned

    def _settle(self, steps: _Steps, backend: BackendName) -> None:
        """Wait until the memory is back: on a unified pool that can take a while after a process ended."""
        with steps.step("settle") as step:
            back = self._latest.wait_until(
                lambda sample: not held_bytes(sample, backend), self._settings.settle_timeout_s
            )
            step.warned = not back
            left = held_bytes(self._latest.sample, backend)
            step.detail = "memory is back" if back else f"not all memory is back yet ({_gib(left)} left)"

    def _roll_back(self, steps: _Steps, job: Job, before: _Before) -> None:
        """Put things back as they were."""
        source, target = before.source, before.target
        if not before.target_loaded and self._lifecycle.ready(target):
            steps.undo(f"roll back: unload {target}", lambda: self._lifecycle.unload(target))
        if before.source_loaded and not self._lifecycle.ready(source):
            # What the target held must be seen to be free, or the way back is refused for want of memory.
            self._latest.wait_until(
                lambda sample: before.target_loaded or not held_bytes(sample, target),
                self._settings.settle_timeout_s,
            )
            fresh = CancelToken()  # the user's cancel must not stop the way back
            steps.undo(f"roll back: load {source}", lambda: self._lifecycle.load(source, job, fresh))

    # Planning ---------------------------------------------------------------------------------------

    def _gpu_memory(self) -> int | None:
        used = self._latest.sample.get("gpu_memory_used") if self._latest.sample else None
        return int(used) if used is not None else None

    def _keep(self, keep_both: bool | None) -> bool:
        return not self._settings.unload_after_switch if keep_both is None else keep_both

    def _preflight(self, target: BackendName) -> tuple[Preflight | None, Failure | None]:
        try:
            return self._lifecycle.backend(target).preflight(), None
        except EmbedctlError as error:
            return None, Failure(error.what, error.why, error.remedy)

    def _no_room(self, room: Room, expected: int | None, source_bytes: int | None) -> Failure | None:
        """Why the target cannot fit even when the source makes room; None when it then fits."""
        if room.fits(expected, freed=source_bytes or 0):
            return None
        return Failure(
            "There is not enough memory for the other backend",
            f"it needs {_gib(expected)}, {_gib(room.available)} are available, "
            f"and {_gib(room.floor)} are kept free",
            "end what else uses memory, or lower engine.memory_floor_gib",
        )

    def _step_names(
        self, source: BackendName, target: BackendName, source_loaded: bool, keep: bool, fits: bool | None
    ) -> tuple[str, ...]:
        bring_up = ("preflight", f"load {target}", "canary", "agreement", "flip")
        retire = ("drain", f"unload {source}", "settle") if source_loaded else ()
        if fits is False:
            return ("preflight", *retire, f"load {target}", "canary", "agreement", "flip")
        return bring_up if keep else (*bring_up, *retire)


def _gib(size: int | None) -> str:
    return "n/a" if size is None else f"{size / GIB:.1f} GiB"
