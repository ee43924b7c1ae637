"""What the console asks the engine by itself: what was recorded, the model's files, how the backends do.

The answers go into the state, and the news that they are there to the screens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedctl.errors import EmbedctlError
from embedctl_console.tasks import run_in_thread

if TYPE_CHECKING:
    from textual.worker import Worker

    from embedctl_console.app import ConsoleApp
    from embedctl_console.state import ConsoleState, Standing

_HEALTH_EVERY: Final = 2.0
"""Seconds between two looks at how the backends do."""
OTHER_STUDIES: Final = ("quality", "coexist")
"""Kinds of study, besides the check, whose answers stand on the Dashboard."""
_DECIDING: Final = ("version", "revision", "dtype", "attention", "max_tokens")
"""Fields of a backend's status that a check's answer depends on."""


class Questions:
    """Asks on threads, once the engine is open; what cannot be answered is unknown then."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._health_asked_at = float("-inf")
        self._asking_health = False
        self._hub: Worker[None] | None = None
        """Asks the Hub, or did."""

    def ask_past(self) -> None:
        """Give the live charts and the list of events what was recorded before."""
        self._app.run_worker(self._ask_past(), group="past", exclusive=True)

    async def _ask_past(self) -> None:
        from embedctl_console.recent import SPAN
        from embedctl_console.state import Topic

        app = self._app
        engine, now = app.engine, app.clock()
        try:
            history = await run_in_thread(engine.history, now - SPAN, now)
            events = await run_in_thread(engine.events, limit=50)
            switches = await run_in_thread(engine.events, kinds=("switch",), limit=1)
        except EmbedctlError as error:
            app.report(error)
            return
        if app.state is not None:
            app.state.recent.preload(history)
            app.state.take_stored_events(events)
            app.state.take_stored_switch(switches)
            app.news.publish(Topic.SAMPLE | Topic.EVENTS | Topic.BACKENDS)

    def ask_model(self, *, online: bool) -> None:
        """Ask for the model's files; with `online`, the Hub may be asked what they should be."""
        group = "online" if online else "model"
        worker = self._app.run_worker(self._ask_model(online), group=group, exclusive=True)
        if online and self._app.state is not None:
            self._hub = worker
            self._app.state.hub_asked = self._app.clock()

    def stop_asking_hub(self) -> None:
        """Wait for the Hub no longer; what the disk knows is asked for instead."""
        state = self._app.state
        if state is not None and self._hub is not None:
            self._hub.cancel()
            state.hub_asked = None
            self.ask_model(online=False)

    async def _ask_model(self, online: bool) -> None:
        from embedctl_console.state import Topic

        app = self._app
        state = app.state
        if state is None:
            return
        try:
            state.model, state.model_note = await run_in_thread(app.engine.model, online=online), ""
        except EmbedctlError as error:
            state.model_note = str(error)
        if online:
            state.hub_asked = None
        app.news.publish(Topic.MODEL)
        app.refresh_bindings()

    @property
    def health_due(self) -> bool:
        """Whether the last look at how the backends do is too old."""
        return self._app.clock() - self._health_asked_at >= _HEALTH_EVERY

    def ask_health(self) -> None:
        """Ask how the backends and the trial do, once at a time: a hanging engine must not gather threads."""
        if not self._asking_health:
            self._asking_health = True
            self._health_asked_at = self._app.clock()
            self._app.run_worker(self._ask_health(), group="health")

    async def _ask_health(self) -> None:
        from embedctl_console.state import Topic

        engine, state = self._app.engine, self._app.state
        assert state is not None
        try:
            state.health, state.trial = await run_in_thread(lambda: (engine.health(), engine.trial()))
        except EmbedctlError:  # a lost connection, which is told; what was known says nothing any more
            state.health = state.trial = None
        finally:
            self._asking_health = False
        self._app.news.publish(Topic.HEALTH)

    def ask_standing(self) -> None:
        """Ask what the last check said, whether that still stands, and what the other studies said."""
        self._app.run_worker(self._ask_standing(), group="standing", exclusive=True)

    async def _ask_standing(self) -> None:
        from embedctl.study_data import of_both
        from embedctl_console.state import Standing, Topic

        engine, state = self._app.engine, self._app.state
        assert state is not None

        def ask() -> Standing:
            others = tuple(found for kind in OTHER_STUDIES for found in engine.studies(kind, 1))
            check = of_both(engine.studies("check"))
            if check is None:
                return Standing(None, others=others)
            return Standing(check, engine.check_changes() or (), others)

        try:
            state.standing = await run_in_thread(ask)
        except EmbedctlError:  # an unreadable store is told where its studies are listed
            state.standing = None
        self._app.news.publish(Topic.VERDICT | Topic.BACKENDS)


def deciding(state: ConsoleState) -> tuple[object, ...]:
    """What of the backends' states a check's answer depends on."""
    return tuple(getattr(status, name) for status in state.status.backends for name in _DECIDING)
