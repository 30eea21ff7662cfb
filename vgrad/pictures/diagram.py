"""The content of a picture of a graph: boxes with text, and the edges between them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "parameter", "input", "constant", "computed", "question", "result", "op", "more"
]  # fmt: skip


class Style(NamedTuple):
    """How a box looks; the border's width is in points, the corners' radius in inches."""

    fill: str
    border: str
    dot: str  # the same in the language of Graphviz
    width: float = 1.0
    dashes: str = "-"
    radius: float = 0.0


# Tints of the colours of Okabe and Ito 2008, which colour-blind readers can tell apart; the
# borders differ too.
STYLES: dict[Kind, Style] = {
    "parameter": Style("#fbe3b5", "#a35f00", 'style="filled,bold"', width=2.0),
    "input": Style("#d3ebf8", "#0072b2", 'style="filled,rounded"', width=1.2, radius=0.09),
    "constant": Style("#eeeeee", "#777777", 'style="filled,dashed"', dashes="--"),
    "computed": Style("#ffffff", "#555555", "style=filled"),
    "question": Style("#f6dfee", "#98386f", 'style="filled,rounded"', width=1.2, radius=0.04),
    "result": Style("#c5e8da", "#00694b", "style=filled, penwidth=3", width=1.2),  # two borders
    "op": Style("#ffffff", "#555555", "shape=ellipse, style=filled", radius=0.15),
    "more": Style("#ffffff", "#ffffff", "shape=none"),  # says that the graph goes on
}

# Characters with a meaning in the label of a DOT record, and what stands for them.
ESCAPES = str.maketrans({c: f"\\{c}" for c in '\\"{}|<>'} | {"&": "&amp;", "\n": "\\n"})


class Box(NamedTuple):
    """A box with a title, which may be empty, and cells below it."""

    kind: Kind
    title: str
    cells: tuple[str, ...]
    column: int  # of the picture, from left to right

    def texts(self) -> list[tuple[str, str]]:
        """Each text in the box, with its weight."""
        title = [(self.title, "bold" if self.cells else "normal")] if self.title else []
        return title + [(cell, "normal") for cell in self.cells]


@dataclass
class Diagram:
    """Boxes, and edges (from, to); the edges into an op are in the order of its operands."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    value_of: dict[Hashable, int] = field(default_factory=dict)  # the box of a node's number
    op_of: dict[Hashable, int] = field(default_factory=dict)  # the box of a computed node's op
    focus: int | None = None  # the box that the picture is about

    def add(self, kind: Kind, column: int, title: str, *cells: str) -> int:
        """Add a box, and return its index."""
        self.boxes.append(Box(kind, title, cells, column))
        return len(self.boxes) - 1


def numeral(x: float, digits: int) -> str:
    """A number as Python writes it, with at most this many significant digits."""
    text = min(f"{x:.{digits}g}", repr(float(x)), key=len)
    return f"{text}.0" if text.removeprefix("-").isdigit() else text


def one_line(label: Any) -> str:
    """A label on one line without unprintable characters; a user may have set it to anything."""
    text = "" if label is None else str(label)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def dot(diagram: Diagram) -> str:
    """The diagram in the language of Graphviz."""
    node = "node [shape=record, height=0.3, margin=0.08]"
    lines = ["digraph {", "  rankdir=LR", "  ordering=in", f"  {node}"]
    for k, box in enumerate(diagram.boxes):
        cells = " | ".join(text.translate(ESCAPES) for text, _ in box.texts())
        text = cells if box.kind in ("op", "more") else f"{{{cells}}}"
        style = STYLES[box.kind]
        focus = ", penwidth=4" if k == diagram.focus else ""
        lines.append(f'  {k} [label="{text}", {style.dot}, fillcolor="{style.fill}"{focus}]')
    lines += [f"  {a} -> {b}" for a, b in diagram.edges]
    return "\n".join([*lines, "}"])
