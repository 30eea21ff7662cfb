"""Backpropagation as moving pictures: a web page, a GIF, or a window."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from . import ops
from .diagram import COMPUTED, Diagram, number, whole_number
from .draw import (
    EDGE,
    LINE,
    SLIDER,
    Path,
    Picture,
    new_figure,
    play,
    png,
    save,
    save_gif,
    text_width,
    window,
)
from .nodes import value_cells, value_diagram
from .page import page
from .steps import Step, steps
from .value import Value, reachable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

MOST = 300  # nodes
TO_COME, AT_WORK, FINISHED = "to come", "at work", "finished"
FILL = {TO_COME: "#ffffff", AT_WORK: "#f0a830", FINISHED: "#bcdcf2"}
ALONG = "#d55e00"  # the edges along which a step acts
LONG = 9.0  # inches; a longer line of arithmetic is broken
PAGE_DPI = 120


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

    Raises TypeError where `root` is no `Value`, ValueError for a graph of more than 300 nodes and
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
        if len(nodes) > MOST:
            raise ValueError(
                f"animate takes a graph of at most {MOST} nodes (got {len(nodes):,}); "
                "vgrad.draw shows a larger one as its plan"
            )
        names = _names(nodes, digits)
        self.steps = steps(root, names, forward, by, digits)
        self._title = f"Backpropagation of {names[root]}"
        self._digits = digits
        titles = {x: x.label or names[x] for x in nodes if x.op is not ops.const}
        self._diagram = value_diagram([root], digits=digits, names=titles)

    def __len__(self) -> int:
        return len(self.steps)

    def draw(self, step: int, path: Path | None = None) -> Figure:
        """A picture of one step, counted from 0 or, where negative, from the end."""
        try:
            k = range(len(self))[step]
        except (IndexError, TypeError):
            last = len(self) - 1
            raise ValueError(f"step must be a whole number, 0 to {last} (got {step!r})") from None
        stage = self._stage()
        stage.show(k)
        if path is not None:
            save(stage.figure, path)
        return stage.figure

    def save(self, path: Path, seconds: float = 1.5) -> None:
        """Write all steps: as a web page (.html) with buttons and a slider, or as a .gif.

        The page is one file that asks for no other. `seconds` is how long a step stays when it
        plays. Raises ValueError for another ending, and where `seconds` is not positive.
        """
        kind = os.path.splitext(path)[1].lower()
        if kind not in (".html", ".gif"):
            raise ValueError(f"path must end in .html or .gif (got {os.fspath(path)!r})")
        if not seconds > 0:
            raise ValueError(f"seconds must be positive (got {seconds!r})")
        if kind == ".gif":
            stage = self._stage()
            save_gif(stage.figure, path, map(stage.show, range(len(self))), seconds)
            return
        text = self._page(seconds)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def show(self) -> None:
        """Open a window, with a slider and the arrow keys to step through.

        Raises RuntimeError where matplotlib has no window to open.
        """
        stage = self._stage(window)
        play(stage.figure, len(self), stage.show)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        width, height = self._stage().figure.get_size_inches()
        source = html.escape(self._page(1.5))
        return (
            f'<iframe srcdoc="{source}" style="border: 0; width: 100%; '
            f'max-width: {96 * width + 40:.0f}px; height: {96 * height + 90:.0f}px"></iframe>'
        )

    def _page(self, seconds: float) -> str:
        stage = self._stage()
        frames = []
        for k, step in enumerate(self.steps):
            stage.show(k)
            frames.append((png(stage.figure, PAGE_DPI), "\n".join(step.lines)))
        width = round(96 * stage.figure.get_figwidth())
        return page(self._title, frames, width, seconds)

    def _stage(self, make_figure: Callable[[float, float], Figure] = new_figure) -> _Stage:
        return _Stage(self._diagram, self.steps, self._digits, make_figure)


def _names(nodes: list[Value], digits: int) -> dict[Value, str]:
    """What formulas call each node: its label, a constant's number, or v1, v2 and so on."""
    names = {x: " ".join(x.label.split()) for x in nodes}
    for x, name in names.items():
        if not re.fullmatch(r"[\w.\[\]]*", name):
            names[x] = f"({name})"  # else "a + b.grad" could be taken for a sum
    taken = set(names.values())
    fresh = (f"v{k}" for k in count(1) if f"v{k}" not in taken)
    for x in nodes:
        if not names[x]:
            names[x] = number(x._data, digits) if x.op is ops.const else next(fresh)
    return names


