"""Every action that can be given another key: the list's, and those of History and the charts."""

from __future__ import annotations

from embedctl_console.actions import ACTIONS, Action, bindings_as_actions
from embedctl_console.screens.history import HistoryScreen
from embedctl_console.widgets.chart import TimeSeriesChart


def mappable_actions() -> tuple[Action, ...]:
    return (
        *ACTIONS,
        *bindings_as_actions("history", HistoryScreen.BINDINGS),
        *bindings_as_actions("chart", TimeSeriesChart.BINDINGS),
    )
