"""A layered drawing, left to right: where the boxes of a picture go, and the ways of its edges.

An edge that passes a column of boxes gets a lane of its own there, as if it were a small box, so no
edge runs through a box. The order within each column, and then the heights, are found as by
Sugiyama, Tagawa and Toda 1981: each sweep arranges the columns by their neighbours' places.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from operator import add
from typing import NamedTuple

Point = tuple[float, float]
Edge = tuple[int, int]

# All lengths are in inches.
LANE = 0.1  # the height of a passing edge
SPACE = 0.16  # between two boxes of a column
GAP, STEEPEST, WIDEST = 0.28, 0.14, 1.6  # between columns: at least, per inch of height, at most
PORT = 0.09  # between the ends of edges at one box
MOVES = 100_000  # boxes and lanes moved in all sweeps; small pictures come to rest before that
PATIENCE = 4  # sweeps without fewer crossings
STILL = 0.002


class Layout(NamedTuple):
    """The centres of the boxes, and for each edge the points of its way; y grows downwards from 0.

    A way is straight from point 0 to 1, curves to 2, is straight to 3, and so on.
    """

    centres: list[Point]
    ways: list[list[Point]]
    width: float
    height: float


def layout(
    columns: Sequence[int], sizes: Sequence[Point], edges: Sequence[Edge], outs: Iterable[int]
) -> Layout:
    """Place boxes of these columns and sizes (width, height); edges go from left to right.

    Edges into one box end in their order from top to bottom. `outs` are the boxes to begin with.
    """
    lanes = _Lanes(columns, edges)
    heights = [size[1] for size in sizes] + [LANE] * (len(lanes.column) - len(sizes))
    y = _heights(lanes, _ordered(lanes, _first_order(lanes, outs)), heights)
    ys = _along(lanes.ways, y, sizes)
    left, right = _sides(lanes, ys, sizes)
    centres = [((left[column] + right[column]) / 2, y[k]) for k, column in enumerate(columns)]
    ways = []
    for (a, b), way, along in zip(edges, lanes.ways, ys):
        points = [(x[lanes.column[k]], h) for k, h in zip(way, along) for x in (left, right)]
        points[0] = centres[a][0] + sizes[a][0] / 2, y[a]
        points[-1] = centres[b][0] - sizes[b][0] / 2, along[-1]
        ways.append(points)
    return Layout(centres, ways, right[-1], max(a + height / 2 for a, height in zip(y, heights)))


class _Lanes:
    """The boxes, and a lane for each column that an edge passes; edges of one box share theirs."""

    def __init__(self, columns: Sequence[int], edges: Sequence[Edge]) -> None:
        self.boxes = len(columns)
        passed = [[(a, k) for k in range(columns[a] + 1, columns[b])] for a, b in edges]
        lanes = list(dict.fromkeys(lane for way in passed for lane in way))
        place = {lane: self.boxes + k for k, lane in enumerate(lanes)}
        self.column = [*columns, *(column for _, column in lanes)]
        # for each edge: a box, lanes, a box
        self.ways = [[a, *(place[x] for x in way), b] for (a, b), way in zip(edges, passed)]
        self.left: list[list[int]] = [[] for _ in self.column]
        self.right: list[list[int]] = [[] for _ in self.column]
        for a, b in dict.fromkeys(link for way in self.ways for link in pairwise(way)):
            self.left[b].append(a)
            self.right[a].append(b)
        self.port = {  # where a link ends, from the top of its box, 0 to 1
            (a, b): k / len(left) for b, left in enumerate(self.left) for k, a in enumerate(left)
        }

    def weight(self, a: int, b: int) -> float:
        """How much it matters that a link is straight."""
        lanes = (a >= self.boxes) + (b >= self.boxes)
        alone = len(self.right[a]) == 1 and len(self.left[b]) == 1
        return (1.0, 2.0, 8.0)[lanes] * (8.0 if alone else 1.0)


def _along(ways: list[list[int]], y: list[float], sizes: Sequence[Point]) -> list[list[float]]:
    """The heights along each way; those into one box end in their order, around its middle."""
    counts, met = Counter(way[-1] for way in ways), Counter[int]()
    ys = []
    for *way, b in ways:
        last = counts[b] - 1
        port = min(PORT, 0.7 * sizes[b][1] / max(last, 1))
        ys.append([*(y[k] for k in way), y[b] + port * (met[b] - last / 2)])
        met[b] += 1
    return ys


def _sides(
    lanes: _Lanes, ys: list[list[float]], sizes: Sequence[Point]
) -> tuple[list[float], list[float]]:
    """The left and the right side of each column, further apart where edges rise or fall more."""
    widths = [0.0] * (max(lanes.column) + 1)
    for column, (width, _) in zip(lanes.column, sizes):
        widths[column] = max(widths[column], width)
    gaps = [GAP] * len(widths)
    for way, along in zip(lanes.ways, ys):
        for k, (a, b) in zip(way, pairwise(along)):
            column = lanes.column[k]
            gaps[column] = max(gaps[column], min(WIDEST, GAP + STEEPEST * abs(a - b)))
    left = list(accumulate(map(add, widths[:-1], gaps), initial=0.0))
    return left, list(map(add, left, widths))


def _first_order(lanes: _Lanes, outs: Iterable[int]) -> list[list[int]]:
    """Depth first from the right, an op's operands from top to bottom: a tree gets no crossings."""
    order: list[list[int]] = [[] for _ in range(max(lanes.column) + 1)]
    seen: set[int] = set()
    for start in [*outs, *reversed(range(lanes.boxes))]:
        stack = [start]
        while stack:
            v = stack.pop()
            if v not in seen:
                seen.add(v)
                order[lanes.column[v]].append(v)
                stack += reversed(lanes.left[v])
    return order


