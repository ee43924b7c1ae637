"""Going on with a run that ended early: of the same thing, in what is left of its time. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from embedctl.errors import UsageError
from embedctl.records import BackendName, Fingerprint, Run

MEASURING: Final = 0.5
"""Of the time, for measuring at least, however long the loading took."""
MEASURING_LEFT: Final = "measuring_left_s"
"""In a run's environment: seconds for measuring that were left after its last stage."""
_FAILED_GATE: Final = " failed the gate, no verdicts: "
_CONDITIONS: Final = ("embedctl", "kernel", "python", "governor", "cores")
"""Of the environment: what a run may be gone on with under other ones, if it says so."""


def require_same(resumed: Run, now: Run) -> None:
    """Refuse to mix rows of different backends, or of different texts, in one run.

    Whatever a fingerprint names counts: an update of Ollama or of the driver changes how fast it is. What was
    not known then, and decides no vector, may be known by now.

    Raises:
        UsageError: Names what has changed.
    """
    before = {mark.backend: mark for mark in resumed.fingerprints}
    changed = [
        f"{mark.backend} {change}"
        for mark in now.fingerprints
        for change in _changes(before.get(mark.backend), mark)
    ]
    if resumed.workload != now.workload:
        changed.append(f"texts: {resumed.workload} → {now.workload}")
    if changed:
        raise UsageError(
            f"Run {resumed.id} cannot be resumed",
            why=f"changed since: {'; '.join(changed)}",
            remedy="start a new run",
        )


def _changes(before: Fingerprint | None, now: Fingerprint) -> Iterator[str]:
    if before is None:
        yield "was not measured"
        return
    other_vectors = before.digest != now.digest
    for field in fields(Fingerprint):
        old, new = getattr(before, field.name), getattr(now, field.name)
        known = old is not None and new is not None
        if field.name != "options" and old != new and (known or other_vectors):
            yield f"{field.name}: {_shown(old)} → {_shown(new)}"
    then, today = (json.loads(json.dumps(dict(mark.options))) for mark in (before, now))  # as they are stored
    for key in sorted(then.keys() & today.keys()):  # another version of embedctl may tell more, or less
        if then[key] != today[key]:
            yield f"{key}: {_shown(then[key])} → {_shown(today[key])}"


def _shown(value: object) -> str:
    return "n/a" if value is None else str(value)


def changed_conditions(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on what is different around the backends, where a run is gone on with."""
    told = [
        f"{key} {before[key]} → {now[key]}"
        for key in _CONDITIONS
        if before.get(key) is not None and now.get(key) is not None and before[key] != now[key]
    ]
    return (f"gone on with under other conditions: {', '.join(told)}",) if told else ()


def measuring_time(resumed: Run | None, limit: float, loading: float) -> float:
    """Seconds for measuring. Loading once more costs a run that is gone on with nothing of them.

    Args:
        limit: Seconds for the whole run.
        loading: Seconds that the loading took this time.
    """
    if resumed is None:  # a load that took long must not leave a run of nothing
        return max(limit - loading, MEASURING * limit)
    left = resumed.environment.get(MEASURING_LEFT)
    return float(left) if left is not None else max(0.0, limit - resumed.seconds)


def gate_note(backend: BackendName, fault: str) -> str:
    return f"{backend}{_FAILED_GATE}{fault}"


def failed_gate(run: Run) -> frozenset[BackendName]:
    """The backends that failed the gate when the run began, or was gone on with."""
    return frozenset(
        name for name in run.backends if any(note.startswith(f"{name}{_FAILED_GATE}") for note in run.notes)
    )
