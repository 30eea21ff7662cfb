"""A list of NumPy calls bound to buffers: what the kernels of a plan become for one batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Shape
from ..flat import BATCHED, SHARED, Duplicates, duplicates
from .fuse import Ints

Array = NDArray[Any]


class Source(NamedTuple):
    """An array that a call reads, and whether its numbers are the same in every sweep."""

    array: Array
    constant: bool = False


class Access:
    """Some rows of a buffer in some shape: a view where they are affine, a gather elsewhere."""

    def __init__(self, buffer: int, rows: Ints) -> None:
        self.buffer = buffer
        self.rows = rows
        self.base = int(rows.flat[0])
        self.strides = _strides(rows)  # None where the rows are not affine

    @property
    def shape(self) -> Shape:
        """That of the rows."""
        return self.rows.shape

    @cached_property
    def flat(self) -> Ints:
        """(n,) the rows, in order."""
        return self.rows.reshape(-1)

    @cached_property
    def duplicates(self) -> Duplicates | None:
        """How to sum what goes to rows that are named more than once; None where none is."""
        return duplicates(self.flat)

    def __repr__(self) -> str:
        kind = "gather" if self.strides is None else "view"
        return f"{kind} {'x'.join(map(str, self.shape))}"


def _strides(rows: Ints) -> Shape | None:
    """By how much the rows grow along each axis, if by the same everywhere."""
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


class Calls:
    """Buffers of values and gradients for batches of one width, and calls that work on them.

    Kernels add to `calls`. What depends on constants alone is computed here and now, and not in
    every sweep. A row's first gradient is written and later ones are added, so nothing has to be
    filled with zeros first; a row that gets none stays 0 from the start.
    """

    def __init__(
        self, rows: tuple[int, int], width: int, exact: bool, dtype: np.dtype[Any]
    ) -> None:
        self.dtype = dtype  # of all numbers; masks are of booleans
        self.zero, self.one = self.constant(0.0), self.constant(1.0)
        self.exact = exact  # whether maps keep a gradient of 0, even times inf or nan
        self.calls: list[Callable[[], Any]] = []
        # With one sample a batch has no axis: what is left are matrices, not stacks of them.
        self.tail: tuple[Shape, Shape] = ((), (width,) if width > 1 else ())
        self.values = [np.zeros((rows[b], *self.tail[b]), dtype) for b in (SHARED, BATCHED)]
        self.grads = [np.zeros((rows[b], *self.tail[b]), dtype) for b in (SHARED, BATCHED)]
        self.is_constant = [np.zeros(n, bool) for n in rows]  # whose values are constant
        self.grad_is_constant = [np.zeros(n, bool) for n in rows]
        self.has_grad = [np.zeros(n, bool) for n in rows]  # which have a gradient already
        self.kept: dict[Any, Source] = {}  # what forwards leave for adjoints
        self.noted = np.zeros((), dtype)  # finite as long as all is that was noted
        self._slots: list[Array] = []
        self._used = 0
        self._lasting_bytes = 0

    @property
    def nbytes(self) -> int:
        """What the buffers and the scratch arrays take."""
        arrays = (*self.values, *self.grads, *self._slots)
        return self._lasting_bytes + sum(array.nbytes for array in arrays)

    def constant(self, numbers: Any) -> Source:
        """A number or array that is the same in every sweep."""
        return Source(np.asarray(numbers, self.dtype), True)

    def zeros(self, shape: Shape) -> Array:
        """An array that lasts, of numbers that stay 0 unless a call sets them."""
        array = np.zeros(shape, self.dtype)
        self._lasting_bytes += array.nbytes
        return array

    def note(self, access: Access) -> None:
        """Have `noted` say so where one of these rows is not finite.

        They lie in one piece, or with rows of ones between them.
        """
        rows = slice(access.flat.min(), access.flat.max() + 1)
        numbers = self.values[access.buffer][rows].reshape(-1)
        squares = self.zeros(())
        self.call(partial(np.dot, numbers, numbers, squares))
        self.call(partial(np.add, self.noted, squares, self.noted))

    def next_kernel(self) -> None:
        """Let scratch arrays be used again: those of one kernel are of no use to another."""
        self._used = 0

    def value(self, access: Access, like: int) -> Source:
        """The values of these rows, to be combined with those of buffer `like`."""
        operand = self._read(self.values, self.is_constant, access, like)
        if operand.array.size == 1 and self.tail[like] and not self.tail[access.buffer]:
            operand = operand._replace(array=operand.array.reshape(()))  # quicker to broadcast
        return operand

    def grad(self, access: Access) -> Source:
        """The gradients of these rows."""
        return self._read(self.grads, self.grad_is_constant, access, access.buffer)

    def store(self, access: Access, produce: Callable[[Array | None], Source]) -> None:
        """Make what `produce(out)` puts into `out`, or returns, the values of these rows."""
        values = self.values[access.buffer]
        target = None if access.strides is None else self._view(values, access)
        result = produce(target)
        if target is None:
            self.call(partial(values.__setitem__, access.rows, result.array), result.constant)
        elif result.array is not target:
            self.call(partial(np.copyto, target, result.array), result.constant)
        self.is_constant[access.buffer][access.flat] = result.constant

    def any_grad(self, access: Access) -> bool:
        """Whether any of these rows has a gradient."""
        return bool(self.has_grad[access.buffer][access.flat].any())

    def compute(
        self, function: Callable[..., Any], *operands: Source, out: Array | None = None
    ) -> Source:
        """`function` of the operands, element by element, into `out` or a scratch array."""
        arrays = [x.array for x in operands]
        constant = all(x.constant for x in operands)
        if out is None:
            shape = np.broadcast_shapes(*(x.shape for x in arrays))
            out = self.scratch(shape, constant, _dtype(function, arrays))
        if function in _OUT_BY_NAME:
            self.call(partial(function, *arrays, out=out), constant)
        else:
            self.call(partial(function, *arrays, out), constant)
        return Source(out, constant)

    def into(
        self,
        function: Callable[..., Any],
        shape: Shape,
        *operands: Source,
        out: Array | None = None,
    ) -> Source:
        """`function(*arrays, out)`, whose result has this shape."""
        constant = all(x.constant for x in operands)
        if out is None:
            out = self.scratch(shape, constant)
        self.call(partial(function, *(x.array for x in operands), out), constant)
        return Source(out, constant)

    def call(self, function: Callable[[], Any], constant: bool = False) -> None:
        """Add a call to the list; what is constant is called at once instead."""
        if constant:
            function()
        else:
            self.calls.append(function)

    def contribute(
        self, access: Access, shape: Shape, produce: Callable[[Array | None], Source]
    ) -> None:
        """Add to the gradient of these rows what `produce(out)` puts into `out`, or returns.

        That has `shape`; it is summed along the axes that the rows lack, or have length 1 on.
        """
        buffer, rows = access.buffer, access.flat
        target, own = self._target(access), access.shape + self.tail[buffer]
        into = None if self.has_grad[buffer][rows].any() else target
        result = produce(into if shape == own else None)
        if shape != own:
            whole = result._replace(array=np.broadcast_to(result.array, shape))
            result = self._summed(whole, own, into)
        if result.array is target:
            self._mark(buffer, rows, result.constant)
        else:
            self._accumulate(access, target, result)

    def _summed(self, whole: Source, shape: Shape, out: Array | None) -> Source:
        axes = tuple(
            axis
            for axis, n in enumerate(whole.array.shape)
            if axis >= len(shape) or n > shape[axis]
        )
        keepdims = whole.array.ndim == len(shape)
        if not keepdims and len(axes) > 1:  # along the batch first, which leaves axes of length 1
            last = whole.array.ndim - 1
            whole = self.into(
                partial(_sum_over, axes=(last,), keepdims=False), whole.array.shape[:-1], whole
            )
            return self._summed(whole, shape, out)
        return self.into(partial(_sum_over, axes=axes, keepdims=keepdims), shape, whole, out=out)

    def _accumulate(self, access: Access, target: Array | None, result: Source) -> None:
        buffer, rows = access.buffer, access.flat
        grads = self.grads[buffer]
        if target is None:
            result = self._flattened(access, result)
        if target is None and access.duplicates is not None:
            order, starts, rows = access.duplicates
            if (order[1:] < order[:-1]).any():
                result = self.into(partial(take, rows=order), result.array.shape, result)
            shape = (len(starts), *self.tail[buffer])
            result = self.into(partial(_reduceat, starts=starts), shape, result)
        written = self.has_grad[buffer][rows]
        if not written.any():
            if target is not None:
                self.call(partial(np.copyto, target, result.array), result.constant)
            else:
                self.call(partial(grads.__setitem__, rows, result.array), result.constant)
            self._mark(buffer, rows, result.constant)
            return
        # What is constant was written once; a sum that starts from it must start from it each time.
        fixed = rows[self.grad_is_constant[buffer][rows]]
        if len(fixed):
            self.call(partial(grads.__setitem__, fixed, grads[fixed]))
        if not written.all():
            self.call(partial(grads.__setitem__, rows[~written], 0.0))
        if target is not None:
            self.call(partial(np.add, target, result.array, target))
        else:
            before = self.into(partial(take, rows=rows), result.array.shape, Source(grads))
            after = self.compute(np.add, before, result, out=before.array)
            self.call(partial(grads.__setitem__, rows, after.array))
        self._mark(buffer, rows, False)

    def _flattened(self, access: Access, result: Source) -> Source:
        """One row of the result for each row of the access."""
        shape = access.shape + self.tail[access.buffer]
        if result.array.shape != shape or not result.array.flags.c_contiguous:
            # to reshape it would copy here and now, and not in every sweep
            result = self.into(_copy, shape, result)
        flat = result.array.reshape(len(access.flat), *self.tail[access.buffer])
        return result._replace(array=flat)

    def _mark(self, buffer: int, rows: Ints, constant: bool) -> None:
        self.has_grad[buffer][rows] = True
        self.grad_is_constant[buffer][rows] = constant

    def _target(self, access: Access) -> Array | None:
        """The gradients of these rows as a view, if there is one that has every row once."""
        if access.strides is None or access.duplicates is not None:
            return None
        return self._view(self.grads[access.buffer], access)

    def _read(
        self, buffers: list[Array], fixed: list[NDArray[np.bool_]], access: Access, like: int
    ) -> Source:
        buffer = access.buffer
        constant = bool(fixed[buffer][access.flat].all())
        if access.strides is not None:
            operand = Source(self._view(buffers[buffer], access), constant)
        else:
            whole = Source(buffers[buffer], constant)
            shape = access.shape + self.tail[buffer]
            operand = self.into(partial(take, rows=access.rows), shape, whole)
        missing = len(self.tail[like]) - len(self.tail[buffer])
        return operand._replace(array=operand.array[..., None]) if missing else operand

    def _view(self, memory: Array, access: Access) -> Array:
        assert access.strides is not None
        inner = memory.strides[1:]
        strides = tuple(step * memory.strides[0] for step in access.strides)
        return np.ndarray(
            access.shape + memory.shape[1:],
            self.dtype,
            memory.data if memory.size else memory,
            access.base * memory.strides[0],
            strides + inner,
        )

    def scratch(self, shape: Shape, constant: bool, dtype: Any = None) -> Array:
        """An array for what is not kept, or for a constant, which is."""
        size = prod(shape) * self.dtype.itemsize
        dtype = dtype or self.dtype
        if constant:
            self._lasting_bytes += size
            return np.empty(shape, dtype)  # its own, as it must last
        if self._used == len(self._slots):
            self._slots.append(np.empty(0, np.uint8))
        if self._slots[self._used].nbytes < size:
            self._slots[self._used] = np.empty(size, np.uint8)
        slot = self._slots[self._used]
        self._used += 1
        return np.ndarray(shape, dtype, slot.data if size else slot)


def _dtype(function: Callable[..., Any], arrays: list[Array]) -> type | None:
    """bool for comparisons, and for what is done to masks; else None."""
    signature = "".join(array.dtype.char for array in arrays) + "->?"
    return bool if signature in getattr(function, "types", ()) else None


_OUT_BY_NAME = {np.maximum, np.minimum}  # for these NumPy deprecates `out` as a plain argument


def take(array: Array, out: Array, rows: Ints) -> None:
    """The rows of an array, gathered into `out`."""
    array.take(rows, 0, out, "clip")  # "raise" would go through a buffer


def _copy(array: Array, out: Array) -> None:
    np.copyto(out, array)


def _reduceat(array: Array, out: Array, starts: Ints) -> None:
    np.add.reduceat(array, starts, 0, None, out)


def _sum_over(array: Array, out: Array, axes: Shape, keepdims: bool) -> None:
    np.add.reduce(array, axis=axes, out=out, keepdims=keepdims)
