"""`check`: is it safe to switch?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.check_text import show_check
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit_json, say
from embedctl.cli.studies import EXIT_UNDECIDED
from embedctl.errors import UsageError
from embedctl.format import format_moment
from embedctl.records import CheckReport, Outcome, Study
from embedctl.study_data import check_report, of_both
from embedctl.text_files import texts_of

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade


@app.command()
def check(
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Check only this one, by itself.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="Your own texts besides the built-in ones: one a line, or .jsonl."),
    ] = None,
    if_changed: Annotated[
        bool,
        typer.Option(
            "--if-changed",
            help="Only if Ollama, a model, the driver, a library or a setting has changed since the last "
            "check; otherwise that one's answer and exit code.",
        ),
    ] = False,
    last: Annotated[bool, typer.Option("--last", help="Show the last check of both; run none.")] = False,
    allow_limits: Annotated[
        bool, typer.Option("--allow-limits", help="Exit code 0 for “safe with limits”, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Is it safe to switch? Check each backend by itself, then one against the other.

    Exit code 0: safe; with --backend: nothing wrong with it. 1: not safe, or safe with limits. 2: undecided,
    or it could not be done.
    """
    if (last or if_changed) and (queries is not None or backend is not None):
        raise UsageError(
            "--last and --if-changed go by the last check of both backends",
            remedy="leave out --queries and --backend",
        )
    texts = texts_of(queries) if queries is not None else None
    with engine(sampling=not last, recording=not last) as opened:
        study = _last(opened) if last else _unchanged(opened) if if_changed else None
        if study is None:
            opened.refresh()
            only = [backend] if backend is not None else None
            name = queries.name if queries is not None else ""
            study = follow(opened.check(backends=only, texts=texts, texts_name=name))
    report = check_report(study)
    if as_json:
        emit_json("study", study)
    else:
        show_check(study, report)
    if code := _exit_code(report, alone=backend is not None, allow_limits=allow_limits):
        raise typer.Exit(code)


def _last(opened: EngineFacade) -> Study:
    found = of_both(opened.studies("check"))
    if found is None:
        raise UsageError("There was no check of both backends yet", remedy="`embedctl check` makes one")
    return opened.study(found.id)


def _unchanged(opened: EngineFacade) -> Study | None:
    """The last check, if its answer still stands; what has changed is told."""
    changes = opened.check_changes()
    if changes is None:
        say("no check yet that came to an answer")
        return None
    if changes:
        for change in changes:
            say(f"changed: {change}")
        return None
    study = _last(opened)
    say(f"nothing has changed since check {study.id} of {format_moment(study.at)}")
    return study


def _exit_code(report: CheckReport, *, alone: bool, allow_limits: bool) -> int:
    outcomes = {row.outcome for row in report.rows}
    if report.verdict == "not safe":
        return EXIT_NO
    if report.verdict == "undecided" and (not alone or Outcome.UNKNOWN in outcomes):
        return EXIT_UNDECIDED
    return EXIT_NO if Outcome.LIMIT in outcomes and not allow_limits else 0
