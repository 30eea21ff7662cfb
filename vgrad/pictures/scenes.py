"""The graphs of a page that is explored: of a `Value`, or of a function, one for each path."""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..arguments import Array, as_numbers
from ..engine import Value, reachable
from ..errors import PathsWarning, ShapeError
from ..flat import Graph, argument_names
from ..program import Program, compile
from .diagram import one_line
from .nodes import Item, distinct, graph_items, value_items
from .overview import LIMIT

MOST_PATHS = 16  # of a function, on a page
POSITIONS, THETAS = 256, 8  # where the paths of a function are looked for
STOPS = 100  # of a slider, or more
SMALLEST, LARGEST = 1e-300, 1e300  # widths of a slider

Range = tuple[float, float]
Ranges = Mapping[str, Range]


class Scene(NamedTuple):
    """A graph of the page, and which numbers it is for."""

    items: list[Item]  # parents first; all but constants have a title each, and of the cells
    # those of questions count, which say where they are asked
    numbers: list[float]  # to begin with, of leaves and constants; those of others are not read
    leaves: list[int]  # the items that have sliders
    result: int  # the item whose derivatives are shown
    answers: dict[int, float]  # what some items are if the numbers take this path


class Slider(NamedTuple):
    """A leaf's name, the number it begins with, its ends, and its step."""

    name: str
    number: float
    low: float
    high: float
    step: float


def sliders(scene: Scene, ranges: Ranges) -> list[Slider]:
    """A slider for each leaf; by default it reaches twice as far as the number is from 0.

    Raises ValueError for a range that is none, or is no leaf's.
    """
    found = _sliders(scene, ranges)
    if not isinstance(ranges, Mapping):
        raise TypeError(f'ranges must be a dict, as {{"x": (-1, 1)}} (got {ranges!r:.80})')
    unknown = set(ranges) - {slider.name for slider in found}
    if unknown:
        names = ", ".join(slider.name for slider in found) or "none"
        raise ValueError(f"ranges must be by the names of leaves, {names} (got {min(unknown)!r})")
    return found


def _sliders(scene: Scene, ranges: Ranges) -> list[Slider]:
    return [_slider(scene.items[k].title, scene.numbers[k], ranges) for k in scene.leaves]


def _slider(name: str, number: float, ranges: Ranges) -> Slider:
    if name in ranges:
        low, high = _ends(name, ranges[name])
    else:
        middle = number if SMALLEST < abs(number) < LARGEST / 4 else 0.0
        reach = 2 * abs(middle) or 1.0
        low, high = middle - reach, middle + reach
    digits = -math.floor(math.log10((high - low) / STOPS))  # stops at round numbers
    if name not in ranges:
        scale = 10.0**digits
        low = math.floor(round(low * scale, 6)) / scale
        high = math.ceil(round(high * scale, 6)) / scale
    return Slider(name, number, low, high, float(f"1e{-digits}"))


def _ends(name: str, range_: Range) -> Range:
    with suppress(TypeError, ValueError):
        low, high = map(ops.number, range_)
        if SMALLEST < high - low < LARGEST:
            return low, high
    raise ValueError(f"the range of {name} must be two numbers, low < high (got {range_!r})")


def of_value(root: Value) -> Scene:
    """The graph behind a value; raises ValueError if it is too large."""
    values = reachable(root)[::-1]  # the root has the highest level, so it comes last
    _require_small(len(values))
    leaves = [k for k, x in enumerate(values) if not x.level and x.op is not ops.const]
    items = list(value_items([root], 1, {}))
    return _scene(items, [x._number for x in values], leaves, len(values) - 1, {})


def of_function(fn: Callable[..., Any], at: Sequence[Any], ranges: Ranges) -> list[Scene]:
    """The graph of each path that is found, the first that of the numbers to begin `at`.

    Raises what the function raises there, ShapeError unless its first output is one number, and
    ValueError if that graph is too large.
    """
    start, fn = _start(fn, at), _bounded(fn)
    program = _recorded(fn, start)
    if _graphs(program)[0].questions:
        program = _explored(fn, start, _scenes(program, start)[0], ranges)
    _require_small(len(_graphs(program)[0]))
    return _scenes(program, start)


def _scenes(program: Program, start: list[Array]) -> list[Scene]:
    """Those of the paths that a program has found, but for large ones."""
    numbers: list[float] = np.concatenate([*map(np.ravel, start), program.theta()]).tolist()
    graphs = _graphs(program)
    return [_of_graph(x, numbers) for x in graphs if len(x) <= LIMIT or x is graphs[0]]


def _require_small(nodes: int) -> None:
    if nodes > LIMIT:
        raise ValueError(
            f"explore takes a graph of at most {LIMIT} nodes (got {nodes:,}); vgrad.draw shows a "
            "larger one as its plan"
        )


def _start(fn: Callable[..., Any], at: Sequence[Any]) -> list[Array]:
    """The arguments to begin with, each as a batch of one sample."""
    given, most = list(at), len(at)
    with suppress(TypeError, ValueError):  # a function without a signature has what is given
        parameters = inspect.signature(fn).parameters.values()
        ordinary = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        defaults = [p.default for p in ordinary[len(at) :]]
        numbers = [1.0 if x is inspect.Parameter.empty else x for x in defaults]
        given += takewhile(lambda x: ops.is_number(x) and not isinstance(x, bool), numbers)
        most = len(at) if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(ordinary)
    name = getattr(fn, "__name__", type(fn).__name__)
    if not given:
        raise ValueError(
            f"a function that is explored must take a number (got {name}, which takes none); "
            "explore the Value that it returns"
        )
    if len(at) > most:
        arguments = f"{most} argument{'s' * (most != 1)}"
        raise ValueError(f"at must have at most a number for each of {arguments} (got {len(at)})")
    names = argument_names(fn, len(given))
    try:
        return [as_numbers(x, name)[None] for x, name in zip(given, names)]
    except TypeError as error:
        fixed = "what is no number must be fixed, as by explore(lambda x: f(x, None), 1.0)"
        raise TypeError(f"{error}; {fixed}") from error


