"""The façade's calls for what is stored: runs, studies, samples and events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from embedctl.engine.parts import Parts
from embedctl.errors import UsageError
from embedctl.records import Event, Run, RunComparison, RunSummary, Study, StudySummary
from embedctl.series import History


class StoredCalls:
    """Answers from the store and the journal alone; see `EngineFacade` for what each call promises."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    # Runs

    def add_run(self, run: Run) -> Run:
        return self._parts.store.add_run(run)

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        return self._parts.store.runs(limit)

    def run(self, run_id: int) -> Run:
        found = self._parts.store.run(run_id)
        if found is None:
            raise UsageError(
                f"There is no run {run_id}", remedy="`embedctl bench list` shows those there are"
            )
        return found

    def compare_runs(self, a: int, b: int) -> RunComparison:
        from embedctl.lab.compare import compare

        return compare(self.run(a), self.run(b))

    # Studies

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        return self._parts.store.studies(kind, limit)

    def study(self, study_id: int) -> Study:
        found = self._parts.store.study(study_id)
        if found is None:
            raise UsageError(f"There is no study {study_id}", why="it was never made, or not on this machine")
        return found

    # History

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        return self._parts.store.history(since, until, metrics, points)

    def recorded_span(self) -> tuple[float, float] | None:
        return self._parts.store.recorded_span()

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        return self._parts.store.events(since, until, kinds, limit)

    def annotate(self, at: float, text: str) -> Event:
        return self._parts.journal.annotate(at, text)

    def export_csv(
        self, target: Path, since: float, until: float, *, metrics: Sequence[str] | None = None
    ) -> int:
        return self._parts.store.export_csv(target, since, until, metrics)
