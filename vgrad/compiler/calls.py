"""A list of NumPy calls bound to buffers: what the kernels of a plan become for one batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..arguments import Array, Shape
from ..flat import BATCHED, SHARED, Rows, as_slice
from .arithmetic import Arithmetic, Source
from .fuse import Ints, Mask
from .layout import Places

FEW = 4  # rows whose gradients are added up before they are summed along the batch

# Puts its result into the array given, or returns one of its own.
Produce = Callable[[Array | None], Source]


class Calls(Arithmetic):
    """Buffers of values and gradients for batches of one width, and calls that work on them.

    Kernels add to `calls`, the hot path of a sweep. A row's first gradient is written and later
    ones are added, so nothing has to be filled with zeros first. A minus is not written: what is
    to be subtracted first leaves its row with the sign turned, and so does all that follows from
    it, until it meets a row with the other sign, or an input; those of parameters come last.
    """

    def __init__(
        self, rows: list[int], places: Places, width: int, exact: bool, dtype: np.dtype[Any]
    ) -> None:
        super().__init__(dtype)
        self.exact = exact  # whether maps keep a gradient of 0, even times inf or nan
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
        self.turned = [np.zeros(n, bool) for n in rows]  # rows whose gradient has its sign turned
        self.computed = [np.zeros(n, bool) for n in rows]  # rows that may: not those of inputs
        self.is_turned = False  # whether the gradients that an adjoint reads have
        self.kept: dict[Any, Source] = {}  # what forwards leave for adjoints
        self.uses = np.zeros(rows[SHARED], np.intp)  # how many batched kernels read a shared row
        self.forwards: list[tuple[Any, list[Callable[[], Any]]]] = []  # kernels, and their calls
        self.values_read = np.zeros(rows[BATCHED], bool)  # batched rows that somebody asked for
        self._unsummed: dict[Any, tuple[Rows, Array]] = {}  # gradients of shared rows, by these

    @property
    def nbytes(self) -> int:
        """How many bytes the buffers and the scratch arrays take."""
        arrays = (*self.values, self.grads[SHARED], *self._slots)
        return self._lasting_bytes + sum(array.nbytes for array in arrays)

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

    def contribute(
        self, rows: Rows, shape: Shape, produce: Produce, negative: bool = False
    ) -> None:
        """Add to the gradient of these rows what `produce(out)` puts into `out`, or returns.

        Or subtract it, if that is the `negative` of what to add. It broadcasts to `shape`. The
        gradient of weights (c, k), for example, which B samples share, takes these steps on its
        way, each if it is needed:

            (c, k, B)     as produced
            (c, k)        summed along the batch, and along axes on which the rows have length 1
            (c * k,)      one number for each row, unless a view has them all, each of them once
            (n,)          summed where a row is named more than once, which leaves n
            grads[rows]   written if they have no gradient yet, else added
        """
        negative ^= self.is_turned
        tail = self.tail[BATCHED]
        few = rows.buffer == SHARED and rows.array.size <= FEW
        if few and tail and shape == rows.shape + tail and self.uses[rows.flat].min() > 1:
            self._add_unsummed(rows, shape, produce, negative)
        else:
            self._add(rows, shape, produce, negative)

    def _add(self, rows: Rows, shape: Shape, produce: Produce, negative: bool = False) -> None:
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
        elif result.array.shape != own:
            result = result._replace(array=np.broadcast_to(result.array, own))
        in_a_row = view is not None and len(rows.shape) == 1
        cut = self._only_some_are_new(rows.buffer, where) if in_a_row else 0
        if cut:  # of two parts one is written, the other added
            for part in (slice(0, cut), slice(cut, None)):
                some = Rows(rows.buffer, where[part], rows.origin)
                more = result._replace(array=result.array[part])
                self._add(some, more.array.shape, partial(_given, more), negative)
            return
        if not is_first:
            is_turned = self._in_one_sign(rows.buffer, where)
            if is_turned and not self.computed[rows.buffer][where].all():
                is_turned = self._turned_back(rows.buffer, where)
            self._restart(rows.buffer, where)
            before = self.take(Source(grads), at[where]) if view is None else Source(view)
            result = self._added(before, result, negative ^ is_turned)
            self.turned[rows.buffer][where] = is_turned
        elif negative and not self.computed[rows.buffer][where].all():
            result = self.compute(np.negative, result, out=view)
        else:
            self.turned[rows.buffer][where] = negative
        if view is None:
            self.call(partial(grads.__setitem__, at[where], result.array), result.constant)
        elif result.array is not view:
            self.call(partial(np.copyto, view, result.array), result.constant)
        self.has_grad[rows.buffer][where] = True
        self.grad_is_constant[rows.buffer][where] = result.constant

    def begin_adjoint(self, rows: Rows) -> None:
        """Prepare the gradients of a kernel's rows, which it is about to read.

        Where there is none it is 0, and all have the same sign.
        """
        self.next_kernel()
        buffer, where = rows.buffer, rows.flat
        self.is_turned = self._in_one_sign(buffer, where)
        none = where[~self.has_grad[buffer][where]]
        if buffer == BATCHED and len(none := none[self.places.gradients_die[none]]):
            self.call(partial(self.grads[buffer].__setitem__, self.grad_at[buffer][none], 0.0))

    def _in_one_sign(self, buffer: int, rows: Ints) -> bool:
        """Whether the gradients of these rows have their signs turned, once all or none have."""
        turned = rows[self.turned[buffer][rows]]
        if len(turned) in (0, self.has_grad[buffer][rows].sum()):
            return bool(len(turned))
        return self._turned_back(buffer, turned)

    def _turned_back(self, buffer: int, rows: Ints) -> bool:
        """False, once none of these gradients has its sign turned."""
        turned = np.unique(rows[self.turned[buffer][rows]])
        fixed = self.grad_is_constant[buffer][turned]
        for some, constant in ((turned[fixed], True), (turned[~fixed], False)):
            if len(some):
                grads, where = self.grads[buffer], as_slice(self.grad_at[buffer][some])
                turn = partial(_turn, grads, where)
                if isinstance(where, slice):  # in one piece
                    turn = partial(np.negative, grads[where], grads[where])
                self.call(turn, constant)
        self.turned[buffer][turned] = False
        return False

    def _add_unsummed(self, rows: Rows, shape: Shape, produce: Produce, negative: bool) -> None:
        """Add to the gradient of a few shared rows, before it is summed along the batch.

        Where many kernels read a parameter that takes half the time of summing first.
        """
        key = rows.shape, rows.flat.tobytes()
        if key in self._unsummed:
            self._added(Source(self._unsummed[key][1]), produce(None), negative)
            return
        total = self.lasting(shape, 0.0)
        result = produce(total)
        if result.constant:  # so there is no call that would write it in every sweep
            self._add(rows, shape, partial(_given, result), negative)
            return
        if negative:
            self.compute(np.negative, result, out=total)
        elif result.array is not total:
            self.calls.append(partial(np.copyto, total, result.array))
        self._unsummed[key] = rows, total

    def sum_up(self) -> None:
        """Sum along the batch what is not summed yet."""
        self.is_turned = False
        for rows, total in self._unsummed.values():
            self._add(rows, total.shape, partial(_given, Source(total)))
        self._unsummed.clear()

    def _only_some_are_new(self, buffer: int, rows: Ints) -> int:
        """How many of the first rows have a gradient where the others have none, or the reverse."""
        has = self.has_grad[buffer][rows]
        ends = np.flatnonzero(has[1:] != has[:-1]) + 1
        return int(ends[0]) if len(ends) == 1 else 0

    def _added(self, before: Source, part: Source, negative: bool) -> Source:
        """before + part, or before - part, in the place of `before`."""
        return self.compute(np.subtract if negative else np.add, before, part, out=before.array)

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


def _turn(grads: Array, rows: Any) -> None:
    grads[rows] *= -1.0


def _given(x: Source, out: Array | None) -> Source:
    return x
