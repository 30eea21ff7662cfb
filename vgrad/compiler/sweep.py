"""The fused sweep over a graph: planned once, bound once per width of tile, then only run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arguments import Array
from ..flat import FROM_INPUTS, FROM_PARAMETERS, SweepSummary, exceeds_share, require_buffers
from .bound import Bound
from .fuse import Mask
from .plan import Plan

Inputs = Sequence[Array]  # one per argument: (B, numbers), or (B,) for a single number
Tiles = Iterator[tuple[Bound, slice, bool]]

# What the rows of one tile may take, values, gradients and scratch. Between 2 and 16 MB it makes
# little difference: less shows the calls' own cost, which is per tile, and more leaves the cache.
# Half of it is better where a tile is still so wide that the calls' own cost is small.
TILE_BYTES, WIDE = 1 << 23, 2000
MIN_TILE = 16  # samples
SAFETY = 4  # times the estimate of a call's memory; if that is too much, it is measured
KEPT_WIDTHS = 8  # of tiles that stay bound,
KEPT_BYTES = 1 << 28  # if all of them together are no larger


class FusedSweep:
    """A plan that runs; its methods are those of the plain sweep.

    It is quick, but sums in another order, and where a gradient of 0 meets inf or nan it gives nan.
    With `careful`, maps keep gradients of 0, as a guard such as where(x > 0, log(x), 0) needs; the
    forward is the same. Buffers are kept between calls; no two calls use the same ones at a time.
    """

    def __init__(
        self, plan: Plan, tile: int | None, dtype: np.dtype[Any], careful: bool = False
    ) -> None:
        self.plan, self.dtype, self.careful = plan, dtype, careful
        sizes = []  # of both buffers: about how many bytes the rows take, and the largest scratch
        for buffer, rows in enumerate(plan.layout.sizes):
            kernels = [x for x in plan.kernels if x.buffer == buffer]
            scratch = max((x.scratch for x in kernels), default=0)
            lasting = 2 * rows + sum(x.lasting for x in kernels)
            sizes.append((dtype.itemsize * lasting, dtype.itemsize * scratch))
        most = TILE_BYTES // sum(sizes[-1])
        self.tile = tile or max(MIN_TILE, most // 2, min(most, WIDE))  # samples at a time
        # about how many bytes a tile takes: for the shared rows, and for each sample
        self._estimate = [lasting + 3 * scratch for lasting, scratch in sizes]
        self._free: dict[tuple[int, int], list[Bound]] = {}

    def outputs(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Every output for every sample, (M, B)."""
        outputs = np.empty((len(self.plan.graph.outputs), batch), self.dtype)
        for bound, samples, _ in self._forward(theta, arrays, batch, tile, 0):
            bound.read(outputs[:, samples])
        return outputs

    def gradient(
        self, theta: Array, arrays: Inputs, batch: int, tile: int, divisor: float, aux: bool = False
    ) -> tuple[float, Array, Array | None]:
        """The sum of output 0 over the batch, by `divisor`, its gradient (P,), and with `aux`
        every output, (M, B)."""
        if batch <= tile and not aux:
            bound = self._take(batch, FROM_PARAMETERS)
            value, gradient = bound.whole(theta, arrays, divisor)
            self._give(bound)
            return value, gradient, None
        outputs = np.empty((len(self.plan.graph.outputs), batch), self.dtype) if aux else None
        value, total = 0.0, None
        for bound, samples, is_last in self._forward(theta, arrays, batch, tile, FROM_PARAMETERS):
            if outputs is not None:
                bound.read(outputs[:, samples])
            bound.backward()
            if is_last:
                more, part = bound.finish(divisor)
                value, total = value + more, part if total is None else total + part
        assert total is not None
        return value, total, outputs

    def input_gradients(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Output 0 for every sample, and below it its gradient to the inputs, (1 + K, B)."""
        result = np.empty((1 + len(self.plan.graph.inputs), batch), self.dtype)
        for bound, samples, _ in self._forward(theta, arrays, batch, tile, FROM_INPUTS):
            bound.backward()
            bound.read_gradients(result[:, samples])
        return result

    def doubtful(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Mask:
        """(B,) for which samples output 0, or a gradient on the way to theta, is not finite."""
        result = np.empty(batch, bool)
        for bound, samples, _ in self._forward(theta, arrays, batch, tile, FROM_PARAMETERS):
            bound.backward()
            result[samples] = bound.doubtful()
        return result

    def _forward(self, theta: Array, arrays: Inputs, batch: int, tile: int, wanted: int) -> Tiles:
        """For each tile: buffers with its values, its samples, whether it is their last tile."""
        even = batch - batch % tile
        for width, start, stop in ((tile, 0, even), (batch - even, even, batch)):
            if start < stop:
                bound = self._take(width, wanted)
                bound.start(theta)
                for a in range(start, stop, width):
                    samples = slice(a, a + width)
                    bound.forward([array[samples] for array in arrays])
                    yield bound, samples, samples.stop == stop
                self._give(bound)

    def width(self, batch: int) -> int:
        """How many samples each tile of a batch has, save the last."""
        if batch <= self.tile:
            return batch
        fewest = -(-batch // self.tile)
        for tiles in range(fewest, fewest + fewest // 8 + 1):
            if batch % tiles == 0:  # so that no narrower one has to be bound for the rest
                return batch // tiles
        return -(-batch // fewest)

    def memory(self, width: int) -> int:
        """The bytes that the buffers of one tile take, where gradients go to the parameters."""
        bound = self._take(width, FROM_PARAMETERS)
        self._give(bound)
        return bound.nbytes

    def admit(self, width: int, wanted: int, workers: int = 1, taken: int = 0) -> None:
        """Raise OutOfMemoryError if tiles of this width would take too much.

        `workers` is how many run at once, `taken` how many bytes the call needs besides.
        """
        fixed, per_sample = self._estimate
        if exceeds_share(taken + workers * SAFETY * (fixed + width * per_sample)):
            two, three = (self._bind(n, wanted).nbytes for n in (2, 3))
            require_buffers(width, 3 * two - 2 * three, three - two, workers, taken)

    def summary(self) -> SweepSummary:
        """The kernels as `explain` and pictures show them."""
        return self.plan.summary()

    def _bind(self, width: int, wanted: int) -> Bound:
        return Bound(self.plan, width, wanted, self.careful, self.dtype)

    def _take(self, width: int, wanted: int) -> Bound:
        """A bound plan that no other call is using; threads may ask at once. Hot path."""
        try:
            return self._free[width, wanted].pop()
        except (KeyError, IndexError):
            pass
        self.admit(width, wanted)
        return self._bind(width, wanted)

    def _give(self, bound: Bound) -> None:
        """Keep it for the next call. What a call that failed had taken is not used again."""
        key = bound.width, bound.wanted
        if bound.nbytes > KEPT_BYTES // KEPT_WIDTHS:
            self._free.clear()  # so large that it stays alone
        if key not in self._free:
            for oldest in list(self._free)[:-KEPT_WIDTHS]:
                self._free.pop(oldest, None)
        self._free.setdefault(key, []).append(bound)
