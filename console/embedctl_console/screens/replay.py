"""The replay of the last minute before a lost end: charts that scroll, and the exact figures as they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, ClassVar, Final

from textual import events, on
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message

from embedctl_console.actions import NO_KEYMAP, bindings_of, key_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.history_ends import resumed_text
from embedctl_console.screens.history_panels import fill_charts, make_charts
from embedctl_console.screens.history_replay import (
    AFTER_S,
    REPLAYED_S,
    Footage,
    Playhead,
    last_event,
    readings_text,
    state_text,
    transport_text,
)
from embedctl_console.screens.history_text import event_text
from embedctl_console.widgets.chart import ChartView
from embedctl_console.widgets.text import Text

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType

_TICK: Final = 0.1
"""Seconds between two looks at the clock while it plays."""
_LONGEST_TICK: Final = 1.0
"""Seconds: what passed while the process was stopped, or while the clock was set, is not played."""


class Transport(Text):
    """Where the replay stands. A click on the bar goes there."""

    @dataclass
    class Sought(Message):
        """The user pointed at a place: 0 is the begin, 1 the end."""

        share: float

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and offset.y == 1:
            self.post_message(self.Sought(offset.x / max(1, self.content_size.width - 3)))


class ReplayScreen(ConsoleScreen):
    """Plays one lost end; escape goes back to History."""

    WHERE = "replay"
    CSS_PATH = "replay.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 - no ClassVar in Textual either
    VERTICAL_BREAKPOINTS = [(0, "-short"), (34, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("replay")]

    def __init__(
        self, footage: Footage, *, clock: Callable[[], float] = time.time, tz: tzinfo | None = None
    ) -> None:
        """A replay that begins to play at once.

        Args:
            footage: One that `plays`.
            clock: The present, in Unix seconds.
            tz: The zone of all times shown; None: local time.
        """
        super().__init__()
        self._footage = footage
        self._head = Playhead(footage.moments)
        self._clock = clock
        self._tz = tz
        self._ticked = clock()
        self._charts: tuple[ChartView, ...] = ()
        self._drawn: tuple[float, str] | None = None
        """The entry and the state that the charts show."""

    def compose_body(self) -> ComposeResult:
        charset = self.console.engine.settings.console.charset
        span = REPLAYED_S + AFTER_S
        state = self.console.state
        step = f"{key_of('replay.leave', state.keymap if state is not None else NO_KEYMAP)} to go back"
        self._charts = make_charts(ChartView, charset, span, self._clock, self._tz, step=step)
        yield Transport(id="transport")
        with Horizontal(id="body"):
            with Vertical(id="charts"):
                yield from self._charts
            with VerticalScroll(id="side", can_focus=False):
                yield Text(id="readings")
        yield Text(id="detail")

    def on_mount(self) -> None:
        self.set_interval(_TICK, self._tick)
        self.call_after_refresh(self._show)

    def on_resize(self) -> None:
        self._drawn = None
        self.call_after_refresh(self._show)

    def _tick(self) -> None:
        now = self._clock()
        passed, self._ticked = now - self._ticked, now
        if self._head.playing and self.is_current:
            self._head.advance(min(max(passed, 0.0), _LONGEST_TICK))
            self._show()

    def _show(self) -> None:
        head, footage = self._head, self._footage
        charset = self.console.engine.settings.console.charset
        transport = self.query_one(Transport)
        if not transport.content_size.width:
            return
        transport.show(transport_text(head, footage, transport.content_size.width, self._tz, charset))
        state = state_text(head, charset)
        if (head.shown, state) == self._drawn:
            return
        self._drawn = (head.shown, state)
        seen = footage.seen_at(head.shown)
        for chart in self._charts:
            chart.badge = state
        at, marks = head.shown, footage.marks_at(head.shown)
        window = (at - REPLAYED_S, at + AFTER_S)
        fill_charts(self._charts, self.console, seen, marks, window=window, live=False, cursor=at)
        self.query_one("#readings", Text).show(readings_text(seen, head.shown))
        event = last_event(seen)
        if head.ended:
            text = f"X no goodbye was recorded; {resumed_text(footage.end)}"
        elif event is not None:
            text = event_text(event, self._tz)
        else:
            text = "no event in these two minutes so far"
        self.query_one("#detail", Text).show(text.splitlines()[0])

    # What the user does

    def action_play(self) -> None:
        self._head.play_or_pause()
        self._ticked = self._clock()
        self._show()

    def action_speed(self, direction: int) -> None:
        self._head.change_speed(direction)
        self._show()

    def action_step(self, entries: int) -> None:
        self._head.step(entries)
        self._show()

    def action_jump(self, direction: int) -> None:
        self._head.jump(1.0 if direction > 0 else 0.0)
        self._show()

    @on(Transport.Sought)
    def _sought(self, message: Transport.Sought) -> None:
        self._head.jump(message.share)
        self._show()

    def action_leave(self) -> None:
        self.dismiss()
