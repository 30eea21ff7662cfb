"""."""

from .animation import Animation, animate
from .drawing import draw, notebook_svg, to_dot
from .plots import LivePlot, plot_boundary, plot_training

__all__ = [
    "Animation",
    "LivePlot",
    "animate",
    "draw",
    "notebook_svg",
    "plot_boundary",
    "plot_training",
    "to_dot",
]
