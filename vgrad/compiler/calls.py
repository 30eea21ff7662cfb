"""A list of NumPy calls bound to buffers: what the kernels of a plan become for one batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array, Shape
from ..flat import BATCHED, SHARED, Rows
from .fuse import Ints, Mask
from .layout import Places


class Source(NamedTuple):
    """An array that a call reads, and whether its numbers are the same in every sweep."""

    array: Array  # of the plan's dtype, or a mask of booleans
    constant: bool = False


FEW = 4  # rows whose gradients are added up before they are summed along the batch

# Puts its result into the array given, or returns one of its own.
Produce = Callable[[Array | None], Source]


class Calls:
    """Buffers of values and gradients for batches of one width, and calls that work on them.

    Kernels add to `calls`. These are the hot path of a sweep, so each is, where it can be, a
    function of NumPy itself with its arguments bound. What depends on constants alone is computed
    here and now instead. A row's first gradient is written and later ones are added, so nothing
    has to be filled with zeros first; a row without a gradient keeps the 0 it was created with.
    """

    def __init__(
        self, rows: list[int], places: Places, width: int, exact: bool, dtype: np.dtype[Any]
    ) -> None:
        self.dtype = dtype  # of all numbers; masks are booleans
        self.zero, self.one = self.constant(0.0), self.constant(1.0)
        self.exact = exact  # whether maps keep a gradient of 0, even times inf or nan
        self.calls: list[Callable[[], Any]] = []
        # A batch of one sample has no axis: its kernels work on matrices, not on stacks of them.
        self.tail: tuple[Shape, Shape] = ((), (width,) if width > 1 else ())
        shared = np.arange(rows[SHARED])
        memory = np.zeros((places.size, *self.tail[BATCHED]), dtype)
        self.values = [np.zeros(rows[SHARED], dtype), memory]
        self.grads = [np.zeros(rows[SHARED], dtype), memory]
        self.value_at = [shared, places.values]  # where in these arrays the rows are
        self.grad_at = [shared, places.gradients]
        self.places = places
        self.is_constant = [np.zeros(n, bool) for n in rows]  # rows whose value is constant
        self.grad_is_constant = [np.zeros(n, bool) for n in rows]
        self.has_grad = [np.zeros(n, bool) for n in rows]  # rows that have a gradient by now
        self.kept: dict[Any, Source] = {}  # what forwards leave for adjoints
        self.uses = np.zeros(rows[SHARED], np.intp)  # how many batched kernels read a shared row
        self.forwards: list[tuple[Any, list[Callable[[], Any]]]] = []  # kernels, and their calls
        self.values_read = np.zeros(rows[BATCHED], bool)  # batched rows that somebody asked for
        self._unsummed: dict[Any, tuple[Rows, Array]] = {}  # gradients of shared rows, by these
        self._slots: list[Array] = []
        self._used = 0
        self._lasting_bytes = 0

    @property
    def nbytes(self) -> int:
        """How many bytes the buffers and the scratch arrays take."""
        arrays = (*self.values, self.grads[SHARED], *self._slots)
        return self._lasting_bytes + sum(array.nbytes for array in arrays)

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
        arrays = [x.array for x in operands]
        constant = all(x.constant for x in operands)
        if out is None:
            shape = np.broadcast_shapes(*(x.shape for x in arrays))
            out = self.scratch(shape, constant, _dtype(function, arrays))
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

    def value(self, rows: Rows, like: int | None = None) -> Source:
        """The values of these rows, to be combined with those of buffer `like` or of their own."""
        like = rows.buffer if like is None else like
        if rows.buffer == BATCHED:
            self.values_read[rows.flat] = True
        operand = self._read(self.values, self.value_at, self.is_constant, rows, like)
        if operand.array.size == 1 and self.tail[like] and not self.tail[rows.buffer]:
            operand = operand._replace(array=operand.array.reshape(()))  # quicker to broadcast
        return operand

    def grad(self, rows: Rows) -> Source:
        """The gradients of these rows."""
        return self._read(self.grads, self.grad_at, self.grad_is_constant, rows, rows.buffer)

    def any_grad(self, rows: Rows) -> bool:
        """Whether any of these rows has a gradient."""
        return bool(self.has_grad[rows.buffer][rows.flat].any())

    def store(self, rows: Rows, produce: Produce) -> None:
        """Make what `produce(out)` puts into `out`, or returns, the values of these rows."""
        values, at = self.values[rows.buffer], self.value_at[rows.buffer]
        view = self._view(values, at, rows)
        result = produce(view)
        if result.constant and rows.buffer == BATCHED and self.places.values_die[rows.flat].any():
            result = Source(result.array.copy())  # to be written anew in every sweep
        if view is None:
            self.call(partial(values.__setitem__, at[rows.array], result.array), result.constant)
        elif result.array is not view:
            self.call(partial(np.copyto, view, result.array), result.constant)
        self.is_constant[rows.buffer][rows.flat] = result.constant

    def _read(
        self,
        buffers: list[Array],
        at: list[Ints],
        constants: list[Mask],
        rows: Rows,
        like: int,
    ) -> Source:
        memory = Source(buffers[rows.buffer], bool(constants[rows.buffer][rows.flat].all()))
        view = self._view(memory.array, at[rows.buffer], rows)
        if view is None:
            operand = self.take(memory, at[rows.buffer][rows.array])
        else:
            operand = Source(view, memory.constant)
        lacks_batch = len(self.tail[like]) > len(self.tail[rows.buffer])
        return operand._replace(array=operand.array[..., None]) if lacks_batch else operand

    def _view(self, memory: Array, at: Ints, rows: Rows) -> Array | None:
        """These rows of a buffer without a copy; None if they are not affine.

        Nor are single numbers read backwards: NumPy then computes in another way, to other bits.
        """
        if rows.strides is None or (memory.ndim == 1 and min(rows.strides, default=0) < 0):
            return None
        return np.ndarray(
            rows.shape + memory.shape[1:],
            self.dtype,
            memory.data if memory.size else memory,
            int(at[rows.flat[0]]) * memory.strides[0],
            tuple(step * memory.strides[0] for step in rows.strides) + memory.strides[1:],
        )

    def contribute(self, rows: Rows, shape: Shape, produce: Produce) -> None:
        """Add to the gradient of these rows what `produce(out)` puts into `out`, or returns.

        That broadcasts to `shape`. The gradient of weights (c, k), for example, which B samples
        share, takes these steps on its way, each if it is needed:

            (c, k, B)     as produced
            (c, k)        summed along the batch, and along axes on which the rows have length 1
            (c * k,)      one number for each row, unless a view has them all, each of them once
            (n,)          summed where a row is named more than once, which leaves n
            grads[rows]   written if they have no gradient yet, else added
        """
        tail = self.tail[BATCHED]
        few = rows.buffer == SHARED and rows.array.size <= FEW
        if few and tail and shape == rows.shape + tail and self.uses[rows.flat].min() > 1:
            self._add_unsummed(rows, shape, produce)
        else:
            self._add(rows, shape, produce)

    def _add(self, rows: Rows, shape: Shape, produce: Produce) -> None:
        # Slowly, once it has the shape of the rows: np.add.at(grads, rows.array, result)
        grads, where = self.grads[rows.buffer], rows.flat
        own = rows.shape + self.tail[rows.buffer]
        is_first = not self.any_grad(rows)
        at = self.grad_at[rows.buffer]
        view = self._view(grads, at, rows) if rows.duplicates is None else None
        out = view if is_first else None  # where the result can go directly
        result = produce(out) if shape == own else self._reduced(produce(None), shape, own, out)
        if result.constant and rows.buffer == BATCHED and self.places.gradients_die[where].any():
            result = Source(result.array.copy())  # to be written anew in every sweep
        if view is None:
            where, result = self._distinct(rows, result)
        in_a_row = view is not None and len(rows.shape) == 1
        cut = self._only_some_are_new(rows.buffer, where) if in_a_row else 0
        if cut:  # of two parts one is written, the other added
            for part in (slice(0, cut), slice(cut, None)):
                some = Rows(rows.buffer, where[part], rows.origin)
                more = result._replace(array=result.array[part])
                self._add(some, more.array.shape, partial(_given, more))
            return
        if not is_first:
            self._restart(rows.buffer, where)
            before = self.take(Source(grads), at[where]) if view is None else Source(view)
            result = self._added(before, result)
        if view is None:
            self.call(partial(grads.__setitem__, at[where], result.array), result.constant)
        elif result.array is not view:
            self.call(partial(np.copyto, view, result.array), result.constant)
        self.has_grad[rows.buffer][where] = True
        self.grad_is_constant[rows.buffer][where] = result.constant

    def begin_adjoint(self, rows: Rows) -> None:
        """Let gradients of a kernel's rows be 0 where there are none; it is about to read them."""
        self.next_kernel()
        if rows.buffer == BATCHED:
            none = rows.flat[~self.has_grad[BATCHED][rows.flat]]
            none = none[self.places.gradients_die[none]]
            if len(none):
                self.call(
                    partial(self.grads[BATCHED].__setitem__, self.grad_at[BATCHED][none], 0.0)
                )

    def _add_unsummed(self, rows: Rows, shape: Shape, produce: Produce) -> None:
        """Add to the gradient of a few shared rows, before it is summed along the batch.

        Where many kernels read a parameter that takes half the time of summing first.
        """
        key = rows.shape, rows.flat.tobytes()
        if key in self._unsummed:
            self._added(Source(self._unsummed[key][1]), produce(None))
            return
        total = self.lasting(shape, 0.0)
        result = produce(total)
        if result.constant:  # so there is no call that would write it in every sweep
            self._add(rows, shape, partial(_given, result))
            return
        if result.array is not total:
            self.calls.append(partial(np.copyto, total, result.array))
        self._unsummed[key] = rows, total

    def sum_up(self) -> None:
        """Sum along the batch what is not summed yet."""
        for rows, total in self._unsummed.values():
            self._add(rows, total.shape, partial(_given, Source(total)))
        self._unsummed.clear()

    def _only_some_are_new(self, buffer: int, rows: Ints) -> int:
        """How many of the first rows have a gradient where the others have none, or the reverse."""
        has = self.has_grad[buffer][rows]
        ends = np.flatnonzero(has[1:] != has[:-1]) + 1
        return int(ends[0]) if len(ends) == 1 else 0

    def _added(self, before: Source, part: Source) -> Source:
        """before + part, in the place of `before`; if the last call made -x of x, before - x."""
        last = self.calls[-1] if self.calls else None
        if isinstance(last, partial) and last.func is np.negative and last.args[1] is part.array:
            self.calls.pop()
            return self.compute(np.subtract, before, Source(last.args[0]), out=before.array)
        return self.compute(np.add, before, part, out=before.array)

    def _reduced(self, x: Source, shape: Shape, own: Shape, out: Array | None) -> Source:
        """The sum of x, as an array of `shape`, along what `own` lacks or has with length 1."""
        x = x._replace(array=np.broadcast_to(x.array, shape))
        if len(shape) > len(own) and shape[:-1] != own:  # along the batch first, apart from others
            shape = shape[:-1]
            x = self.sum(x, (len(shape),), shape)
        axes = tuple(axis for axis, (n, kept) in enumerate(zip(shape, (*own, 1))) if n > kept)
        return self.sum(x, axes, own, out)

    def _distinct(self, rows: Rows, x: Source) -> tuple[Ints, Source]:
        """The distinct row numbers, and the sum of what goes to each of them."""
        shape = rows.shape + self.tail[rows.buffer]
        if x.array.shape != shape or not x.array.flags.c_contiguous:
            copy = self.result(shape, x)  # as `reshape` would copy now, and once only
            self.call(partial(np.copyto, copy.array, x.array), x.constant)
            x = copy
        x = x._replace(array=x.array.reshape(rows.array.size, *self.tail[rows.buffer]))
        if rows.duplicates is None:
            return rows.flat, x
        order, starts, distinct = rows.duplicates
        if (order[1:] < order[:-1]).any():
            x = self.take(x, order)
        return distinct, self.sum_spans(x, starts)

    def _restart(self, buffer: int, rows: Ints) -> None:
        """Make a sum start from the same in every sweep: from a constant, or 0 without a gradient.

        Any other first gradient is written in every sweep anyway.
        """
        grads, is_new = self.grads[buffer], ~self.has_grad[buffer][rows]
        at = self.grad_at[buffer][rows]
        fixed, new = at[self.grad_is_constant[buffer][rows]], at[is_new]
        if len(fixed):
            self.call(partial(grads.__setitem__, fixed, grads[fixed]))
        if len(new):
            self.call(partial(grads.__setitem__, new, 0.0))


def _given(x: Source, out: Array | None) -> Source:
    return x


_OUT_BY_NAME = {np.maximum, np.minimum}  # for these NumPy deprecates `out` as a plain argument


def _dtype(function: Callable[..., Any], arrays: list[Array]) -> type | None:
    """bool for comparisons, and for ops on masks; else None."""
    signature = "".join(array.dtype.char for array in arrays) + "->?"
    return bool if signature in getattr(function, "types", ()) else None
