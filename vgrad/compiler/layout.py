"""Where: which row of which buffer each node has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..flat import BATCHED, Rows
from .fuse import Fused, Ints, Mask


@dataclass(frozen=True, eq=False)
class Layout:
    """The rows of the two buffers: one of a number per row, one of a number per row and sample.

    Rows of ones stand where matrix products want them, so that a bias rides along as one more
    weight. Behind the rows of a layer's inputs lies one:

        row      0    1    2
        node     x0   x1   1        w0 x0 + w1 x1 + b · 1  =  view 3 of theta @ view 3 x B
    """

    fused: Fused
    row: Ints  # (m,) the row of each node in its buffer
    rows: tuple[int, int]  # how many rows the buffers have
    follows: Mask  # (m,) whether a row of ones lies behind the node's own
    ones: tuple[Ints, Ints]  # the rows of ones in each buffer

    def access(self, nodes: Ints) -> Rows:
        """Where these nodes lie, along every axis on which they differ."""
        batched = self.fused.batched[nodes]
        buffer = int(batched.max())
        is_one = nodes == self.fused.one
        assert (is_one | (batched == buffer)).all(), "rows of two buffers make no array"
        rows = self.row[nodes]
        if is_one.any():
            rows = np.where(is_one, self._rows_of_ones(nodes, rows, buffer), rows)
        origin = np.bitwise_or.reduce(self.fused.origin[nodes], axis=None)
        return Rows(buffer, rows, int(origin))

    def _rows_of_ones(self, nodes: Ints, rows: Ints, buffer: int) -> Ints:
        """For a 1 at each place: the row behind that of the node before it, or any row of ones."""
        before = np.roll(nodes, 1, axis=-1)
        lies_behind = self.follows[before] & (before != self.fused.one)
        other = self.ones[BATCHED][-1] if buffer == BATCHED else rows
        return np.where(lies_behind, self.row[before] + 1, other)
