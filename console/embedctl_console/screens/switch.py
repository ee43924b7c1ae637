"""The switch dialog: what will happen, then each step as it runs, then the result or the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from embedctl.errors import EmbedctlError
from embedctl.records import JobState
from embedctl_console.follow import console_of, follow
from embedctl_console.screens.switch_text import keys_text, plan_text, run_text
from embedctl_console.state import Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.text import Text, failure_text

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.records import JobUpdate, SwitchPlan
    from embedctl_console.state import ConsoleState


def switch_target(state: ConsoleState, focused: str | None) -> str:
    """Where a switch leads: to the backend with the focus, unless it is active; else to the other one."""
    active = state.status.active
    if focused is not None and focused != active:
        return focused
    return next((status.name for status in state.status.backends if status.name != active), active)


class SwitchDialog(ModalScreen[None]):
    """Plans a switch, starts it on enter, and follows it. Closing it does not stop the switch."""

    CSS_PATH = "switch.tcss"
    TELLS = ("switch",)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "start", "Start"),
        Binding("enter", "close_ended", "Close", show=False),
        Binding("k", "keep", "Keep or unload the old one"),
        Binding("x", "cancel", "Cancel the switch"),
        Binding("escape", "close", "Close"),
        Binding("q", "app.quit", "Quit", show=False),
    ]

    def __init__(self, target: str, running: JobUpdate | None = None) -> None:
        """A dialog about a switch to `target`, or about the switch that runs already."""
        super().__init__(id="switch-dialog")
        self._target = target
        self._keep_both: bool | None = None
        """None until the user has chosen: as the settings say."""
        self._plan: SwitchPlan | None = None
        self._job: JobUpdate | None = running
        self._starting = False
        """Enter was pressed, and the engine has not answered yet."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Text(id="switch-title", classes="dialog-title")
            with VerticalScroll(id="switch-scroll", can_focus=False):
                yield Text(id="switch-body")
            keys = Text(id="switch-keys")
            keys.auto_links = False
            yield keys

    def on_mount(self) -> None:
        if self._job is None:
            self.query_one("#switch-title", Text).show(f"Switch to {self._target}")
            self._make_plan()
        follow(self, self.show_state)

    def _make_plan(self) -> None:
        self._plan = None
        self.query_one("#switch-body", Text).show("Looking what it needs…")
        self._show_keys()
        self.run_worker(self._load_plan(), group="plan", exclusive=True)

    async def _load_plan(self) -> None:
        engine = console_of(self).engine
        try:
            plan = await run_in_thread(engine.plan_switch, self._target, keep_both=self._keep_both)
        except EmbedctlError as error:  # another dialog may lie above by now: only the user closes this one
            problem = failure_text(error.what, error.why, error.remedy)
            self.query_one("#switch-body", Text).show(problem)
            return
        self._plan = plan
        self._keep_both = not plan.unloads_source
        title = Content.assemble(
            "Switch from ",
            (plan.source, f"bold $series-{plan.source}"),
            " to ",
            (plan.target, f"bold $series-{plan.target}"),
        )
        self.query_one("#switch-title", Text).show(title)
        self.query_one("#switch-body", Text).show(plan_text(plan, self._width))
        self._show_keys()

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if not changed & Topic.JOBS or self._job is None:
            return
        now = state.running("switch") or state.ended.get("switch")
        if now is not None and now.job_id == self._job.job_id:
            self._job = now
        self._show_run(self._job)

    @property
    def _width(self) -> int:
        """Cells per line of the body: the dialog's width less border and padding."""
        return min(96, self.app.size.width * 94 // 100) - 6

    def on_resize(self) -> None:
        if self._job is not None:
            self._show_run(self._job)
        elif self._plan is not None:
            self.query_one("#switch-body", Text).show(plan_text(self._plan, self._width))

    def _show_run(self, job: JobUpdate) -> None:
        planned = self._plan.steps if self._plan is not None else ()
        self.query_one("#switch-title", Text).show(Content(job.title))
        self.query_one("#switch-body", Text).show(run_text(job, planned, self._width))
        self.query_one("#switch-scroll").scroll_end(animate=False)
        self._show_keys()

    def _show_keys(self) -> None:
        keys = [active.binding for active in self.active_bindings.values() if active.binding.show]
        self.query_one("#switch-keys", Text).show(keys_text(keys))

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        running = self._job is not None and self._job.state is JobState.RUNNING
        plan = self._plan
        if action in ("start", "keep"):
            asked = self._job is not None or self._starting
            return not asked and plan is not None and plan.obstacle is None
        if action == "cancel":
            return running
        if action == "close_ended":
            return self._job is not None and not running
        return True

    def action_start(self) -> None:
        self._starting = True
        self._show_keys()
        self.run_worker(self._start(), group="start")

    async def _start(self) -> None:
        console = console_of(self)
        keep = self._keep_both
        handle = await console.jobs.started(lambda: console.engine.switch(self._target, keep_both=keep))
        self._starting = False
        if handle is not None:
            self._job = handle.update
            self._show_run(self._job)
        else:
            self._show_keys()

    def action_keep(self) -> None:
        self._keep_both = not self._keep_both
        self._make_plan()

    def action_cancel(self) -> None:
        if self._job is not None:
            console_of(self).jobs.cancel(self._job)

    def action_close_ended(self) -> None:
        self.dismiss()

    def action_close(self) -> None:
        self.dismiss()
