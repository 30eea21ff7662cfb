"""Pictures of training: its curves, the decision boundary, and both while it goes on."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_numbers, whole_number
from ..engine import Value
from ..errors import ShapeError
from ..ops import number
from .figures import (
    FilePath,
    encoded,
    keep_open,
    log_scale,
    new_figure,
    notebook,
    save,
    whole_ticks,
    window,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Array = NDArray[np.float64]
History = Mapping[str, Sequence[float]] | Sequence[float]

# Okabe and Ito 2008, in an order in which neighbours differ in brightness too.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
TINTS = ["#cfe2f3", "#fbe0c3", "#cdebdd", "#f3dce8", "#e0f1fb", "#fdeecb"]
MARKERS = ["o", "^", "s", "D", "v", "P", "X"]  # one more, so that pairs differ for long
FEW = 20  # points; a longer curve has no dots
NOISY = 0.03  # of the range of its mean: a curve whose direction changes by that at each step
HUGE = 1e100  # stands for a score of inf, so that lines can be drawn beside it


def plot_training(
    history: History,
    path: FilePath | None = None,
    *,
    smooth: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Plot how training went: the loss, the accuracy and whatever else, one above the other.

    `history` maps each name to its numbers, one per step; a plain sequence is the loss. Names that
    end in the same word, as "loss" and "val loss" do, share a panel and its scale. The scale of a
    loss is logarithmic if it is always positive and changes by a factor of ten; an accuracy, from 0
    to 1, is shown in percent. A long, noisy curve is drawn pale, under its running mean; `smooth`
    is the number of steps that a mean is taken of, 1 for none. Draws on `figure` or a new one, and
    saves it if a path is given.

    >>> figure = plot_training({"loss": [1.0, 0.1], "val loss": [1.0, 0.3], "accuracy": [0.5, 1.0]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'accuracy, %']

    Raises TypeError for anything but numbers, ValueError if there are none.
    """
    curves = history if isinstance(history, Mapping) else {"loss": history}
    arrays = {str(k): as_numbers(_plain(x), f"history[{k!r}]") for k, x in curves.items()}
    if not arrays or any(x.ndim != 1 or not len(x) for x in arrays.values()):
        shapes = {name: x.shape for name, x in arrays.items()}
        raise ValueError(f"history must have numbers, a list of them by each name (got {shapes})")
    steps = None if smooth is None else whole_number("smooth", smooth)
    groups: dict[str, dict[str, Array]] = {}
    for name, numbers in arrays.items():
        groups.setdefault(_last_word(name), {})[name] = numbers
    target = figure or new_figure(6, 1 + 2 * len(groups), constrained=True)
    panels = target.subplots(len(groups), sharex=True, squeeze=False)[:, 0]
    colours = dict(zip(arrays, COLOURS * len(arrays)))
    means = {_panel(axes, *group, colours, steps) for axes, group in zip(panels, groups.items())}
    whole_ticks(panels[-1])
    widths = sorted(means - {1})
    over = f"; lines are means of {' or '.join(map(str, widths))} steps" if widths else ""
    panels[-1].set_xlabel(f"step{over}")
    if path is not None:
        save(target.canvas.figure, path)
    return target


def _last_word(name: str) -> str:
    """As "loss" of "val_loss" or of "loss (train)"; a name that ends in a number is its own."""
    words = re.findall(r"[^\W_]+", re.sub(r"\(.*\)\s*$", "", name))
    return words[-1] if words and not words[-1].isdigit() else name


def _panel(
    axes: Axes, word: str, group: dict[str, Array], colours: dict[str, str], smooth: int | None
) -> int:
    """Curves whose names end in one word; returns of how many steps the means are, 1 for none."""
    every = np.concatenate([x[np.isfinite(x)] for x in group.values()])
    percent = "accuracy" in word
    scale = 100 if percent and every.max(initial=0) <= 1 else 1
    log = "loss" in word and len(every) > 0 and every.min() > 0
    log = log and every.max() / 10 >= every.min()
    widths = [_width(np.log(x) if log else x) if smooth is None else smooth for x in group.values()]
    width = max(widths)
    for name, numbers in group.items():
        gaps = not np.isfinite(numbers).all()
        look: Any = {"color": colours[name], "marker": "." * (len(numbers) <= FEW or gaps)}
        if width > 1:  # in a scale with a logarithm, too, a mean is one of the numbers
            axes.plot(scale * numbers, **look, alpha=0.25)
            look["marker"] = ""
        axes.plot(scale * _running_mean(numbers, width), **look, label=name)
    name = word if len(group) > 1 else next(iter(group))
    axes.set_ylabel(f"{name}, %" if percent else name)
    axes.grid(alpha=0.3)
    if percent:
        axes.set_ylim(0, 103)
    elif log:
        log_scale(axes, math.log10(every.max()) - math.log10(every.min()))
    if len(group) > 1:
        _legend_above(axes, len(group))
    return width


