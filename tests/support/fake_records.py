"""What the scripted engine has kept: runs, studies, samples and the time line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from embedctl.errors import UsageError
from embedctl.events import EventRecorded
from embedctl.records import ClaimsReport, Event, Run, RunComparison, RunSummary, Study, StudySummary
from embedctl.series import History
from tests.support import canned
from tests.support.canned import NOW
from tests.support.fake_world import FakeWorld


class FakeRecords(FakeWorld):
    """Reads and adds to what was recorded, as `EngineFacade` promises it."""

    def add_run(self, run: Run) -> Run:
        self._called("add_run", run.title)
        added = replace(run, id=max(self.stored_runs, default=0) + 1)
        self.stored_runs[added.id] = added
        return added

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        self._called("runs", limit)
        newest = sorted(self.stored_runs.values(), key=lambda run: -run.id)[:limit]
        return tuple(canned.summary(run) for run in newest)

    def run(self, run_id: int) -> Run:
        self._called("run", run_id)
        if run_id not in self.stored_runs:
            raise UsageError(f"There is no run {run_id}", remedy="`embedctl bench list` shows all runs")
        return self.stored_runs[run_id]

    def compare_runs(self, a: int, b: int) -> RunComparison:
        self._called("compare_runs", a, b)
        return canned.compare(self.run(a), self.run(b))

    def claims(self) -> ClaimsReport:
        self._called("claims")
        from embedctl.lab.claims import claims

        return claims(
            list(self.stored_runs.values()), list(self.stored_studies.values()), at=self.now,
            simulated=self.demo,
        )  # fmt: skip

    def check_changes(self) -> tuple[str, ...] | None:
        self._called("check_changes")
        return self.changes

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        self._called("studies", kind, limit)
        newest = sorted(self.stored_studies.values(), key=lambda study: -study.id)
        chosen = [study for study in newest if kind is None or study.kind == kind][:limit]
        return tuple(canned.study_summary(study) for study in chosen)

    def study(self, study_id: int) -> Study:
        self._called("study", study_id)
        if study_id not in self.stored_studies:
            raise UsageError(f"There is no study {study_id}")
        return self.stored_studies[study_id]

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        self._called("history", since, until)
        return canned.history(since, until, metrics=metrics, points=points, **self._presence())

    def recorded_span(self) -> tuple[float, float] | None:
        self._called("recorded_span")
        return (NOW - 30 * 86_400, self.now)

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        self._called("events", since, until)
        chosen = [
            event
            for event in self.stored_events
            if (since is None or event.at >= since)
            and (until is None or event.at <= until)
            and (kinds is None or event.kind in kinds)
        ]
        return tuple(chosen[:limit])

    def annotate(self, at: float, text: str) -> Event:
        self._called("annotate", at, text)
        event = Event(at, "note", text, id=max((e.id or 0 for e in self.stored_events), default=0) + 1)
        self.stored_events.append(event)
        self.stored_events.sort(key=lambda event: -event.at)
        self.publish(EventRecorded(event))
        return event

    def export_csv(
        self, target: Path, since: float, until: float, *, metrics: Sequence[str] | None = None
    ) -> int:
        self._called("export_csv", target, since, until)
        window = canned.history(since, until, metrics=metrics, **self._presence())
        times = sorted({float(t) for series in window.series.values() for t in series.at})
        by_key = {
            key: dict(zip(series.at, series.mean, strict=True)) for key, series in window.series.items()
        }
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["at", *by_key])
            writer.writerows([t, *(values.get(t, "") for values in by_key.values())] for t in times)
        return len(times)
