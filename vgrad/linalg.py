"""Linear algebra on small matrices of floats, `Value`s or traced nodes, as in `numpy.linalg`.

Textbook elimination over the ops of the table, so that derivatives of any order come by themselves.
The same code serves all kinds of numbers and gives them the same bits. Matrices are arrays, or
nested lists or tuples, and are never changed. Plain numbers give floats and arrays of floats; if
one number is an operand, results are operands and object arrays of them. What cannot be solved
gives inf or nan by IEEE 754, where NumPy raises LinAlgError: the samples of a batch differ, and a
recording knows none of them.

>>> import vgrad
>>> x = vgrad.Value(3.0)
>>> vgrad.linalg.det([[x, 1], [2, 4]]).backward()
>>> x.grad
4.0
"""

from __future__ import annotations

import math
from functools import reduce
from operator import add, mul
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ops
from .arrays import as_operands
from .engine import Value
from .errors import ShapeError
from .operand import Operand

if TYPE_CHECKING:
    from .signatures import Array, Matrix, Vector

__all__ = ["SlogdetResult", "cholesky", "det", "inv", "slogdet", "solve", "solve_triangular"]

Rows = list[list[Any]]
Objects = NDArray[np.object_]


class SlogdetResult(NamedTuple):
    """What `slogdet` returns, under NumPy's names.

    >>> import vgrad
    >>> vgrad.linalg.slogdet([[1, 0], [0, 1]]).logabsdet
    0.0
    """

    sign: Any  # 1.0, -1.0, or 0.0 of a singular matrix
    logabsdet: Any  # the natural logarithm of |det|


def solve(a: Matrix, b: Matrix | Vector) -> Array:
    """The x for which a @ x = b: a is (n, n), and b and x are (n,) or (n, m).

    Gaussian elimination with partial pivoting (Golub and Van Loan 2013, section 3.4), in which each
    sample of a batch takes its own pivots. Where `a` is singular, some or all of x is inf or nan.
    Raises ShapeError unless the shapes fit.

    >>> import vgrad
    >>> vgrad.linalg.solve([[0, 2], [4, 0]], [2, 8])
    array([2., 1.])
    """
    left, right = _system("solve", a, b)
    rows = [[*x, *y] for x, y in zip(left.tolist(), _columns(right))]
    upper = []
    for place in range(len(rows)):
        rows, _ = _pivoted(rows)
        upper.append([*[0.0] * place, *rows[0]])
        rows = _eliminated(rows, rows[0][0])
    n = len(upper)
    x = _substituted(upper, [row[n:] for row in upper], range(n)[::-1])
    return _array(x, right.shape, left, right)


def inv(a: Matrix) -> Array:
    """The inverse of a matrix (n, n); if you only multiply by it, `solve` is cheaper and
    more accurate.

    Where `a` is singular, some or all of it is inf or nan. Raises ShapeError unless it is square.

    >>> import vgrad
    >>> vgrad.linalg.inv([[0, 2], [4, 0]])
    array([[0.  , 0.25],
           [0.5 , 0.  ]])
    """
    matrix = _square("inv", a)
    return solve(matrix, np.eye(len(matrix)))


def det(a: Matrix) -> Any:
    """The determinant of a matrix (n, n), by elimination down to two rows and w z - x y of these.

    Its gradient is right at singular matrices too. So are higher derivatives, unless elimination
    meets a pivot of exactly 0, which takes n > 2 and a rank of n - 2 at most. The product may
    overflow, to inf or nan, where `slogdet` does not. Raises ShapeError unless `a` is square.

    >>> import vgrad
    >>> vgrad.linalg.det([[1, 2], [2, 4]]), vgrad.linalg.det([[0, 1, 0], [1, 0, 0], [0, 0, 5]])
    (0.0, -5.0)
    """
    matrix = _square("det", a)
    rows, pivots, swaps = matrix.tolist(), [], []
    while len(rows) > 2:  # cofactors of three rows would cancel where elimination does not
        rows, moved = _with_first_column(rows)
        rows, exchanged = _pivoted(rows)
        swaps += [moved, *exchanged]
        pivots.append(rows[0][0])
        rows = _eliminated(rows, _divisor(rows[0][0]))
    if len(rows) < 2:
        return _number(rows[0][0] if rows else 1.0, matrix)
    (w, x), (y, z) = rows
    if pivots:
        size = reduce(mul, pivots)
        factor = ops.where(reduce(ops.ne, swaps), -size, size)  # an odd number of them
        w, x = factor * w, factor * x
    return _number(w * z - x * y, matrix)