def _width(numbers: Array) -> int:
    """Of how many steps to take a mean: 1 for a short curve, or one that is smooth."""
    width = len(numbers) // 25 | 1
    known = numbers[np.isfinite(numbers)]
    if width < 3 or len(known) < len(numbers):
        return 1
    noise = np.abs(np.diff(known, 2)).mean()  # for a smooth curve next to nothing
    return width if noise > NOISY * np.ptp(_running_mean(known, width)) else 1


def _running_mean(numbers: Array, width: int) -> Array:
    """The mean of the numbers around each; of what is finite, and nan where nothing is."""
    if width == 1:
        return numbers
    known = np.isfinite(numbers)
    ones = np.ones(min(width, len(numbers)))
    sums, counts = (np.convolve(x, ones, "same") for x in (np.where(known, numbers, 0), known))
    return np.where(counts > 0.5, sums / np.maximum(counts, 1), np.nan)


def _legend_above(axes: Axes, entries: int) -> None:
    """A legend that covers neither curves nor points."""
    place: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "frameon": False}
    axes.legend(**place, ncols=min(entries, 4))


def plot_boundary(
    predict: Callable[[Array], Any],
    X: Any,
    y: Any,
    path: FilePath | None = None,
    *,
    threshold: float = 0.0,
    margin: float | None = None,
    resolution: int = 200,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Plot points (B, 2) of classes `y` (B,), and the region that a classifier gives each class.

    `predict` is called once, with a grid of N = `resolution` squared points (N, 2). It returns
    scores (N,), where a score above `threshold` means the higher of two classes, or (N, classes),
    where the highest wins. Between classes is a solid line, with dashed ones where scores (N,) are
    `margin` from the threshold. Draws on `figure` or a new one, and saves it if a path is given.

    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([-1, 1])
    >>> figure = plot_boundary(lambda points: points[:, 0] - points[:, 1], X, y)

    Raises ShapeError if shapes do not fit, ValueError for more classes than there are scores.
    """
    X, y = as_numbers(X, "X"), np.asarray(y)
    if X.ndim != 2 or X.shape[1] != 2 or y.shape != X.shape[:1] or not len(X):
        raise ShapeError(f"X must be (B, 2) and y (B,), B at least 1 (got {X.shape}, {y.shape})")
    if not np.isfinite(X).all() or (y != y).any():
        raise ValueError("X must be finite, and y without nan (got a point that is not)")
    low, high = X.min(axis=0), X.max(axis=0)
    room = 0.15 * np.maximum(high - low, 1e-3)
    lines = np.linspace(low - room, high + room, max(2, whole_number("resolution", resolution))).T
    across, up = np.meshgrid(*lines)
    scores = _scores(predict, np.column_stack([across.ravel(), up.ravel()]))
    several = 2 if scores.ndim == 1 else scores.shape[1]
    classes = np.unique(y)
    if len(classes) > several:
        raise ValueError(f"y must have no more than {several} classes (got {len(classes)})")
    target = figure or new_figure(6, 5, constrained=True)
    axes = target.subplots()
    _draw_regions(axes, across, up, scores, threshold)
    offsets = [0.0] if margin is None or scores.ndim > 1 else [-margin, 0.0, margin]
    for surface in _leads(scores, threshold):
        _draw_lines(axes, across, up, surface.reshape(across.shape), offsets)
    for k, name in enumerate(classes):
        shade = _class_number(k, name, classes, several)
        x0, x1 = X[y == name].T
        colour, marker, label = (
            COLOURS[shade % len(COLOURS)],
            MARKERS[shade % len(MARKERS)],
            f"class {name}",
        )
        axes.scatter(x0, x1, c=colour, marker=marker, edgecolors="white", label=label)
    axes.set(xlabel="x[0]", ylabel="x[1]")
    _legend_above(axes, len(classes))
    if path is not None:
        save(target.canvas.figure, path)
    return target


def _draw_regions(axes: Axes, across: Array, up: Array, scores: Array, threshold: float) -> None:
    """The region of each class; nothing where a score is nan."""
    unknown = np.isnan(scores).reshape(across.size, -1).any(axis=1)
    if scores.ndim == 1:  # the lower class wins up to the threshold
        scores = np.column_stack([np.full(len(scores), threshold), scores])
    if not unknown.all():
        winner = np.where(unknown, np.nan, scores.argmax(axis=1)).reshape(across.shape)
        levels = np.arange(scores.shape[1] + 1) - 0.5
        axes.contourf(across, up, winner, levels=levels, colors=TINTS)


def _leads(scores: Array, threshold: float) -> Iterator[Array]:
    """How far each class is ahead of the best other one, (N,); of two classes only the higher."""
    scores = np.clip(scores, -HUGE, HUGE)
    if scores.ndim == 1:
        yield scores - threshold
    elif scores.shape[1] > 1:
        for k in range(scores.shape[1] - (scores.shape[1] == 2)):
            yield scores[:, k] - np.delete(scores, k, axis=1).max(axis=1)


def _draw_lines(
    axes: Axes, across: Array, up: Array, surface: Array, levels: Sequence[float]
) -> None:
    """Lines where a surface has these levels, dashed but for that of 0."""
    for level in levels:
        style = "--" if level else "-"
        heights: Any = surface
        at = level
        if not (surface < level).any():  # a plateau at the level: predicted labels
            heights, at = (surface > level) * 1.0, 0.5
        if (heights < at).any() and (heights > at).any():  # else matplotlib may warn
            axes.contour(across, up, heights, [at], colors="#444444", linestyles=style)


def _scores(predict: Callable[[Array], Any], grid: Array) -> Array:
    scores = as_numbers(_plain(predict(grid)), "what predict returns")
    if scores.shape == (len(grid), 1):
        scores = scores[:, 0]
    if scores.ndim not in (1, 2) or len(scores) != len(grid):
        raise ShapeError(
            f"predict must return scores (N,) or (N, classes) for its N = {len(grid):,} points "
            f"(got an array {scores.shape})"
        )
    return scores


def _class_number(k: int, name: Any, classes: NDArray[Any], several: int) -> int:
    """The score that belongs to a class: that of its number, else of its rank among classes."""
    if several == 2:
        return int(name == 1) if len(classes) == 1 else k
    return int(name) if np.isin(classes, np.arange(several)).all() else k


def _plain(numbers: Any) -> Any:
    """The list with each `Value` replaced by its number."""
    if isinstance(numbers, list | tuple):
        return [x.data if isinstance(x, Value) else x for x in numbers]
    return numbers


class LivePlot:
    """A picture of a training that is still going on: call it with the numbers of every step.

    It plots the numbers by name and, if given `predict`, `X` and `y`, the decision boundary, as
    `plot_boundary` does with the last three options. It is redrawn at most every `seconds` seconds,
    to a file if `path` is given, else in a notebook or window; `plot_training` takes its `history`.

    >>> import os, tempfile
    >>> live = LivePlot(path=os.path.join(tempfile.mkdtemp(), "training.png"))
    >>> for k in range(3):
    ...     live(loss=1 / (k + 1))
    >>> live.finish()
    >>> live.history["loss"][:2]
    [1.0, 0.5]

    Raises RuntimeError if there is no path, no notebook and no window, and ValueError if only some
    of `predict`, `X` and `y` are given.
    """

    def __init__(
        self,
        predict: Callable[[Array], Any] | None = None,
        X: Any = None,
        y: Any = None,
        *,
        path: FilePath | None = None,
        seconds: float = 0.5,
        threshold: float = 0.0,
        margin: float | None = None,
        resolution: int = 200,
    ) -> None:
        if len({x is None for x in (predict, X, y)}) > 1:
            raise ValueError("predict, X and y must be given together, or none of them")
        self.history: dict[str, list[float]] = {}
        self._steps, self._drawn, self._open = 0, -math.inf, True
        self._path, self._seconds = path, seconds
        look: Any = {"threshold": threshold, "margin": margin}
        look["resolution"] = whole_number("resolution", resolution)
        self._boundary = predict and partial(plot_boundary, predict, X, y, **look)
        size = (11.0, 5.0) if predict else (6.0, 4.0)
        self._notebook = None if path else _notebook()
        self._window = not (path or self._notebook)
        self._figure = (window if self._window else new_figure)(*size)
        self._figure.set_layout_engine("constrained")
        self._figure.canvas.mpl_connect("close_event", self._close)

    def _close(self, _: Any) -> None:
        """Stop drawing once the user has closed the window; the training goes on."""
        self._window = self._open = False

    def __call__(self, **numbers: float) -> None:
        """Take the numbers of one step, and draw them if it is time."""
        given = {name: number(_plain([x])[0]) for name, x in numbers.items()}
        for name in {**self.history, **given}:  # nan if a step leaves it out
            row = self.history.setdefault(name, [math.nan] * self._steps)
            row.append(given.get(name, math.nan))
        self._steps += 1
        if time.monotonic() - self._drawn >= self._seconds:
            self._draw()

    def finish(self) -> None:
        """Draw the last step. A window stays until it is closed."""
        self._draw()
        if self._window:
            keep_open()

    def _draw(self) -> None:
        if not self._open:
            return
        figure = self._figure
        figure.clear()
        curves: Figure | SubFigure = figure
        if self._boundary:
            halves: Any = figure.subfigures(1, 2)
            left, curves = halves
            self._boundary(figure=left)
        if self.history:
            plot_training(self.history, figure=curves)
        if self._path is not None:
            save(figure, self._path)
        elif self._notebook is not None:
            self._notebook(encoded(figure, "png"))
        else:
            figure.show()
            figure.canvas.draw_idle()
            figure.canvas.flush_events()
        self._drawn = time.monotonic()


def _notebook() -> Callable[[bytes], None] | None:
    """A function that shows a PNG in this notebook in place of the last; None outside notebooks."""
    display = notebook()
    if display is None:
        return None
    handle: Any = display.display(display.Image(b"", format="png"), display_id=True)
    return lambda data: handle.update(display.Image(data, format="png"))
