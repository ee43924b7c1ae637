"""How the engine's backends do: evidence from the watch, live requests and the machine, judged and told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from embedctl.backends.base import Backend
from embedctl.engine.journal import Journal
from embedctl.engine.memory import LatestSample
from embedctl.engine.traffic import Traffic
from embedctl.engine.watch import BackendWatch
from embedctl.health.alerts import Alert, Edges
from embedctl.health.delivery import Delivery
from embedctl.health.judgement import ANSWERING, Evidence, judge
from embedctl.records import BackendHealth, BackendName, Condition, Health, Machine, Severity
from embedctl.settings import Settings

LATELY_S = 90.0
"""An answer that is older says nothing of now."""


class Vitals:
    """Judges on request; raises alerts after each look of the watch."""

    def __init__(
        self,
        backends: Mapping[BackendName, Backend],
        traffic: Traffic,
        watch: BackendWatch,
        latest: LatestSample,
        machine: Machine,
        settings: Settings,
        journal: Journal,
        *,
        ours: Callable[[BackendName], bool],
        quiet: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backends = backends
        self._traffic = traffic
        self._watch = watch
        self._latest = latest
        self._machine = machine
        self._settings = settings
        self._journal = journal
        self._ours = ours
        self._quiet = quiet
        self._clock = clock
        alerts = settings.alerts
        self._edges = Edges([Condition(name) for name in alerts.conditions], alerts.for_s)
        self._delivery = Delivery(
            alerts.command, alerts.webhook, timeout=alerts.timeout_s, failed=self._not_delivered
        )

    def start(self) -> None:
        self._delivery.start()

    def stop(self) -> None:
        self._delivery.stop()

    def health(self) -> Health:
        """As of now. Never blocks."""
        at, active = self._clock(), self._traffic.active
        found = tuple(self._health(name, at) for name in self._backends)
        ready = next(self._answers(each) for each in found if each.backend == active)
        return Health(at, ready, active, found)

    def tell(self) -> None:
        """Put what has changed for long enough on the time line, and tell who is to be told."""
        for alert in self._edges.see(self.health()):
            self._journal.add(
                "health",
                alert.title,
                alert.health.backend,
                _severity(alert),
                {"condition": alert.health.condition.value, "why": alert.health.why},
            )
            self._delivery.send(alert.as_json(self._machine.hostname))

    def tell_rolled_back(self, candidate: BackendName, why: str) -> None:
        """Tell who is to be told that a trial gives its candidate no more requests."""
        self._delivery.send(
            {
                "schema_version": 1,
                "kind": "trial",
                "at": self._clock(),
                "machine": self._machine.hostname,
                "backend": candidate,
                "condition": "rolled back",
                "why": why,
            }
        )

    def _health(self, name: BackendName, at: float) -> BackendHealth:
        seen = self._evidence(name)
        judgement = judge(seen)
        return BackendHealth(
            name, judgement.condition, judgement.why, at, seen.probe.ms if seen.probe is not None else None
        )

    def _evidence(self, name: BackendName) -> Evidence:
        status = self._backends[name].status()
        pulse = self._traffic.pulse(name)
        gpu = self._machine.gpu is not None and not self._machine.simulated and not status.remote
        on_cpu_by_choice = name == "native" and self._settings.native.device == "cpu"
        return Evidence(
            status,
            gpu_expected=gpu and not on_cpu_by_choice,
            probe=self._watch.probe_seen(name),
            in_flight=pulse.in_flight,
            silent_for=pulse.silent_for,
            answered_ago=pulse.answered_ago,
            failures=pulse.failures,
            failed_with=pulse.failed_with,
            loading_for=self._watch.loading_for(name),
            throttled_by="" if status.remote else self._throttled_by(),
        )

    def _throttled_by(self) -> str:
        sample = self._latest.sample
        if sample is None or not sample.get("gpu_throttled"):
            return ""
        note = sample.provenance.get("gpu_throttled")
        return (note.source if note else None) or "the sampler says so"

    def _answers(self, health: BackendHealth) -> bool:
        if health.condition not in ANSWERING:
            return False
        if not self._settings.engine.probe_every_s or not self._ours(health.backend) or self._quiet():
            return True  # it is not probed: that it is loaded and fails nobody is all that can be known
        probe = self._watch.probe_seen(health.backend)
        probed_ago = probe.ago if probe is not None and probe.ms is not None else float("inf")
        loaded = self._backends[health.backend].status().ready_since  # with the canary's right answers
        loaded_ago = float("inf") if loaded is None else health.at - loaded
        return min(probed_ago, loaded_ago, self._traffic.pulse(health.backend).answered_ago) <= LATELY_S

    def _not_delivered(self, why: str) -> None:
        self._journal.add("error", "an alert was not delivered", severity=Severity.ERROR, detail={"why": why})


def _severity(alert: Alert) -> Severity:
    if alert.over:
        return Severity.OK
    worst = alert.health.condition in (Condition.DOWN, Condition.HUNG)
    return Severity.ERROR if worst and alert.active else Severity.WARNING
