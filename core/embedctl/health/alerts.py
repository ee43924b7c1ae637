"""When to raise an alert: once when a backend has been bad for long enough, once when it is good again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from embedctl.health.judgement import ANSWERING
from embedctl.records import BackendHealth, BackendName, Condition, Health


@dataclass(frozen=True, slots=True)
class Alert:
    """One edge."""

    health: BackendHealth
    active: bool
    """The backend is the one that requests go to."""
    over: bool
    """Good again."""

    @property
    def title(self) -> str:
        if self.over:
            return f"{self.health.backend} does well again"
        return f"{self.health.backend}: {self.health.condition.value}"

    def as_json(self, machine: str) -> dict[str, Any]:
        """For a command or a webhook. Figures and states; neither texts nor secrets."""
        return {
            "schema_version": 1,
            "kind": "alert",
            "at": self.health.at,
            "machine": machine,
            "backend": self.health.backend,
            "active": self.active,
            "condition": self.health.condition.value,
            "why": self.health.why,
            "over": self.over,
        }


@dataclass(slots=True)
class _Seen:
    since: float
    """When the present spell, good or bad, began."""
    bad: bool
    raised: bool = False
    was_well: bool = False


class Edges:
    """Turns one look after the other into alerts.

    A backend that is down although nobody uses it and it never did well is no news: Ollama is not installed
    everywhere.
    """

    def __init__(self, conditions: Collection[Condition], for_seconds: float) -> None:
        """`conditions` are the bad ones; a spell of them, or without, counts once it lasts `for_seconds`."""
        self._bad = frozenset(conditions)
        self._for_seconds = for_seconds
        self._seen: dict[BackendName, _Seen] = {}

    def see(self, health: Health) -> tuple[Alert, ...]:
        """The alerts that are due with this look. Looks come in order of time."""
        due = (self._see(each, each.backend == health.active) for each in health.backends)
        return tuple(alert for alert in due if alert is not None)

    def _see(self, health: BackendHealth, active: bool) -> Alert | None:
        if health.condition is Condition.UNKNOWN:
            return None
        bad = health.condition in self._bad
        seen = self._seen.setdefault(health.backend, _Seen(health.at, bad))
        if seen.bad != bad:
            seen.since, seen.bad = health.at, bad
        seen.was_well = seen.was_well or health.condition in ANSWERING - self._bad
        if bad == seen.raised or health.at - seen.since < self._for_seconds:
            return None
        if bad and not active and not seen.was_well:
            return None
        seen.raised = bad
        return Alert(health, active, over=not bad)
