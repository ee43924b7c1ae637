"""`trial`: try the other backend on live requests before the switch."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, running_engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, say
from embedctl.format import format_count, format_duration, format_ms
from embedctl.records import Trial, TrialReport

trial = typer.Typer(
    help="Try the other backend on live requests: start, status, stop.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(trial, name="trial")

_NEEDS = "A trial needs live requests"


@trial.command()
def start(
    candidate: Annotated[
        str | None, typer.Argument(help="native or ollama; default: the one that is not active")
    ] = None,
    shadow: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the requests that the candidate embeds too, 0 to 1."),
    ] = 0.0,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the requests that the candidate answers, 0 to 1.")
    ] = 0.0,
    advance: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="After so many compared requests without a fault, share 5 %, then 50 %, then all; at a "
            "fault nothing any more.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load the candidate beside the active backend and let it see a share of the live requests.

    Started again with other shares the trial goes on and keeps its figures. Without shares: --shadow 0.1.
    """
    if shadow == 0 and (share == 0 or advance is not None):
        shadow = 0.1
    with running_engine(_NEEDS) as engine:
        status = engine.status()
        others = [backend.name for backend in status.backends if backend.name != status.active]
        wanted = Trial(candidate or others[0], shadow, share, advance)
        report: TrialReport = follow(engine.start_trial(wanted))
    _show(report, as_json)


@trial.command()
def status(as_json: JsonOption = False) -> None:
    """What the running trial has shown so far; exit code 1 without one."""
    with running_engine(_NEEDS) as engine:
        report = engine.trial()
    _show(report, as_json)
    if report is None:
        raise typer.Exit(EXIT_NO)


@trial.command()
def stop(as_json: JsonOption = False) -> None:
    """End the trial: the active backend answers everything again. The candidate stays loaded."""
    with running_engine(_NEEDS) as engine:
        report = engine.stop_trial()
    _show(report, as_json)


def _show(report: TrialReport | None, as_json: bool) -> None:
    if report is None:
        say("no trial runs")
    if as_json:
        emit_json("trial", report)
        return
    if report is None:
        return
    trial, active = report.trial, report.active
    lasted = format_duration(max(0.0, time.time() - report.since))
    emit(
        f"{trial.candidate} on trial beside {active} for {lasted}: "
        f"{trial.share:.4g} answered, {trial.shadow:.4g} of the rest shadowed"
    )
    if report.rolled_back:
        emit(f"  rolled back     {report.rolled_back}")
    elif trial.advance_after is not None and trial.share < 1:
        emit(
            f"  goes on         after {format_count(trial.advance_after)} compared requests without a fault, "
            f"{format_count(report.step_compared)} so far"
        )
    emit(f"  answered by it  {format_count(report.shared)} requests")
    emit(
        f"  shadowed        {format_count(report.shadowed)} requests, {format_count(report.compared)} texts "
        f"compared, {format_count(report.dropped)} requests dropped because it was busy"
    )
    emit(f"  failed          {format_count(report.failed)}")
    emit(
        f"  cosine          least {_cosine(report.least_cosine)}, 1st percentile "
        f"{_cosine(report.low_cosine)}, median {_cosine(report.median_cosine)}"
    )
    for name, p50, p95 in (
        (active, report.active_p50_ms, report.active_p95_ms),
        (trial.candidate, report.candidate_p50_ms, report.candidate_p95_ms),
    ):
        emit(f"  {name:<14}  p50 {format_ms(p50)}, p95 {format_ms(p95)}")


def _cosine(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.5f}"
