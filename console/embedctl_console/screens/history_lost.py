"""Lost ends on the History screen: found, marked, gone to and played."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import tzinfo
from typing import Final

from embedctl.errors import EmbedctlError
from embedctl.events import ConnectionChanged
from embedctl.format import format_moment
from embedctl_console.screens.history_charts import HistoryCharts
from embedctl_console.screens.history_ends import LostEnd, find_ends, lost_mark, lost_text, resumed_text
from embedctl_console.screens.history_replay import AFTER_S, REPLAYED_S, Footage
from embedctl_console.screens.history_text import resolution_text
from embedctl_console.screens.replay import ReplayScreen
from embedctl_console.state import ConsoleState, Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.chart import Mark

FINE: Final = 3_600
"""Entries that statistics and the replay are made of, where as many are stored."""
_REACH: Final = 0.012
"""Share of the window within which a moment counts as being under the cursor."""


class HistoryEnds(HistoryCharts):
    """The charts with the moments where the recording broke off."""

    def __init__(self, *, clock: Callable[[], float] = time.time, tz: tzinfo | None = None) -> None:
        super().__init__(clock=clock, tz=tz)
        self._ends: tuple[LostEnd, ...] = ()
        """Where the recording broke off, newest first."""
        self._sought: tuple[ConnectionChanged | None, float] | None = None
        """What there was to find them by when they were last looked for: the connection, the newest start."""

    def on_mount(self) -> None:
        state = self.console.state
        if state is not None:
            self._seek(state)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if changed & (Topic.CONNECTION | Topic.EVENTS):
            self._seek(state)

    def _seek(self, state: ConsoleState) -> None:
        """Look for lost ends, unless nothing has come since that could tell of another."""
        connection = state.connection
        started = max((event.at for event in state.events if event.kind == "start"), default=0.0)
        if self._sought is not None:
            if connection is not None and not connection.connected:
                return
            before, known = self._sought
            if connection is before and started <= known:  # the list forgets older starts
                return
            started = max(started, known)
        self._sought = connection, started
        self.run_worker(self._find_ends(), group="history-ends", exclusive=True)

    def more_marks(self) -> tuple[Mark, ...]:
        return tuple(lost_mark(end) for end in self._ends)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("lost_end", "replay"):
            return bool(self._ends)
        return super().check_action(action, parameters)

    def _near(self, moments: list[float]) -> int | None:
        """Index of the moment under the cursor."""
        at = self._main.cursor
        if at is None or not moments:
            return None
        nearest = min(range(len(moments)), key=lambda index: abs(moments[index] - at))
        since, until = self._main.window
        return nearest if abs(moments[nearest] - at) <= _REACH * (until - since) else None

    def _lost_text(self, end: LostEnd) -> str:
        keys = f"{self._key('lost-end')} shows, {self._key('replay')} plays it"
        return f"{lost_text(end, self._tz)} · {keys}\nwithout a goodbye; {resumed_text(end)}"

    def _moment(self, at: float) -> str:
        return format_moment(at, self._tz)

    async def _find_ends(self) -> None:
        try:
            self._ends = await run_in_thread(find_ends, self.console.engine)
        except EmbedctlError as error:
            self.show_error(error)
            return
        if self._ends and self._stands:
            self.refresh_bindings()
            self.show_series()
            self._show_ranges()
            self.show_cursor()

    def action_lost_end(self) -> None:
        """Go to the last minute before the recording broke off; again: to the one before that."""
        cursor = self._main.cursor
        earlier = [end for end in self._ends if cursor is None or end.at < cursor - 1e-6]
        end = (earlier or [*self._ends])[0]
        self.put_cursor(end.at)
        self.move_window(end.at - REPLAYED_S, end.at + AFTER_S, live=False)

    def action_replay(self) -> None:
        """Play the last minute before the lost end at the cursor, else before the newest one."""
        near = self._near([end.at for end in self._ends])
        self.run_worker(self._replay(self._ends[near or 0]), group="history-replay", exclusive=True)

    async def _replay(self, end: LostEnd) -> None:
        since, until = end.at - 2 * REPLAYED_S - AFTER_S, end.at + AFTER_S
        try:
            found = await run_in_thread(self.console.engine.history, since, until, points=FINE)
        except EmbedctlError as error:
            self.show_error(error)
            return
        footage = Footage.of(end, found)
        if footage.plays:
            self.app.push_screen(ReplayScreen(footage, clock=self._clock, tz=self._tz))
        else:
            kept = f"only entries of {resolution_text(found.resolution)} are left of that time"
            self.app.notify(
                f"{kept}; the settings [history] say how long finer ones are kept.", title="Nothing to play"
            )
