"""Where the boxes of a picture go, and the way of its edges: a layered drawing, left to right.

An edge that passes a column of boxes gets a place of its own in that column, as if it were a small
box, so no edge runs through a box. The order within each column, and then the heights, are found
as by Sugiyama, Tagawa and Toda 1981: sweeps over the columns in which each of them is arranged by
the places of its neighbours.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

Point = tuple[float, float]
Edge = tuple[int, int]

# All lengths are in inches.
LANE = 0.1  # the height that a passing edge takes
SPACE = 0.16  # between boxes that stand one above the other
GAP, STEEPEST, WIDEST = 0.28, 0.14, 1.6  # between columns: at least, per inch of height, at most
PORT = 0.09  # between the ends of edges at one box
# How many boxes and lanes may be moved in all sweeps; small pictures come to rest before that.
ORDER_MOVES, HEIGHT_MOVES = 100_000, 100_000
PATIENCE = 4  # sweeps without fewer crossings
STILL = 0.002


class Layout(NamedTuple):
    """Centres of boxes, and for each edge the points on its way; y grows downwards from 0.

    The way is straight from point 0 to 1, curves to 2, is straight to 3, and so on.
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
    order = _ordered(lanes, _first_order(lanes, outs))
    y = _heights(lanes, order, [*(size[1] for size in sizes), *[LANE] * lanes.passing])
    ends = _ends(edges, y, sizes)
    widths = [0.0] * len(order)
    for column, (width, _) in zip(columns, sizes):
        widths[column] = max(widths[column], width)
    gaps = [GAP] * len(order)
    for way, end in zip(lanes.ways, ends):
        for a, b in pairwise(way):
            rise = abs(y[a] - (end if b == way[-1] else y[b]))
            column = lanes.column[a]
            gaps[column] = max(gaps[column], min(WIDEST, GAP + STEEPEST * rise))
    steps = [width + gap for width, gap in zip(widths, gaps)]
    left = list(accumulate(steps[:-1], initial=0.0))
    right = [a + width for a, width in zip(left, widths)]
    middle = [(a + b) / 2 for a, b in zip(left, right)]
    centres = [(middle[column], y[box]) for box, column in enumerate(columns)]
    ways = []
    for way, end in zip(lanes.ways, ends):
        first, last = way[0], way[-1]
        start = middle[columns[first]] + sizes[first][0] / 2
        stop = middle[columns[last]] - sizes[last][0] / 2
        points = [(start, y[first]), (right[columns[first]], y[first])]
        for lane in way[1:-1]:
            column = lanes.column[lane]
            points += [(left[column], y[lane]), (right[column], y[lane])]
        ways.append([*points, (left[columns[last]], end), (stop, end)])
    bottoms = [y[box] + size[1] / 2 for box, size in enumerate(sizes)]
    lowest = max([*bottoms, *(y[k] + LANE / 2 for k in range(len(sizes), len(y)))])
    return Layout(centres, ways, right[-1], lowest)


class _Lanes:
    """The boxes, and a lane for each column that an edge passes; edges of one box share theirs."""

    def __init__(self, columns: Sequence[int], edges: Sequence[Edge]) -> None:
        self.column = list(columns)
        self.boxes = len(columns)
        self.ways: list[list[int]] = []  # for each edge: a box, lanes, a box
        lanes: dict[Edge, int] = {}  # of a box in a column
        for a, b in edges:
            way = [a]
            for column in range(columns[a] + 1, columns[b]):
                if (a, column) not in lanes:
                    lanes[a, column] = len(self.column)
                    self.column.append(column)
                way.append(lanes[a, column])
            self.ways.append([*way, b])
        self.passing = len(self.column) - self.boxes
        links = dict.fromkeys(link for way in self.ways for link in pairwise(way))
        self.left: list[list[int]] = [[] for _ in self.column]
        self.right: list[list[int]] = [[] for _ in self.column]
        self.port: dict[Edge, float] = {}  # where a link ends, from the top of its box, 0 to 1
        for a, b in links:
            self.port[a, b] = len(self.left[b])
            self.left[b].append(a)
            self.right[a].append(b)
        for a, b in links:
            self.port[a, b] /= len(self.left[b])

    def weight(self, a: int, b: int) -> float:
        """How much it matters that a link is straight."""
        lanes = (a >= self.boxes) + (b >= self.boxes)
        alone = len(self.right[a]) == 1 and len(self.left[b]) == 1
        return (1.0, 2.0, 8.0)[lanes] * (8.0 if alone else 1.0)


