"""Python's operators and NumPy's functions, in terms of one method that each engine supplies."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from threading import get_ident
from time import perf_counter_ns
from types import WrapperDescriptorType
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

import numpy as np

from . import functions, ops
from .arrays import apply_function, apply_ufunc

if TYPE_CHECKING:
    from .signatures import Methods
else:
    Methods = object

# Called with (operand, means) whenever code looks at a number: one for each function that is being
# recorded, which refuses to let a parameter decide which way the function goes. They are those of
# the whole process, since threads that a function starts inherit no variable of its context, nor
# does an empty context. A reference goes with its recording, even if an interrupt keeps that from
# removing it.
watches: set[ref[Watch]] = set()

# What to write where a float is asked for, and an operation would be lost.
INSTEAD_OF_FLOAT = (
    "vgrad's function under NumPy's name, as in vgrad.exp(x) or vgrad.arccos(x), or make an op of "
    "it, by vgrad.op; leave float() out, give arrays dtype=object, and write a solver such as "
    "odeint as a loop of its steps"
)
INSTEAD_OF_STATISTICS = "arithmetic, as in vgrad.sum(xs) / len(xs), or np.mean and np.var"


def look(operand: Operand, means: str) -> Any:
    """Tell all functions being recorded that the number of `operand` is looked at.

    Returns what a function gets in place of the number, or None if that is the number itself; where
    `means` is "repr", True if the number is to be hidden. Raises TraceError if a function must not
    look at it.
    """
    instead = None
    for watch in recordings() if watches else ():
        if instead is None or not watch.records_here():  # the inner one answers, within another
            found = watch(operand, means)
            instead = found if instead is None else instead
    return instead


class Watch:
    """Watches a function that runs in this thread, and must not look at some numbers.

    Called with an operand and the way that it is looked at, as `look` is.
    """

    def __init__(self) -> None:
        self.thread, self.since = get_ident(), perf_counter_ns()
        self._process = os.getpid()  # a fork leaves this behind in the child, where none records

    def records_here(self) -> bool:
        """Whether what runs now is that function."""
        return self._process == os.getpid() and get_ident() == self.thread

    def __call__(self, operand: Any, means: str) -> Any:
        raise NotImplementedError

    def merged(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Any:
        """What a call returns, its branches merged if it is recorded."""
        return function(*args, **named)


def recordings() -> list[Watch]:
    """What watches for each function that is being recorded, the one that began last first."""
    # a copy, which neither threads nor the garbage collector disturb
    found = [reference() for reference in watches.copy()]
    return sorted((x for x in found if x is not None), key=lambda watch: -watch.since)


def declined(op: ops.Op, operands: Sequence[Any]) -> Any:
    """NotImplemented, for an operand of another kind to do what it means by `op`.

    Raises TypeError for a list times a number, which Python would repeat as often as that says.
    """
    for x in operands if op is ops.mul else ():
        repeats = isinstance(getattr(type(x), "__rmul__", None), WrapperDescriptorType)
        if repeats and isinstance(x, Sequence):
            raise TypeError(
                f"a {type(x).__name__} must not be multiplied by a Value or a traced value; "
                "multiply its items, as in [x * v for x in xs], or make it an array"
            )
    return NotImplemented


def _of_number(function: Callable[..., Any], means: str) -> Callable[..., Any]:
    """A method that is a function of the number, which it looks at by `means`."""

    def method(self: Any, *options: Any) -> Any:
        number = look(self, "digits" if options and means == "round" else means)
        return function(self._number if number is None else number, *options)

    return method


_formatted = _of_number(format, "format")


def whole(number: float) -> int:
    """The number as an index; raises TypeError if it is not whole."""
    if not number.is_integer():
        raise TypeError(f"an index must be a whole number (got {number}); use round(x) or int(x)")
    return int(number)


def _unary(op: ops.Op) -> Callable[[Any], Any]:
    def method(self: Any) -> Any:
        return self._apply(op, self)

    method.__name__, method.__doc__ = op.name, op.__doc__
    return method


def _binary(op: ops.Op) -> Callable[[Any, Any], Any]:
    return lambda self, other: self._apply(op, self, other)


def _reflected(op: ops.Op) -> Callable[[Any, Any], Any]:
    return lambda self, other: self._apply(op, other, self)


class Operand(Methods):
    """What both engines compute with; a subclass supplies `_apply(op, *operands)`.

    `_apply` returns a new operand, or NotImplemented if it cannot take one of the operands. A
    number that is known stands in `_number`.
    """

    __slots__ = ()
    _bulk: Any = None  # what records ops on arrays of these in one go, if anything does

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        raise NotImplementedError

    __hash__ = object.__hash__  # by identity: sets and dicts tell equal numbers apart

    if not TYPE_CHECKING:  # their types are in `signatures`
        # fmt: off
        # self + other, and other + self
        __add__,     __radd__     = _binary(ops.add), _reflected(ops.add)
        __sub__,     __rsub__     = _binary(ops.sub), _reflected(ops.sub)
        __mul__,     __rmul__     = _binary(ops.mul), _reflected(ops.mul)
        __truediv__, __rtruediv__ = _binary(ops.div), _reflected(ops.div)
        __pow__,     __rpow__     = _binary(ops.pow), _reflected(ops.pow)
        __mod__,     __rmod__     = _binary(ops.remainder), _reflected(ops.remainder)
        __floordiv__, __rfloordiv__ = _binary(ops.floor_divide), _reflected(ops.floor_divide)
        __neg__,     __abs__      = _unary(ops.neg), _unary(ops.abs)

        # Comparisons give 1.0 or 0.0 as an operand, to be recorded and used in `where`.
        __gt__, __lt__ = _binary(ops.gt), _binary(ops.lt)
        __ge__, __le__ = _binary(ops.ge), _binary(ops.le)
        __eq__, __ne__ = _binary(ops.eq), _binary(ops.ne)

        exp, log, sqrt = _unary(ops.exp), _unary(ops.log), _unary(ops.sqrt)
        sin, cos, tanh = _unary(ops.sin), _unary(ops.cos), _unary(ops.tanh)
        sigmoid, relu  = _unary(ops.sigmoid), _unary(ops.relu)
        abs            = _unary(ops.abs)
        stop_gradient  = _unary(ops.stop_gradient)

        # Steps, whose derivative is 0: a plain number in their place loses no gradient.
        __int__, __trunc__   = _of_number(int, "int"), _of_number(math.trunc, "int")
        __floor__, __ceil__  = _of_number(math.floor, "floor"), _of_number(math.ceil, "ceil")
        __round__, __index__ = _of_number(round, "round"), _of_number(whole, "index")
        # fmt: on

        def __divmod__(self, other: Any) -> tuple[Any, Any]:
            return self // other, self % other

        def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
            return other // self, other % self

        def __and__(self, other: Any) -> Any:  # of conditions, as for NumPy's booleans
            return functions.logical_and(self, other)

        def __or__(self, other: Any) -> Any:
            return functions.logical_or(self, other)

        def __invert__(self) -> Any:
            return functions.logical_not(self)

        __rand__, __ror__ = __and__, __or__

        def conjugate(self) -> Any:
            """The number itself, for NumPy's functions that allow for complex ones.

            >>> import numpy, vgrad
            >>> numpy.vdot([vgrad.Value(2.0)], [3.0])
            Value(data=6.0, grad=0.0)
            """
            return self

        @property
        def real(self) -> Any:
            """The number itself, for NumPy's functions that allow for complex ones.

            >>> from vgrad import Value
            >>> Value(2.0).real
            Value(data=2.0, grad=0.0)
            """
            return self

        def __pos__(self) -> Any:
            return self

    def __format__(self, spec: str) -> str:
        return _formatted(self, spec) if spec else str(self)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """`np.exp(v)`, `np.float64(2) * v` and the like."""
        return apply_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """`np.where(v > 0, v, 0.0)`, `np.stack([v, w])` and the like."""
        return apply_function(function, args, options)


def _method(op: ops.Op) -> Callable[..., Any]:
    def method(self: Any, *others: Any, **named: Any) -> Any:
        return op(self, *others, **named)

    method.__name__, method.__doc__ = op.name, op.__doc__
    return method


# Every other op is a method too, of its first operand unless that is an order n: by these, where
# they have NumPy's names, NumPy goes through an array of objects.
for _op in ops.OPS:
    if _op.symbol.isidentifier() and not hasattr(Operand, _op.name) and 1 <= _op.arity <= 2:
        low, high = _op.domain[0]
        if low < high:
            setattr(Operand, _op.name, _unary(_op) if _op.arity == 1 else _method(_op))

# For annotations: any number that vgrad computes with, a float, a `Value` or a traced one.
Number: TypeAlias = float | Operand
