"""One backend at a glance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import (
    format_bytes,
    format_clock,
    format_duration,
    format_number,
    format_rate,
    local_time,
)
from embedctl.records import BackendState
from embedctl.series import columns
from embedctl_console.follow import console_of, follow
from embedctl_console.widgets.standing import does_badly, health_words
from embedctl_console.widgets.text import Text, joined, spark

if TYPE_CHECKING:
    from embedctl.records import BackendHealth, BackendStatus, Sample
    from embedctl_console.state import ConsoleState, Topic

_FEW: Final = 4
"""Lines of a card on a short screen."""
_ROOMY: Final = 44
"""Cells from which on figures have their labels."""
_SPARK_CELLS, _SPARK_STEP = 20, 15.0
"""A sparkline is so many cells of so many seconds."""
_A_DAY: Final = 86_400.0

STATE_SIGNS: Final[Mapping[BackendState, tuple[str, str]]] = {
    BackendState.UNKNOWN: ("?", "$text-muted"),
    BackendState.UNAVAILABLE: ("✗", "$text-warning"),
    BackendState.MODEL_MISSING: ("○", "$text-warning"),
    BackendState.UNLOADED: ("○", "$text-muted"),
    BackendState.LOADING: ("◐", "$text-accent"),
    BackendState.READY: ("●", "$text-success"),
    BackendState.UNLOADING: ("◑", "$text-accent"),
    BackendState.FAILED: ("✗", "$text-error"),
}
"""By state: a sign and its colour. The state's name always stands beside them."""


class BackendCard(Text, can_focus=True):
    """What is known of one backend. With the focus, `l` and `u` are about it."""

    DEFAULT_CSS = """
    BackendCard {
        height: 6;
        width: 1fr;
        border: round $border;
        padding: 0 1;
        border-title-style: bold;
        text-overflow: ellipsis;
        border-subtitle-color: $text-success;
        &:focus { border: round $primary; background: $surface; }
        &.-native { border-title-color: $series-native; }
        &.-ollama { border-title-color: $series-ollama; }
    }
    """

    def __init__(self, backend: str) -> None:
        super().__init__(id=f"card-{backend}", classes=f"-{backend}")
        self.backend = backend
        self.border_title = backend

    def on_mount(self) -> None:
        follow(self, self.show_state)

    def on_resize(self) -> None:
        state = console_of(self).state
        if state is not None:
            self._show(state)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        from embedctl_console.state import Topic

        if changed & (Topic.BACKENDS | Topic.SAMPLE | Topic.HEALTH):
            self._show(state)

    def _show(self, state: ConsoleState) -> None:
        status = state.backend(self.backend)
        if status is None:
            self.show("This backend is not known here.")
            return
        now = console_of(self).clock()
        subtitle = _active(state, now) if state.status.active == self.backend else ""
        if self.border_subtitle != subtitle:
            self.border_subtitle = subtitle
        health = state.health_of(self.backend)
        title = joined([Content(self.backend), health_words(health)]).markup
        if self.border_title != title:
            self.border_title = title
        width, lines = self.content_size
        self.show(
            card_text(
                status,
                state.status.sample,
                now=now,
                lines=lines,
                width=width,
                health=health,
                on_gpu=state.status.machine is None or state.status.machine.gpu is not None,
                rates=self._sparkline(state, now) if lines > _FEW else "",
            )
        )

    def _sparkline(self, state: ConsoleState, now: float) -> str:
        """Texts per second in the last minutes; it moves on a whole cell at once, every few seconds."""
        rates = state.recent.series(f"{self.backend}_rate")
        if not len(rates):
            return ""
        until = math.ceil(now / _SPARK_STEP) * _SPARK_STEP
        found = columns(rates, until - _SPARK_CELLS * _SPARK_STEP, until, _SPARK_CELLS)
        return spark(found.mean.tolist(), console_of(self).engine.settings.console.charset)


def card_text(
    status: BackendStatus,
    sample: Sample | None,
    *,
    now: float,
    lines: int,
    width: int = 80,
    health: BackendHealth | None = None,
    on_gpu: bool = True,
    rates: str = "",
) -> Content:
    """The card's lines, the most important ones first; fewer are shown where there is less room.

    Args:
        on_gpu: The machine has a GPU; without one, memory is the processes' share of the host's.
        rates: A sparkline of texts per second.
    """
    if status.state is not BackendState.READY:
        return _not_ready(status, lines, width)
    model = _model(status, width)
    rows = [_head(status, now, width), model]
    if health is not None and does_badly(health):
        rows[1:] = [Content.assemble((health.why, "$text-warning")), *([model] if lines > _FEW else [])]
    rows += [
        _memory(status, sample, width, on_gpu=on_gpu),
        _latency(status.name, sample, width, with_rate=lines <= _FEW),
        *_more(status, sample, now, rates, width, on_gpu=on_gpu),
    ]
    return Content("\n").join(row for row in rows[: max(1, lines)])


def _not_ready(status: BackendStatus, lines: int, width: int) -> Content:
    """Why it is so and what to do; the remedy is worth more than the whole of the reason."""
    sign, style = STATE_SIGNS[status.state]
    detail, remedy = status.detail, f"→ {status.remedy}" if status.remedy else ""
    if 1 + sum(len(wrap(text, max(1, width))) for text in (detail, remedy)) > lines:
        detail = Content(detail).truncate(width, ellipsis=True).plain
    rows = [
        Content.assemble((f"{sign} {status.state.value}", f"bold {style}")),
        Content(detail),
        Content(remedy),
        _model(status, width),
    ]
    return Content("\n").join([row for row in rows if row.plain][: max(1, lines)])


