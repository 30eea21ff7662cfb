"""Pictures of training: curves, the decision boundary, and both while it goes on."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_numbers, whole_number
from ..engine import Value
from ..errors import ShapeError
from ..ops import number
from .drawing import FilePath, encoded, keep_open, new_figure, save, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

Array = NDArray[np.float64]
History = Mapping[str, Sequence[float]] | Sequence[float]

# Okabe and Ito 2008, in an order in which neighbours differ in brightness too.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
TINTS = ["#cfe2f3", "#fbe0c3", "#cdebdd", "#f3dce8", "#e0f1fb", "#fdeecb"]
FEW = 20  # numbers; more make a curve that can do without dots
HUGE = 1e100  # stands for a score of inf, so that lines can be drawn beside it
MARKERS = ["o", "^", "s", "D", "v", "P"]


def plot_training(
    history: History, path: FilePath | None = None, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Plot how training went: the loss, the accuracy and whatever else, one above the other.

    `history` maps each name to its numbers, one per step; a plain sequence is the loss. A loss is
    on a logarithmic scale where it can be, and an accuracy, from 0 to 1, is shown in percent.
    Draws on a new figure, or on the one given, and saves it if a path is given.

    >>> figure = plot_training({"loss": [1.0, 0.1], "accuracy": [0.5, 1.0]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'accuracy, %']

    Raises TypeError for anything but numbers, ValueError for none at all.
    """
    curves = history if isinstance(history, Mapping) else {"loss": history}
    arrays = {name: as_numbers(_plain(x), f"history[{name!r}]") for name, x in curves.items()}
    if not arrays or any(x.ndim != 1 or not len(x) for x in arrays.values()):
        shapes = {name: x.shape for name, x in arrays.items()}
        raise ValueError(f"history must have numbers, a list of them by each name (got {shapes})")
    target = figure or _new_figure(6, 1 + 2 * len(arrays))
    panels = target.subplots(len(arrays), sharex=True, squeeze=False)[:, 0]
    for k, (axes, (name, numbers)) in enumerate(zip(panels, arrays.items())):
        percent = "accuracy" in name
        fraction = percent and np.nanmax(numbers, initial=0) <= 1
        known = numbers[np.isfinite(numbers)]
        dots = "." if len(numbers) <= FEW or len(known) < len(numbers) else ""  # none stands alone
        axes.plot(numbers * (100 if fraction else 1), color=COLOURS[k % len(COLOURS)], marker=dots)
        axes.set_ylabel(f"{name}, %" if percent else name)
        axes.grid(alpha=0.3)
        if percent:
            axes.set_ylim(0, 103)
        elif "loss" in name and len(known) and (known > 0).all():
            axes.set_yscale("log")
    panels[-1].set_xlabel("step")
    return _finished(target, path)


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
    """Plot points (B, 2) of classes `y` (B,), and the region of each class of a classifier.

    `predict` is called once, with the whole grid as one batch (N, 2), N being `resolution`
    squared. It returns scores, (N,), of which those above `threshold` mean the higher of two
    classes, or one score per class, (N, classes), of which the highest wins. A solid line is the
    boundary; with a `margin`, dashed lines are where the score is that far from the threshold.
    Draws on a new figure, or on the one given, and saves it if a path is given.

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
    target = figure or _new_figure(6, 5)
    axes = target.subplots()
    _draw_regions(axes, across, up, scores, threshold)
    if scores.ndim == 1:
        _draw_lines(axes, across, up, scores, threshold, margin)
    for k, name in enumerate(classes):
        shade = _class_number(k, name, classes, several)
        axes.scatter(
            X[y == name, 0],
            X[y == name, 1],
            c=COLOURS[shade % len(COLOURS)],
            marker=MARKERS[shade % len(MARKERS)],
            edgecolors="white",
            label=f"class {name}",
        )
    axes.set(xlabel="x[0]", ylabel="x[1]")
    axes.legend(loc="lower left")
    return _finished(target, path)


def _draw_regions(axes: Axes, across: Array, up: Array, scores: Array, threshold: float) -> None:
    """The region of each class; nothing where a score is nan."""
    if scores.ndim == 1:
        winner, several = np.greater(scores, threshold).astype(np.intp), 2
        unknown: Any = np.isnan(scores)
    else:
        winner, several = scores.argmax(axis=1), scores.shape[1]
        unknown = np.isnan(scores).any(axis=1)
    if not unknown.all():
        surface = np.where(unknown, np.nan, winner).reshape(across.shape)
        tints = [TINTS[k % len(TINTS)] for k in range(several)]
        axes.contourf(across, up, surface, levels=np.arange(several + 1) - 0.5, colors=tints)


def _draw_lines(
    axes: Axes, across: Array, up: Array, scores: Array, threshold: float, margin: float | None
) -> None:
    """The boundary, and the margins if any."""
    surface = np.clip(scores, -HUGE, HUGE).reshape(across.shape)
    for offset in (0.0,) if margin is None else (-margin, 0.0, margin):
        level, style = threshold + offset, "--" if offset else "-"
        heights: Any = surface
        if not (surface < level).any():  # a plateau at the level, as of labels 0 and 1
            heights, level = (surface > level) * 1.0, 0.5
        if (heights < level).any() and (heights > level).any():  # else matplotlib may warn
            axes.contour(across, up, heights, [level], colors="#444444", linestyles=style)


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
    """Which score speaks for a class: that of its number, or of its place among the classes."""
    if several == 2:
        return int(name == 1) if len(classes) == 1 else k
    return int(name) if np.isin(classes, np.arange(several)).all() else k


def _plain(numbers: Any) -> Any:
    """The numbers of a list, some of which may be `Value`s."""
    if isinstance(numbers, list | tuple):
        return [x._data if isinstance(x, Value) else x for x in numbers]
    return numbers


class LivePlot:
    """A picture of the training that is refreshed while it goes on: call it at every step.

    It shows what it is given by name, and with `predict`, `X` and `y` the decision boundary, as
    `plot_boundary` does with the last three options. It is drawn anew every so many seconds: to a
    file where there is a `path`, else in the notebook that it runs in, or in a window. `history`
    has all that it was given, for `plot_training`.

    >>> import os, tempfile
    >>> live = LivePlot(path=os.path.join(tempfile.mkdtemp(), "training.png"))
    >>> for k in range(3):
    ...     live(loss=1 / (k + 1))
    >>> live.finish()
    >>> live.history["loss"][:2]
    [1.0, 0.5]

    Raises RuntimeError if there is no path, no notebook and no window.
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
        self._steps = 0
        self._boundary = predict and (predict, X, y)
        self._options: dict[str, Any] = {
            "threshold": threshold,
            "margin": margin,
            "resolution": whole_number("resolution", resolution),
        }
        self._path, self._seconds = path, seconds
        self._drawn = -math.inf
        size = (11.0, 5.0) if predict else (6.0, 4.0)
        self._notebook = None if path else _notebook()
        self._window = not (path or self._notebook)
        self._open = True
        self._figure = (window if self._window else new_figure)(*size)
        self._figure.set_layout_engine("constrained")
        self._figure.canvas.mpl_connect("close_event", self._close)

    def _close(self, _: Any) -> None:
        """The user has had enough of the window; the training goes on."""
        self._window = self._open = False

    def __call__(self, **numbers: float) -> None:
        """Take the numbers of one step, and draw them if it is time to."""
        given = {name: number(_plain([x])[0]) for name, x in numbers.items()}
        for name in {**self.history, **given}:  # a number left out at a step is nan there
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
            plot_boundary(*self._boundary, **self._options, figure=left)
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
    """What shows a PNG in the notebook that this runs in, each in the place of the one before."""
    shell = sys.modules.get("IPython")
    if shell is None or not hasattr(shell.get_ipython(), "kernel"):
        return None
    display = sys.modules["IPython.display"]
    handle: Any = display.display(display.Image(b"", format="png"), display_id=True)
    return lambda data: handle.update(display.Image(data, format="png"))


def _new_figure(width: float, height: float) -> Figure:
    figure = new_figure(width, height)
    figure.set_layout_engine("constrained")
    return figure


def _finished(figure: Figure | SubFigure, path: FilePath | None) -> Figure | SubFigure:
    if path is not None:
        save(figure.canvas.figure, path)
    return figure
