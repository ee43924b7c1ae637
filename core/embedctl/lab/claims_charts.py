"""The figures behind the claims that are better seen than read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from embedctl.lab.claims_evidence import BATCH, NATIVE, OLLAMA, ONE_TEXT, Evidence, rate_of
from embedctl.lab.energy import SWEEP
from embedctl.records import ChartSeries, ClaimChart, Interval

_POINTS: Final = 120
"""Of a cumulative curve."""


def charts(shown: Evidence) -> tuple[ClaimChart, ...]:
    """Those that the evidence allows."""
    return tuple(
        chart
        for chart in (_ratios(shown), _sweep(shown), _latency(shown), _quality(shown), _cosines(shown))
        if chart is not None
    ) + tuple(_coexist(shown))


def _ratios(shown: Evidence) -> ClaimChart | None:
    rows = [
        ("one text", 3.0, 5.0, shown.ratio(ONE_TEXT)),
        ("batch of 32", 2.5, 2.5, shown.ratio(BATCH)),
        ("batch against one by one", 16.0, 28.0, shown.across((OLLAMA, ONE_TEXT), (NATIVE, BATCH), rate_of)),
    ]
    seen = [
        (name, low, high, found.value)
        for name, low, high, found in rows
        if found is not None and not found.barred
    ]
    if not seen:
        return None
    places = tuple(float(place) for place in range(len(seen)))
    claimed = ChartSeries(
        "claimed", places, tuple((low + high) / 2 for _, low, high, _ in seen),
        tuple(low for _, low, _, _ in seen), tuple(high for _, _, high, _ in seen),
    )  # fmt: skip
    return ClaimChart(
        "How many times as fast native is", "dots", "", "times",
        (claimed, _dots("measured", places, [value for *_, value in seen])),
        tuple(name for name, *_ in seen), "bars: what was claimed, and 95 % intervals of what was measured",
    )  # fmt: skip


def _sweep(shown: Evidence) -> ClaimChart | None:
    for run in shown.runs:
        series = []
        for backend in run.backends:
            rates = [
                (float(size), rate)
                for size in SWEEP
                for row in run.measurements
                if (row.backend, row.shape) == (backend, f"batch of {size}")
                and (rate := rate_of(row)) is not None
            ]
            if len(rates) > 1:
                series.append(_dots(backend, tuple(x for x, _ in rates), [rate for _, rate in rates]))
        if series:
            return ClaimChart(
                f"Throughput by batch size, run {run.id}",
                "lines",
                "texts in a batch",
                "texts/s",
                tuple(series),
            )
    return None


def _latency(shown: Evidence) -> ClaimChart | None:
    for run in shown.runs:
        series = [
            _steps(row.backend, row.latencies_ms)
            for row in run.measurements
            if row.shape == ONE_TEXT and row.kind == "closed loop" and len(row.latencies_ms) > 1
        ]
        if series:
            title = f"Latency of one text, run {run.id}"
            return ClaimChart(title, "steps", "ms", "share of requests", tuple(series))
    return None


def _quality(shown: Evidence) -> ClaimChart | None:
    for report, source in shown.qualities():
        labels = tuple(one.name for one in report.sets)
        series = tuple(
            _dots(
                variant.name,
                tuple(float(labels.index(one.set)) for one in report.scores if one.variant == variant.name),
                [one.ndcg for one in report.scores if one.variant == variant.name],
            )
            for variant in report.variants
        )
        return ClaimChart(f"NDCG@10 by retrieval set, {source}", "dots", "", "NDCG@10", series, labels)
    return None


def _cosines(shown: Evidence) -> ClaimChart | None:
    for report, source in shown.checks():
        if len(report.cosines) > 1:
            series = (_steps(" and ".join(report.backends), report.cosines),)
            title = f"Cosine of the two backends' vectors, text by text, {source}"
            return ClaimChart(title, "steps", "cosine", "share of texts", series)
    return None


def _coexist(shown: Evidence) -> Iterator[ClaimChart]:
    for report, source in shown.coexistences():
        for row in report.rows:
            if row.latencies_alone_ms and row.latencies_together_ms:
                series = (
                    _steps("alone", row.latencies_alone_ms),
                    _steps(f"beside {report.model}", row.latencies_together_ms),
                )
                title = f"Embedding latency of {row.backend} beside a language model, {source}"
                yield ClaimChart(title, "steps", "ms", "share of requests", series)
        return


def _dots(name: str, x: Sequence[float], values: Sequence[Interval]) -> ChartSeries:
    return ChartSeries(
        name, tuple(x), tuple(one.estimate for one in values),
        tuple(one.low for one in values), tuple(one.high for one in values),
    )  # fmt: skip


def _steps(name: str, values: Sequence[float]) -> ChartSeries:
    """The cumulative share, thinned to what a picture shows; both ends stay."""
    ordered = sorted(values)
    last = len(ordered) - 1
    places = sorted({round(number * last / (_POINTS - 1)) for number in range(_POINTS)})
    return ChartSeries(
        name,
        tuple(float(ordered[place]) for place in places),
        tuple((place + 1) / len(ordered) for place in places),
    )
