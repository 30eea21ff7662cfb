"""Passes over many nodes at once: over a graph level by level, over rows that are named twice.

A wide level is done by calls to NumPy, all of its nodes at once. A narrow one is done in Python, as
a graph may be a chain, with as many levels as nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import FROM_INPUTS, FROM_PARAMETERS, Graph

WIDE = 32  # nodes; a level of fewer is quicker done in Python than by calls to NumPy


def origins(graph: Graph) -> NDArray[np.uint8]:
    """(n + 1,) what each node is computed from, as FROM_... bits; the last stands for no parent."""
    return reached(graph, {FROM_INPUTS: graph.inputs, FROM_PARAMETERS: graph.parameters})


def reached(graph: Graph, marks: dict[int, NDArray[Any]]) -> NDArray[np.uint8]:
    """(n + 1,) the marks of each node, and of all that it is computed from, by bitwise or."""
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
    """The computed nodes, level by level; narrow levels that follow each other come as one."""
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order])) + 1
    wide = np.diff(starts, append=len(order)) >= WIDE
    kept = np.ones(len(starts), bool)
    kept[1:] = wide[1:] | wide[:-1]
    bounds = [*starts[kept].tolist(), len(order)]
    for a, b, is_wide in zip(bounds, bounds[1:], wide[kept].tolist()):
        yield order[a:b], is_wide


def hash64(x: NDArray[Any]) -> NDArray[np.uint64]:
    """A number for each that looks like chance, so that sums of them tell lists apart.

    The finaliser of MurmurHash3, by Austin Appleby.
    """
    h = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h ^= h >> np.uint64(33)
        h *= np.uint64(factor)
    return h ^ (h >> np.uint64(33))


def spans(*keys: NDArray[Any]) -> list[tuple[int, int]]:
    """Where runs of equal keys begin and end."""
    if not len(keys[0]):
        return []
    breaks = np.zeros(len(keys[0]), bool)
    breaks[0] = True
    for key in keys:
        breaks[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(breaks).tolist()
    return list(zip(starts, [*starts[1:], len(breaks)]))


def span_lengths(key: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where runs of equal numbers, none of which is -1, begin, and how long they are."""
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    return starts, np.diff(starts, append=len(key))


Duplicates = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]


def duplicates(rows: NDArray[Any]) -> Duplicates | None:
    """How to sum what goes to rows (n,) that are named more than once; None where none is.

    The order that brings equal rows together, where each row's run of them begins, and the rows
    themselves. Summing runs is deterministic, and several times faster than `np.add.at`.
    """
    if len(rows) == 1:
        return None
    distinct, counts = np.unique(rows, return_counts=True)
    if len(distinct) == len(rows):
        return None
    return np.argsort(rows, kind="stable"), np.cumsum(counts) - counts, distinct


def canonical_order(
    outputs: list[int],
    given: list[int],
    parents: NDArray[np.int32],
    level: NDArray[np.int32],
) -> NDArray[np.intp]:
    """The places that count, (n,), in the order that the structure alone decides.

    Level by level from the highest down, each node's parents from the last to the first, and
    then all of it reversed: what was recorded in another order, or from `Value`s, comes out
    the same, and evaluation order is kept where it is a chain. Dead nodes drop out, save those
    `given`, which come first. Parents are (m, 3), -1 where there is none.
    """
    buckets: list[list[int]] = [[] for _ in range(int(level.max()) + 1)]
    parents_of, level_of = parents.data, level.data  # quick to look one up in
    flags = bytearray(len(level) + 1)
    seen = np.frombuffer(flags, bool)  # the same memory, for Python and for NumPy
    seen[-1] = True  # no parent

    def discover(places: Iterable[int]) -> None:
        for place in places:
            if not flags[place]:
                flags[place] = 1
                buckets[level_of[place]].append(place)

    def discover_all(places: NDArray[np.int32]) -> None:
        places = places[~seen[places]]
        _, first = np.unique(places, return_index=True)
        places = places[np.sort(first)]
        seen[places] = True
        places = places[np.argsort(level[places], kind="stable")]
        starts = np.flatnonzero(np.diff(level[places], prepend=-1))
        for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(places)]):
            buckets[level[places[a]]] += places[a:b].tolist()

    discover(reversed(outputs))
    order: list[int] = []
    while buckets:
        bucket = buckets.pop()
        order += bucket
        if len(bucket) < WIDE:
            for place in bucket:
                discover([parents_of[place, k] for k in (2, 1, 0)])
        else:
            discover_all(parents[bucket, ::-1].reshape(-1))
    order += [place for place in given if not flags[place]]
    return np.array(order[::-1], np.intp)
