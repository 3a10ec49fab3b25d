"""Write ``docs/structure.svg``: the folders of the package and their imports, as they are.

The picture is made from the source that ``tests/test_house.py`` reads; a test there fails when the
picture is out of date. Each level is a band, the lowest one at the bottom. An arrow is an import
from one feature's folder to another. A box names what its folder imports from lower levels and
from its own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent
PICTURE = DOCS / "structure.svg"

TITLES = (
    "values and contracts",
    "machinery and shipped plugins",
    "features",
    "what puts them together",
    "what uses them",
)
WIDTH, GAP, MARGIN = 1240, 14, 20
PER_ROW = 6
BOX = (WIDTH - 2 * MARGIN - (PER_ROW - 1) * GAP) // PER_ROW
LINE, LETTERS = 14, 30  # height of a line of small text, letters in one

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.name { font-size: 15px; font-weight: 600; fill: #111 }
.level { font-size: 12px; fill: #666; letter-spacing: .04em }
.band { fill: #f4f5f7 }
.box { fill: #fff; stroke: #9aa4b2; rx: 5px }
.way { stroke: #2563b0; stroke-width: 1.6; fill: none; marker-end: url(#tip) }
.wrong { stroke: #c02626; stroke-dasharray: 5 3 }
"""


def load_house() -> ModuleType:
    """The module that reads the source; one that pytest has loaded already is taken."""
    path = DOCS.parent / "tests" / "test_house.py"
    spec = importlib.util.spec_from_file_location("test_house", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("test_house", module)
    spec.loader.exec_module(module)
    return module


def draw(house: Any, levels: Iterable[Iterable[str]], allowed: Iterable[tuple[str, str]]) -> str:
    """The picture as text.

    Args:
        house: what ``tests/test_house.py`` reads of the package (a ``House``).
        levels: the folders and modules of each level, the lowest one first.
        allowed: the imports between features that are meant; others are drawn as wrong.
    """
    levels = [sorted(set(level) & set(house.units)) for level in levels]
    features = set(levels[2])
    ways = sorted(way for way in house.ways if set(way) <= features)
    rows: list[tuple[int, list[str]]] = []
    for number, level in reversed(list(enumerate(levels))):
        if number == 2:
            # Those that import others stand above, what they import right below: arrows lead down.
            upper = sorted({source for source, _ in ways})
            parts = [upper, _order_below(upper, set(level) - set(upper), ways)]
        else:
            parts = [level]
        for part in parts:
            rows += [(number, part[i : i + PER_ROW]) for i in range(0, len(part), PER_ROW)]
    body: list[str] = []
    places: dict[str, tuple[int, int, int]] = {}
    y, last = MARGIN, None
    for number, row in rows:
        if number != last:
            y += 0 if last is None else GAP
            body.append(f'<text class="level" x="{MARGIN}" y="{y + 12}">{TITLES[number]}</text>')
            y += 20
        elif number == 2:
            y += 44  # room for arrows
        last = number
        texts = {unit: list(_describe(house, unit, features, number)) for unit in row}
        height = 30 + LINE * max(map(len, texts.values())) + 6
        for column, unit in enumerate(row):
            x = MARGIN + column * (BOX + GAP)
            places[unit] = (x, y, height)
            body.append(f'<rect class="box" x="{x}" y="{y}" width="{BOX}" height="{height}"/>')
            body.append(f'<text class="name" x="{x + 10}" y="{y + 21}">{escape(unit)}</text>')
            body += [
                f'<text x="{x + 10}" y="{y + 38 + LINE * line}">{escape(text)}</text>'
                for line, text in enumerate(texts[unit])
            ]
        y += height + GAP
    body += [_arrow(places, way, way in set(allowed)) for way in ways]
    height = y + MARGIN - GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="The folders of om_plugins, level by level, and their imports">'
    )
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#2563b0"/></marker></defs>'
    )
    band = f'<rect class="band" width="{WIDTH}" height="{height}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", tip, band, *body, "</svg>", ""])


def _order_below(upper: list[str], below: set[str], ways: list[tuple[str, str]]) -> list[str]:
    """Those that are imported come first, each near the middle of those that import it."""

    def place(unit: str) -> tuple[float, str]:
        above = [upper.index(source) for source, target in ways if target == unit]
        return (sum(above) / len(above) if above else len(upper), unit)

    return sorted(below, key=place)


def _describe(house: Any, unit: str, features: set[str], level: int) -> Iterator[str]:
    """The lines of a box: how many modules, and what they import but for what arrows show."""
    modules = [m for m in house.modules.values() if m.unit == unit and not m.is_init]
    if unit not in house.modules or house.modules[unit].is_init:
        yield f"{len(modules)} module{'s' if len(modules) != 1 else ''}"
    imported = sorted(
        target
        for source, target in house.ways
        if source == unit and not (unit in features and target in features)
    )
    line = "\N{RIGHTWARDS ARROW}"
    for number, target in enumerate(imported):
        word = target + ("," if number < len(imported) - 1 else "")
        if len(line) + len(word) >= LETTERS:
            yield line
            line = "   "
        line += f" {word}"
    yield line if imported else "imports nothing of the package"


def _arrow(places: dict[str, tuple[int, int, int]], way: tuple[str, str], meant: bool) -> str:
    (x1, y1, height1), (x2, y2, height2) = places[way[0]], places[way[1]]
    start, end = x1 + BOX // 2, x2 + BOX // 2
    # Arrows that begin or end at one box stand apart.
    start += 24 * ((end > start) - (end < start))
    end += 24 * ((start > end) - (start < end))
    if y2 > y1:
        y1, y2 = y1 + height1, y2 - 1
        path = f"M{start} {y1} C{start} {y1 + 30} {end} {y2 - 30} {end} {y2}"
    else:
        y1, y2 = y1 + height1, y2 + height2 + 1
        path = f"M{start} {y1} C{start} {y1 + 34} {end} {y2 + 34} {end} {y2}"
    title = escape(f"{way[0]} imports {way[1]}")
    kind = "way" if meant else "way wrong"
    return f'<path class="{kind}" d="{path}"><title>{title}</title></path>'


if __name__ == "__main__":
    reader = load_house()
    PICTURE.write_text(
        draw(reader.read(), reader.LEVELS, reader.BETWEEN_FEATURES), encoding="utf-8"
    )
