"""Prometheus metrics of the gateway and of the machine behind it. What is not known is no series, never 0."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedctl.engine.facade import EngineFacade
from embedctl.events import ActiveChanged, JobChanged, Message
from embedctl.gateway.admission import Admission
from embedctl.metrics import METRICS
from embedctl.records import EmbedResult, JobState, Status

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TEXTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
RESULT_IN_SCOPE: Final = "embedctl.result"
"""Where an ASGI scope holds the `EmbedResult` that was sent: it is counted once the client has it."""
_UNITS: Final = {
    "bytes": "_bytes",
    "percent": "_percent",
    "celsius": "_celsius",
    "watt": "_watts",
    "megahertz": "_megahertz",
    "joule": "_joules",
    "ms": "_milliseconds",
    "per_second": "_per_second",
    "flag": "",
}
"""Ending of a metric's name by the unit that `embedctl.metrics` gives it."""


class GatewayMetrics:
    """A registry of its own, so that several gateways of one process do not meet in it."""

    def __init__(self, engine: EngineFacade, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "embedctl_requests",
            "Requests answered, by API, HTTP status and backend.",
            ["api", "status", "backend"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "embedctl_request_seconds",
            "Time from a request's first byte to its answer.",
            ["api"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._texts = Counter("embedctl_texts", "Texts embedded.", ["backend"], registry=self._registry)
        self._tokens = Counter("embedctl_tokens", "Tokens embedded.", ["backend"], registry=self._registry)
        self._batch = Histogram(
            "embedctl_request_texts", "Texts per request.", buckets=_TEXTS, registry=self._registry
        )
        self._refused = Counter(
            "embedctl_rejected", "Requests refused or failed, by reason.", ["reason"], registry=self._registry
        )
        self.abandoned = Counter(
            "embedctl_abandoned", "Requests whose client went away.", registry=self._registry
        )
        self._switches = Counter(
            "embedctl_switches", "Changes of the active backend.", ["to"], registry=self._registry
        )
        self._jobs = Counter("embedctl_jobs", "Jobs that ended.", ["kind", "state"], registry=self._registry)
        self._ended_jobs: deque[int] = deque(maxlen=64)
        self._registry.register(_State(engine, admission))
        self._unsubscribe = engine.subscribe(self._receive)

    def answered(self, api: str, status: int, result: EmbedResult | None, seconds: float) -> None:
        """A request was answered; `result` is None where no backend was asked."""
        self._requests.labels(api, str(status), result.backend if result else "").inc()
        if result is None:
            return
        self._latency.labels(api).observe(seconds)
        self._texts.labels(result.backend).inc(len(result.vectors))
        self._batch.observe(len(result.vectors))
        if result.tokens is not None:
            self._tokens.labels(result.backend).inc(result.tokens)

    def refused(self, reason: str) -> None:
        """A request got an error; `reason` is a `Problem.code`, of which there are few."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        self._unsubscribe()

    def _receive(self, message: Message) -> None:
        match message:
            case ActiveChanged(active):
                self._switches.labels(active).inc()
            case JobChanged(update) if update.state is not JobState.RUNNING:
                if update.job_id not in self._ended_jobs:
                    self._ended_jobs.append(update.job_id)
                    self._jobs.labels(update.kind, update.state.value).inc()


class _State(Collector):
    """What is read from the engine when somebody asks."""

    def __init__(self, engine: EngineFacade, admission: Admission) -> None:
        self._engine = engine
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        admission = self._admission
        yield GaugeMetricFamily(
            "embedctl_in_flight", "Requests that the backend works on.", admission.in_flight
        )
        yield GaugeMetricFamily(
            "embedctl_texts_in_flight", "Texts that the backend works on.", admission.texts_in_flight
        )
        yield GaugeMetricFamily("embedctl_queue_length", "Requests that wait.", admission.waiting)
        status = self._engine.status()
        yield from _backends(status)
        condition = GaugeMetricFamily(
            "embedctl_backend_condition",
            "How a backend does: 1 for what it is.",
            labels=["backend", "condition"],
        )
        health = self._engine.health()
        for backend in health.backends:
            condition.add_metric([backend.backend, backend.condition.value], 1)
        yield condition
        yield GaugeMetricFamily("embedctl_ready", "The active backend can answer now.", int(health.ready))
        jobs = GaugeMetricFamily("embedctl_jobs_running", "Jobs under way.", labels=["kind"])
        for kind in {job.kind for job in status.jobs}:
            jobs.add_metric([kind], sum(job.kind == kind for job in status.jobs))
        yield jobs
        yield from _sampled(status)


def _backends(status: Status) -> Iterator[Metric]:
    active = GaugeMetricFamily("embedctl_active_backend", "1 for the active backend.", labels=["backend"])
    state = GaugeMetricFamily(
        "embedctl_backend_state", "1 for the state that a backend is in.", labels=["backend", "state"]
    )
    claimed = GaugeMetricFamily(
        "embedctl_memory_claimed_bytes", "Memory that a backend says it holds.", labels=["backend"]
    )
    for backend in status.backends:
        active.add_metric([backend.name], int(backend.name == status.active))
        state.add_metric([backend.name, backend.state.value], 1)
        if backend.claimed_bytes is not None:
            claimed.add_metric([backend.name], backend.claimed_bytes)
    yield from (active, state, claimed)


def _sampled(status: Status) -> Iterator[Metric]:
    """The figures of the last sample under the names of `embedctl.metrics`, one family for all backends."""
    sample = status.sample
    if sample is None:
        return
    yield GaugeMetricFamily("embedctl_sample_time_seconds", "When the machine was read last.", sample.at)
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for key, metric in METRICS.items():
        value = sample.get(key)
        if value is None:
            continue
        short = key.removeprefix(f"{metric.backend}_") if metric.backend else key
        name = f"embedctl_{'measured_' if metric.backend else ''}{short}{_UNITS[metric.unit]}"
        family = families.get(name)
        if family is None:
            kind: Callable[..., GaugeMetricFamily | CounterMetricFamily]
            kind = CounterMetricFamily if metric.cumulative else GaugeMetricFamily
            labels = ["backend"] if metric.backend else []
            family = families[name] = kind(name, f"{short.replace('_', ' ')}, sampled.", labels=labels)
        family.add_metric([metric.backend] if metric.backend else [], value)
    yield from families.values()
