"""The store: everything that outlives the program, in one SQLite file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from embedctl.errors import UsageError
from embedctl.records import Download, Event, Provenance, Run, RunSummary, Sample, Study, StudySummary
from embedctl.series import History
from embedctl.settings import HistorySettings
from embedctl.store import export, journal, runs, studies, windows
from embedctl.store.database import HistoryFile
from embedctl.store.recording import Recording

_EVENTS_IN_HISTORY: Final = 1_000
"""More marks than that on one chart show nothing; the newest are kept."""


class Store:
    """Samples, events, runs, studies, downloads and remembered state. Safe to use from any thread.

    Reading never waits for writing. Every write is on disk (synchronous=FULL) when its call returns. Any
    number of processes may open the same file; one of them at a time records samples, see `add_sample`.

    Every call may raise `StoreError` or one of its kinds: `StoreFullError`, `StoreReadOnlyError`,
    `StoreCorruptError`, and `StoreBusyError` where another process keeps a write from going on.
    """

    def __init__(self, file: HistoryFile, retention: HistorySettings, clock: Callable[[], float]) -> None:
        """Use `open`."""
        self._file = file
        self._clock = clock
        self._recording = Recording(file, retention, clock)

    @classmethod
    def open(cls, path: Path, *, retention: HistorySettings, clock: Callable[[], float] = time.time) -> Self:
        """Open the file, making it (and its folder) or upgrading it as needed.

        Raises:
            StoreNewerError: A newer version of embedctl wrote it.
            StoreForeignError: It belongs to another program.
            StoreCorruptError: It is damaged, or no database at all.
            StoreReadOnlyError: It or its folder cannot be written.
            StoreFullError: There is no room.
            StoreBusyError: Another process held it for longer than five seconds.

        In none of these cases is the file changed.
        """
        return cls(HistoryFile(path, clock=clock), retention, clock)

    @property
    def path(self) -> Path:
        return self._file.path

    def close(self) -> None:
        """Close the file and let another process record. Safe to call twice."""
        self._file.close()
        self._recording.lock.release()

    # Samples

    def add_sample(self, sample: Sample) -> None:
        """Commit one sample. Only finite values of metrics in `METRICS` are kept.

        The first call makes this process the file's recorder, until `close` or its end.

        Raises:
            StoreBusyError: Another process records to this file. Try again with the next sample: recording
                goes on here once the other has ended.
        """
        self._recording.add(sample)

    def maintain(self) -> None:
        """Roll samples up and remove old ones; meant for once a minute, cheap when there is little to do.

        Does nothing while another process records.
        """
        self._recording.maintain()

    def recorder(self) -> int | None:
        """PID of the other process that records to this file; None if nobody else does."""
        return self._recording.lock.holder()

    def history(
        self, since: float, until: float, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        """Samples of [since, until] from the coarsest tier that still gives about `points` entries.

        Where that tier no longer reaches back to `since`, a coarser one that does is read. Events come in
        the order of time. `metrics=None` means all.

        Raises:
            UsageError: A metric does not exist.
        """
        keys = windows.known(metrics)
        with self._file.read() as db:
            tier = windows.choose_tier(db, since, until, points)
            series = windows.series(db, tier, keys, since, until)
            marks = journal.events(db, since, until, None, _EVENTS_IN_HISTORY)
        return History(since, until, float(tier.seconds), series, marks[::-1])

    def recorded_span(self) -> tuple[float, float] | None:
        """Times of the oldest and the newest sample; None when nothing was recorded."""
        with self._file.read() as db:
            span = windows.span_ms(db)
        return None if span is None else (span[0] / 1000, span[1] / 1000)

    def provenance(self, at: float) -> Mapping[str, Provenance]:
        """Where each figure came from, or why it was absent, in the last sample at or before `at`.

        Where only a thinned bucket is left, its last sample speaks for all of it.
        """
        with self._file.read() as db:
            return windows.provenance(db, int(at * 1000))

    def export_rows(
        self, since: float, until: float, metrics: Sequence[str] | None = None
    ) -> Iterator[export.ExportRow]:
        """Samples of [since, until], each stretch at the finest resolution that is still stored.

        Raises:
            UsageError: A metric does not exist.
        """
        return export.rows(self._file, windows.known(metrics), since, until)

    def export_csv(
        self, target: Path, since: float, until: float, metrics: Sequence[str] | None = None
    ) -> int:
        """Write `export_rows` to a CSV file, replacing it only when whole; returns the rows written.

        An absent figure is an empty cell. Raises as `export_rows`.
        """
        keys = windows.known(metrics)
        return export.write_csv(target, keys, export.rows(self._file, keys, since, until))

    # Events

    def add_event(self, event: Event) -> Event:
        """Store an event; the result carries its id."""
        with self._file.write() as db:
            return journal.add_event(db, event)

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        """Events of [since, until], newest first."""
        with self._file.read() as db:
            return journal.events(db, since, until, kinds, limit)

    # Runs

    def add_run(self, run: Run) -> Run:
        """Store a run with everything in it; the result carries its new id."""
        with self._file.write() as db:
            return runs.add(db, run)

    def put_run(self, run: Run) -> None:
        """Replace the stored run of the same id by this one, in one transaction.

        Raises:
            UsageError: It was removed meanwhile.
        """
        with self._file.write() as db:
            if not runs.put(db, run):
                raise UsageError(f"Run {run.id} is no longer in the history")

    def remove_run(self, run_id: int) -> None:
        """Delete a run with everything in it, if it is there."""
        with self._file.write() as db:
            runs.remove(db, run_id)

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        """Runs without their measurements, newest first."""
        with self._file.read() as db:
            return runs.summaries(db, limit)

    def run(self, run_id: int) -> Run | None:
        """One run as it was added; None if there is no such run."""
        with self._file.read() as db:
            return runs.get(db, run_id)

    # Studies

    def add_study(self, study: Study) -> Study:
        """Store a study with its data; the result carries its new id."""
        with self._file.write() as db:
            return studies.add(db, study)

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        """Studies without their data, newest first; `kind=None` means all."""
        with self._file.read() as db:
            return studies.summaries(db, kind, limit)

    def study(self, study_id: int) -> Study | None:
        """One study as it was added; None if there is no such study."""
        with self._file.read() as db:
            return studies.get(db, study_id)

    def latest_study(self, kind: str) -> Study | None:
        """The newest study of a kind that was done; None if there is none."""
        with self._file.read() as db:
            return studies.latest(db, kind)

    # Downloads

    def add_download(
        self,
        repo: str,
        revision: str | None,
        started: float,
        ended: float,
        size: int | None,
        outcome: str,
    ) -> Download:
        """Store how a download ended: `done`, `cancelled`, or what went wrong. `size` in bytes."""
        with self._file.write() as db:
            return journal.add_download(db, Download(repo, revision, started, ended, size, outcome))

    def downloads(self, limit: int = 100) -> tuple[Download, ...]:
        """Newest first."""
        with self._file.read() as db:
            return journal.downloads(db, limit)

    # State

    def get_state(self, key: str) -> str | None:
        """What was last remembered under `key`, such as the active backend."""
        with self._file.read() as db:
            return journal.state(db, key)

    def set_state(self, key: str, value: str) -> None:
        with self._file.write() as db:
            journal.set_state(db, key, value, self._clock())
