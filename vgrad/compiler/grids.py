"""Matrices in sums of products: rows of one factor that meet rows of the other, each with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..flat import hash64, span_lengths, spans
from .fuse import Ints, Mask, Terms

SMALL_STACK = 64  # products; fewer are not worth a kernel of their own,
FEW_CELLS = 4  # nor are matrices of fewer cells,
MOST_STACKS = 32  # nor what is a smaller part of the sums of its level
FILLED = 1 / 3  # so much of a stack must be wanted; of the products of a causal model half are


def find_grids(u: Ints, v: Ints, coef: NDArray[np.float64]) -> Iterator[tuple[Ints, Ints, Ints]]:
    """The complete grids among sums of k terms: their cells, and where their rows come from.

    Sums are the edges of a graph that joins each distinct row of u with each distinct row of v; a
    grid is a part of it in which every pair is joined once.
    """
    rows_u = _classes(u, coef.view(np.int64))
    rows_v = _classes(v)
    if rows_u is None or rows_v is None:
        return
    part = _parts(rows_u, rows_v)
    order = np.lexsort((rows_u, rows_v, part))
    for a, b in spans(part[order]):
        cells = order[a:b]
        in_u, in_v = rows_u[cells], rows_v[cells]
        heads = np.flatnonzero(np.diff(in_v, prepend=-1))  # where each row of v begins
        width = (b - a) // len(heads)
        grid = in_u.reshape(len(heads), -1) if width * len(heads) == b - a else None
        if grid is None or (grid != grid[0]).any():
            continue
        if (np.diff(heads) == width).all():
            yield cells, cells[:width], cells[heads]


def _classes(*columns: Ints) -> Ints | None:
    """(n,) which rows are equal in all columns: the number of the first of each kind.

    None if two different rows fell together by chance.
    """
    k = columns[0].shape[1]
    weights = hash64(np.arange(len(columns) * k)).reshape(len(columns), 1, k) | np.uint64(1)
    key = sum((hash64(x) * w).sum(axis=1) for x, w in zip(columns, weights))
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    same = first[inverse.reshape(-1)]
    return same if all(np.array_equal(x, x[same]) for x in columns) else None


def _parts(rows_u: Ints, rows_v: Ints) -> Ints:
    """(n,) a number that sums have in common where they are linked by rows in common.

    In a complete grid one round is enough, so sums that two rounds do not bring together are none.
    """
    part = np.arange(len(rows_u))
    for _ in range(2):
        for rows in (rows_u, rows_v):
            lowest = np.full(len(part), len(part))
            np.minimum.at(lowest, rows, part)
            part = lowest[rows]
    return part


class Matrices(NamedTuple):
    """H matrix products at once: C rows of u meet A rows of v, k terms each; -1 where is nothing.

    Some pairs of rows may not be wanted, and rows may end early, as in a causal model the sums of
    the first position do. What is missing stands for 0.
    """

    nodes: Ints  # (H, A, C)
    u: Ints  # (H, C, k)
    v: Ints  # (H, A, k)

    def cells(self) -> Ints:
        """(n,) where the nodes are: in order, or, where some are missing, row of u by row of u."""
        places = np.arange(self.nodes.size).reshape(self.nodes.shape)
        there = self.nodes >= 0
        if there.all():
            return places.reshape(-1)
        return places.swapaxes(1, 2)[there.swapaxes(1, 2)]


def find_stacks(terms: Terms) -> tuple[list[Matrices], Mask]:
    """The stacks among sums of any lengths, and (t,) which terms are in none of them."""
    for u, v in ((terms.u, terms.v), (terms.v, terms.u)):
        found, left = _find_stacks(Terms(terms.node, u, v, terms.coef))
        if found:
            break
    return found, left


def _find_stacks(terms: Terms) -> tuple[list[Matrices], Mask]:
    """The same, where rows of v may be cut short, and not those of u."""
    starts, counts = span_lengths(terms.node)
    owner = np.repeat(np.arange(len(starts)), counts)
    place = np.arange(len(owner)) - starts[owner]
    key = np.add.reduceat(hash64(terms.u) * (hash64(place) | 1), starts) + hash64(counts)
    rows_u = _beginnings(key, terms.u, starts, counts)
    rows_v = _beginnings(terms.v[starts], terms.v, starts, counts)
    _, part = np.unique(_parts(rows_u, rows_v), return_inverse=True)
    in_c, c = _ranked(part, rows_u)
    in_a, a = _ranked(part, rows_v)
    k = np.zeros(len(c), np.intp)
    np.maximum.at(k, part, counts)
    wanted = np.bincount(part, counts)
    filled = wanted / (c * a * k)
    fits = np.flatnonzero((c * a >= FEW_CELLS) & (filled >= FILLED))
    found, left = [], np.ones(len(owner), bool)
    shapes, kind = np.unique(np.stack([c, a, k])[:, fits], axis=1, return_inverse=True)
    sizes = np.bincount(kind.reshape(-1), wanted[fits])
    for i in np.flatnonzero(sizes >= max(SMALL_STACK, len(owner) / MOST_STACKS)).tolist():
        parts = fits[kind.reshape(-1) == i]
        if len(parts) == 1 and filled[parts[0]] == 1:  # a grid
            continue
        h, inside = np.searchsorted(parts, part), np.isin(part, parts)
        shapes_of = _sizes(*shapes[:, i].tolist())
        stack = Matrices(*(np.full((len(parts), *size), -1) for size in shapes_of))
        stack.nodes[h[inside], in_a[inside], in_c[inside]] = terms.node[starts[inside]]
        in_stack = inside[owner]
        which, at = owner[in_stack], place[in_stack]
        stack.u[h[which], in_c[which], at] = terms.u[in_stack]
        stack.v[h[which], in_a[which], at] = terms.v[in_stack]
        if (stack.nodes >= 0).sum() == inside.sum():  # else some pair is there twice
            found.append(stack)
            left &= ~in_stack
    return found, left


def _sizes(c: int, a: int, k: int) -> tuple[tuple[int, int], ...]:
    return (a, c), (c, k), (a, k)


def _beginnings(key: NDArray[Any], x: Ints, starts: Ints, counts: Ints) -> Ints:
    """(n,) for each row of x the longest of the same key, if it is the beginning of that.

    A row that is not stands for itself; rows begin at `starts`.
    """
    order = np.lexsort((-counts, key))
    heads = np.flatnonzero(np.append(True, key[order][1:] != key[order][:-1]))
    longest = np.empty(len(key), np.intp)
    longest[order] = np.repeat(order[heads], np.diff(heads, append=len(key)))
    place = np.arange(len(x)) - np.repeat(starts, counts)
    same = x[np.repeat(starts[longest], counts) + place] == x
    return np.where(np.logical_and.reduceat(same, starts), longest, np.arange(len(key)))


def _ranked(part: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """(n,) which of the distinct rows of its part a row is, and how many each part has."""
    distinct, index = np.unique(part * len(part) + rows, return_inverse=True)
    counts = np.bincount(distinct // len(part))
    return index - (np.cumsum(counts) - counts)[part], counts
