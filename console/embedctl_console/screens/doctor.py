"""The Doctor screen: what commonly goes wrong, looked at one by one, with a remedy each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content

from embedctl.errors import EmbedctlError
from embedctl.records import Finding, Severity
from embedctl_console.actions import bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.lists import SEVERITY_SIGNS
from embedctl_console.widgets.text import Text, busy_text, failure_text, hanging

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.worker import Worker

_ORDER: Final = (Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK)


class DoctorScreen(ConsoleScreen):
    """Runs the checks when it is first shown, and again on request."""

    WHERE = "doctor"
    CSS_PATH = "doctor.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("doctor")]

    def __init__(self) -> None:
        super().__init__()
        self._findings: tuple[Finding, ...] = ()
        """What was found last; stands there until there is better."""
        self._since: float | None = None
        """When the look that goes on began, by the console's clock; None: nobody looks."""
        self._outcome = Content("")
        """What came of the last look, in a line or a few."""
        self._looking: Worker[None] | None = None

    def compose_body(self) -> ComposeResult:
        yield Text(id="verdict")
        with VerticalScroll(id="findings-scroll"):
            yield Text(id="findings")

    def on_mount(self) -> None:
        self._ticking = self.set_interval(1.0, self._show_verdict, pause=True)
        self.action_again()

    async def _look(self) -> None:
        try:
            self._findings = await run_in_thread(self.console.engine.doctor)
        except EmbedctlError as error:
            self._ended(failure_text(error.what, error.why, error.remedy))
        else:
            self._ended(verdict_text(self._findings))

    def _ended(self, outcome: Content) -> None:
        self._since, self._outcome = None, outcome
        self._ticking.pause()
        self._show_verdict()
        self._show_findings()
        self.refresh_bindings()

    def _show_verdict(self) -> None:
        shown = self._outcome
        if self._since is not None:
            passed = self.console.clock() - self._since
            shown = busy_text("looking at this machine", passed, self._key("stop"))
        self.query_one("#verdict", Text).show(shown)

    def _key(self, name: str) -> str:
        state = self.console.state
        return state.key(f"doctor.{name}") if state is not None else ""

    def _show_findings(self) -> None:
        self.query_one("#findings", Text).show(findings_text(self._findings, self.app.size.width - 4))

    def on_resize(self) -> None:
        self._show_findings()

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return self._since is not None
        return super().check_action(action, parameters)

    def action_again(self) -> None:
        self._since = self.console.clock()
        self._ticking.resume()
        self._show_verdict()
        self.refresh_bindings()
        self._looking = self.run_worker(self._look(), group="doctor", exclusive=True)

    def action_stop(self) -> None:
        """Wait for the answer no longer: a driver or a server that hangs may keep it for minutes."""
        if self._looking is not None:
            self._looking.cancel()
        self._ended(
            Content.assemble(("– stopped", "bold $text-warning"), f"; {self._key('again')} looks again")
        )


def verdict_text(findings: Sequence[Finding]) -> Content:
    """How many findings of each severity there are, in one line."""
    counts = {severity: sum(f.severity is severity for f in findings) for severity in _ORDER}
    if not counts[Severity.ERROR] and not counts[Severity.WARNING]:
        return Content.assemble(
            ("✓ Nothing to worry about", "bold $text-success"), f" in {len(findings)} findings"
        )
    parts = []
    for severity in _ORDER:
        sign, style = SEVERITY_SIGNS[severity]
        if counts[severity]:
            parts.append(Content.assemble((f"{sign} {counts[severity]} {severity.value}", f"bold {style}")))
    return Content("   ").join(parts)


def findings_text(findings: Sequence[Finding], width: int) -> Content:
    """The findings, the worst first; the remedy of each below it. Details are wrapped at `width`."""
    rows: list[Content] = []
    for finding in sorted(findings, key=lambda finding: _ORDER.index(finding.severity)):
        sign, style = SEVERITY_SIGNS[finding.severity]
        head = Content.assemble(
            (f"{sign} {finding.severity.value.upper():<8}", f"bold {style}"),
            (f"{finding.topic:<10}", "$text-muted"),
            (finding.title, "bold"),
        )
        rows.append(head)
        if finding.detail:
            rows.append(hanging(Content(" " * 10), finding.detail, width, "$text-muted"))
        if finding.remedy:
            arrow = Content.assemble(" " * 10, ("→ ", "$text-accent"))
            rows.append(hanging(arrow, finding.remedy, width))
        rows.append(Content(""))
    return Content("\n").join(rows[:-1])
