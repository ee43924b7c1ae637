"""Changing one setting in the TOML file without losing what people wrote around it."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from embedctl.errors import SettingsError
from embedctl.settings import Settings, check_file


def set_value(file: Path, key: str, value: str) -> None:
    """Set `section.name` to a value written as in TOML; `none` takes the line out. Checked before writing.

    Raises:
        SettingsError: There is no such setting, the value is not allowed, or the file cannot be written;
            the file is as before.
    """
    _replace(file, changed_text(file, key, value))


def changed_text(file: Path, key: str, value: str) -> str:
    """The file's text as `set_value` would write it; nothing is written.

    Raises:
        SettingsError: There is no such setting, the value is not allowed, or the file cannot be read.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    section, _, name = key.partition(".")
    if section not in Settings.model_fields or not name:
        raise SettingsError(
            f"There is no setting {key!r}",
            why="a setting is written section.name; the sections are " + ", ".join(Settings.model_fields),
            remedy="`embedctl config show` lists all settings",
        )
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.is_file() else tomlkit.document()
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be read", why=error.strerror or str(error), remedy="check the file's rights"
        ) from error
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{file} is not valid TOML", why=str(error), remedy="correct that line first"
        ) from error
    if section not in document:
        document.add(section, tomlkit.table())
    table: Any = document[section]
    if not isinstance(table, MutableMapping):
        raise SettingsError(
            f"{file}: {section} is no section",
            why=f"the file says {section} = {table!r}",
            remedy=f"replace that line with [{section}]",
        )
    if value == "none":
        table.pop(name, None)
    else:
        table[name] = _parsed(value)
    check_file(document.unwrap(), file)
    return tomlkit.dumps(document)


def _parsed(value: str) -> Any:
    """`8` is a number and `true` a truth value, as in TOML; what is no TOML is text and needs no quotes."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _replace(file: Path, text: str) -> None:
    """Write beside and rename: a crash leaves the old file or the new one, never half of one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(beside).replace(file)
    except OSError as error:
        raise SettingsError(
            f"{file} cannot be written", why=error.strerror or str(error), remedy="check the folder's rights"
        ) from error
