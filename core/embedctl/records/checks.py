"""What `embedctl check` found: whether two backends may stand in for each other, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from embedctl.records.backends import BackendName

CheckVerdict = Literal["safe", "safe with limits", "not safe", "undecided"]


class Outcome(StrEnum):
    """How one look came out."""

    OK = "ok"
    LIMIT = "limit"
    """It holds within limits that the finding names."""
    BAD = "bad"
    UNKNOWN = "unknown"
    """It could not be told; the finding says why."""


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One look at one backend, or at both together."""

    part: str
    """Of one backend: `canary`, `vectors`, `requests`, `limit`, `lengths`, `tokens`. Of both: `limit`,
    `lengths`, `parity`, `neighbours`, `cross-index`."""
    backend: BackendName | None
    """None: both were compared."""
    outcome: Outcome
    finding: str
    """One clause without a capital or a full stop, with the figures in it."""


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """How much of a text a backend reads. Counts hold the special tokens."""

    backend: BackendName
    unit: Literal["tokens", "words"]
    """`words` where the model's tokenizer is not at hand to count with."""
    claimed: int | None
    """What the backend says of itself."""
    effective: int | None
    """The longest text of which every token changes the vector; None: see `why`."""
    at_least: bool
    """No end was found: it is at least `effective`."""
    refuses: bool
    """A longer text gets an error and no vector."""
    told: bool | None
    """A cut text is reported as cut; None: nothing was cut, or it was refused."""
    reported: int | None
    """Tokens that the backend counted for a text over the limit."""
    probes: int
    """Lengths that were tried."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class ParityGroup:
    """Per-text cosine between the two backends over some of the texts."""

    name: str
    """`all`, a language, `yours`, or a span of lengths such as `33–64 tokens`."""
    texts: int
    least: float | None
    low: float | None
    """1st percentile."""
    median: float | None


@dataclass(frozen=True, slots=True)
class WorstText:
    text: str
    """Its first characters."""
    group: str
    tokens: int | None
    cosine: float


@dataclass(frozen=True, slots=True)
class LengthAgreement:
    """One text of an exact length, embedded by both."""

    length: int
    cosine: float


@dataclass(frozen=True, slots=True)
class Retrieval:
    """A query finds its passage: documents of one backend, queries of another or the same."""

    documents: BackendName
    queries: BackendName
    ndcg: float
    """NDCG@10, mean over the queries."""
    difference: float | None = None
    """Against documents and queries both of the documents' backend; None for that one itself."""
    low: float | None = None
    """The difference's 95 % interval, paired by query."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a figure is judged by."""

    name: str
    good: float
    """From here on the look is `ok`."""
    bad: float
    """Below this it is `bad`; between the two, `limit`. Equal to `good` where there is no middle."""
    why: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The whole answer."""

    verdict: CheckVerdict
    reasons: tuple[str, ...]
    """The limits, or why not; empty when it is safe."""
    backends: tuple[BackendName, ...]
    not_compared: str
    """Why only one backend was looked at; empty if both were."""
    texts: str
    """Name and content hash of the texts."""
    settings: Mapping[str, str]
    """Those that vectors depend on, such as `native.dtype`."""
    rows: tuple[CheckRow, ...]
    limits: tuple[LengthLimit, ...]
    parity: tuple[ParityGroup, ...]
    worst: tuple[WorstText, ...]
    """The lowest cosines, lowest first."""
    lengths: tuple[LengthAgreement, ...]
    overlap: float | None
    """Mean share of common ones among the ten nearest passages of a query."""
    retrieval: tuple[Retrieval, ...]
    thresholds: tuple[Threshold, ...]
    cosines: tuple[float, ...]
    """Per text, in the order of the texts, those left out that one of the two gave no vector for."""
