"""A program's arguments, checked, and its results in the shapes that users expect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array, Shape, Structure, arranged, as_numbers, count, cut
from ..errors import ShapeError
from ..flat import require_samples

LARGE = 1 << 24  # bytes of a file that is mapped; a smaller one may as well be read at once

Axes = tuple[int | None, ...]  # where the batch is in each argument; None for what has none


class Batch(NamedTuple):
    """A program's arguments, checked: arrays (B,) or (B, numbers), and the shape of one sample.

    `shared` are the arguments that are the same for all samples.
    """

    rows: list[Array]
    size: int
    shapes: tuple[Shape, ...]
    shared: tuple[int, ...] = ()


def as_batch(arrays: Any, dtype: np.dtype[Any], axes: Axes | int | None = 0) -> Batch:
    """The arguments of a call: arrays with a batch axis, and numbers that all samples share.

    `axes` says which axis of each argument the batch is, or of all of them; the first by default.
    """
    checked = [
        x if type(x) is np.ndarray and x.dtype is dtype and x.ndim else _as_array(x, i, dtype)
        for i, x in enumerate(arrays)
    ]
    if axes != 0 or not all([x.ndim for x in checked]):
        return _with_axes(checked, dtype, axes)
    batch = len(checked[0]) if checked else 1
    for array in checked:
        if len(array) != batch:
            lengths = ", ".join(str(len(array)) for array in checked)
            raise ShapeError(
                f"arrays must have one batch size, their first axis (got {lengths}); compile with "
                "in_axes for another axis, or None for an array that all samples share"
            )
    if not batch:
        raise ShapeError("the batch must have at least one sample (got none)")
    shapes = tuple([x.shape[1:] for x in checked])
    rows = [x if x.ndim < 3 else x.reshape(batch, count(x.shape[1:])) for x in checked]
    return Batch(rows, batch, shapes)


def _with_axes(arrays: list[Array], dtype: np.dtype[Any], axes: Axes | int | None) -> Batch:
    """The arguments where the batch is not the first axis of each."""
    each = axes if isinstance(axes, tuple) else (axes,) * len(arrays)
    shared = tuple(i for i, (x, axis) in enumerate(zip(arrays, each)) if axis is None or not x.ndim)
    moved = list(arrays)
    for i, axis in enumerate(each):
        if i not in shared:
            assert axis is not None
            if not -arrays[i].ndim <= axis < arrays[i].ndim:
                raise ShapeError(
                    f"array {i} must have the axis {axis} that in_axes names as its batch (got "
                    f"shape {arrays[i].shape})"
                )
            moved[i] = np.moveaxis(arrays[i], axis, 0)
    rows, batch, shapes, _ = as_batch([x for i, x in enumerate(moved) if i not in shared], dtype)
    own, all_shapes = iter(rows), iter(shapes)
    return Batch(
        [_everywhere(x, batch) if i in shared else next(own) for i, x in enumerate(arrays)],
        batch,
        tuple([x.shape if i in shared else next(all_shapes) for i, x in enumerate(arrays)]),
        shared,
    )


def _everywhere(x: Array, batch: int) -> Array:
    """An array as that of every sample, without memory of its own: (B,) or (B, numbers)."""
    if not x.size:
        raise ShapeError(f"an array that all samples share must have numbers (got shape {x.shape})")
    return np.broadcast_to(x.reshape(-1) if x.ndim else x, (batch, x.size) if x.ndim else (batch,))


def _as_array(x: Any, i: int, dtype: np.dtype[Any]) -> Array:
    if isinstance(x, np.memmap) and x.nbytes > LARGE and x.dtype.kind in "fiub":
        return np.asarray(x)  # as it is: each shard is converted when it is read
    if hasattr(x, "__dask_graph__"):
        raise TypeError(
            f"array {i} must be in memory for this call (got a dask array); value_and_grad, "
            "input_grads, per_sample_grads and a call of the program take it as it is, others its "
            ".compute()"
        )
    if isinstance(x, np.ndarray) and x.ndim and x.dtype != dtype:  # which takes a copy
        require_samples(len(x), count(x.shape[1:]) * dtype.itemsize, "array", i, "as", dtype)
    return as_numbers(x, f"array {i}", dtype)


def taken(
    arrays: Sequence[Array], samples: Any, batch: int, shared: tuple[int, ...]
) -> list[Array]:
    """The arrays of some samples, as many as `batch`; what all share stays without memory."""
    return [x[:batch] if i in shared else x[samples] for i, x in enumerate(arrays)]


def like(known: Sequence[Array], arrays: Sequence[Array]) -> list[Array]:
    """Arrays in the shapes of known ones, and the dtype of the first, theta."""
    return [x.astype(known[0].dtype).reshape(y.shape) for x, y in zip(arrays, known)]


def structured(outputs: Array, structure: Structure) -> Any:
    """Outputs, (M, B), in the structure that the function returned; an array is (B, ...)."""
    if structure == ():  # hot path: the usual
        return outputs[0]

    def make(own: slice, shape: Shape) -> Any:
        if not shape:
            return outputs[own.start]
        return np.ascontiguousarray(outputs[own].T).reshape(-1, *shape)

    return arranged(structure, make)


def split(rows: Array, shapes: tuple[Shape, ...]) -> Iterator[Array]:
    """Cut rows, (K, B), into one array (B, *shape) per argument."""
    for part, shape in zip(cut(rows, shapes), shapes):
        yield part.T.reshape(rows.shape[1], *shape)
