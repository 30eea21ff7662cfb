"""What runs a group: a forward, and the adjoint that carries its gradient to the operands.

`values` and `grads` are pairs of buffers, the shared and the batched one. The shared buffer of
`values` has one column; that of `grads` has one column too where gradients are summed over the
batch, and one per sample where they are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .schedule import Group, Place, Rows

Buffers = tuple[NDArray[np.float64], NDArray[np.float64]]


class Map:
    """The nodes of one op on one level, element by element."""

    __slots__ = ("group", "targets")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.targets = [Accumulator(place) for place in group.operands]

    def forward(self, values: Buffers) -> None:
        """Compute the group's rows from those of its operands."""
        op, out, operands = self.group
        values[out.buffer][out.rows] = op.forward(*[values[x.buffer][x.rows] for x in operands])

    def adjoint(self, values: Buffers, grads: Buffers, wanted: int, exact: bool) -> None:
        """Add what the group's gradient gives to each operand that comes from what is wanted.

        With `exact` a gradient of 0 gives 0, even times inf or nan; the same but for that, and
        faster, without.
        """
        op, out, operands = self.group
        g = grads[out.buffer][out.rows]
        arguments = [values[x.buffer][x.rows] for x in (out, *operands)]
        for vjp, target in zip(op.vjp, self.targets):
            if vjp is not None and target.place.origin & wanted:
                gradient = vjp(g, *arguments)
                target.add(grads, np.where(g == 0, 0.0, gradient) if exact else gradient)


class Accumulator:
    """Adds to rows of a gradient buffer, some of which may be named more than once.

    Rows named twice are sorted and summed in segments, in the same order every time; that is
    several times faster than `np.add.at`.
    """

    __slots__ = ("place", "rows", "order", "starts")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rows: Rows = place.rows
        self.order: NDArray[np.intp] | None = None
        if isinstance(place.rows, np.ndarray):
            distinct, counts = np.unique(place.rows, return_counts=True)
            if len(distinct) < len(place.rows):
                self.rows = distinct
                self.order = np.argsort(place.rows, kind="stable")
                self.starts = np.cumsum(counts) - counts

    def add(self, grads: Buffers, gradient: NDArray[np.float64]) -> None:
        """Add `gradient`, one row per row named, summed over the batch where the buffer is."""
        buffer = grads[self.place.buffer]
        if gradient.shape[1] > buffer.shape[1]:
            gradient = gradient.sum(axis=1, keepdims=True)
        if self.order is not None:
            gradient = np.add.reduceat(gradient[self.order], self.starts, axis=0)
        buffer[self.rows] += gradient
