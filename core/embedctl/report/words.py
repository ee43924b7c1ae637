"""Figures as the reports write them, the same in Markdown and HTML."""

from __future__ import annotations

from collections import Counter
from typing import Final

from embedctl.format import format_number
from embedctl.records import Claim, ClaimsReport, ClaimVerdict

TITLE: Final = "The design document's claims, measured"
SIMULATED: Final = (
    "Simulated: these figures come from the demo, whose GPU, Hub and Ollama server are simulated. "
    "They say nothing about a real machine."
)
_SEVERAL: Final[dict[ClaimVerdict, str]] = {
    "holds": "hold",
    "does not hold": "do not hold",
    "undecided": "undecided",
    "not measured": "not measured",
}
READING: Final = (
    "A speed or a saving holds where the whole 95 % interval is at least as good as claimed; a plain figure "
    "where the whole interval lies within a quarter of it. It does not hold where no part of the interval "
    "does. In between it is undecided."
)
_PLACES: Final = {
    "eight-bit": ".2%",
    "memory-saved": ".0%",
    "flash": ".3f",
    "side-by-side": ".0%",
    "quality-alike": "+.4f",
}


def interval_of(claim: Claim) -> str:
    """The 95 % interval; `n/a` where nothing was measured or too little for one."""
    found = claim.interval
    if found is None or found.low is None or found.high is None:
        return "n/a"
    form = _PLACES.get(claim.id)
    if form is not None:
        return f"{found.low:{form}} to {found.high:{form}}"
    return f"{format_number(found.low)} to {format_number(found.high)}"


def counts(report: ClaimsReport) -> str:
    """How many claims hold, do not hold, …"""
    told = Counter(one.verdict for one in report.claims)
    return ", ".join(
        f"{told[verdict]} {verdict if told[verdict] == 1 else several}"
        for verdict, several in _SEVERAL.items()
    )


def basis(claim: Claim) -> str:
    """What the verdict rests on, and what to do where it is missing."""
    where = f" ({', '.join(claim.evidence)})" if claim.evidence else ""
    return f"{claim.why}{where}"
