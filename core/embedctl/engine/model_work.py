"""What jobs do with the model's files: fetch, have Ollama fetch, remove; each leaves its event behind."""

from __future__ import annotations

import time
from collections.abc import Callable

from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.parts import Parts
from embedctl.errors import Cancelled, EmbedctlError, UsageError
from embedctl.records import BackendState, BackendStatus, ModelStatus, Severity
from embedctl.settings import Settings


class ModelWork:
    """The work of the jobs around the configured model."""

    def __init__(
        self,
        parts: Parts,
        lifecycle: Lifecycle,
        settings: Settings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._parts = parts
        self._lifecycle = lifecycle
        self._settings = settings
        self._clock = clock

    def download(self, job: Job) -> ModelStatus:
        hub, journal, model = self._parts.hub, self._parts.journal, self._settings.model
        started = self._clock()
        try:
            status = hub.download(job, job.cancel_token)
        except Cancelled:
            journal.add_download(model.repo, model.revision, started, None, "cancelled")
            raise
        except EmbedctlError as error:
            journal.add_download(model.repo, model.revision, started, None, error.what)
            journal.add_failure(f"download of {model.repo} failed", error, during="download")
            raise
        journal.add_download(model.repo, status.revision, started, status.total_bytes, "done")
        journal.add("download", f"{model.repo} is here and verified", severity=Severity.OK)
        self._lifecycle.backend("native").refresh()
        return status

    def pull(self, job: Job) -> BackendStatus:
        tag, journal = self._settings.model.ollama_tag, self._parts.journal
        try:
            self._parts.pull(job, job.cancel_token)
        except Cancelled:
            raise
        except EmbedctlError as error:
            journal.add_failure(f"Ollama did not pull {tag}", error, "ollama", during="download")
            raise
        journal.add("download", f"Ollama pulled {tag}", "ollama", Severity.OK)
        return self._lifecycle.backend("ollama").refresh()

    def remove(self, _: Job) -> int:
        state = self._lifecycle.backend("native").status().state
        if state in (BackendState.READY, BackendState.LOADING):
            raise UsageError(
                f"{self._settings.model.repo} was not removed",
                why=f"the native backend is {state.value} and would not find its files at its next start",
                remedy="unload native first",
            )
        freed = self._parts.hub.remove()
        self._lifecycle.backend("native").refresh()
        self._parts.journal.add("note", f"{self._settings.model.repo} removed from disk")
        return freed
