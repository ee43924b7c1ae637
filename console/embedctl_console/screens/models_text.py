"""What the Models screen says. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import format_bytes
from embedctl.records import BackendState, FileState, JobState
from embedctl_console.widgets.bottom import job_text
from embedctl_console.widgets.text import bar, busy_text, failure_text, joined

if TYPE_CHECKING:
    from embedctl.records import JobUpdate, ModelFile, ModelStatus, ProgressItem
    from embedctl_console.state import ConsoleState

_STATES: Final = {
    FileState.MISSING: ("○ missing", "$text-muted"),
    FileState.PARTIAL: ("◐ partial", "$text-warning"),
    FileState.PRESENT: ("● present", "$text-success"),
    FileState.VERIFIED: ("✓ verified", "$text-success"),
    FileState.DAMAGED: ("✗ damaged", "$text-error"),
}


@dataclass(frozen=True, slots=True)
class FileRow:
    """One line of the table: path, size, on disk, state or progress."""

    path: str
    cells: tuple[Content, ...]


def file_rows(
    model: ModelStatus | None, items: Sequence[ProgressItem], charset: str = "braille"
) -> tuple[FileRow, ...]:
    """The files, the largest first; what a running job says of a file stands over what the disk says."""
    if model is None:
        return ()
    progress = {item.name: item for item in items}
    ordered = sorted(model.files, key=lambda file: (-(file.size or 0), file.path))
    return tuple(_row(file, progress.get(file.path), charset) for file in ordered)


def _row(file: ModelFile, item: ProgressItem | None, charset: str) -> FileRow:
    words, style = _STATES[file.state]
    on_disk = float(file.on_disk)
    state = Content.assemble((words, style))
    if item is not None and item.state == "running":
        share = item.done / item.total if item.total else None
        percent = f" {share:4.0%}" if share is not None else ""
        state = Content.assemble(bar(share, 13, charset), percent)
    elif item is not None and item.state == "done":
        state = Content.assemble(("✓ done", "$text-success"))
    elif item is not None and item.state == "failed":
        state = Content.assemble(("✗ failed", "$text-error"))
    elif item is not None:
        state = Content.assemble(("· waiting", "$text-muted"))
    if item is not None and item.state in ("running", "done"):
        on_disk = max(on_disk, item.done)
    size = Content(f"{format_bytes(file.size):>9}")
    return FileRow(file.path, (Content(file.path), size, Content(f"{format_bytes(on_disk):>9}"), state))


def model_text(state: ConsoleState, now: float) -> Content:
    """Repository and revision, totals and free space, and Ollama's copy: always three lines."""
    model = state.model
    asking = Content("")
    if state.hub_asked is not None:
        asking = busy_text("asking the Hub", now - state.hub_asked, state.key("models.stop"))
    if model is None:
        note = state.model_note or ("" if asking else "asking the disk…")
        return Content("\n").join([Content.assemble((note, "$text-muted")), asking, _ollama(state)])
    name = Content.assemble(
        (model.repo, "bold"), (f"  revision {model.revision or 'not known'}", "$text-muted")
    )
    here = sum(file.on_disk for file in model.files)
    parts = [
        Content(f"{format_bytes(here)} of {format_bytes(model.total_bytes)} on disk"),
        Content(f"{format_bytes(model.free_bytes)} free"),
    ]
    if model.converted:
        parts.append(Content("converted to safetensors"))
    if asking:
        parts.append(asking)
    elif state.model_note:
        parts.append(Content.assemble((state.model_note, "$text-warning")))
    elif model.detail:
        parts.append(Content(model.detail))
    return Content("\n").join([name, joined(parts), _ollama(state)])


def _ollama(state: ConsoleState) -> Content:
    pull = state.key("models.pull")
    ollama = state.backend("ollama")
    if ollama is None:
        return Content("")
    words = f"{ollama.model or 'no tag'}: {ollama.state.value}"
    if ollama.state is BackendState.MODEL_MISSING:
        words += f" · {pull} pulls it"
    elif ollama.state is BackendState.UNAVAILABLE:
        words += f" · {ollama.detail}"
    return Content.assemble(("Ollama  ", "bold $series-ollama"), words)


def outcome_text(state: ConsoleState) -> Content:
    """The running job in all, or how the last one ended, or what to do."""
    job = state.running("download", "verify", "pull", "remove")
    if job is not None:
        return _running(job, state.key("everywhere.cancel"))
    ended = [state.ended[kind] for kind in ("download", "verify", "pull", "remove") if kind in state.ended]
    last = max(ended, key=lambda update: update.job_id, default=None)
    if last is not None and last.state is JobState.FAILED and last.failure is not None:
        return failure_text(last.failure.what, last.failure.why, last.failure.remedy)
    if last is not None and last.state is JobState.CANCELLED:
        return Content.assemble(
            (f"– {last.title}: cancelled. ", "bold $text-warning"), _advice(state) or "What is here was kept."
        )
    return _advice(state)


def _running(job: JobUpdate, cancel: str) -> Content:
    if not job.items:
        return job_text(job)
    done = sum(item.state == "done" for item in job.items)
    files = f"{done} of {len(job.items)} files done · {cancel} cancels"
    return Content.assemble(job_text(job), "\n", (files, "$text-muted"))


def _advice(state: ConsoleState) -> Content:
    model, key = state.model, "bold $footer-key-foreground"
    download, load = state.key("models.download"), state.key("everywhere.load")
    if model is None:
        return Content("")
    if any(file.state is FileState.DAMAGED for file in model.files):
        return Content.assemble(
            ("✗ Some files are damaged. ", "bold"), (download, key), " fetches those again, no others."
        )
    if not model.complete:
        missing = format_bytes(model.missing_bytes)
        resumes = any(file.state is FileState.PARTIAL for file in model.files)
        verb = "goes on with the download" if resumes else "starts the download"
        return Content.assemble((download, key), f" {verb} of {missing}.")
    if state.ready("native"):
        return Content.assemble(("✓ Complete", "bold $text-success"), " and loaded by the native backend.")
    return Content.assemble(
        ("✓ Complete. ", "bold $text-success"), (load, key), " loads it into the native backend."
    )