def slogdet(a: Matrix) -> SlogdetResult:
    """The sign of the determinant of a matrix (n, n), and the logarithm of its absolute value.

    For a singular matrix they are 0.0 and -inf, and gradients are inf or nan. Raises ShapeError
    unless `a` is square.

    >>> import vgrad
    >>> vgrad.linalg.slogdet([[0, 1e200], [1e200, 0]])
    SlogdetResult(sign=-1.0, logabsdet=921.0340371976183)
    """
    matrix = _square("slogdet", a)
    rows, negative, logs = matrix.tolist(), [0.0], [0.0]
    while rows:
        rows, exchanged = _pivoted(rows)
        pivot = rows[0][0]
        negative += [*exchanged, ops.lt(pivot, 0.0)]
        logs.append(ops.log(ops.abs(pivot)))
        rows = _eliminated(rows, _divisor(pivot))
    logabsdet = reduce(add, logs)
    sign = ops.where(reduce(ops.ne, negative), -1.0, 1.0)  # an odd number of them
    sign = ops.where(ops.eq(logabsdet, -math.inf), 0.0, sign)
    return SlogdetResult(_number(sign, matrix), _number(logabsdet, matrix))


def cholesky(a: Matrix) -> Array:
    """The lower triangular l, (n, n), for which l @ l.T is the positive definite matrix `a`.

    Column by column (Golub and Van Loan 2013, section 4.2). Only the lower triangle of `a` is read,
    and only that gets gradients. Where `a` is not positive definite, nan or inf appear in l. Raises
    ShapeError unless `a` is square.

    >>> import vgrad
    >>> vgrad.linalg.cholesky([[4.0, 2.0], [2.0, 10.0]])
    array([[2., 0.],
           [1., 3.]])
    """
    matrix = _square("cholesky", a)
    n = len(matrix)
    lower = [[0.0] * n for _ in range(n)]
    for j in range(n):
        for i in range(j, n):
            rest = _less_products(matrix[i, j], lower[i][:j], lower[j][:j])
            lower[i][j] = ops.sqrt(rest) if i == j else ops.div(rest, lower[j][j])
    return _array(lower, matrix.shape, matrix)


def solve_triangular(
    a: Matrix,
    b: Matrix | Vector,
    trans: Literal[0, 1, 2, "N", "T", "C"] = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
) -> Array:
    """The x for which a @ x = b, by substitution: a is (n, n), and b and x are (n,) or (n, m).

    Only the upper triangle of `a` is read, or the lower; with `unit_diagonal` the diagonal is taken
    to be ones. `trans` 1 or "T", and 2 or "C", solves a.T @ x = b. These are the arguments of
    SciPy. Where the diagonal has a 0, x has inf or nan. Raises ShapeError unless the shapes fit,
    ValueError for another `trans`.

    >>> import vgrad
    >>> vgrad.linalg.solve_triangular([[2.0, 0.0], [1.0, 4.0]], [2.0, 9.0], lower=True)
    array([1., 2.])
    """
    if trans not in _PLAIN and trans not in _TRANSPOSED:
        raise ValueError(f'trans must be 0, 1, 2, "N", "T" or "C" (got {trans!r})')
    left, right = _system("solve_triangular", a, b)
    transposed = trans in _TRANSPOSED
    forward = bool(lower) != transposed
    rows = (left.T if transposed else left).tolist()
    order = range(len(rows)) if forward else range(len(rows))[::-1]
    x = _substituted(rows, _columns(right), order, unit_diagonal)
    return _array(x, right.shape, left, right)


_PLAIN, _TRANSPOSED = (0, "N"), (1, 2, "T", "C")  # the conjugate of a real number is itself


# --- the steps of elimination --------------------------------------------------------------------


def _pivoted(rows: Rows) -> tuple[Rows, list[Any]]:
    """The rows, exchanged until the first begins with the largest number; and which pairs were.

    They meet in pairs, and the winners meet, so that n rows take log2(n) levels of a graph.
    """
    rows, swaps, step = list(rows), [], 1
    while step < len(rows):
        for high in range(0, len(rows) - step, 2 * step):
            low = high + step
            swap = ops.gt(ops.abs(rows[low][0]), ops.abs(rows[high][0]))
            rows[high], rows[low] = _exchanged(swap, rows[high], rows[low])
            swaps.append(swap)
        step *= 2
    return rows, swaps


def _with_first_column(rows: Rows) -> tuple[Rows, Any]:
    """The rows, the first column exchanged with the last where it is 0; and whether it was.

    The determinant is 0 then, but if the other columns are independent it has a gradient, which
    division by this column would lose. Any of them has a pivot, and the last is not divided by.
    """
    first, *middle, last = zip(*rows)
    empty = ops.eq(reduce(add, map(ops.abs, first)), 0.0)
    columns = _exchanged(empty, list(first), list(last))
    return [list(row) for row in zip(columns[0], *middle, columns[1])], empty


