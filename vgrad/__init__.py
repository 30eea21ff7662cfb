"""vgrad: write scalar code, run it at array speed."""

from . import datasets, nn, optim
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
from .program import Program, compile
from .trace import capture, trace
from .value import Value

__all__ = [
    "Graph",
    "GraphFormatError",
    "Program",
    "ShapeError",
    "TraceError",
    "Value",
    "VgradError",
    "abs",
    "capture",
    "compile",
    "cos",
    "datasets",
    "exp",
    "log",
    "maximum",
    "minimum",
    "nn",
    "optim",
    "relu",
    "sigmoid",
    "sin",
    "sqrt",
    "tanh",
    "trace",
    "where",
]
