"""Passes over all nodes of a graph, level by level, and over arrays of rows.

NumPy does a wide level in one go, Python a narrow one node by node: a graph may be a chain, with as
many levels as nodes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import FROM_INPUTS, FROM_PARAMETERS, Graph

WIDE = 32  # nodes; a narrower level is quicker in Python than by calls to NumPy


def origins(graph: Graph) -> NDArray[np.uint8]:
    """(n + 1,) FROM_... bits: what each node is computed from; the last entry is for no parent.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> origins(vgrad.trace(lambda x: x * w + 1, ()))  # x, w, 1, x * w, x * w + 1, no parent
    array([1, 2, 0, 3, 3, 0], dtype=uint8)
    """
    return reached(graph, {FROM_INPUTS: graph.inputs, FROM_PARAMETERS: graph.parameters})


def reached(graph: Graph, marks: dict[int, NDArray[Any]]) -> NDArray[np.uint8]:
    """(n + 1,) the marks of each node and of all that it is computed from, or-ed together.

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x, y: (x + 1) * y, (), ())
    >>> reached(graph, {1: graph.inputs[:1], 4: graph.inputs[1:]})  # x, 1, y, x + 1, (x + 1) * y
    array([1, 0, 4, 1, 5, 0], dtype=uint8)
    """
    bits = bytearray(len(graph) + 1)
    origin = np.frombuffer(bits, np.uint8)  # the same memory, for Python and for NumPy
    for mark, nodes in marks.items():
        origin[nodes] |= np.uint8(mark)
    for nodes, wide in by_level(graph.level):
        parents = graph.parents[nodes]
        if wide:
            origin[nodes] |= np.bitwise_or.reduce(origin[parents], axis=1)
        else:
            for node, (x, y, z) in zip(nodes.tolist(), parents.tolist()):
                bits[node] |= bits[x] | bits[y] | bits[z]
    return origin


def by_level(level: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.intp], bool]]:
    """The computed nodes of each wide level, and of narrow levels in a row; and whether it is wide.

    Here are levels of 1, 1 and 32 nodes:

    >>> level = np.array([0, 1, 2, *[3] * 32], np.int32)
    >>> [(len(nodes), wide) for nodes, wide in by_level(level)]
    [(2, False), (32, True)]
    """
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order])) + 1
    wide = np.diff(starts, append=len(order)) >= WIDE
    kept = np.ones(len(starts), bool)
    kept[1:] = wide[1:] | wide[:-1]
    bounds = [*starts[kept].tolist(), len(order)]
    for a, b, is_wide in zip(bounds, bounds[1:], wide[kept].tolist()):
        yield order[a:b], is_wide


def hash64(x: NDArray[Any]) -> NDArray[np.uint64]:
    """Numbers that look random, so that sums of them tell lists apart: MurmurHash3's finaliser.

    >>> lists = np.array([[1, 4], [4, 1], [2, 3]])
    >>> a, b, c = hash64(lists).sum(axis=1)
    >>> bool(a == b), bool(a == c)
    (True, False)
    """
    h = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h ^= h >> np.uint64(33)
        h *= np.uint64(factor)
    return h ^ (h >> np.uint64(33))


def span_lengths(*keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where spans of equal keys begin, and how long they are.

    >>> span_lengths(np.array([7, 7, 7, 8]), np.array([1, 1, 2, 2]))
    (array([0, 2, 3]), array([2, 1, 1]))
    """
    breaks = np.zeros(len(keys[0]), bool)
    breaks[:1] = True
    for key in keys:
        breaks[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(breaks)
    return starts, np.diff(starts, append=len(breaks))


def spans(*keys: NDArray[Any]) -> list[tuple[int, int]]:
    """Where spans of equal keys begin and end.

    >>> spans(np.array([7, 7, 7, 8]), np.array([1, 1, 2, 2]))
    [(0, 2), (2, 3), (3, 4)]
    """
    starts, lengths = span_lengths(*keys)
    return list(zip(starts.tolist(), (starts + lengths).tolist()))


Duplicates = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]


