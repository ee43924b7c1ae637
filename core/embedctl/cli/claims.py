"""`claims` and `report`: the design document's claims against this machine, and a decision record."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import app, engine
from embedctl.cli.output import SCHEMA_VERSION, emit, plain, say
from embedctl.errors import UsageError

if TYPE_CHECKING:
    from embedctl.records import ClaimsReport

report = typer.Typer(
    help="Documents made of what was measured here.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(report, name="report")

OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write it to this file, not to stdout.")
]


class Format(StrEnum):
    MD = "md"
    HTML = "html"
    JSON = "json"


@app.command()
def claims(
    format_: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="Without it: by the ending of -o, else md."),
    ] = None,
    output: OutputOption = None,
) -> None:
    """The design document's claims, each with what was measured here, its interval and a verdict.

    Measures nothing: it goes by the newest runs and studies, and says what would measure the rest.
    """
    chosen = format_ or _by_ending(output)
    with engine() as opened:
        found = opened.claims()
    _write(_as_text(found, chosen), output)
    if output is not None:
        from embedctl.report.words import counts

        say(f"{output}: {counts(found)}")


@report.command()
def adr(output: OutputOption = None) -> None:
    """A decision record (Markdown) on the active backend, filled from this machine's runs and studies."""
    from embedctl.report.adr import Subject, decision_record
    from embedctl.study_data import check_report, of_both

    with engine() as opened:
        opened.refresh()
        status = opened.status()
        newest = of_both(opened.studies("check"))
        last_check = opened.study(newest.id) if newest is not None else None
        subject = Subject(
            claims=opened.claims(),
            status=status,
            settings=opened.settings,
            check=check_report(last_check) if last_check else None,
            check_name=f"study {last_check.id}" if last_check else "",
            studies=tuple(found[0] for kind in ("quality", "coexist") if (found := opened.studies(kind, 1))),
        )
    _write(decision_record(subject), output)
    if output is not None:
        say(f"{output} is written")


def _by_ending(output: Path | None) -> Format:
    ending = output.suffix.lower().lstrip(".") if output is not None else ""
    return {"html": Format.HTML, "htm": Format.HTML, "json": Format.JSON}.get(ending, Format.MD)


def _as_text(found: ClaimsReport, chosen: Format) -> str:
    if chosen is Format.JSON:
        import json

        document = {"schema_version": SCHEMA_VERSION, "kind": "claims", "data": plain(found)}
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    if chosen is Format.HTML:
        from embedctl.report.html import claims_html

        return claims_html(found)
    from embedctl.report.markdown import claims_markdown

    return claims_markdown(found)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        emit(text.rstrip("\n"))
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{output} cannot be written",
            why=error.strerror or str(error),
            remedy="choose another file or folder",
        ) from error