def _ordered(lanes: _Lanes, order: list[list[int]]) -> list[list[int]]:
    """The order with the fewest crossings among those that the sweeps come across."""
    best, fewest, waited = order, _crossings(lanes, order), 0
    for sweep in range(MOVES // len(lanes.column)):
        if not fewest or waited == PATIENCE:
            break
        order = order.copy()
        step, near = (1, lanes.left) if sweep % 2 else (-1, lanes.right)
        for k in range(len(order))[::step][1:]:
            place = {v: i for i, v in enumerate(order[k - step])}
            order[k] = _by_neighbours(order[k], near, place)
        crossings = _crossings(lanes, order)
        waited += 1
        if crossings < fewest:
            best, fewest, waited = order, crossings, 0
    return best


def _by_neighbours(column: list[int], near: list[list[int]], place: dict[int, int]) -> list[int]:
    """The column by the mean place of the neighbours; a box without any keeps its place."""
    means = {v: sum(place[u] for u in near[v]) / len(near[v]) for v in column if near[v]}
    moving = iter(sorted(means, key=means.__getitem__))
    return [next(moving) if v in means else v for v in column]


def _crossings(lanes: _Lanes, order: list[list[int]]) -> int:
    """How many pairs of links cross."""
    total = 0
    for column, beside in pairwise(order):
        place = {v: i for i, v in enumerate(beside)}
        met: list[float] = []
        for u in column:
            for end in sorted(place[v] + lanes.port[u, v] for v in lanes.right[u]):
                total += len(met) - bisect_right(met, end)
                insort(met, end)
    return total


def _heights(lanes: _Lanes, order: list[list[int]], heights: list[float]) -> list[float]:
    """The y of every box and lane: as near to the neighbours' as the order and the room allow.

    Each sweep moves a column to where the sum of weight · (difference in y)² is least.
    """
    y = [0.0] * len(heights)
    spread = [_spread(column, heights, lanes.boxes) for column in order]
    for column, offsets in zip(order, spread):
        for v, offset in zip(column, offsets):
            y[v] = offset - offsets[-1] / 2
    pulls = [
        [*((u, lanes.weight(u, v)) for u in left), *((u, lanes.weight(v, u)) for u in right)]
        for v, (left, right) in enumerate(zip(lanes.left, lanes.right))
    ]
    weights = [[sum(w for _, w in pulls[v]) or 0.1 for v in column] for column in order]
    for sweep in range(1 + MOVES // len(y)):
        moved = 0.0
        for k in range(len(order))[:: 1 if sweep % 2 else -1]:
            wanted = [
                sum(w * y[u] for u, w in pulls[v]) / weight if pulls[v] else y[v]
                for v, weight in zip(order[k], weights[k])
            ]
            for v, place in zip(order[k], _kept_apart(wanted, weights[k], spread[k])):
                moved = max(moved, abs(y[v] - place))
                y[v] = place
        if moved < STILL:
            break
    top = min(a - height / 2 for a, height in zip(y, heights))
    return [a - top for a in y]


def _spread(column: list[int], heights: list[float], boxes: int) -> list[float]:
    """The least distance of each from the first of its column."""
    spaces = [
        (heights[a] + heights[b]) / 2 + (SPACE if min(a, b) < boxes else 0.0)
        for a, b in pairwise(column)
    ]
    return list(accumulate(spaces, initial=0.0))


def _kept_apart(wanted: list[float], weights: list[float], offsets: list[float]) -> list[float]:
    """The places nearest to those wanted that keep the order and the offsets' distances.

    Without offsets this is isotonic regression: neighbours in the wrong order are pooled at their
    mean (Ayer et al. 1955).
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for place, weight, offset in zip(wanted, weights, offsets):
        mean, total, count = place - offset, weight, 1
        while pools and pools[-1][0] >= mean:
            before, more, n = pools.pop()
            mean = (mean * total + before * more) / (total + more)
            total, count = total + more, count + n
        pools.append((mean, total, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    return list(map(add, means, offsets))
