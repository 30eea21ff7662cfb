"""The content of a picture of a graph: boxes with text, and the edges between them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any, NamedTuple

LABEL_WIDTH = 24  # characters in a line of a label

PARAMETER, INPUT, CONSTANT = "parameter", "input", "constant"
COMPUTED, RESULT = "computed", "result"
OP, MORE = "op", "more"  # a round box, and the sign that the graph goes on


class Style(NamedTuple):
    """How a box looks: colours, the border's width in points, how round it is in inches."""

    fill: str
    border: str
    width: float = 1.0
    dashes: str = "-"
    radius: float = 0.0


# Tints of the colours of Okabe and Ito 2008, which colour-blind readers can tell apart; and
# borders that differ too.
STYLES = {
    PARAMETER: Style("#fbe3b5", "#a35f00", width=2.0),
    INPUT: Style("#d3ebf8", "#0072b2", width=1.2, radius=0.09),
    CONSTANT: Style("#eeeeee", "#777777", dashes="--"),
    COMPUTED: Style("#ffffff", "#555555"),
    RESULT: Style("#c5e8da", "#00694b", width=1.2),  # with two borders
    OP: Style("#ffffff", "#555555", radius=0.15),
    MORE: Style("#ffffff", "#ffffff"),
}


class Box(NamedTuple):
    """The text of a box, a title and cells below it, and the column that the box stands in."""

    kind: str
    title: str  # may be empty
    cells: tuple[str, ...]
    column: int

    def texts(self) -> list[tuple[str, str]]:
        """All that is written in it, each text with its weight."""
        title = [(self.title, "bold" if self.cells else "normal")] if self.title else []
        return title + [(cell, "normal") for cell in self.cells]


@dataclass
class Diagram:
    """Boxes and edges (from, to); the edges into an op are in the order of its operands."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    value_of: dict[Hashable, int] = field(default_factory=dict)  # the box of a node's number
    op_of: dict[Hashable, int] = field(default_factory=dict)  # the box of a computed node's op
    focus: int | None = None  # the box that the picture is about

    def add(self, kind: str, column: int, title: str, *cells: str) -> int:
        """Add a box, and return its place."""
        self.boxes.append(Box(kind, title, cells, column))
        return len(self.boxes) - 1

    def outs(self) -> list[int]:
        """The results' boxes."""
        return [k for k, box in enumerate(self.boxes) if box.kind == RESULT]

    def close_ranks(self) -> Diagram:
        """Itself, without empty columns."""
        columns = sorted({box.column for box in self.boxes})
        new = {column: k for k, column in enumerate(columns)}
        self.boxes = [box._replace(column=new[box.column]) for box in self.boxes]
        return self


def numeral(x: float, digits: int = 6) -> str:
    """A number as Python writes it, with at most this many significant digits."""
    text = min(f"{x:.{digits}g}", repr(float(x)), key=len)
    return f"{text}.0" if text.removeprefix("-").isdigit() else text


def label_lines(label: Any) -> str:
    """A label wrapped to fit a box, in lines of at most `LABEL_WIDTH` characters."""
    return "\n".join(wrap(one_line(label), LABEL_WIDTH))


def one_line(label: Any) -> str:
    """A label on one line without unprintable characters; a user may have set it to anything."""
    text = "" if label is None else str(label)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# --- DOT -----------------------------------------------------------------------------------------

_DOT = {
    PARAMETER: 'style="filled,bold"',
    INPUT: 'style="filled,rounded"',
    CONSTANT: 'style="filled,dashed"',
    COMPUTED: "style=filled",
    RESULT: "style=filled, penwidth=3",
    OP: "shape=ellipse, style=filled",
    MORE: "shape=none",
}


def dot(diagram: Diagram) -> str:
    """The diagram in the language of Graphviz."""
    node = "node [shape=record, height=0.3, margin=0.08]"
    lines = ["digraph {", "  rankdir=LR", "  ordering=in", f"  {node}"]
    for k, box in enumerate(diagram.boxes):
        cells = " | ".join(_dot_text(text) for text in (box.title, *box.cells) if text)
        text = cells if box.kind in (OP, MORE) else f"{{{cells}}}"
        fill = f'fillcolor="{STYLES[box.kind].fill}"'
        focus = ", penwidth=4" if k == diagram.focus else ""
        lines.append(f'  {k} [label="{text}", {_DOT[box.kind]}, {fill}{focus}]')
    lines += [f"  {a} -> {b}" for a, b in diagram.edges]
    return "\n".join([*lines, "}"])


def _dot_text(text: str) -> str:
    """Text for a quoted record label, in which some characters would have a meaning."""
    escaped = "".join(f"\\{c}" if c in '\\"{}|<>' else c for c in text)
    return escaped.replace("&", "&amp;").replace("\n", "\\n")
