"""What repeats: a graph's nodes in the order of a program, cut into pieces of which many are alike.

A loop that was recorded without one has the same ops over and over again, and so has a network of
many layers. Turns are found by symbols that stand for nodes; `pieces` looks at what these read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .graph import Graph
from .passes import hash64

Ints = NDArray[np.intp]

SAMPLE = 1 << 16  # nodes that are looked at to find a period, which is half as long at most
FEW = 64  # nodes; in fewer no period is looked for


class Stretch(NamedTuple):
    """Pieces of one size, side by side, or with those of other stretches in between."""

    start: int
    size: int
    stride: int  # from one to the next
    repeats: int

    @property
    def starts(self) -> Ints:
        """(repeats,) where the pieces begin."""
        return self.start + self.stride * np.arange(self.repeats)


def program_order(graph: Graph) -> Ints:
    """The computed nodes that outputs need, each right before it is first used.

    So a turn of a loop has its nodes together, where by levels those of many turns would meet.

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x: vgrad.exp(x[0]) + vgrad.exp(x[1]) + 1, (2,))
    >>> [vgrad.ops.OPS[code].name for code in graph.op[program_order(graph)]]
    ['exp', 'exp', 'add', 'add']
    """
    order: list[int] = []
    done = bytearray(len(graph) + 1)
    done[-1] = 1  # no parent
    np.frombuffer(done, np.uint8)[:-1] |= graph.level == 0
    operands = [column.tolist() for column in graph.parents.T]
    for output in graph.outputs.tolist():
        stack = [output]
        while stack:
            node = stack[-1]
            if not done[node]:
                before = len(stack)
                for column in (2, 1, 0):
                    parent = operands[column][node]
                    if not done[parent]:
                        stack.append(parent)
                if len(stack) > before:
                    continue
                done[node] = 1
                order.append(node)
            stack.pop()
    return np.array(order, np.intp)


def cut(
    symbols: NDArray[np.uint64],
    weights: NDArray[np.float64],
    live: Ints,
    most: float,
    longest: int,
    share: float = 0.0,
) -> list[Stretch]:
    """The nodes (n,), told apart by their symbols, cut into pieces; each node is in one of them.

    A piece has as many turns as weigh `most` together; one of more than `longest` nodes is cut
    again. `live` (n + 1,) says how many numbers are needed later, before each node: turns begin
    where these are few. What repeats for less than a `share` of all nodes is not looked for.

    >>> symbols, ones = np.tile(np.arange(200), 10), np.ones(2000)
    >>> cut(symbols, ones, np.ones(2001, int), 256, 512)
    [Stretch(start=0, size=200, stride=200, repeats=10)]
    """
    total = np.append(0.0, np.cumsum(weights))
    found, waiting = [], [(0, len(symbols))][: len(symbols)]
    least = share * len(symbols)
    while waiting:
        first, last = waiting.pop()
        period, start, stop = _period(symbols, first, last, max(FEW, least / 2))
        if stop - start >= 3 * period:
            start += int(live[start : start + period].argmin())
        weight = total[start + period] - total[start]
        turns = int(min(most / max(weight, 1e-9), (stop - start) / (2 * period)))
        turns = max(1, turns)
        count = (stop - start) // (turns * period)
        repeats = count > 1 and stop - start >= least
        if not repeats and last - first > max(8 * FEW, 2 * least):  # perhaps either half does
            middle = (first + last) // 2
            waiting += [(first, middle), (middle, last)]
            continue
        if not repeats:
            found += _parts(first, last - first, 0, 1, longest)
            continue
        size = turns * period
        end = start + count * size
        found += _parts(start, size, size, count, longest)
        waiting += [(a, b) for a, b in ((first, start), (end, last)) if a < b]
    return found


def _parts(start: int, size: int, stride: int, count: int, longest: int) -> list[Stretch]:
    """Pieces of `size` nodes as one stretch, or as several if they are too long."""
    parts = -(-size // longest)
    ends = [start + size * k // parts for k in range(parts + 1)]
    return [Stretch(a, b - a, stride, count) for a, b in pairwise(ends)]


def _period(
    symbols: NDArray[np.uint64], first: int, last: int, least: float
) -> tuple[int, int, int]:
    """After how many nodes those of a stretch repeat, and from where to where.

    Its middle is looked at, its start and its end, at ever less down to `least` nodes: so of a
    loop within a loop it is the outer one's period.
    """
    size = min(last - first, SAMPLE)
    while size >= least:
        for start in ((first + last - size) // 2, first, last - size):
            period = _shortest(symbols[start : start + size])
            if period:
                same = symbols[first : last - period] == symbols[first + period : last]
                breaks = np.flatnonzero(~same) + first
                k = int(np.searchsorted(breaks, start))
                low = int(breaks[k - 1]) + 1 if k else first
                high = int(breaks[k]) if k < len(breaks) else last - period
                return period, low, high + period
        size //= 2
    return last - first, first, last


def _shortest(sample: NDArray[np.uint64]) -> int:
    """The shortest period, at most half of the sample; 0 if it has none.

    By random numbers in the symbols' places. The products of those at i and at i + d, added up over
    i, are most where all are the same; a Fourier transform gives that for every d at once.
    """
    n = len(sample)
    x = hash64(sample).astype(float) / 2.0**63 - 1
    transform = np.fft.rfft(x, 2 * n)
    distances = np.arange(1, n // 2 + 1)
    products = np.fft.irfft(transform * transform.conj())[distances]
    squares = np.append(0.0, np.cumsum(x * x))
    # a * b is less than half of a * a + b * b, unless a is b
    most = 0.5 * (squares[n - distances] + squares[n] - squares[distances])
    for period in distances[products > most - 1e-6].tolist():
        if np.array_equal(sample[:-period], sample[period:]):
            return period  # type: ignore[no-any-return]
    return 0


def alike(rows: NDArray[Any]) -> list[Ints]:
    """Which rows (n, k) are the same; those like the first row come first.

    >>> alike(np.array([[7, 8], [1, 2], [7, 8]]))
    [array([0, 2]), array([1])]
    """
    keys = (hash64(rows) * (hash64(np.arange(rows.shape[1])) | np.uint64(1))).sum(axis=1)
    _, first, kind = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(kind.reshape(-1), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(kind.reshape(-1)))[:-1])
    assert all((rows[group] == rows[group[0]]).all() for group in groups), "keys equal by chance"
    return [groups[k] for k in np.argsort(first).tolist()]
