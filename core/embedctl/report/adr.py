"""A decision record on the embedding backend, filled from what this machine showed.

The decision follows from the verdicts by rules that are written here and in the record itself; where the
evidence is missing it says so and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from embedctl.format import format_moment
from embedctl.records import BackendStatus, CheckReport, Claim, ClaimsReport, Status, StudySummary
from embedctl.report.markdown import cell, claims_table, missing_list, table
from embedctl.report.words import SIMULATED, counts
from embedctl.settings import Settings

NATIVE, OLLAMA = "native", "ollama"
_MATTERS: Final = 1.05
"""Times as fast: less matters to nobody."""

Choice = Literal["native", "ollama", "none"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the record is made of."""

    claims: ClaimsReport
    status: Status
    settings: Settings
    check: CheckReport | None
    check_name: str
    """Such as `study 4`."""
    studies: Sequence[StudySummary]
    """The newest of quality and of coexistence."""


def decision(subject: Subject) -> tuple[Choice, str]:
    """What the evidence decides, and why."""
    check = subject.check
    if check is None:
        return "none", "it was not checked whether both backends may stand in for each other"
    if check.verdict == "not safe":
        reason = f": {check.reasons[0]}" if check.reasons else ""
        return "none", f"the check says that a switch is not safe{reason}"
    if check.verdict == "undecided":
        return "none", "the check came to no answer"
    speed = [one for one in subject.claims.claims if one.id in ("one-text-ratio", "batch-ratio")]
    known = [one for one in speed if one.interval and one.interval.low and one.interval.high]
    if not known:
        return "none", "the two were not measured side by side, or with too few requests for an interval"
    faster = [one for one in known if one.interval and (one.interval.low or 0) > _MATTERS]
    slower = [one for one in known if one.interval and (one.interval.high or 0) < 1 / _MATTERS]
    quality = _claim(subject, "quality-alike")
    if quality is not None and quality.verdict == "does not hold":
        return "none", f"the two do not retrieve equally well: {quality.measured}"
    if faster and not slower:
        return "native", "the check says that a switch is " + check.verdict + ", and native is faster"
    if slower and not faster:
        return "ollama", "native is slower here, so that a switch gains nothing"
    return "none", "neither is faster by more than matters, or each at something else"


def decision_record(subject: Subject) -> str:
    """The record as Markdown; ends with a line break."""
    lines = [
        f"# Which backend embeds on {_host(subject)}",
        "",
        f"Date: {format_moment(subject.claims.at)}. Status: {_state(subject)}.",
        "",
    ]
    if subject.claims.simulated:
        lines += [f"**{SIMULATED}**", ""]
    for part in (_context, _drivers, _decision, _evidence, _consequences, _migration, _rollback):
        lines += [*part(subject), ""]
    return "\n".join(lines).rstrip() + "\n"


def _state(subject: Subject) -> str:
    choice, _ = decision(subject)
    if choice == "none":
        return "open"
    return "in force" if subject.status.active == choice else "decided, not carried out yet"


def _host(subject: Subject) -> str:
    return subject.status.machine.hostname if subject.status.machine else "this machine"


def _context(subject: Subject) -> Iterator[str]:
    machine, settings = subject.status.machine, subject.settings
    gpu = (machine.gpu.name if machine.gpu else "no GPU") if machine else "unknown GPU"
    yield "## Context"
    yield ""
    yield (
        f"Applications on {_host(subject)} ({gpu}) need vectors of `{settings.model.repo}` at revision "
        f"`{settings.model.revision}`. Two backends give them: an Ollama server with `"
        f"{settings.model.ollama_tag}`, and sentence-transformers in a worker process of its own (native). "
        f"Active now: **{subject.status.active}**."
    )
    yield ""
    yield from table(
        ("backend", "state", "model", "dtype", "length limit"),
        [_backend(one) for one in subject.status.backends],
    )


def _backend(one: BackendStatus) -> tuple[str, ...]:
    limit = f"{one.max_tokens:,} tokens" if one.max_tokens else "n/a"
    return (one.name, one.state.value, one.model or "n/a", one.dtype or "n/a", limit)


def _drivers(_: Subject) -> Iterator[str]:
    yield "## Decision drivers"
    yield ""
    yield "1. Vectors must be right, and those of one index of one kind: no speed makes up for that."
    yield "2. Retrieval must not get worse by more than a hundredth of NDCG@10."
    yield "3. Latency of a query, and throughput of an indexing run."
    yield "4. Memory: it is shared with whatever else runs here, a language model first of all."
    yield "5. The way back must be short."


