"""Following a job from the command line: its progress on stderr, Ctrl-C cancels it."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from embedctl.cli.output import say
from embedctl.errors import Cancelled, EmbedctlError
from embedctl.format import format_bytes, format_duration, format_rate
from embedctl.records import JobState, JobUpdate

if TYPE_CHECKING:
    from embedctl.engine.facade import JobHandle

_EVERY = 0.2
_CANCEL_SECONDS = 30.0


def follow(job: JobHandle) -> Any:
    """Wait for the job and return its result; progress goes to stderr where that is a terminal.

    Raises:
        EmbedctlError: The job failed; carries its three lines.
        Cancelled: It was cancelled by Ctrl-C.
    """
    line = _ProgressLine()
    seen_steps = 0
    try:
        while True:
            try:
                update = job.wait(_EVERY)
            except TimeoutError:
                update = job.update
            seen_steps = _tell_steps(update, seen_steps, line)
            if update.state is not JobState.RUNNING:
                break
            line.show(update)
    except KeyboardInterrupt:
        line.clear()
        say("cancelling…")
        job.cancel()
        try:
            update = job.wait(_CANCEL_SECONDS)
        except TimeoutError:  # a request under way is not cut short; closing the engine ends it
            raise Cancelled(f"{job.update.title}: given up, it did not stop in time") from None
    line.clear()
    if update.failure is not None:
        raise EmbedctlError(update.failure.what, why=update.failure.why, remedy=update.failure.remedy)
    if update.state is JobState.CANCELLED:
        raise Cancelled(f"{update.title}: cancelled")
    return update.result


def _tell_steps(update: JobUpdate, seen: int, line: _ProgressLine) -> int:
    """One line for each step that has ended since the last look."""
    ended = [step for step in update.steps if step.state != "running"]
    for step in ended[seen:]:
        line.clear()
        took = f" {format_duration(step.seconds)}" if step.seconds is not None else ""
        memory = f", GPU memory {format_bytes(step.gpu_memory)}" if step.gpu_memory is not None else ""
        say(f"  {step.state:<8} {step.name}{took}{memory}" + (f" — {step.detail}" if step.detail else ""))
    return len(ended)


class _ProgressLine:
    """One line at the bottom of a terminal that is written over; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._width = 0

    def show(self, update: JobUpdate) -> None:
        if not self._shown:
            return
        text = f"{update.title}: {update.step or 'starting'}"
        if update.done is not None and update.total:
            text += f" {update.done / update.total:.0%}"
            if update.unit == "bytes":
                text += f" of {format_bytes(update.total)}"
        if update.rate and update.unit not in ("", "seconds"):
            text += f", {format_rate(update.rate, update.unit)}"
        if update.eta is not None:
            text += f", {format_duration(update.eta)} left"
        text = text[: shutil.get_terminal_size().columns - 1]  # a line that wraps cannot be written over
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def clear(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0
