"""Studies: what the lab found out, other than speed. One shape for every kind, kept as it was told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from embedctl.records.backends import BackendName, Fingerprint

ENVIRONMENT: Final = "environment"
"""In a study's data, beside its report: the machine at the time."""
StudyState = Literal["done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Study:
    """One question that was put to the backends, its answer, and all that the answer rests on."""

    id: int
    at: float
    kind: str
    """`check`, `quality` or `coexist`."""
    title: str
    verdict: str
    """The answer in a few fixed words of its kind, such as `safe with limits`."""
    headline: str
    """The answer in one sentence."""
    backends: tuple[BackendName, ...]
    fingerprints: tuple[Fingerprint, ...]
    seconds: float
    data: Mapping[str, Any]
    """What JSON knows, laid out by the kind: a `CheckReport`, `QualityReport` or `CoexistReport`; see
    `embedctl.study_data`."""
    state: StudyState = "done"

    @property
    def environment(self) -> Mapping[str, Any]:
        """The machine at the time of the study, as a run has it; empty of one that was kept without."""
        return self.data.get(ENVIRONMENT) or {}


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study without its data, for lists."""

    id: int
    at: float
    kind: str
    title: str
    verdict: str
    headline: str
    backends: tuple[BackendName, ...]
    seconds: float
    state: str
