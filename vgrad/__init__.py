"""vgrad: write scalar code, run it at array speed.

Micrograd comes first: `ops` is the table of operations, `operand` gives them Python's operators,
`engine` is the scalar engine, `Value`, and `nn`, `optim` and `functions` are built on it. Behind it
is the same graph as arrays, in wings. Each has a door, its `__init__`, which says what the wing is
for and how data goes through it:

    flat        records a function as arrays, differentiates it, and sweeps it level by level
    compiler    sums become matrix products, and levels lists of NumPy calls
    program     `compile`: arguments, batches, executors, files
    checks      `gradcheck` and `verify`: are the results right?
    pictures    drawings, the steps of backpropagation, plots
    export      the plan as the text of a NumPy function

Follow one call of `program.value_and_grad(theta, X, y)` through six rooms: `program/program.py`
checks the arrays and finds the graph recorded for their shapes; `program/call.py` chooses the
sweep; `compiler/sweep.py` goes through the batch tile by tile, and `compiler/bound.py` through a
tile's list of NumPy calls. These were bound beforehand to the buffers of `compiler/calls.py`, by
the kernels (`kernels.py`, `sums.py`, `products.py`) with the rules of `ops.py`.
"""

# fmt: off
# isort: off
from . import datasets, nn, optim
from .checks import Gradcheck, Verification, gradcheck
from .engine import Value
from .errors import (
    GraphFormatError, NonFiniteError, OutOfMemoryError, ParityError, ShapeError, TraceError,
    VgradError, WorkerError,
)
from .finite import check_finite
from .flat import Graph, capture, trace
from .functions import clip, logsumexp, softmax, take
from .lines import source_lines
from .ops import (
    abs, cos, exp, log, maximum, minimum, relu, sigmoid, sin, sqrt, stop_gradient, tanh, where,
)
from .pictures import Animation, LivePlot, animate, draw, plot_boundary, plot_training, to_dot
from .program import Program, compile

__version__ = "0.1.0"

__all__ = [
    "Animation", "Gradcheck", "Graph", "GraphFormatError", "LivePlot", "NonFiniteError",
    "OutOfMemoryError", "ParityError", "Program", "ShapeError", "TraceError", "Value",
    "Verification", "VgradError", "WorkerError", "abs", "animate", "capture", "check_finite",
    "clip", "compile", "cos", "datasets", "draw", "exp", "gradcheck", "log", "logsumexp",
    "maximum", "minimum", "nn", "optim", "plot_boundary", "plot_training", "relu", "sigmoid",
    "sin", "softmax", "source_lines", "sqrt", "stop_gradient", "take", "tanh", "to_dot",
    "trace", "where",
]
# fmt: on


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]
