"""Keeps what is drawn in step with the line to the terminal.

A terminal that is asked where its cursor is answers once it has shown all that came before. So the time to
the answer is how far the screen is behind: over a serial line or a bad connection that may be a minute, since
what lies on the way takes a hundred kilobytes before a write is ever held up.

On a line that is slow no frame is sent before the last one was shown, only what differs is sent (`paint`),
and news are drawn every few seconds. A key's effect then waits for one frame at most.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

from embedctl_console.actions import NO_KEYMAP, key_of
from embedctl_console.bridge import FLUSH_SELDOM, Bridge
from embedctl_console.line import Line, Speed
from embedctl_console.paint import Cell, cells_of, difference

if TYPE_CHECKING:
    from textual.driver import Driver
    from textual.strip import Strip

    from embedctl_console.app import ConsoleApp

QUESTION: Final = "\x1b[6n"
_ASK_EVERY_S: Final = 1.0
"""Between two questions on a line that is fast."""
_LAST_ANSWER_S: Final = 3.0
"""How long the end waits for an answer, which would otherwise be typed into the shell."""


class Pace:
    """Draws in the app's place while the line is slow, and finds out whether it is.

    On a line not known yet only the first frame is drawn at once. All on the event loop's thread.
    """

    def __init__(self, app: ConsoleApp, bridge: Bridge, *, slow: bool) -> None:
        """
        Args:
            bridge: Brings the news, on a slow line seldom.
            slow: The line is slow, whatever the terminal answers.
        """
        self._app = app
        self._bridge = bridge
        self._usual = bridge.interval, app.animation_level
        self._line = Line()
        self._wanted: Speed | None = None
        """What the user has said; None: it goes by the answers."""
        self._shown: list[list[Cell]] | None = None
        """What this has drawn last; None: Textual has drawn since."""
        self._first_drawn = False
        self._waiting = False
        """Something is to be drawn."""
        self._timer: asyncio.Handle | None = None
        self._ended: asyncio.Event | None = None
        self._told_slow = slow
        self.take_setting("auto")

    @property
    def speed(self) -> Speed:
        return self._wanted or self._line.speed

    def take_setting(self, wanted: Literal["auto", "always", "never"]) -> None:
        """Go by the setting `console.slow_line`; where it is auto, by `--slow` or by the answers."""
        if wanted != "auto":
            self._want(Speed.SLOW if wanted == "always" else Speed.FAST)
        else:
            self._want(Speed.SLOW if self._told_slow else None)

    def toggle(self) -> bool:
        """Go from slow to fast or back, whatever the terminal answers; whether it is slow now."""
        self._want(Speed.FAST if self.speed is Speed.SLOW else Speed.SLOW)
        return self.speed is Speed.SLOW

    def _want(self, speed: Speed | None) -> None:
        before, self._wanted = self.speed, speed
        self._changed_from(before)

    # Drawing

    def takes(self) -> bool:
        """Whether the next frame is drawn here; called when there is one. False: Textual is to draw it."""
        if self._driver is None:
            return False
        self._look(time.monotonic())
        if self.speed is Speed.FAST or (self.speed is Speed.UNKNOWN and not self._first_drawn):
            self._first_drawn = True
            asyncio.get_running_loop().call_soon(self._ask, _ASK_EVERY_S)
            return False
        self._waiting = True
        self._go_on()
        return True

    @property
    def _driver(self) -> Driver | None:
        """The driver of a terminal; None where there is none, or a browser that holds back frames itself.

        None, too, once the app ends: an answer to a question asked then would go to the shell.
        """
        app = self._app
        return None if app.is_headless or app.is_web or app._exit or not app.is_running else app._driver

    def _go_on(self) -> None:
        """Draw once nothing is on the way any more."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        if self._line.asked_at is not None:
            self._timer = loop.call_later(self._line.wait_s(), self._waited)
        elif self._waiting:
            self._timer = loop.call_soon(self._draw)

    def _waited(self) -> None:
        self._look(time.monotonic())
        self._go_on()

    def _draw(self) -> None:
        driver, app = self._driver, self._app
        if driver is None or not self._waiting or self.speed is Speed.FAST:
            return
        self._waiting = False
        now = [cells_of(strip, app.size.width) for strip in strips_of(app)]
        before = self._shown
        if before is not None and [len(line) for line in before] != [len(line) for line in now]:
            before = None
        text = difference(before, now, erases=_erases(), colours=app.console.color_system is not None)
        self._shown = now
        if text:
            x, y = app.cursor_position
            driver.write(f"{text}\x1b[{y + 1};{x + 1}H")
            self._ask()
        self._go_on()

    # The line

    def _ask(self, every: float = 0.0) -> None:
        now = time.monotonic()
        driver = self._driver
        if driver is None or self._ended is not None or self._wanted is Speed.FAST:
            return
        if self._line.worth_asking(now, every):
            driver.write(QUESTION)
            self._line.asked(now)

    def answered(self, at: float) -> None:
        """The terminal has answered, at this monotonic time."""
        before = self.speed
        self._line.answered(at)
        if self._ended is not None:
            self._ended.set()
        self._changed_from(before)
        if self.speed is not Speed.FAST:
            self._go_on()

    def _look(self, at: float) -> None:
        before = self.speed
        self._line.look(at)
        self._changed_from(before)

    def _changed_from(self, before: Speed) -> None:
        now = self.speed
        if now is before:
            return
        slow = now is Speed.SLOW
        self._bridge.interval, self._app.animation_level = (FLUSH_SELDOM, "none") if slow else self._usual
        if slow and self._wanted is None:
            state = self._app.state
            palette = key_of("everywhere.palette", state.keymap if state is not None else NO_KEYMAP)
            self._app.notify(
                "So it draws less: news every few seconds, fewer colours. "
                f"`Slow line` in the palette ({palette}) goes back.",
                title="The terminal does not keep up", severity="warning", timeout=10,
            )  # fmt: skip
        if now is Speed.FAST and (self._waiting or self._shown is not None):
            self._app.screen.refresh()
        self._waiting, self._shown = self._waiting and slow, self._shown if slow else None

    async def end(self) -> None:
        """Ask no more, and wait for the last answer."""
        self._ended = asyncio.Event()
        if self._line.asked_at is not None and self._driver is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _LAST_ANSWER_S)


def strips_of(app: ConsoleApp) -> list[Strip]:
    """The whole screen with what shows through from behind it, line by line."""
    from textual._compositor import LayoutUpdate
    from textual.strip import Strip

    drawn = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    assert isinstance(drawn, LayoutUpdate)
    return [Strip.join(line) for line in drawn.strips]


@cache
def _erases() -> bool:
    """Whether the terminal fills what it erases with the background colour, as terminfo knows it."""
    try:
        import curses

        curses.setupterm()
        return curses.tigetflag("bce") == 1
    except Exception:  # no curses in this Python, or no such terminal in its data
        return False
