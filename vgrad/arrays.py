"""NumPy's functions on operands, and on arrays of them, by the protocols it has for such kinds.

`np.log1p(v)` and `np.where(A > 0, A, B)` become ops of the table. NumPy's other functions go
through an array number by number, and so come back to Python's operators and to these ops. What
then still needs floats is an error that says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from . import functions, ops
from .errors import FloatsOnlyError
from .numbers import bulk_of

Operation = Any  # an op, or a function of several: number by number

# NumPy's ufuncs; and the names of those that it keeps to itself, or that are several ops.
_OWN: dict[Any, Operation] = {op.ufunc: op for op in ops.OPS if op.ufunc is not None}
_SEVERAL = ("clip", "divmod", "square", "reciprocal", "logical_and", "logical_or", "logical_not")
_OWN |= {name: getattr(functions, name) for name in _SEVERAL}
_BY_OPERATORS = {op.operator for op in ops.OPS}  # of objects NumPy computes these by the operators

# How NumPy and SciPy say that they want floats, perhaps with the name of the function; and what to
# write where they do.
_WANTS_FLOATS = re.compile(
    r"ufunc '(\w+?)[01]?'|callable (\w+) method|dtype\('O'\)|object arrays are not supported"
    r"|array type object is unsupported"
)
_IN_VGRAD = {op.name: f"vgrad.{op.name}(...)" for op in ops.OPS if op.symbol.isidentifier()}
_IN_VGRAD |= {"expit": "vgrad.sigmoid(x)", "gammaln": "vgrad.lgamma(x)", "psi": "vgrad.digamma(x)"}
_IN_VGRAD |= {"_zeta": "vgrad.polygamma(n, x)", "fabs": "vgrad.abs(x)", "isnan": "x != x"}
_IN_VGRAD |= {
    name: f"vgrad.linalg.{name}(...)"
    for name in ("solve", "inv", "det", "slogdet", "cholesky", "solve_triangular")
}
_OP_OF_ONES_OWN = "functions of vgrad, or make an op of it, by vgrad.op"
_LINEAR_ALGEBRA = (
    "vgrad.linalg, which has solve, inv, det, slogdet, cholesky and solve_triangular, or make an "
    "op of it, by vgrad.op"
)
_SOLVERS = "functions of vgrad, in a loop of the steps if it is a solver such as odeint"


class OperandArray(np.ndarray):
    """An array of operands, as the functions that are traced get it: shape (n,), (n, m), ...

    Comparisons give an array of conditions, 1.0 or 0.0, in place of booleans.

    >>> import vgrad
    >>> f = vgrad.compile(lambda x, y: np.where(x > 0, np.maximum(x, y), 0.0))
    >>> f([], [[1.0, -2.0]], [[3.0, 4.0]])
    array([[3., 0.]])
    """

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return apply_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return apply_function(function, args, options)

    def dot(self, other: Any, out: Any = None) -> Any:
        """`np.dot(self, other)`, which the method of `np.ndarray` does not ask."""
        return np.dot(self, other, out=out)


def array(x: Any) -> OperandArray:
    """An array of numbers, `Value`s or traced values, on which NumPy's functions work as on floats.

    So they do on the arrays that a traced function is given. On one that `np.array` made of
    `Value`s, NumPy compares number by number: a tie, as of `np.maximum`, then goes to one of the
    two, and traced values cannot be compared.

    >>> import vgrad
    >>> f = vgrad.compile(lambda x: np.maximum(vgrad.array([x, 2 * x - 1]), 0.0), parameters=[])
    >>> f([], [0.25, 3.0])
    array([[0.25, 0.  ],
           [3.  , 5.  ]])
    """
    return np.array(x, dtype=object).view(OperandArray)


def as_operands(x: Any) -> Any:
    """An object array as an array of operands, and its one number if it has no dimensions."""
    if not isinstance(x, np.ndarray) or x.dtype != object:
        return x
    return x.view(OperandArray) if x.shape else x[()]


def array_of(items: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Operands, one after the other, as an object array of a shape."""
    # not array[:] = items, which asks each of them whether it is an array
    return np.fromiter(items, object, len(items)).reshape(shape)


