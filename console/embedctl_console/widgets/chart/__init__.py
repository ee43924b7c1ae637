"""The time series chart that live and recorded figures share."""

from embedctl_console.widgets.chart.marks import Mark, marks_of
from embedctl_console.widgets.chart.overview import Overview
from embedctl_console.widgets.chart.scene import ChartSeries, Span, Threshold
from embedctl_console.widgets.chart.view import ChartView
from embedctl_console.widgets.chart.widget import TimeSeriesChart

__all__ = [
    "ChartSeries",
    "ChartView",
    "Mark",
    "Overview",
    "Span",
    "Threshold",
    "TimeSeriesChart",
    "marks_of",
]