def _explored(fn: Callable[..., Any], start: list[Array], scene: Scene, ranges: Ranges) -> Program:
    """A program that has found paths from `start`, with that scene, to the ends of sliders.

    Where the function raises, but for the start, there is nothing to be shown.
    """
    ends = np.cumsum([x.size for x in start])
    parts = np.split(_positions(_sliders(scene, ranges)[: ends[-1]]), ends[:-1], axis=1)
    batch = [np.concatenate([x, part.reshape(-1, *x.shape[1:])]) for x, part in zip(start, parts)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PathsWarning)  # a page has as many as these
        try:
            program = _recorded(fn, batch)
        except Exception:
            batch = _without_errors(fn, batch)
            program = _recorded(fn, batch)
        others = _positions(_sliders(_scenes(program, start)[0], ranges)[ends[-1] :])
        for numbers in (program.theta(), *others[:: POSITIONS // THETAS]):
            _visit(program, numbers, batch)
    return program


def _positions(sliders: list[Slider]) -> Array:
    """Numbers for sliders, (POSITIONS, n): anywhere, and where a function may ask for equality."""
    rng, shape = np.random.default_rng(0), (POSITIONS // 4, len(sliders))
    low, high = (np.array([getattr(x, end) for x in sliders]) for end in ("low", "high"))
    anywhere, halves, equal, zeros = (rng.uniform(low, high, shape) for _ in range(4))
    halves = np.rint(2 * halves) / 2
    equal[:] = np.rint(equal[:, :1])
    zeros[rng.random(shape) < 0.5] = 0.0
    rows: Array = np.clip(np.concatenate([anywhere, halves, equal, zeros]), low, high)
    return rows


def _recorded(fn: Callable[..., Any], batch: list[Array]) -> Program:
    """A program that knows the parameters of all paths that these samples take."""
    program = compile(fn, fuse=False, paths=MOST_PATHS)
    program.theta(*batch)
    return program


def _without_errors(fn: Callable[..., Any], batch: list[Array]) -> list[Array]:
    """The samples for which the function does not raise."""
    good = []
    for k in range(len(batch[0])):
        with suppress(Exception):
            _recorded(fn, [x[k : k + 1] for x in batch])
            good.append(k)
    return [x[good] for x in batch]


class _Patience:
    """Answers the questions of a function, but not for ever: a loop may have no end."""

    def __init__(self, answers: Any) -> None:
        self.answers, self.asked = answers, 0

    def ask(self, tape: Any, place: int, means: str) -> float:
        self.asked += 1
        if self.asked > LIMIT:
            raise ValueError(
                f"a function that is explored must ask at most {LIMIT} questions on its way, as by "
                "an if or a while (got one that asks more, or that does not end)"
            )
        answer: float = self.answers.ask(tape, place, means)
        return answer


def _bounded(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which raises ValueError where it asks more questions than a page can hold."""

    @wraps(fn)
    def call(*args: Any) -> Any:
        tape = next(x.flat[0] if isinstance(x, np.ndarray) else x for x in args if np.size(x)).tape
        answers, tape.answers = tape.answers, tape.answers and _Patience(tape.answers)
        try:
            return fn(*args)
        finally:
            tape.answers = answers

    return call


def _visit(program: Program, theta: Array, batch: list[Array]) -> None:
    """Call a program for the paths of its samples, if need be one by one."""
    try:
        program(theta, *batch)
    except Exception:
        for k in range(len(batch[0])):
            with suppress(Exception):
                program(theta, *[x[k : k + 1] for x in batch])


def _graphs(program: Program) -> list[Graph]:
    """The paths that a program has found."""
    (paths,) = program.paths.values()
    if paths.runners[0].objective_shape != ():
        raise ShapeError(
            "a function that is explored must return one number, or several of which the first is "
            f"one number (got shape {paths.runners[0].objective_shape})"
        )
    return [runner.graph for runner in paths.runners]


def _of_graph(graph: Graph, start: Sequence[float]) -> Scene:
    leaves = [*graph.inputs.tolist(), *graph.parameters.tolist()]
    numbers = graph.value.tolist()
    for node, number in zip(leaves, start):
        numbers[node] = number
    outputs = graph.outputs.tolist()
    own = outputs[: len(outputs) - len(graph.questions)]
    asked = dict(zip(outputs[len(own) :], graph.questions))
    labels = dict(zip(graph.parameters.tolist(), (leaf.label for leaf in graph.leaves)))
    items = []
    for k, item in enumerate(graph_items(graph, 1)):
        item = item._replace(label=item.label or labels.get(k, ""))
        if k in asked and k not in own:
            question = asked[k]
            place = f"{os.path.basename(question.line)} is {question.in_words(question.answer)}"
            item = item._replace(kind="question", cells=(place,))
        elif k in own and not item.label:
            item = item._replace(label="output" if len(own) == 1 else f"output {own.index(k)}")
        items.append(item)
    answers = {node: question.answer for node, question in asked.items()}
    return _scene(items, numbers, leaves, outputs[0], answers)


def _scene(
    items: list[Item],
    numbers: list[float],
    leaves: list[int],
    result: int,
    answers: dict[int, float],
) -> Scene:
    labels = {k: one_line(item.label) for k, item in enumerate(items) if item.kind != "constant"}
    names = distinct(labels)
    named = [item._replace(title=names.get(k, "")) for k, item in enumerate(items)]
    return Scene(named, numbers, leaves, result, answers)
