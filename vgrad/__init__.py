"""vgrad: write scalar code, run it at array speed."""

from . import datasets, nn, optim
from . import source as _source  # noqa: F401  it gives Graph a method
from .animate import Animation, animate
from .draw import draw, to_dot
from .errors import GraphFormatError, ShapeError, TraceError, VgradError
from .graph import Graph
from .ops import (
    abs,
    cos,
    exp,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sin,
    sqrt,
    tanh,
    where,
)
from .plots import LivePlot, plot_boundary, plot_training
from .program import Program, compile
from .trace import capture, trace
from .value import Value

__all__ = [
    "Animation",
    "Graph",
    "GraphFormatError",
    "LivePlot",
    "Program",
    "ShapeError",
    "TraceError",
    "Value",
    "VgradError",
    "abs",
    "animate",
    "capture",
    "compile",
    "cos",
    "datasets",
    "draw",
    "exp",
    "log",
    "maximum",
    "minimum",
    "nn",
    "optim",
    "plot_boundary",
    "plot_training",
    "relu",
    "sigmoid",
    "sin",
    "sqrt",
    "tanh",
    "to_dot",
    "trace",
    "where",
]
