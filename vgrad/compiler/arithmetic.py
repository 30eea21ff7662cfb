"""NumPy calls on arrays that exist beforehand, added to a list."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array, Shape
from .fuse import Ints


class Source(NamedTuple):
    """An array that a call reads, and whether its numbers are the same in every sweep."""

    array: Array  # of the plan's dtype, or a mask of booleans
    constant: bool = False


class Arithmetic:
    """A list of calls, and the arrays that they use on the way.

    Each call is, where it can be, a function of NumPy itself with its arguments bound. What depends
    on constants alone is computed here and now instead.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype  # of all numbers; masks are booleans
        self.calls: list[Callable[[], Any]] = []
        self.zero, self.one = self.constant(0.0), self.constant(1.0)
        self._slots: list[Array] = []
        self._used = 0
        self._lasting_bytes = 0
        self._computed: dict[Any, Source] = {}  # since the last kernel, and is in no buffer

    def constant(self, numbers: Any) -> Source:
        """A number or array that is the same in every sweep."""
        return Source(np.asarray(numbers, self.dtype), True)

    def lasting(self, shape: Shape, number: float) -> Array:
        """An array whose numbers stay the same in all sweeps unless a call sets them."""
        array = np.full(shape, number, self.dtype)
        self._lasting_bytes += array.nbytes
        return array

    def scratch(self, shape: Shape, constant: bool, dtype: Any = None) -> Array:
        """An array that the next kernel may use again, or one that lasts, for a constant."""
        size, dtype = prod(shape) * self.dtype.itemsize, dtype or self.dtype
        if constant:
            self._lasting_bytes += size
            return np.empty(shape, dtype)
        if self._used == len(self._slots):
            self._slots.append(np.empty(0, np.uint8))
        if self._slots[self._used].nbytes < size:
            self._slots[self._used] = np.empty(size, np.uint8)
        slot = self._slots[self._used]
        self._used += 1
        return np.ndarray(shape, dtype, slot.data if size else slot)

    def result(self, shape: Shape, *operands: Source, out: Array | None = None) -> Source:
        """`out`, or a scratch array, for what a call will compute from these operands."""
        constant = all(x.constant for x in operands)
        return Source(self.scratch(shape, constant) if out is None else out, constant)

    def next_kernel(self) -> None:
        """Let scratch arrays be used again: a kernel needs none of another's."""
        self._used = 0
        self._computed.clear()

    def call(self, function: Callable[[], Any], constant: bool = False) -> None:
        """Add a call to the list, or if its result is constant, call it at once."""
        if constant:
            function()
        else:
            self.calls.append(function)

    def compute(
        self, function: Callable[..., Any], *operands: Source, out: Array | None = None
    ) -> Source:
        """`function` of the operands, element by element, into `out` or a scratch array."""
        if function is np.multiply and (same := self._times_one(*operands)) is not None:
            if out is not None:
                self.call(partial(np.copyto, out, same.array), same.constant)
            return same if out is None else same._replace(array=out)
        if function is np.negative and any(_is_strided(x) for x in (operands[0].array, out)):
            function, operands = np.multiply, (*operands, self.constant(-1.0))
        arrays = [x.array for x in operands]
        constant = all(x.constant for x in operands)
        if out is None:
            key = function, *map(_place, arrays)
            if not constant and key in self._computed:  # by this kernel
                return self._computed[key]
            shape = np.broadcast_shapes(*(x.shape for x in arrays))
            out = self.scratch(shape, constant, _dtype(function, arrays))
            if not constant:  # a call keeps its arrays; those of constants may be gone, and others
                self._computed[key] = Source(out)  # be at their place
        by_name = function in _OUT_BY_NAME
        bound = partial(function, *arrays, out=out) if by_name else partial(function, *arrays, out)
        self.call(bound, constant)
        return Source(out, constant)

    def _times_one(self, x: Source, y: Source) -> Source | None:
        """One of two factors, if the other is constant and 1, as the objective's gradient is."""
        shape = np.broadcast_shapes(x.array.shape, y.array.shape)
        for one, same in ((x, y), (y, x)):
            fits = same.array.shape == shape and same.array.dtype == self.dtype
            if fits and one.constant and (one.array == 1).all():
                return same
        return None

    def take(self, x: Source, rows: Ints, out: Array | None = None) -> Source:
        """`x[rows]`, a copy."""
        result = self.result(rows.shape + x.array.shape[1:], x, out=out)
        bound = partial(x.array.take, rows, 0, result.array, "clip")  # "raise" would copy twice
        self.call(bound, result.constant)
        return result

    def sum(self, x: Source, axes: Shape, shape: Shape, out: Array | None = None) -> Source:
        """The sum along these axes, which `shape` either lacks or has with a length of 1."""
        result = self.result(shape, x, out=out)
        keepdims = len(shape) == x.array.ndim
        bound = partial(np.add.reduce, x.array, axes, None, result.array, keepdims)
        self.call(bound, result.constant)
        return result

    def sum_in_order(self, x: Source, out: Array | None = None) -> Source:
        """The sums along axis 1 of (n, k) or (n, k, B), one term after the other.

        A reduction adds in pairs where it goes along the last axis, and row to row elsewhere.
        """
        if x.array.ndim == 3:
            return self.sum(x, (1,), (len(x.array), x.array.shape[2]), out)
        so_far = self.result(x.array.shape, x)
        self.call(partial(np.add.accumulate, x.array, 1, None, so_far.array), so_far.constant)
        return so_far._replace(array=so_far.array[:, -1])

    def sum_in_turns(
        self, x: Source, turns: list[tuple[int, int]], out: Array | None = None
    ) -> Source:
        """The sums of as many rows of x, (t, ...), as the first turn has; each turn adds others.

        A turn has one term for each of the first sums, and no more of them than the turn before.
        """
        result = self.result((turns[0][1], *x.array.shape[1:]), x, out=out)
        for a, b in turns:
            total, terms = result.array[: b - a], x.array[a:b]
            add = partial(np.add, total, terms, total) if a else partial(np.copyto, total, terms)
            self.call(add, result.constant)
        return result

    def sum_spans(self, x: Source, starts: Ints, out: Array | None = None) -> Source:
        """The sums along axis 0 of the spans of rows that begin at `starts`."""
        result = self.result((len(starts), *x.array.shape[1:]), x, out=out)
        self.call(partial(np.add.reduceat, x.array, starts, 0, None, result.array), result.constant)
        return result


_OUT_BY_NAME = {np.maximum, np.minimum}  # for these NumPy deprecates `out` as a plain argument


def _is_strided(array: Array | None) -> bool:
    """Whether np.negative might be wrong: that of NumPy 2.4 is from some strides to some."""
    return array is not None and not array.flags.c_contiguous


def _place(array: Array) -> Any:
    """What tells an array from others."""
    return array.__array_interface__["data"], array.shape, array.strides, array.dtype.char


def _dtype(function: Callable[..., Any], arrays: list[Array]) -> type | None:
    """bool for comparisons, and for ops on masks; else None."""
    signature = "".join(array.dtype.char for array in arrays) + "->?"
    return bool if signature in getattr(function, "types", ()) else None
