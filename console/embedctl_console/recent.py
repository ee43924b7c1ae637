"""The last quarter of an hour of every metric, ready to be drawn. No Textual here."""

from __future__ import annotations

from typing import Final

import numpy as np

from embedctl.metrics import METRICS
from embedctl.records import Sample
from embedctl.series import Floats, History, Series

SPAN: Final = 900.0
"""Seconds kept."""

_GAP: Final = 5.0
_SET_BACK: Final = 5.0
"""Seconds; a sample that much older than the last tells that the clock was set back, not that it is late."""


class RecentSamples:
    """One short time line per metric."""

    def __init__(self) -> None:
        self._lines = {key: _Line() for key in METRICS}
        self._gap = _GAP
        self._newest = float("-inf")

    def add(self, sample: Sample) -> None:
        """Take in a sample; one that is not newer than the last is left out.

        If the clock was set back, what lies ahead of it now goes.
        """
        if sample.at < self._newest - _SET_BACK:
            for line in self._lines.values():
                line.cut(sample.at)
            self._newest = sample.at
        else:
            self._newest = max(self._newest, sample.at)
        for key, line in self._lines.items():
            value = sample.get(key)
            if value is not None:
                line.append(sample.at, value)

    def preload(self, history: History) -> None:
        """Put what the store holds where nothing was heard: before all that was, and in its gaps."""
        self._gap = max(_GAP, 3 * history.resolution)
        for key, line in self._lines.items():
            series = history.series.get(key)
            if series is not None:
                line.fill(series.at, series.mean, self._gap, history.resolution)

    def series(self, key: str) -> Series:
        """The time line of one metric; empty where nothing was read."""
        at, values = self._lines[key].arrays()
        return Series(key, at, values, values, values, self._gap)

    def has(self, key: str, since: float) -> bool:
        """Whether there is a reading of `key` that is not older than `since`."""
        at, _ = self._lines[key].arrays()
        return bool(len(at)) and bool(at[-1] >= since)


class _Line:
    """Times and values in arrays that grow at the end and forget at the begin."""

    __slots__ = ("_at", "_begin", "_end", "_values")

    def __init__(self) -> None:
        self._at = np.empty(256)
        self._values = np.empty(256)
        self._begin = self._end = 0

    @property
    def count(self) -> int:
        return self._end - self._begin

    def append(self, at: float, value: float) -> None:
        if self.count and at <= self._at[self._end - 1]:
            return
        if self._end == len(self._at):
            self._make_room()
        self._at[self._end] = at
        self._values[self._end] = value
        self._end += 1
        while self._at[self._begin] < at - SPAN:
            self._begin += 1

    def cut(self, at: float) -> None:
        """Forget the entries from `at` on."""
        self._end = self._begin + int(np.searchsorted(self.arrays()[0], at))

    def fill(self, at: Floats, values: Floats, gap: float, lasting: float) -> None:
        """Take in what is older than all own entries, and what lies where they leave more than `gap` open.

        Args:
            at: When each entry began, ascending.
            lasting: Seconds that each of them stands for.
        """
        if not len(at):
            return
        own_at, own_values = self.arrays()
        end = max([at[-1] + lasting, *own_at[-1:]])
        edges = np.concatenate([[-np.inf], own_at, [end]])
        after = np.searchsorted(edges, at, side="right")
        before, behind = edges[after - 1], edges[after]
        missing = (before < at) & (at + lasting <= behind) & (behind - before > gap)
        merged = np.concatenate([own_at, at[missing]])
        order = np.argsort(merged, kind="stable")
        self._replace(merged[order], np.concatenate([own_values, values[missing]])[order])

    def arrays(self) -> tuple[Floats, Floats]:
        return self._at[self._begin : self._end], self._values[self._begin : self._end]

    def _make_room(self) -> None:
        at, values = self.arrays()
        self._replace(at, values)

    def _replace(self, at: Floats, values: Floats) -> None:
        size = max(256, 2 * len(at))
        self._at, self._values = np.empty(size), np.empty(size)
        self._begin, self._end = 0, len(at)
        self._at[: len(at)], self._values[: len(at)] = at, values
