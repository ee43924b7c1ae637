"""`models`: what of the model is on disk, and fetching, checking and removing it."""

from __future__ import annotations

from typing import Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine
from embedctl.cli.jobs import follow
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, emit_table, say
from embedctl.errors import HubError, UsageError
from embedctl.format import ABSENT, format_bytes
from embedctl.records import FileState, ModelStatus

models = typer.Typer(
    help="The model's files: list, download, verify, remove, path.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models, name="models")


@models.command("list")
def list_files(
    offline: Annotated[bool, typer.Option("--offline", help="Ask the disk alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Each needed file with its size and what is on disk."""
    with engine() as opened:
        status = opened.model(online=not offline)
    _show(status, as_json)


@models.command()
def download(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be fetched.")] = False,
    ollama: Annotated[bool, typer.Option("--ollama", help="Have Ollama pull its copy instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch what is missing and verify it; goes on where it was cut off."""
    with engine() as opened:
        if dry_run:
            if ollama:
                raise UsageError(
                    "--dry-run does not go with --ollama",
                    why="Ollama tells no sizes beforehand",
                    remedy="leave one of the two out",
                )
            _show(opened.model(), as_json)
            return
        if ollama:
            pulled = follow(opened.pull())
            if as_json:
                emit_json("backend", pulled)
            else:
                say(f"Ollama has {pulled.model}")
            return
        status: ModelStatus = follow(opened.download())
    if as_json:
        emit_json("model", status)
    else:
        emit(status.folder or "")


@models.command()
def verify(as_json: JsonOption = False) -> None:
    """Hash every file; exit code 1 if one is damaged or missing."""
    with engine() as opened:
        status: ModelStatus = follow(opened.verify())
    _show(status, as_json)
    if not status.complete or any(file.state is FileState.DAMAGED for file in status.files):
        raise typer.Exit(EXIT_NO)


@models.command()
def remove(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is there.")] = False,
) -> None:
    """Delete this model's files from the cache."""
    with engine() as opened:
        status = opened.model(online=False)
        on_disk = sum(file.on_disk for file in status.files)
        if dry_run:
            emit(f"{format_bytes(on_disk)} in {status.folder or ABSENT}")
            return
        if not yes and not typer.confirm(f"Delete {format_bytes(on_disk)} of {status.repo}?", err=True):
            raise typer.Exit(EXIT_NO)
        freed: int = follow(opened.remove_model())
    say(f"{format_bytes(freed)} freed")


@models.command()
def path() -> None:
    """The folder of the model's files; exit code 1 if they are not all there."""
    with engine() as opened:
        try:
            status = opened.model(online=False)
        except HubError as error:
            say(error.what)
            raise typer.Exit(EXIT_NO) from error
    if not status.complete or status.folder is None:
        say(f"{status.repo} is not complete; `embedctl models download` fetches it")
        raise typer.Exit(EXIT_NO)
    emit(status.folder)


def _show(status: ModelStatus, as_json: bool) -> None:
    if as_json:
        emit_json("model", status)
        return
    emit(f"{status.repo}@{status.revision or ABSENT}")
    emit_table(
        ("file", "size", "on disk", "state"),
        [
            (file.path, format_bytes(file.size), format_bytes(file.on_disk), file.state.value)
            for file in status.files
        ],
        right=frozenset({"size", "on disk"}),
    )
    emit(
        f"{format_bytes(status.total_bytes)} in all, {format_bytes(status.missing_bytes)} missing, "
        f"{format_bytes(status.free_bytes)} free"
    )
    if status.detail:
        say(status.detail)
