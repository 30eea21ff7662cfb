"""Where: which row of which buffer each node has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..flat import BATCHED, FROM_INPUTS, Rows
from .fuse import Fused, Ints, Mask

LAST = 1 << 40  # added to rows whose place is not known before all are given


class Layout:
    """The rows of the two buffers: one of a number per row, one of a number per row and sample.

    Leaves come first, then what is to be watched, which so lies in one piece, then all the rest.

    Rows of ones lie where matrix products want them, so that a bias rides along as one more
    weight. Behind the rows of a layer's inputs lies one:

        row      0    1    2
        node     x0   x1   1        w0 x0 + w1 x1 + b · 1  =  view 3 of theta @ view 3 x B
    """

    def __init__(self, fused: Fused, follows: Mask) -> None:
        self.fused = fused
        self.follows = follows  # (m,) whether a row of ones lies behind the node's own
        self.row = np.full(len(fused.op), -1)  # (m,) the row of each node in its buffer
        self.sizes = [0, 0]  # how many rows the buffers have
        self.ones: tuple[list[int], list[int]] = [], []  # the rows of ones in each buffer
        self.watched = [slice(0, 0), slice(0, 0)]  # rows of each buffer
        self._last = [LAST, LAST]

    def give(self, nodes: Ints, buffer: int, last: bool = False) -> None:
        """Give these nodes the next rows, in order; some are followed by a row of ones.

        Those that come `last` lie behind all others.
        """
        sizes = self._last if last else self.sizes
        behind = self.follows[nodes]
        gaps: Ints = np.cumsum(behind) - behind
        self.row[nodes] = sizes[buffer] + np.arange(len(nodes)) + gaps
        self.ones[buffer].extend((self.row[nodes[behind]] + 1).tolist())
        sizes[buffer] += len(nodes) + int(behind.sum())

    def begin_watched(self) -> None:
        """Let the watched rows of both buffers begin here."""
        self.watched = [slice(size, size) for size in self.sizes]

    def settle(self) -> None:
        """Put what comes last behind the rest, and then a row of ones, for general use."""
        self.watched = [slice(x.start, size) for x, size in zip(self.watched, self.sizes)]
        for buffer, size in enumerate(self.sizes):
            of_buffer = self.fused.batched == bool(buffer)
            self.row[of_buffer & (self.row >= LAST)] += size - LAST
            rows = self.ones[buffer]
            rows[:] = [row - LAST + size if row >= LAST else row for row in rows]
            self.sizes[buffer] += self._last[buffer] - LAST
        self.ones[BATCHED].append(self.sizes[BATCHED])
        self.sizes[BATCHED] += 1

    def order(self, columns: Sequence[Ints], buffer: int) -> Ints:
        """The order of n nodes by the rows of those of their operands that are in this buffer."""
        own = [self.row[x] for x in columns if self.fused.batched[x[0]] == buffer]
        return np.lexsort(own[::-1]) if own else np.arange(len(columns[0]))

    def varies(self, nodes: Ints) -> bool:
        """Whether any of these nodes is more than a constant."""
        return bool(self.fused.origin[nodes].any())

    def rows(self, nodes: Ints) -> Rows:
        """The rows of these nodes, arranged as they are; each 1 gets a row of ones that fits."""
        origins, is_one, rows = self.fused.origin[nodes], nodes == self.fused.one, self.row[nodes]
        buffer = int(np.bitwise_or.reduce(origins, axis=None)) & FROM_INPUTS
        aims = int(np.bitwise_or.reduce(self.fused.aims[nodes], axis=None))
        assert (is_one | (origins & FROM_INPUTS == buffer)).all(), "rows of both buffers"
        if is_one.any():
            rows = np.where(is_one, self._rows_of_ones(nodes, rows, buffer), rows)
        return Rows(buffer, rows, aims)

    def _rows_of_ones(self, nodes: Ints, rows: Ints, buffer: int) -> Ints:
        """For a 1 at each place: the row behind that of the node before it, or any row of ones."""
        before = np.roll(nodes, 1, axis=-1)
        lies_behind = self.follows[before] & (before != self.fused.one)
        other = self.ones[BATCHED][-1] if buffer == BATCHED else rows
        return np.where(lies_behind, self.row[before] + 1, other)


class Places(NamedTuple):
    """Where the values and gradients of batched rows lie, in one memory for both."""

    values: Ints  # (rows,)
    gradients: Ints  # (rows,)
    values_die: Mask  # (rows,) whether other numbers may lie there at other times
    gradients_die: Mask
    size: int  # rows of memory


def undying(rows: int) -> Places:
    """Places of their own for all values and gradients."""
    values = np.arange(rows)
    lasting = np.zeros(rows, bool)
    return Places(values, rows + values, lasting, lasting, 2 * rows)
