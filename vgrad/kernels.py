"""What runs a group: a forward, and the adjoint that carries its gradient to the operands.

`values` and `grads` are pairs of buffers, the shared and the batched one. The shared buffer of
`values` has one column; that of `grads` has one column too where gradients are summed over the
batch, and one per sample where they are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .schedule import Group, Rows

Buffers = tuple[NDArray[np.float64], NDArray[np.float64]]


class Map:
    """The nodes of one op on one level, element by element."""

    __slots__ = ("op", "operands", "out", "rules")

    def __init__(self, group: Group) -> None:
        self.op, self.out, self.operands = group
        self.rules = [
            (vjp, *place, _segments(place.rows))
            for vjp, place in zip(self.op.vjp, self.operands)
            if vjp is not None and place.origin
        ]

    def forward(self, values: Buffers) -> None:
        """Compute the group's rows from those of its operands."""
        operands = [values[buffer][rows] for buffer, rows, _ in self.operands]
        buffer, rows, _ = self.out
        values[buffer][rows] = self.op.forward(*operands)

    def adjoint(self, values: Buffers, grads: Buffers, wanted: int, exact: bool) -> None:
        """Add what the group's gradient gives to each operand that comes from what is wanted.

        With `exact` a gradient of 0 gives 0, even times inf or nan; the same but for that, and
        faster, without.
        """
        buffer, rows, _ = self.out
        g = grads[buffer][rows]
        arguments = [values[buffer][rows]]
        arguments += [values[buffer][rows] for buffer, rows, _ in self.operands]
        for vjp, buffer, rows, origin, segments in self.rules:
            if origin & wanted:
                gradient = vjp(g, *arguments)
                if exact:
                    gradient = np.where(g == 0, 0.0, gradient)
                _add(grads[buffer], rows, segments, gradient)


Segments = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]


def _segments(rows: Rows) -> Segments | None:
    """How to sum what goes to rows that are named more than once; None where none is.

    The order that brings equal rows together, where each row's run of them starts, and the rows
    themselves. Summing runs is deterministic, and several times faster than `np.add.at`.
    """
    if isinstance(rows, slice):
        return None
    distinct, counts = np.unique(rows, return_counts=True)
    if len(distinct) == len(rows):
        return None
    return np.argsort(rows, kind="stable"), np.cumsum(counts) - counts, distinct


def _add(
    buffer: NDArray[np.float64],
    rows: Rows,
    segments: Segments | None,
    gradient: NDArray[np.float64],
) -> None:
    """Add `gradient`, a row for each row named, summed over the batch where the buffer is."""
    if gradient.shape[1] > buffer.shape[1]:
        gradient = gradient.sum(axis=1, keepdims=True)
    if segments is not None:
        order, starts, rows = segments
        gradient = np.add.reduceat(gradient[order], starts, axis=0)
    if isinstance(rows, slice):
        target = buffer[rows]
        target += gradient
    else:
        buffer[rows] += gradient
