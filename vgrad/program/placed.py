"""Data that stays with an executor's workers: `program.place`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from .arrays import Axes, Batch
from .signature import Names


class Placed:
    """Arrays of a call, checked, where an executor's workers find them; calls take it for arrays.

    `program.place` makes it. Its memory is given back when it is closed, at the end of a `with`
    block or by `close()`, or when nobody holds it any more.
    """

    def __init__(
        self,
        batch: Batch,
        names: Names,
        axes: Axes | int | None,
        dtype: np.dtype[Any],
        where: str,
        close: Callable[[], Any],
        executor: Any,
    ) -> None:
        self._batch: Batch | None = batch
        self._names, self._axes, self._dtype = names, axes, dtype
        self._where, self._close = where, close
        self.executor = executor  # which computes the calls that take the data

    def __repr__(self) -> str:
        if self._batch is None:
            return "Placed(closed)"
        _, size, shapes, shared = self._batch
        whole = [x if i in shared else (size, *x) for i, x in enumerate(shapes)]
        return f"Placed({', '.join(map(str, whole))}, {self._dtype}, {self._where})"

    def batch(self, axes: Axes | int | None, dtype: np.dtype[Any]) -> tuple[Batch, Names]:
        """The arguments of a call; raises ValueError if they are closed, or of other options."""
        if self._batch is None:
            raise ValueError(
                "placed data must not be closed yet (got data whose memory was given back); place "
                "the arrays again"
            )
        if (axes, dtype) != (self._axes, self._dtype):
            raise ValueError(
                "data must be placed by a program with the same dtype and in_axes (got data of "
                f"dtype {self._dtype} and in_axes={self._axes}, in a call of dtype {dtype} and "
                f"in_axes={axes}); place it by this program"
            )
        return self._batch, self._names

    def close(self) -> None:
        """Give the memory back, once no call uses it any more."""
        self._batch = None
        self._close()

    def __enter__(self) -> Placed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def placed_in(arrays: Sequence[Any], named: Any) -> Placed | None:
    """The placed data among the arrays of a call; raises TypeError if there are others beside."""
    if not named and not any([type(x) is Placed for x in arrays]):  # hot path: the usual
        return None
    found = [x for x in (*arrays, *(named or {}).values()) if isinstance(x, Placed)]
    if found and (len(arrays) != 1 or named):
        raise TypeError(
            "data that is placed must be the only argument after theta, by position, as it stands "
            f"for all of them (got {len(arrays) + len(named or {})} arguments)"
        )
    return found[0] if found else None
