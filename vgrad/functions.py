"""Functions of several ops: they work on floats, `Value`s and traced nodes alike, as the ops do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from . import ops
from .errors import ShapeError

if TYPE_CHECKING:
    from .operand import Operand
    from .signatures import Array, N, Numbers, Plain, Single, X

T = TypeVar("T")


@overload
def clip(x: Plain, low: Plain | None, high: Plain | None) -> float: ...
@overload
def clip(x: N | Plain, low: N | Plain | None, high: N | Plain | None) -> N: ...
@overload
def clip(x: Numbers, low: Numbers | None, high: Numbers | None) -> Array: ...
def clip(x: Any, low: Any, high: Any) -> Any:
    """`x` limited to the range from `low` to `high`, number by number; None is no limit.

    The gradient is that of `minimum(maximum(x, low), high)`: halved where `x` equals a bound.

    >>> import numpy as np
    >>> import vgrad
    >>> vgrad.clip(3.0, -1, 1), vgrad.clip(np.array([-2.0, 0.5]), -1, 1)
    (1.0, array([-1. ,  0.5]))
    """
    above = x if low is None else ops.maximum(x, low)
    return above if high is None else ops.minimum(above, high)


def logical_and(x: X, y: X) -> X:
    """1.0 where both are true, else 0.0, as & gives of conditions; all numbers but 0 are true.

    >>> import vgrad
    >>> vgrad.logical_and(1.0, 0.0)
    0.0
    """
    return ops.mul(ops.ne(x, 0.0), ops.ne(y, 0.0))


def logical_or(x: X, y: X) -> X:
    """1.0 where one or both are true, else 0.0, as | gives of conditions.

    >>> import vgrad
    >>> vgrad.logical_or(1.0, 0.0)
    1.0
    """
    return ops.maximum(ops.ne(x, 0.0), ops.ne(y, 0.0))


def logical_not(x: X) -> X:
    """0.0 where x is true, else 1.0, as ~ gives of a condition.

    >>> import vgrad
    >>> vgrad.logical_not(1.0)
    0.0
    """
    return ops.eq(x, 0.0)


def square(x: X) -> X:
    """x * x; its derivative is 2 * x.

    >>> import numpy as np
    >>> import vgrad
    >>> vgrad.square(-3.0), vgrad.square(np.array([1.0, 2.0]))
    (9.0, array([1., 4.]))
    """
    return ops.mul(x, x)


def reciprocal(x: X) -> X:
    """1 / x, inf at 0; its derivative is -1 / x**2.

    >>> import vgrad
    >>> vgrad.reciprocal(4), vgrad.reciprocal(0)
    (0.25, inf)
    """
    return ops.div(1.0, x)


@overload
def divmod(x: Plain, y: Plain) -> tuple[float, float]: ...
@overload
def divmod(x: N | Plain, y: N | Plain) -> tuple[N, N]: ...
@overload
def divmod(x: Numbers, y: Numbers) -> tuple[Array, Array]: ...
def divmod(x: Any, y: Any) -> tuple[Any, Any]:
    """x // y and x % y: the quotient, rounded down, and the remainder.

    Their derivatives are those of `floor_divide` and `remainder`.

    >>> import vgrad
    >>> vgrad.divmod(7, 2), vgrad.divmod(-7, 2)
    ((3.0, 1.0), (-4.0, 1.0))
    """
    return ops.floor_divide(x, y), ops.remainder(x, y)


@overload
def softmax(xs: Array) -> Array: ...
@overload
def softmax(xs: Iterable[Plain]) -> list[float]: ...
@overload
def softmax(xs: Iterable[N]) -> list[N]: ...
@overload
def softmax(xs: Iterable[Single]) -> list[Operand]: ...
def softmax(xs: Iterable[Any]) -> Any:
    """exp(x) / sum of exp(x) for each x of a sequence: a list, or an array (n,) for an array.

    The highest x is subtracted first, so that nothing overflows. That changes no result, so no
    gradient goes through it. Raises ShapeError for an empty sequence, or more than one axis.

    >>> import vgrad
    >>> vgrad.softmax([0.0, 1000.0])
    [0.0, 1.0]
    """
    numbers = as_sequence("softmax", xs)
    highest = ops.stop_gradient(in_pairs(ops.maximum, numbers))
    exps = [ops.exp(x - highest) for x in numbers]
    total = reduce(add, exps)
    result = [x / total for x in exps]
    return np.array(result).view(type(xs)) if isinstance(xs, np.ndarray) else result


@overload
def logsumexp(xs: Array) -> Any: ...
@overload
def logsumexp(xs: Iterable[Plain]) -> float: ...
@overload
def logsumexp(xs: Iterable[N]) -> N: ...
@overload
def logsumexp(xs: Iterable[Single]) -> Operand: ...
def logsumexp(xs: Iterable[Any]) -> Any:
    """The logarithm of the sum of exp(x) over a sequence, without overflow.

    Raises ShapeError for an empty sequence, or more than one axis.

    >>> import vgrad
    >>> vgrad.logsumexp([1000.0, 1000.0])
    1000.6931471805599
    """
    numbers = as_sequence("logsumexp", xs)
    highest = ops.stop_gradient(in_pairs(ops.maximum, numbers))
    # inf - inf would be nan
    highest = ops.where(ops.abs(highest) < math.inf, highest, 0.0)
    return ops.log(reduce(add, [ops.exp(x - highest) for x in numbers])) + highest


@overload
def take(rows: Sequence[T], index: Plain) -> T: ...
@overload
def take(rows: Sequence[Any] | Array, index: Single) -> Any: ...
def take(rows: Any, index: Any) -> Any:
    """The row of a table, or the number of a list, at `index`: an integer, 0 to len(rows) - 1.

    If the index is a `Value` or traced node, every row takes part, and the result is nan if there
    is no such row; if it is a plain number, that raises IndexError. Rows are numbers, or lists or
    arrays of one length; raises ShapeError if their lengths differ.

    >>> import vgrad
    >>> vgrad.take([[1.0, 2.0], [3.0, 4.0]], 1)
    [3.0, 4.0]
    """
    if not len(rows):
        raise ShapeError("take needs one row or more (got none)")
    if not hasattr(index, "_apply"):
        k = ops.number(index)
        if not (k.is_integer() and 0 <= k < len(rows)):
            raise IndexError(f"index must be an integer from 0 to {len(rows) - 1} (got {index!r})")
        return rows[int(k)]
    hits = [index == k for k in range(len(rows))]
    missed = ops.where(reduce(add, hits), 0.0, math.nan)
    return _picked(hits, rows, missed)


def _picked(hits: list[Any], rows: Sequence[Any], missed: Any) -> Any:
    lengths = {len(row) if isinstance(row, Sequence | np.ndarray) else None for row in rows}
    if lengths == {None}:
        return reduce(add, [ops.where(hit, x, 0.0) for hit, x in zip(hits, rows)]) + missed
    if len(lengths) != 1:
        raise ShapeError(f"take needs rows of one length (got {', '.join(map(str, lengths))})")
    picked = [_picked(hits, column, missed) for column in zip(*rows)]
    return np.array(picked) if isinstance(rows[0], np.ndarray) else picked


def as_sequence(name: str, xs: Iterable[Any]) -> list[Any]:
    """`xs` as a list of single numbers; raises ShapeError if it is empty or no sequence."""
    items = xs if isinstance(xs, Iterable) else []
    numbers = [ops.number(x) if ops.is_number(x) else x for x in items]
    if not numbers or any(isinstance(x, Sequence | np.ndarray) and np.ndim(x) for x in numbers):
        raise ShapeError(f"{name} takes a sequence of one number or more (got {xs!r})")
    return numbers


def in_pairs(op: ops.Op, xs: list[Any]) -> Any:
    """`op` between all of them, in pairs, so that n numbers take log2(n) levels."""
    while len(xs) > 1:
        pairs = [op(x, y) for x, y in zip(xs[::2], xs[1::2])]
        xs = pairs + xs[len(xs) & ~1 :]
    return xs[0]
