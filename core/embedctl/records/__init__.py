"""What flows between the parts: frozen dataclasses, no behaviour beyond trivial derivations.

Times are Unix seconds (UTC, float); sizes are bytes; durations are seconds unless the name says `_ms`.
A field that a machine may lack is `None`, and its reason stands beside it: unknown is never 0.
"""

from embedctl.records.backends import (
    BackendName,
    BackendState,
    BackendStatus,
    CanaryReport,
    EmbedResult,
    Fingerprint,
    LoadReport,
    Preflight,
    TextFailure,
)
from embedctl.records.jobs import (
    Failure,
    JobState,
    JobUpdate,
    ProgressItem,
    StepRecord,
    SwitchPlan,
    SwitchReport,
)
from embedctl.records.machine import Capability, GpuInfo, GpuProcess, Machine, Provenance, Sample
from embedctl.records.models import Download, FileState, ModelFile, ModelStatus
from embedctl.records.runs import (
    Comparison,
    ConditionOutcome,
    Figure,
    FigureDelta,
    Interval,
    Measurement,
    MeasurementKind,
    Run,
    RunComparison,
    RunDelta,
    RunSummary,
)
from embedctl.records.serving import BackendHealth, Condition, Health, Trial, TrialReport
from embedctl.records.studies import Study, StudySummary
from embedctl.records.timeline import Event, Finding, Severity, Status

__all__ = [
    "BackendHealth",
    "BackendName",
    "BackendState",
    "BackendStatus",
    "CanaryReport",
    "Capability",
    "Comparison",
    "Condition",
    "ConditionOutcome",
    "Download",
    "EmbedResult",
    "Event",
    "Failure",
    "Figure",
    "FigureDelta",
    "FileState",
    "Finding",
    "Fingerprint",
    "GpuInfo",
    "GpuProcess",
    "Health",
    "Interval",
    "JobState",
    "JobUpdate",
    "LoadReport",
    "Machine",
    "Measurement",
    "MeasurementKind",
    "ModelFile",
    "ModelStatus",
    "Preflight",
    "ProgressItem",
    "Provenance",
    "Run",
    "RunComparison",
    "RunDelta",
    "RunSummary",
    "Sample",
    "Severity",
    "Status",
    "StepRecord",
    "Study",
    "StudySummary",
    "SwitchPlan",
    "SwitchReport",
    "TextFailure",
    "Trial",
    "TrialReport",
]
