"""Where an executor's tasks run, and what of a call travels there.

the program    by its hash: a worker keeps the last ones that it met, and asks for others
theta, arrays  to threads as they are; to processes of this machine as names of memory that
               these map; elsewhere, as of MPI, each task takes its own samples along
results        in the order of tasks, of which no more are under way than keep workers busy
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
)
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..arguments import Array
from ..errors import WorkerError
from .mapped import Block, Mapped
from .runner import Runner, known
from .work import Work

AHEAD = 3  # tasks that an executor is given for each worker, so that none waits for the next
WORKERS = 16  # of an executor that does not say


def workers_of(executor: Executor) -> int:
    """How many tasks run at once, as far as it says."""
    for name in ("_max_workers", "num_workers"):  # of concurrent.futures, of mpi4py
        workers = getattr(executor, name, None)
        if isinstance(workers, int) and workers > 0:
            return workers
    return WORKERS


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
    waiting: deque[tuple[slice, Future[Any]]] = deque()
    call: Travelling | None = None
    try:
        workers = workers_of(executor)
        call = _kind(executor)(executor, work, runner, theta, arrays)
        for samples in work.blocks(batch, workers):
            waiting.append((samples, call.submit(samples)))
            if len(waiting) >= AHEAD * workers:  # so that neither tasks nor results pile up
                yield _first(call, waiting)
        while waiting:
            yield _first(call, waiting)
    except (BrokenExecutor, CancelledError) as error:
        raise WorkerError(
            f"the workers of an executor must live until the call returns (got {error!r}); nothing "
            f"has changed: compile again with a new executor, or without one{_hint(runner)}"
        ) from error
    finally:
        if call is not None:
            call.close([future for _, future in waiting])


def _first(call: Travelling, waiting: deque[tuple[slice, Future[Any]]]) -> Any:
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


class Unknown(NamedTuple):
    """What a worker answers that does not know the program."""


class Reference:
    """A program, of which only the hash is pickled, or with `whole` all of it."""

    def __init__(self, runner: Runner, whole: bool) -> None:
        self.runner, self.whole = runner, whole

    def __reduce__(self) -> Any:
        return Pickled, (self.runner.key, self.runner._pickled if self.whole else None)


class Pickled(NamedTuple):
    """What comes out of a reference's pickle, in a worker."""

    key: bytes
    pickled: bytes | None

    @property
    def runner(self) -> Runner | None:
        """The program, if it has come along or is known here."""
        return known(*self)


def task(
    program: Reference | Pickled, work: Work, theta: Any, arrays: list[Any], batch: int
) -> Any:
    """One task, wherever an executor sends it."""
    runner = program.runner
    if runner is None:
        return Unknown()
    theta, *own = [x.array() if isinstance(x, Mapped) else x for x in (theta, *arrays)]
    return work.run(runner, theta, own, batch)


class Travelling:
    """A call on its way to threads, or to workers that may be anywhere."""

    def __init__(
        self,
        executor: Executor,
        work: Work,
        runner: Runner,
        theta: Array,
        arrays: Sequence[Array],
    ) -> None:
        self.executor, self.work, self.runner = executor, work, runner
        self.theta: Any = theta
        self.arrays: list[Any] = [*arrays]

    def submit(self, samples: slice, whole: bool = False) -> Future[Any]:
        """The task for some samples, with the `whole` program if it is to take that along."""
        program, count = Reference(self.runner, whole), samples.stop - samples.start
        arrays = [x[samples] for x in self.arrays]
        return self.executor.submit(task, program, self.work, self.theta, arrays, count)

    def close(self, left: list[Future[Any]]) -> None:
        """Forget the tasks that are left, after an error or when somebody interrupts the call."""
        for future in left:
            future.cancel()


class Lent(Travelling):
    """A call on its way to processes of this machine, which map its arrays.

    Tasks that are left are not cancelled, which CPython's pool might not survive (its clean-up
    raises InvalidStateError, before 3.12): they end at once as their memory is gone.
    """

    def __init__(
        self,
        executor: Executor,
        work: Work,
        runner: Runner,
        theta: Array,
        arrays: Sequence[Array],
    ) -> None:
        super().__init__(executor, work, runner, theta, arrays)
        executor.submit(int)  # a forked pool starts its workers now, before they inherit the memory
        places = [Mapped.of(x) for x in (theta, *arrays)]
        copied = [x for x, place in zip((theta, *arrays), places) if place is None]
        self.block = Block(copied)
        own = map(Mapped.of, self.block.arrays)
        self.theta, *self.arrays = [place or next(own) for place in places]

    def close(self, left: list[Future[Any]]) -> None:
        self.block.close()


def _kind(executor: Executor) -> type[Travelling]:
    return Lent if isinstance(executor, ProcessPoolExecutor) else Travelling
