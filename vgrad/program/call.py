"""One call of a runner: which sweep runs, on which part of the batch, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array
from ..flat import FROM_INPUTS, FROM_PARAMETERS, require_samples
from .arrays import like, taken
from .runner import Runner
from .work import Total, Work
from .workers import results, workers_of

SHARD = 2  # tiles
SHORT = 8192  # numbers
FEW = 1024  # samples; of more, those whose numbers are not finite are worth a sweep of their own


class Call(NamedTuple):
    """A runner and its arguments: theta (P,), and B samples, one array per argument.

    Arrays are (B, numbers), or (B,) for a single number. An executor, if any, computes large
    batches. A list of doubts takes the samples whose first answer was not finite. `numbers` are
    those of the samples in the batch that a user gave, if they are only a part of it. `shared` are
    the arguments that are the same for every sample: their arrays have no memory of their own.
    """

    runner: Runner
    theta: Array
    arrays: Sequence[Array]
    batch: int
    executor: Executor | None = None
    doubts: list[Any] | None = None
    numbers: Any = None
    shared: tuple[int, ...] = ()

    def outputs(self) -> Array:
        """Every output for every sample, (M, B)."""
        call = self.sharing() if self.shared else self
        return call._columns("outputs", 0)

    def sharing(self) -> Call:
        """The call in which what all samples share are parameters, behind theta: computed once."""
        own = [x for i, x in enumerate(self.arrays) if i not in self.shared]
        common = [np.ravel(self.arrays[i][0]).astype(self.theta.dtype) for i in self.shared]
        return self._replace(
            runner=self.runner.sharing(self.shared),
            theta=np.concatenate([self.theta, *common]),
            arrays=own,
            shared=(),
        )

    def gradient(self, divisor: float, aux: bool = False) -> Total:
        """The sum of output 0 over the batch, divided, and its gradient (P,).

        With `aux` also every output, (M, B). Of a path, without `aux`, the answers of its samples,
        (Q, B), or (0, B) if all follow it; those that do not do not count.
        """
        if self.shared:
            value, gradient, outputs = self.sharing().gradient(divisor, aux)
            return value, gradient[: len(self.theta)], outputs
        runner, theta, arrays, batch = self[:4]
        found: Total | None = None
        first = runner.first(theta, batch)
        if first != "plain" and not aux and batch <= (sweep := runner.sweep(first)).tile:
            # Hot path: the usual call in training skips shards and questions.
            with np.errstate(all="ignore"):
                found = sweep.gradient(theta, arrays, batch, sweep.tile_for(batch), divisor)
                if is_finite(found[0], found[1]):
                    return found
        value, gradient, outputs = _settled(_Total(self, divisor, aux, found))
        if aux and first != "plain":
            outputs = _settled(_Columns(self, "outputs", 0, outputs))
        return value, gradient, outputs

    def strict_gradient(self) -> Array:
        """The gradient (P,) of the mean of output 0 by the strict sweep."""
        question = _Total(self, self.batch, False, None)
        with np.errstate(all="ignore"):
            question.ask("strict")
        gradient: Array = question.answer[1]
        return gradient

    def input_gradients(self, strict: bool = False) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the inputs, per sample, (K, B)."""
        found = self.input_columns(strict)
        return found[0], found[1 : 1 + len(self.runner.graph.inputs)]

    def input_columns(self, strict: bool = False) -> Array:
        """The same, and below it the sample's answers to a path's questions, (1 + K + Q, B)."""
        if not strict:
            return self._columns("input_gradients", FROM_INPUTS)
        question = _Columns(self, "input_gradients", FROM_INPUTS)
        question.ask("strict")
        found: Array = question.answer
        return found

    def _columns(self, method: str, wanted: int) -> Array:
        """Numbers of every sample, (n, B), by a method of the sweeps."""
        runner, theta, arrays, batch = self[:4]
        first, found = runner.first(theta, batch), None
        rows = len(runner.graph.inputs if wanted else runner.graph.outputs)
        few = first != "plain" and rows * batch <= SHORT
        if few and batch <= (sweep := runner.sweep(first)).tile:
            # Hot path: what fits into a tile, and is finite, skips shards and questions.
            with np.errstate(all="ignore"):
                found = getattr(sweep, method)(theta, arrays, batch, sweep.tile_for(batch))
                if _are_finite(found.reshape(-1)):
                    return found  # type: ignore[no-any-return]
        answer: Array = _settled(_Columns(self, method, wanted, found))
        return answer

    def parameter_gradients(self, strict: bool = False) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the parameters, per sample, (P, B)."""
        found = self.parameter_columns(strict)
        return found[0], found[1 : 1 + len(self.theta)]

    def parameter_columns(self, strict: bool = False) -> Array:
        """The same, and below it the sample's answers to a path's questions, (1 + P + Q, B)."""
        everywhere = np.broadcast_to(self.theta, (self.batch, len(self.theta)))
        twin, none = self.runner.per_sample, self.theta[:0]
        call = self._replace(runner=twin, theta=none, arrays=[*self.arrays, everywhere])
        found, inputs = call.input_columns(strict), len(self.runner.graph.inputs)
        return np.delete(found, slice(1, 1 + inputs), axis=0)

    def parts(self) -> Iterator[Call]:
        """The calls that the samples are parted into, one for each path: this one alone."""
        yield self

    def located(self, sample: int) -> tuple[Call, int]:
        """The part that a sample is in, and its number there."""
        return self, sample

    def number(self, sample: int) -> int:
        """Which sample of the user's batch this one is."""
        return sample if self.numbers is None else int(self.numbers[sample])

    def at(self, theta: Array, arrays: Sequence[Array]) -> Call:
        """The call of other numbers, none of them shared: arrays of all samples, (B, ...)."""
        theta, *rows = like([self.theta, *self.arrays], [theta, *arrays])
        return self._replace(theta=theta, arrays=rows, shared=())

    def some(self, samples: Any) -> Call:
        """The call with these samples alone, a slice of them or their numbers."""
        batch = len(np.broadcast_to(0.0, self.batch)[samples])  # without memory of its own
        return self._replace(arrays=taken(self.arrays, samples, batch, self.shared), batch=batch)

    def swept(
        self,
        name: str,
        method: str,
        wanted: int,
        rows: int = 0,
        options: tuple[Any, ...] = (),
    ) -> Any:
        """What a method of the named sweep gives for the batch, here or by the executor's tasks.

        Shards and the order of sums are the same whoever runs them, so results are the same to the
        bit. `wanted` says where gradients go, and `rows` how many numbers each sample returns.
        Raises OutOfMemoryError if the call would need too much.
        """
        runner, theta, arrays, batch, executor, *_ = self
        sweep = runner.sweep(name)
        tile = sweep.tile_for(batch)  # here, so that it is the same for whoever runs them
        work = Work(name, method, tile, SHARD * tile, options)
        per_sample = 2 * rows * runner.dtype.itemsize  # the parts', and the whole
        require_samples(batch, per_sample, "results")
        if executor is None or batch <= work.shard:
            sweep.admit(min(tile, batch), wanted, 1, batch * per_sample)
            return work.run(runner, theta, arrays, batch)
        busy = min(-(-batch // work.shard), workers_of(executor))
        sweep.admit(min(tile, batch), wanted, busy, batch * per_sample)
        parts = results(executor, work, runner, theta, arrays, batch)
        return work.joined(parts, batch, runner.graph)


def is_finite(value: float, gradient: Array) -> bool:
    """Whether the value and all of the gradient (P,) are finite. Hot path."""
    if not isfinite(value):
        return False  # the square of the gradient is quicker to look at, but may overflow
    return isfinite(gradient.dot(gradient)) or bool(np.isfinite(gradient).all())


def _are_finite(numbers: Array) -> bool:
    """Whether all are finite, as far as their squares tell, which takes a third of the time.

    Of few at a time, which BLAS keeps in one thread: others, where cores are busy, take longer to
    wake up than the numbers do.
    """
    parts = (numbers[start : start + SHORT] for start in range(0, len(numbers), SHORT))
    return all(isfinite(part.dot(part)) for part in parts)


# --- which sweep ---------------------------------------------------------------------------------


def _settled(question: _Columns | _Total) -> Any:
    """The answer of the first sweep that finds it finite, or of the last.

    The careful sweep goes forward as the quick one does, so it is asked only if a value is finite
    whose gradient is not.
    """
    call = question.call
    first = call.runner.first(call.theta, call.batch)
    doubtful = slice(None) if first == "plain" else None
    with np.errstate(all="ignore"):
        if question.answer is None:
            question.ask(first)
        question.name = first
        others = call.runner.others(call.theta, first)
        while not question.is_settled() and (name := next(others, None)):
            doubtful = question.left if doubtful is None else doubtful
            if name != "careful" or question.has_value():
                question.ask(name)
                question.name = name
    if call.doubts is not None and doubtful is not None:
        call.doubts.append(doubtful)
    return question.answer


@dataclass
class _Columns:
    """Numbers of every sample, (n, B), output 0 first; a sample that is finite is not asked again.

    `wanted` says where gradients go; it is 0 if these are outputs.
    """

    call: Call
    method: str
    wanted: int
    answer: Any = None
    name = ""  # of the sweep that gave it

    def is_settled(self) -> bool:
        # A finite gradient stands even if output 0 is not finite, unless guards were dropped.
        runner = self.call.runner
        may_hide = runner.fuse and self.name != "floats" and runner.plan.unguarded
        first = int(self.wanted and not may_hide)
        if not runner.fuse and not self.wanted:
            first = len(self.answer)  # outputs of the plain sweep stand
        numbers = self.answer[first:].reshape(-1)
        self.left: Any = []
        if not _are_finite(numbers):
            self.left = np.flatnonzero(~np.isfinite(self.answer[first:]).all(axis=0))
        return not len(self.left)

    def has_value(self) -> bool:
        return bool(self.wanted and np.isfinite(self.answer[0, self.left]).any())

    def ask(self, name: str) -> None:
        call = self.call
        if self.answer is None:
            self.answer = self._found(name, call)
        elif name == "careful" and call.batch <= call.runner.careful.tile:
            # all samples, as buffers of that width exist already
            self.answer[:, self.left] = self._found(name, call)[:, self.left]
        else:
            self.answer[:, self.left] = self._found(name, call.some(self.left))

    def _found(self, name: str, call: Call) -> Array:
        graph = call.runner.graph
        columns = 1 + len(graph.inputs) + len(graph.questions)
        rows = columns if self.wanted else len(graph.outputs)
        found: Array = call.swept(name, self.method, self.wanted, rows)
        return found


@dataclass
class _Total:
    """The sum of output 0 over the batch, its gradient, and with `aux` every output.

    Gradients of all samples must be added up before they pass through shared nodes: at a
    singularity there they may cancel. So the sweep with the last word gets all samples at once.
    """

    call: Call
    divisor: float
    aux: bool
    answer: Any
    name = ""  # of the sweep that gave it
    left = slice(None)

    def is_settled(self) -> bool:
        return is_finite(self.answer[0], self.answer[1])

    def has_value(self) -> bool:
        return isfinite(self.answer[0])

    def ask(self, name: str) -> None:
        call = self.call
        if name == "plain" and self.answer is not None and call.runner.fuse:
            self.answer = self._in_two() or self._by_plain(call)
            return
        self.answer = self._sum(name, call)
        in_pieces = name == "plain" and call.batch > SHARD * call.runner.plain.width(call.batch)
        if in_pieces and not self.is_settled():
            self.answer = self._by_plain(call)

    def _in_two(self) -> Total | None:
        """The answer with the doubtful samples alone from the plain sweep; None if in vain.

        The other samples' gradients must be finite: then no shared node is at a singularity, and it
        makes no difference where gradients are added up.
        """
        call = self.call
        if call.batch <= FEW:
            return None
        doubtful = call.swept("careful", "doubtful", FROM_PARAMETERS)
        if doubtful.all() or not doubtful.any():
            return None
        value, gradient, _ = self._sum("careful", call.some(~doubtful))
        if not is_finite(value, gradient):
            return None
        more, part, _ = self._by_plain(call.some(doubtful))
        return value + more, gradient + part, self.answer[2]

    def _by_plain(self, call: Call) -> Total:
        """The answer of the plain sweep, with all samples in one piece."""
        runner, theta, arrays, batch = call[:4]
        options = self.divisor, self.aux
        work = Work("plain", "gradient", runner.plain.width(batch), batch, options)
        total: Total = work.run(runner, theta, arrays, batch)
        return total

    def _sum(self, name: str, call: Call) -> Total:
        """The sums of values and gradients of all shards, and the outputs side by side."""
        graph = call.runner.graph
        rows = len(graph.outputs if self.aux else graph.questions)
        options = self.divisor, self.aux
        total: Total = call.swept(name, "gradient", FROM_PARAMETERS, rows, options)
        return total
