"""What the stored runs and studies show, as the claims need it: the newest that speaks of a thing counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Seen:
    """A figure, and where it was seen."""

    value: Interval
    source: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Runs and studies, newest first."""

    runs: Sequence[Run]
    studies: Sequence[Study]

    def latency_ms(self, backend: BackendName, shape: str) -> Seen | None:
        """The median latency of a request."""
        for run, row in self._rows(backend, shape):
            found = percentile_interval(row.latencies_ms, 0.5)
            if found is not None:
                return Seen(found, source(run))
        return None

    def texts_per_s(self, backend: BackendName, shape: str) -> Seen | None:
        for run, row in self._rows(backend, shape):
            if (rate := rate_of(row)) is not None:
                return Seen(rate, source(run))
        return None

    def ratio(self, shape: str) -> Seen | None:
        """Times as fast as Ollama the native backend is, paired within one run."""
        for run in self.runs:
            for one in run.comparisons:
                if (one.shape, one.baseline, one.candidate) == (shape, OLLAMA, NATIVE):
                    return Seen(one.ratio, source(run))
        return None

    def across(
        self,
        baseline: tuple[BackendName, str],
        candidate: tuple[BackendName, str],
        figure: Callable[[Measurement], Interval | None],
    ) -> Seen | None:
        """The candidate's figure over the baseline's, of two shapes of the newest run that has both."""
        for run in self.runs:
            a, b = (
                next((figure(row) for row in run.measurements if (row.backend, row.shape) == wanted), None)
                for wanted in (baseline, candidate)
            )
            if a is not None and b is not None and (ratio := unpaired_ratio(a, b)) is not None:
                return Seen(ratio, source(run))
        return None

    def peak_bytes(self, backend: BackendName) -> tuple[int, str, str] | None:
        """The most that a backend's processes held in the newest run, where that was read, and which run."""
        for run in self.runs:
            held = [
                (row.peak_bytes, row.peak_source)
                for row in run.measurements
                if row.backend == backend and row.peak_bytes
            ]
            if held:
                return (*max(held), source(run))
        return None

    def checks(self) -> Iterator[tuple[CheckReport, str]]:
        return ((check_report(one), source(one)) for one in self.studies if one.kind == "check")

    def qualities(self) -> Iterator[tuple[QualityReport, str]]:
        return ((quality_report(one), source(one)) for one in self.studies if one.kind == "quality")

    def coexistences(self) -> Iterator[tuple[CoexistReport, str]]:
        return ((coexist_report(one), source(one)) for one in self.studies if one.kind == "coexist")

    def _rows(self, backend: BackendName, shape: str) -> Iterator[tuple[Run, Measurement]]:
        for run in self.runs:
            for row in run.measurements:
                if (row.backend, row.shape) == (backend, shape) and row.latencies_ms:
                    yield run, row


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
