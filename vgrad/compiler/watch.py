"""Overflow: a sum in another order may be infinite where the scalar engine's is not.

Nearly always that shows in a result, which then is not finite, and another sweep takes over. But
tanh, 1 / x or a comparison may hide it. So these sums are watched, and it is enough to look at a
few numbers: if no input and no parameter is larger than 2.0**128, or 2.0**16 in float32, most sums
cannot overflow in any order. The others lie next to the leaves, in one piece. Where any of these is
larger, all sums that are watched are looked at.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import Array
from ..flat import as_slice
from .fuse import Ints

MANY = 8192  # numbers
SHARE = 8  # the exponents of leaves may be the largest one divided by this


class Watch:
    """The numbers of one buffer that tell whether a sum may have overflowed.

    Row k of the buffer is at[k] in memory. `rows` are those of leaves, and of sums that may
    overflow even if those are not large; `sums` are the rows of all sums that are watched.
    """

    def __init__(self, memory: Array, at: Ints, rows: slice, sums: Ints) -> None:
        self.sums, self._memory = at[sums], memory
        self._numbers = memory[as_slice(at[rows])].reshape(-1)
        self._squares = np.zeros((), memory.dtype)
        self._limit = 2.0 ** (2 * largest_exponent(memory.dtype) // SHARE)

    def look(self) -> Any:
        """Add up the squares of these numbers. Hot path.

        Of many of them not by BLAS: its other threads, where cores are busy, take longer to wake up
        than the numbers do.
        """
        if self._numbers.size > MANY:
            return np.einsum("i,i", self._numbers, self._numbers, out=self._squares)
        return self._numbers.dot(self._numbers, self._squares)

    def is_small(self) -> bool:
        """Whether none of them is large. Hot path."""
        return float(self._squares) < self._limit

    def finite(self) -> Any:
        """Whether all sums that are watched are finite; of batched ones, (B,) for each sample."""
        return np.isfinite(self._memory[self.sums]).all(axis=0)


def largest_exponent(dtype: np.dtype[Any]) -> int:
    """Numbers of this kind are less than 2.0**1024, or 2.0**128 where they are float32."""
    return int(np.finfo(dtype).maxexp)
