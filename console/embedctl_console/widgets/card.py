"""One backend at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl.format import ABSENT, format_bytes, format_clock, format_duration, format_number
from embedctl.records import BackendState
from embedctl_console.follow import console_of, follow
from embedctl_console.widgets.standing import does_badly, health_words
from embedctl_console.widgets.text import Text, joined

if TYPE_CHECKING:
    from embedctl.records import BackendHealth, BackendStatus, Sample
    from embedctl_console.state import ConsoleState, Topic

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
        subtitle = "◆ active" if state.status.active == self.backend else ""
        if self.border_subtitle != subtitle:
            self.border_subtitle = subtitle
        health = state.health_of(self.backend)
        words = health_words(health)
        title = joined([Content(self.backend), words]).markup
        if self.border_title != title:
            self.border_title = title
        self.show(
            card_text(
                status,
                state.status.sample,
                now=console_of(self).clock(),
                lines=self.content_size.height,
                width=self.content_size.width,
                health=health,
            )
        )


def card_text(
    status: BackendStatus,
    sample: Sample | None,
    *,
    now: float,
    lines: int,
    width: int = 80,
    health: BackendHealth | None = None,
) -> Content:
    """The card's lines, the most important ones first; fewer are shown where there is less room."""
    sign, style = STATE_SIGNS[status.state]
    head = [Content.assemble((f"{sign} {status.state.value}", f"bold {style}"))]
    if status.state is BackendState.READY:
        head.append(
            Content(" ".join(part for part in (status.device, status.dtype, status.attention) if part))
        )
        if status.ready_since is not None and width >= 48:
            head.append(Content(f"since {format_clock(status.ready_since)[:5]}"))
    rows = [joined(head), _model(status)]
    if health is not None and does_badly(health) and status.state is BackendState.READY:
        rows[1:] = [Content.assemble((health.why, "$text-warning")), *([_model(status)] if lines > 4 else [])]
    if status.state is BackendState.READY:
        rows += [
            _memory(status, sample, width),
            _latency(status.name, sample, width),
            *_more(status, sample, now),
        ]
    else:
        why = [Content(text) for text in (status.detail, status.remedy and f"→ {status.remedy}") if text]
        rows = [rows[0], *why, rows[1], _dim(status.version or "")]
    return Content("\n").join(row for row in rows[: max(1, lines)])


def _model(status: BackendStatus) -> Content:
    revision = status.revision[:7] if status.revision else None
    return Content((status.model or "no model") + (f"@{revision}" if revision else ""))


def _memory(status: BackendStatus, sample: Sample | None, width: int) -> Content:
    measured = format_bytes(sample.get(f"{status.name}_gpu_memory") if sample else None)
    claimed = format_bytes(status.claimed_bytes)
    roomy = width >= 44
    text = f"{measured} measured · {claimed} claimed" if roomy else f"{measured} ({claimed} claimed)"
    return Content.assemble(("memory  ", "$text-muted"), text)


def _latency(name: str, sample: Sample | None, width: int) -> Content:
    figures = [
        Content.assemble(
            (f"{what} ", "$text-muted"), format_number(sample.get(f"{name}_{what}") if sample else None)
        )
        for what in ("p50", "p95", "probe")
    ]
    label = ("latency ", "$text-muted") if width >= 44 else ""
    return Content.assemble(label, joined(figures, "  "), " ms")


def _more(status: BackendStatus, sample: Sample | None, now: float) -> list[Content]:
    """What only a tall card has room for."""
    rate = sample.get(f"{status.name}_rate") if sample else None
    host = sample.get(f"{status.name}_rss") if sample else None
    rows = [
        Content.assemble(
            ("rate    ", "$text-muted"), f"{format_number(rate)} texts/s" if rate is not None else ABSENT
        ),
        Content.assemble(("host    ", "$text-muted"), f"{format_bytes(host)} in {_processes(status)}"),
    ]
    if status.expires_at is not None:
        rows.append(Content.assemble(("until   ", "$text-muted"), _expiry(status.expires_at - now)))
    rows.append(_dim(status.version or ""))
    if status.claimed_source:
        rows.append(_dim(f"claimed: {status.claimed_source}"))
    rows += [_dim(note) for note in status.notes]
    return [row for row in rows if row.plain]


def _processes(status: BackendStatus) -> str:
    pids = sorted(status.pids)
    if not pids:
        return "no process of its own"
    return f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes"


def _expiry(seconds: float) -> str:
    return f"unloads by itself in {format_duration(seconds)}" if seconds > 0 else "about to unload by itself"


def _dim(text: str) -> Content:
    return Content.assemble((text, "$text-muted"))
