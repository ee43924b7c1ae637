"""`tune`: which batch size is best for the loaded model on this device."""

from __future__ import annotations

from embedctl.cli.app import app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit_json, emit_table, say
from embedctl.records import TuneReport


@app.command()
def tune(as_json: JsonOption = False) -> None:
    """Measure how many tokens a batch of the native backend should have; used from its next load on.

    Takes a minute or so, longer on a CPU. Best while nothing else runs: requests wait during a trial.
    """
    with engine() as opened:
        report: TuneReport = follow(opened.tune())
    if as_json:
        emit_json("tune", report)
        return
    emit_table(
        ("tokens a batch", "tokens/s", ""),
        [(f"{budget:,}", f"{rate:,.0f}", _mark(report, budget)) for budget, rate in report.rates],
        right=frozenset({"tokens a batch", "tokens/s"}),
    )
    say(f"{report.device}: batches of {report.token_budget:,} tokens from the next load on")


def _mark(report: TuneReport, budget: int) -> str:
    marks = ["best" if budget == report.token_budget else "", "now" if budget == report.before else ""]
    return ", ".join(filter(None, marks))
