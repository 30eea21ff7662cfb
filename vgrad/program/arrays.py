"""A program's arguments, checked, and its results in the shapes that users expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arguments import Array, Shape, Structure, as_numbers, count
from ..errors import ShapeError
from ..flat import require_samples


def as_batch(arrays: Any, dtype: np.dtype[Any]) -> tuple[list[Array], int, tuple[Shape, ...]]:
    """The arrays as floats, (B,) or (B, numbers); the batch size B; and the shape of one sample."""
    checked = [
        x if type(x) is np.ndarray and x.dtype is dtype and x.ndim else _as_array(x, i, dtype)
        for i, x in enumerate(arrays)
    ]
    batch = len(checked[0]) if checked else 1
    for array in checked:
        if len(array) != batch:
            lengths = ", ".join(str(len(array)) for array in checked)
            raise ShapeError(f"arrays must have one batch size, their first axis (got {lengths})")
    if not batch:
        raise ShapeError("the batch must have at least one sample (got none)")
    shapes = tuple([x.shape[1:] for x in checked])
    rows = [x if x.ndim < 3 else x.reshape(batch, count(x.shape[1:])) for x in checked]
    return rows, batch, shapes


def _as_array(x: Any, i: int, dtype: np.dtype[Any]) -> Array:
    if isinstance(x, np.ndarray) and x.ndim and x.dtype != dtype:  # which takes a copy
        require_samples(len(x), count(x.shape[1:]) * dtype.itemsize, "array", i, "as", dtype)
    array = as_numbers(x, f"array {i}", dtype)
    if array.ndim == 0:
        raise ShapeError(f"array {i} must have a batch axis (got the single number {array})")
    return array


def structured(outputs: Iterator[Array], structure: Structure) -> Any:
    """Outputs, each (B,), in the structure that the function returned; an array is (B, ...)."""
    if isinstance(structure, list):
        return tuple(structured(outputs, part) for part in structure)
    if structure == ():
        return next(outputs)
    rows = np.stack([next(outputs) for _ in range(count(structure))], axis=-1)
    return rows.reshape(len(rows), *structure)


def split(rows: Array, shapes: tuple[Shape, ...]) -> Iterator[Array]:
    """Cut rows, (K, B), into one array (B, *shape) per argument."""
    start = 0
    for shape in shapes:
        if shape:
            stop = start + count(shape)
            yield rows[start:stop].T.reshape(rows.shape[1], *shape)
        else:
            stop = start + 1
            yield rows[start]
        start = stop
