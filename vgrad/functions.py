"""Functions of several ops: they work on floats, `Value`s and traced nodes alike, as the ops do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from . import ops
from .errors import ShapeError
from .numbers import bulk_of

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
def sum(xs: Iterable[Plain]) -> float: ...
@overload
def sum(xs: Iterable[N | Plain]) -> N: ...
@overload
def sum(xs: Iterable[Single] | Array) -> Any: ...
def sum(xs: Iterable[Any]) -> Any:
    """The sum of a sequence of numbers, from the first to the last; 0.0 of none.

    In a function that is recorded it records what a loop does, in a fraction of the time.
    Raises ShapeError for more than one axis.

    >>> import vgrad
    >>> vgrad.sum([1.0, vgrad.Value(2.0), 4.0])
    Value(data=7.0, grad=0.0)
    """
    numbers = _as_list("sum", xs)
    bulk = bulk_of(numbers[:1])
    found = NotImplemented if bulk is None else bulk.sum(numbers)
    if found is NotImplemented:
        with np.errstate(all="ignore"):  # where NumPy's numbers are among them
            found = reduce(add, _single("sum", numbers)) if numbers else 0.0
    return found


def dot(xs: Iterable[Any], ys: Iterable[Any], start: Any = 0.0) -> Any:
    """`start` plus the products of two sequences of numbers, from the first pair to the last.

    It is `for x, y in zip(xs, ys): start = start + x * y`; in a function that is recorded it
    records the same, in a fraction of the time. One of the two may be a matrix, as for `np.dot`:
    with rows of numbers as `xs` the result is a list, with the sum for each row; with rows as `ys`
    it has the sum for each column. Then `start` is one number, or one for each sum.

    >>> import vgrad
    >>> w = vgrad.Value(2.0)
    >>> vgrad.dot([1.0, w], [3.0, 4.0]), vgrad.dot([[1.0, 2.0], [3.0, 4.0]], [1.0, -1.0])
    (Value(data=11.0, grad=0.0), [-1.0, -1.0])
    >>> vgrad.dot([1.0, -1.0], [[1.0, 2.0], [3.0, 4.0]])
    [-2.0, -2.0]

    Raises ShapeError unless lengths fit, and all but the rows are single numbers.
    """
    (left, has_rows), (right, has_columns) = _rows("dot", xs), _rows("dot", ys)
    if has_columns:
        right = [*map(list, zip(*right))] if len({*map(len, right)}) == 1 else right
    many = len(left) if has_rows else len(right)
    starts = _as_list("dot", start) if _is_sequence(start) else [start] * many
    lengths = sorted({len(row) for row in (*left, *right)})
    if (has_rows and has_columns) or len(lengths) > 1 or len(starts) != many:
        got = " and ".join(
            f"{len(rows)} {word} of {' or '.join(map(str, sorted({*map(len, rows)})))}"
            if is_matrix
            else f"{len(rows[0])} numbers"
            for rows, is_matrix, word in ((left, has_rows, "rows"), (right, has_columns, "columns"))
        )
        got += f", {len(starts)} starts for {many} sums" * (len(starts) != many)
        raise ShapeError(
            "dot needs two sequences of one length, or one of them and a matrix, and one start, or "
            f"one for each sum (got {got}); for two matrices use @"
        )
    bulk = bulk_of([x for row in (*left[:1], *right[:1]) for x in row[:1]])
    found = NotImplemented if bulk is None else bulk.dot(left, right, starts)
    if found is NotImplemented:
        pairs = zip(left if has_rows else left * many, right * many if has_rows else right)
        found = [_dot(_single("dot", x), _single("dot", y), s) for (x, y), s in zip(pairs, starts)]
    return found if has_rows or has_columns else found[0]


@np.errstate(all="ignore")
def _dot(xs: list[Any], ys: list[Any], total: Any) -> Any:
    for x, y in zip(xs, ys):
        total = total + x * y
    return total


@overload
def softmax(xs: Array) -> Array: ...
@overload
def softmax(xs: Iterable[Plain]) -> list[float]: ...
@overload
def softmax(xs: Iterable[N]) -> list[N]: ...
@overload
def softmax(xs: Iterable[Single]) -> list[Operand]: ...
@np.errstate(all="ignore")
def softmax(xs: Iterable[Any]) -> Any:
    """exp(x) / sum of exp(x) for each x of a sequence: a list, or an array (n,) for an array.

    The highest x is subtracted first, so that nothing overflows. That changes no result, so no
    gradient goes through it. Raises ShapeError for an empty sequence, or more than one axis.

    >>> import vgrad
    >>> vgrad.softmax([0.0, 1000.0])
    [0.0, 1.0]
    """
    numbers = as_sequence("softmax", xs)
    exps = ops.exp(numbers - ops.stop_gradient(in_pairs(ops.maximum, numbers)))
    result = (exps / np.add.reduce(exps)).tolist()
    return np.array(result).view(type(xs)) if isinstance(xs, np.ndarray) else result


@overload
def logsumexp(xs: Array) -> Any: ...
@overload
def logsumexp(xs: Iterable[Plain]) -> float: ...
@overload
def logsumexp(xs: Iterable[N]) -> N: ...
@overload
def logsumexp(xs: Iterable[Single]) -> Operand: ...
@np.errstate(all="ignore")
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
    return ops.log(np.add.reduce(ops.exp(numbers - highest))) + highest


@overload
def take(rows: Sequence[T], index: Plain) -> T: ...
@overload
def take(rows: Sequence[Any] | Array, index: Single) -> Any: ...
@np.errstate(all="ignore")
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
    table = _table(rows)
    hits = ops.eq(index, np.arange(len(rows), dtype=np.float64))
    missed = ops.where(np.add.reduce(hits), 0.0, math.nan)
    # column by column, and each from its first row to the last
    picked = np.add.reduce(ops.where(hits, table, 0.0), axis=-1) + missed
    if isinstance(rows[0], np.ndarray) or not isinstance(rows[0], Sequence):
        return picked
    return picked.tolist()


def _table(rows: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Rows of numbers as an object array, whose last axis goes through the rows."""
    lengths = {len(row) if isinstance(row, Sequence | np.ndarray) else None for row in rows}
    if len(lengths) == 1:
        with suppress(ValueError):  # of rows of arrays that differ
            table = np.array([*rows], dtype=object)
            if not any(isinstance(x, Sequence | np.ndarray) for x in table.flat):
                return np.ascontiguousarray(np.moveaxis(table, 0, -1))
    raise ShapeError(f"take needs rows of one length (got {', '.join(map(str, lengths))})")


