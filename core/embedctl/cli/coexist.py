"""`coexist`: do a language model and an embedding backend fit side by side?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, emit_table, filled
from embedctl.cli.studies import EXIT_UNDECIDED, last_study
from embedctl.format import ABSENT, format_bytes, format_duration, format_moment, format_ms, format_number
from embedctl.study_data import coexist_report

if TYPE_CHECKING:
    from embedctl.records import Coexistence, CoexistReport, Figure, Interval, Study


@app.command()
def coexist(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Ollama tag of the language model; without it the smallest."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Only this one beside it; may be repeated.")
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Each has the model alone, the backend alone, and both.")
    ] = 6,
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, max=600, help="Length of a block.")] = 10.0,
    least_kept: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of its tokens/s that the model must keep.")
    ] = 0.8,
    most_slower: Annotated[
        float, typer.Option(min=1.0, help="What embedding p99 may become, times what it was alone.")
    ] = 2.0,
    last: Annotated[bool, typer.Option("--last", help="Show the last one; measure nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """A language model generates while a backend embeds: what does each lose? Does the memory suffice?

    Exit code 0: they fit side by side. 1: they disturb each other, or do not fit. 2: undecided, or it could
    not be done.
    """
    with engine(sampling=not last, recording=not last) as opened:
        if last:
            study = last_study(
                opened, "coexist", missing="That was not measured yet", remedy="`embedctl coexist` does it"
            )
        else:
            opened.refresh()
            study = follow(
                opened.coexist(
                    backends=backend or None, model=model, rounds=rounds, block_seconds=seconds,
                    least_kept=least_kept, most_slower=most_slower,
                )
            )  # fmt: skip
    report = coexist_report(study)
    if as_json:
        emit_json("study", study)
    else:
        show_coexist(study, report)
    if report.verdict != "fit side by side":
        raise typer.Exit(EXIT_UNDECIDED if report.verdict == "undecided" else EXIT_NO)


def show_coexist(study: Study, report: CoexistReport) -> None:
    """Write the answer first, then what it rests on."""
    names = " and ".join(row.backend for row in report.rows)
    emit(f"{report.verdict.upper()}: {report.model}{' (simulated)' * report.simulated} beside {names}")
    for reason in report.reasons:
        emit(f"  - {reason}")
    for row in report.rows:
        emit("")
        emit(f"{row.backend}: {row.verdict}")
        emit_table(("", "alone", "together", "together / alone", "95 %"), _cells(row))
        floor = format_bytes(row.memory_floor)
        left = format_bytes(row.least_memory.value)
        emit(f"  least memory left {left}, {floor} are kept free [{row.least_memory.note}]")
        if starred := row.p99_alone.note or row.p99_together.note:
            emit(f"  * {starred}")
        if row.errors:
            emit(f"  {row.errors} requests failed, or were not answered in time")
    emit("")
    for note in report.notes:
        emit(filled(note))
    took = f"study {study.id}, {format_moment(study.at)}, took {format_duration(study.seconds)}"
    kept, slower = report.limits["tokens_kept"], report.limits["p99_ratio"]
    judged_by = f"tokens/s kept {kept:.0%} or more, embedding p99 {slower:g}× or less, the memory floor"
    emit(filled(f"{took}; judged by: {judged_by}"))


def _cells(row: Coexistence) -> list[tuple[str, ...]]:
    slower = None
    if row.p50_alone_ms and row.p50_together_ms:
        slower = row.p50_together_ms / row.p50_alone_ms
    return [
        (
            "  tokens/s",
            format_number(row.tokens_alone.estimate if row.tokens_alone else None),
            format_number(row.tokens_together.estimate if row.tokens_together else None),
            ABSENT if row.tokens_kept is None else f"{row.tokens_kept.estimate:.1%}",
            _ends(row.tokens_kept, ".1%"),
        ),
        (
            f"  embedding p50 at {row.offered_per_s:.1f} texts/s",
            format_ms(row.p50_alone_ms),
            format_ms(row.p50_together_ms),
            ABSENT if slower is None else f"{slower:.2f}×",
            "",
        ),
        (
            "  embedding p99",
            _noted(row.p99_alone),
            _noted(row.p99_together),
            ABSENT if row.p99_ratio is None else f"{row.p99_ratio.estimate:.2f}×",
            _ends(row.p99_ratio, ".2f"),
        ),
    ]


def _noted(figure: Figure) -> str:
    return format_ms(figure.value) + ("*" if figure.note else "")


def _ends(interval: Interval | None, form: str) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return "n too small"
    return f"{interval.low:{form}} to {interval.high:{form}}"
