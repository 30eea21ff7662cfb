"""A rolled plan bound to buffers: each turn's calls once, and every piece's numbers in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array, count
from ..flat import BATCHED, FROM_INPUTS, FROM_PARAMETERS, SHARED, Rows, needed, origins
from .bound import Bound
from .calls import Calls, Source
from .fuse import Ints, Mask
from .kernels import Kernel
from .rolled import RolledPlan


class TurnBound(Bound):
    """A plan bound for turns: the gradients of all its outputs arrive in `seeds`, (m, B) or (m,).

    `moving` are the arrays that a piece keeps from its forward to its backward.
    """

    moving: Sequence[Array] = ()

    def _bind_gradients(self, kernels: list[Kernel], calls: Calls, objective: Rows) -> None:
        super()._bind_gradients(kernels, calls, Rows(objective.buffer, self.results))
        kept = [x.array for x in calls.kept.values() if not x.constant]
        self.moving = [calls.values[BATCHED].reshape(-1, self.width), *kept]

    def _seed(self, calls: Calls, objective: Rows) -> Source:
        shape = objective.shape + calls.tail[objective.buffer]
        self.seeds = calls.lasting(shape, 0.0)
        return Source(self.seeds)

    @property
    def results(self) -> Ints:
        """The rows of the outputs."""
        rows: Ints = self._outputs[SHARED if self._is_shared else BATCHED][1]
        return rows

    def values(self, out: Array | None = None) -> Array:
        """The outputs, (m, B)."""
        memory = self._shared[:, None] if self._is_shared else self._batch
        return memory.take(self.results, 0, out, "clip")

    def sample_gradients(self) -> Array:
        """The gradients of the inputs, (k, B)."""
        (rows,) = self._inputs
        gradients: Array = self._gradients[rows]
        return gradients

    def number_gradients(self) -> Array:
        """The gradients of the parameters, (s,), over all tiles since the start."""
        for call in self._finish:
            call()
        gradients: Array = self._totals[self._parameters]
        return gradients


class Piece(NamedTuple):
    """A piece of a graph, bound: where its turn reads and writes."""

    turn: TurnBound
    samples: Ints  # the rows that it reads,
    numbers: Ints | None  # the numbers, if those of another piece of the turn differ,
    writes: slice  # and the rows that it writes
    kept: list[Array]  # what its turn has to have again for its backward, if it has one


class RolledBound(Bound):
    """A rolled plan, bound to buffers; its methods are those of a bound plan.

    Of every number that pieces read from outside there is a row, of values and of gradients.
    """

    def __init__(
        self, plan: RolledPlan, width: int, wanted: int, careful: bool, dtype: np.dtype[Any]
    ) -> None:
        self.width, self.wanted = width, wanted
        self.count, self.used, self.tiles = width, 0, 0
        graph, place = plan.graph, plan.place
        self._inputs_to = np.cumsum([0, *map(count, graph.input_shapes)]).tolist()
        self._parameter_count = len(graph.parameters)
        self._samples = np.zeros((len(plan.samples), width), dtype)
        self._numbers = graph.value[plan.numbers].astype(dtype)
        self._batched = (origins(graph)[graph.outputs] & FROM_INPUTS) > 0
        self._rows = place[graph.outputs]
        self._turns = [TurnBound(x.plan, width, wanted, careful, dtype) for x in plan.turns]
        self._alone: TurnBound | None = None
        if plan.shared is not None:
            self._alone = TurnBound(plan.shared.plan, 1, wanted & FROM_PARAMETERS, careful, dtype)
        needs = needed(graph, graph.outputs[:1])
        self._once: list[tuple[TurnBound, Ints]] = []  # turns whose numbers stay the same
        for turn, bound in zip(plan.turns, self._turns):
            if not (turn.numbers != turn.numbers[0]).any():
                self._once.append((bound, place[turn.numbers[0]]))
        once = [bound for bound, _ in self._once]
        self._pieces: list[Piece] = []
        for k, piece in plan.order:
            turn, bound = plan.turns[k], self._turns[k]
            leaving = place[turn.leaving[piece]]
            is_wanted = bool(wanted and needs[turn.nodes[piece]].any())
            self._pieces.append(
                Piece(
                    bound,
                    place[turn.samples[piece]],
                    None if bound in once else place[turn.numbers[piece]],
                    slice(int(leaving[0]), int(leaving[0]) + len(leaving)),
                    [np.empty_like(x) for x in bound.moving] if is_wanted else [],
                )
            )
        if wanted:
            self._grads = np.zeros_like(self._samples)
            self._number_grads = np.zeros_like(self._numbers)
        arrays = [self._samples, self._numbers] * (2 if wanted else 1)
        arrays += [array for piece in self._pieces for array in piece.kept]
        bounds = self._turns if self._alone is None else [*self._turns, self._alone]
        self.nbytes = sum(x.nbytes for x in arrays) + sum(x.nbytes for x in bounds)

    def start(self, theta: Array) -> None:
        """Compute what no input reaches."""
        self._numbers[: len(theta)] = theta
        self.tiles, self._value = 0, -0.0
        self._is_sound = True
        if self._alone is not None:
            self._alone.start(theta)
            self._alone.forward([])
            results = self._alone.values()[:, 0]
            self._numbers[len(self._numbers) - len(results) :] = results
            self._is_sound = self._alone._lost is None
        for turn, numbers in self._once:
            turn.start(self._numbers[numbers])
        if self.wanted:
            self._number_grads.fill(0.0)

    def forward(self, arrays: Iterable[Array]) -> None:
        """Compute the batched values for the samples of one tile, or of fewer."""
        arrays = [*arrays]
        samples, width = self._samples, self.width
        self.count = len(arrays[0]) if arrays else width
        if self.count < width:  # copies of the last sample fill it up
            arrays = [x.take(np.arange(width), 0, None, "clip") for x in arrays]
        for a, b, array in zip(self._inputs_to, self._inputs_to[1:], arrays):
            samples[a:b] = array.T
        lost = np.full(width, not self._is_sound)
        for turn, reads, numbers, writes, kept in self._pieces:
            if numbers is not None:
                turn.start(self._numbers.take(numbers))
            turn.forward([samples.take(reads, 0).T])
            if turn._lost is not None:
                lost |= turn._lost
            turn.values(samples[writes])
            for array, moving in zip(kept, turn.moving):
                np.copyto(array, moving)
        self._lost = lost if lost.any() else None
        self._of_tile = nan if self._lost is not None else float(self._objective().sum())

    def backward(self) -> None:
        """Carry the gradient of output 0 back to the inputs, or to the numbers."""
        self._carry(None)
        self.tiles += 1
        self._value += self._of_tile

    def _carry(self, finite: Mask | None) -> None:
        """The same; of `finite` (B,) those samples remain all of whose gradients are finite."""
        grads, number_grads = self._grads, self._number_grads
        grads.fill(0.0)
        place = self._rows[0]
        if self._batched[0]:
            grads[place, : self.count] = 1.0
        else:
            number_grads[place] += self.count
        for turn, reads, numbers, writes, kept in reversed(self._pieces):
            if not kept:
                continue
            if numbers is not None:
                turn.start(self._numbers.take(numbers))
            for array, moving in zip(kept, turn.moving):
                np.copyto(moving, array)
            turn.seeds[...] = grads[writes].reshape(turn.seeds.shape)
            turn.backward()
            grads[reads] += turn.sample_gradients()
            if numbers is not None:
                number_grads[numbers] += turn.number_gradients()
            if finite is not None:
                finite &= np.isfinite(turn._gradients).all(axis=0)

    def finish(self, divisor: float) -> tuple[float, Array]:
        """The sum of output 0 over all tiles, by `divisor`, and its gradient to the parameters."""
        gradient = self._number_grads
        for turn, numbers in self._once:
            if turn.tiles:
                gradient[numbers] += turn.number_gradients()
        total = gradient[: self._parameter_count]
        if self._alone is not None:
            self._alone.seeds[:] = gradient[len(gradient) - len(self._alone.seeds) :]
            self._alone.backward()
            total = total + self._alone.number_gradients()
        return self._value / divisor, total * (1.0 / divisor)

    def _objective(self) -> Array:
        """(count,) output 0."""
        if self._batched[0]:
            return self._samples[self._rows[0], : self.count]
        return np.full(self.count, self._numbers[self._rows[0]])

    def read(self, outputs: Array) -> None:
        """Every output of the tile, into (M, count)."""
        batched, rows, count = self._batched, self._rows, self.count
        outputs[batched] = self._samples[rows[batched], :count]
        outputs[~batched] = self._numbers[rows[~batched], None]
        if self._lost is not None:
            outputs[:, self._lost[:count]] = nan

    def read_gradients(self, result: Array) -> None:
        """Output 0 and the gradients of the inputs, into (1 + K, count)."""
        result[0] = self._objective()
        result[1:] = self._grads[: len(result) - 1, : self.count]
        if self._lost is not None:
            result[:, self._lost[: self.count]] = nan

    def doubtful(self) -> Mask:
        """(count,) for which samples output 0, or any gradient, is not finite."""
        finite = np.ones(self.width, bool) if self._lost is None else ~self._lost
        self._carry(finite)
        return ~(finite[: self.count] & np.isfinite(self._objective()))
