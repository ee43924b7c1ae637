"""The Textual app: opens the engine beside the first paint, keeps the state, tells the screens."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Final

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.signal import Signal
from textual.widgets import Static

from embedctl.errors import EmbedctlError
from embedctl_console.actions import ACTIONS, EVERYWHERE, SCREENS, bindings_of, is_available
from embedctl_console.bridge import FLUSH_EVERY, Bridge
from embedctl_console.copying import copy
from embedctl_console.hangup import end_with_terminal
from embedctl_console.jobs import Jobs
from embedctl_console.modes import screen_maker
from embedctl_console.pace import Pace
from embedctl_console.palette import ActionsProvider
from embedctl_console.questions import Questions, deciding
from embedctl_console.tasks import run_in_thread
from embedctl_console.themes import DEFAULT_THEME, THEMES, next_theme

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual import events
    from textual.geometry import Size
    from textual.screen import Screen

    from embedctl.engine import EngineFacade
    from embedctl.events import ConnectionChanged, Message
    from embedctl_console.actions import Keymap
    from embedctl_console.state import ConsoleState, Topic

_NO_DELAY: Final = 0.001
"""Seconds; a timer takes no 0."""
_SETTLED: Final = 2.0
"""Seconds until all that a start brings into memory is there."""
_HEALTH_EVENTS: Final = frozenset({"health", "trial", "switch"})


def spare_collections() -> None:
    """Take what lives as long as the program out of the garbage collector's rounds.

    Each full one would otherwise hold up the keys for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


