"""The settings as rows, made from their own schema: value, where it comes from, what is allowed. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from textual.content import Content

from embedctl.format import site_of, without_password
from embedctl_console.keymap import FIXED_KEYS
from embedctl_console.widgets.text import hanging

if TYPE_CHECKING:
    from embedctl.settings import Settings

Source = Literal["default", "file", "variable", "service", "demo"]

AT_ONCE: Final = frozenset({"console.theme", "console.keys", "console.slow_line"})
"""Settings that the console takes up as soon as they are changed."""
_WEBHOOK: Final = "alerts.webhook"
_FLAG: Final = "EMBEDDING_BACKEND"


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting."""

    section: str
    name: str
    value: str
    """As TOML has it; `none` where it is not set."""
    source: Source
    default: str
    description: str
    allowed: str
    """In words: `one of a, b`, `a whole number, 1 to 4096`."""
    next_value: str = ""
    """What the file says, where what runs has another value: it was started before the change."""
    variable: str = ""
    """The variable that decides; empty where none is set."""

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"


def setting_rows(
    now: Settings,
    file_says: Mapping[str, Any],
    fresh: Settings | None,
    variables: Mapping[str, str],
    *,
    foreign: bool = False,
    demo: bool = False,
) -> tuple[SettingRow, ...]:
    """Every setting in the order of the schema.

    Args:
        now: The settings of what runs.
        file_says: The settings file's content.
        fresh: What a start now would use; None where that cannot be told.
        variables: The environment.
        demo: What runs is the demo, which has a model and a server of its own.
        foreign: What runs is on another machine: only `[console]` comes from this machine's file.
    """
    schema = type(now).model_json_schema()
    rows = []
    for section in schema["properties"]:
        values = getattr(now, section)
        fields = schema["$defs"][type(values).__name__]["properties"]
        there = foreign and section != "console"
        for name, field in fields.items():
            value = toml_text(getattr(values, name))
            later = (
                toml_text(getattr(getattr(fresh, section), name))
                if fresh is not None and not there
                else value
            )
            variable = "" if there else _variable(section, name, variables)
            written = file_says.get(section)
            in_file = isinstance(written, Mapping) and name in written
            source: Source = (
                "service" if there else "variable" if variable else "file" if in_file else "default"
            )
            key = f"{section}.{name}"
            if demo and later != value and source == "default":
                source, later = "demo", value
            rows.append(
                SettingRow(
                    section,
                    name,
                    _shown(key, value),
                    source,
                    toml_text(field.get("default")),
                    field.get("description", ""),
                    allowed_words(field),
                    _shown(key, later) if later != value and key not in AT_ONCE else "",
                    variable,
                )
            )
    return tuple(rows)


def toml_text(value: Any) -> str:
    """A value as one types it: text without quotes, lists and tables as TOML writes them."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return json.dumps(value, ensure_ascii=False)


def allowed_words(field: Mapping[str, Any]) -> str:
    """What the schema allows, in words."""
    options = field.get("anyOf", [field])
    words = [_kind(option) for option in options if option.get("type") != "null"]
    if any(option.get("type") == "null" for option in options):
        words.append("none")
    return ", or ".join(words)


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        inner = field.get("items", {})
        return "a list" + (f" of: {', '.join(inner['enum'])}" if "enum" in inner else " of texts")
    names = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "object": "a table",
    }
    words = names.get(field.get("type", ""), "a text")
    low, above = field.get("minimum"), field.get("exclusiveMinimum")
    high = field.get("maximum")
    if low is not None:
        words += f" from {low:g}"
    elif above is not None:
        words += f" above {above:g}"
    return words + (f" to {high:g}" if high is not None else "")


def _variable(section: str, name: str, variables: Mapping[str, str]) -> str:
    own = f"EMBEDCTL_{section}__{name}".upper()
    if variables.get(own):
        return own
    return _FLAG if (section, name) == ("engine", "backend") and variables.get(_FLAG) else ""


def _shown(key: str, value: str) -> str:
    return site_of(value) if key == _WEBHOOK else without_password(value)


def row_cells(row: SettingRow, widths: Sequence[int]) -> tuple[Content, ...]:
    """Name, value, source, and on a wide screen the description."""
    value = Content.assemble((row.value, "$text-muted" if row.source == "default" else "bold"))
    if row.next_value:
        value = Content.assemble(value, (f" → {row.next_value}", "bold $text-warning"))
    source = Content.assemble((row.source, "$text-muted" if row.source == "default" else "$text-accent"))
    name = Content.assemble((f"{row.section}.", "$text-muted"), row.name)
    words = Content(row.description).truncate(widths[-1], ellipsis=True)
    return (name, value.truncate(widths[1], ellipsis=True), source, words)[: len(widths)]


def columns(width: int) -> tuple[tuple[str, int], ...]:
    """Three columns, and the description where there is room for it."""
    fixed = 30 + 2 + 9 + 2 + 2
    if width < 110:
        return (("setting", 30), ("value", max(20, width - fixed - 2)), ("from", 9))
    return (("setting", 30), ("value", 34), ("from", 9), ("what it is", width - fixed - 40))


def about_text(rows: Sequence[SettingRow], file: str, *, restart: str, place: str) -> Content:
    """Where the settings lie, and which of them wait for a restart."""
    line = Content.assemble(("settings file  ", "$text-muted"), file)
    if place:
        line = Content.assemble(
            ("settings of ", "$text-muted"), (place, "bold"),
            "; only those of the console are this machine's and can be changed here",
        )  # fmt: skip
    waiting = [row.key for row in rows if row.next_value]
    if not waiting:
        return line
    return Content.assemble(line, "\n", ("! ", "$text-warning"), f"{', '.join(waiting)}: {restart}")


def detail_text(row: SettingRow, width: int, *, restart: str) -> Content:
    """All about the setting under the cursor."""
    label = "$text-muted"
    lines = [
        Content.assemble((row.key, "bold"), f"   {row.description}").truncate(width, ellipsis=True),
        hanging(Content.assemble(("allowed  ", label)), f"{row.allowed} · default {row.default}", width),
    ]
    if row.variable:
        said = f"{row.variable} is set and stands over the file: a change shows once it is unset"
        lines.append(hanging(Content.assemble(("! ", "$text-warning")), said, width))
    else:
        takes = "at once" if row.key in AT_ONCE else restart
        lines.append(hanging(Content.assemble(("a change ", label)), takes, width))
    if row.key == "console.keys":
        lines.append(hanging(Content.assemble(("fixed    ", label)), FIXED_KEYS, width))
    return Content("\n").join(lines)
