"""The fused sweeps over a graph: planned once, bound once per width of tile, then only run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import isfinite, nan
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array, count
from ..flat import (
    BATCHED,
    FROM_INPUTS,
    FROM_PARAMETERS,
    SHARED,
    Graph,
    exceeds_share,
    require_buffers,
)
from .calls import Access, Calls
from .fuse import fuse
from .kernels import Kernel, Map
from .schedule import CHAIN, GRID, MAP, SEGMENTS, STACK, schedule
from .sums import Chain, Grid, Segments, Stack

KERNELS: dict[str, type[Kernel]] = {
    MAP: Map,
    CHAIN: Chain,
    SEGMENTS: Segments,
    GRID: Grid,
    STACK: Stack,
}

# What the rows of one tile may take, values, gradients and scratch. Between 2 and 16 MB it makes
# little difference: less shows the calls' own cost, which is per tile, and more leaves the cache.
TILE_BYTES = 1 << 23
MIN_TILE = 16  # samples
SAFETY = (
    4  # times what is estimated a call may take; if that were too much, it is looked at closely
)
KEPT_WIDTHS = 8  # so many widths of tile stay bound,
KEPT_BYTES = 1 << 28  # if all of them together are no larger


class FusedSweep:
    """A graph, fused and laid out.

    P parameters, K inputs, M outputs. `arrays` are the arguments of a call, (B, numbers) each, or
    (B,) for a single number.
    """

    def __init__(self, graph: Graph, tile: int | None, dtype: np.dtype[Any]) -> None:
        self.graph, self.dtype = graph, dtype
        self.fused = fuse(graph)
        self.schedule = schedule(self.fused, graph.inputs, graph.parameters)
        self.kernels = [
            KERNELS[group.kind](group, self.fused, self.schedule) for group in self.schedule.groups
        ]
        self.shared = [kernel for kernel in self.kernels if kernel.buffer == SHARED]
        self.batched = [kernel for kernel in self.kernels if kernel.buffer == BATCHED]
        scratch = [
            max((kernel.scratch for kernel in kernels), default=0)
            for kernels in (self.shared, self.batched)
        ]
        lasting = [sum(x.lasting for x in kernels) for kernels in (self.shared, self.batched)]
        item, rows = dtype.itemsize, self.schedule.rows
        sample = item * (2 * rows[BATCHED] + lasting[BATCHED] + scratch[BATCHED])
        self.tile = tile or max(MIN_TILE, TILE_BYTES // sample)  # samples that run at a time
        # about how many bytes one tile takes: what is shared, and what is needed per sample
        self._estimate = [item * (2 * n + m + 3 * k) for n, m, k in zip(rows, lasting, scratch)]
        self._free: dict[tuple[int, int, bool], list[Bound]] = {}

    def outputs(self, theta: Array, arrays: Sequence[Array], batch: int, tile: int) -> Array:
        """Every output for every sample, (M, B), by tiles of this width."""
        outputs = np.empty((len(self.graph.outputs), batch), self.dtype)
        for width, starts in _tiles(batch, tile):
            bound = self._take(width, 0)
            bound.start(theta)
            for a in starts:
                bound.forward(arrays, a)
                bound.read(outputs, a)
            self._give(bound)
        return outputs

    def gradient(
        self,
        theta: Array,
        arrays: Sequence[Array],
        batch: int,
        tile: int,
        divisor: float,
        exact: bool,
        outputs: Array | None = None,
    ) -> tuple[float, Array]:
        """The sum of output 0 over the batch, by `divisor`, and the gradient of that, (P,).

        With `outputs`, (M, B), every output goes there.
        """
        if batch <= tile and outputs is None:
            bound = self._take(batch, FROM_PARAMETERS, exact)
            result = bound.whole(theta, arrays, divisor)
            self._give(bound)
            return result
        value, gradient = 0.0, None
        for width, starts in _tiles(batch, tile):
            bound = self._take(width, FROM_PARAMETERS, exact)
            bound.start(theta)
            for a in starts:
                bound.forward(arrays, a)
                if outputs is not None:
                    bound.read(outputs, a)
                bound.backward()
            more, part = bound.finish(divisor)
            self._give(bound)
            value, gradient = value + more, part if gradient is None else gradient + part
        assert gradient is not None
        return value, gradient

    def input_gradients(
        self, theta: Array, arrays: Sequence[Array], batch: int, tile: int, exact: bool
    ) -> tuple[float, Array]:
        """The sum of output 0, and its gradient to the inputs, per sample, (K, B)."""
        gradients, value = np.empty((len(self.graph.inputs), batch), self.dtype), 0.0
        for width, starts in _tiles(batch, tile):
            bound = self._take(width, FROM_INPUTS, exact)
            bound.start(theta)
            for a in starts:
                bound.forward(arrays, a)
                bound.backward()
                bound.read_gradients(gradients, a)
            value += bound.value
            self._give(bound)
        return value, gradients

    def width(self, batch: int) -> int:
        """How many samples each tile of a batch has, save the last."""
        return batch if batch <= self.tile else -(-batch // -(-batch // self.tile))

    def memory(self, width: int, wanted: int) -> int:
        """The bytes that the buffers of one tile take."""
        bound = self._take(width, wanted)
        self._give(bound)
        return bound.nbytes

    def _take(self, width: int, wanted: int, exact: bool = False) -> Bound:
        """A bound plan that no other call is using; threads may ask at once."""
        with suppress(KeyError, IndexError):
            return self._free[width, wanted, exact].pop()
        self.admit(width, wanted, exact)
        return Bound(self, width, wanted, exact)

    def admit(self, width: int, wanted: int, exact: bool, workers: int = 1, taken: int = 0) -> None:
        """Raise OutOfMemoryError where tiles of this width would take too much.

        `workers` is how many run at once, `taken` how many bytes the call needs besides.
        """
        fixed, per_sample = self._estimate
        if exceeds_share(taken + workers * SAFETY * (fixed + width * per_sample)):
            two, three = (Bound(self, n, wanted, exact).nbytes for n in (2, 3))
            require_buffers(width, 3 * two - 2 * three, three - two, workers, taken)

    def _give(self, bound: Bound) -> None:
        """Keep it for the next call. What a call that failed had taken is not used again."""
        key = bound.width, bound.wanted, bound.exact
        if bound.nbytes > KEPT_BYTES // KEPT_WIDTHS:
            self._free.clear()  # so large that it stays alone
        if key not in self._free:
            for oldest in list(self._free)[:-KEPT_WIDTHS]:
                self._free.pop(oldest, None)
        self._free.setdefault(key, []).append(bound)


def _tiles(batch: int, width: int) -> list[tuple[int, range]]:
    """Widths of tiles, and where tiles of each begin."""
    rest = batch % width
    tiles = [(width, range(0, batch - rest, width)), (rest, range(batch - rest, batch, batch))]
    return [(size, starts) for size, starts in tiles if size and starts]


class Bound:
    """A plan for tiles of one width: the buffers, and the calls that fill them.

    `wanted` says to what gradients go: FROM_PARAMETERS, FROM_INPUTS, or neither, 0; `exact` makes
    maps keep gradients of 0, which costs a little.
    """

    def __init__(self, plan: FusedSweep, width: int, wanted: int, exact: bool) -> None:
        self.width, self.wanted, self.exact = width, wanted, exact
        fused, layout, graph = plan.fused, plan.schedule, plan.graph
        calls = _calls(plan, width, exact)
        self._shared, self._noted = calls.values[SHARED], calls.noted
        self._batch = calls.values[BATCHED].reshape(-1, width)
        self._parameters = _as_slice(layout.row[graph.parameters])
        ends = np.cumsum([count(shape) for shape in graph.input_shapes])
        self._inputs = [_as_slice(layout.row[x]) for x in np.split(graph.inputs, ends[:-1])]
        batched = (fused.origin[fused.outputs] & FROM_INPUTS) == BATCHED
        self._outputs = [
            (np.flatnonzero(batched == side), layout.row[fused.outputs[batched == side]])
            for side in (SHARED, BATCHED)
        ]
        self._start = _added(calls, [kernel.forward for kernel in plan.shared])
        self._forward = _added(calls, [kernel.forward for kernel in plan.batched])
        if wanted:
            self._is_shared = not batched[0]
            self._bind_gradients(plan, calls)
        self.nbytes = calls.nbytes

    def _bind_gradients(self, plan: FusedSweep, calls: Calls) -> None:
        objective = Access(int(not self._is_shared), plan.schedule.row[plan.fused.outputs[:1]])
        values = self._shared[:, None] if self._is_shared else self._batch
        self._sum = partial(np.add.reduce, values[objective.base])
        self._backward: list[Callable[[], Any]] = []
        if not self._is_shared:
            _seed(calls, objective)
            self._backward = _adjoints(calls, plan.batched, self.wanted)
        self._gradients = calls.grads[BATCHED].reshape(-1, self.width)
        # Gradients of shared nodes add up over the tiles before they go on to the parameters.
        met = np.flatnonzero(calls.has_grad[SHARED])
        self._met = slice(0, met[-1] + 1 if len(met) else 0)
        self._part = calls.grads[SHARED][self._met]
        self._total = calls.grads[SHARED] = np.zeros_like(calls.grads[SHARED])
        calls.grad_is_constant[SHARED][:] = False
        self._finish: list[Callable[[], Any]] = []
        if self.wanted == FROM_PARAMETERS:
            if self._is_shared:
                _seed(calls, objective)
            self._finish = _adjoints(calls, plan.shared, self.wanted)
        self._whole = [*self._start, *self._forward, *self._backward]
        if len(met):
            self._whole.append(partial(self._total.__setitem__, self._met, self._part))
        self._whole += self._finish

    def whole(self, theta: Array, arrays: Sequence[Array], divisor: float) -> tuple[float, Array]:
        """What the methods below do one after the other, where a single tile is all."""
        self._noted.fill(0.0)
        self._shared[self._parameters] = theta
        for rows, array in zip(self._inputs, arrays):
            self._batch[rows] = array.T
        for call in self._whole:
            call()
        self._value, self._tiles = self._sum(), 1
        return self._result(divisor)

    def start(self, theta: Array) -> None:
        """Compute what is shared."""
        self._noted.fill(0.0)
        self._shared[self._parameters] = theta
        for call in self._start:
            call()
        self._value, self._tiles = 0.0, 0

    def forward(self, arrays: Sequence[Array], a: int) -> None:
        """Compute what is batched, for the samples from `a` on."""
        b = a + self.width
        for rows, array in zip(self._inputs, arrays):
            self._batch[rows] = array[a:b].T
        for call in self._forward:
            call()

    def read(self, outputs: Array, a: int) -> None:
        """Every output, into its part of (M, B)."""
        tile = outputs[:, a : a + self.width]
        for memory, (which, rows) in zip((self._shared[:, None], self._batch), self._outputs):
            if len(which):
                tile[which] = memory[rows]
        if not self._is_sound:
            tile.fill(nan)

    def backward(self) -> None:
        """Take the gradient of output 0 to what is wanted, or to what is shared."""
        for call in self._backward:
            call()
        self._value += float(self._sum())
        if self._tiles:
            self._total[self._met] += self._part
        else:
            self._total[self._met] = self._part
        self._tiles += 1

    def finish(self, divisor: float) -> tuple[float, Array]:
        """The sum of output 0 over all tiles, by `divisor`, and its gradient to the parameters."""
        for call in self._finish:
            call()
        return self._result(divisor)

    @property
    def _is_sound(self) -> bool:
        """Whether no 0 that stands for nothing has met inf; else results are nan, to be redone."""
        return isfinite(self._noted)

    @property
    def value(self) -> float:
        """The sum of output 0 over all tiles."""
        value = float(self._value * self.width if self._is_shared else self._value)
        return value if self._is_sound else nan

    def _result(self, divisor: float) -> tuple[float, Array]:
        scale = 1.0 / divisor
        if self._is_shared:  # it was seeded once, but counts for every sample
            scale *= self._tiles * self.width
        return self.value / divisor, self._total[self._parameters] * scale

    def read_gradients(self, gradients: Array, a: int) -> None:
        """The gradients of the inputs, into their part of (K, B)."""
        k = 0
        for rows in self._inputs:
            part = self._gradients[rows]
            gradients[k : k + len(part), a : a + self.width] = part if self._is_sound else nan
            k += len(part)


def _calls(plan: FusedSweep, width: int, exact: bool) -> Calls:
    """New buffers, with what is constant in them."""
    calls = Calls(plan.schedule.rows, width, exact, plan.dtype)
    constants = np.flatnonzero(plan.fused.op == ops.const.code)
    rows = plan.schedule.row[constants]
    calls.values[SHARED][rows] = plan.fused.value[constants]
    calls.is_constant[SHARED][rows] = True
    for buffer, ones in zip((SHARED, BATCHED), plan.schedule.ones):
        calls.values[buffer][ones] = 1.0
        calls.is_constant[buffer][ones] = True
    return calls


def _as_slice(rows: Any) -> Any:
    """Consecutive rows as a slice."""
    if len(rows) and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _seed(calls: Calls, objective: Access) -> None:
    one = calls.constant(np.ones(objective.shape + calls.tail[objective.buffer]))
    calls.contribute(objective, one.array.shape, lambda out: one)


def _adjoints(calls: Calls, kernels: list[Kernel], wanted: int) -> list[Callable[[], Any]]:
    def adjoint(kernel: Kernel, calls: Calls) -> None:
        if calls.any_grad(kernel.out):  # else no gradient reaches it
            kernel.adjoint(calls, wanted)

    return _added(
        calls,
        [partial(adjoint, kernel) for kernel in reversed(kernels) if kernel.origin & wanted],
    )


def _added(calls: Calls, steps: list[Callable[[Calls], None]]) -> list[Callable[[], Any]]:
    """The calls that these steps add."""
    calls.calls = []
    for step in steps:
        calls.next_kernel()
        step(calls)
    return calls.calls
