"""From an event to all that is known about it. Reads the store: for a thread, not for the screen's own."""

from __future__ import annotations

from datetime import tzinfo
from typing import Final

from textual.content import Content

from embedctl.engine import EngineFacade
from embedctl.format import format_duration
from embedctl.records import Event
from embedctl_console.screens.benchmarks_text import run_text
from embedctl_console.screens.history_spans import ASKED, figures_text, read_figures
from embedctl_console.screens.history_text import event_text
from embedctl_console.widgets.chart import Span

_AROUND_S: Final = 60.0


def about_event(
    engine: EngineFacade, event: Event, width: int, tz: tzinfo | None, *, cursor: float | None = None
) -> Content:
    """[slow] An event with its details, then the run that it tells of, or the minutes before and after it.

    Args:
        cursor: Where the user looks, if that is not the event itself.
    """
    parts = [Content.styled(event_text(event, tz), "bold")]
    since = 0.0 if cursor is None else cursor - event.at
    if since >= 1:
        earlier = f"the last event before the cursor, {format_duration(since)} earlier"
        parts.append(Content.styled(earlier, "$text-muted"))
    elif since <= -1:
        later = f"under way at the cursor, over {format_duration(-since)} later"
        parts.append(Content.styled(later, "$text-muted"))
    run_id = event.detail.get("run")
    if isinstance(run_id, int):
        parts += [Content(""), run_text(engine.run(run_id))]
        return Content("\n").join(parts)
    # A load or a switch is recorded when it has ended: the minute before it is that of before it began.
    took = event.detail.get("seconds")
    begin = event.at - (float(took) if isinstance(took, int | float) else 0.0)
    spans = (
        Span("before", begin - _AROUND_S, begin),
        Span("after", event.at, event.at + _AROUND_S),
    )
    figures = read_figures(
        lambda since, until: engine.history(since, until, metrics=ASKED, points=600), spans
    )
    return Content("\n").join([*parts, Content(""), figures_text(figures, width, tz)])