def as_sequence(name: str, xs: Iterable[Any]) -> np.ndarray[Any, Any]:
    """`xs` as an object array of single numbers; raises ShapeError if there are none."""
    numbers = _single(name, _as_list(name, xs))
    if not numbers:
        raise ShapeError(f"{name} takes a sequence of one number or more (got {xs!r})")
    plain = (ops.number(x) if ops.is_number(x) else x for x in numbers)
    return np.fromiter(plain, object, len(numbers))


def _rows(name: str, xs: Iterable[Any]) -> tuple[list[list[Any]], bool]:
    """A sequence as the one row of a matrix, or a matrix as its rows; and which it is."""
    items = _as_list(name, xs)
    is_matrix = bool(items) and _is_sequence(items[0])
    return [_as_list(name, row) for row in items] if is_matrix else [items], is_matrix


def _as_list(name: str, xs: Iterable[Any]) -> list[Any]:
    if not isinstance(xs, Iterable):
        raise ShapeError(f"{name} takes a sequence of one number or more (got {xs!r})")
    return [*xs]


def _single(name: str, xs: list[Any]) -> list[Any]:
    """The same; raises ShapeError unless they are single numbers."""
    for kind in {*map(type, xs)}:
        if issubclass(kind, Sequence | np.ndarray) and any(map(_is_sequence, xs)):
            raise ShapeError(
                f"{name} takes a sequence of one number or more, but no sequences within it "
                f"(got {xs!r:.100})"
            )
    return xs


def _is_sequence(x: Any) -> bool:
    return bool(np.ndim(x)) if isinstance(x, np.ndarray) else isinstance(x, Sequence)


def in_pairs(op: ops.Op, xs: np.ndarray[Any, Any]) -> Any:
    """`op` between all of them, in pairs, so that n numbers take log2(n) levels."""
    while len(xs) > 1:
        even = len(xs) & ~1
        xs = np.concatenate([op(xs[:even:2], xs[1:even:2]), xs[even:]])
    return xs[0]
