"""A rolled plan bound to buffers: each turn's calls once, and every piece's numbers in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array, count
from ..flat import (
    BATCHED,
    FROM_INPUTS,
    FROM_PARAMETERS,
    SHARED,
    Rows,
    as_slice,
)
from ..floats import FloatSweep
from .arithmetic import Source
from .bound import Bound
from .calls import Calls
from .fuse import Ints, Mask
from .kernels import Kernel
from .lifetimes import KEEP
from .plan import Plan, compile_plan
from .rolled import RolledPlan

KEPT_BYTES = 1 << 22  # which a cache can hold


class TurnBound(Bound):
    """A plan bound for turns: gradients of all its outputs arrive in `seeds`, (m, B) or (m,)."""

    _of_tile = 0.0  # which is added up as the objective would be
    computed: Sequence[Array] = ()  # what a forward leaves for the backward,
    _again: Sequence[Callable[[], Any]] = ()  # and the calls that compute it again

    def _bind_gradients(self, kernels: list[Kernel], calls: Calls, objective: Rows) -> None:
        calls.values_read[:] = False
        super()._bind_gradients(kernels, calls, Rows(objective.buffer, self.results))
        self._again = _needed_calls(calls)
        others = [x.array for x in calls.kept.values() if not x.constant]
        self.computed = [calls.values[BATCHED], *others]

    def _seed(self, calls: Calls, objective: Rows) -> Source:
        shape = objective.shape + calls.tail[objective.buffer]
        self.seeds = calls.lasting(shape, 0.0)
        return Source(self.seeds)

    @property
    def input_gradients(self) -> Ints:
        """Where the gradients of the inputs are."""
        (rows,) = self._gradients
        found: Ints = np.arange(self._batch.shape[0])[rows]
        return found

    @property
    def results(self) -> Ints:
        """The rows of the outputs."""
        parts = self._outputs[SHARED if self._is_shared else BATCHED]
        numbers = np.arange(len(self._shared if self._is_shared else self._batch))
        return np.concatenate([numbers[rows] for _, rows in parts])

    def run(self, samples: Array, reads: Ints, again: bool = False) -> None:
        """Read rows of the samples, (R, B), and compute what follows from them.

        If it is computed `again`, only what the backward needs.
        """
        (rows,) = self._inputs
        if isinstance(rows, slice):
            samples.take(reads, 0, self._batch[rows], "clip")
        else:
            self._batch[rows] = samples.take(reads, 0)
        for call in self._again if again else self._forward:
            call()

    def lost(self) -> Mask | None:
        """(B,) the samples in which a sum may have overflowed; None if there are none."""
        if self._is_small and self._watches[BATCHED].is_small():
            return None
        self._look_closely()
        return self._lost

    def values(self, out: Array | None = None) -> Array:
        """The outputs, (m, B)."""
        memory = self._shared[:, None] if self._is_shared else self._batch
        return memory.take(self.results, 0, out, "clip")

    def number_gradients(self) -> Array:
        """The gradients of the parameters, (s,), over all tiles since the start."""
        for call in self._finish:
            call()
        gradients: Array = self._totals[self._parameters] * self._signs
        return gradients


def _needed_calls(calls: Calls) -> list[Callable[[], Any]]:
    """The forward calls that compute the batched values that adjoints read."""
    needed_rows, found = calls.values_read, []
    for kernel, steps in reversed(calls.forwards):
        if kernel.buffer == BATCHED and (kernel.lasting or needed_rows[kernel.out.flat].any()):
            found.append(steps)
            for rows in kernel.operands:
                if rows.buffer == BATCHED:
                    needed_rows[rows.flat] = True
    return [call for steps in reversed(found) for call in steps]


class Places(NamedTuple):
    """Rows that are read, and whose gradients are added to; some may be named more than once."""

    rows: Ints
    distinct: bool

    def add_to(self, sums: Array, parts: Array) -> None:
        """Add to the rows. Hot path."""
        if self.distinct:
            sums[self.rows] += parts
        else:
            np.add.at(sums, self.rows, parts)


def _places(rows: Ints) -> Places:
    return Places(rows, len(np.unique(rows)) == len(rows))


# From theta (P,): outputs (M,), and what takes their gradients (M,) back to theta.
PulledBack = Callable[[Array], tuple[Array, Callable[[Array], Array]]]


def _pulled_back(
    sweep: Plan | FloatSweep, wanted: int, careful: bool, dtype: np.dtype[Any]
) -> PulledBack:
    """What runs a graph without inputs."""
    if isinstance(sweep, FloatSweep):
        floats, on_arrays = sweep, list[PulledBack]()

        def first_floats(theta: Array) -> tuple[Array, Callable[[Array], Array]]:
            found = floats.pulled_back(theta)
            if found is not None:
                return found
            if not on_arrays:
                plan = compile_plan(floats.graph, dtype=dtype)
                on_arrays.append(_pulled_back(plan, wanted, careful, dtype))
            return on_arrays[0](theta)

        return first_floats
    bound = TurnBound(sweep, 1, wanted and wanted | KEEP, careful, dtype)

    def run(theta: Array) -> tuple[Array, Callable[[Array], Array]]:
        bound.start(theta)
        bound.forward([])
        results = bound.values()[:, 0]
        return np.full_like(results, nan) if bound.lost() is not None else results, back

    def back(seeds: Array) -> Array:
        bound.seeds[:] = seeds
        bound.backward()
        return bound.number_gradients()

    return run


class Piece(NamedTuple):
    """A piece of a graph, bound: where its turn reads and writes."""

    turn: TurnBound
    reads: Ints  # the rows of samples that it reads,
    numbers: Places | None  # the numbers, if those of another piece of the turn differ,
    writes: slice  # and the rows that it writes
    targets: Places | None  # where its gradients go, if the objective depends on it,
    sources: Any  # and the turn's rows that they come from,
    kept: list[Array]  # what the turn has computed, if that is kept


class RolledBound(Bound):
    """A rolled plan, bound to buffers; its methods are those of a bound plan.

    Of every number that pieces read from outside there is a row, of values and of gradients. What
    a piece computes is kept for its backward if a cache can hold that for all of them. Else it is
    computed again, which takes a third of the time of a gradient at most, and to keep it longer.
    """

    def __init__(
        self, plan: RolledPlan, width: int, wanted: int, careful: bool, dtype: np.dtype[Any]
    ) -> None:
        self.width, self.wanted = width, wanted
        self.count, self.used, self.tiles = width, 0, 0
        graph, place, origin = plan.graph, plan.place, plan.origin
        self._inputs_to = np.cumsum([0, *map(count, graph.input_shapes)]).tolist()
        self._parameter_count = len(graph.parameters)
        self._samples = np.zeros((len(plan.samples), width), dtype)
        self._numbers = graph.value[plan.numbers].astype(dtype)
        self._batched = (origin[graph.outputs] & FROM_INPUTS) > 0
        self._rows = place[graph.outputs]
        self._picks = plan.picks
        self._results = len(plan.numbers) - (len(plan.shared.graph.outputs) if plan.shared else 0)
        kept = wanted and wanted | KEEP  # so that a backward finds what the forward computed
        self._turns = [TurnBound(x.plan, width, kept, careful, dtype) for x in plan.turns]
        self._alone: PulledBack | None = None
        if plan.shared is not None:
            self._alone = _pulled_back(plan.shared.sweep, wanted & FROM_PARAMETERS, careful, dtype)
        self._once = [  # turns whose numbers stay the same
            (bound, _places(place[turn.numbers[0]]))
            for turn, bound in zip(plan.turns, self._turns)
            if (turn.numbers == turn.numbers[0]).all()
        ]
        once = {bound for bound, _ in self._once}
        keeps = width * dtype.itemsize * plan.rows <= KEPT_BYTES
        aims = [np.flatnonzero(origin[turn.samples[0]] & wanted) for turn in plan.turns]
        self._pieces = []
        for k, piece in plan.order:
            turn, bound = plan.turns[k], self._turns[k]
            reads, numbers, leaving = (
                place[x[piece]] for x in (turn.samples, turn.numbers, turn.leaving)
            )
            is_wanted = wanted and plan.needs[turn.nodes[piece]].any()
            self._pieces.append(
                Piece(
                    bound,
                    reads,
                    None if bound in once else _places(numbers),
                    slice(int(leaving[0]), int(leaving[0]) + len(leaving)),
                    _places(reads[aims[k]]) if is_wanted else None,
                    as_slice(bound.input_gradients[aims[k]]) if wanted else None,
                    [np.empty_like(x) for x in bound.computed] if is_wanted and keeps else [],
                )
            )
        if wanted:
            self._grads = np.zeros_like(self._samples)
            self._number_grads = np.zeros_like(self._numbers)
        arrays = [self._samples, self._numbers] * (2 if wanted else 1)
        arrays += [array for piece in self._pieces for array in piece.kept]
        self.nbytes = sum(x.nbytes for x in arrays) + sum(x.nbytes for x in self._turns)

    def start(self, theta: Array) -> None:
        """Compute what no input reaches."""
        self._numbers[: len(theta)] = theta
        self.tiles, self._value = 0, -0.0
        self._is_sound = True
        if self._alone is not None:
            results, self._back = self._alone(theta)
            self._numbers[self._results :] = results
            bad = ~np.isfinite(results) if self._picks else np.isnan(results)
            self._is_sound = not bad.any()
        for turn, numbers in self._once:
            turn.start(self._numbers[numbers.rows])
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
        for turn, reads, numbers, writes, _, _, kept in self._pieces:
            if numbers is not None:
                turn.start(self._numbers.take(numbers.rows))
            turn.run(samples, reads)
            turn.values(samples[writes])
            if (some := turn.lost()) is not None:
                lost |= some
            for array, computed in zip(kept, turn.computed):
                np.copyto(array, computed)
        self._lost = lost if lost.any() else None
        self._of_tile = nan if self._lost is not None else float(self._objective().sum())

    def backward(self) -> None:
        """Carry the gradient of output 0 back to the inputs, or to the numbers."""
        self._carry(None)
        self.tiles += 1
        self._value += self._of_tile

    def _carry(self, finite: Mask | None) -> None:
        """The same; of `finite` (B,) those samples remain all of whose gradients are finite."""
        samples, grads, number_grads = self._samples, self._grads, self._number_grads
        grads[0 if self.wanted & FROM_INPUTS else self._inputs_to[-1] :] = 0.0
        place = self._rows[0]
        if self._batched[0]:
            grads[place, : self.count] = 1.0
        else:
            number_grads[place] += self.count
        for turn, reads, numbers, writes, targets, sources, kept in reversed(self._pieces):
            if targets is None:
                continue
            if numbers is not None:
                turn.start(self._numbers.take(numbers.rows))
            if kept:
                for array, computed in zip(kept, turn.computed):
                    np.copyto(computed, array)
            else:
                turn.run(samples, reads, again=True)
            turn.seeds[...] = grads[writes].reshape(turn.seeds.shape)
            turn.backward()
            targets.add_to(grads, turn._batch[sources])
            if numbers is not None:
                numbers.add_to(number_grads, turn.number_gradients())
            if finite is not None:
                finite &= turn.finite_gradients()

    def finish(self, divisor: float) -> tuple[float, Array]:
        """The sum of output 0 over all tiles, by `divisor`, and its gradient to the parameters."""
        gradient = self._number_grads
        for turn, numbers in self._once:
            if turn.tiles:
                numbers.add_to(gradient, turn.number_gradients())
        total = gradient[: self._parameter_count]
        if self._alone is not None:
            total = total + self._back(gradient[self._results :])
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
