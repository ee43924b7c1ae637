"""What the stored runs and studies show, as the claims need it: the newest that speaks of a thing counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from embedctl.lab.bearing import no_speed
from embedctl.lab.statistics import percentile_interval, unpaired_ratio
from embedctl.records import (
    BackendName,
    CheckReport,
    CoexistReport,
    Interval,
    Measurement,
    QualityReport,
    Run,
    Study,
)
from embedctl.study_data import check_report, coexist_report, quality_report

NATIVE, OLLAMA = "native", "ollama"
ONE_TEXT, BATCH = "one text", "batch of 32"


_TEXTS: Final = "turns_workloads"
"""In the environment of a run whose backends took turns: the texts of each."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A figure, and where it was seen."""

    value: Interval
    source: str
    barred: str = ""
    """Why it says nothing of a speed, if it does not: an older one must not speak in its place."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Runs and studies, newest first."""

    runs: Sequence[Run]
    studies: Sequence[Study]

    def latency_ms(self, backend: BackendName, shape: str) -> Seen | None:
        """The median latency of a request."""
        return self._newest(backend, shape, lambda row: percentile_interval(row.latencies_ms, 0.5))

    def texts_per_s(self, backend: BackendName, shape: str) -> Seen | None:
        return self._newest(backend, shape, rate_of)

    def ratio(self, shape: str) -> Seen | None:
        """Times as fast as Ollama the native backend is, paired within one run."""
        for run in self.runs:
            for one in run.comparisons:
                if (one.shape, one.baseline, one.candidate) == (shape, OLLAMA, NATIVE):
                    return Seen(one.ratio, source(run))
            rows = [row for name in (OLLAMA, NATIVE) if (row := _row(run, name, shape)) is not None]
            if len(rows) == 2 and (why := _barred(run, *rows)):
                return Seen(Interval(0.0, None, None), source(run), why)
        return None

    def across(
        self,
        baseline: tuple[BackendName, str],
        candidate: tuple[BackendName, str],
        figure: Callable[[Measurement], Interval | None],
    ) -> Seen | None:
        """The candidate's figure over the baseline's, of two shapes of the newest run that has both.

        Of a run whose backends had the same texts.
        """
        for run in self.runs:
            rows = [row for wanted in (baseline, candidate) if (row := _row(run, *wanted)) is not None]
            values = [value for row in rows if (value := figure(row)) is not None]
            if len(values) < 2 or len(set((run.environment.get(_TEXTS) or {}).values())) > 1:
                continue
            if (ratio := unpaired_ratio(*values)) is not None:
                return Seen(ratio, source(run), _barred(run, *rows))
        return None

    def checks(self) -> Iterator[tuple[CheckReport, str]]:
        return ((check_report(one), source(one)) for one in self.studies if one.kind == "check")

    def qualities(self) -> Iterator[tuple[QualityReport, str]]:
        return ((quality_report(one), source(one)) for one in self.studies if one.kind == "quality")

    def coexistences(self) -> Iterator[tuple[CoexistReport, str]]:
        return ((coexist_report(one), source(one)) for one in self.studies if one.kind == "coexist")

    def _newest(
        self, backend: BackendName, shape: str, figure: Callable[[Measurement], Interval | None]
    ) -> Seen | None:
        for run in self.runs:
            row = _row(run, backend, shape)
            if row is None:
                continue
            value, why = figure(row), _barred(run, row)
            if value is not None or why:
                return Seen(value or Interval(0.0, None, None), source(run), why)
        return None


def _row(run: Run, backend: BackendName, shape: str) -> Measurement | None:
    return next((row for row in run.measurements if (row.backend, row.shape) == (backend, shape)), None)


def _barred(run: Run, *rows: Measurement) -> str:
    return "; ".join(f"{row.backend}, {row.shape}: {why}" for row in rows if (why := no_speed(run, row)))


def evidence_of(runs: Sequence[Run], studies: Sequence[Study]) -> Evidence:
    """What was completed, newest first."""
    return Evidence(
        sorted((run for run in runs if run.state == "done"), key=lambda run: (-run.at, -run.id)),
        sorted((one for one in studies if one.state == "done"), key=lambda one: (-one.at, -one.id)),
    )


def source(of: Run | Study) -> str:
    return f"run {of.id}" if isinstance(of, Run) else f"study {of.id}"


def rate_of(row: Measurement) -> Interval | None:
    """Texts a second, with the interval of its blocks where there is one."""
    figure = row.figure("texts_per_s")
    if figure is not None and figure.value is not None:
        return Interval(figure.value, figure.low, figure.high)
    if row.texts_per_s is None:
        return None
    of_median = percentile_interval(row.latencies_ms, 0.5)
    if of_median is None or not of_median.low or not of_median.high:
        return Interval(row.texts_per_s, None, None)
    # One client, one text after the other: the rate moves with the median request.
    scale = row.texts_per_s * of_median.estimate
    return Interval(row.texts_per_s, scale / of_median.high, scale / of_median.low)