def apply_ufunc(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """What `ufunc`, or its `method` such as "reduce", gives where an input is an operand."""
    own = _own(ufunc)
    if own is not None and not options and method == "__call__" and not _has_array(inputs):
        return own(*inputs)
    found = _in_bulk(ufunc, method, inputs, options)
    if found is not NotImplemented:
        return as_operands(found)
    name = ufunc.__name__
    is_empty = method != "__call__" and not np.size(inputs[0])  # of which ufuncs know the result
    if own is not None and ufunc not in _BY_OPERATORS and not is_empty:
        ufunc = _elementwise(own, ufunc.nin, ufunc.nout)
    out, plain = options.get("out"), [_plain(x) for x in inputs]
    if options:
        options = {name: _plain(x) for name, x in options.items()}
    try:
        with np.errstate(all="ignore"):
            result = getattr(ufunc, method)(*plain, **options)
    except TypeError as error:
        _explain(error, name, "ufunc")
        raise
    if out is not None:
        return out if len(out) > 1 else out[0]
    return tuple(map(as_operands, result)) if type(result) is tuple else as_operands(result)


def _in_bulk(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The same, recorded by the array, where that can be done; or NotImplemented."""
    bulk = bulk_of(inputs)
    if bulk is None:
        return NotImplemented
    if ufunc is np.matmul and method == "__call__" and not options:
        return _products(bulk, *inputs)
    op = _own(ufunc)
    if not isinstance(op, ops.Op):
        return NotImplemented
    if method == "__call__":
        lists = any(isinstance(x, list | tuple) for x in inputs)
        return NotImplemented if options or lists else bulk.each(op, inputs)
    given = {name: x for name, x in options.items() if x is not None and x is not np._NoValue}
    is_usual = given.keys() <= {"axis", "keepdims", "where"} and given.get("where", True) is True
    if method not in ("reduce", "accumulate") or op.arity != 2 or not is_usual:
        return NotImplemented
    return _chained(bulk, op, inputs[0], method == "reduce", **options)


def _chained(
    bulk: Any,
    op: ops.Op,
    x: Any,
    is_reduced: bool,
    axis: Any = 0,
    keepdims: bool = False,
    **_: Any,
) -> Any:
    """An op from one number to the next along an axis: the last result, or all of them."""
    if not isinstance(x, np.ndarray):
        return NotImplemented
    if axis is None and is_reduced and x.flags.c_contiguous and not keepdims:
        x, axis = x.reshape(-1), 0  # in another order in memory, NumPy adds in another order
    # other results of many axes, NumPy lays out in memory as their operands lie
    is_plain = x.flags.c_contiguous or (is_reduced and x.ndim < 3 and min(x.strides) > 0)
    if not is_plain or not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        return NotImplemented
    rows = np.moveaxis(x.view(np.ndarray), axis, -1)
    found = bulk.reduced(op, rows) if is_reduced else bulk.accumulated(op, rows)
    if found is NotImplemented:
        return found
    if is_reduced:
        return np.expand_dims(boxed(found), axis) if keepdims else found
    return np.ascontiguousarray(np.moveaxis(found, -1, axis))


def _products(bulk: Any, a: Any, b: Any) -> Any:
    """a @ b: the products of the rows of `a` and the columns of `b`, added up."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.ndim and b.ndim):
        return NotImplemented
    x = a.view(np.ndarray) if a.ndim > 1 else a[None, :].view(np.ndarray)
    y = b.view(np.ndarray) if b.ndim > 1 else b[:, None].view(np.ndarray)
    if x.shape[-1] != y.shape[-2]:
        return NotImplemented  # NumPy says what is wrong
    rows, columns = x[..., :, None, :], np.swapaxes(y, -1, -2)[..., None, :, :]
    found = bulk.products(rows, columns)
    if found is NotImplemented:
        return found
    found = found[..., 0] if b.ndim == 1 else found
    return found.take(0, axis=-1 if b.ndim == 1 else -2) if a.ndim == 1 else found


def _has_array(inputs: tuple[Any, ...]) -> bool:
    for x in inputs:  # noqa: SIM110  # several times as quick as any()
        if isinstance(x, np.ndarray):
            return True
    return False


def _own(ufunc: np.ufunc) -> Operation:
    """The op, or function of ops, that a ufunc stands for; None if there is none."""
    return _OWN.get(ufunc) or _OWN.get(ufunc.__name__)


def apply_function(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What a function of NumPy's that is no ufunc gives where an argument is an operand."""
    own = _FUNCTIONS.get(function)
    try:
        if own is not None and (function is not np.where or len(args) == 3):
            return own(*args, **options)
        return as_operands(function._implementation(*args, **options))
    except TypeError as error:
        _explain(error, function.__name__, function.__module__)
        raise


def _clipped(a: Any, a_min: Any = None, a_max: Any = None, **options: Any) -> Any:
    """np.clip, whose newer names for the limits are min and max."""
    low, high = options.pop("min", a_min), options.pop("max", a_max)
    return functions.clip(a, low, high, **options)


def _dot(a: Any, b: Any, out: Any = None) -> Any:
    """np.dot, which is a @ b for vectors and matrices."""
    a, b = _plain(a), _plain(b)
    if out is None and np.ndim(a) in (1, 2) and np.ndim(b) in (1, 2):
        found = _in_bulk(np.matmul, "__call__", (np.asarray(a), np.asarray(b)), {})
        if found is not NotImplemented:
            return as_operands(found)
    return as_operands(np.dot._implementation(a, b, out=out))  # type: ignore[attr-defined]


def _filled(a: Any, value: Any, dtype: Any = object, **options: Any) -> Any:
    """np.full_like: an array that may be filled with operands, or one number."""
    return as_operands(np.full(np.shape(a), value, dtype))


def _nan_to_num(a: Any, *args: Any, **options: Any) -> Any:
    raise FloatsOnlyError(
        "nan_to_num() of NumPy must not be given Values or traced values, as it would leave them "
        "as they are; use vgrad.where(x == x, x, 0.0)"
    )


# NumPy's functions that are no ufuncs, and would do something else with objects.
_FUNCTIONS: dict[Any, Operation] = {
    np.where: ops.where,
    np.dot: _dot,
    np.clip: _clipped,
    np.nan_to_num: _nan_to_num,
    np.full_like: _filled,
    np.ones_like: lambda a, *args, **options: _filled(a, 1.0, *args, **options),
    np.zeros_like: lambda a, *args, **options: _filled(a, 0.0, *args, **options),
    np.empty_like: lambda a, *args, **options: _filled(a, 0.0, *args, **options),
}


def boxed(x: Any) -> Any:
    """An operand as an array of no dimensions, which NumPy does not hand back to us."""
    if not hasattr(x, "_apply"):
        return x
    box = np.empty((), dtype=object)
    box[()] = x
    return box


def wants_floats(error: Exception, name: str = "", module: str = "") -> str:
    """What to say where NumPy or SciPy refuses operands; "" if `error` is about something else."""
    if isinstance(error, FloatsOnlyError):
        return str(error)
    found = _WANTS_FLOATS.search(str(error)) if isinstance(error, TypeError | ValueError) else None
    if found is None:
        return ""
    name = name or found[1] or found[2] or ""
    who = f"{name}() of NumPy or SciPy" if name else "this function of NumPy or SciPy"
    general = _OP_OF_ONES_OWN if module == "ufunc" else _SOLVERS
    instead = _IN_VGRAD.get(name, _LINEAR_ALGEBRA if "linalg" in module else general)
    return (
        f"{who} must not be given Values or traced values, as it only accepts floats; use {instead}"
    )


def _explain(error: TypeError, name: str, module: str) -> None:
    """Raise an error that says what to write, if a function of this name wants floats."""
    text = wants_floats(error, name, module)
    if text and not isinstance(error, FloatsOnlyError):
        raise FloatsOnlyError(text) from error


@lru_cache(maxsize=256)
def _elementwise(operation: Operation, nin: int, nout: int) -> np.ufunc:
    """An operation as a ufunc on object arrays."""
    return np.frompyfunc(operation, nin, nout, identity=None)  # in any order, as of maximum


def _plain(x: Any) -> Any:
    """An input or option of a ufunc, as what NumPy does not hand back to us."""
    if type(x) is OperandArray:
        return x.view(np.ndarray)
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("must be an array without a mask; fill or drop what is masked")
    return tuple(map(_plain, x)) if isinstance(x, tuple) else boxed(x)
