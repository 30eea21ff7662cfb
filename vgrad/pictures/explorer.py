"""A graph whose numbers follow as one drags: a web page with a slider at every leaf."""

from __future__ import annotations

import html
import os
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..arguments import whole_number
from ..engine import Value
from ..program import Program
from .animation import COLOURS, STATES, Look, Stage, edge_out_of, edges_into, in_formulas
from .diagram import Diagram, numeral
from .drawing import LINE
from .figures import FilePath, shown_in_notebook
from .javascript import Library
from .nodes import node_diagram
from .page import frame, in_script, page, require_seconds
from .scenes import Ranges, Scene, Slider, of_function, of_value, sliders
from .scripts import ENGINE, SLIDERS
from .steps import GIVEN, KNOWN, part_line, value_line

RESET = '<button id="reset" title="the numbers it began with">reset</button>'
MOST_DIGITS = 17  # that a float has
LOST = "None of the paths on this page fits these numbers."


def explore(
    root: Value | Callable[..., Any],
    *at: Any,
    ranges: Ranges | None = None,
    digits: int = 4,
) -> Exploration:
    """Show a graph with a slider at every leaf; data and gradients of all nodes follow.

    `root` is a `Value`, or a function, with the numbers to begin `at`: one per argument, or a list
    for an argument that is an array; what is left out is the argument's default, or 1. A number
    that is to stay as it is needs no argument, as in `explore(lambda x: power(x, 3), 2.0)`. The
    parameters that a function uses have sliders too. It may branch: the page has a graph for each
    path of up to 300 nodes that was found among random positions, 16 at most, and shows that of the
    path which the numbers take. `ranges` has the ends of sliders by name, as in {"x": (-1, 1)}.
    Numbers have `digits` significant digits. From any position one can step through the
    computation, forward and backward.

    The page computes in JavaScript, written from the rules of the op table. Raises TypeError for
    another root and for an op that cannot be written so, ValueError for a graph of more than 300
    nodes and for arguments out of range, and what the function raises for the numbers to begin at.

    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> explore(a * b)
    Exploration(a, b; 3 nodes)
    >>> explore(lambda x: x * x if x > 0 else -x, 2.0)
    Exploration(x; 2 paths, of 4 and 4 nodes)
    """
    if (digits := whole_number("digits", digits)) > MOST_DIGITS:
        raise ValueError(f"digits must be at most {MOST_DIGITS} (got {digits})")
    ranges = ranges or {}
    if isinstance(root, Value):
        if at:
            raise ValueError(f"at must be left out for a Value, which has its numbers (got {at!r})")
        return Exploration([of_value(root)], ranges, digits)
    if not callable(root) or isinstance(root, type | Program):
        kind = type(root).__name__
        raise TypeError(f"explore takes a Value or a function (got {root!r:.80}, a {kind})")
    return Exploration(of_function(root, at, ranges), ranges, digits)


