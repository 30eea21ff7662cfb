"""Plain numbers: what counts as one, and functions that compute with them by IEEE 754."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import signature, unwrap
from itertools import zip_longest
from typing import Any, ParamSpec

import numpy as np

Rule = Callable[..., Any]
P = ParamSpec("P")

PLAIN = frozenset([float, int, bool])  # types that need no further look


def is_number(x: Any) -> bool:
    """Whether `x` is a real number: Python's, NumPy's, or an array of no dimensions holding one."""
    if isinstance(x, (float, int, np.floating, np.integer, np.bool_)):
        return not isinstance(x, np.timedelta64)  # NumPy counts it among the integers
    return isinstance(x, np.ndarray) and x.ndim == 0 and x.dtype.kind in "fiub"


def is_count(x: Any) -> bool:
    """Whether `x` is an integer, 1 or more, Python's or NumPy's, and not a bool."""
    if isinstance(x, bool) or hasattr(x, "_apply"):
        return False
    return hasattr(x, "__index__") and bool(x >= 1)


def number(x: Any) -> float:
    """`x` as a float; raises TypeError unless it is a real number, which a string is not."""
    if x.__class__ is float or is_number(x):
        try:
            return float(x)
        except OverflowError:  # an int beyond the range of floats
            return math.inf if x > 0 else -math.inf
    if hasattr(x, "_apply"):
        raise TypeError(f"must be a plain number (got {x!r}, which can be used as it is)")
    raise TypeError(f"must be a real number (got {x!r}, a {type(x).__name__})")


def as_floats(x: Any, mask: bool) -> Any:
    """A number or array as a forward rule takes it: floats, or with `mask` booleans too."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("must be an array without a mask; fill or drop what is masked")
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"must hold real numbers (got an array of {array.dtype})")
    if min(array.strides, default=0) < 0:  # which NumPy computes another way, to other bits
        array = array.copy()
    return array if mask and array.dtype == bool else array.astype(np.float64, copy=False)


def evaluate(rule: Rule, *numbers: float) -> float:
    """`rule(*numbers)` by IEEE 754: 1/0 is inf, and 0/0 is nan, where Python would raise."""
    try:
        return float(rule(*numbers))
    except ArithmeticError:
        with np.errstate(all="ignore"):
            return float(rule(*map(np.float64, numbers)))


def bulk_of(operands: Iterable[Any]) -> Any:
    """What records ops on these by the array, if one of them is an array of nodes; or None."""
    for x in operands:
        if isinstance(x, np.ndarray):
            x = x.flat[0] if x.dtype == object and x.size else None
        bulk = getattr(x, "_bulk", None)
        if bulk is not None:
            return bulk
    return None


def each(op: Any, operands: tuple[Any, ...]) -> Any:
    """An op of arrays with objects among them, number by number: an array of the same kind."""
    bulk = bulk_of(operands)
    found = NotImplemented if bulk is None else bulk.each(op, operands)
    if found is NotImplemented:
        return np.frompyfunc(op, op.arity, 1)(*operands)
    kinds = (type(x) for x in operands if isinstance(x, np.ndarray) and type(x) is not np.ndarray)
    return found.view(next(kinds, np.ndarray))


def quietly(function: Callable[P, Any]) -> Callable[P, Any]:
    """A function of NumPy's as a forward rule: no warnings, and a float for a float.

    It must give one number the same bits as a whole array, whatever path NumPy takes inside.
    """

    @wraps(function)
    def forward(*xs: Any) -> Any:
        with np.errstate(all="ignore"):
            out = function(*xs)  # type: ignore[call-arg]
        return out if out.ndim else float(out)

    return forward  # type: ignore[return-value]


def by_numpy(ufunc: np.ufunc) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Let `ufunc` compute a function, which has the operands' names and the docstring."""

    def computed(function: Callable[P, Any]) -> Callable[P, Any]:
        forward: Any = wraps(function)(quietly(ufunc))
        forward.ufunc = ufunc
        return forward  # type: ignore[no-any-return]

    return computed


def select(c: Any, x: Any, y: Any) -> Any:
    """x where c, else y, of numbers or arrays."""
    if isinstance(c, np.ndarray) or isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.where(c, x, y)
    return x if c else y


def operand_names(function: Rule) -> str:
    """The operands of a function, as its help shows them; `signature` would take 3 ms for all."""
    plain: Any = unwrap(function)
    if not hasattr(plain, "__code__"):
        return ", ".join(signature(plain).parameters)
    names, defaults = plain.__code__.co_varnames[: plain.__code__.co_argcount], plain.__defaults__
    pairs = zip_longest(names[::-1], defaults[::-1] if defaults else ())
    return ", ".join([name if x is None else f"{name}={x!r}" for name, x in pairs][::-1])
