"""Where an executor's tasks run, and what of a call travels there.

the program    by its hash: a worker keeps the last ones that it met, and asks for others
theta, arrays  to threads as they are; to processes of this machine as names of memory that
               these map; elsewhere, as of MPI, each task takes its own samples along
results        in the order of tasks, of which no more are under way than keep workers busy
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array
from ..errors import WorkerError
from .cluster import OnCluster, Parts, client_of
from .mapped import Mapped
from .runner import Runner
from .tasks import Lent, Travelling, Unknown, lend
from .work import Work

AHEAD = 3  # tasks that an executor is given for each worker, so that none waits for the next


def workers_of(executor: Executor) -> int:
    """How many tasks run at once, as far as the executor says."""
    return _kind(executor).workers(executor)


def results(
    executor: Executor,
    work: Work,
    runner: Runner,
    theta: Array,
    arrays: Sequence[Array],
    batch: int,
) -> Iterator[Any]:
    """What the work gives for each block of the batch, in order, by the tasks of an executor.

    Raises WorkerError if a worker dies.
    """
    waiting: deque[tuple[slice, Any]] = deque()
    call: Travelling | None = None
    try:
        workers = workers_of(executor)
        call = _kind(executor)(executor, work, runner, theta, arrays)
        row = sum(x.nbytes // batch for x in arrays)
        for samples in work.blocks(batch, workers, call.most // max(1, row)):
            waiting.append((samples, call.submit(samples)))
            if len(waiting) >= AHEAD * workers:  # so that neither tasks nor results pile up
                yield _first(call, waiting)
        while waiting:
            yield _first(call, waiting)
    except Exception as error:
        if not _is_loss(error):
            raise
        raise WorkerError(
            f"the workers of an executor must live until the call returns (got {error!r}); nothing "
            f"has changed: compile again with a new executor, or without one{_hint(runner)}"
        ) from error
    finally:
        if call is not None:
            call.close([future for _, future in waiting])


def placed_rows(executor: Any, rows: list[Array]) -> tuple[list[Array], str, Callable[[], Any]]:
    """The arrays where workers find them, a word for where that is, and how to end it.

    Raises WorkerError if the workers are gone.
    """
    if (client := client_of(executor)) is not None:
        found = [x if _is_repeated(x) else np.asarray(Parts(client, x)) for x in rows]
        return found, "with a cluster's workers", _nothing
    if not isinstance(executor, ProcessPoolExecutor):
        return rows, "in this process", _nothing
    try:
        block = lend(executor, [x for x in rows if Mapped.of(x) is None])
    except (BrokenExecutor, RuntimeError) as error:
        raise WorkerError(
            f"the workers of an executor must live where data is placed (got {error!r}); make a "
            "new executor"
        ) from error
    own = iter(block.arrays)
    found = [x if Mapped.of(x) else next(own) for x in rows]
    return found, "in shared memory", block.close


def _nothing() -> None:
    """Arrays end with whoever holds them."""


def _is_repeated(x: Array) -> bool:
    return not x.strides[0]


def _first(call: Travelling, waiting: deque[tuple[slice, Any]]) -> Any:
    """The result of the first task; those that ask for the program are given again, with it."""
    while isinstance(result := waiting[0][1].result(), Unknown):
        for k, (samples, future) in enumerate(waiting):
            if future.done() and isinstance(future.result(), Unknown):
                waiting[k] = samples, call.submit(samples, whole=True)
    waiting.popleft()
    return result


def _hint(runner: Runner) -> str:
    """What may have been the matter, where the graph has ops of one's own."""
    codes = np.unique(runner.graph.op).tolist()
    own = [ops.OPS[code].name for code in codes if ops.OPS[code].defined]
    return f"; define {', '.join(own)} in a module, and before the executor starts" if own else ""


def _is_loss(error: Exception) -> bool:
    """Whether it says that a worker, or what it was to compute, is gone."""
    is_of_dask = type(error).__module__.startswith("distributed")
    is_shut_down = isinstance(error, RuntimeError) and "shutdown" in str(error)
    return is_of_dask or is_shut_down or isinstance(error, BrokenExecutor | CancelledError)


def _kind(executor: Any) -> type[Travelling]:
    if client_of(executor) is not None:
        return OnCluster
    return Lent if isinstance(executor, ProcessPoolExecutor) else Travelling
