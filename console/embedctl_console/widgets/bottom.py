"""The bottom of every screen: the jobs that run, and the keys that work here and now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from textual.content import Content
from textual.widget import Widget

from embedctl.format import format_bytes, format_duration, format_rate
from embedctl_console.actions import key_name
from embedctl_console.follow import console_of, follow
from embedctl_console.widgets.text import Text, bar, joined, keyed

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import ActiveBinding
    from textual.screen import Screen

    from embedctl.records import JobUpdate
    from embedctl_console.state import ConsoleState, Topic

_JOBS_SHOWN: Final = 2
_ALWAYS: Final = ("everywhere.help", "everywhere.quit")
"""Ids of the bindings that keep their place at the right end however narrow the screen is."""


class BottomBar(Widget):
    """Stands on every screen."""

    DEFAULT_CSS = """
    BottomBar {
        dock: bottom;
        height: auto;
        layout: vertical;
        & > #jobs { height: auto; padding: 0 1; background: $panel; display: none; }
        & > #keys { height: 1; padding: 0 1; background: $surface; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Text(id="jobs")
        keys = Text(id="keys")
        keys.auto_links = False  # they can be clicked and keep their colours
        yield keys

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._show_keys)
        self._show_keys(self.screen)
        follow(self, self.show_state)

    def on_resize(self) -> None:
        self._show_keys(self.screen)
        state = console_of(self).state
        if state is not None:
            self._show_jobs(state.status.jobs)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        from embedctl_console.state import Topic

        if changed & Topic.JOBS:
            self._show_jobs(state.status.jobs)

    def _show_keys(self, screen: Screen[object]) -> None:
        if screen.is_current:
            line = keys_line(screen.active_bindings.values(), self.size.width - 2)
            self.query_one("#keys", Text).show(line)

    def _show_jobs(self, running: Sequence[JobUpdate]) -> None:
        strip = self.query_one("#jobs", Text)
        told = getattr(self.screen, "TELLS", ())
        jobs = [job for job in running if job.kind not in told]
        strip.display = bool(jobs)
        if jobs:
            charset = console_of(self).engine.settings.console.charset
            lines = [job_line(job, self.size.width - 2, charset) for job in jobs[-_JOBS_SHOWN:]]
            strip.show(Content("\n").join(lines))


def job_line(job: JobUpdate, width: int, charset: str = "braille") -> Content:
    """A running job on one line: title, step, bar, rate, time left."""
    share = share_done(job)
    facts = joined([Content(text) for text in progress_words(job)])
    title = Content.assemble((job.title, "bold"), f"  {job.step}" if job.step else "")
    room = width - facts.cell_length - 4
    if share is None:
        return Content.assemble(title.truncate(max(10, room), ellipsis=True), "  ", facts)
    title = title.truncate(max(10, room - 12), ellipsis=True)
    cells = max(8, min(40, room - title.cell_length))
    return Content.assemble(title, "  ", bar(share, cells, charset), "  ", facts)


def job_text(job: JobUpdate, charset: str = "braille") -> Content:
    """A running job on a line or two, for the screen that is about it: title and step; bar and figures."""
    rows = [Content.assemble(("▸ ", "$text-accent"), (job.title, "bold"), f"  {job.step}")]
    share = share_done(job)
    if share is not None:
        facts = joined([Content(words) for words in progress_words(job)])
        rows.append(Content.assemble(bar(share, 24, charset), f" {share:4.0%}  ", facts))
    return Content("\n").join(rows)


def share_done(job: JobUpdate) -> float | None:
    """How much of the running step is done, from 0 to 1; None where nobody counts."""
    return job.done / job.total if job.done is not None and job.total else None


def progress_words(job: JobUpdate) -> list[str]:
    """What can be counted of a job: done of total, rate, time left."""
    words = []
    if job.done is not None and job.total:
        if job.unit == "bytes":
            words.append(f"{format_bytes(job.done)} of {format_bytes(job.total)}")
        elif job.unit == "seconds":  # planned ones: what is left of them is all that is worth saying
            words.append(f"{job.done / job.total:.0%}")
        else:
            words.append(f"{job.done:,.0f} of {job.total:,.0f} {job.unit}".rstrip())
    if job.rate is not None and job.unit != "seconds":
        words.append(format_rate(job.rate, job.unit))
    if job.eta is not None:
        words.append(f"{format_duration(job.eta)} left")
    return words


def keys_line(bindings: Iterable[ActiveBinding], width: int) -> Content:
    """The keys to show, those of the focus first; what does not fit is left out before help and quit."""
    by_action: dict[str, ActiveBinding] = {}
    for active in bindings:
        if active.binding.show and active.enabled:
            by_action.setdefault(active.binding.action, active)  # one of several keys is enough here
    shown = list(by_action.values())
    last = [_key(active) for active in shown if active.binding.id in _ALWAYS]
    rest = [_key(active) for active in shown if active.binding.id not in _ALWAYS]
    gap = Content("  ")
    end = gap.join(last)
    line: list[Content] = []
    room = width - end.cell_length - 2
    for key in rest:
        room -= key.cell_length + 2
        if room < 0:
            break
        line.append(key)
    return gap.join([*line, *last])


def _key(active: ActiveBinding) -> Content:
    binding = active.binding
    key = binding.key.split(",")[0]
    return keyed(binding.key_display or key_name(key), binding.description, key)
