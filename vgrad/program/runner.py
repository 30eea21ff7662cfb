"""One recorded graph and the sweeps over it: which of them runs, on what part of a batch, where."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from functools import cached_property, lru_cache
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..arguments import FLOAT64, Array, Shape
from ..compiler import FusedSweep
from ..errors import WorkerError
from ..flat import FROM_INPUTS, FROM_PARAMETERS, Graph, PlainSweep, require_samples, tangent

Arrays = Sequence[Array]  # one per argument, (B, numbers), or (B,) for a single number

SHARD = 2  # tiles; what one task of an executor takes
WAITING = 64  # tasks that an executor is given ahead


class Runner:
    """A graph, ready to run over batches; it holds no state that a call could see.

    The fused sweep is quick, but where a gradient of 0 meets inf or nan it gives nan and not 0,
    and it sums in another order. So what it finds that is not finite is done again: first with
    maps that keep gradients of 0, which is what a guard such as where(x > 0, log(x), 0) needs, and
    then by the plain sweep, which computes what the scalar engine does.
    """

    def __init__(
        self,
        graph: Graph,
        fuse: bool = True,
        tile: int | None = None,
        dtype: np.dtype[Any] = FLOAT64,
    ) -> None:
        self.graph, self.fuse, self.tile, self.dtype = graph, fuse, tile, dtype
        shape = graph.output_shapes
        while isinstance(shape, list):
            shape = shape[0]
        self.objective_shape: Shape = shape  # of output 0

    def __reduce__(self) -> Any:
        return _restored, (self._pickled,)

    @cached_property
    def _pickled(self) -> bytes:
        plain_data = replace(self.graph, leaves=())
        return pickle.dumps((plain_data, self.fuse, self.tile, self.dtype), pickle.HIGHEST_PROTOCOL)

    @cached_property
    def plain(self) -> PlainSweep:
        """The plain sweep over the graph."""
        return PlainSweep(self.graph, self.tile, self.dtype)

    @cached_property
    def plan(self) -> FusedSweep:
        """The fused sweeps over the graph."""
        return FusedSweep(self.graph, self.tile, self.dtype)

    @cached_property
    def _unfused(self) -> Runner:
        """The same with the plain sweep alone."""
        return Runner(self.graph, False, self.tile, self.dtype)

    def _able(self, theta: Array) -> Runner:
        """This runner, or the unfused one where theta must be finite to fuse, and is not."""
        if self.fuse and self.plan.fused.picks and not np.isfinite(theta).all():
            return self._unfused
        return self

    @cached_property
    def _per_sample(self) -> Runner:
        """The same with the parameters as one more input, for their gradients per sample."""
        graph = self.graph
        op = graph.op.copy()
        op[graph.parameters] = ops.input.code
        as_inputs = replace(
            graph,
            op=op,
            inputs=np.concatenate([graph.inputs, graph.parameters]),
            parameters=graph.parameters[:0],
            input_shapes=(*graph.input_shapes, graph.parameters.shape),
            leaves=(),
        )
        return Runner(as_inputs, self.fuse, self.tile, self.dtype)

    @cached_property
    def along(self) -> Runner:
        """The derivative of output 0 along a direction v, as a function of theta and v, (2 P,)."""
        return Runner(tangent(self.graph), self.fuse, self.tile, self.dtype)

    def outputs(
        self, theta: Array, arrays: Arrays, batch: int, executor: Executor | None = None
    ) -> Array:
        """Every output for every sample, (M, B)."""
        with np.errstate(all="ignore"):
            tasks = self._able(theta)._tasks(theta, arrays, batch, 0, executor)
            return _joined(list(_results(_outputs, tasks, executor)))

    def gradient(
        self,
        theta: Array,
        arrays: Arrays,
        batch: int,
        divisor: float,
        aux: bool,
        executor: Executor | None = None,
    ) -> tuple[float, Array, Array | None]:
        """The sum of output 0 over the batch, by `divisor`, its gradient (P,), and with `aux`
        every output, (M, B)."""
        if self._able(theta) is not self:
            return self._unfused.gradient(theta, arrays, batch, divisor, aux, executor)
        work = _gradient_and_outputs if aux else _gradient
        attempts = [False, True] if self.fuse else [False]  # exact or not; plain does both itself
        with np.errstate(all="ignore"):
            if self.fuse and not aux and batch <= self.plan.tile:
                # The usual call in training, by the short way: what a task costs would show.
                exact = attempts.pop(0)
                value, gradient = self.plan.gradient(theta, arrays, batch, batch, divisor, exact)
                if isfinite(value) and all_finite(gradient):
                    return value, gradient, None
            for exact in attempts:
                tasks = self._tasks(
                    theta, arrays, batch, FROM_PARAMETERS, executor, aux, divisor, exact
                )
                if len(tasks) == 1 and not self.fuse:
                    break  # it is the whole of what comes below
                value, gradient, outputs = (
                    work(tasks[0]) if len(tasks) == 1 else _total(_results(work, tasks, executor))
                )
                if isfinite(value) and all_finite(gradient):
                    return value, gradient, outputs
            every, gradient = self.plain.gradient(theta, _rows(arrays, batch), 1 / divisor)
            value = np.add.reduce(every[0]) / divisor
            if not isfinite(value):  # a mean may be finite where the sum is not
                value = np.add.reduce(every[0] / divisor)
            return float(value), gradient, every if aux else None

    def input_gradients(
        self, theta: Array, arrays: Arrays, batch: int, executor: Executor | None = None
    ) -> tuple[float, Array]:
        """The sum of output 0, and its gradient to the inputs, per sample, (K, B)."""
        with np.errstate(all="ignore"):
            tasks = self._able(theta)._tasks(theta, arrays, batch, FROM_INPUTS, executor)
            values, gradients = zip(*_results(_input_gradients, tasks, executor))
            return sum(values), _joined(gradients)

    def parameter_gradients(
        self, theta: Array, arrays: Arrays, batch: int, executor: Executor | None = None
    ) -> tuple[float, Array]:
        """The sum of output 0, and its gradient to the parameters, per sample, (P, B)."""
        everywhere = np.broadcast_to(theta, (batch, len(theta)))
        value, gradients = self._per_sample.input_gradients(
            theta[:0], [*arrays, everywhere], batch, executor
        )
        return value, gradients[len(self.graph.inputs) :]

    def _tasks(
        self,
        theta: Array,
        arrays: Arrays,
        batch: int,
        wanted: int,
        executor: Executor | None,
        aux: bool = True,
        divisor: float = 1.0,
        exact: bool = False,
    ) -> list[Task]:
        """The shards of a batch: the same whoever runs them, so results are the same to the bit.

        `wanted` says to what gradients go, and `aux` whether outputs are returned. Raises
        OutOfMemoryError where the call would need too much.
        """
        tile = self.plan.width(batch) if self.fuse else min(self.plain.tile, batch)
        size = SHARD * tile
        shards = -(-batch // size)
        results = len(self.graph.inputs if wanted == FROM_INPUTS else self.graph.outputs) * aux
        per_sample = 2 * results * self.dtype.itemsize  # the shards', and the whole
        require_samples(batch, per_sample, "results")
        workers = min(shards, getattr(executor, "_max_workers", None) or 1)
        sweeps = self.plan if self.fuse else self.plain
        sweeps.admit(tile, wanted, exact, workers, batch * per_sample)
        if batch <= size:
            return [Task(self, theta, arrays, batch, tile, divisor, exact)]
        tasks = []
        for a in range(0, batch, size):
            part = [array[a : a + size] for array in arrays]
            tasks.append(Task(self, theta, part, min(size, batch - a), tile, divisor, exact))
        return tasks


class Task(NamedTuple):
    """A shard of a call, as executors send it elsewhere."""

    runner: Runner
    theta: Array
    arrays: Arrays
    batch: int
    tile: int
    divisor: float
    exact: bool


@lru_cache(maxsize=8)  # a worker meets the same program with every task
def _restored(pickled: bytes) -> Runner:
    return Runner(*pickle.loads(pickled))


# --- what is asked of a shard; functions of a module, as executors may send them elsewhere ------


def _results(
    work: Callable[[Task], Any], tasks: list[Task], executor: Executor | None
) -> Iterator[Any]:
    """What `work` makes of each task, in order: by the executor, or right here."""
    if executor is None or len(tasks) == 1:
        yield from map(work, tasks)
        return
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            waiting.append(executor.submit(_quiet, work, task))
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


def _total(parts: Iterable[Any]) -> tuple[float, Array, Array | None]:
    """The sums of values and gradients, as they come, and all outputs side by side."""
    value, gradient, columns = 0.0, None, []
    for more, part, outputs in parts:
        value, gradient = value + more, part if gradient is None else gradient + part
        columns.append(outputs)
    assert gradient is not None
    return value, gradient, None if columns[0] is None else _joined(columns)


def _quiet(work: Callable[[Task], Any], task: Task) -> Any:
    with np.errstate(all="ignore"):  # which each thread has to say for itself
        return work(task)


def _outputs(task: Task) -> Array:
    runner, theta, arrays, batch, tile, _, _ = task
    if not runner.fuse:
        return runner.plain.outputs(theta, _rows(arrays, batch))
    outputs = runner.plan.outputs(theta, arrays, batch, tile)
    return _with_exact(outputs, PlainSweep.outputs, task)


def _gradient(task: Task) -> tuple[float, Array, None]:
    runner, theta, arrays, batch, tile, divisor, exact = task
    if not runner.fuse:
        value, gradient, _ = _gradient_and_outputs(task)
    else:
        value, gradient = runner.plan.gradient(theta, arrays, batch, tile, divisor, exact)
    return value, gradient, None


def _gradient_and_outputs(task: Task) -> tuple[float, Array, Array]:
    runner, theta, arrays, batch, tile, divisor, exact = task
    if not runner.fuse:
        outputs, gradient = runner.plain.gradient(theta, _rows(arrays, batch), 1 / divisor)
        return float(np.add.reduce(outputs[0]) / divisor), gradient, outputs
    outputs = np.empty((len(runner.graph.outputs), batch), runner.dtype)
    value, gradient = runner.plan.gradient(theta, arrays, batch, tile, divisor, exact, outputs)
    return value, gradient, _with_exact(outputs, PlainSweep.outputs, task)


def _input_gradients(task: Task) -> tuple[float, Array]:
    runner, theta, arrays, batch, tile, _, _ = task
    if not runner.fuse:
        return runner.plain.input_gradients(theta, _rows(arrays, batch))
    for exact in (False, True):
        value, gradients = runner.plan.input_gradients(theta, arrays, batch, tile, exact)
        if runner.plan.fused.unguarded and not isfinite(value):
            return runner.plain.input_gradients(theta, _rows(arrays, batch))
        if np.isfinite(gradients).all():
            return value, gradients
    return value, _with_exact(gradients, lambda *call: PlainSweep.input_gradients(*call)[1], task)


def _with_exact(results: Array, sweep: Callable[..., Array], task: Task) -> Array:
    """The same, what belongs to samples that are not finite everywhere computed by `sweep`."""
    finite = np.isfinite(results)
    if not finite.all():
        again = np.flatnonzero(~finite.all(axis=0))
        inputs = _rows([array[again] for array in task.arrays], len(again))
        results[:, again] = sweep(task.runner.plain, task.theta, inputs)
    return results


def _joined(parts: Sequence[Array]) -> Array:
    """(M, B) from the shards' parts of it."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def all_finite(gradient: Array) -> bool:
    """Whether all numbers of (P,) are; their square is quicker to look at, but may overflow."""
    return isfinite(gradient.dot(gradient)) or bool(np.isfinite(gradient).all())


def _rows(arrays: Arrays, batch: int) -> Array:
    """The inputs as the plain sweep takes them, (K, B)."""
    if not arrays:
        return np.empty((0, batch))
    return np.concatenate([x.reshape(batch, -1).T for x in arrays])