class _Stage:
    """A picture of the graph on which one step after the other is shown."""

    def __init__(
        self,
        diagram: Diagram,
        steps: list[Step],
        digits: int,
        make_figure: Callable[[float, float], Figure],
    ) -> None:
        self._steps, self._digits = steps, digits
        boxes = list(diagram.boxes)
        for value, k in diagram.value_of.items():  # room for the longest that a box will say
            every = {self._cells(value, step) for step in steps}
            boxes[k] = boxes[k]._replace(
                cells=tuple(max(texts, key=text_width) for texts in zip(*every))
            )
        self._captions = [_wrapped(step.lines) for step in steps]
        lines = [caption.split("\n") for caption in self._captions]
        width = max(text_width(line) for text in lines for line in text)
        below = LINE * (max(map(len, lines)) + 3) + (SLIDER if make_figure is window else 0.0)
        self._picture = Picture(
            replace(diagram, boxes=boxes), width, below, tinted=False, make_figure=make_figure
        )
        self.figure = self._picture.figure
        y = self._picture.bottom + LINE
        self._picture.legend({state: (COMPUTED, fill) for state, fill in FILL.items()}, y)
        self._count = self._picture.write("", (self._picture.right, y + LINE / 2), ha="right")
        place = self._picture.left, y + 2 * LINE
        self._caption = self._picture.write("", place, ha="left", va="top")
        self._into: dict[int, list[int]] = {}  # the edges into each box, in order
        for k, (_, box) in enumerate(diagram.edges):
            self._into.setdefault(box, []).append(k)
        self._arrows: Artist | None = None

    def show(self, k: int) -> None:
        """Show step k."""
        step, picture = self._steps[k], self._picture
        diagram = picture.diagram
        active = set(step.active)  # as ==, which a tuple goes by, compares the numbers of Values
        for value, box in diagram.value_of.items():
            done = FINISHED if value in step.finished else TO_COME
            fill = FILL[AT_WORK if value in active else done]
            for place in {box, diagram.op_of.get(value, box)}:
                picture.boxes[place].set_facecolor(fill)
            texts = picture.texts[box]
            for text, cell in zip(
                texts[-len(diagram.boxes[box].cells) :], self._cells(value, step)
            ):
                text.set_text(cell)
        along = {self._into[diagram.op_of[node]][operand] for node, operand in step.edges}
        along |= {self._into[diagram.value_of[node]][0] for node, _ in step.edges}
        for place, edge in enumerate(picture.edges):
            edge.set(edgecolor=EDGE, linewidth=1.0, zorder=1)
            if place in along:
                edge.set(edgecolor=ALONG, linewidth=2.5, zorder=1.5)
        if self._arrows is not None:
            self._arrows.remove()
            self._arrows = None
        if along:
            backward = bool(step.grads)
            tips = [picture.ways[edge][0 if backward else -1] for edge in along]
            self._arrows = picture.arrows(tips, ALONG, backward)
        self._count.set_text(f"step {k + 1} of {len(self._steps)}")
        self._caption.set_text(self._captions[k])

    def _cells(self, value: Any, step: Step) -> tuple[str, ...]:
        return value_cells(value, step.data.get(value), step.grads.get(value), self._digits)


def _wrapped(lines: Sequence[str]) -> str:
    """The lines of a step, those that are too long broken before each "="."""
    texts = []
    for line in lines:
        long = text_width(max(line.split("\n"), key=len)) > LONG
        texts.append(line.replace(" = ", "\n        = ") if long else line)
    return "\n".join(texts)