def duplicates(rows: NDArray[Any]) -> Duplicates | None:
    """How to add up the parts of rows (n,) that are named more than once; None if none is.

    The order that brings equal rows together, where each row's parts begin, and the rows. Summing
    so is deterministic, and several times faster than `np.add.at`.

    >>> order, starts, rows = duplicates(np.array([5, 3, 5]))
    >>> rows, np.add.reduceat(np.array([1.0, 10.0, 100.0])[order], starts)
    (array([3, 5]), array([ 10., 101.]))
    """
    if len(rows) == 1:
        return None
    distinct, counts = np.unique(rows, return_counts=True)
    if len(distinct) == len(rows):
        return None
    return np.argsort(rows, kind="stable"), np.cumsum(counts) - counts, distinct


def canonical_order(
    outputs: list[int], given: list[int], parents: NDArray[np.int32], level: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The places that count, (n,), in an order that depends on the structure alone.

    Level by level from the highest down, each node's parents from the last to the first, and
    then all of it reversed: a function recorded in another order, or from `Value`s, comes out
    the same, and a chain keeps its order of evaluation. Dead nodes drop out, except those
    `given`, which come first. Parents are (m, 3), -1 for none.

    Here (x * y) + y, where y was recorded first, and a dead node before the product:

        level 2             4 add           4
        level 1    2 exp    3 mul           3          read upwards: 1 0 3 4
        level 0         1 x       0 y       0 1        (y is found first, as add's last parent)

    >>> parents = np.array([[-1, -1, -1], [-1, -1, -1], [1, -1, -1], [1, 0, -1], [3, 0, -1]])
    >>> canonical_order([4], [], parents.astype(np.int32), np.array([0, 0, 1, 1, 2], np.int32))
    array([1, 0, 3, 4], dtype=int32)
    """
    found = _Found(level)
    found.add(np.array(outputs[::-1], np.int32))
    by_level, flags = found.by_level, found.flags
    parents_of, level_of = parents.data, level.data  # quick to look one up in
    order = array("i")
    while by_level:
        places = by_level.pop()
        if len(places) >= WIDE or np.ndarray in map(type, places):
            joined = _joined(places)
            order.frombytes(joined.tobytes())
            if len(joined) >= WIDE:
                found.add(parents[joined, ::-1].reshape(-1))
                continue
            places = joined.tolist()
        else:
            order.extend(places)
        for place in places:
            for k in (2, 1, 0):
                parent = parents_of[place, k]
                if not flags[parent]:  # `found.add` of one
                    flags[parent] = 1
                    by_level[level_of[parent]].append(parent)
    order.extend([place for place in given if not flags[place]])
    return np.frombuffer(order, np.int32)[::-1]


class _Found:
    """Places found so far, each once, level by level in the order of finding.

    What a level has is a list of places, and of arrays of them.
    """

    def __init__(self, level: NDArray[np.int32]) -> None:
        self.level = level
        self.by_level: list[list[Any]] = [[] for _ in range(int(level.max()) + 1)]
        self.flags = bytearray(len(level) + 1)
        self.seen = np.frombuffer(self.flags, bool)  # the same memory, for NumPy
        self.seen[-1] = True  # no parent
        self._first = np.empty(len(level), np.int32)  # where each place is first named

    def add(self, places: NDArray[np.int32]) -> None:
        """Add the new ones among these."""
        places = places[~self.seen[places]]
        number = np.arange(len(places), dtype=np.int32)
        self._first[places[::-1]] = number[::-1]  # of several, the last one stays
        places = places[self._first[places] == number]
        self.seen[places] = True
        level = self.level[places]
        if len(places) and level.min() != level.max():
            # NumPy sorts numbers of two bytes in a fraction of the time of others
            narrow = level.astype(np.uint16) if level.max() < 2**16 else level
            order = np.argsort(narrow, kind="stable")
            places, level = places[order], level[order]
        for a, b in spans(level) if len(level) else ():
            some = places[a:b]
            if b - a < WIDE:
                self.by_level[level[a]] += some.tolist()
            else:
                self.by_level[level[a]].append(some)


def _joined(places: list[Any]) -> NDArray[np.int32]:
    """Places and arrays of them, as one array."""
    if np.ndarray not in map(type, places):
        return np.array(places, np.int32)
    return np.concatenate([np.atleast_1d(np.asarray(x, np.int32)) for x in places])
