"""`bench`: measure the backends, and look at what was measured."""

from __future__ import annotations

from typing import Annotated

import typer

from embedctl.cli.app import app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, emit_table, say
from embedctl.format import ABSENT, format_bytes, format_duration, format_moment, format_ms, format_number
from embedctl.records import Measurement, Run, RunComparison

bench = typer.Typer(help="Benchmarks: run, list, show, compare.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")

_NUMBERS = frozenset({"p50", "p95", "texts/s", "tokens/s", "peak", "n", "errors", "A p50", "B p50", "B/A"})


@bench.command("run")
def run_now(
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Measure only this one; may be repeated.")
    ] = None,
    preset: Annotated[str, typer.Option(help="How much is measured.")] = "quick",
    title: Annotated[str, typer.Option(help="A few words to find the run by.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure both backends side by side and keep the run."""
    with engine(sampling=True, recording=True) as opened:
        opened.refresh()
        measured: Run = follow(opened.benchmark(backends=backend or None, preset=preset, title=title))
    _show(measured, as_json)


@bench.command("list")
def list_runs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """The stored runs, newest first."""
    with engine() as opened:
        runs = opened.runs(limit)
    if as_json:
        emit_json("runs", runs)
        return
    if not runs:
        say("no runs yet; `embedctl bench run` makes one")
        return
    emit_table(
        ("run", "when", "preset", "took", "headline", "title"),
        [
            (
                str(run.id),
                format_moment(run.at),
                run.preset,
                format_duration(run.seconds),
                run.headline,
                run.title,
            )
            for run in runs
        ],
        right=frozenset({"run", "took"}),
    )


@bench.command()
def show(run_id: Annotated[int, typer.Argument(metavar="RUN")], as_json: JsonOption = False) -> None:
    """One run: every row, the ratios with their intervals, the fingerprints."""
    with engine() as opened:
        found = opened.run(run_id)
    _show(found, as_json)


@bench.command()
def compare(
    a: Annotated[int, typer.Argument(metavar="A")],
    b: Annotated[int, typer.Argument(metavar="B")],
    as_json: JsonOption = False,
) -> None:
    """Two runs side by side."""
    with engine() as opened:
        comparison = opened.compare_runs(a, b)
    if as_json:
        emit_json("run-comparison", comparison)
    else:
        _show_comparison(comparison)


def _show(run: Run, as_json: bool) -> None:
    if as_json:
        emit_json("run", run)
        return
    emit(f"run {run.id}  {format_moment(run.at)}  {run.preset}  {run.workload}  {run.title}".rstrip())
    emit_table(
        ("shape", "backend", "p50", "p95", "texts/s", "tokens/s", "peak", "n", "errors"),
        [_row(row) for row in run.measurements],
        right=_NUMBERS,
    )
    if any(row.p95_note for row in run.measurements):
        emit("* n too small for p95 to be trusted")
    if run.comparisons:
        emit("")
        emit_table(
            ("shape", "ratio", "95 % interval", "verdict"),
            [
                (
                    c.shape,
                    f"{c.candidate} {c.ratio.estimate:.2f}× as fast as {c.baseline}",
                    ABSENT
                    if c.ratio.low is None or c.ratio.high is None
                    else f"{c.ratio.low:.2f}–{c.ratio.high:.2f}",
                    c.verdict,
                )
                for c in run.comparisons
            ],
        )
    for note in run.notes:
        say(note)


def _row(row: Measurement) -> tuple[str, ...]:
    return (
        row.shape,
        row.backend,
        format_ms(row.p50_ms),
        format_ms(row.p95_ms) + ("*" if row.p95_note else ""),
        format_number(row.texts_per_s),
        format_number(row.tokens_per_s),
        format_bytes(row.peak_bytes),
        str(row.requests),
        str(row.errors),
    )


def _show_comparison(comparison: RunComparison) -> None:
    for name, run in (("A", comparison.a), ("B", comparison.b)):
        emit(f"{name}: run {run.id}  {format_moment(run.at)}  {run.headline}")
    emit_table(
        ("shape", "backend", "A p50", "B p50", "B/A", "A texts/s", "B texts/s", "B/A texts/s"),
        [
            (
                row.shape,
                row.backend,
                format_ms(row.a_p50_ms),
                format_ms(row.b_p50_ms),
                format_number(row.p50_ratio),
                format_number(row.a_texts_per_s),
                format_number(row.b_texts_per_s),
                format_number(row.texts_per_s_ratio),
            )
            for row in comparison.rows
        ],
        right=_NUMBERS | {"A texts/s", "B texts/s", "B/A texts/s"},
    )
    for difference in comparison.differences:
        say(f"differs: {difference}")