def _decision(subject: Subject) -> Iterator[str]:
    choice, why = decision(subject)
    yield "## Decision"
    yield ""
    if choice == "none":
        yield f"**No decision yet:** {cell(why)}. Until there is one, {subject.status.active} stays active."
        return
    verb = "stays" if subject.status.active == choice else "becomes"
    yield f"**{choice} {verb} the active backend:** {cell(why)}."
    yield ""
    yield (
        "Rule: native where the check says safe, retrieval is alike as far as measured, and native is "
        f"more than {_MATTERS:g} times as fast with its whole 95 % interval at one text or a batch of 32, "
        "and slower at neither; Ollama where native is slower; otherwise nothing is decided."
    )


def _evidence(subject: Subject) -> Iterator[str]:
    yield "## Measured evidence"
    yield ""
    check = subject.check
    if check is not None:
        yield f"Check ({subject.check_name}): **{check.verdict}**."
        yield ""
        for reason in check.reasons:
            yield f"- {cell(reason)}"
        for row in check.rows:
            if row.backend is None and row.part in ("parity", "neighbours", "cross-index"):
                yield f"- {row.part}: {cell(row.finding)}"
        yield ""
    for study in subject.studies:
        yield f"{study.kind.capitalize()} (study {study.id}): {cell(study.headline)}."
        yield ""
    yield f"The design document's claims: {counts(subject.claims)}."
    yield ""
    for note in subject.claims.notes:
        yield f"- {cell(note)}"
    yield ""
    yield from claims_table(subject.claims)
    yield from missing_list(subject.claims)


def _consequences(subject: Subject) -> Iterator[str]:
    choice, _ = decision(subject)
    yield "## Consequences"
    yield ""
    limits = {limit.backend: limit for limit in subject.check.limits} if subject.check else {}
    if choice == NATIVE:
        saved = _claim(subject, "memory-saved")
        if saved is not None and saved.measured:
            yield f"- Memory: native holds {saved.measured} than Ollama ({cell(saved.why)})."
        yield "- The engine owns the worker: it starts, checks, restarts and unloads it."
    elif choice == OLLAMA:
        yield "- Nothing changes for applications; the native model need not be kept loaded."
    else:
        yield "- Nothing changes; what is missing is listed above."
    short = [one for one in limits.values() if one.effective is not None and not one.at_least]
    for one in short:
        longer = "refused" if one.refuses else "cut" if one.told else "cut, and nothing says so"
        yield f"- {one.backend} reads texts up to {one.effective:,} {one.unit}; longer ones are {longer}."
    side = _claim(subject, "side-by-side")
    if side is not None and side.measured:
        yield f"- Beside a language model: {side.measured} ({side.verdict})."
    across = subject.check.retrieval if subject.check else ()
    for found in across:
        if found.difference is not None:
            yield (
                f"- An index of {found.documents} searched with queries of {found.queries}: NDCG@10 "
                f"{found.difference:+.4f} against one backend alone."
            )


def _migration(subject: Subject) -> Iterator[str]:
    choice, _ = decision(subject)
    target = choice if choice != "none" else _other(subject.status.active)
    gateway = subject.settings.gateway
    yield f"## Migration to {target}"
    yield ""
    yield "1. `embedctl doctor`, then `embedctl models download`: all is there, verified by hash."
    checked = f" ({subject.check.verdict} here, {subject.check_name})" if subject.check else ""
    yield f"2. `embedctl check`{checked}. It must say safe, or safe with limits that you can live with."
    yield (
        f"3. Point applications at the gateway, `http://{gateway.host}:{gateway.port}` (`embedctl serve`): "
        "it speaks OpenAI's and Ollama's embedding APIs, so that a switch does not touch them. Those that "
        "call the library read `EMBEDDING_BACKEND`."
    )
    yield (
        f"4. `embedctl trial start {target} --shadow 0.1`: a tenth of the live requests goes to it, too, and "
        "is compared; applications see none of it."
    )
    yield (
        f"5. `embedctl switch {target}`: it loads, checks, flips without losing a request, and rolls back by "
        "itself if something is wrong."
    )
    yield (
        "6. An index keeps the vectors it was made with. If the check's cross-index rows show a loss, embed "
        "the documents anew before queries come from the new backend."
    )
    yield (
        "7. `embedctl check --if-changed` once a day: an update of Ollama, the driver or a library is "
        "checked anew."
    )


def _rollback(subject: Subject) -> Iterator[str]:
    back = (
        subject.status.active
        if decision(subject)[0] != subject.status.active
        else _other(subject.status.active)
    )
    yield "## Rollback"
    yield ""
    yield (
        f"`embedctl switch {back}`; for applications that call the library, `EMBEDDING_BACKEND={back}`. Keep "
        f"{back} installed until the record is confirmed. `embedctl history` shows when which was active."
    )


def _claim(subject: Subject, id_: str) -> Claim | None:
    return next((one for one in subject.claims.claims if one.id == id_), None)


def _other(backend: str) -> str:
    return OLLAMA if backend == NATIVE else NATIVE
