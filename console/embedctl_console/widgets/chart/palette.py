"""Colours and signs that tell series apart. Pure.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), which people with any of the common
colour vision deficiencies can tell apart. Black is left out on dark grounds and yellow on light ones, where
they cannot be seen. A theme overrides them with the variables `series-1` to `series-7`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OKABE_ITO: Final = {
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "black": "#000000",
}

_ON_DARK: Final = ("sky", "orange", "green", "purple", "yellow", "vermilion", "blue")
_ON_LIGHT: Final = ("blue", "vermilion", "green", "purple", "orange", "black", "sky")

SIGNS: Final = {"braille": "●■▲◆▼★○", "block": "●■▲◆▼★○", "ascii": "*o+x#@%"}
"""By charset, one sign per series in order; it stands in the legend, at the line's end and at the cursor."""


def series_colors(variables: Mapping[str, str], *, dark: bool) -> tuple[str, ...]:
    """The colours of the first, second, … series under a theme's CSS `variables`."""
    names = _ON_DARK if dark else _ON_LIGHT
    return tuple(variables.get(f"series-{i}") or OKABE_ITO[name] for i, name in enumerate(names, 1))
