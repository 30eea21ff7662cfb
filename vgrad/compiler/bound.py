"""A plan bound to buffers for tiles of one width: lists of NumPy calls, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite, nan
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array, cut
from ..flat import BATCHED, SHARED, Rows, as_slice, copies
from .arithmetic import Source
from .calls import Calls
from .fuse import Mask
from .kernels import Kernel
from .layout import Places
from .plan import Plan
from .watch import Watch

Steps = list[Callable[[], Any]]


class Bound:
    """Buffers for tiles of one width, and the calls that fill them.

    `wanted` tells where gradients go: FROM_PARAMETERS, FROM_INPUTS, or 0 for nowhere. With
    `careful` maps keep gradients of 0, which costs a little. A call of `value_and_grad` runs

        start       theta in; values of shared nodes                               once
        forward     samples in; values of batched nodes                            once per tile
        backward    gradients of batched nodes, and their parts of the gradients   once per tile
                    of shared nodes, which add up over the tiles, as the values do
        finish      from those totals to the gradients of the parameters           once

    A tile without a backward sweep does not count.
    """

    def __init__(
        self, plan: Plan, width: int, wanted: int, careful: bool, dtype: np.dtype[Any]
    ) -> None:
        self.width, self.wanted = width, wanted
        self.count = width  # of samples in a tile
        self.used = 0  # when it was: how many had been bound by then
        fused, layout, graph = plan.fused, plan.layout, plan.graph
        places = plan.places(wanted)
        calls = _calls(plan, places, width, careful, dtype)
        self._shared = calls.values[SHARED]
        self._batch = calls.values[BATCHED].reshape(-1, width)
        self._parameters = as_slice(layout.row[plan.parameters])
        inputs = cut(layout.row[plan.inputs], graph.input_shapes)
        self._inputs = [as_slice(places.values[x]) for x in inputs]
        objective, batched = layout.row[fused.outputs[:1]], fused.batched[fused.outputs]
        rows = layout.row[fused.outputs]
        rows[batched] = places.values[rows[batched]]
        self._outputs = [
            copies(np.flatnonzero(batched == side), rows[batched == side])
            for side in (SHARED, BATCHED)
        ]
        first = len(rows) - len(graph.questions)
        self._answers = [  # where answers are, which questions' they are, and what the path's are
            (memory, as_slice(rows[first:][which]), which, graph.answers[which])
            for memory, side in ((self._shared[:, None], SHARED), (self._batch, BATCHED))
            if len(which := np.flatnonzero(batched[first:] == side))
        ]
        self._is_shared = not batched[0]
        self._objective = (self._shared[:, None] if self._is_shared else self._batch)[rows[0]]
        self._sum = partial(np.add.reduce, self._objective)
        self._watches = [
            Watch(calls.values[b], calls.value_at[b], layout.watched[b], plan.watched_sums(b))
            for b in (SHARED, BATCHED)
        ]
        self._start = _forwards(calls, plan.kernels, SHARED)
        self._forward = _forwards(calls, plan.kernels, BATCHED)
        if any(len(watch.sums) for watch in self._watches):
            for watch, steps in zip(self._watches, (self._start, self._forward)):
                steps.append(watch.look)
        if wanted:
            self._bind_gradients(plan.kernels, calls, Rows(int(batched[0]), objective))
            turned = calls.turned[SHARED][layout.row[plan.parameters]]
            self._signs: Any = np.where(turned, -1.0, 1.0) if turned.any() else 1.0
            self._gradient_rows = calls.grad_at[BATCHED]
            self._gradients = [as_slice(self._gradient_rows[x]) for x in inputs]
        self.nbytes = calls.nbytes
        self._lost: Mask | None = None  # (width,) samples in which a sum may have overflowed

    def _bind_gradients(self, kernels: list[Kernel], calls: Calls, objective: Rows) -> None:
        seed = self._seed(calls, objective)
        adjoints = partial(_adjoints, calls, kernels, objective, seed, self.wanted)
        self._backward = adjoints(BATCHED)
        # Gradients of the shared rows that batched nodes read: from one tile, and the total so far.
        given = np.flatnonzero(calls.has_grad[SHARED])
        rows = slice(0, given[-1] + 1 if len(given) else 0)
        self._part = calls.grads[SHARED][rows]
        calls.grads[SHARED] = np.zeros_like(calls.grads[SHARED])
        calls.grad_is_constant[SHARED][:] = False
        self._totals, self._total = calls.grads[SHARED], calls.grads[SHARED][rows]
        self._finish = adjoints(SHARED)

    def _seed(self, calls: Calls, objective: Rows) -> Source:
        """The gradient of output 0 to itself."""
        return calls.constant(np.ones(objective.shape + calls.tail[objective.buffer]))

    def whole(self, theta: Array, arrays: Iterable[Array], divisor: float) -> tuple[float, Array]:
        """The four steps at once, for a batch of a single tile. Hot path.

        If the value is not finite another sweep has the last word, so the gradient is left out.
        """
        self.start(theta)
        self.forward(arrays)
        if not isfinite(self._of_tile):
            return nan, np.full_like(theta, nan)
        self.backward()
        return self.finish(divisor)

    def start(self, theta: Array) -> None:
        """Compute the shared values. Hot path."""
        self._shared[self._parameters] = theta
        for call in self._start:
            call()
        self._value, self.tiles = -0.0, 0  # -0.0 + x is x, whatever its sign
        shared, _ = self._watches
        self._is_small = shared.is_small()
        self._start_is_sound = self._is_small or bool(shared.finite())

    def forward(self, arrays: Iterable[Array]) -> None:
        """Compute the batched values for the samples of one tile. Hot path."""
        for rows, array in zip(self._inputs, arrays):
            self._batch[rows] = array.T
        for call in self._forward:
            call()
        if self._is_small and self._watches[BATCHED].is_small():
            self._lost = None
            self._of_tile = float(self._sum())
        else:
            self._look_closely()

    def _look_closely(self) -> None:
        """Find the samples in which a sum may have overflowed: their results become nan."""
        lost: Mask = ~(self._watches[BATCHED].finite() & self._start_is_sound)
        self._lost, self._of_tile = lost, nan if lost.any() else float(self._sum())

    def backward(self) -> None:
        """Carry the gradient of output 0 back to the inputs, or to shared rows. Hot path."""
        for call in self._backward:
            call()
        if self.tiles:
            self._total += self._part
        else:
            self._total[:] = self._part
        self.tiles += 1
        self._value += self._of_tile

    def finish(self, divisor: float) -> tuple[float, Array]:
        """The sum of output 0 over all tiles, by `divisor`, and its gradient to the parameters."""
        for call in self._finish:
            call()
        scale, value = 1.0 / divisor, self._value
        if self._is_shared:  # it was seeded once, but counts for every sample
            scale, value = scale * (self.tiles * self.count), value * self.count
        return value / divisor, self._totals[self._parameters] * (scale * self._signs)

    def read(self, outputs: Array) -> None:
        """Every output of the tile, into (M, count).

        Of a sample in which a sum may have overflowed only answers to a path's questions are known,
        as sums behind them keep their order.
        """
        for memory, parts in zip((self._shared[:, None], self._batch), self._outputs):
            for which, rows in parts:
                if isinstance(rows, slice) or not isinstance(which, slice):
                    outputs[which] = memory[rows]
                elif outputs.flags.c_contiguous and memory is self._batch:
                    memory.take(rows, 0, outputs[which], "clip")  # no other memory on the way
                else:
                    outputs[which] = memory.take(rows, 0)
        if self._lost is not None:
            outputs[: len(outputs) - self._questions, self._lost] = nan

    def all_follow(self) -> bool:
        """Whether all samples of the tile follow the path. Hot path."""
        return all((memory[rows] == answers).all() for memory, rows, _, answers in self._answers)

    @property
    def _questions(self) -> int:
        # No attribute: from the 31st on, CPython looks all of them up in a slower way.
        return sum(len(which) for _, _, which, _ in self._answers)

    def answers(self) -> Array:
        """(Q, count) the samples' answers to the path's questions."""
        answers = np.empty((self._questions, self.width), self._batch.dtype)
        self._read_answers(answers)
        return answers[:, : self.count]

    def _read_answers(self, answers: Array) -> None:
        for memory, rows, which, _ in self._answers:
            answers[which] = memory[rows]

    def read_gradients(self, result: Array) -> None:
        """Output 0, the gradients of the inputs, and answers, into (1 + K + Q, count)."""
        last = len(result) - self._questions
        self._read_answers(result[last:])
        result[0] = self._objective
        if self._gradients:  # not of a program without arguments
            np.concatenate([self._batch[rows] for rows in self._gradients], out=result[1:last])
        if self._lost is not None:
            result[:last, self._lost] = nan

    def finite_gradients(self) -> Mask:
        """(width,) for which samples all gradients are finite, if none has died."""
        finite: Mask = np.isfinite(self._batch[self._gradient_rows]).all(axis=0)
        return finite

    def doubtful(self) -> Mask:
        """(count,) for which samples output 0, or any gradient, is not finite; if none has died."""
        finite: Mask = self.finite_gradients() & np.isfinite(self._objective)
        return ~finite if self._lost is None else ~finite | self._lost


class Filled(Bound):
    """The same for a single tile of any number of samples, up to the width.

    What fills it up weighs nothing: the gradient of output 0 is 0 there. That keeps it out of all
    sums, unless it is not finite; so it is copies of a sample, where that one's then is not either.
    """

    def __init__(
        self, plan: Plan, width: int, wanted: int, careful: bool, dtype: np.dtype[Any]
    ) -> None:
        self._places = np.arange(width)
        super().__init__(plan, width, wanted, careful, dtype)

    def _seed(self, calls: Calls, objective: Rows) -> Source:
        seed = super()._seed(calls, objective)
        if self._is_shared:
            return seed
        self._weights = calls.lasting(seed.array.shape, 1.0)
        return Source(self._weights)

    def forward(self, arrays: Iterable[Array]) -> None:
        """Compute the batched values for as many samples as there are, and for what fills up."""
        arrays = [*arrays]
        self.count = count = len(arrays[0])
        if self.wanted and not self._is_shared:
            self._weights[..., :count], self._weights[..., count:] = 1.0, 0.0
        self._sum = partial(np.add.reduce, self._objective[:count])
        super().forward([array.take(self._places, 0, None, "clip") for array in arrays])

    def read(self, outputs: Array) -> None:
        whole = np.empty((len(outputs), self.width), outputs.dtype)
        super().read(whole)
        outputs[:] = whole[:, : self.count]

    def read_gradients(self, result: Array) -> None:
        whole = np.empty((len(result), self.width), result.dtype)
        super().read_gradients(whole)
        result[:] = whole[:, : self.count]

    def doubtful(self) -> Mask:
        return super().doubtful()[: self.count]


def _calls(plan: Plan, places: Places, width: int, careful: bool, dtype: np.dtype[Any]) -> Calls:
    """New buffers with the constants in their rows."""
    fused, layout = plan.fused, plan.layout
    calls = Calls(layout.sizes, places, width, careful, dtype)
    constants = np.flatnonzero(fused.op == ops.const.code)
    rows = layout.row[constants]
    calls.values[SHARED][rows] = fused.value[constants]
    calls.is_constant[SHARED][rows] = True
    for buffer, ones in zip((SHARED, BATCHED), layout.ones):
        calls.values[buffer][calls.value_at[buffer][ones]] = 1.0
        calls.is_constant[buffer][ones] = True
        calls.computed[buffer][ones] = True  # nobody asks for their gradients
    calls.computed[SHARED][layout.row[plan.parameters]] = True  # whose signs come last
    return calls


def _forwards(calls: Calls, kernels: list[Kernel], buffer: int) -> Steps:
    """The calls that compute the values of a buffer."""
    calls.calls = []
    for kernel in kernels:
        if kernel.buffer == buffer:
            calls.next_kernel()
            before = len(calls.calls)
            kernel.forward(calls)
            calls.computed[buffer][kernel.out.flat] = True
            calls.forwards.append((kernel, calls.calls[before:]))
            for rows in kernel.operands:
                if rows.buffer < buffer:
                    calls.uses[rows.flat] += 1
    return calls.calls


def _adjoints(
    calls: Calls, kernels: list[Kernel], objective: Rows, seed: Source, wanted: int, buffer: int
) -> Steps:
    """The calls that carry gradients back through the kernels of a buffer, from output 0 on."""
    calls.calls, calls.is_turned = [], False
    if objective.buffer == buffer:
        calls.contribute(objective, seed.array.shape, lambda out: seed)
    for kernel in reversed(kernels):
        if kernel.buffer == buffer and kernel.out.origin & wanted and calls.any_grad(kernel.out):
            calls.begin_adjoint(kernel.out)
            kernel.adjoint(calls, wanted)
    calls.sum_up()
    return calls.calls