class ConsoleApp(App[None]):
    """The console over one engine.

    Slow calls run on threads of their own (`run_in_thread`); what they bring, and what the engine publishes,
    is taken in on the event loop, where alone widgets are touched.
    """

    TITLE = "embedctl"
    CSS_PATH = "app.tcss"
    COMMANDS: ClassVar = {ActionsProvider}
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(EVERYWHERE)]
    # Textual declares these two in a way that takes no ClassVar.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-medium"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall"), (46, "-very-tall")]  # noqa: RUF012

    def __init__(
        self,
        open_engine: Callable[[], EngineFacade],
        *,
        demo: bool = False,
        clock: Callable[[], float] = time.time,
        flush_every: float = FLUSH_EVERY,
        slow: bool = False,
    ) -> None:
        """An app that opens its engine once it is on the screen.

        Args:
            open_engine: Called once, on a thread; may take its time and may raise.
            demo: Say from the first paint on that this is the demo.
            clock: The present, in Unix seconds.
            flush_every: Seconds between two deliveries of the engine's news.
            slow: The line to the terminal is slow; else that is found out.
        """
        super().__init__()
        self.demo = demo
        self.clock = clock
        self.state: ConsoleState | None = None
        """None until the engine is open; screens are shown only then."""
        self.news: Signal[Topic] = Signal(self, "news")
        """Published when the state has changed; see `follow`."""
        self.jobs = Jobs(self)
        self.questions = Questions(self)
        self._open_engine = open_engine
        self._engine: EngineFacade | None = None
        self._opening_ended = asyncio.Event()
        self._bridge = Bridge(self._take_delivery, interval=flush_every)
        self.pace = Pace(self, self._bridge, slow=slow)
        self.leaving = False
        """The engine is being closed, or was."""
        self._exit_code = 0
        self._shown: set[str] = set()
        """Names of the screens that are mounted."""
        self._mounting = True
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = DEFAULT_THEME

    @property
    def engine(self) -> EngineFacade:
        """The engine; screens exist only once it is open."""
        if self._engine is None:
            raise RuntimeError("the engine is not open yet")
        return self._engine

    # The begin

    def compose(self) -> ComposeResult:
        badge = "[$demo]SIMULATED GB10 · demo[/]\n\n" if self.demo else ""
        text = f"[b]embedctl[/]\n\n{badge}looking at this machine…\n\n[$text-muted]q quits[/]"
        yield Static(text, id="opening")

    def on_mount(self) -> None:
        for name, _ in SCREENS:
            self.add_mode(name, screen_maker(name, self.clock))
        if not self.is_headless:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leave_on_signal)
            end_with_terminal(self)
        # After the refresh: the first paint must not wait for the imports that opening the engine causes.
        self.call_after_refresh(self._start_opening)

    def _start_opening(self) -> None:
        self.run_worker(self._open(), group="open")

    async def _open(self) -> None:
        try:
            self.state = await run_in_thread(self._open_on_thread)
        except EmbedctlError as error:
            from embedctl_console.screens.notices import ProblemScreen

            self._exit_code = error.exit_code
            self.push_screen(ProblemScreen(error))
            return
        finally:
            self._opening_ended.set()
        if self.leaving:
            return
        self._take_settings()
        self.screen_change_signal.subscribe(self, self._screen_changed)
        self._bridge.open(self.engine.subscribe)
        await self._show_mode(SCREENS[0][0])
        self._guard_size(self.size)
        self.questions.ask_past()
        self.questions.ask_model(online=False)
        self.questions.ask_health()
        self.questions.ask_standing()
        if not self.is_headless:  # where tests start many apps, what one leaves behind has to be collected
            self.set_timer(_SETTLED, spare_collections)

    def _open_on_thread(self) -> ConsoleState:
        self._engine = self._open_engine()
        # Imported here, on the thread: they bring numpy, which the first paint does without.
        from embedctl_console.screens import dashboard  # noqa: F401
        from embedctl_console.state import ConsoleState

        return ConsoleState(self._engine.status())

    def _take_settings(self) -> None:
        self.take_keys(self.engine.settings.console.keys)
        self.take_theme(self.engine.settings.console.theme)
        self.pace.take_setting(self.engine.settings.console.slow_line)

    def take_theme(self, wanted: str) -> None:
        """Use a theme by its name; one that is not known is told and passed over."""
        if wanted in self.available_themes:
            self.theme = wanted
        else:
            ours = ", ".join(theme.name for theme in THEMES)
            self.notify(f"There are: {ours}", title=f"No theme is called {wanted!r}", severity="warning")

    def take_keys(self, wanted: Keymap) -> None:
        """Let actions have the keys that the settings name; what cannot be used is told and left out."""
        from embedctl_console.state import Topic

        assert self.state is not None
        problems: tuple[str, ...] = ()
        if wanted:
            from embedctl_console.keymap import checked

            wanted, problems = checked(wanted, ACTIONS)
        self.state.keymap = dict(wanted)
        self.set_keymap(self.state.keymap)
        self.news.publish(Topic.KEYS)
        if problems:
            self.notify(
                "\n".join(problems), title="[console.keys] cannot be used in full", severity="warning",
                timeout=10, markup=False,
            )  # fmt: skip

    # News

    def _take_delivery(self, messages: tuple[Message, ...]) -> None:
        """Take in news; a mistake in that ends the console, where asyncio would log it and go on without."""
        try:
            self._take_news(messages)
        except Exception as error:
            self._handle_exception(error)

    def _take_news(self, messages: tuple[Message, ...]) -> None:
        from embedctl.events import EventRecorded
        from embedctl_console.state import Topic

        if self.state is None or self.leaving or not self.screen_stack:  # too late to show
            return
        ended, before = dict(self.state.ended), self.state.connection
        decided_by = deciding(self.state)
        changed = self.state.apply_all(messages)
        for kind, job in self.state.ended.items():
            if ended.get(kind) is not job:
                self.jobs.has_ended(job)
        if Topic.CONNECTION in changed:
            self._connection_changed(before)
        self.news.publish(changed)
        if changed & (Topic.BACKENDS | Topic.JOBS):
            self.refresh_bindings()
        told = [m.event for m in messages if isinstance(m, EventRecorded) and m.event.kind in _HEALTH_EVENTS]
        for event in told:
            if event.kind == "trial" and event.detail.get("why"):
                self.notify(str(event.detail["why"]), title=event.title, severity="warning", markup=False)
        if told or (self.questions.health_due and Topic.SAMPLE in changed):
            self.questions.ask_health()
        if deciding(self.state) != decided_by:
            self.questions.ask_standing()

    def _connection_changed(self, before: ConnectionChanged | None) -> None:
        now = self.state.connection if self.state is not None else None
        if now is None:
            return
        if not now.connected:
            self.report(
                EmbedctlError(f"The connection to {now.where} is lost", why=now.why, remedy=now.remedy)
            )
        elif before is not None and not before.connected:
            self.notify("connected again", title=now.where, markup=False)
            self.questions.ask_past()
            self.questions.ask_health()
            self.questions.ask_standing()

    def _screen_changed(self, _: Screen[object]) -> None:
        from embedctl_console.state import Topic

        self.news.publish(Topic.ALL)

    def report(self, error: EmbedctlError) -> None:
        """Show an error beside what is on the screen."""
        message = "\n".join(line for line in (error.why, error.remedy) if line) or "No more is known."
        self.notify(message, title=error.what, severity="error", timeout=10, markup=False)

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return is_available(EVERYWHERE, action, self.state)

    def delay_update(self, delay: float = 0.05) -> None:
        """As Textual's, which masks the mounting of a screen; one that was shown before is ready at once."""
        super().delay_update(delay if self._mounting else _NO_DELAY)

    async def _show_mode(self, name: str) -> None:
        self._mounting = name not in self._shown
        await self.switch_mode(name)
        self._shown.add(name)
        self._mounting = False

    async def action_show(self, name: str) -> None:
        if name == self.current_mode:
            while len(self.screen_stack) > 1:
                await self.pop_screen()
        else:
            await self._show_mode(name)
            self._guard_size(self.size)

    def _focused_backend(self) -> str | None:
        from embedctl_console.widgets.card import BackendCard

        return self.focused.backend if isinstance(self.focused, BackendCard) else None

    def action_load(self) -> None:
        backend = self._focused_backend() or "native"
        self.jobs.start(lambda: self.engine.load(backend))

    def action_unload(self) -> None:
        assert self.state is not None
        backend = self._focused_backend() or self.state.status.active
        if self.state.ready(backend):
            self.jobs.start(lambda: self.engine.unload(backend))
        else:
            self.notify(f"{backend} is not loaded; tab goes to the other card", severity="warning")

    def action_switch(self) -> None:
        from embedctl_console.screens.switch import SwitchDialog, switch_target

        assert self.state is not None
        running = self.state.running("switch")
        target = switch_target(self.state, self._focused_backend())
        self.push_screen(SwitchDialog(target, running))

    def action_benchmark(self) -> None:
        self.jobs.start(self.engine.benchmark, then_show="benchmarks")

    def action_check(self) -> None:
        self.jobs.start(self.engine.check, then_show="check")

    def action_cancel(self) -> None:
        assert self.state is not None
        about = getattr(self.screen, "JOBS", ())
        job = self.state.running(*about) or self.state.running()
        if job is not None:
            self.jobs.cancel(job)

    def action_theme(self) -> None:
        self.theme = next_theme(self.theme)
        self.notify(f"`embedctl config set console.theme {self.theme}` keeps it", title=self.theme)

    async def action_copy_screen(self) -> None:
        if self._engine is not None:
            await copy(self)

    def action_slow_line(self) -> None:
        said = "on: news every few seconds" if self.pace.toggle() else "off: all is drawn at once"
        self.notify(f"{said}; `embedctl config set console.slow_line` keeps it", title="Slow line")

    # The terminal

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if renderable is not None and self.pace.takes():
            self.post_display_hook()
        else:
            super()._display(screen, renderable)

    def on_cursor_position(self, event: events.CursorPosition) -> None:
        self.pace.answered(event.time)

    # The end

    async def action_quit(self) -> None:
        """Leave; ask first when jobs run; asked again while leaving, do not wait for the engine."""
        if self.leaving:
            self.exit(return_code=self._exit_code)
        elif self.state is not None and self.state.status.jobs and self.state.connection is None:
            from embedctl_console.screens.notices import quit_dialog

            if self.screen.id != "quit-dialog":
                self.push_screen(quit_dialog(self.state.status.jobs), self._leave_if)
        else:
            self._leave()

    def _leave_if(self, wanted: bool | None) -> None:
        if wanted:
            self._leave()

    def _leave_on_signal(self) -> None:
        if not self.leaving:
            self._leave()

    def _leave(self) -> None:
        from embedctl_console.screens.notices import LeavingScreen

        self.leaving = True
        self._bridge.close()
        self.push_screen(LeavingScreen(attached=self.state is not None and self.state.connection is not None))
        self.run_worker(self._close(), group="close")

    async def _close(self) -> None:
        await self._opening_ended.wait()
        try:
            await run_in_thread(self.close_engine)
            await self.pace.end()
        finally:
            self.exit(return_code=self._exit_code)

    def close_engine(self) -> None:
        """[slow] Close the engine, if it was opened."""
        if self._engine is not None:
            self._engine.close()

    # Size

    def on_resize(self, event: events.Resize) -> None:
        self._guard_size(event.size)  # the app's own `size` still is the old one

    def _guard_size(self, size: Size) -> None:
        from embedctl_console.screens.notices import TooSmallScreen, too_small

        if too_small(size) and not isinstance(self.screen, TooSmallScreen):
            self.push_screen(TooSmallScreen())
