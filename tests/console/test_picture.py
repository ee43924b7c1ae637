"""Pictures as PNG on a machine without fonts: those brought along have all that a chart is made of."""

from __future__ import annotations

from functools import partial
from html import escape

import pytest
import resvg_py

from embedctl.errors import EmbedctlError
from embedctl_console import picture
from embedctl_console.widgets.chart.palette import SIGNS
from embedctl_console.widgets.chart.raster import BLOCK, BRAILLE

_MISSING = "\ue000"


def page(text: str) -> str:
    style = "<style>.matrix { font-family: Fira Code, monospace; font-size: 20px; }</style>"
    line = f'<text class="matrix" x="4" y="24" fill="#fff" textLength="12.2">{escape(text)}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 32">{style}{line}</svg>'


def test_every_sign_of_a_chart_is_drawn_without_the_machines_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = partial(resvg_py.svg_to_bytes, skip_system_fonts=True)
    monkeypatch.setattr(resvg_py, "svg_to_bytes", alone)
    nothing = {picture.png_of(page(" ")), picture.png_of(page(_MISSING))}
    signs = {*BRAILLE.glyphs[1::17], *BLOCK.glyphs[1:], *SIGNS["braille"], *"│─└┤┴┈╎╌━‖▶✓✗↑→·–×°Aä"}
    drawn = {sign: picture.png_of(page(sign)) for sign in sorted(signs)}
    assert not [sign for sign, png in drawn.items() if png in nothing]
    assert len({*drawn.values()}) == len(drawn), "each looks like itself"


def test_what_is_no_picture_is_told() -> None:
    with pytest.raises(EmbedctlError, match="could not be drawn"):
        picture.png_of("<svg")
