"""What is done with the samples of a call, shard by shard, and how the results are put together.

Totals of shards are added up in a tree that depends on the number of shards alone. So its parts can
be added up anywhere, and the sum is the same to the bit. Of seven shards:

    0   1   2   3   4   5   6
     \\ /     \\ /     \\ /    /
      +       +       +    /
        \\   /           \\ /
          +             +
             \\        /
                  +
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array
from ..flat import Graph
from .runner import Runner

Total = tuple[float, Array, Array | None]  # a value, its gradient, and perhaps every output

BLOCKS = 4  # at least so many tasks for each worker, if there are enough shards


class Work(NamedTuple):
    """A method of the sweep of this name, in tiles, and how many samples are a shard."""

    name: str
    method: str
    tile: int
    shard: int
    options: tuple[Any, ...] = ()

    def run(self, runner: Runner, theta: Array, arrays: Sequence[Array], batch: int) -> Any:
        """The method's result for these samples; numbers of another dtype are converted by the way.

        Only gradients are summed, so other results need no shards of their own.
        """
        run, dtype = getattr(runner.sweep(self.name), self.method), runner.dtype
        is_whole = self.method != "gradient" and all(x.dtype == dtype for x in arrays)
        size = batch if is_whole else self.shard

        def of_shards() -> Iterator[Any]:
            for a in range(0, batch, size):
                part = [x[a : a + size].astype(dtype, copy=False) for x in arrays]
                yield run(theta, part, min(size, batch - a), self.tile, *self.options)

        with np.errstate(all="ignore"):  # which each thread has to say for itself
            return self.joined(of_shards(), batch, runner.graph)

    def blocks(self, batch: int, workers: int, most: int) -> list[slice]:
        """The samples of each task, `most` at the most: shards whose sum is a part of the tree."""
        size = self.shard
        while batch >= 2 * size * BLOCKS * workers and 2 * size <= most:
            size *= 2
        return [slice(a, min(a + size, batch)) for a in range(0, batch, size)]

    def joined(self, parts: Iterable[Any], batch: int, graph: Graph) -> Any:
        """The result for all samples, of those for parts of them, in order."""
        if self.method == "gradient":
            return total_of(parts, graph)
        rest = iter(parts)
        first: Array = next(rest)
        start = first.shape[-1]
        if start == batch:
            return first
        whole = np.empty((*first.shape[:-1], batch), first.dtype)
        whole[..., :start] = first
        for part in rest:  # each is gone before the next is there
            whole[..., start : start + part.shape[-1]] = part
            start += part.shape[-1]
        return whole


Ranked = tuple[int, float, Array]  # the sum of 2^rank parts


def total_of(parts: Iterable[Total], graph: Graph) -> Total:
    """The sum of values and of gradients, in the tree, and the outputs side by side."""
    sums: list[Ranked] = []
    columns: list[Array] = []
    for value, gradient, outputs in parts:
        ranked = (0, value, gradient)
        while sums and sums[-1][0] == ranked[0]:
            ranked = _added(sums.pop(), ranked)
        sums.append(ranked)
        if outputs is not None:
            columns.append(outputs)
    whole = sums.pop()
    while sums:
        whole = _added(sums.pop(), whole)
    return whole[1], whole[2], graph.side_by_side(columns) if columns else None


def _added(left: Ranked, right: Ranked) -> Ranked:
    return left[0] + 1, left[1] + right[1], left[2] + right[2]
