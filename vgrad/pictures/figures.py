"""Figures, and how they come into files, notebooks and windows; only `window` needs a screen."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FilePath = str | os.PathLike[str]

LONGEST, LARGEST = 60_000, 30_000_000  # pixels of a side, and in all, of a PNG
LARGEST_FRAME = 4_000_000  # the same for each of the many frames of a GIF
HOLD = 2.5  # seconds: how long the last frame of a GIF stays
SMALLEST = 0.6  # of its size: how far a notebook may shrink a picture, with text of 7 pixels
SLIDER = 0.4  # inches: the height of the slider under a window's picture
WINDOWLESS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}  # backends of matplotlib
DATELESS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same bytes every time


def new_figure(width: float, height: float, constrained: bool = False) -> Figure:
    """A white figure of this size in inches that needs no window."""
    from matplotlib.figure import Figure

    dpi = min(100.0, LONGEST / max(width, height), (LARGEST / (width * height)) ** 0.5)
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    figure.set_layout_engine("constrained" if constrained else "none")
    figure._repr_svg_ = partial(as_svg, figure)  # type: ignore[attr-defined]
    return figure


def save(figure: Figure, path: FilePath) -> None:
    """Save a figure in the format that the path's ending names, the same bytes every time.

    Raises ValueError if the path has no ending, or one that matplotlib does not know.
    """
    kind = os.path.splitext(path)[1].lower()
    if not kind:
        raise ValueError(f"path must end in .svg, .png or .pdf (got {os.fspath(path)!r})")
    with own_settings():
        figure.savefig(path, metadata=DATELESS.get(kind[1:]))


def encoded(figure: Figure, kind: str, fonttype: str = "path") -> bytes:
    """A figure as the bytes of a file; text is outlines or, with the font type "none", text."""
    file = io.BytesIO()
    with own_settings(fonttype):
        figure.savefig(file, format=kind, metadata=DATELESS.get(kind))
    return file.getvalue()


def save_gif(figure: Figure, path: FilePath, frames: Iterable[Any], seconds: float) -> None:
    """Save a figure as a GIF; iterating over `frames` changes the figure from frame to frame.

    A frame stays for these seconds, and the last one for at least `HOLD`.
    """
    from PIL import Image

    dpi = min(100.0, float(LARGEST_FRAME / figure.get_size_inches().prod()) ** 0.5)
    images = []
    with own_settings():
        for _ in frames:
            file = io.BytesIO()
            figure.savefig(file, format="png", dpi=dpi)
            images.append(Image.open(file).convert("RGB"))
    durations = [1000 * seconds] * (len(images) - 1) + [1000 * max(seconds, HOLD)]
    first, *others = images
    first.save(path, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def own_settings(fonttype: str = "path") -> AbstractContextManager[None]:
    """Hold off the user's settings of matplotlib that would spoil a picture."""
    import matplotlib as mpl

    own = ("savefig.", "path.", "svg.")
    settings: Any = {k: x for k, x in mpl.rcParamsDefault.items() if k.startswith(own)}
    return mpl.rc_context(settings | {"svg.hashsalt": "vgrad", "svg.fonttype": fonttype})


def whole_ticks(axes: Axes) -> None:
    """Let an axis of steps have its ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def log_scale(axes: Axes, decades: float) -> None:
    """A logarithmic scale that spans so many powers of ten, with labels such as 0.05."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def window(width: float, height: float) -> Figure:
    """A figure of this size in inches in a window, which is not open yet.

    Raises RuntimeError if matplotlib cannot open one.
    """
    from matplotlib import pyplot

    backend, error = pyplot.get_backend(), None
    if backend.lower() not in WINDOWLESS and "inline" not in backend:
        try:
            return pyplot.figure(figsize=(width, height), dpi=min(100, 1600 / width, 850 / height))
        except Exception as failure:  # each backend has an error of its own
            error = failure
    raise RuntimeError(
        f"matplotlib must have a backend that opens windows (got {backend}); "
        "write to a file instead, such as save('backprop.html') or path='training.png'"
    ) from error


def keep_open() -> None:
    """Wait until the windows are closed."""
    from matplotlib import pyplot

    pyplot.show()


def play(figure: Figure, steps: int, show: Callable[[int], None]) -> None:
    """Open the window, with a slider and the arrow keys for `show` of step 0 to steps - 1."""
    from matplotlib.widgets import Slider

    width, height = figure.get_size_inches()
    fonts = [(text, text.get_fontsize()) for text in figure.axes[0].texts]
    axes = figure.add_axes((0.12, 0.25 * SLIDER / height, 0.7, 0.5 * SLIDER / height))
    slider = Slider(axes, "step", 1, steps, valinit=1, valstep=1)

    def fit(_: Any) -> None:  # boxes grow and shrink with the window, and so must their text
        scale = min(figure.get_figwidth() / width, figure.get_figheight() / height)
        for text, size in fonts:
            text.set_fontsize(size * scale)

    def turn(event: Any) -> None:
        by = {"left": -1, "right": 1}.get(event.key, 0)
        slider.set_val(min(max(slider.val + by, 1), steps))

    slider.on_changed(lambda step: show(int(step) - 1))
    if figure.canvas.manager is not None:  # its arrow keys go through zooms
        figure.canvas.mpl_disconnect(figure.canvas.manager.key_press_handler_id or -1)
    figure.canvas.mpl_connect("key_press_event", turn)
    figure.canvas.mpl_connect("resize_event", fit)
    show(0)
    keep_open()


def as_svg(figure: Figure) -> str:
    """A figure for a notebook: as wide as the cell at most, or scrolled if it were too small."""
    least = SMALLEST * 72 * figure.get_figwidth()
    style = f'style="max-width: 100%; min-width: {least:.0f}pt; height: auto"'
    return encoded(figure, "svg").decode().replace("<svg ", f"<svg {style} ", 1)


def shown_in_notebook(thing: Any) -> bool:
    """Show it if this is a notebook, and say whether it is."""
    display = notebook()
    if display is not None:
        display.display(thing)
    return display is not None


def notebook() -> Any:
    """The module `IPython.display` in a notebook, None elsewhere."""
    shell = sys.modules.get("IPython")
    if shell is None or not hasattr(shell.get_ipython(), "kernel"):
        return None
    return sys.modules["IPython.display"]
