"""One call of a runner: which sweep runs, on which part of the batch, and where."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array
from ..errors import WorkerError
from ..flat import FROM_INPUTS, FROM_PARAMETERS, require_samples
from .runner import Runner

Total = tuple[float, Array, Array | None]  # a value, its gradient, and perhaps every output

SHARD = 2  # tiles; what one task of an executor takes
WAITING = 64  # tasks that an executor is given ahead
FEW = 1024  # samples; of more, those whose numbers are not finite are worth a sweep of their own


class Call(NamedTuple):
    """A runner and its arguments: theta (P,), and B samples, one array per argument.

    Arrays are (B, numbers), or (B,) for a single number. An executor, if any, computes the shards.
    """

    runner: Runner
    theta: Array
    arrays: Sequence[Array]
    batch: int
    executor: Executor | None = None

    def outputs(self) -> Array:
        """Every output for every sample, (M, B)."""
        outputs: Array = _Columns(self, "outputs", 0).settled()
        return outputs

    def gradient(self, divisor: float, aux: bool = False) -> Total:
        """The sum of output 0 over the batch, by `divisor`, its gradient (P,), and with `aux`
        every output, (M, B)."""
        runner, theta, arrays, batch, _ = self
        found = None
        if not aux and runner.can_fuse(theta) and batch <= runner.quick.tile:
            # Hot path: the usual call in training, without the cost of tasks and questions.
            with np.errstate(all="ignore"):
                found = runner.quick.gradient(theta, arrays, batch, batch, divisor)
                if is_finite(found[0], found[1]):
                    return found
        value, gradient, outputs = _Totals(self, divisor, aux, found).settled()
        if outputs is not None and self.can_fuse:
            outputs = _Columns(self, "outputs", 0, outputs).settled()
        return value, gradient, outputs

    def input_gradients(self) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the inputs, per sample, (K, B)."""
        found = _Columns(self, "input_gradients", FROM_INPUTS).settled()
        return found[0], found[1:]

    def parameter_gradients(self) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the parameters, per sample, (P, B)."""
        everywhere = np.broadcast_to(self.theta, (self.batch, len(self.theta)))
        twin, none = self.runner.per_sample, self.theta[:0]
        call = Call(twin, none, [*self.arrays, everywhere], self.batch, self.executor)
        objective, gradients = call.input_gradients()
        return objective, gradients[len(self.runner.graph.inputs) :]

    @property
    def can_fuse(self) -> bool:
        """Whether the fused sweeps may run."""
        return self.runner.can_fuse(self.theta)

    def some(self, samples: Any) -> Call:
        """The call with these samples alone."""
        arrays = [array[samples] for array in self.arrays]
        return self._replace(arrays=arrays, batch=len(arrays[0]) if arrays else self.batch)

    def shards(
        self, name: str, method: str, wanted: int, rows: int = 0, options: tuple[Any, ...] = ()
    ) -> Iterator[Any]:
        """The results of a method of the named sweep, shard by shard of the batch.

        Shards are the same whoever runs them, so results are the same to the bit. `wanted` tells
        where gradients go, and `rows` how many numbers come back for each sample. Raises
        OutOfMemoryError if the call would need too much.
        """
        sweep, batch = self.runner.sweep(name), self.batch
        tile = sweep.width(batch)
        size = SHARD * tile
        per_sample = 2 * rows * self.runner.dtype.itemsize  # the shards', and the whole
        require_samples(batch, per_sample, "results")
        workers = min(-(-batch // size), getattr(self.executor, "_max_workers", None) or 1)
        sweep.admit(tile, wanted, workers, batch * per_sample)
        starts = range(0, batch, size)
        parts = [self.some(slice(a, a + size)) for a in starts] if batch > size else [self]
        tasks = [
            Task(self.runner, name, method, (self.theta, x.arrays, x.batch, tile, *options))
            for x in parts
        ]
        return _results(tasks, self.executor)


def is_finite(value: float, gradient: Array) -> bool:
    """Whether the value and all of the gradient (P,) are finite. Hot path."""
    if not isfinite(value):
        return False  # the square of the gradient is quicker to look at, but may overflow
    return isfinite(gradient.dot(gradient)) or bool(np.isfinite(gradient).all())


# --- which sweep ---------------------------------------------------------------------------------


class _Question:
    """A question put to one sweep after another, until the answer is finite."""

    call: Call
    answer: Any = None
    is_settled = False

    def settled(self) -> Any:
        """The answer."""
        with np.errstate(all="ignore"):
            for name in ("quick", "careful", "plain") if self.call.can_fuse else ("plain",):
                if self.is_settled:
                    break
                if self.answer is None or name == "plain" or self.may_help(name):
                    self.ask(name)
        return self.answer

    def ask(self, name: str) -> None:
        """Ask the sweep of this name for whatever is not finite yet."""
        raise NotImplementedError

    def may_help(self, name: str) -> bool:
        """Whether the careful sweep may find other numbers than the quick one.

        Their forwards are the same, so output 0 must be finite where its gradient is not.
        """
        raise NotImplementedError


class _Columns(_Question):
    """Numbers of every sample, (n, B), output 0 first; some may have been found already.

    `wanted` tells where gradients go; 0 if these are outputs.
    """

    def __init__(self, call: Call, method: str, wanted: int, answer: Array | None = None) -> None:
        self.call, self.method, self.wanted, self.answer = call, method, wanted, answer
        self.left = np.arange(call.batch)
        if answer is not None:
            self._look()

    def may_help(self, name: str) -> bool:
        return bool(
            name == "careful" and self.wanted and np.isfinite(self.answer[0, self.left]).any()
        )

    def ask(self, name: str) -> None:
        call = self.call
        if self.answer is None:
            self.answer = self._found(name, call)
        elif name == "careful" and call.batch <= call.runner.careful.tile:
            # for all samples, as buffers of that width exist already
            self.answer[:, self.left] = self._found(name, call)[:, self.left]
        else:
            self.answer[:, self.left] = self._found(name, call.some(self.left))
        self._look()

    def _look(self) -> None:
        """Note which samples are still to be asked for.

        A finite gradient stands even if output 0 is not finite, unless guards were dropped.
        """
        fused = self.call.runner.plan.fused if self.call.can_fuse else None
        rows = slice(1 if self.wanted and fused and not fused.unguarded else 0, None)
        if np.isfinite(self.answer[rows]).all():
            self.is_settled = True
        else:
            self.left = self.left[~np.isfinite(self.answer[rows, self.left]).all(axis=0)]

    def _found(self, name: str, call: Call) -> Array:
        graph = call.runner.graph
        rows = 1 + len(graph.inputs) if self.wanted else len(graph.outputs)
        parts = [*call.shards(name, self.method, self.wanted, rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class _Totals(_Question):
    """The sum of output 0 over the batch, by `divisor`, its gradient, and with `aux` every output.

    Gradients of all samples must be added up before they pass through shared nodes: at a
    singularity there they may cancel. So the sweep with the last word gets all samples at once.
    """

    def __init__(self, call: Call, divisor: float, aux: bool, found: Total | None) -> None:
        self.call, self.options = call, (divisor, aux)
        self.answer = found  # which is not finite

    def may_help(self, name: str) -> bool:
        return name == "careful" and isfinite(self.answer[0])

    def ask(self, name: str) -> None:
        call, plain = self.call, self.call.runner.sweep(name)
        if self.answer is None or name != "plain":
            self._take(self._sum(call, name))
            if name != "plain" or call.batch <= SHARD * plain.width(call.batch):
                return  # which is all of them in one piece
        if not self.is_settled and not self._ask_in_two():
            self._take(self._by_plain(call))

    def _ask_in_two(self) -> bool:
        """Run the plain sweep on the doubtful samples alone; returns whether that is enough.

        The other samples' gradients must be finite: then no shared node is at a singularity, and it
        makes no difference where gradients are added up.
        """
        call = self.call
        if not call.can_fuse or call.batch <= FEW:
            return False
        doubtful = np.concatenate([*call.shards("careful", "doubtful", FROM_PARAMETERS)])
        if doubtful.all() or not doubtful.any():
            return False
        value, gradient, _ = self._sum(call.some(~doubtful), "careful")
        if not is_finite(value, gradient):
            return False
        more, part, _ = self._by_plain(call.some(doubtful))
        self._take((value + more, gradient + part, self.answer[2]))
        return True

    def _take(self, answer: Total) -> None:
        self.answer, self.is_settled = answer, is_finite(answer[0], answer[1])

    def _by_plain(self, call: Call) -> Total:
        sweep, (_, theta, arrays, batch, _) = call.runner.plain, call
        return sweep.gradient(theta, arrays, batch, sweep.width(batch), *self.options)

    def _sum(self, call: Call, name: str) -> Total:
        """The sums of values and gradients of all shards, and the outputs side by side."""
        value, gradient, columns = 0.0, None, []
        rows = self.options[1] * len(call.runner.graph.outputs)
        for more, part, outputs in call.shards(
            name, "gradient", FROM_PARAMETERS, rows, self.options
        ):
            value, gradient = value + more, part if gradient is None else gradient + part
            columns.append(outputs)
        assert gradient is not None
        return value, gradient, np.concatenate(columns, axis=1) if rows else None


# --- where ---------------------------------------------------------------------------------------


class Task(NamedTuple):
    """A method of a sweep and its arguments, as executors send it elsewhere."""

    runner: Runner
    sweep: str
    method: str
    arguments: tuple[Any, ...]


def _run(task: Task) -> Any:
    with np.errstate(all="ignore"):  # which each thread has to say for itself
        return getattr(task.runner.sweep(task.sweep), task.method)(*task.arguments)


def _results(tasks: list[Task], executor: Executor | None) -> Iterator[Any]:
    """The results of the tasks in order, by the executor or right here."""
    if executor is None or len(tasks) == 1:
        yield from map(_run, tasks)
        return
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            waiting.append(executor.submit(_run, task))
            if len(waiting) > WAITING:  # so that neither tasks nor results pile up
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except (BrokenExecutor, CancelledError) as error:
        raise WorkerError(
            f"the workers of an executor must live until the call returns (got {error!r}); nothing "
            "has changed: compile again with a new executor, or without one"
        ) from error
    finally:
        for future in waiting:  # after an error, or when somebody interrupts the call
            future.cancel()
