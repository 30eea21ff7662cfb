"""vgrad: write scalar code, run it at array speed."""

from . import datasets, nn, optim
from .animate import Animation, animate
from .derivatives import gradient as _gradient  # noqa: F401  a method of Graph
from .draw import draw, to_dot
from .errors import (
    GraphFormatError,
    NonFiniteError,
    OutOfMemoryError,
    ParityError,
    ShapeError,
    TraceError,
    VgradError,
    WorkerError,
)
from .finite import check_finite
from .functions import clip, logsumexp, softmax, take
from .gradcheck import Gradcheck, gradcheck
from .graph import Graph
from .lines import source_lines
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
    stop_gradient,
    tanh,
    where,
)
from .plots import LivePlot, plot_boundary, plot_training
from .program import Program, compile
from .source import to_numpy_source as _to_numpy_source  # noqa: F401  a method of Graph
from .trace import capture, trace
from .value import Value
from .verify import Verification

__all__ = [
    "Animation",
    "Gradcheck",
    "Graph",
    "GraphFormatError",
    "LivePlot",
    "NonFiniteError",
    "OutOfMemoryError",
    "ParityError",
    "Program",
    "ShapeError",
    "TraceError",
    "Value",
    "Verification",
    "VgradError",
    "WorkerError",
    "abs",
    "animate",
    "capture",
    "check_finite",
    "clip",
    "compile",
    "cos",
    "datasets",
    "draw",
    "exp",
    "gradcheck",
    "log",
    "logsumexp",
    "maximum",
    "minimum",
    "nn",
    "optim",
    "plot_boundary",
    "plot_training",
    "relu",
    "sigmoid",
    "sin",
    "softmax",
    "source_lines",
    "sqrt",
    "stop_gradient",
    "take",
    "tanh",
    "to_dot",
    "trace",
    "where",
]
