"""Python's operators and NumPy's functions, in terms of one method that each engine supplies."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import ops

# Called with (operand, means) whenever code looks at a number. While a function is recorded this is
# the tape, which refuses to let a parameter decide which way the function goes.
on_look: ContextVar[Callable[[Any, str], None] | None] = ContextVar("on_look", default=None)


def look(operand: Operand, means: str) -> None:
    """Tell the listener, if there is one, that the number of `operand` is looked at."""
    listener = on_look.get()
    if listener is not None:
        listener(operand, means)


class Operand:
    """What both engines compute with; a subclass supplies `_apply(op, *operands)`.

    `_apply` returns a new operand, or NotImplemented if it cannot take one of the operands.
    """

    __slots__ = ()

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        raise NotImplementedError

    def __add__(self, other: Any) -> Any:
        return self._apply(ops.add, self, other)

    def __radd__(self, other: Any) -> Any:  # other + self
        return self._apply(ops.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._apply(ops.sub, self, other)

    def __rsub__(self, other: Any) -> Any:  # other - self
        return self._apply(ops.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._apply(ops.mul, self, other)

    def __rmul__(self, other: Any) -> Any:  # other * self
        return self._apply(ops.mul, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._apply(ops.div, self, other)

    def __rtruediv__(self, other: Any) -> Any:  # other / self
        return self._apply(ops.div, other, self)

    def __pow__(self, other: Any) -> Any:
        return self._apply(ops.pow, self, other)

    def __rpow__(self, other: Any) -> Any:  # other ** self
        return self._apply(ops.pow, other, self)

    def __neg__(self) -> Any:
        return self._apply(ops.neg, self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self._apply(ops.abs, self)

    # Comparisons give 1.0 or 0.0 as an operand, so that they can be recorded and used in `where`.

    def __gt__(self, other: Any) -> Any:
        return self._apply(ops.gt, self, other)

    def __lt__(self, other: Any) -> Any:
        return self._apply(ops.lt, self, other)

    def __ge__(self, other: Any) -> Any:
        return self._apply(ops.ge, self, other)

    def __le__(self, other: Any) -> Any:
        return self._apply(ops.le, self, other)

    def __eq__(self, other: Any) -> Any:
        return self._apply(ops.eq, self, other)

    def __ne__(self, other: Any) -> Any:
        return self._apply(ops.ne, self, other)

    __hash__ = object.__hash__  # by identity: sets and dicts tell equal numbers apart

    def exp(self) -> Any:
        """e to the power of self."""
        return self._apply(ops.exp, self)

    def log(self) -> Any:
        """The natural logarithm: -inf at 0, nan below."""
        return self._apply(ops.log, self)

    def sqrt(self) -> Any:
        """The square root: nan below 0."""
        return self._apply(ops.sqrt, self)

    def tanh(self) -> Any:
        """The hyperbolic tangent."""
        return self._apply(ops.tanh, self)

    def sigmoid(self) -> Any:
        """1 / (1 + exp(-self))."""
        return self._apply(ops.sigmoid, self)

    def relu(self) -> Any:
        """self where positive, else 0."""
        return self._apply(ops.relu, self)

    def abs(self) -> Any:
        """The absolute value."""
        return self._apply(ops.abs, self)

    def sin(self) -> Any:
        """The sine of an angle in radians."""
        return self._apply(ops.sin, self)

    def cos(self) -> Any:
        """The cosine of an angle in radians."""
        return self._apply(ops.cos, self)

    def stop_gradient(self) -> Any:
        """The same number, but no gradient goes through it."""
        return self._apply(ops.stop_gradient, self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """`np.exp(v)`, `np.float64(2) * v` and the like: the op that NumPy's name stands for.

        A function that is not an op makes NumPy go through the numbers one by one, and so come back
        to the operators and methods above.
        """
        op = _OP_OF_UFUNC.get(ufunc)
        if op is not None and method == "__call__" and not options:
            return op(*inputs)
        options = {name: boxed(x) for name, x in options.items()}
        return getattr(ufunc, method)(*map(boxed, inputs), **options)


def boxed(x: Any) -> Any:
    """An operand as an array of no dimensions, which NumPy does not hand back to us."""
    if not isinstance(x, Operand):
        return x
    array = np.empty((), dtype=object)
    array[()] = x
    return array


_OP_OF_UFUNC = {op.ufunc: op for op in ops.OPS if op.ufunc is not None}
