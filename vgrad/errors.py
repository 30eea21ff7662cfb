"""The errors vgrad raises, each also the built-in kind a caller would expect."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import Any


class VgradError(Exception):
    """Base class of every error that vgrad raises on purpose.

    >>> import vgrad
    >>> try:
    ...     vgrad.softmax([])
    ... except vgrad.VgradError as error:
    ...     print(error)
    softmax takes a sequence of one number or more (got [])
    """


class TraceError(VgradError, TypeError):
    """A function does something that cannot be recorded, or uses a node of another recording.

    >>> import math, vgrad
    >>> vgrad.trace(lambda x: math.exp(x), ())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    vgrad.errors.TraceError: float(), the functions of math, ... must not be given a value that ...
    """


class FloatsOnlyError(VgradError, TypeError):
    """A function of NumPy or SciPy that only accepts floats was given operands.

    >>> import numpy, vgrad
    >>> numpy.linalg.det(vgrad.array([[vgrad.Value(2.0)]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    vgrad.errors.FloatsOnlyError: det() of NumPy ... only accepts floats; use vgrad.linalg.det(...)
    """


class ShapeError(VgradError, ValueError):
    """An array, `theta` or a list of operands has the wrong shape.

    >>> import vgrad
    >>> vgrad.compile(lambda x: x + 1, parameters=[])([3.0], [1.0, 2.0])
    Traceback (most recent call last):
    ...
    vgrad.errors.ShapeError: theta must have shape (0,), one number per parameter (got (1,))
    """


class GraphFormatError(VgradError, ValueError):
    """A graph's arrays break an invariant of the flat form, or a file is damaged.

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x: x + 1, ())
    >>> graph.parents[2] = 2, 1, -1  # the sum is its own parent
    >>> graph.check()
    Traceback (most recent call last):
    ...
    vgrad.errors.GraphFormatError: every parent must come before its child
    """


class UnknownOpError(GraphFormatError):
    """A graph has an op that this process does not know."""


class NonFiniteError(VgradError, ValueError):
    """`check_finite` found an infinity or a nan, in a result or where a gradient of 0 met it.

    The fields say where it began.

    >>> import vgrad
    >>> program = vgrad.compile(vgrad.log, parameters=[], check_finite=True)
    >>> try:
    ...     program([], [1.0, 0.0])
    ... except vgrad.NonFiniteError as error:
    ...     print(error.op, error.operands, error.got, error.sample)
    log (0.0,) -inf 1
    """

    op: str = ""  # its name; for a leaf "input", "parameter" or "const"
    operands: tuple[float, ...] = ()  # what it was computed from
    got: float = 0.0  # the number that is not finite: a value, a gradient or a derivative
    sweep: str = ""  # "forward" or "backward"
    label: str = ""  # of the node, if it has one
    line: str = ""  # "file:line" that made the node, if that was recorded
    node: int | None = None  # its number in the graph; None in the scalar engine
    sample: int | None = None  # where in the batch; None in the scalar engine
    inputs: dict[str, Any] = {}  # noqa: RUF012  # of that sample, by name


class ParityError(VgradError, ValueError):
    """A result of the vector engine is further from the scalar engine's than is allowed.

    As where a condition lies within the rounding of float32, which takes 1 + 1e-9 for 1:

    >>> import numpy, vgrad
    >>> program = vgrad.compile(lambda x: x if x + 1e-9 > x else -x, [], dtype=numpy.float32)
    >>> program.verify([], [1.0])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    vgrad.errors.ParityError: a sample must take the path that it takes on the scalar engine ...
    """


class OutOfMemoryError(VgradError, MemoryError):
    """A call would need more than its share of the machine's memory; nothing was allocated.

    >>> import numpy, vgrad
    >>> program = vgrad.compile(lambda x: x + 1, parameters=[])
    >>> program([], numpy.broadcast_to(1.0, 10**12))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    vgrad.errors.OutOfMemoryError: a call must need no more than 75% of this machine's memory, ...
    """


class WorkerError(VgradError, BrokenExecutor):
    """A worker of an executor has died; the program is as it was before the call.

    Whoever catches the standard library's own error for that catches this one too:

    >>> import concurrent.futures, vgrad
    >>> issubclass(vgrad.WorkerError, concurrent.futures.BrokenExecutor)
    True
    """


class PathsWarning(UserWarning):
    """Samples take more paths through a function than are recorded, so some run one by one.

    >>> import warnings, vgrad
    >>> def halved(x):
    ...     while x > 1:
    ...         x = x / 2
    ...     return x
    >>> program = vgrad.compile(halved, parameters=[], paths=2)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     program([], [1.0, 2.0, 3.0, 5.0]), caught[0].category.__name__
    (array([1.   , 1.   , 0.75 , 0.625]), 'PathsWarning')
    """
