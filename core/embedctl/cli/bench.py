"""`bench`: measure the backends, look at what was measured, and lay runs side by side."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, emit_table, say
from embedctl.errors import UsageError
from embedctl.format import format_duration, format_moment, format_ms, format_number
from embedctl.headlines import judged_by, times_as, told_verdict
from embedctl.records import ConditionOutcome, Run, RunComparison, RunDelta
from embedctl.run_tables import Table, changes, changes_notes, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from embedctl.engine.facade import EngineFacade

bench = typer.Typer(
    help="Benchmarks: run, resume, list, show, compare, carry about.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bench, name="bench")

_NUMBERS = frozenset({"A p50", "B p50", "B/A", "A texts/s", "B texts/s", "B/A texts/s"})


@bench.command("run")
def run_now(
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Measure only this one; may be repeated.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(help="How much: quick (a minute), standard (ten minutes) or thorough (hours)."),
    ] = "quick",
    minutes: Annotated[
        float | None,
        typer.Option(help="For the whole, in place of the preset's time; what takes longer is shortened."),
    ] = None,
    title: Annotated[str, typer.Option(help="A few words to find the run by.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure both backends side by side and keep the run. Ctrl-C keeps what was complete."""
    with engine(sampling=True, recording=True) as opened:
        opened.refresh()
        measured: Run = follow(
            opened.benchmark(backends=backend or None, preset=preset, title=title, minutes=minutes)
        )
    _show(measured, as_json)


@bench.command()
def resume(
    run_id: Annotated[
        int | None, typer.Argument(metavar="[RUN]", help="Without it: the newest run that is not complete.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was cancelled, failed, or lost its process."""
    with engine(sampling=True, recording=True) as opened:
        opened.refresh()
        chosen = run_id if run_id is not None else _newest_incomplete(opened)
        measured: Run = follow(opened.resume_benchmark(chosen))
    _show(measured, as_json)


def _newest_incomplete(opened: EngineFacade) -> int:
    found = next((run.id for run in opened.runs() if run.state != "done"), None)
    if found is None:
        raise UsageError("There is no run to go on with", why="all stored runs are complete")
    return found


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
                run.headline if run.state == "done" else f"{run.state}: {run.headline}",
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


@bench.command("export")
def export_bundle(
    run_id: Annotated[int, typer.Argument(metavar="RUN")],
    file: Annotated[Path, typer.Argument(help="Gzipped JSON with all raw data; replaced if it exists.")],
) -> None:
    """Write a run to a file that another embedctl can import or compare with."""
    from embedctl.lab.bundles import export_run

    with engine() as opened:
        export_run(opened.run(run_id), file)
    say(f"run {run_id} is in {file}")


@bench.command("import")
def import_bundle(
    file: Annotated[Path, typer.Argument(help="What `bench export` wrote.")], as_json: JsonOption = False
) -> None:
    """Keep a run from a file, under a new number."""
    from embedctl.lab.bundles import import_run

    read = import_run(file)
    with engine() as opened:
        kept = opened.add_run(read)
    say(f"{file} is run {kept.id} now")
    _show(kept, as_json)


@app.command("compare")
@bench.command("compare")
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="A run's number, a file of `bench export`, a study of quality (study:5), or a run with one "
            "beside it (3+study:5).",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    fail_on: Annotated[
        str,
        typer.Option(
            help="Changes that make the exit code 1, such as p95>1.1,texts_per_s<0.95 (B over A) or "
            "ndcg<-0.01 (B less A). [backend:]figure[@shape], > or <, a number; commas between."
        ),
    ] = "",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare even where model, precision or texts differ.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Two runs side by side. Exit code 1 if a condition of --fail-on is met, 2 if their work differs."""
    from embedctl.lab.compare import compare as lay_side_by_side
    from embedctl.lab.thresholds import parse

    parse(fail_on)  # refused before anything is opened
    with engine() as opened:
        first, second = (_find(opened, name) for name in (a, b))
    comparison = lay_side_by_side(first, second, fail_on=fail_on)
    if comparison.conflicts and not anyway:
        raise UsageError(
            "The runs were not compared: they measured different things",
            why="; ".join(comparison.conflicts),
            remedy="choose runs of the same work, or say --anyway",
        )
    if as_json:
        emit_json("run-comparison", comparison)
    else:
        _show_comparison(comparison)
    if any(outcome.outcome == "met" for outcome in comparison.conditions):
        raise typer.Exit(EXIT_NO)


def _find(opened: EngineFacade, name: str) -> Run:
    """A stored run by its number, or one from a file; with a study of quality beside it, or in its place."""
    from embedctl.lab.bundles import import_run
    from embedctl.lab.quality_run import as_run, with_quality

    if study := re.fullmatch(r"(?:(.+)\+)?study:(\d+)", name):
        quality = opened.study(int(study[2]))
        return with_quality(_find(opened, study[1]), quality) if study[1] else as_run(quality)
    if name.isdecimal():
        return opened.run(int(name))
    return import_run(Path(name))


def _show(run: Run, as_json: bool) -> None:
    if as_json:
        emit_json("run", run)
        return
    state = "" if run.state == "done" else f"  ({run.state})"
    emit(f"run {run.id}  {format_moment(run.at)}  {run.preset}  {run.workload}  {run.title}".rstrip() + state)
    for table in tables(run):
        _emit(table)
    if run.comparisons:
        emit("")
        emit_table(
            ("shape", "ratio", "95 % interval", "verdict"),
            [
                (
                    c.shape,
                    times_as(c, f"{c.ratio.estimate:.2f}"),
                    "n too small"
                    if c.ratio.low is None or c.ratio.high is None
                    else f"{c.ratio.low:.2f}–{c.ratio.high:.2f}",
                    told_verdict(c),
                )
                for c in run.comparisons
            ],
        )
        for line in judged_by(run):
            emit(line)
    for note in run.notes:
        say(note)


def _emit(table: Table) -> None:
    emit("")
    emit(table.title)
    emit_table(table.columns, table.rows, right=table.right)
    for note in table.notes:
        emit(note)


def _show_comparison(comparison: RunComparison) -> None:
    for name, run in (("A", comparison.a), ("B", comparison.b)):
        what = "study" if run.preset == "quality" else "run"
        emit(f"{name}: {what} {run.id}  {format_moment(run.at)}  {run.headline}")
    timed = [row for row in comparison.rows if row.a_p50_ms is not None or row.b_p50_ms is not None]
    if timed:
        _show_times(timed)
    if comparison.figures and (table := changes(comparison.figures)) is not None:
        _emit(table)
    elif comparison.figures:
        emit("No figure changed by more than what matters, as far as that can be said.")
        for note in changes_notes(comparison.figures):
            emit(note)
    for outcome in comparison.conditions:
        emit(_judged(outcome))
    for note in comparison.notes:
        say(note)
    for difference in comparison.differences:
        say(f"differs: {difference}")


def _show_times(rows: Sequence[RunDelta]) -> None:
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
            for row in rows
        ],
        right=_NUMBERS,
    )


def _judged(outcome: ConditionOutcome) -> str:
    delta, change = outcome.delta, outcome.delta.change
    value = "n/a"
    if change is not None:
        show = format_number if delta.relative else _signed
        value = show(change.estimate)
        if change.low is not None and change.high is not None:
            value += f" ({show(change.low)}{'–' if delta.relative else ' to '}{show(change.high)})"
        else:
            value += " (n too small for an interval)"
    return f"{outcome.text}: {outcome.outcome}, {delta.backend} {delta.shape} {value}"


def _signed(value: float) -> str:
    return f"{value:+.4f}"
