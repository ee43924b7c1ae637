"""The engine's jobs as the console starts and stops them, and how it tells that they have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from embedctl.errors import EmbedctlError
from embedctl.records import JobState, JobUpdate
from embedctl_console.questions import OTHER_STUDIES
from embedctl_console.tasks import run_in_thread

if TYPE_CHECKING:
    from embedctl.engine import JobHandle
    from embedctl_console.app import ConsoleApp

_MODEL_JOBS: Final = ("download", "verify", "remove")


class Jobs:
    """Starts and stops jobs beside the event loop: a service that the console is attached to may be slow."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app

    async def started(self, start: Callable[[], JobHandle]) -> JobHandle | None:
        """Start a job on a thread.

        Not to be awaited by an action, which would keep the keys waiting. An error is reported, and None
        returned.
        """
        try:
            return await run_in_thread(start)
        except EmbedctlError as error:
            self._app.report(error)
            return None

    def start(self, start: Callable[[], JobHandle], *, then_show: str = "") -> None:
        """Start a job, then show the screen of that name. Returns at once; an error is reported."""
        self._app.run_worker(self._start(start, then_show), group="start")

    async def _start(self, start: Callable[[], JobHandle], then_show: str) -> None:
        if await self.started(start) is not None and then_show:
            await self._app.action_show(then_show)

    def cancel(self, job: JobUpdate) -> None:
        """Ask a job to stop, which may have a process to end. Returns at once; an error is reported."""
        self._app.run_worker(self._cancel(job.job_id), group="cancel")

    async def _cancel(self, job_id: int) -> None:
        from embedctl_console.state import Topic

        try:
            await run_in_thread(self._app.engine.cancel_job, job_id)
        except EmbedctlError as error:
            self._app.report(error)
            return
        if self._app.state is not None:
            self._app.state.asked_to_stop(job_id)
            self._app.news.publish(Topic.JOBS)

    def has_ended(self, job: JobUpdate) -> None:
        """Ask anew for what the job may have changed; tell how it ended, unless the screen shows that."""
        if job.kind in _MODEL_JOBS:
            self._app.questions.ask_model(online=False)
        if job.kind in ("check", *OTHER_STUDIES):
            self._app.questions.ask_standing()
        if job.kind not in getattr(self._app.screen, "TELLS", ()):
            self._tell_end(job)

    def _tell_end(self, job: JobUpdate) -> None:
        if job.state is JobState.FAILED and job.failure is not None:
            failure = job.failure
            self._app.report(EmbedctlError(failure.what, why=failure.why, remedy=failure.remedy))
        elif job.state is JobState.CANCELLED:
            self._app.notify("cancelled", title=job.title, severity="warning", markup=False)
        else:
            self._app.notify("done", title=job.title, markup=False)
