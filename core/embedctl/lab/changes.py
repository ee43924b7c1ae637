"""Does an old answer still stand? What has changed in what it depended on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from embedctl.records import Fingerprint

_BESIDE_THE_POINT: Final = frozenset({"backend", "machine", "options"})


def changes(
    then: Sequence[Fingerprint],
    now: Sequence[Fingerprint],
    settings_then: Mapping[str, str],
    settings_now: Mapping[str, str],
) -> tuple[str, ...]:
    """What differs, one phrase each, such as `ollama backend_version: 0.33.0 → 0.34.2`.

    What was not known then or is not now (a backend that is not loaded does not tell its dtype) counts as
    unchanged: the settings that decide it are compared, too.
    """
    present = {mark.backend: mark for mark in now}
    set_anew = [
        key
        for key in sorted(settings_then.keys() & settings_now.keys())
        if settings_then[key] != settings_now[key]
    ]
    found = [f"{key}: {settings_then[key]} → {settings_now[key]}" for key in set_anew]
    for old in then:
        new = present.get(old.backend)
        if new is None:
            found.append(f"{old.backend} is gone")
            continue
        before, after = _flat(old), _flat(new)
        found += [
            f"{old.backend} {name}: {before[name]} → {value}"
            for name, value in after.items()
            if value is not None
            and before.get(name) is not None
            and _differ(before[name], value)
            and f"{old.backend}.{name}" not in set_anew  # told already
        ]
    return tuple(found)


def _differ(before: object, after: object) -> bool:
    """A version with its build (`2.11.0+cu130`, as torch says) is not another than the one without."""
    a, b = str(before), str(after)
    if ("+" in a) != ("+" in b):
        a, b = a.split("+")[0], b.split("+")[0]
    return a != b


def _flat(mark: Fingerprint) -> dict[str, Any]:
    plain = {
        field.name: getattr(mark, field.name)
        for field in fields(Fingerprint)
        if field.name not in _BESIDE_THE_POINT
    }
    return {**mark.options, **plain}