# --- the order within each column ----------------------------------------------------------------


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
    for sweep in range(ORDER_MOVES // len(lanes.column)):
        if not fewest or waited == PATIENCE:
            break
        order = [list(column) for column in order]
        forward = sweep % 2 == 1
        for k in range(1, len(order)) if forward else reversed(range(len(order) - 1)):
            beside = {v: i for i, v in enumerate(order[k - 1 if forward else k + 1])}
            order[k] = _by_neighbours(order[k], lanes.left if forward else lanes.right, beside)
        crossings = _crossings(lanes, order)
        waited += 1
        if crossings < fewest:
            best, fewest, waited = order, crossings, 0
    return best


def _by_neighbours(
    column: list[int], neighbours: list[list[int]], beside: dict[int, int]
) -> list[int]:
    """Sorted by the mean place of the neighbours; what has none keeps its place."""
    means = {
        v: sum(beside[u] for u in neighbours[v]) / len(neighbours[v])
        for v in column
        if neighbours[v]
    }
    moving = iter(sorted(means, key=lambda v: means[v]))
    return [next(moving) if v in means else v for v in column]


def _crossings(lanes: _Lanes, order: list[list[int]]) -> int:
    total = 0
    for column, beside in pairwise(order):
        place = {v: i for i, v in enumerate(beside)}
        met: list[float] = []
        for u in column:
            ends = sorted(place[v] + lanes.port[u, v] for v in lanes.right[u])
            total += sum(len(met) - bisect_right(met, end) for end in ends)
            for end in ends:
                insort(met, end)
    return total


# --- heights -------------------------------------------------------------------------------------


def _heights(lanes: _Lanes, order: list[list[int]], heights: list[float]) -> list[float]:
    """y of every box and lane: as near to the neighbours' as the order and the room allow.

    Each sweep moves a column to where the sum of weight · (difference in y)² is least.
    """
    y = [0.0] * len(heights)
    spread = [list(_spread(column, heights, lanes.boxes)) for column in order]
    for column, offsets in zip(order, spread):
        for v, offset in zip(column, offsets):
            y[v] = offset - offsets[-1] / 2
    pulls = [
        [(u, lanes.weight(u, v)) for u in lanes.left[v]]
        + [(u, lanes.weight(v, u)) for u in lanes.right[v]]
        for v in range(len(y))
    ]
    for sweep in range(1 + HEIGHT_MOVES // len(y)):
        moved = 0.0
        for k in range(len(order)) if sweep % 2 else reversed(range(len(order))):
            wanted, weights = [], []
            for v in order[k]:
                weight = sum(w for _, w in pulls[v])
                near = sum(w * y[u] for u, w in pulls[v]) / weight if weight else y[v]
                wanted.append(near)
                weights.append(weight or 0.1)
            for v, place in zip(order[k], _kept_apart(wanted, weights, spread[k])):
                moved = max(moved, abs(y[v] - place))
                y[v] = place
        if moved < STILL:
            break
    top = min(a - height / 2 for a, height in zip(y, heights))
    return [a - top for a in y]


def _spread(column: list[int], heights: list[float], boxes: int) -> Iterator[float]:
    """How far below the first each of a column must stand at the least."""
    yield (total := 0.0)
    for a, b in pairwise(column):
        space = SPACE if a < boxes or b < boxes else 0.0
        total += (heights[a] + heights[b]) / 2 + space
        yield total


def _kept_apart(wanted: list[float], weights: list[float], offsets: list[float]) -> Iterator[float]:
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
    return (mean + offset for mean, offset in zip(means, offsets))


def _ends(edges: Sequence[Edge], y: list[float], sizes: Sequence[Point]) -> list[float]:
    """At which height each edge ends: those of one box in their order, around its middle."""
    counts = Counter(b for _, b in edges)
    met: Counter[int] = Counter()
    ends = []
    for _, b in edges:
        last = counts[b] - 1
        port = min(PORT, 0.7 * sizes[b][1] / max(last, 1))
        ends.append(y[b] + port * (met[b] - last / 2))
        met[b] += 1
    return ends