class Exploration:
    """A page of graphs with sliders; `explore` makes one, and a notebook shows it.

    >>> explore(Value(2.0, label="a") * 3)
    Exploration(a; 3 nodes)
    """

    def __init__(self, scenes: list[Scene], ranges: Ranges, digits: int) -> None:
        self._scenes, self._digits = scenes, digits
        self._sliders = sliders(scenes[0], ranges)
        self._library = Library()
        wide = f"-8.{'8' * (digits - 1)}e-88"  # as wide as any number
        self._diagrams = [_diagram(scene, wide, digits) for scene in scenes]
        self._data = [self._nodes(scene, diagram) for scene, diagram in zip(scenes, self._diagrams)]

    def __repr__(self) -> str:
        names = [slider.name for slider in self._sliders]
        shown = ", ".join(names[:4] + ["..."] * (len(names) > 4))
        sizes = [str(len(scene.items)) for scene in self._scenes]
        nodes = f"{sizes[0]} nodes"
        if len(sizes) > 1:
            nodes = f"{len(sizes)} paths, of {', '.join(sizes[:-1])} and {sizes[-1]} nodes"
        return f"Exploration({shown}; {nodes})"

    def save(self, path: FilePath, seconds: float = 1.5) -> None:
        """Write the page, one file (.html) that asks for no other.

        `seconds`, from 0.01 to 60, is how long a step stays when the steps play. Raises ValueError
        for another ending, and for other `seconds`.

        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "explore.html"
        >>> explore(Value(2.0, label="a") * 3).save(path)
        >>> path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
        True
        """
        if os.path.splitext(path)[1].lower() != ".html":
            raise ValueError(f"path must end in .html (got {os.fspath(path)!r})")
        require_seconds(seconds)
        Path(path).write_text(self._page(seconds)[0], encoding="utf-8")

    def show(self) -> None:
        """Show the page in a notebook, elsewhere open it in a browser.

        Raises RuntimeError if there is none.

        >>> explore(Value(2.0) * 3).show()  # doctest: +SKIP
        """
        if shown_in_notebook(self):
            return
        path = Path(tempfile.mkdtemp(prefix="vgrad-")) / "explore.html"
        self.save(path)
        if not webbrowser.open(path.as_uri()):
            raise RuntimeError(
                "there must be a browser to show the page (found none); save('explore.html') "
                "writes it, to be opened anywhere"
            )

    def _repr_html_(self) -> str:
        """The page, for a notebook."""
        return frame(*self._page(1.5))

    def _page(self, seconds: float) -> tuple[str, float, float]:
        """The page, and the width and height of its largest graph with the words below, in inches.

        All is drawn as at its widest; the script puts the numbers in.
        """
        scenes, sizes = [], []
        for k, (scene, diagram) in enumerate(zip(self._scenes, self._diagrams)):
            cells = {
                f"cell{box}-{i}": text
                for box, x in enumerate(diagram.boxes)
                for i, text in enumerate(x.cells)
            }
            look = Look([0] * len(diagram.boxes), cells, set(), False, "")
            stage = Stage(diagram, [look], captions=False, window=False)
            over = [
                _in_graph(j, slider, stage.place(diagram.value_of[scene.items[node].key]))
                for j, (slider, node) in enumerate(zip(self._sliders, scene.leaves))
            ]
            scenes.append(stage.svg(k) + "\n".join(over))
            sizes.append(stage.figure.get_size_inches())
        lines = 1 + max(sum(map(bool, x["parts"])) for data in self._data for x in data["nodes"])
        about = {"paths": self._data, "start": [slider.number for slider in self._sliders]}
        about |= {"digits": self._digits, "given": GIVEN, "known": KNOWN, "lost": LOST}
        about |= {"noPart": len(STATES)}
        script = f"{self._library.text}\nconst page = {in_script(about)};\n{ENGINE}"
        title = f"Explore {self._scenes[0].items[self._scenes[0].result].title}"
        options: Any = {"lines": lines, "seconds": seconds, "buttons": RESET, "first": "last()"}
        options["panel"] = "".join(_in_panel(k, x) for k, x in enumerate(self._sliders))
        width, height = (max(size[k] for size in sizes) for k in (0, 1))
        text = page(title, scenes, script, COLOURS, after=SLIDERS, **options)
        return text, width, height + LINE * lines

    def _nodes(self, scene: Scene, diagram: Diagram) -> dict[str, Any]:
        """What the page's script knows of a graph."""
        reached = {scene.result}  # what the result depends on
        for k in range(len(scene.items) - 1, -1, -1):
            reached |= set(scene.items[k].parents) if k in reached else set()
        return {
            "nodes": [self._node(scene, k, diagram) for k in range(len(scene.items))],
            "result": scene.result,
            "reached": sorted(reached),
            "boxes": len(diagram.boxes),
            "answers": [*scene.answers.items()],
        }

    def _node(self, scene: Scene, k: int, diagram: Diagram) -> dict[str, Any]:
        item = scene.items[k]
        box = diagram.value_of[item.key]
        about: dict[str, Any] = {"box": box, "parents": item.parents, "parts": []}
        number = scene.numbers[k]
        about |= {"name": in_formulas(item.title) if item.title else numeral(number, self._digits)}
        if item.kind == "constant":
            return about | {"number": number}
        if k in scene.leaves:
            return about | {"leaf": scene.leaves.index(k)}
        return about | self._computed(scene, k, diagram)

    def _computed(self, scene: Scene, k: int, diagram: Diagram) -> dict[str, Any]:
        """What is known of a computed node besides."""
        item, op, digits = scene.items[k], scene.items[k].op, self._digits
        operands = [scene.items[x] for x in item.parents]
        constants = [
            scene.numbers[x] if operand.kind == "constant" else None
            for x, operand in zip(item.parents, operands)
        ]
        names = [
            in_formulas(x.title) if c is None else numeral(c, digits)
            for x, c in zip(operands, constants)
        ]
        own = in_formulas(item.title)
        parts = [
            None
            if vjp is None or constants[j] is not None
            else part_line(names[j], own, op, j, names, constants, digits)
            for j, vjp in enumerate(op.vjp)
        ]
        return {
            "op": self._library.require_vjp(op, constants[0]),
            "title": op.name,
            "opBox": diagram.op_of[item.key],
            "edges": edges_into(diagram, item.key),
            "edge": edge_out_of(diagram, item.key),
            "line": value_line(own, op, names, constants, digits),
            "parts": parts,
        }


def _diagram(scene: Scene, wide: str, digits: int) -> Diagram:
    """With cells as wide as any number, and one more at each leaf, for the slider."""
    items = []
    for k, item in enumerate(scene.items):
        if item.kind == "constant":
            cells: tuple[str, ...] = (numeral(scene.numbers[k], digits),)
        else:
            more = item.cells if item.kind == "question" else (" ",) * (k in scene.leaves)
            cells = (f"data {wide}", f"grad {wide}", *more)
        items.append(item._replace(cells=cells))
    return node_diagram(items)


def _in_graph(leaf: int, slider: Slider, place: tuple[float, float, float, float]) -> str:
    """A slider in the last cell of its box, whose place is in shares of the picture."""
    left, top, width, height = (f"{100 * x:.3f}%" for x in place)
    style = f"left: {left}; top: {top}; width: {width}; height: {height}"
    return _slider(leaf, slider, f' style="{style}"')


def _in_panel(leaf: int, slider: Slider) -> str:
    """The same slider with its name and its number."""
    name = html.escape(slider.name)
    return f"<label><span>{name}</span>{_slider(leaf, slider)}<output></output></label>"


def _slider(leaf: int, slider: Slider, style: str = "") -> str:
    ends = f'min="{slider.low!r}" max="{slider.high!r}" step="{slider.step!r}"'
    name = f"{html.escape(slider.name)}, {slider.low:g} to {slider.high:g}"
    about = f'aria-label="{name}" title="{name}"'
    return f'<input type="range" class="leaf" data-leaf="{leaf}" {ends} {about}{style}>'
