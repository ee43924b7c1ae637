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
from embedctl_console.widgets.text import Text, hanging

if TYPE_CHECKING:
    from textual.app import ComposeResult

_ORDER: Final = (Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK)


class DoctorScreen(ConsoleScreen):
    """Runs the checks when it is first shown, and again on request."""

    WHERE = "doctor"
    CSS_PATH = "doctor.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("doctor")]

    def __init__(self) -> None:
        super().__init__()
        self._findings: tuple[Finding, ...] = ()

    def compose_body(self) -> ComposeResult:
        yield Text(id="verdict")
        with VerticalScroll(id="findings-scroll"):
            yield Text(id="findings")

    def on_mount(self) -> None:
        self.action_again()

    def action_again(self) -> None:
        self.query_one("#verdict", Text).show("Looking at this machine…")
        self.run_worker(self._look(), group="doctor", exclusive=True)

    async def _look(self) -> None:
        try:
            findings = await run_in_thread(self.console.engine.doctor)
        except EmbedctlError as error:
            self.query_one("#verdict", Text).show("The checks could not be carried out.")
            self.console.report(error)
            return
        self.query_one("#verdict", Text).show(verdict_text(findings))
        self._findings = findings
        self._show_findings()

    def _show_findings(self) -> None:
        self.query_one("#findings", Text).show(findings_text(self._findings, self.app.size.width - 4))

    def on_resize(self) -> None:
        self._show_findings()


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
