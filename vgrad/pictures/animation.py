"""Backpropagation as moving pictures: a web page, a GIF, or a window."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import ops
from ..arguments import whole_number
from ..engine import Value, reachable
from . import figures
from .diagram import Diagram, numeral
from .drawing import CELL_PAD, EDGE, HEAD, LINE, Picture, legend_width, text_width
from .figures import FilePath
from .nodes import node_diagram, titles, value_cells, value_items
from .overview import LIMIT
from .page import frame, in_page, in_script, page, require_seconds
from .steps import By, Step, steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATES = "to come", "at work", "finished"  # a box's state is an index into these,
FILLS = "#e4e4e4", "#f0a830", "#dcc9ea", "#ffffff"  # or one more: a constant takes no part
ALONG = "#d55e00"  # the colour of the edges along which a step acts
COLOURS = {"fills": FILLS, "along": ALONG, "edge": EDGE}
LONG = 9.0  # inches; a longer line of arithmetic is broken

# Of a page whose steps are known beforehand: each cell has a list of its texts, from which step on.
_SCRIPT = """\
const last = () => data.words.length - 1;
const look = k => ({
  scene: 0,
  fills: data.fills[k],
  cells: Object.fromEntries(Object.entries(data.cells).map(
    ([id, changes]) => [id, changes.filter(([when]) => when <= k).pop()[1]])),
  along: data.along[k],
  backward: data.backward[k],
  words: data.words[k],
});"""


def animate(root: Value, *, forward: bool = False, by: By = "node", digits: int = 6) -> Animation:
    """Show `root.backward()` step by step, from gradients of 0, with the arithmetic of each step.

    With `forward` the computation of the values comes first. A step is a node, or with
    `by="level"` all nodes of a level. Numbers are the engine's, to `digits` significant digits; no
    gradient is changed.

    Raises TypeError if `root` is not a `Value`, ValueError for a graph of more than 300 nodes and
    for arguments out of range.

    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> c = a * b
    >>> animation = animate(c)
    >>> print(animation.steps[1].lines[0])
    a.grad += b.data * v1.grad = -3.0 * 1.0 = -3.0
    """
    return Animation(root, forward, by, digits)


class Animation:
    """The `steps` of a backward pass, and a picture of each; `animate` makes one.

    >>> import os, tempfile
    >>> animation = animate(Value(2.0, label="a") * 3)
    >>> len(animation)
    3
    >>> figure = animation.draw(-1)
    >>> animation.save(os.path.join(tempfile.mkdtemp(), "backprop.html"))

    Raises TypeError and ValueError as `animate` does.
    """

    def __init__(self, root: Value, forward: bool, by: By, digits: int) -> None:
        if not isinstance(root, Value):
            raise TypeError(f"animate takes a Value (got {root!r}, a {type(root).__name__})")
        if by not in ("node", "level"):
            raise ValueError(f'by must be "node" or "level" (got {by!r})')
        digits = whole_number("digits", digits)
        nodes = reachable(root)[::-1]
        if len(nodes) > LIMIT:
            raise ValueError(
                f"animate takes a graph of at most {LIMIT} nodes (got {len(nodes):,}); "
                "vgrad.draw shows a larger one as its plan"
            )
        own = titles(nodes)
        names = {x: numeral(x.data, digits) for x in nodes}
        names |= {x: in_formulas(title) for x, title in own.items()}
        self.steps = steps(root, names, forward, by, digits)
        self._title = f"Backpropagation of {names[root]}"
        self._nodes, self._digits = nodes, digits
        self._diagram = node_diagram(list(value_items([root], digits, own)))

    def __repr__(self) -> str:
        return f"Animation({self._title}, {len(self)} steps)"

    def __len__(self) -> int:
        return len(self.steps)

    def draw(self, step: int, path: FilePath | None = None) -> Figure:
        """A picture of one step, counted from 0 or, if negative, from the end.

        Raises ValueError if there is no such step.
        """
        n = len(self)
        if not hasattr(step, "__index__") or not -n <= step < n:
            raise ValueError(f"step must be a whole number, {-n} to {n - 1} (got {step!r})")
        stage = self._stage()
        stage.show(step % n)
        if path is not None:
            figures.save(stage.figure, path)
        return stage.figure

    def save(self, path: FilePath, seconds: float = 1.5) -> None:
        """Write all steps: as a web page (.html) with buttons and a slider, or as a .gif.

        The page is one file that asks for no other. `seconds`, from 0.01 to 60, is how long a step
        stays when it plays; the last one of a .gif stays at least 2.5. Raises ValueError for
        another ending, and for other `seconds`.
        """
        kind = os.path.splitext(path)[1].lower()
        if kind not in (".html", ".gif"):
            raise ValueError(f"path must end in .html or .gif (got {os.fspath(path)!r})")
        require_seconds(seconds)
        stage = self._stage(captions=kind == ".gif")
        if kind == ".gif":
            figures.save_gif(stage.figure, path, map(stage.show, range(len(self))), seconds)
        else:
            Path(path).write_text(self._page(stage, seconds), encoding="utf-8")

    def show(self) -> None:
        """Show the page in a notebook; elsewhere open a window with a slider and arrow keys.

        Raises RuntimeError if matplotlib cannot open one.

        >>> animate(Value(2.0) * 3).show()  # doctest: +SKIP
        """
        if figures.shown_in_notebook(self):
            return
        stage = self._stage(window=True)
        figures.play(stage.figure, len(self), stage.show)

    def _repr_html_(self) -> str:
        """The page, for a notebook."""
        stage = self._stage(captions=False)
        width, height = stage.figure.get_size_inches()
        height += LINE * (1 + max(len(step.lines) for step in self.steps))  # the words below it
        return frame(self._page(stage, 1.5), width, height)

    def _page(self, stage: Stage, seconds: float) -> str:
        """The graph as SVG, and what changes in it from step to step."""
        looks, cells = stage.looks, {}
        for name in looks[0].cells:
            texts = [look.cells[name] for look in looks]
            cells[name] = [(k, x) for k, x in enumerate(texts) if not k or x != texts[k - 1]]
        words = ["\n".join(step.lines) for step in self.steps]
        data = {
            "fills": ["".join(map(str, look.states)) for look in looks],
            "cells": cells,
            "along": [sorted(look.along) for look in looks],
            "backward": [look.backward for look in looks],
            "words": words,
        }
        script = f"const data = {in_script(data)};\n{_SCRIPT}"
        lines = max(text.count("\n") + 1 for text in words)
        return page(self._title, [stage.svg(0)], script, COLOURS, lines=lines, seconds=seconds)

    def _stage(self, captions: bool = True, window: bool = False) -> Stage:
        return Stage(self._diagram, [self._look(step) for step in self.steps], captions, window)

    def _look(self, step: Step) -> Look:
        diagram = self._diagram
        states = [0] * len(diagram.boxes)
        state_of = dict.fromkeys(step.finished, 2) | dict.fromkeys(step.active, 1)
        cells: dict[str, str] = {}
        for node in self._nodes:
            box = diagram.value_of[node]
            state = len(STATES) if node.op is ops.const else state_of.get(node, 0)
            states[box] = states[diagram.op_of.get(node, box)] = state
            texts = value_cells(node, step.data.get(node), step.grads.get(node), self._digits)
            cells |= {f"cell{box}-{i}": text for i, text in enumerate(texts)}
        along = {edges_into(diagram, node)[operand] for node, operand in step.edges}
        along |= {edge_out_of(diagram, node) for node, _ in step.edges}
        return Look(states, cells, along, bool(step.grads), _wrapped(step.lines))


def edges_into(diagram: Diagram, node: Hashable) -> list[int]:
    """The edges into a computed node's op, in the order of its operands."""
    op = diagram.op_of[node]
    return [k for k, (_, end) in enumerate(diagram.edges) if end == op]


