"""A call on its way to a dask cluster: its executor is a `distributed.Client`.

The program is the result of a task, which dask gives to every worker that needs it, and computes
again if one dies. Placed arrays are cut into parts that lie with the workers; they are kept here
too, so that parts of a worker that died are sent again by the next call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import Array
from .runner import Runner
from .tasks import Travelling
from .work import Work

PART = 1 << 22  # bytes of an array that go together
SMALL = 1 << 16  # bytes of theta that each task takes along
ALIVE = ("finished", "pending")  # futures that are still to be had


def client_of(executor: Any) -> Any:
    """The `distributed.Client` that it is, or that its `get_executor()` was asked of, or None."""
    is_of_dask = any(x.__module__.startswith("distributed.") for x in type(executor).__mro__)
    return getattr(executor, "_client", executor) if is_of_dask else None


class Parts:
    """An array whose rows lie with a cluster's workers, some together.

    The array that NumPy makes of it knows it as its base.
    """

    def __init__(self, client: Any, x: Array) -> None:
        self.client, self.x = client, x
        self.__array_interface__ = x.__array_interface__
        self.rows = max(1, PART * len(x) // max(1, x.nbytes))
        self.futures: list[Any] = [None] * -(-len(x) // self.rows)
        self.refresh()

    def refresh(self) -> None:
        """Send those parts that no worker has, or has any more."""
        lost = [k for k, x in enumerate(self.futures) if x is None or x.status not in ALIVE]
        parts = [self.x[k * self.rows : (k + 1) * self.rows] for k in lost]
        for k, future in zip(lost, self.client.scatter(parts, hash=False) if lost else ()):
            self.futures[k] = future

    def __getitem__(self, samples: slice) -> tuple[int, int, list[Any]]:
        """Where some rows begin and end in the parts that have them, and the futures of these."""
        first, last = samples.start // self.rows, -(-samples.stop // self.rows)
        before = first * self.rows
        return samples.start - before, samples.stop - before, self.futures[first:last]


def parts_of(x: Array, client: Any) -> Parts | None:
    """The parts with this client's workers, of an array that has been placed there."""
    parts = x.base
    return parts if isinstance(parts, Parts) and parts.client is client else None


class OnCluster(Travelling):
    """A call on its way to the workers of a dask cluster."""

    most = 1 << 22  # bytes, as dask warns of tasks larger than 10 MB

    def __post_init__(self) -> None:
        self.client = client_of(self.executor)
        self.program = program_on(self.client, self.runner)
        if self.theta.nbytes > SMALL:
            self.theta = self.client.submit(_same, self.theta, pure=False)
        parts = [parts_of(x, self.client) for x in self.arrays]
        for own in parts:
            if own is not None:
                own.refresh()
        self.arrays = [x if own is None else own for x, own in zip(self.arrays, parts)]

    @staticmethod
    def workers(executor: Any) -> int:
        return sum(client_of(executor).nthreads().values()) or 1

    def submit(self, samples: slice, whole: bool = False) -> Any:
        arrays = [x[samples] for x in self.arrays]
        count = samples.stop - samples.start
        return self.client.submit(
            cluster_task, self.program, self.work, self.theta, arrays, count, pure=False
        )


def program_on(client: Any, runner: Runner) -> Any:
    """The future of the program, which the runner keeps while the client lives."""
    future = runner.futures.get(client)
    if future is None or future.status not in ALIVE:
        future = runner.futures[client] = client.submit(_same, runner, pure=False)
    return future


def _same(x: Any) -> Any:
    return x


def cluster_task(runner: Runner, work: Work, theta: Array, arrays: list[Any], batch: int) -> Any:
    """One task, on a worker."""
    own = [_rows(*x) if isinstance(x, tuple | list) else x for x in arrays]
    return work.run(runner, theta, own, batch)


def _rows(start: int, stop: int, parts: list[Array]) -> Array:
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole[start:stop]
