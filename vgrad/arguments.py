"""Checks of what users pass in: numbers, arrays of them, theta, lists of `Value`s."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from .engine import Value
from .errors import ShapeError
from .operand import Operand

Array = NDArray[np.float64]
Shape = tuple[int, ...]
Structure = Any  # the shape of one output, or a list of Structures

FLOAT64 = np.dtype(np.float64)


def as_theta(theta: Any, size: int, dtype: np.dtype[Any] = FLOAT64, name: str = "theta") -> Array:
    """`theta` as an array (size,); raises ShapeError or TypeError if it is not."""
    array = as_numbers(theta, name, dtype)
    if array.shape != (size,):
        wanted = f"shape ({size},), one number per parameter"
        raise ShapeError(f"{name} must have {wanted} (got {array.shape})")
    return array


def as_numbers(x: Any, name: str, dtype: np.dtype[Any] = FLOAT64) -> Array:
    """`x` as an array of floats; raises ShapeError if ragged, TypeError if not numbers."""
    if type(x) is np.ndarray and x.dtype is dtype:
        return x
    try:
        array = np.asarray(x)
    except ValueError:
        raise ShapeError(
            f"{name} must be an array, its rows of one length (got a ragged list)"
        ) from None
    if isinstance(x, dict):
        raise TypeError(
            f"{name} must be an array of numbers (got a dict); program.flatten(tree) makes theta "
            "of a nesting"
        )
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask; fill or drop what is masked")
    if array.dtype == object and all(map(ops.is_number, array.flat)):  # integers of any size
        array = np.reshape([ops.number(x) for x in array.flat], array.shape)
    for operand in array.flat if array.dtype == object else ():
        if isinstance(operand, Operand):
            raise TypeError(
                f"{name} must hold plain numbers (got a {type(operand).__name__}), as a program "
                "takes batches of them; where gradients are to go through, call the function that "
                "was compiled, or give a Value's .data where they are not"
            )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers (got an array of {array.dtype})")
    with np.errstate(all="ignore"):
        return array.astype(dtype, copy=False)


def count(structure: Structure) -> int:
    """How many numbers a shape, or a list of them, holds."""
    if isinstance(structure, list):
        return sum(map(count, structure))
    return math.prod(structure)


def cut(x: Any, shapes: Iterable[Structure]) -> list[Any]:
    """An array along its first axis, one part for each shape, of as many numbers.

    >>> cut(np.array([5, 6, 7, 8]), [(), (3,)])
    [array([5]), array([6, 7, 8])]
    """
    ends = itertools.accumulate(map(count, shapes), initial=0)
    return [x[start:stop] for start, stop in itertools.pairwise(ends)]


def arranged(structure: Structure, make: Callable[[slice, Shape], Any]) -> Any:
    """What `make` gives for each output, of its numbers and shape; a tuple if there are several."""
    numbers = itertools.count()

    def part(structure: Structure) -> Any:
        if isinstance(structure, list):
            return tuple(part(inner) for inner in structure)
        own = [next(numbers) for _ in range(count(structure))]
        return make(slice(own[0], own[-1] + 1), structure)

    return part(structure)


def whole_number(name: str, x: Any) -> int:
    """An option as an int; raises ValueError unless it is an integer, 1 or more."""
    if not ops.is_count(x):
        raise ValueError(f"{name} must be a whole number, 1 or more (got {x!r})")
    return int(x)


def as_list(name: str, values: Any) -> list[Any]:
    """`values` as a list; raises TypeError if they are not iterable."""
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of Values (got {values!r})")
    return list(values)


def distinct_leaves(name: str, values: Any) -> list[Value]:
    """`values` as a list; raises TypeError or ValueError unless they are distinct leaf `Value`s."""
    leaves: list[Value] = as_list(name, values)
    for value in leaves:
        if not isinstance(value, Value):
            raise TypeError(f"{name} must be Values (got {value!r}, a {type(value).__name__})")
        if value.parents:
            raise ValueError(f"{name} must be leaves (got {value}, which is computed from others)")
    if len(set(leaves)) < len(leaves):
        got = f"{len(leaves)}, {len(set(leaves))} distinct"
        raise ValueError(f"{name} must be distinct (got {got})")
    return leaves
