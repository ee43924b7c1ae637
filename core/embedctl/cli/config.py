"""`config`: see and change the settings."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from embedctl.cli.app import app, is_demo
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, say
from embedctl.format import site_of, without_password
from embedctl.paths import Paths

config = typer.Typer(help="Settings: show, path, set.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config, name="config")


@config.command()
def show(as_json: JsonOption = False) -> None:
    """Every setting with its value, and what it means, as TOML."""
    from embedctl.settings import Settings, load_settings  # pydantic: not for the help of other commands

    settings = load_settings(Paths.find(demo=is_demo()))
    if settings.ollama.host is not None:
        safe = settings.ollama.model_copy(update={"host": without_password(settings.ollama.host)})
        settings = settings.model_copy(update={"ollama": safe})
    if settings.alerts.webhook is not None:
        safe_alerts = settings.alerts.model_copy(update={"webhook": site_of(settings.alerts.webhook)})
        settings = settings.model_copy(update={"alerts": safe_alerts})
    if as_json:
        emit_json("settings", settings.model_dump())
        return
    for section in Settings.model_fields:
        values = getattr(settings, section)
        emit(f"[{section}]")
        for name, field in type(values).model_fields.items():
            value = getattr(values, name)
            shown = f"# {name} is not set" if value is None else f"{name} = {_toml(value)}"
            emit(f"{shown:<48} # {field.description}" if field.description else shown)
        emit("")


@config.command()
def path() -> None:
    """Where the settings file lies (it need not exist)."""
    emit(str(Paths.find(demo=is_demo()).config_file))


@config.command("set")
def set_(
    key: Annotated[str, typer.Argument(help="section.name, such as native.dtype")],
    value: Annotated[str, typer.Argument(help="As in TOML; text needs no quotes; none takes it out.")],
) -> None:
    """Change one setting in the file; comments there are kept."""
    from embedctl.settings_file import set_value

    file = Paths.find(demo=is_demo()).config_file
    set_value(file, key, value)
    shown = site_of(value) if key == "alerts.webhook" else without_password(value)
    say(f"{key} = {shown} in {file}")
    variable = f"EMBEDCTL_{key.replace('.', '__').upper()}"
    if os.environ.get(variable):
        say(f"{variable} is set and stands over it")


def _toml(value: object) -> str:
    if isinstance(value, dict):
        entries = ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    return json.dumps(value, ensure_ascii=False)  # TOML writes texts and numbers as JSON does
