"""A call on its way to an executor's workers, and one task of it there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ..arguments import Array
from .blas import one_thread
from .mapped import Block, Mapped
from .runner import Runner, known
from .work import Work

WORKERS = 16  # of an executor that does not say


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
    program: Reference | Pickled,
    work: Work,
    theta: Any,
    arrays: list[Any],
    batch: int,
    alone: bool = False,
) -> Any:
    """One task, wherever an executor sends it; if `alone`, no other runs in its process."""
    runner = program.runner
    if runner is None:
        return Unknown()
    theta, *own = [x.array() if isinstance(x, Mapped) else x for x in (theta, *arrays)]
    with one_thread() if alone else nullcontext():
        return work.run(runner, theta, own, batch)


@dataclass(eq=False)
class Travelling:
    """A call on its way to threads, or to workers that may be anywhere.

    Theta and the arrays, each (B, ...), are what tasks take along of these, or what stands for it.
    """

    executor: Any
    work: Work
    runner: Runner
    theta: Any
    arrays: Sequence[Any]
    alone: ClassVar[bool] = False  # whether each task has a process
    most: ClassVar[int] = 1 << 62  # bytes of arrays that one task should take along

    def __post_init__(self) -> None:
        """Put theta and the arrays where the workers find them: here, as they are."""

    @staticmethod
    def workers(executor: Any) -> int:
        """How many tasks run at once, as far as the executor says."""
        for name in ("_max_workers", "num_workers"):  # of concurrent.futures, of mpi4py
            workers = getattr(executor, name, None)
            if isinstance(workers, int) and workers > 0:
                return workers
        return WORKERS

    def submit(self, samples: slice, whole: bool = False) -> Any:
        """The future of the task for some samples; the `whole` program may go along."""
        program, count = Reference(self.runner, whole), samples.stop - samples.start
        arrays = [x[samples] for x in self.arrays]
        fixed = self.work, self.theta
        return self.executor.submit(task, program, *fixed, arrays, count, self.alone)

    def close(self, left: list[Future[Any]]) -> None:
        """Forget the tasks that are left, after an error or when somebody interrupts the call."""
        for future in left:
            future.cancel()


def lend(executor: Executor, arrays: Sequence[Array]) -> Block:
    """Copies of arrays that an executor's processes can map."""
    executor.submit(int)  # a forked pool starts its workers now, so that none inherits the memory
    return Block(arrays)


def _place(x: Array) -> Mapped | Array:
    return Mapped.of(x) or x  # which is empty


class Lent(Travelling):
    """A call on its way to processes of this machine, which map its arrays.

    Tasks that are left are not cancelled, which CPython's pool might not survive (its clean-up
    raises InvalidStateError, before 3.12): they end at once as their memory is gone.
    """

    alone = True

    def __post_init__(self) -> None:
        everything = [self.theta, *self.arrays]
        places = [Mapped.of(x) for x in everything]
        missing = [x for x, place in zip(everything, places) if place is None]
        self.block = lend(self.executor, missing)
        own = iter(self.block.arrays)
        self.theta, *self.arrays = [place or _place(next(own)) for place in places]

    def close(self, left: list[Future[Any]]) -> None:
        self.block.close()
