"""The time series chart that live and recorded figures share."""

from embedctl_console.widgets.chart.marks import Mark, marks_of
from embedctl_console.widgets.chart.scene import ChartSeries, Span, Threshold
from embedctl_console.widgets.chart.widget import TimeSeriesChart

__all__ = ["ChartSeries", "Mark", "Span", "Threshold", "TimeSeriesChart", "marks_of"]
