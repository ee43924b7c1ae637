"""What the switch dialog says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import ABSENT, format_bytes, format_duration
from embedctl.records import JobState, StepRecord, SwitchReport
from embedctl_console.actions import key_name
from embedctl_console.widgets.text import failure_text, hanging, keyed

if TYPE_CHECKING:
    from textual.binding import Binding

    from embedctl.records import JobUpdate, SwitchPlan

_SIGNS: Final = {
    "waiting": ("·", "$text-muted"),
    "running": ("▸", "$text-accent"),
    "done": ("✓", "$text-success"),
    "skipped": ("–", "$text-muted"),
    "warning": ("!", "$text-warning"),
    "failed": ("✗", "$text-error"),
}


def plan_text(plan: SwitchPlan, width: int) -> Content:
    """Memory now and expected, what is unloaded, the steps; warnings and an obstacle if there are any."""
    if plan.unloads_source:
        source = f"{format_bytes(plan.source_bytes)} now; is unloaded, they come back"
    else:
        source = f"{format_bytes(plan.source_bytes)} now; stays loaded" if plan.source_bytes else "not loaded"
    target = "loaded already" if plan.target_loaded else f"{format_bytes(plan.expected_bytes)} expected"
    rows = [
        _row("GPU memory now", format_bytes(plan.gpu_memory_used)),
        _row(
            "available",
            f"{format_bytes(plan.available_bytes)}, {format_bytes(plan.floor_bytes)} must stay free",
        ),
        _row(plan.source, source),
        _row(plan.target, target),
    ]
    if not plan.target_loaded and plan.expected_source:
        rows.append(hanging(_row("", ""), plan.expected_source, width, "$text-muted"))
    if plan.obstacle is None:
        rows += [_fits(plan), Content(""), hanging(_row("steps", ""), " → ".join(plan.steps), width)]
    rows += [hanging(Content.assemble(("! ", "$text-warning")), warning, width) for warning in plan.warnings]
    if plan.obstacle is not None:
        obstacle = plan.obstacle
        rows += [Content(""), failure_text(obstacle.what, obstacle.why, obstacle.remedy)]
    return Content("\n").join(rows)


def _fits(plan: SwitchPlan) -> Content:
    if plan.fits_beside is None:
        return _row("both at once", "nobody can say whether they fit", "$text-warning")
    if plan.fits_beside:
        return _row("both at once", "✓ fit beside each other above the floor", "$text-success")
    return _row("both at once", "! do not fit: the old one is unloaded first", "$text-warning")


def run_text(job: JobUpdate, planned: Sequence[str], width: int) -> Content:
    """Each step with its time and the GPU memory after it, and at the end how it went."""
    known = [step.name for step in job.steps]
    waiting = [name for name in planned if name not in known] if job.state is JobState.RUNNING else []
    room = max((len(name) for name in (*known, *waiting)), default=0)
    rows = [_step(step, room, width) for step in job.steps]
    rows += [_step_row("waiting", name.ljust(room), "", "") for name in waiting]
    return Content("\n").join([*rows, *_end(job)])


def _step(step: StepRecord, room: int, width: int) -> Content:
    memory = format_bytes(step.gpu_memory) if step.gpu_memory is not None else ""
    seconds = format_duration(step.seconds) if step.seconds is not None else ""
    row = _step_row(step.state, step.name.ljust(room), seconds, memory)
    return hanging(row, step.detail, width, "$text-muted") if step.detail else row


def _step_row(state: str, name: str, seconds: str, memory: str) -> Content:
    sign, style = _SIGNS[state]
    named = "$text-muted" if state == "waiting" else "bold"
    return Content.assemble((f"{sign} ", style), (name, named), f"{seconds:>7} {memory:>9}  ")


def _end(job: JobUpdate) -> list[Content]:
    if job.state is JobState.RUNNING:
        return [
            Content(""),
            Content.assemble(("Requests go to the old backend until the flip.", "$text-muted")),
        ]
    rows = [Content("")]
    if job.state is JobState.FAILED and job.failure is not None:
        rows.append(failure_text(job.failure.what, job.failure.why, job.failure.remedy))
    elif job.state is JobState.CANCELLED:
        rows.append(
            Content.assemble(("– Cancelled. ", "bold $text-warning"), "The old backend is still active.")
        )
    elif isinstance(job.result, SwitchReport):
        report = job.result
        agreement = f"{report.agreement:.4f}" if report.agreement is not None else ABSENT
        rows.append(
            Content.assemble(
                (f"✓ {report.target} is active", "bold $text-success"),
                f" after {format_duration(report.seconds)} · least cosine between the two {agreement}",
            )
        )
        rows += [Content.assemble(("! ", "$text-warning"), warning) for warning in report.warnings]
    else:
        rows.append(Content.assemble(("✓ done", "bold $text-success")))
    return rows


def keys_text(bindings: Iterable[Binding]) -> Content:
    """The dialog's keys on one line."""
    keys = [keyed(key_name(binding.key), binding.description, binding.key) for binding in bindings]
    return Content("   ").join(keys)


def _row(label: str, text: str, style: str = "") -> Content:
    return Content.assemble((f"{label:<15}", "$text-muted"), (text, style) if style else text)
