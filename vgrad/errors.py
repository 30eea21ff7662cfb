"""The errors vgrad raises, each also the built-in kind a caller would expect."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import Any


class VgradError(Exception):
    """Base class of every error that vgrad raises on purpose."""


class TraceError(VgradError, TypeError):
    """A function does something that cannot be recorded, or uses a node of another recording."""


class FloatsOnlyError(VgradError, TypeError):
    """A function of NumPy or SciPy that only accepts floats was given operands."""


class ShapeError(VgradError, ValueError):
    """An array, `theta` or a list of operands has the wrong shape."""


class GraphFormatError(VgradError, ValueError):
    """A graph's arrays break an invariant of the flat form."""


class UnknownOpError(GraphFormatError):
    """A graph has an op that this process does not know."""


class NonFiniteError(VgradError, ValueError):
    """`check_finite` found an infinity or a nan, in a result or where a gradient of 0 met it.

    The fields say where it began.
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
    """A result of the vector engine is further from the scalar engine's than is allowed."""


class OutOfMemoryError(VgradError, MemoryError):
    """A call would need more than its share of the machine's memory; nothing was allocated."""


class WorkerError(VgradError, BrokenExecutor):
    """A worker of an executor has died; the program is as it was before the call."""


class PathsWarning(UserWarning):
    """Samples take more paths through a function than are recorded, so some run one by one."""
