"""vgrad: write scalar code, run it at array speed.

Micrograd comes first: `ops` is the table of operations, `operand` gives them Python's operators,
`engine` is the scalar engine, `Value`, and `nn`, `optim`, `functions` and `linalg` are built on it;
`trees` knows parameters that are kept in nestings. What the ops compute, and their docstrings,
stand below the table, in `choices`, `elementary`, `activations`, `special` and `gamma`; `arrays`
lets NumPy's functions take operands, `custom` makes ops of one's own, and `merging` makes `where`
of a pure function's branches; `signatures` tells type checkers what all of them take. Behind it is
the same graph as arrays, in wings. Each has a door, its `__init__`, which says what the wing is for
and how data goes through it:

    flat        records a function as arrays, differentiates it, and sweeps it level by level
    floats      generated Python, for few samples and narrow levels
    compiler    sums become matrix products, and levels lists of NumPy calls
    program     `compile`: arguments, batches, paths, executors, files
    checks      `gradcheck` and `verify`: are the results right?
    pictures    drawings, the steps of backpropagation, plots
    export      the plan as the text of a NumPy function

Follow one call of `program.value_and_grad(theta, X, y)` through six rooms: `program/program.py`
begins it; `program/recordings.py` checks the arrays and finds the graph that was recorded for their
shapes; `program/call.py` chooses the sweep; `compiler/sweep.py` goes through the batch tile by
tile, and `compiler/bound.py` through a tile's list of NumPy calls. These were bound beforehand to
the buffers of `compiler/calls.py`, by the kernels (`kernels.py`, `sums.py`, `products.py`) with the
rules of `ops.py`. Few samples of a deep program go to `floats/sweep.py` instead, and many go turn
by turn through `compiler/turns.py`.
"""

import typing as _typing

# fmt: off
# isort: off
from . import datasets, linalg, nn, optim
from .arrays import array
from .checks import Gradcheck, Verification, gradcheck
from .custom import op
from .engine import Value
from .elsewhere import instead_of as _instead_of
from .errors import (
    FloatsOnlyError, GraphFormatError, NonFiniteError, OutOfMemoryError, ParityError, PathsWarning,
    ShapeError, TraceError, VgradError, WorkerError,
)
from .finite import check_finite
from .flat import Graph, capture, gradient, trace
from .functions import (
    clip, divmod, dot, logical_and, logical_not, logical_or, logsumexp, reciprocal, softmax, square,
    sum, take,
)
from .lines import source_lines
from .merging import merge_branches
from .operand import Number
from .ops import (
    abs, arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, cbrt, ceil, cos, cosh, digamma,
    elu, erf, erfc, erfcx, exp, exp2, expm1, floor, floor_divide, fmod, gelu, hypot, leaky_relu,
    lgamma, log, log1p, log2, log10, log_ndtr, logaddexp, maximum, minimum, ndtr, polygamma, pow,
    relu, remainder, rint, sigmoid, sign, silu, sin, sinh, softplus, sqrt, stop_gradient, tan, tanh,
    trunc, where,
)
from .pictures import (
    Animation, Exploration, LivePlot, animate, draw, explore, plot_boundary, plot_training, to_dot,
)
from .program import Program, compile

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022
    "Animation", "Exploration", "FloatsOnlyError", "Gradcheck", "Graph", "GraphFormatError",
    "LivePlot", "NonFiniteError", "Number", "OutOfMemoryError", "ParityError", "PathsWarning",
    "Program", "ShapeError", "TraceError", "Value", "Verification", "VgradError", "WorkerError",
    "abs", "animate", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh",
    "array", "capture", "cbrt", "ceil", "check_finite", "clip", "compile", "cos", "cosh",
    "datasets", "digamma", "divmod", "dot", "draw", "elu", "erf", "erfc", "erfcx", "exp",
    "exp2", "explore", "expm1", "floor", "floor_divide", "fmod", "gelu", "gradcheck",
    "gradient", "hypot", "leaky_relu", "lgamma", "linalg", "log", "log10", "log1p", "log2",
    "log_ndtr", "logaddexp", "logical_and", "logical_not", "logical_or", "logsumexp", "maximum",
    "merge_branches", "minimum", "ndtr", "nn", "op", "optim", "plot_boundary", "plot_training",
    "polygamma", "pow", "reciprocal", "relu", "remainder", "rint", "sigmoid", "sign", "silu",
    "sin", "sinh", "softmax", "softplus", "source_lines", "sqrt", "square", "stop_gradient",
    "sum", "take", "tan", "tanh", "to_dot", "trace", "trunc", "where",
]
# fmt: on


if not _typing.TYPE_CHECKING:  # a checker knows all names

    def __getattr__(name: str) -> object:
        raise AttributeError(f"module 'vgrad' has no {name!r}{_instead_of(name)}")


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]
