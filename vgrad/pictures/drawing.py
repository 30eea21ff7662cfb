"""Diagrams on figures.

This file and `figures` alone import matplotlib, and only once a picture is asked for, so that
importing vgrad stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import Value
from ..flat import Graph
from ..program import Program
from .diagram import STYLES, Box, Diagram, Kind, dot
from .figures import FilePath, as_svg, new_figure, own_settings, save
from .layout import Point, layout
from .overview import LIMIT, diagram_of

if TYPE_CHECKING:
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.text import Text

Root = Value | Sequence[Value] | Graph | Program
Around = Value | int | str | None


def draw(
    root: Root,
    path: FilePath | None = None,
    *,
    around: Around = None,
    hops: int = 2,
    limit: int = LIMIT,
    digits: int = 6,
) -> Figure:
    """Draw a graph from left to right, and save it if a path is given.

    A value is a box `name | data | grad`, an op a small round one. The name is the label, or v1, v2
    and so on, as in the formulas of `animate`. `grad —` is a gradient that no backward pass has
    computed. A graph of more than `limit` nodes is drawn as its plan, a box for each kernel or for
    the turns of a loop, and so is a `Program`, as it was last compiled. `around` is the chosen
    node, a `Value`, a name, or a node's number in a `Graph`: only the nodes up to `hops` edges from
    it are shown, at most `limit`. Numbers have `digits` significant digits.

    Returns a matplotlib Figure as large as the drawing. The path ends in .svg, .png or .pdf. Raises
    TypeError if `root` is not a graph, ValueError for arguments out of range.

    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> c = a * b
    >>> c.backward()
    >>> figure = draw(c)
    >>> [text.get_text() for text in figure.axes[0].texts][:3]
    ['a', 'data 2.0', 'grad -3.0']
    """
    with own_settings():
        picture = Picture(diagram_of(root, around, hops, limit, digits))
    if path is not None:
        save(picture.figure, path)
    return picture.figure


def to_dot(
    root: Root, *, around: Around = None, hops: int = 2, limit: int = LIMIT, digits: int = 6
) -> str:
    """The picture that `draw` makes, as text in the DOT language of Graphviz; raises as that does.

    >>> print(to_dot(Value(2.0, label="a")))
    digraph {
      rankdir=LR
      ordering=in
      node [shape=record, height=0.3, margin=0.08]
      0 [label="{a | data 2.0 | grad —}", style="filled,bold", fillcolor="#fbe3b5"]
    }
    """
    return dot(diagram_of(root, around, hops, limit, digits))


# Lengths are in inches, which are also the units of the axes; y grows downwards.
MARGIN, PAD, CELL_PAD, LINE = 0.15, 0.09, 0.045, 0.165
FONT, SMALL = 9, 8  # points
ROUND = 0.3  # the height of an op, twice its radius
FRAME = 0.04  # between the two borders of a result
DEEP = 3000  # levels
HEAD = 90  # points squared: the size of an arrow head
SWATCH = 0.22  # the width of a box in the legend
INK, EDGE, RULE = "#222222", "#8a8a8a", "#555555"


class Picture:
    """A diagram on a figure.

    `boxes[k]` and `texts[k]`, one per cell, are the artists of box k; `edges[k]` is that of edge k,
    which follows `ways[k]`. The graph and its legend reach from `left` to `right`, at least `width`
    inches, and down to `bottom`, with `below` inches free.
    """

    def __init__(
        self,
        diagram: Diagram,
        width: float = 0.0,
        below: float = 0.0,
        tinted: bool = True,
        make_figure: Callable[[float, float], Figure] | None = None,
    ) -> None:
        from matplotlib.collections import LineCollection

        fills = {kind: style.fill if tinted else "white" for kind, style in STYLES.items()}
        sizes = [_size(box) for box in diagram.boxes]
        outs = [k for k, box in enumerate(diagram.boxes) if box.kind == "result"]
        columns = np.unique([box.column for box in diagram.boxes], return_inverse=True)[1]
        places = layout(columns.tolist(), sizes, diagram.edges, outs)
        kinds = {box.kind for box in diagram.boxes} - {"op", "more"}
        legend: dict[str, tuple[Kind, str]] = {x: (x, fills[x]) for x in STYLES if x in kinds}
        if diagram.focus is not None:
            legend["chosen"] = "computed", "white"
        width = max(places.width, width, legend_width(legend))
        self.left = (places.width - width) / 2
        self.right = self.left + width
        self.ways = places.ways
        top = places.height + 1.5 * MARGIN
        self.bottom = top + LINE
        size = width + 2 * MARGIN, self.bottom + below + 2 * MARGIN
        self.figure = (make_figure or new_figure)(*size)
        self.axes = self.figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[])
        self.axes.set_xlim(self.left - MARGIN, self.right + MARGIN)
        self.axes.set_ylim(self.bottom + below + MARGIN, -MARGIN)
        self.boxes = [
            self._frame(box.kind, fills[box.kind], *place)
            for box, *place in zip(diagram.boxes, places.centres, sizes)
        ]
        self._rules: list[list[Point]] = []  # the lines between cells
        self.texts = [self._texts(*place) for place in zip(diagram.boxes, places.centres, sizes)]
        self.axes.add_artist(LineCollection(self._rules, colors=RULE, linewidths=0.6, zorder=3))
        self.edges = [self._edge(way) for way in self.ways]
        self.heads = self.arrows([way[-1] for way in self.ways], EDGE)
        swatches = self.legend(legend, top)
        if diagram.focus is not None:
            for box in self.boxes[diagram.focus], swatches["chosen"]:
                box.set(linewidth=4, edgecolor=INK)

    def write(self, text: str, place: Point, **options: Any) -> Text:
        """Put text on the figure, its middle at this place unless the options say otherwise."""
        look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "size": FONT, "color": INK}
        look |= {"linespacing": 72 * LINE / FONT, "usetex": False}
        look["parse_math"] = False  # a label is shown as it is, with its $ and _
        return self.axes.text(*place, text, **look | options)

    def arrows(self, tips: list[Point], colour: str, backward: bool = False) -> PathCollection:
        """Arrow heads that end at these places."""
        from matplotlib.markers import MarkerStyle
        from matplotlib.path import Path

        back = 2.2 if backward else -2.2
        head = MarkerStyle(Path([(back, 1), (0, 0), (back, -1), (back, 1)]), fillstyle="full")
        x, y = np.reshape(tips, (-1, 2)).T
        return self.axes.scatter(x, y, s=HEAD, c=colour, marker=head, linewidth=0, zorder=2.5)

    def legend(self, entries: Mapping[str, tuple[Kind, str]], top: float) -> dict[str, Patch]:
        """A row of small boxes with text, at this height; an entry has its box's kind and fill."""
        x, y, swatches = self.left, top + LINE / 2, {}
        for text, look in entries.items():
            swatches[text] = self._frame(*look, (x + SWATCH / 2, y), (SWATCH, 0.6 * SWATCH))
            self.write(text, (x + 1.3 * SWATCH, y), ha="left", size=SMALL)
            x += legend_width([text])
        return swatches

    def _frame(self, kind: Kind, fill: str, centre: Point, size: Point) -> Patch:
        from matplotlib.patches import FancyBboxPatch

        style = STYLES[kind]
        shape = f"round,pad=0,rounding_size={style.radius}" if style.radius else "square,pad=0"
        for frame in (0.0, FRAME) if kind == "result" else (0.0,):
            width, height = size[0] - 2 * frame, size[1] - 2 * frame
            corner = centre[0] - width / 2, centre[1] - height / 2
            patch = FancyBboxPatch(corner, width, height, shape, facecolor=fill, zorder=2)
            patch.set(edgecolor=style.border, linewidth=style.width, linestyle=style.dashes)
            self.axes.add_artist(patch)  # add_patch would look for limits, which are known
        return patch

    def _texts(self, box: Box, centre: Point, size: Point) -> list[Text]:
        texts: list[Text] = []
        half = size[0] / 2 - (FRAME if box.kind == "result" else 0.0)
        y = centre[1] - sum(_cell_height(text) for text, _ in box.texts()) / 2
        for text, weight in box.texts():
            if texts:
                self._rules.append([(centre[0] - half, y), (centre[0] + half, y)])
            height = _cell_height(text)
            texts.append(self.write(text, (centre[0], y + height / 2), weight=weight, zorder=3))
            y += height
        return texts

    def _edge(self, way: list[Point]) -> Patch:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        points, codes = list(way[:2]), [Path.MOVETO, Path.LINETO]
        for k in range(2, len(way), 2):
            (x0, y0), (x1, y1) = way[k - 1 : k + 1]
            middle = (x0 + x1) / 2
            points += [(middle, y0), (middle, y1), way[k], way[k + 1]]
            codes += [Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
        patch = PathPatch(Path(points, codes), fill=False, edgecolor=EDGE, linewidth=1, zorder=1)
        self.axes.add_artist(patch)
        return patch


def _size(box: Box) -> Point:
    """The width and height that a box needs for its text."""
    cells = box.texts()
    width = max(text_width(line, weight) for text, weight in cells for line in text.split("\n"))
    if box.kind in ("op", "more"):
        return max(width + 1.3 * PAD, ROUND), ROUND
    frame = 2 * FRAME if box.kind == "result" else 0.0
    return width + 2 * PAD + frame, sum(_cell_height(text) for text, _ in cells) + frame


def _cell_height(cell: str) -> float:
    return LINE * (1 + cell.count("\n")) + 2 * CELL_PAD


def text_width(text: str, weight: str = "normal", size: float = FONT) -> float:
    """The width of a line of text in inches, in the font that the user has chosen."""
    import matplotlib as mpl

    fonts = mpl.rcParams["font.family"], mpl.rcParams["font.sans-serif"]
    return _text_width(text, weight, size, *map(tuple, fonts))


@lru_cache(maxsize=4096)
def _text_width(text: str, weight: str, size: float, *fonts: tuple[str, ...]) -> float:
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight=weight)
    # In an SVG the outlines count, in a PNG the glyphs as they are fitted to its pixels.
    renderer: Any = RendererAgg(1, 1, 100)  # type: ignore[no-untyped-call]
    points: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    pixels: float = renderer.get_text_width_height_descent(text, font, ismath=False)[0]
    return max(points / 72, pixels / 100)


def legend_width(texts: Iterable[str]) -> float:
    """The width in inches of a legend of these texts."""
    return sum(2.3 * SWATCH + text_width(text, size=SMALL) for text in texts)


def notebook_svg(root: Value | Graph | Program) -> str | None:
    """The drawing for a notebook; None if the graph is so deep that its plan would take seconds.

    Also of a program that has nothing recorded yet.
    """
    if isinstance(root, Value):
        depth = root.level
    else:
        graphs = [x.graph for x in root.runners.values()] if isinstance(root, Program) else [root]
        depth = max([int(graph.level.max(initial=0)) for graph in graphs], default=DEEP + 1)
    return None if depth > DEEP else as_svg(draw(root))