def _head(status: BackendStatus, now: float, width: int) -> Content:
    """The state, what the model runs on, since when; the later parts yield where there is no room."""
    sign, style = STATE_SIGNS[status.state]
    state = Content.assemble((f"{sign} {status.state.value}", f"bold {style}"))
    parts = [part for part in (status.device, status.dtype, status.attention) if part]
    since = [Content(f"since {_since(status.ready_since, now)}")] if status.ready_since is not None else []
    forms = [joined([state, Content(" ".join(parts)), *since])]
    forms += [joined([state, Content(" ".join(parts[:count]))]) for count in range(len(parts), -1, -1)]
    return _longest(forms, width)


def _longest(forms: Iterable[Content], width: int) -> Content:
    """The first form that fits; the last one, if none does."""
    last = Content("")
    for form in forms:
        if form.cell_length <= width:
            return form
        last = form
    return last


def _active(state: ConsoleState, now: float) -> str:
    since = state.active_since
    return "◆ active" if since is None else f"◆ active since {_since(since, now)}"


def _since(at: float, now: float) -> str:
    """`11:40`, or with the day where that was longer ago."""
    return format_clock(at)[:5] if now - at < _A_DAY else local_time(at).strftime("%b %d %H:%M")


def _model(status: BackendStatus, width: int) -> Content:
    """The model with its revision; the backend's version too, where there is room for it."""
    revision = status.revision[:7] if status.revision else None
    model = Content((status.model or "no model") + (f"@{revision}" if revision else ""))
    whole = joined([model, _dim(status.version or "")])
    return whole if whole.cell_length <= width else model


def _memory(status: BackendStatus, sample: Sample | None, width: int, *, on_gpu: bool) -> Content:
    key = f"{status.name}_{'gpu_memory' if on_gpu else 'rss'}"
    found = sample.get(key) if sample else None
    measured, claimed = format_bytes(found), format_bytes(status.claimed_bytes)
    reason = ""
    if found is None and sample is not None:
        reason = "runs on another machine" if status.remote else sample.absence(key)
    label = ("memory  ", "$text-muted")
    line = Content.assemble(
        label, f"{measured} measured{'' if on_gpu else ' on the host'} · {claimed} claimed"
    )
    if reason and line.cell_length <= width:
        return Content.assemble(line, (f"  ({reason})", "$text-muted")).truncate(width, ellipsis=True)
    source = f"  ({status.claimed_source})" if status.claimed_source else ""
    forms = (
        Content.assemble(line, (source, "$text-muted")),
        line,
        Content.assemble(label, f"{measured} ({claimed} claimed)"),
        Content(f"{measured} (claims {claimed})"),
    )
    return _longest(forms, width)


def _latency(name: str, sample: Sample | None, width: int, *, with_rate: bool) -> Content:
    """Percentiles of the requests, the probe, and texts/s where that has no line of its own."""
    figures = {what: sample.get(f"{name}_{what}") if sample else None for what in ("p50", "p95", "probe")}
    if width < _ROOMY and with_rate:  # one of the two has to do
        for what in ("probe",) if figures["p50"] is not None else ("p50", "p95"):
            del figures[what]
    words = [
        Content.assemble((f"{what} ", "$text-muted"), format_number(value)) for what, value in figures.items()
    ]
    label = ("latency ", "$text-muted") if width >= _ROOMY else ""
    line = Content.assemble(label, joined(words, "  "), " ms")
    if not with_rate:
        return line
    rate = sample.get(f"{name}_rate") if sample else None
    endings = (
        ("  no requests",) if rate is None else tuple(f"  {format_rate(rate, u)}" for u in ("texts", ""))
    )
    return _longest([*(Content.assemble(line, ending) for ending in endings), line], width)


def _more(
    status: BackendStatus, sample: Sample | None, now: float, rates: str, width: int, *, on_gpu: bool
) -> list[Content]:
    """What only a tall card has room for."""
    rate = sample.get(f"{status.name}_rate") if sample else None
    speed = f"{format_number(rate)} texts/s" if rate is not None else "no requests"
    traffic = Content.assemble(("rate    ", "$text-muted"), speed)
    course = Content.assemble(traffic, " " * max(1, 15 - len(speed)), (rates, f"$series-{status.name}"))
    rows = [
        _longest([Content.assemble(course, (" 5 min", "$text-muted")), course, traffic], width)
        if rates
        else traffic
    ]
    if status.expires_at is not None:
        rows.append(Content.assemble(("until   ", "$text-muted"), _expiry(status.expires_at - now)))
    host = sample.get(f"{status.name}_rss") if sample and on_gpu else None
    held = f"{format_bytes(host)} in {_processes(status)}" if on_gpu else _processes(status)
    rows.append(Content.assemble(("host    ", "$text-muted"), held))
    return [*rows, *(_dim(note) for note in status.notes)]


def _processes(status: BackendStatus) -> str:
    pids = sorted(status.pids)
    if not pids:
        return "no process of its own"
    return f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes"


def _expiry(seconds: float) -> str:
    return f"unloads by itself in {format_duration(seconds)}" if seconds > 0 else "about to unload by itself"


def _dim(text: str) -> Content:
    return Content.assemble((text, "$text-muted"))
