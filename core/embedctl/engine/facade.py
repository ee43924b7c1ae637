"""The one door to embedctl: what the console, the command line and the service may ask for.

`Engine` fulfils it in this process, `RemoteEngine` through the control socket of another. Anything that
answers these calls can stand in for them, such as a test's scripted engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from embedctl.events import Subscriber
from embedctl.paths import Paths
from embedctl.progress import CancelToken
from embedctl.records import (
    BackendName,
    BackendStatus,
    ClaimsReport,
    EmbedResult,
    Event,
    Finding,
    Fingerprint,
    Health,
    JobUpdate,
    ModelStatus,
    Nearest,
    Run,
    RunComparison,
    RunSummary,
    Status,
    Study,
    StudySummary,
    SwitchPlan,
    Tokenisation,
    Trial,
    TrialReport,
)
from embedctl.series import History
from embedctl.settings import Settings


class JobHandle(Protocol):
    """A job that was started. Its progress is also published as `JobChanged`."""

    @property
    def id(self) -> int: ...

    @property
    def update(self) -> JobUpdate:
        """Where it stands now."""

    def cancel(self) -> None:
        """Ask it to stop. Returns at once."""

    def wait(self, timeout: float | None = None) -> JobUpdate:
        """Wait for its end and return the last update; never raises for a job that failed.

        Raises:
            TimeoutError: It still runs after `timeout` seconds.
        """


class EngineFacade(Protocol):
    """Calls marked [slow] may take long or touch disk or network: not for a screen's own thread.

    Calls that return a `JobHandle` return at once, and raise `UsageError` when a job or a trial
    runs that excludes it.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def paths(self) -> Paths: ...

    def status(self) -> Status:
        """The whole state at this moment; never blocks, never raises."""

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Receive every message (`embedctl.events`) on the publisher's thread; call the result to stop."""

    def cancel_job(self, job_id: int) -> None:
        """Ask a running job to stop, whoever started it. Returns at once; nothing happens if it has ended."""

    # Embedding

    def embed(
        self,
        texts: Sequence[str],
        *,
        backend: BackendName | None = None,
        batch_size: int | None = None,
        normalize: bool = True,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> EmbedResult:
        """[slow] Embed texts with the active backend, or the one named; it is loaded first if need be.

        Args:
            timeout: Seconds for everything: a wait for a switch, a load that is needed first, and the work.
            cancel: Set when nobody wants the answer any more.

        Raises:
            BackendError: No vector could be had; the error says why and what to do.
            Cancelled: `cancel` was set.
        """

    def fingerprint(self, backend: BackendName | None = None) -> Fingerprint:
        """What a backend's vectors (None: the active one's) depend on, as far as known now. Never blocks."""

    def tokens(self, texts: Sequence[str]) -> Tokenisation:
        """[slow] The model's own pieces of texts, and where its length limit cuts; nothing has to be loaded.

        Raises:
            InvalidTextError: A text is not valid Unicode.
        """

    def nearest(
        self,
        of: EmbedResult,
        *,
        passages: Sequence[str] | None = None,
        count: int = 3,
        patience: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Nearest:
        """[slow] The `count` passages nearest to each text of an answer, by the backend that gave it.

        A corpus is embedded once per model and backend, and then kept in memory.

        Args:
            passages: What is searched; None: built-in paragraphs in six languages.
            patience: Passages that are new are embedded for about so many seconds; what waits then, waits for
                the next call. None: all are.

        Raises:
            BackendError: The passages could not be embedded, or the backend is no longer the same.
            Cancelled: `cancel` was set.
            UsageError: There are no passages, or too many.
        """

    # Backends

    def refresh(self) -> tuple[BackendStatus, ...]:
        """[slow] Look at every backend again."""

    def load(self, backend: BackendName) -> JobHandle:
        """Load a backend beside whatever is loaded. Result: `LoadReport`."""

    def unload(self, backend: BackendName) -> JobHandle:
        """Unload a backend and wait until its memory is back."""

    def plan_switch(self, target: BackendName, *, keep_both: bool | None = None) -> SwitchPlan:
        """[slow] What `switch` would do. Obstacles are in the plan, not raised."""

    def switch(self, target: BackendName, *, keep_both: bool | None = None) -> JobHandle:
        """Make `target` the active backend without losing a request. Result: `SwitchReport`.

        `keep_both=None` follows the setting `engine.unload_after_switch`.
        """

    # A migration on trial

    def start_trial(self, trial: Trial) -> JobHandle:
        """Load the candidate beside the active backend, check it, then shadow or share live requests.

        Replaces a running trial of the same candidate and keeps its figures. While it runs, the candidate
        is not unloaded and nothing is measured. Result: `TrialReport`.
        """

    def trial(self) -> TrialReport | None:
        """What the running trial has shown; None without one. A switch ends it."""

    def stop_trial(self) -> TrialReport | None:
        """End the trial: all requests go to the active backend again. The candidate stays loaded."""

    # Health

    def health(self) -> Health:
        """How each backend does: its last probe, live requests, the machine's figures. Never blocks."""

    def tune(self) -> JobHandle:
        """Measure the native backend's token budget, loaded for it if need be. Result: `TuneReport`."""

    # Models

    def model(self, *, online: bool = True) -> ModelStatus:
        """[slow] The configured model: files, sizes, what is on disk. Offline it tells what the disk knows.

        Raises:
            HubError: Nothing is on disk and the Hub could not be asked.
        """

    def download(self) -> JobHandle:
        """Fetch what is missing of the model, verify it, convert it if need be. Result: `ModelStatus`."""

    def pull(self) -> JobHandle:
        """Have Ollama pull its copy of the model."""

    def verify(self) -> JobHandle:
        """Hash every file of the model. Result: `ModelStatus`."""

    def remove_model(self) -> JobHandle:
        """Delete this model's files from the cache. Result: the number of bytes freed."""

    # Benchmarks

    def benchmark(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        preset: str = "quick",
        title: str = "",
        minutes: float | None = None,
    ) -> JobHandle:
        """Measure the backends and keep the run, part by part as it goes. Result: `Run`.

        A run that is cancelled or fails keeps the parts that were complete. Where `backends` names none, one
        that does not answer is done without, and the run's notes tell why.

        Args:
            minutes: For the whole, in place of the preset's time; what takes longer is shortened.

        Raises:
            UsageError: There is no such preset or backend, or `minutes` is not above 0.
        """

    def resume_benchmark(self, run_id: int) -> JobHandle:
        """Measure what a run lacks that was cancelled, failed or lost its process. Result: `Run`.

        Raises:
            UsageError: There is no such run, it is complete, or a living process measures it.
        """

    def add_run(self, run: Run) -> Run:
        """[slow] Keep a run that was measured elsewhere, under a new id."""

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        """[slow] Stored runs, newest first."""

    def run(self, run_id: int) -> Run:
        """[slow] One stored run with its raw measurements.

        Raises:
            UsageError: There is no such run.
        """

    def compare_runs(self, a: int, b: int) -> RunComparison:
        """[slow] Two stored runs side by side.

        Raises:
            UsageError: One of them does not exist.
        """

    # Studies

    def check(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        texts: Sequence[str] | None = None,
        texts_name: str = "own texts",
    ) -> JobHandle:
        """Is it safe to switch? Check each backend, then one against the other. Result: `Study`.

        Its `data` is read by `study_data.check_report`. `texts` are embedded besides the built-in ones, and
        decide. What was not loaded is loaded for the time of the study.

        Raises:
            UsageError: There is no such backend, or no text in `texts`.
        """

    def quality(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        vary: str = "",
        sets: Sequence[str] = ("xquad",),
        split: str = "test",
        queries: int | None = None,
        documents: int | None = None,
        threshold: float = 0.01,
    ) -> JobHandle:
        """How well do queries find their documents, and what does a change cost? Result: `Study`.

        Its `data` is read by `study_data.quality_report`.

        Args:
            backends: The first is what the others are compared with.
            vary: In place of `backends`: the native one under several settings, such as
                `dtype=float32,float16` or `max_tokens=512,8192`.
            sets: `xquad` (all built-in ones), `xquad-de`, `xquad-de-en`, folders in BEIR's layout, or
                `hub:owner/name[@revision]`.
            split: Which of qrels/*.tsv is asked.
            queries: At most so many of each set.
            documents: At most so many of a folder or a data set of the Hub.
            threshold: A mean difference of up to this does not matter.

        Raises:
            UsageError: There is no such backend, or `vary` says nothing that can be varied.
        """

    def coexist(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        model: str | None = None,
        rounds: int = 6,
        block_seconds: float = 10.0,
        least_kept: float = 0.8,
        most_slower: float = 2.0,
    ) -> JobHandle:
        """Do a language model and an embedding backend fit side by side? Result: `Study`.

        Its `data` is read by `study_data.coexist_report`.

        Args:
            model: Tag of a model on the Ollama server; None: the smallest that can generate.
            rounds: Each has the model alone, the backend alone, and both, `block_seconds` long.
            least_kept: Share of its tokens/s that the model must keep.
            most_slower: What embedding p99 may become, times what it was alone.

        Raises:
            UsageError: There is no such backend, or a number makes no sense.
        """

    def claims(self) -> ClaimsReport:
        """[slow] The design document's claims, beside what the stored runs and studies say of them."""

    def check_changes(self) -> tuple[str, ...] | None:
        """[slow] What has changed since the last check that came to an answer; None without one."""

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        """[slow] Stored studies, newest first; of one kind, or of all."""

    def study(self, study_id: int) -> Study:
        """[slow] One stored study.

        Raises:
            UsageError: There is no such study.
        """

    # History

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        """[slow] Samples of the coarsest tier that still gives about `points` entries, and events."""

    def recorded_span(self) -> tuple[float, float] | None:
        """[slow] Times of the oldest and the newest stored sample; None when nothing was recorded."""

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        """[slow] Stored events, newest first."""

    def annotate(self, at: float, text: str) -> Event:
        """[slow] Put a note of the user's on the time line.

        Args:
            at: The moment that it is about, in Unix seconds.
            text: One line.

        Raises:
            UsageError: There is no text, or the moment is none.
        """

    def export_csv(
        self, target: Path, since: float, until: float, *, metrics: Sequence[str] | None = None
    ) -> int:
        """[slow] Write the window's samples at their finest stored resolution; returns the rows written."""

    # The machine

    def doctor(self) -> tuple[Finding, ...]:
        """[slow] Look at everything that commonly goes wrong, with a remedy per finding."""

    def close(self) -> None:
        """[slow] Cancel jobs, unload, stop workers and the sampler, close the store. Safe to call twice."""
