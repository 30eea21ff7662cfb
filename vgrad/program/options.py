"""The options of `compile`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from .. import ops
from ..progress import Progress, Report


class Named(TypedDict, total=False):
    """The options of `compile` by name, as type checkers know them."""

    in_axes: int | Sequence[int | None] | None
    once: Callable[[], Any] | None
    reduce: Literal["mean", "sum"]
    fuse: bool
    tile: int | None
    executor: Any
    dtype: Any
    check_finite: bool
    paths: int
    progress: Report | None


class Options(NamedTuple):
    """The options of `compile`, which describes them."""

    reduce: str
    fuse: bool
    tile: int | None
    executor: Executor | None
    dtype: Any
    check_finite: bool
    paths: int
    in_axes: int | tuple[int | None, ...] | None = 0
    progress: Report | None = None

    def checked(self) -> Options:
        """The same, if all are valid; raises TypeError or ValueError if one is not."""
        if self.reduce not in ("mean", "sum"):
            raise ValueError(f'reduce must be "mean" or "sum" (got {self.reduce!r})')
        for name, flag in (("fuse", self.fuse), ("check_finite", self.check_finite)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} must be True or False (got {flag!r})")
        tile, executor, paths = self.tile, self.executor, self.paths
        if tile is not None and not ops.is_count(tile):
            raise ValueError(f"tile must be a number of samples, 1 or more (got {tile!r})")
        as_executor(executor)
        Progress(self.progress)  # which raises TypeError for what is none
        if not ops.is_count(paths):
            raise ValueError(f"paths must be how many to record, 1 or more (got {paths!r})")
        return self._replace(
            tile=tile and int(tile),
            dtype=_as_dtype(self.dtype),
            paths=int(paths),
            in_axes=_as_axes(self.in_axes),
        )

    def portable(self) -> Options:
        """Those that go into pickles and files: not what belongs to this process."""
        return self._replace(executor=None, progress=None)

    def of_once(self) -> Options:
        """Those for the term that is added once, which has no arguments."""
        return self._replace(executor=None, reduce="sum", in_axes=0)


def as_executor(executor: Any) -> Any:
    """An executor, or None; raises TypeError for anything else."""
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must have a method submit, as executors do (got {executor!r})")
    return executor


def _as_axes(axes: Any) -> int | tuple[int | None, ...] | None:
    parts = axes if isinstance(axes, tuple | list) else [axes]
    for axis in parts:
        if isinstance(axis, bool) or not isinstance(axis, int | np.integer | None):
            raise TypeError(
                "in_axes must be an axis, None for what all samples share, or a sequence with one "
                f"of these for each argument (got {axes!r})"
            )
    known = tuple(axis if axis is None else int(axis) for axis in parts)
    return known if isinstance(axes, tuple | list) else known[0]


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    for known in (np.float64, np.float32):
        if dtype in (known, np.dtype(known), known.__name__):
            return np.dtype(known)
    raise ValueError(f"dtype must be np.float64 or np.float32 (got {dtype!r})")
