"""One call of a runner: which sweep runs, on what part of the batch, and where."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array
from ..errors import WorkerError
from ..flat import FROM_INPUTS, FROM_PARAMETERS, require_samples
from .runner import Runner

Ints = NDArray[np.intp]

SHARD = 2  # tiles; what one task of an executor takes
WAITING = 64  # tasks that an executor is given ahead
FEW = 1024  # samples; of more, those whose numbers are not finite are worth a sweep of their own


class Call(NamedTuple):
    """What a runner is called with: theta (P,), and B samples, an array for each argument.

    The arrays are (B, numbers), or (B,) for a single number. An executor may compute the parts.
    """

    runner: Runner
    theta: Array
    arrays: Sequence[Array]
    batch: int
    executor: Executor | None = None

    def outputs(self) -> Array:
        """Every output for every sample, (M, B)."""
        outputs: Array = _settled(_Columns(self, _outputs, 0))
        return outputs

    def gradient(self, divisor: float, aux: bool = False) -> tuple[float, Array, Array | None]:
        """The sum of output 0 over the batch, by `divisor`, its gradient (P,), and with `aux`
        every output, (M, B)."""
        runner, theta, arrays, batch, _ = self
        total = None
        if not aux and runner.can_fuse(theta) and batch <= runner.quick.tile:
            # Hot path: the usual call in training, without what a task and a question cost.
            with np.errstate(all="ignore"):
                total = runner.quick.gradient(theta, arrays, batch, batch, divisor)
                if is_finite(*total):
                    return (*total, None)
        value, gradient, outputs = _settled(_Total(self, divisor, aux, total))
        if outputs is not None and self.can_fuse:
            outputs = _settled(_Columns(self, _outputs, 0, outputs))
        return value, gradient, outputs

    def input_gradients(self) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the inputs, per sample, (K, B)."""
        found = _settled(_Columns(self, _input_gradients, FROM_INPUTS))
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

    @property
    def is_one_shard(self) -> bool:
        """Whether the plain sweep has all samples in one piece anyway."""
        return self.batch <= SHARD * self.runner.plain.width(self.batch)

    def results(
        self, work: Work, name: str, wanted: int, rows: int = 0, divisor: float = 1.0
    ) -> Iterator[Any]:
        """What `work` makes of each shard of the batch, by the sweep of this name.

        Shards are the same whoever runs them, so results are the same to the bit. `wanted` says to
        what gradients go, and `rows` how many numbers are returned for each sample. Raises
        OutOfMemoryError where the call would need too much.
        """
        sweep, batch = self.runner.sweep(name), self.batch
        tile = sweep.width(batch)
        size = SHARD * tile
        per_sample = 2 * rows * self.runner.dtype.itemsize  # the shards', and the whole
        require_samples(batch, per_sample, "results")
        workers = min(-(-batch // size), getattr(self.executor, "_max_workers", None) or 1)
        sweep.admit(tile, wanted, workers, batch * per_sample)
        tasks = []
        for a in range(0, batch, size):
            part = self if batch <= size else self.some(slice(a, a + size))
            task = Task(self.runner, name, self.theta, part.arrays, part.batch, tile, divisor)
            tasks.append(task)
        return _in_order(work, tasks, self.executor)

    def some(self, samples: Any) -> Call:
        """The call with these samples alone."""
        arrays = [array[samples] for array in self.arrays]
        return self._replace(arrays=arrays, batch=len(arrays[0]) if arrays else self.batch)


def is_finite(value: float, gradient: Array) -> bool:
    """Whether the value and all of the gradient (P,) are finite. Hot path."""
    if not isfinite(value):
        return False  # the square of the gradient is quicker to look at, but may overflow
    return isfinite(gradient.dot(gradient)) or bool(np.isfinite(gradient).all())


# --- which sweep ---------------------------------------------------------------------------------


def _settled(question: Question) -> Any:
    """The answer of one sweep after the other, until what they find is finite."""
    call = question.call
    with np.errstate(all="ignore"):
        for name in ("quick", "careful", "plain") if call.can_fuse else ("plain",):
            if not question.is_settled and question.may_gain(name):
                question.ask(name)
    return question.answer


class Question:
    """What is asked of the sweeps, and what they have answered so far."""

    call: Call
    answer: Any
    is_settled = False

    def may_gain(self, name: str) -> bool:
        """Whether the sweep of this name may find other numbers than those before it."""
        raise NotImplementedError

    def ask(self, name: str) -> None:
        """Ask it for what is still not finite."""
        raise NotImplementedError


class _Columns(Question):
    """Numbers of every sample, (n, B), output 0 first; some may have been found already.

    `wanted` says to what gradients go; 0 if these are outputs.
    """

    def __init__(self, call: Call, work: Work, wanted: int, answer: Array | None = None) -> None:
        self.call, self.work, self.wanted, self.answer = call, work, wanted, answer
        if answer is not None:
            self._look(answer, np.arange(call.batch))

    def may_gain(self, name: str) -> bool:
        if self.answer is None or name == "plain":
            return True
        # The careful sweep differs from the quick one on the way back alone.
        return bool(self.wanted) and bool(np.isfinite(self.answer[0, self.left]).any())

    def ask(self, name: str) -> None:
        call = self.call
        if self.answer is None:
            self.answer, self.left = self._found(name, call), np.arange(call.batch)
        elif name == "careful" and call.batch <= call.runner.careful.tile:
            # of all samples, as buffers for so many are there
            self.answer[:, self.left] = self._found(name, call)[:, self.left]
        else:
            self.answer[:, self.left] = self._found(name, call.some(self.left))
        self._look(self.answer, self.left)

    def _look(self, numbers: Array, samples: Ints) -> None:
        """Note which of these samples are still to be asked for."""
        if np.isfinite(numbers).all():
            self.is_settled = True
        else:
            self.left = samples[~np.isfinite(numbers[:, samples]).all(axis=0)]

    def _found(self, name: str, call: Call) -> Array:
        graph = call.runner.graph
        rows = 1 + len(graph.inputs) if self.wanted else len(graph.outputs)
        parts = [*call.results(self.work, name, self.wanted, rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class _Total(Question):
    """The sum of output 0 over the batch, its gradient, and with `aux` every output of the first.

    Gradients of all samples must meet before they go through what is shared, as they may cancel
    where that has a singularity. So what has the last word has all of them in one piece.
    """

    def __init__(
        self, call: Call, divisor: float, aux: bool, found: tuple[float, Array] | None
    ) -> None:
        self.call, self.divisor, self.aux = call, divisor, aux
        self.answer: tuple[float, Array, Array | None] | None = None
        if found is not None:
            self.take(*found)

    def take(self, value: float, gradient: Array, outputs: Array | None = None) -> None:
        """Take this for the answer, which is settled if it is finite."""
        if outputs is None and self.answer is not None:
            outputs = self.answer[2]
        self.answer = value, gradient, outputs
        self.is_settled = is_finite(value, gradient)

    def may_gain(self, name: str) -> bool:
        if self.answer is None or name == "plain":
            return True
        return name == "careful" and isfinite(self.answer[0])  # which differs on the way back alone

    def ask(self, name: str) -> None:
        if self.answer is None or name != "plain":
            self.take(*self._sum(self.call, name, self.aux and self.answer is None))
            if name != "plain" or self.is_settled or self.call.is_one_shard:
                return
        if not self._ask_in_two():
            assert self.answer is not None
            outputs = self.answer[2]
            self.take(*self._plain(self.call, outputs), outputs)

    def _ask_in_two(self) -> bool:
        """Have the plain sweep run for those samples alone that need it; whether that is enough.

        The others' gradients must be finite: then nothing of what is shared is singular, and it
        makes no difference where they meet.
        """
        call = self.call
        if not call.can_fuse or call.batch <= FEW:
            return False
        parts = call.results(_doubtful, "careful", FROM_PARAMETERS)
        doubtful = np.concatenate([*parts])
        if doubtful.all() or not doubtful.any():
            return False
        value, gradient, _ = self._sum(call.some(~doubtful), "careful", False)
        if not is_finite(value, gradient):
            return False
        more, part = self._plain(call.some(doubtful))
        self.take(value + more, gradient + part)
        return True

    def _plain(self, call: Call, outputs: Array | None = None) -> tuple[float, Array]:
        sweep, theta, arrays, batch = call.runner.plain, call.theta, call.arrays, call.batch
        return sweep.gradient(theta, arrays, batch, sweep.width(batch), self.divisor, outputs)

    def _sum(self, call: Call, name: str, aux: bool) -> tuple[float, Array, Array | None]:
        """The sums of values and gradients of all tasks, and the outputs side by side."""
        work = _gradient_and_outputs if aux else _gradient
        rows = aux * len(call.runner.graph.outputs)
        value, gradient, columns = 0.0, None, []
        for more, part, outputs in call.results(work, name, FROM_PARAMETERS, rows, self.divisor):
            value, gradient = value + more, part if gradient is None else gradient + part
            columns.append(outputs)
        assert gradient is not None
        return value, gradient, np.concatenate(columns, axis=1) if aux else None


# --- what part of the batch, and where -----------------------------------------------------------


class Task(NamedTuple):
    """A shard of a call, for one sweep, as executors send it elsewhere."""

    runner: Runner
    sweep: str
    theta: Array
    arrays: Sequence[Array]
    batch: int
    tile: int
    divisor: float

    @property
    def arguments(self) -> tuple[Array, Sequence[Array], int, int]:
        """Those of every method of a sweep."""
        return self.theta, self.arrays, self.batch, self.tile


Work = Callable[[Task], Any]  # a function of this module, as executors may send it elsewhere


def _outputs(task: Task) -> Array:
    return task.runner.sweep(task.sweep).outputs(*task.arguments)


def _input_gradients(task: Task) -> Array:
    return task.runner.sweep(task.sweep).input_gradients(*task.arguments)


def _doubtful(task: Task) -> NDArray[np.bool_]:
    return task.runner.careful.doubtful(*task.arguments)


def _gradient(task: Task) -> tuple[float, Array, None]:
    sweep = task.runner.sweep(task.sweep)
    return (*sweep.gradient(*task.arguments, task.divisor), None)


def _gradient_and_outputs(task: Task) -> tuple[float, Array, Array]:
    runner = task.runner
    outputs = np.empty((len(runner.graph.outputs), task.batch), runner.dtype)
    sweep = runner.sweep(task.sweep)
    return (*sweep.gradient(*task.arguments, task.divisor, outputs), outputs)


def _quiet(work: Work, task: Task) -> Any:
    with np.errstate(all="ignore"):  # which each thread has to say for itself
        return work(task)


def _in_order(work: Work, tasks: list[Task], executor: Executor | None) -> Iterator[Any]:
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
