"""Rows of a buffer: where the values or the gradients of some nodes lie, and how to reach them."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import Shape
from .passes import Duplicates, duplicates


class Rows:
    """Rows of one of the two buffers, arranged in any shape.

    If along each axis they grow by one stride, a view reads them; else they are gathered, a copy.

    >>> rows = Rows(0, np.array([[2, 3], [6, 7]]))
    >>> rows, rows.strides, Rows(0, np.array([2, 3, 6, 7]))
    (view 2x2, (4, 1), gather 4)
    >>> Rows(0, np.array([4, 5, 6])).index, Rows(0, slice(4, 7)).array
    (slice(4, 7, None), array([4, 5, 6]))
    """

    def __init__(self, buffer: int, rows: slice | NDArray[Any], origin: int = 0) -> None:
        self.buffer = buffer  # SHARED or BATCHED
        self.origin = origin  # FROM_... bits: what the nodes there are computed from
        self.index = rows  # a slice where they have one axis and are consecutive
        self.array: NDArray[Any]  # the row numbers, in their shape
        self.strides: Shape | None  # by how much they grow along each axis; None if not affine
        if isinstance(rows, slice):
            self.array, self.strides = np.arange(rows.start, rows.stop), (1,)
        else:
            self.array, self.strides = rows, strides_of(rows)
            if self.strides == (1,) or rows.shape == (1,):
                self.index = slice(self.base, self.base + len(rows))

    @property
    def shape(self) -> Shape:
        """The shape in which they are arranged."""
        return self.array.shape

    @property
    def flat(self) -> NDArray[Any]:
        """(n,) the row numbers, in order."""
        return self.array.reshape(-1)

    @property
    def base(self) -> int:
        """The first row number."""
        return int(self.array.flat[0])

    @cached_property
    def duplicates(self) -> Duplicates | None:
        """How to sum what goes to rows that are named more than once; None if none is."""
        return None if isinstance(self.index, slice) else duplicates(self.flat)

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