def edge_out_of(diagram: Diagram, node: Hashable) -> int:
    """The edge from a computed node's op to its result."""
    return diagram.edges.index((diagram.op_of[node], diagram.value_of[node]))


def in_formulas(title: str) -> str:
    """In parentheses if it reads like arithmetic, as "a + b" does before ".grad"."""
    return title if re.fullmatch(r"[^\W\d][\w.\[\]]*", title) else f"({title})"


class Look(NamedTuple):
    """How one step looks."""

    states: list[int]  # of each box, as indices into STATES
    cells: dict[str, str]  # the text of each cell by the cell's name, cell{box}-{number}
    along: set[int]  # the edges that stand out
    backward: bool  # and their direction
    caption: str


class Stage:
    """A picture of the graph that shows one step after another, with words if `captions`."""

    def __init__(self, diagram: Diagram, looks: list[Look], captions: bool, window: bool) -> None:
        self.looks = looks
        boxes = []
        for k, box in enumerate(diagram.boxes):  # with room for the longest text of each cell
            names = [f"cell{k}-{i}" for i in range(len(box.cells))]
            every = [dict.fromkeys(look.cells[name] for look in looks) for name in names]
            boxes.append(box._replace(cells=tuple(max(texts, key=text_width) for texts in every)))
        width, rows = legend_width(STATES), 2
        if captions:
            texts = [look.caption.split("\n") for look in looks]
            width += text_width(f"step {len(looks)} of {len(looks)}")
            width = max(width, *(text_width(line) for lines in texts for line in lines))
            rows = 3 + max(map(len, texts))
        below = LINE * rows + figures.SLIDER * window
        make = figures.window if window else figures.new_figure
        with figures.own_settings():
            picture = Picture(replace(diagram, boxes=boxes), width, below, False, make)
        self._picture, y = picture, picture.bottom + LINE
        self.figure = picture.figure
        picture.legend({state: ("computed", fill) for state, fill in zip(STATES, FILLS)}, y)
        self._count = picture.write("", (picture.right, y + LINE / 2), ha="right")
        self._caption = picture.write("", (picture.left, y + 2 * LINE), ha="left", va="top")
        cells = (x for box, texts in zip(boxes, picture.texts) for x in texts[bool(box.title) :])
        self._cells = dict(zip(looks[0].cells, cells))
        self._heads: Any = None  # of the edges that stand out

    def show(self, k: int) -> None:
        """Show step k."""
        look, picture = self.looks[k], self._picture
        for box, state in zip(picture.boxes, look.states):
            box.set_facecolor(FILLS[state])
        for name, text in look.cells.items():
            self._cells[name].set_text(text)
        for place, edge in enumerate(picture.edges):
            colour, width, zorder = (ALONG, 2.5, 1.5) if place in look.along else (EDGE, 1.0, 1.0)
            edge.set(edgecolor=colour, linewidth=width, zorder=zorder)
        picture.heads.set_sizes([HEAD * (k not in look.along) for k in range(len(picture.edges))])
        if self._heads is not None:
            self._heads.remove()
        tips = [picture.ways[edge][0 if look.backward else -1] for edge in sorted(look.along)]
        self._heads = picture.arrows(tips, ALONG, look.backward)
        self._count.set_text(f"step {k + 1} of {len(self.looks)}")
        self._caption.set_text(look.caption)

    def place(self, k: int) -> tuple[float, float, float, float]:
        """Left, top, width and height of the last cell of box k, in shares of the picture."""
        patch: Any = self._picture.boxes[k]
        box, axes = patch.get_bbox(), self._picture.axes
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        cell, inset = LINE + 2 * CELL_PAD, CELL_PAD
        corner = (box.x0 + inset - left) / (right - left), (box.y1 - cell - top) / (bottom - top)
        return *corner, (box.width - 2 * inset) / (right - left), cell / (bottom - top)

    def svg(self, number: int) -> str:
        """Graph `number` of a page; its boxes, cells, edges and their heads have names."""
        picture, prefix = self._picture, f"p{number}-"
        picture.heads.set_gid(f"{prefix}heads")
        for name, text in self._cells.items():
            text.set_gid(prefix + name)
        for k, box in enumerate(picture.boxes):
            box.set_gid(f"{prefix}box{k}")
        for k, edge in enumerate(picture.edges):
            edge.set_gid(f"{prefix}edge{k}")
        return in_page(figures.encoded(self.figure, "svg", "none").decode())


def _wrapped(lines: tuple[str, ...]) -> str:
    """The lines of a step; those that are too long are broken before each "="."""
    texts = []
    for line in lines:
        long = text_width(max(line.split("\n"), key=len)) > LONG
        texts.append(line.replace(" = ", "\n        = ") if long else line)
    return "\n".join(texts)
