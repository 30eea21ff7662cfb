"""The fused sweep over a graph: planned once, bound once per width of tile, then only run.

To bind a plan takes as long as many calls. So a size of batch that is asked for again and again has
widths of its own, and any other one is rounded up to few widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..arguments import Array
from ..flat import (
    BATCHED,
    FROM_INPUTS,
    FROM_PARAMETERS,
    SweepSummary,
    exceeds_share,
    require_buffers,
)
from .bound import Bound, Filled
from .costs import CALL, CALLS, COLD_CALL, HELD_CALLS, NUMBER
from .fuse import Mask
from .lifetimes import KEEP
from .plan import Plan
from .rolled import RolledPlan
from .turns import RolledBound

Inputs = Sequence[Array]  # one per argument: (B, numbers), or (B,) for a single number
Tiles = Iterator[tuple[Bound, slice, bool]]
Key = tuple[int, int, type[Bound]]  # what may take another's place: of one width, wanted, class
Part = tuple[float, Array]  # of a sum over the batch, and of its gradient (P,)

# What the rows of one tile may take, values, gradients and scratch. Between 2 and 16 MB it makes
# little difference: less shows the calls' own cost, which is per tile, and more leaves the cache.
# Half of it is better where a tile is still so wide that the calls' own cost is small. Where it is
# not, as in a deep graph that has many calls of few rows, the tile is doubled as long as that saves
# a tenth of the time and is no larger than MOST_BYTES.
TILE_BYTES, WIDE, MOST_BYTES = 1 << 23, 2000, 1 << 29
MIN_TILE = 16  # samples
SAFETY = 4  # times the estimate of a call's memory; if that is too much, it is measured
KEPT_WIDTHS = 32  # of tiles that stay bound,
KEPT_BYTES = 1 << 28  # if all of them together are no larger,
LARGE = KEPT_BYTES // 8  # and a tile that is larger than this stays alone

FIRST = 4  # sizes of batch that a sweep meets are regular, if it is no path's; and so are
OFTEN, LATELY = 3, 16  # others that are asked for 3 times in the last 16 that were not,
REGULAR = 8  # but not more than these at a time
FREE = 512  # numbers, which take NumPy less time than a call does,
MOST_FILLED = 64  # and up to how many samples a tile is filled up for that reason


class Rounded(int):
    """How many samples a tile has where the last one is rounded up."""


def round_up(count: int, least: int, most: int) -> int:
    """The next of the numbers 1, 2, 3, 4, 6, 8, 12, 16, 24 ..., from `least` to `most`.

    >>> [round_up(count, 2, 100) for count in (1, 2, 5, 7, 24, 25, 99)]
    [2, 2, 6, 8, 24, 32, 100]
    """
    power = 1 << (count - 1).bit_length()
    below = 3 * (power >> 2)
    return min(max(below if count <= below else power, least), most)


class FusedSweep:
    """A plan that runs; its methods are those of the plain sweep.

    It is quick, but sums in another order, and where a gradient of 0 meets inf or nan it gives nan.
    With `careful`, maps keep gradients of 0, as a guard such as where(x > 0, log(x), 0) needs; the
    forward is the same. Buffers are kept between calls; no two calls use the same ones at a time.
    """

    def __init__(
        self,
        plan: Plan | RolledPlan,
        tile: int | None,
        dtype: np.dtype[Any],
        careful: bool = False,
    ) -> None:
        self.plan, self.dtype, self.careful = plan, dtype, careful
        item, sizes = dtype.itemsize, plan.sizes()
        self._bytes = item * sum(sizes[BATCHED])  # of a tile, for each sample
        most = TILE_BYTES // (item * plan.busy)
        self.tile = tile or self._widened(max(MIN_TILE, most // 2, min(most, WIDE)))
        # about how many bytes a tile takes: for the shared rows, and for each sample
        self._estimate = [item * (lasting + 3 * scratch) for lasting, scratch in sizes]
        is_rolled = isinstance(plan, RolledPlan)
        self._kinds: tuple[Any, Any] = (RolledBound, RolledBound) if is_rolled else (Bound, Filled)
        self._free: dict[Key, list[Bound]] = {}
        self._times_bound = 0
        self._asks = bool(plan.graph.questions)
        self._rounded = Rounded(self.tile)
        # below this width a call takes as long as at this, whatever it computes
        each = plan.rows // max(1, plan.runs)
        self.least = max(2, min(MOST_FILLED, FREE // max(1, each)))
        # These are replaced and not changed, as threads may look at them at any time.
        self._regular: dict[int, bool] = {}  # sizes of batch, and whether they are still in use
        self._others: tuple[int, ...] = ()  # the last ones that were not regular

    def _widened(self, tile: int) -> int:
        """A tile that is large enough to make calls worth their while."""
        while True:
            now, then = (sum(self.seconds(width)) for width in (tile, 2 * tile))
            if then > 0.9 * now or self._too_large(2 * tile):
                return tile
            tile *= 2

    def _too_large(self, tile: int) -> bool:
        size = tile * self._bytes
        return size > MOST_BYTES or exceeds_share(8 * size)  # an eighth of what a call may take

    def seconds(self, width: int) -> tuple[float, float]:
        """About how long calls, and numbers, take for each sample of a tile, with gradients."""
        plan = self.plan
        calls = CALLS * plan.runs
        size = width * plan.busy * self.dtype.itemsize
        number = next((time for limit, time in NUMBER if size <= limit), NUMBER[-1][1])
        call = CALL if CALLS * plan.held < HELD_CALLS else COLD_CALL
        return calls * call / width, CALLS * plan.rows * number

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
        every output, (M, B).

        Of a path only the samples that follow it count; without `aux`, their answers come last,
        (Q, B), or if all do (0, B).
        """
        if batch <= tile and not (aux or self._asks):
            bound = self._fitting(batch, tile, FROM_PARAMETERS)
            value, gradient = bound.whole(theta, arrays, divisor)
            self._give(bound)
            return value, gradient, None
        outputs = np.empty((len(self.plan.graph.outputs), batch), self.dtype) if aux else None
        answers: list[Array] = []  # of each tile's samples, or none if all follow the path
        value, total = 0.0, None
        for more, part in self._parts(theta, arrays, batch, tile, divisor, outputs, answers):
            value, total = value + more, part if total is None else total + part
        assert total is not None
        if aux or not self._asks:
            return value, total, outputs
        return value, total, self.plan.graph.side_by_side(answers)

    def _parts(
        self,
        theta: Array,
        arrays: Inputs,
        batch: int,
        tile: int,
        divisor: float,
        outputs: Array | None,
        answers: list[Array],
    ) -> Iterator[Part]:
        """What the tiles add to the sums; every output goes into `outputs`, if that is given.

        Of a path, answers are added tile by tile, (Q, n), or (0, n) where all follow it.
        """
        for bound, samples, is_last in self._forward(theta, arrays, batch, tile, FROM_PARAMETERS):
            if outputs is not None:
                bound.read(outputs[:, samples])
            follow = not self._asks or bound.all_follow()
            if self._asks:
                answers.append(np.empty((0, bound.count)) if follow else bound.answers())
            if follow:
                bound.backward()
            else:
                stay = self.plan.graph.follows(answers[-1])
                some = [array[samples][stay] for array in arrays]
                yield self._of_some(theta, some, int(stay.sum()), bound.width, divisor)
            if is_last and bound.tiles:
                yield bound.finish(divisor)

    def _of_some(
        self, theta: Array, arrays: Inputs, count: int, width: int, divisor: float
    ) -> Part:
        """What those samples of a tile add that stay on the path, without the others."""
        if not count:
            return 0.0, np.zeros_like(theta)
        bound = self._fitting(count, Rounded(width), FROM_PARAMETERS)
        part = bound.whole(theta, arrays, divisor)
        self._give(bound)
        return part

    def input_gradients(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Output 0 for every sample, its gradient to the inputs, and the sample's answers to the Q
        questions of a path, (1 + K + Q, B)."""
        graph = self.plan.graph
        rows = 1 + len(graph.inputs) + len(graph.questions)
        result: Array = np.empty((rows, batch), self.dtype)
        for bound, samples, _ in self._forward(theta, arrays, batch, tile, FROM_INPUTS):
            bound.backward()
            bound.read_gradients(result[:, samples])
        return result

    def doubtful(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Mask:
        """(B,) for which samples output 0, or a gradient on the way to theta, is not finite.

        Samples that leave the path are not among them.
        """
        result, graph = np.empty(batch, bool), self.plan.graph
        for bound, samples, _ in self._forward(theta, arrays, batch, tile, FROM_PARAMETERS | KEEP):
            bound.backward()
            result[samples] = bound.doubtful()
            if self._asks:
                result[samples] &= graph.follows(bound.answers())
        return result

    def _forward(self, theta: Array, arrays: Inputs, batch: int, tile: int, wanted: int) -> Tiles:
        """For each tile: buffers with its values, its samples, whether it is their last tile."""
        even = batch - batch % tile
        for width, start, stop in ((tile, 0, even), (batch - even, even, batch)):
            if start < stop:
                bound = self._fitting(width, tile, wanted)
                bound.start(theta)
                for a in range(start, stop, width):
                    samples = slice(a, a + width)
                    bound.forward([array[samples] for array in arrays])
                    yield bound, samples, samples.stop == stop
                self._give(bound)

    def width(self, batch: int) -> int:
        """How many samples each tile of a batch has, save the last, if none is rounded up."""
        if batch <= self.tile:
            return batch
        fewest = -(-batch // self.tile)
        for tiles in range(fewest, fewest + fewest // 8 + 1):
            if batch % tiles == 0:  # so that no narrower one has to be bound for the rest
                return batch // tiles
        return -(-batch // fewest)

    def tile_for(self, batch: int) -> int:
        """How many samples each tile of a batch that somebody asks for now shall have.

        It is Rounded if batches of this size are rare, so that no width is bound for them alone.
        Hot path.
        """
        regular = self._regular
        if batch in regular:
            regular[batch] = True
        elif not self._becomes_regular(batch):
            return self._rounded
        return batch if batch <= self.tile else self.width(batch)

    def _becomes_regular(self, batch: int) -> bool:
        """Whether a size that is not regular is now, if need be in place of one not in use."""
        self._others = others = (*self._others[1 - LATELY :], batch)
        first = 0 if self._asks else FIRST
        if len(self._regular) >= first and others.count(batch) < OFTEN:
            return False
        self._others, regular = (), self._regular
        if len(regular) >= REGULAR:
            idle = [size for size, in_use in regular.items() if not in_use]
            if not idle:  # by the next time, those that are in use will have been asked for
                self._regular = dict.fromkeys(regular, False)
                return False
            regular = {size: in_use for size, in_use in regular.items() if size != idle[0]}
        self._regular = {**regular, batch: True}
        return True

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
            two, three = (self._bind(n, wanted, False).nbytes for n in (2, 3))
            require_buffers(width, 3 * two - 2 * three, three - two, workers, taken)

    def summary(self) -> SweepSummary:
        """The kernels as `explain` and pictures show them."""
        return self.plan.summary()

    def _bind(self, width: int, wanted: int, filled: bool) -> Bound:
        self._times_bound += 1
        bound: Bound = self._kinds[filled](self.plan, width, wanted, self.careful, self.dtype)
        return bound

    def _fitting(self, count: int, tile: int, wanted: int) -> Bound:
        """A bound plan for a tile of this many samples, rounded up if `tile` says so. Hot path.

        A single sample has no axis, and a full tile needs nothing to fill it up.
        """
        if type(tile) is Rounded and 1 < count < tile:
            return self._take(round_up(count, self.least, tile), wanted, True)
        return self._take(count, wanted)

    def _take(self, width: int, wanted: int, filled: bool = False) -> Bound:
        """A bound plan that no other call is using; threads may ask at once. Hot path."""
        try:
            return self._free[width, wanted, self._kinds[filled]].pop()
        except (KeyError, IndexError):
            pass
        self.admit(width, wanted)
        return self._bind(width, wanted, filled)

    def _give(self, bound: Bound) -> None:
        """Keep it for the next call. What a call that failed had taken is not used again."""
        bound.used = self._times_bound
        key = bound.width, bound.wanted, type(bound)
        if key not in self._free or bound.nbytes > LARGE:
            self._make_room(bound)
        self._free.setdefault(key, []).append(bound)

    def _make_room(self, new: Bound) -> None:
        """Let go of what has not been used for longest, until a bound plan may be kept too."""
        if new.nbytes > LARGE:
            self._free.clear()
        kept = [(key, [*bounds]) for key, bounds in [*self._free.items()]]
        kept.sort(key=lambda item: max((x.used for x in item[1]), default=self._times_bound))
        room = KEPT_BYTES - new.nbytes - sum(x.nbytes for _, bounds in kept for x in bounds)
        for k, (key, bounds) in enumerate(kept):
            if room >= 0 and len(kept) - k < KEPT_WIDTHS:
                break
            self._free.pop(key, None)
            room += sum(x.nbytes for x in bounds)
