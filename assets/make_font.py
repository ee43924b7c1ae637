"""Makes the font that PNG pictures are drawn with: `uv run --with fonttools assets/make_font.py FOLDER`.

FOLDER holds DejaVuSansMono.ttf and DejaVuSansMono-Bold.ttf (version 2.37). What the console writes is kept of
them, and the braille patterns, which they lack, are drawn: two by four dots spread evenly over the whole cell
of a line 1.164 em high, so that a chart's lines go on from cell to cell.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

TARGET = Path(__file__).parents[1] / "console" / "embedctl_console" / "fonts"
KEPT = [
    *range(0x0020, 0x0250),  # Latin
    *range(0x0370, 0x0530),  # Greek, Cyrillic
    *range(0x2000, 0x2070),  # punctuation
    *range(0x2070, 0x20D0),  # raised and lowered digits, currencies
    *range(0x2190, 0x2300),  # arrows, mathematics
    *range(0x2500, 0x2600),  # boxes, blocks, shapes
    *(0x2605, 0x2606, 0x2713, 0x2717, 0xFFFD),
]
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each bit of a pattern."""
RADIUS = 165
"""Of a dot, in font units."""
FAMILY = "Embedctl Mono"
"""A name of its own, lest a font of the machine that lacks the braille patterns is taken for it."""


def add_braille(font: TTFont) -> None:
    advance = font["hmtx"]["A"][0]
    top, bottom = font["hhea"].ascent, font["hhea"].descent
    glyphs = {0x2800 + bits: f"braille{bits:02x}" for bits in range(256)}
    font.setGlyphOrder([*font.getGlyphOrder(), *glyphs.values()])
    for code, name in glyphs.items():
        pen = TTGlyphPen(None)
        for bit, (column, row) in enumerate(DOTS):
            if code >> bit & 1:
                _dot(pen, advance * (2 * column + 1) // 4, top - (top - bottom) * (2 * row + 1) // 8)
        font["glyf"][name] = pen.glyph()
        font["hmtx"][name] = (advance, 0)
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap.update(glyphs)


def _dot(pen: TTGlyphPen, x: int, y: int) -> None:
    """Four curves, which nobody can tell from a circle at this size."""
    r = RADIUS
    pen.moveTo((x + r, y))
    for control, end in (((r, -r), (0, -r)), ((-r, -r), (-r, 0)), ((-r, r), (0, r)), ((r, r), (r, 0))):
        pen.qCurveTo(*((x + dx, y + dy) for dx, dy in (control, end)))
    pen.closePath()


def main(folder: Path) -> None:
    for name in ("DejaVuSansMono", "DejaVuSansMono-Bold"):
        font = TTFont(folder / f"{name}.ttf", recalcTimestamp=False)
        options = Options(layout_features=[], hinting=False, name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14])
        subsetter = Subsetter(options)
        subsetter.populate(unicodes=KEPT)
        subsetter.subset(font)
        add_braille(font)
        bold = name.endswith("Bold")
        names = {1: FAMILY, 4: FAMILY + " Bold" * bold, 6: "EmbedctlMono" + "-Bold" * bold}
        for number, text in names.items():
            font["name"].setName(text, number, 3, 1, 0x409)
            font["name"].setName(text, number, 1, 0, 0)
        font.save(TARGET / f"{name}.ttf")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
