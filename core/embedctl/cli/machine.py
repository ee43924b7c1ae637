"""`status`, `doctor`, `record`: what this machine is and does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, engine, is_attached, is_demo
from embedctl.cli.output import emit, emit_json, emit_table, say
from embedctl.errors import UsageError
from embedctl.events import EventRecorded, Message
from embedctl.format import ABSENT, format_bytes, format_clock, format_value
from embedctl.metrics import METRICS
from embedctl.records import Finding, Sample, Severity, Status

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_FIRST_SAMPLE_SECONDS = 5.0


@app.command()
def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="A new line each second; Ctrl-C ends.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the machine, the backends and which one is active."""
    with engine(sampling=True) as opened:
        opened.refresh()
        _first_sample(opened)
        if watch:
            _watch(opened, as_json)
            return
        now = opened.status()
        if as_json:
            emit_json("status", now)
        else:
            _show(now)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Look for what commonly goes wrong, with a remedy per finding. Exit code 1 if something is."""
    with engine(sampling=True) as opened:
        _first_sample(opened)
        findings = opened.doctor()
    if as_json:
        emit_json("doctor", findings)
    else:
        _show_findings(findings)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise typer.Exit(EXIT_NO)


@app.command()
def record() -> None:
    """Record samples without a screen until Ctrl-C; the console and `history` show them later."""
    with engine(sampling=True, recording=True) as opened:
        if not _wait_for(lambda: opened.status().recording):
            raise _not_recorded(opened.status().recorder)
        then = "goes on without this view" if is_attached(opened) else "ends"
        say(f"recording to {opened.status().store_path}; after Ctrl-C it {then}")
        stop = opened.subscribe(_tell_event)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            say("stopped")
        finally:
            stop()


def _not_recorded(other: int | None) -> UsageError:
    if other is not None:
        return UsageError(
            "Nothing is recorded",
            why=f"another embedctl (PID {other}) records to this history already",
            remedy="leave that one running, or end it first",
        )
    return UsageError(
        "Nothing is recorded",
        why="no sample could be taken, or the history cannot be written",
        remedy="see `embedctl history` for the error, and `embedctl doctor`",
    )


def _tell_event(message: Message) -> None:
    if isinstance(message, EventRecorded):
        say(f"{format_clock(message.event.at)}  {message.event.kind:<10} {message.event.title}")


def _first_sample(opened: EngineFacade) -> None:
    _wait_for(lambda: opened.status().sample is not None)


def _wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _FIRST_SAMPLE_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def _watch(opened: EngineFacade, as_json: bool) -> None:
    try:
        while True:
            now = opened.status()
            if as_json:
                emit_json("status", now)
            else:
                emit(_one_line(now))
            time.sleep(1.0)
    except KeyboardInterrupt:
        return


def _one_line(now: Status) -> str:
    parts = [format_clock(now.at), f"active {now.active}"]
    parts += [f"{backend.name} {backend.state}" for backend in now.backends]
    if now.sample is not None:
        keys = ("gpu_memory_used", "gpu_utilization", "gpu_power", "host_memory_available")
        parts += [
            f"{METRICS[key].label} {format_value(now.sample.get(key), METRICS[key].unit)}" for key in keys
        ]
    return "  ".join(parts)


def _show(now: Status) -> None:
    machine = now.machine
    if machine is not None:
        gpu = machine.gpu
        name = gpu.name if gpu else f"no GPU: {machine.gpu_absence}"
        emit(f"{machine.hostname}  {machine.system}  {name}" + ("  [SIMULATED]" if is_demo() else ""))
        others = [f"{other.index}: {other.name}" for other in machine.gpus if other is not gpu]
        if others:
            emit(f"other GPUs: {', '.join(others)}")
    emit("")
    emit_table(
        ("", "backend", "state", "model", "dtype", "claimed", "measured", "p50", "p95"),
        [
            (
                "*" if backend.name == now.active else "",
                backend.name,
                backend.state.value,
                backend.model or ABSENT,
                backend.dtype or ABSENT,
                format_bytes(backend.claimed_bytes),
                _figure(now.sample, f"{backend.name}_gpu_memory"),
                _figure(now.sample, f"{backend.name}_p50"),
                _figure(now.sample, f"{backend.name}_p95"),
            )
            for backend in now.backends
        ],
        right=frozenset({"claimed", "measured", "p50", "p95"}),
    )
    for backend in now.backends:
        if backend.remedy:
            say(f"{backend.name}: {backend.detail} — {backend.remedy}")
    if now.recorder is not None:
        say(
            f"another embedctl (PID {now.recorder}) records; a native worker of its own is not seen from here"
        )
    emit("")
    for key, metric in METRICS.items():
        if metric.backend is None:
            name = f"host {metric.label}" if key.startswith("host_") else metric.label
            emit(f"{name:<22}{_figure(now.sample, key)}{_origin(now.sample, key)}")


def _figure(sample: Sample | None, key: str) -> str:
    return format_value(sample.get(key) if sample else None, METRICS[key].unit)


def _origin(sample: Sample | None, key: str) -> str:
    if sample is None:
        return ""
    if sample.get(key) is None:
        return f"  ({sample.absence(key)})"
    note = sample.provenance.get(key)
    return f"  [{note.source}]" if note and note.source else ""


_SYMBOLS = {Severity.OK: "ok", Severity.INFO: "info", Severity.WARNING: "WARN", Severity.ERROR: "ERROR"}


def _show_findings(findings: tuple[Finding, ...]) -> None:
    topic = ""
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            emit(topic)
        emit(f"  {_SYMBOLS[finding.severity]:<6}{finding.title}")
        if finding.detail:
            emit(f"        {finding.detail}")
        if finding.remedy:
            emit(f"        try: {finding.remedy}")
    counts = {severity: sum(f.severity is severity for f in findings) for severity in Severity}
    say(f"{counts[Severity.ERROR]} errors, {counts[Severity.WARNING]} warnings, {len(findings)} looked at")
