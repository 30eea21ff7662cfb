"""Backpropagation as moving pictures: a web page, a GIF, or a window."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import ops
from ..arguments import whole_number
from ..engine import Value, reachable
from .diagram import COMPUTED, Diagram, numeral, one_line
from .drawing import (
    EDGE,
    HEAD,
    LINE,
    SLIDER,
    FilePath,
    Picture,
    encoded,
    legend_width,
    new_figure,
    own_settings,
    play,
    save,
    save_gif,
    text_width,
    window,
)
from .nodes import value_cells, value_diagram
from .overview import LIMIT
from .page import page
from .steps import Step, steps

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

STATES = "to come", "at work", "finished"  # a box's state is a place in here
FILLS = "#ffffff", "#f0a830", "#bcdcf2"
ALONG = "#d55e00"  # the edges along which a step acts
LONG = 9.0  # inches; a longer line of arithmetic is broken


def animate(
    root: Value,
    *,
    forward: bool = False,
    by: Literal["node", "level"] = "node",
    digits: int = 6,
) -> Animation:
    """Show `root.backward()` step by step, from gradients of 0, with the arithmetic of each step.

    With `forward` the computation of the values comes first. A step is a node, or with
    `by="level"` all nodes of a level. The numbers are the engine's, to so many significant digits;
    the gradients of `root` and what it was computed from are left as they are.

    Raises TypeError if `root` is no `Value`, ValueError for a graph of more than 300 nodes and
    for arguments out of range.

    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> c = a * b
    >>> animation = animate(c)
    >>> print(animation.steps[1].lines[0])
    a.grad += b.data * v1.grad = -3.0 * 1.0 = -3.0
    """
    return Animation(root, forward, by, digits)


class Animation:
    """The `steps` of a backward pass, and a picture of each; `animate` makes one."""

    def __init__(
        self, root: Value, forward: bool, by: Literal["node", "level"], digits: int
    ) -> None:
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
        titles = _titles(nodes)
        names = {
            x: _in_formulas(titles[x]) if x in titles else numeral(x._data, digits) for x in nodes
        }
        self.steps = steps(root, names, forward, by, digits)
        self._title = f"Backpropagation of {names[root]}"
        self._digits = digits
        self._diagram = value_diagram([root], digits=digits, names=titles)

    def __len__(self) -> int:
        return len(self.steps)

    def draw(self, step: int, path: FilePath | None = None) -> Figure:
        """A picture of one step, counted from 0 or, where negative, from the end."""
        n = len(self)
        if not hasattr(step, "__index__") or not -n <= step < n:
            raise ValueError(f"step must be a whole number, {-n} to {n - 1} (got {step!r})")
        stage = self._stage()
        stage.show(step % n)
        if path is not None:
            save(stage.figure, path)
        return stage.figure

    def save(self, path: FilePath, seconds: float = 1.5) -> None:
        """Write all steps: as a web page (.html) with buttons and a slider, or as a .gif.

        The page is one file that asks for no other. `seconds` is how long a step stays when it
        plays, from 0.01 to 60. Raises ValueError for another ending, and for other `seconds`.
        """
        kind = os.path.splitext(path)[1].lower()
        if kind not in (".html", ".gif"):
            raise ValueError(f"path must end in .html or .gif (got {os.fspath(path)!r})")
        if not 0.01 <= ops.number(seconds) <= 60:
            raise ValueError(f"seconds must be from 0.01 to 60 (got {seconds!r})")
        if kind == ".gif":
            stage = self._stage()
            save_gif(stage.figure, path, map(stage.show, range(len(self))), seconds)
            return
        text = self._page(self._stage(captions=False), seconds)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def show(self) -> None:
        """Open a window, with a slider and the arrow keys to step through.

        Raises RuntimeError if matplotlib has no window to open.
        """
        stage = self._stage(window)
        play(stage.figure, len(self), stage.show)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        stage = self._stage(captions=False)
        width, height = stage.figure.get_size_inches()
        height += LINE * (1 + max(len(step.lines) for step in self.steps))  # the words below it
        source = html.escape(self._page(stage, 1.5))
        return (
            f'<iframe srcdoc="{source}" style="border: 0; width: 100%; '
            f'max-width: {96 * width + 60:.0f}px; height: {min(96 * height + 120, 800):.0f}px">'
            "</iframe>"
        )

    def _page(self, stage: _Stage, seconds: float) -> str:
        """The graph as SVG, and what changes in it from step to step."""
        stage.name_parts()
        looks = [stage.look(k) for k in range(len(self))]
        cells: dict[str, list[tuple[int, str]]] = {}
        for k, look in enumerate(looks):
            for name, text in look.cells.items():
                if name not in cells or cells[name][-1][1] != text:
                    cells.setdefault(name, []).append((k, text))
        data = {
            "fills": ["".join(map(str, look.states)) for look in looks],
            "cells": cells,
            "along": [sorted(look.along) for look in looks],
            "backward": [look.backward for look in looks],
            "words": ["\n".join(step.lines) for step in self.steps],
        }
        colours = {"fills": FILLS, "along": ALONG, "edge": EDGE}
        svg = encoded(stage.figure, "svg", "none").decode()
        return page(self._title, svg, data | {"colours": colours}, seconds)

    def _stage(
        self,
        make_figure: Callable[[float, float], Figure] = new_figure,
        captions: bool = True,
    ) -> _Stage:
        return _Stage(self._diagram, self.steps, self._digits, make_figure, captions)


def _titles(nodes: list[Value]) -> dict[Value, str]:
    """What each node is called, no two alike: its label, or v1, v2 and so on.

    A constant without a label has no title.
    """
    labels = {x: one_line(x.label) for x in nodes}
    reserved = set(labels.values())
    titles: dict[Value, str] = {}
    taken: set[str] = set()
    for x, label in labels.items():
        if label or x.op is not ops.const:
            others = (f"{label}_{k}" for k in count(2)) if label else (f"v{k}" for k in count(1))
            free = (name for name in others if name not in taken | reserved)
            titles[x] = label if label and label not in taken else next(free)
            taken.add(titles[x])
    return titles


def _in_formulas(title: str) -> str:
    """In parentheses where it reads like arithmetic, as "a + b" does before ".grad"."""
    return title if re.fullmatch(r"[^\W\d][\w.\[\]]*", title) else f"({title})"


class Look(NamedTuple):
    """How one step looks."""

    states: list[int]  # of each box
    cells: dict[str, str]  # what is written in each cell, by its name
    along: set[int]  # the edges that stand out
    backward: bool  # and in which direction


class _Stage:
    """A picture of the graph on which one step after the other is shown."""

    def __init__(
        self,
        diagram: Diagram,
        steps: list[Step],
        digits: int,
        make_figure: Callable[[float, float], Figure],
        captions: bool,
    ) -> None:
        self._steps, self._digits = steps, digits
        boxes = list(diagram.boxes)
        for value, k in diagram.value_of.items():  # room for the longest that a box will say
            every = {self._cells(value, step) for step in steps}
            longest = tuple(max(texts, key=text_width) for texts in zip(*every))
            boxes[k] = boxes[k]._replace(cells=longest)
        self._captions = [_wrapped(step.lines) if captions else "" for step in steps]
        self._counts = [
            f"step {k + 1} of {len(steps)}" if captions else "" for k in range(len(steps))
        ]
        lines = [caption.split("\n") for caption in self._captions]
        states = {state: (COMPUTED, fill) for state, fill in zip(STATES, FILLS)}
        width = max(text_width(line) for text in lines for line in text)
        width = max(width, legend_width(STATES) + text_width(self._counts[-1]))
        below = LINE * (2 + captions * (1 + max(map(len, lines))))
        below += SLIDER if make_figure is window else 0.0
        with own_settings():
            self._picture = Picture(
                replace(diagram, boxes=boxes), width, below, tinted=False, make_figure=make_figure
            )
        self.figure = self._picture.figure
        y = self._picture.bottom + LINE
        self._picture.legend(states, y)
        self._count = self._picture.write("", (self._picture.right, y + LINE / 2), ha="right")
        place = self._picture.left, y + 2 * LINE
        self._caption = self._picture.write("", place, ha="left", va="top")
        self._texts = {
            _cell_name(k, i): text
            for k, box in enumerate(boxes)
            for i, text in enumerate(self._picture.texts[k][bool(box.title) :])
        }
        self._into: dict[int, list[int]] = {}  # the edges into each box, in order
        for k, (_, into) in enumerate(diagram.edges):
            self._into.setdefault(into, []).append(k)
        self._heads: Artist | None = None

    def look(self, k: int) -> Look:
        """How step k looks."""
        step, diagram = self._steps[k], self._picture.diagram
        active = set(step.active)  # as ==, which a tuple goes by, compares the numbers of Values
        states = [0] * len(diagram.boxes)
        cells = {}
        for value, box in diagram.value_of.items():
            state = 1 if value in active else 2 if value in step.finished else 0
            states[box] = states[diagram.op_of.get(value, box)] = state
            for i, text in enumerate(self._cells(value, step)):
                cells[_cell_name(box, i)] = text
        along = {self._into[diagram.op_of[node]][operand] for node, operand in step.edges}
        along |= {self._into[diagram.value_of[node]][0] for node, _ in step.edges}
        return Look(states, cells, along, bool(step.grads))

    def show(self, k: int) -> None:
        """Show step k."""
        look, picture = self.look(k), self._picture
        for box, state in zip(picture.boxes, look.states):
            box.set_facecolor(FILLS[state])
        for name, text in look.cells.items():
            self._texts[name].set_text(text)
        for place, edge in enumerate(picture.edges):
            stands_out = place in look.along
            edge.set_edgecolor(ALONG if stands_out else EDGE)
            edge.set(linewidth=2.5 if stands_out else 1.0, zorder=1.5 if stands_out else 1)
        sizes = [0 if place in look.along else HEAD for place in range(len(picture.edges))]
        picture.heads.set_sizes(sizes)
        if self._heads is not None:
            self._heads.remove()
        tips = [picture.ways[edge][0 if look.backward else -1] for edge in sorted(look.along)]
        self._heads = picture.arrows(tips, ALONG, look.backward)
        self._count.set_text(self._counts[k])
        self._caption.set_text(self._captions[k])

    def name_parts(self) -> None:
        """Give all that changes a name for SVG; heads for each edge and direction among them."""
        picture = self._picture
        picture.heads.set_gid("plain")
        for k, box in enumerate(picture.boxes):
            box.set_gid(f"box{k}")
        for name, text in self._texts.items():
            text.set_gid(name)
        for k, (edge, way) in enumerate(zip(picture.edges, picture.ways)):
            edge.set_gid(f"edge{k}")
            picture.arrows([way[-1]], ALONG).set_gid(f"head{k}")
            picture.arrows([way[0]], ALONG, backward=True).set_gid(f"tail{k}")

    def _cells(self, value: Any, step: Step) -> tuple[str, ...]:
        return value_cells(value, step.data.get(value), step.grads.get(value), self._digits)


def _cell_name(box: int, cell: int) -> str:
    return f"cell{box}-{cell}"


def _wrapped(lines: Sequence[str]) -> str:
    """The lines of a step, those that are too long broken before each "="."""
    texts = []
    for line in lines:
        long = text_width(max(line.split("\n"), key=len)) > LONG
        texts.append(line.replace(" = ", "\n        = ") if long else line)
    return "\n".join(texts)
