"""How the pictures of the gallery look: large letters, and colours for colour-blind readers too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from terminal import write

from vgrad.pictures.plots import COLOURS

BLUE, ORANGE, *_ = COLOURS
INK, GREY = "#222222", "#8a8a8a"
STYLE = {
    "font.size": 12,  # legible where the picture is shown 420 pixels wide
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


@contextmanager
def panels(path: Path, rows: int, columns: int, **options: Any) -> Iterator[Any]:
    """Gives axes to draw on, as `Figure.subplots` does, and writes the picture at the end."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 4), layout="constrained")
        yield figure.subplots(rows, columns, **options)
        write(path, partial(figure.savefig, dpi=120))
