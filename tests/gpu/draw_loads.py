"""Draw how a run's latencies grow with its Poisson load: p50, p95 and p99 over requests per second.

    python -m tests.gpu.draw_loads BUNDLE.json.gz PICTURE.svg

BUNDLE is what `embedctl bench export` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

from embedctl.lab.bundles import import_run
from embedctl.records import ChartSeries, ClaimChart, Run
from embedctl.report.svg import HEIGHT, WIDTH, chart_svg

_PAPER = (
    "<style>text{fill:#222;font:12px sans-serif}.g{stroke:#ddd}.a{stroke:#888}.t{fill:#555}</style>"
    f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
)
"""A page of its own: what the reports give their charts."""


def main() -> None:
    run = import_run(Path(sys.argv[1]))
    drawing = chart_svg(loads(run))
    Path(sys.argv[2]).write_text(drawing.replace("</title>", f"</title>{_PAPER}", 1), encoding="utf-8")


def loads(run: Run) -> ClaimChart:
    """Of the first backend."""
    rows = [row for row in run.measurements if row.kind == "open loop" and row.backend == run.backends[0]]
    rates = [offered.value or 0.0 for row in rows if (offered := row.figure("offered_per_s"))]
    series = []
    for name in ("p50", "p95", "p99"):
        found = [figure for row in rows if (figure := row.figure(f"{name}_ms"))]
        series.append(
            ChartSeries(
                name,
                tuple(rates),
                tuple(figure.value or 0.0 for figure in found),
                tuple(figure.low for figure in found),
                tuple(figure.high for figure in found),
            )
        )
    return ClaimChart(
        "Latency from the intended send time, single queries under Poisson load",
        "lines",
        "queries per second offered",
        "ms",
        tuple(series),
    )


if __name__ == "__main__":
    main()
