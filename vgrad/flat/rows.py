"""Rows of a buffer: where the values or gradients of some nodes are, and how to read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import Shape
from ..cached import cached_property
from .passes import Duplicates, duplicates, spans

# A gather takes longer than as many slices, each of at least so many rows.
FEW_PARTS, LONG_PART = 8, 12

Index = slice | NDArray[Any]


class Rows:
    """Rows of one of the two buffers, arranged in any shape.

    A view reads them if their numbers grow by one stride along each axis; else they are gathered.

    >>> rows = Rows(0, np.array([[2, 3], [6, 7]]))
    >>> rows, rows.strides, Rows(0, np.array([2, 3, 6, 7]))
    (view 2x2, (4, 1), gather 4)
    """

    def __init__(self, buffer: int, rows: Index, origin: int = 0) -> None:
        self.buffer = buffer  # SHARED or BATCHED
        self.rows = rows  # the index that selects them
        self.origin = origin  # FROM_... bits: of the leaves to which their gradients go
        # by how much the numbers grow along each axis; None if they are not affine
        self.strides = (1,) if isinstance(rows, slice) else strides_of(rows)

    @property
    def array(self) -> NDArray[Any]:
        """The row numbers, in that shape."""
        rows = self.rows
        return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows

    @property
    def shape(self) -> Shape:
        """How they are arranged."""
        return self.array.shape

    @property
    def flat(self) -> NDArray[Any]:
        """(n,) the row numbers, in order."""
        return self.array.reshape(-1)

    @cached_property
    def duplicates(self) -> Duplicates | None:
        """How to add up the parts of rows that are named more than once; None if none is."""
        return None if isinstance(self.rows, slice) else duplicates(self.flat)

    def __repr__(self) -> str:
        kind = "gather" if self.strides is None else "view"
        return f"{kind} {'x'.join(map(str, self.shape))}"


def strides_of(rows: NDArray[Any]) -> Shape | None:
    """By how much row numbers grow along each axis; None if not by the same everywhere.

    >>> strides_of(np.array([[0, 1, 2], [10, 11, 12]])), strides_of(np.array([0, 1, 3]))
    ((10, 1), None)
    """
    strides = []
    for axis, size in enumerate(rows.shape):
        step = 0
        if size > 1:
            along = rows.swapaxes(0, axis)
            steps = along[1:] - along[:-1]
            step = int(steps.flat[0])
            if (steps != step).any():
                return None
        strides.append(step)
    return tuple(strides)


def as_slice(rows: NDArray[Any]) -> Index:
    """Rows (n,) as a slice, if they are consecutive.

    >>> as_slice(np.array([4, 5, 6])), as_slice(np.array([4, 6]))
    (slice(4, 7, None), array([4, 6]))
    """
    n = len(rows)
    if not n or (n > 1 and (rows[-1] - rows[0] != n - 1 or (rows[1:] - rows[:-1] != 1).any())):
        return rows
    first = int(rows[0])
    return slice(first, first + n)


def copies(to: NDArray[Any], rows: NDArray[Any]) -> list[tuple[Index, Index]]:
    """How to copy rows to other rows, in few parts: slices where they are long enough.

    >>> copies(np.array([0, 1, 2, 3]), np.array([6, 7, 1, 2]))
    [(slice(0, 2, None), slice(6, 8, None)), (slice(2, 4, None), slice(1, 3, None))]
    """
    parts = spans(to - np.arange(len(to)), rows - np.arange(len(rows)))
    if len(parts) > max(FEW_PARTS, len(rows) // LONG_PART):
        return [(as_slice(to), rows)]
    return [(as_slice(to[a:b]), as_slice(rows[a:b])) for a, b in parts]
