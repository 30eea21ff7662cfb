"""The sweep on floats: generated Python, for graphs of narrow levels and for few samples.

A NumPy call on three numbers costs a microsecond, Python's own arithmetic on one 10 to 30 ns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import nan
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array
from ..cached import cached_property
from ..flat import (
    FROM_INPUTS,
    FROM_PARAMETERS,
    Form,
    Graph,
    Pieces,
    SweepSummary,
    in_pieces,
    needed,
    origins,
    program_order,
    require_buffers,
)
from .text import FUNCTIONS, Function, Text

Inputs = Sequence[Array]
Ints = NDArray[np.intp]

ERRORS = ArithmeticError, ValueError  # what Python raises for 1 / 0, exp(1000), log(0)
BYTES = 100  # of a node: its value, its gradient, and places for them


class Step(NamedTuple):
    """One piece, ready to run."""

    forward: Callable[..., Any]
    read: Callable[[list[float]], tuple[float, ...]]  # what it reads
    writes: slice
    backward: Callable[..., Any] | None
    at: tuple[int, ...]  # where its gradients go


class FloatSweep:
    """A graph as Python functions of floats, sample by sample; methods are the plain sweep's.

    Values are those of the scalar engine, but for the last bits of functions such as exp; gradients
    are those of the quick plain sweep. Where Python raises an error, as 1 / 0 does, or a number is
    not finite, results are nan, and another sweep is to be asked.
    """

    tile = sys.maxsize  # a batch of any size is one piece of work

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._steps: dict[tuple[int, int], list[Step]] = {}  # replaced by equal ones at worst
        self._p, self._k = len(graph.parameters), len(graph.inputs)

    @cached_property
    def _pieces(self) -> Pieces:
        return in_pieces(self.graph, program_order(self.graph))

    @cached_property
    def _kept(self) -> Ints:
        """The nodes whose numbers are kept: parameters, inputs, constants, what leaves pieces."""
        graph, constants = self.graph, self._pieces.constants(self.graph)
        return np.concatenate([graph.parameters, graph.inputs, constants, self._pieces.leaving])

    @cached_property
    def _place(self) -> Ints:
        """(n,) where among them each node is, -1 if nowhere."""
        place = np.full(len(self.graph), -1)
        place[self._kept] = np.arange(len(self._kept))
        return place

    @cached_property
    def _texts(self) -> list[Text]:
        return [Text(form) for form in self._pieces.forms]

    @cached_property
    def _constants(self) -> list[float]:
        others = self._kept[self._p + self._k :]
        constants: list[float] = self.graph.value[others].tolist()  # of other nodes it is 0
        return constants

    @cached_property
    def _outputs(self) -> list[int]:
        outputs: list[int] = self._place[self.graph.outputs].tolist()
        return outputs

    @cached_property
    def _answers(self) -> list[float]:
        answers: list[float] = self.graph.answers.reshape(-1).tolist()
        return answers

    def _code(self, wanted: int, of: int = 1) -> list[Step]:
        """The pieces in running order, with gradients of the first outputs to `wanted` leaves."""
        if (wanted, of) not in self._steps:
            active = np.zeros(len(self.graph), bool)
            if wanted:
                needs = needed(self.graph, self.graph.outputs[:of])[:-1]
                active = needs & ((origins(self.graph)[:-1] & wanted) > 0)
            pairs = zip(self._pieces.forms, self._texts)
            steps = [step for form, text in pairs for step in self._of_form(form, text, active)]
            self._steps[wanted, of] = [step for _, step in sorted(steps, key=itemgetter(0))]
        return self._steps[wanted, of]

    def _of_form(
        self, form: Form, text: Text, active: NDArray[np.bool_]
    ) -> Iterator[tuple[int, Step]]:
        """The pieces of a form, each with its place in the running order."""
        place, kept, backward = self._place, None, None
        at: list[tuple[int, ...]] = [()] * len(form.nodes)
        if active[form.nodes].any():
            places, slots = (
                np.logical_or.reduce(active[x]).tolist() for x in (form.nodes, form.outside)
            )
            found = text.backward(places, slots)
            kept, backward = found.kept, _compiled("backward", found)
            at = list(map(tuple, place[form.outside[:, found.slots]].tolist()))
        forward = _compiled("forward", text.forward(kept))
        reads = place[form.outside[:, form.slots]].tolist()
        low = place[form.nodes[:, form.leaving[0]]].tolist()
        for order, read, first, into in zip(form.order.tolist(), reads, low, at):
            writes = slice(first, first + len(form.leaving))
            yield order, Step(forward, _getter(read), writes, backward, into)

    # --- hot path --------------------------------------------------------------------------------

    def _samples(self, theta: Array, arrays: Inputs, batch: int) -> Iterator[list[float]]:
        """The numbers of each sample, before any is computed."""
        ahead, behind = theta.tolist(), self._constants
        if not arrays:
            return (ahead + behind for _ in range(batch))
        columns = [x.reshape(batch, -1) for x in arrays]
        rows = columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
        return (ahead + row + behind for row in rows.tolist())

    def _forward(self, steps: list[Step], numbers: list[float]) -> list[Any]:
        """Compute a sample's numbers; returns what the backwards need."""
        kept = []
        for forward, read, writes, backward, _ in steps:
            if backward is None:
                numbers[writes] = forward(*read(numbers))
            else:
                numbers[writes], part = forward(*read(numbers))
                kept.append(part)
        return kept

    def _backward(
        self, steps: list[Step], kept: list[Any], size: int, seeds: Iterable[float] = (1.0,)
    ) -> list[float]:
        """The gradients of all that has a number, if those of the first outputs are `seeds`."""
        grads = [0.0] * size
        for place, seed in zip(self._outputs, seeds):
            grads[place] += seed
        for _, _, writes, backward, at in reversed(steps):
            if backward is not None:
                backward(grads, kept.pop(), at, writes)
        return grads

    def outputs(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Every output for every sample, (M, B)."""
        steps, places = self._code(0), self._outputs
        found = np.full((len(places), batch), nan)
        for k, numbers in enumerate(self._samples(theta, arrays, batch)):
            with suppress(*ERRORS):
                self._forward(steps, numbers)
                found[:, k] = [numbers[place] for place in places]
        return found

    def gradient(
        self, theta: Array, arrays: Inputs, batch: int, tile: int, divisor: float, aux: bool = False
    ) -> tuple[float, Array, Array | None]:
        """The sum of output 0 over the batch, by `divisor`, its gradient (P,), and with `aux`
        every output, (M, B).

        Of a path only the samples that follow it count; without `aux`, their answers come last,
        (Q, B).
        """
        steps, places, answers = self._code(FROM_PARAMETERS), self._outputs, self._answers
        outputs = np.full((len(places), batch), nan) if aux or answers else None
        value, total = 0.0, np.zeros(self._p)
        for k, numbers in enumerate(self._samples(theta, arrays, batch)):
            try:
                kept = self._forward(steps, numbers)
                if outputs is not None:
                    outputs[:, k] = found = [numbers[place] for place in places]
                    if answers and found[-len(answers) :] != answers:
                        continue
                total += self._backward(steps, kept, len(numbers))[: self._p]
                value += numbers[places[0]]
            except ERRORS:
                value = nan
        if outputs is not None and not aux:
            outputs = outputs[len(outputs) - len(answers) :]
        return value / divisor, total / divisor, outputs

    def input_gradients(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Output 0 for every sample, its gradient to the inputs, and the sample's answers to the Q
        questions of a path, (1 + K + Q, B)."""
        steps, places, first = self._code(FROM_INPUTS), self._outputs, self._p
        asked = places[len(places) - len(self._answers) :]
        result = np.full((1 + self._k + len(asked), batch), nan)
        for k, numbers in enumerate(self._samples(theta, arrays, batch)):
            with suppress(*ERRORS):
                kept = self._forward(steps, numbers)
                grads = self._backward(steps, kept, len(numbers))[first : first + self._k]
                result[:, k] = [numbers[places[0]], *grads, *(numbers[x] for x in asked)]
        return result

    def pulled_back(self, theta: Array) -> tuple[Array, Callable[[Array], Array]] | None:
        """The outputs (M,) of a graph without inputs, and a function that takes gradients of these
        back to theta (P,), where they are nan if Python raises an error; None if it does before."""
        steps, places = self._code(FROM_PARAMETERS, of=len(self._outputs)), self._outputs
        (numbers,) = self._samples(theta, [], 1)
        try:
            kept = self._forward(steps, numbers)
        except ERRORS:
            return None

        def back(seeds: Array) -> Array:
            with suppress(*ERRORS):
                grads = self._backward(steps, [*kept], len(numbers), seeds.tolist())
                return np.array(grads[: self._p])
            return np.full(self._p, nan)

        return np.array([numbers[place] for place in places]), back

    # --- what else a sweep tells -----------------------------------------------------------------

    def tile_for(self, batch: int) -> int:
        """The whole batch, as samples are few."""
        return batch

    def admit(self, width: int, wanted: int, workers: int = 1, taken: int = 0) -> None:
        """Raise OutOfMemoryError if a sample would take too much."""
        require_buffers(1, BYTES * len(self.graph), 0, workers, taken)

    def summary(self) -> SweepSummary:
        """The ops of each form as kernels, which stand at the form's number in place of a level."""
        kernels = [x for k, text in enumerate(self._texts, start=1) for x in text.summary(k)]
        n = len(self.graph)
        return SweepSummary(kernels, n, self.graph.outputs, np.arange(n))


def _compiled(name: str, function: Function) -> Callable[..., Any]:
    """A text as a function."""
    names: dict[str, Any] = {**FUNCTIONS, **function.calls}
    exec(compile(function.text, f"<vgrad floats {name}>", "exec"), names)
    compiled: Callable[..., Any] = names[name]
    return compiled


def _getter(places: list[int]) -> Callable[[list[float]], tuple[float, ...]]:
    """What gives the numbers at these places as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0, 0))
