"""What is here, which processes hold GPU memory, and what happened lately, as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import format_ago, format_bytes, format_clock
from embedctl.records import BackendState, Severity
from embedctl_console.next_step import NextStep, next_step
from embedctl_console.widgets.text import joined

if TYPE_CHECKING:
    from embedctl.records import Event
    from embedctl_console.state import ConsoleState

SEVERITY_SIGNS: Final = {
    Severity.OK: ("✓", "$text-success"),
    Severity.INFO: ("·", "$text-muted"),
    Severity.WARNING: ("!", "$text-warning"),
    Severity.ERROR: ("✗", "$text-error"),
}
"""By severity: a sign and its colour."""


def here_line(state: ConsoleState, width: int) -> Content:
    """Whether there is a GPU, an Ollama, a model; each with the reason if not, that of the GPU cut to fit."""
    roomy = width >= 100
    others = [_ollama_here(state), _model_here(state, roomy)]
    room = width - sum(fact.cell_length + 3 for fact in others)
    return joined([_gpu_here(state, roomy, room), *others], "   ")


def _gpu_here(state: ConsoleState, roomy: bool, room: int) -> Content:
    machine = state.status.machine
    if machine is None:
        return _fact("?", "$text-muted", "GPU", "looking…")
    gpu = machine.gpu
    if gpu is None:
        absence = _fact("○", "$text-warning", "GPU", machine.gpu_absence or "none")
        return absence.truncate(max(10, room), ellipsis=True)
    if not roomy:
        return _fact("●", "$text-success", "GPU", gpu.name)
    pool = " shared with the CPU" if gpu.unified else ""
    return _fact("●", "$text-success", "GPU", f"{gpu.name} {format_bytes(gpu.memory_total)}{pool}")


def _ollama_here(state: ConsoleState) -> Content:
    ollama = state.backend("ollama")
    if ollama is None or ollama.state is BackendState.UNKNOWN:
        return _fact("?", "$text-muted", "Ollama", "looking…")
    if ollama.state is BackendState.UNAVAILABLE:
        return _fact("○", "$text-warning", "Ollama", "not there")
    if ollama.state is BackendState.MODEL_MISSING:
        return _fact("◐", "$text-warning", "Ollama", f"{ollama.version or ''} without {ollama.model}")
    return _fact("●", "$text-success", "Ollama", ollama.version or "")


def _model_here(state: ConsoleState, roomy: bool) -> Content:
    model = state.model
    if model is None:
        return _fact("?", "$text-muted", "model", "looking…" if not state.model_note else "not known")
    if model.complete:
        size = f" {format_bytes(model.total_bytes)}" if roomy else ""
        return _fact("●", "$text-success", "model", f"{model.repo}{size}")
    words = f"{model.repo}: {format_bytes(model.missing_bytes)} to download" if roomy else "not here"
    return _fact("○", "$text-warning", "model", words)


def _fact(sign: str, style: str, name: str, words: str) -> Content:
    return Content.assemble((f"{sign} ", style), (name, "bold"), f" {words}")


def next_line(step: NextStep) -> Content:
    """The advice, with its key standing out."""
    return Content.assemble(
        ("▶ ", "$text-accent"),
        (step.key, "bold $footer-key-foreground"),
        f" {step.text}" if step.key else step.text,
    )


def process_lines(state: ConsoleState, limit: int) -> Content:
    """The processes that hold most GPU memory, one per line; without one, what would change that."""
    processes = state.status.processes
    if not processes:
        return _no_processes(state)
    ordered = sorted(processes, key=lambda process: -(process.gpu_memory or 0))
    lines = [
        Content.assemble(
            (f"{process.owner:<7}", f"$series-{process.owner}"),
            f" {process.pid:>8} {format_bytes(process.gpu_memory):>9}  {process.name or '?'}",
        )
        for process in ordered[:limit]
    ]
    return Content("\n").join(lines)


def _no_processes(state: ConsoleState) -> Content:
    machine = state.status.machine
    if machine is not None and machine.gpu is None:
        doctor = NextStep(state.key("everywhere.show-doctor"), "opens Doctor, which says why")
        return Content("\n").join([Content.styled("There is no GPU.", "$text-muted"), next_line(doctor)])
    words = Content.styled("No process holds GPU memory.", "$text-muted")
    if state.any_ready or state.running() is not None:  # it is on the CPU, or on its way
        return words
    return Content("\n").join([words, next_line(next_step(state))])


def event_lines(events: Iterable[Event], limit: int, *, now: float) -> Content:
    """The latest events, newest first, one per line."""
    lines = []
    for event in list(events)[:limit]:
        sign, style = SEVERITY_SIGNS[event.severity]
        lines.append(
            Content.assemble(
                (f"{format_clock(event.at)} {format_ago(event.at, now):>10} ", "$text-muted"),
                (f"{sign} ", style),
                (f"{event.kind:<11}", "bold"),
                event.title,
            )
        )
    return Content("\n").join(lines) if lines else Content.assemble(("Nothing happened yet.", "$text-muted"))