def _exchanged(swap: Any, x: list[Any], y: list[Any]) -> tuple[list[Any], list[Any]]:
    """`x` and `y`, or `y` and `x` where `swap` is 1: no gradient is in the choice."""
    if not isinstance(swap, Operand):
        return (y, x) if swap else (x, y)
    pairs = list(zip(x, y))
    return [ops.where(swap, q, p) for p, q in pairs], [ops.where(swap, p, q) for p, q in pairs]


def _eliminated(rows: Rows, divisor: Any) -> Rows:
    """The rows below the first, less the multiple of it that leaves no first column."""
    (_, *first), *others = rows
    factors = [ops.div(row[0], divisor) for row in others]
    return [[x - f * y for x, y in zip(row[1:], first)] for f, row in zip(factors, others)]


def _divisor(pivot: Any) -> Any:
    """The pivot, or 1 for one of 0, below which all is 0 already."""
    return ops.where(ops.eq(pivot, 0.0), 1.0, pivot)


def _substituted(rows: Rows, right: Rows, order: range, unit_diagonal: bool = False) -> Rows:
    """The solution, row by row in this order, each from those before it."""
    x: Rows = [[]] * len(rows)
    for place, i in enumerate(order):
        known = order[:place]
        row = [rows[i][j] for j in known]
        for k, b in enumerate(right[i]):
            rest = _less_products(b, row, [x[j][k] for j in known])
            x[i] = [*x[i], rest if unit_diagonal else ops.div(rest, rows[i][i])]
    return x


def _less_products(start: Any, xs: Any, ys: Any) -> Any:
    """`start` less the products of `xs` and `ys`, one after the other."""
    for x, y in zip(xs, ys):
        start = start - x * y
    return start


# --- arguments and results -----------------------------------------------------------------------


def _square(name: str, a: Any) -> Objects:
    """`a` as an array of numbers (n, n)."""
    matrix = _numbers(name, a)
    _check(name, "a square matrix (n, n)", _is_square(matrix), a=matrix)
    return matrix


def _system(name: str, a: Any, b: Any) -> tuple[Objects, Objects]:
    """`a` and `b` as arrays of numbers, (n, n) and (n,) or (n, m)."""
    left, right = _numbers(name, a), _numbers(name, b)
    fits = _is_square(left) and right.ndim in (1, 2) and len(right) == len(left)
    needs = "a square matrix (n, n), and b of n rows, (n,) or (n, m)"
    _check(name, needs, fits, a=left, b=right)
    return left, right


def _is_square(array: Objects) -> bool:
    return array.ndim == 2 and array.shape[0] == array.shape[1]


def _check(name: str, needs: str, fits: bool, **arrays: Objects) -> None:
    if not fits:
        got = ", ".join(f"{argument} {array.shape}" for argument, array in arrays.items())
        stacked = any(array.ndim > 2 for array in arrays.values())
        hint = "; for a stack of matrices, vgrad.compile a function of one" if stacked else ""
        raise ShapeError(f"{name} needs {needs} (got {got}){hint}")


def _numbers(name: str, x: Any) -> Objects:
    """A new array of floats and operands."""
    try:
        array = np.array(x, dtype=object)
        ragged = any(isinstance(item, list | tuple | np.ndarray) for item in array.flat)
    except ValueError:  # some rows are arrays, and not of one shape
        ragged = True
    if ragged:
        raise ShapeError(f"{name} needs arrays, or lists with rows of one length (got {x!r})")
    for index in np.ndindex(array.shape):
        if not isinstance(array[index], Operand):
            array[index] = ops.number(array[index])
    return array


def _columns(b: Objects) -> Rows:
    """The rows of `b`; a vector is one column."""
    return [[x] for x in b.tolist()] if b.ndim == 1 else b.tolist()


def _array(rows: Rows, shape: tuple[int, ...], *arguments: Objects) -> NDArray[Any]:
    """The numbers as an array: of floats, or of operands if the arguments have one."""
    numbers = [_number(x, *arguments) for row in rows for x in row]
    dtype = object if _has_operands(*arguments) else np.float64
    result: NDArray[Any] = as_operands(np.array(numbers, dtype=dtype).reshape(shape))
    return result


def _number(x: Any, *arguments: Objects) -> Any:
    """A result: plain if all of the arguments are, else an operand, a constant at least."""
    if isinstance(x, Operand) or not _has_operands(*arguments):
        return x
    constant = Value(x, trainable=False)
    constant.op = ops.const
    return constant


def _has_operands(*arrays: Objects) -> bool:
    return any(isinstance(x, Operand) for array in arrays for x in array.flat)


def __dir__() -> list[str]:
    return __all__
