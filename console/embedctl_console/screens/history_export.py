"""Files made of what the History screen shows."""

from __future__ import annotations

import json
from datetime import tzinfo
from pathlib import Path
from typing import Final

import numpy as np

from embedctl.files import whole_file
from embedctl.format import local_time
from embedctl.series import History, Series, history_document
from embedctl_console.picture import png_of

FORMATS: Final = {
    "csv": "every stored sample of the window, for a table",
    "json": "the points that the charts show, with the events",
    "png": "a picture of the screen, for a document or a message",
    "svg": "the same picture as lines, which stay sharp at any size",
}
"""By ending, what it holds."""
PICTURES: Final = frozenset({"png", "svg"})


def export_path(folder: Path, since: float, until: float, tz: tzinfo | None, ending: str) -> Path:
    """`history-20260304-114500-to-20260304-120000.csv` in `folder`."""
    names = (local_time(at, tz).strftime("%Y%m%d-%H%M%S") for at in (since, until))
    return folder / f"history-{'-to-'.join(names)}.{ending}"


def write_json(target: Path, shown: History, since: float, until: float) -> int:
    """Write what is shown of [since, until); returns the number of points.

    Raises:
        StoreError: The file cannot be written.
    """
    inside = History(
        since,
        until,
        shown.resolution,
        {key: _cut(series, since, until) for key, series in shown.series.items()},
        tuple(event for event in shown.events if since <= event.at < until),
    )
    document = {"schema_version": 1, "kind": "history", "data": history_document(inside)}
    with whole_file(target) as part:
        part.write_text(json.dumps(document, ensure_ascii=False, default=str), encoding="utf-8")
    return sum(len(series) for series in inside.series.values())


def write_picture(target: Path, svg: str) -> None:
    """[slow] Write a screen's picture as the target's ending says, whole or not at all.

    Raises:
        StoreError: The file cannot be written.
        EmbedctlError: The picture could not be drawn.
    """
    content = png_of(svg) if target.suffix == ".png" else svg.encode()
    with whole_file(target) as part:
        part.write_bytes(content)


def _cut(series: Series, since: float, until: float) -> Series:
    some = slice(*np.searchsorted(series.at, (since, until)))
    return Series(
        series.key, series.at[some], series.low[some], series.mean[some], series.high[some], series.gap
    )
