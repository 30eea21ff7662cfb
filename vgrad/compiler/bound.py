"""A plan bound to buffers for tiles of one width: lists of NumPy calls, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite, nan
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array, count
from ..flat import BATCHED, FROM_PARAMETERS, SHARED, Rows, as_slice
from .calls import Calls
from .kernels import Kernel
from .plan import Plan

Steps = list[Callable[[], Any]]


class Bound:
    """Buffers for tiles of one width, and the calls that fill them.

    `wanted` tells where gradients go: FROM_PARAMETERS, FROM_INPUTS, or 0 for nowhere. With
    `careful` maps keep gradients of 0, which costs a little. A call of `value_and_grad` runs

        start       theta in; values of shared nodes                               once
        forward     samples in; values of batched nodes                            once per tile
        backward    gradients of batched nodes, and their parts of the gradients   once per tile
                    of shared nodes, which add up over the tiles
        finish      from those totals to the gradients of the parameters           once

    and `whole` runs all four for a batch of a single tile.
    """

    def __init__(
        self, plan: Plan, width: int, wanted: int, careful: bool, dtype: np.dtype[Any]
    ) -> None:
        self.width, self.wanted = width, wanted
        fused, layout, graph = plan.fused, plan.layout, plan.graph
        calls = _calls(plan, width, careful, dtype)
        self._shared, self._noted = calls.values[SHARED], calls.noted
        self._batch = calls.values[BATCHED].reshape(-1, width)
        self._parameters = as_slice(layout.row[graph.parameters])
        ends = np.cumsum([count(shape) for shape in graph.input_shapes])
        self._inputs = [as_slice(layout.row[x]) for x in np.split(graph.inputs, ends[:-1])]
        batched = fused.batched[fused.outputs]
        self._outputs = [
            (np.flatnonzero(batched == side), layout.row[fused.outputs[batched == side]])
            for side in (SHARED, BATCHED)
        ]
        self._is_shared = not batched[0]
        kernels = [[x for x in plan.kernels if x.buffer == side] for side in (SHARED, BATCHED)]
        self._start = _added(calls, [kernel.forward for kernel in kernels[SHARED]])
        self._forward = _added(calls, [kernel.forward for kernel in kernels[BATCHED]])
        if wanted:
            objective = Rows(int(not self._is_shared), layout.row[fused.outputs[:1]])
            self._bind_gradients(calls, kernels, objective)
        self.nbytes = calls.nbytes

    def _bind_gradients(self, calls: Calls, kernels: list[list[Kernel]], objective: Rows) -> None:
        values = self._shared[:, None] if self._is_shared else self._batch
        self._objective = values[objective.base]
        self._sum = partial(np.add.reduce, self._objective)
        self._backward: Steps = []
        if not self._is_shared:
            _seed(calls, objective)
            self._backward = _adjoints(calls, kernels[BATCHED], self.wanted)
        self._gradients = calls.grads[BATCHED].reshape(-1, self.width)
        # Gradients of the shared rows that batched nodes read: from one tile, and the total so far.
        given = np.flatnonzero(calls.has_grad[SHARED])
        rows = slice(0, given[-1] + 1 if len(given) else 0)
        self._part = calls.grads[SHARED][rows]
        calls.grads[SHARED] = np.zeros_like(calls.grads[SHARED])
        calls.grad_is_constant[SHARED][:] = False
        self._totals, self._total = calls.grads[SHARED], calls.grads[SHARED][rows]
        self._finish: Steps = []
        if self.wanted == FROM_PARAMETERS:
            if self._is_shared:
                _seed(calls, objective)
            self._finish = _adjoints(calls, kernels[SHARED], self.wanted)
        join: Steps = [partial(np.copyto, self._total, self._part)] if len(given) else []
        self._to_value = [*self._start, *self._forward]
        self._to_gradient = [*self._backward, *join, *self._finish]

    def whole(self, theta: Array, arrays: Sequence[Array], divisor: float) -> tuple[float, Array]:
        """The four steps at once, for a batch of a single tile. Hot path.

        If the value is not finite another sweep has the last word, so the gradient is left out.
        """
        self._noted.fill(0.0)
        self._shared[self._parameters] = theta
        for rows, array in zip(self._inputs, arrays):
            self._batch[rows] = array.T
        for call in self._to_value:
            call()
        self._value, self._tiles = self._sum(), 1
        if not isfinite(self._value):
            return nan, np.full_like(theta, nan)
        for call in self._to_gradient:
            call()
        return self._result(divisor)

    def start(self, theta: Array) -> None:
        """Compute the shared values."""
        self._noted.fill(0.0)
        self._shared[self._parameters] = theta
        for call in self._start:
            call()
        self._value, self._tiles = 0.0, 0

    def forward(self, arrays: Sequence[Array], a: int) -> None:
        """Compute the batched values, for the samples from `a` on."""
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
        """Carry the gradient of output 0 back to the wanted inputs, or to the shared rows."""
        for call in self._backward:
            call()
        self._value += float(self._sum())
        if self._tiles:
            self._total += self._part
        else:
            self._total[:] = self._part
        self._tiles += 1

    def finish(self, divisor: float) -> tuple[float, Array]:
        """The sum of output 0 over all tiles, by `divisor`, and its gradient to the parameters."""
        for call in self._finish:
            call()
        return self._result(divisor)

    def read_gradients(self, result: Array, a: int) -> None:
        """Output 0 and the gradients of the inputs, into their part of (1 + K, B)."""
        tile = result[:, a : a + self.width]
        tile[0], k = self._objective, 1
        for rows in self._inputs:
            part = self._gradients[rows]
            tile[k : k + len(part)] = part
            k += len(part)
        if not self._is_sound:
            tile.fill(nan)

    def read_doubtful(self, doubtful: Array, a: int) -> None:
        """Whether output 0 or any gradient of a sample is not finite, into its part of (B,)."""
        finite = np.isfinite(self._gradients).all(axis=0) & np.isfinite(self._objective)
        doubtful[a : a + self.width] = ~finite | (not self._is_sound)

    @property
    def _is_sound(self) -> bool:
        """Whether everything noted is finite; if not, results become nan, to be redone."""
        return isfinite(self._noted)

    def _result(self, divisor: float) -> tuple[float, Array]:
        scale, value = 1.0 / divisor, self._value
        if self._is_shared:  # it was seeded once, but counts for every sample
            scale, value = scale * (self._tiles * self.width), value * self.width
        value = float(value) if self._is_sound else nan
        return value / divisor, self._totals[self._parameters] * scale


def _calls(plan: Plan, width: int, careful: bool, dtype: np.dtype[Any]) -> Calls:
    """New buffers with the constants in their rows."""
    fused, layout = plan.fused, plan.layout
    calls = Calls(layout.rows, width, careful, dtype)
    constants = np.flatnonzero(fused.op == ops.const.code)
    rows = layout.row[constants]
    calls.values[SHARED][rows] = fused.value[constants]
    calls.is_constant[SHARED][rows] = True
    for buffer, ones in zip((SHARED, BATCHED), layout.ones):
        calls.values[buffer][ones] = 1.0
        calls.is_constant[buffer][ones] = True
    return calls


def _seed(calls: Calls, objective: Rows) -> None:
    one = calls.constant(np.ones(objective.shape + calls.tail[objective.buffer]))
    calls.contribute(objective, one.array.shape, lambda out: one)


def _adjoints(calls: Calls, kernels: list[Kernel], wanted: int) -> Steps:
    def adjoint(kernel: Kernel, calls: Calls) -> None:
        if calls.any_grad(kernel.out):
            kernel.adjoint(calls, wanted)

    steps: list[Callable[[Calls], None]] = [
        partial(adjoint, kernel) for kernel in reversed(kernels) if kernel.out.origin & wanted
    ]
    return _added(calls, steps)


def _added(calls: Calls, steps: list[Callable[[Calls], None]]) -> Steps:
    """The calls that these steps add."""
    calls.calls = []
    for step in steps:
        calls.next_kernel()
        step(calls)
    return calls.calls
