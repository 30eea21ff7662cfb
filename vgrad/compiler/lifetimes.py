"""Buffers die: where the numbers of a batch lie, and for how long.

A value is needed from the kernel that computes it to the last that reads it, forward or backward; a
gradient from the first part that is added to it to the adjoint that passes it on. What is needed
at different times may have the same place:

    kernel            f0    f1    f2    f2'   f1'   f0'        f: forward, f': adjoint
    values of f0      |=================|                      which f2' reads
    values of f1            |=====|                            which no adjoint reads
    gradients of f1                     |=====|                where the values were
    gradients of f0                     |===========|

Rows that a kernel reads or writes as a slice stay side by side. Those between two gaps are a
*block*, which has one place and one life.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from ..flat import BATCHED, Rows
from .fuse import Ints
from .kernels import Kernel
from .layout import Places

EVER = 1 << 40  # after all kernels
KEEP = 4  # in `wanted`: nothing dies, so that all values and gradients can be looked at


class Lifetimes:
    """The lives of blocks of batched rows, as the kernels of a plan run forward and backward.

    At time 0 there are the leaves, then come the kernels, then outputs are read, then come the
    adjoints, which pass gradients on to what is computed from the wanted leaves. Values lie side by
    side where a kernel reads them as a slice, gradients where an adjoint does. Some more values may
    have to.
    """

    def __init__(
        self, rows: int, kernels: Sequence[Kernel], side_by_side: Sequence[Rows], wanted: int
    ) -> None:
        self.kernels = [x for x in kernels if x.buffer == BATCHED]
        self.wanted, self.last = wanted, len(self.kernels) + 1
        read = [y for x in self.kernels for y in (x.out, *x.operands) if y.buffer == BATCHED]
        passed = [x for x in read if x.origin & wanted]
        self.blocks = blocks_of(rows, [*read, *side_by_side]), blocks_of(rows, passed)
        count = max(int(block[-1]) for block in self.blocks) + 1
        self.births = np.full((2, count), EVER)  # of values, and of gradients
        self.deaths = np.full((2, count), -1)

    def of(self, which: int, rows: Rows | Ints) -> Ints:
        """The blocks of these rows' values, 0, or gradients, 1."""
        if isinstance(rows, Rows):
            rows = rows.flat if rows.strides is None else rows.flat[:1]
        blocks: Ints = np.unique(self.blocks[which][rows])
        return blocks

    def lives(self, which: int, rows: Rows | Ints, birth: int, death: int) -> None:
        """Values or gradients of these rows are needed from one time to the other."""
        births, deaths, blocks = self.births[which], self.deaths[which], self.of(which, rows)
        births[blocks] = np.minimum(births[blocks], birth)
        deaths[blocks] = np.maximum(deaths[blocks], death)

    def run(self) -> None:
        """Let all kernels compute, and pass gradients on."""
        for time, kernel in enumerate(self.kernels, start=1):
            self.lives(0, kernel.out, time, time)
            back = 2 * self.last - time
            for x in kernel.operands:
                if x.buffer == BATCHED:
                    self.lives(0, x, time, time)
                    if x.origin & self.wanted:
                        self.lives(1, x, back, back)
            if kernel.out.origin & self.wanted:
                self.lives(1, kernel.out, back, back)
                for x in kernel.saved(self.wanted):
                    if x.buffer == BATCHED:
                        self.lives(0, x, back, back)

    def fix_constants(self, objective: Rows) -> None:
        """Let gradients that are constant, as that of output 0 is, be there before all else."""
        constant = np.zeros(len(self.births[1]), bool)
        constant[self.of(1, objective)] = True
        for kernel in reversed(self.kernels):
            if kernel.out.origin & self.wanted and constant[self.of(1, kernel.out)].all():
                for x in kernel.linear(self.wanted):
                    if x.buffer == BATCHED and x.origin & self.wanted:
                        constant[self.of(1, x)] = True
        self.lives(1, np.flatnonzero(constant[self.blocks[1]]), 0, EVER)

    def places(self) -> Places:
        """Places for all blocks, which no two have at one time."""
        memory, found = _Memory(), list[Ints]()
        there = np.full_like(self.births, -1)
        count = [np.bincount(block, minlength=len(there[0])) for block in self.blocks]
        which, block = np.nonzero(self.deaths >= 0)
        births, deaths = self.births[which, block], self.deaths[which, block]
        # the longest lives that begin at a time come first, and so lie at the beginning
        for k in np.lexsort((-deaths, births)).tolist():
            size = int(count[which[k]][block[k]])
            there[which[k], block[k]] = memory.give(size, int(births[k]), int(deaths[k]))
        for own, place, sizes in zip(self.blocks, there, count):
            within = np.arange(len(own)) - (np.cumsum(sizes) - sizes)[own]
            found.append(np.where(place[own] >= 0, place[own] + within, -1))
        dies = (self.births > 0) | (self.deaths < EVER)
        values_die, gradients_die = (x[own] for x, own in zip(dies, self.blocks))
        return Places(found[0], found[1], values_die, gradients_die, memory.size)


def blocks_of(rows: int, together: Sequence[Rows]) -> Ints:
    """(rows,) a number for each row, the same for those that have to lie side by side.

    >>> blocks_of(6, [Rows(BATCHED, np.array([1, 2])), Rows(BATCHED, np.array([2, 4]))])
    array([0, 1, 1, 1, 1, 2])
    """
    joints = np.zeros(rows + 1, np.intp)
    for x in together:
        if x.strides is not None and x.array.size > 1:
            joints[x.flat.min()] += 1
            joints[x.flat.max()] -= 1
    joined = np.cumsum(joints)[:-1] > 0  # whether the next row belongs to the same block
    block: Ints = np.cumsum(np.append(0, ~joined[:-1]))[:rows]
    return block


class _Memory:
    """Rows of memory, given for a time: always the first that are free."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []  # from where to where, in order
        self._taken: list[tuple[int, int, int]] = []  # a heap: until when, from where to where

    def give(self, count: int, birth: int, death: int) -> int:
        """The first of `count` rows that are free from birth to death; births never go back."""
        while self._taken and self._taken[0][0] < birth:
            _, start, stop = heappop(self._taken)
            self._release(start, stop)
        for k, (start, stop) in enumerate(self._free):
            if stop - start >= count:
                self._free[k : k + 1] = [(start + count, stop)] if stop - start > count else []
                break
        else:
            start = self._end()
            self.size = start + count
        heappush(self._taken, (death, start, start + count))
        return start

    def _end(self) -> int:
        """Where the last free rows begin, which more can follow."""
        at_end = self._free and self._free[-1][1] == self.size
        return self._free.pop()[0] if at_end else self.size

    def _release(self, start: int, stop: int) -> None:
        k = bisect(self._free, (start, stop))
        if k < len(self._free) and self._free[k][0] == stop:
            stop = self._free.pop(k)[1]
        if k and self._free[k - 1][1] == start:
            k, start = k - 1, self._free.pop(k - 1)[0]
        self._free.insert(k, (start, stop))
