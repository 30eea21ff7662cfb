"""Matrices in sums of products: rows of one factor that meet rows of the other, each with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..flat import hash64, span_lengths, spans
from .fuse import Floats, Ints, Mask, Terms

SMALL_STACK = 64  # products; fewer are not worth a kernel of their own,
FEW_CELLS = 4  # nor are matrices of fewer cells,
MOST_STACKS = 32  # nor what is a smaller part of the sums of its level
FILLED = 1 / 3  # of the products of a stack that must be wanted; of a causal model's half are


def find_grids(u: Ints, v: Ints, coef: Floats) -> Iterator[tuple[Ints, Ints, Ints]]:
    """The complete grids among sums of k terms: their cells, and where their rows come from.

    A sum is a cell, in which a row of u meets a row of v; a grid is cells of which each row of u
    meets each row of v, once. A layer of two neurons, w0 * x0 + w1 * x1 and w2 * x0 + w3 * x1, at
    the inputs x and y, has four:

                   x0 x1    y0 y1
        w0 w1        0        2          w0, w1, w2, w3 = 1, 2, 3, 4
        w2 w3        1        3          x0, x1, y0, y1 = 5, 6, 7, 8

    >>> u, v = np.array([[1, 2], [3, 4]] * 2), np.array([[5, 6]] * 2 + [[7, 8]] * 2)
    >>> [[x.tolist() for x in grid] for grid in find_grids(u, v, np.ones((4, 2)))]
    [[[0, 1, 2, 3], [0, 1], [0, 2]]]
    """
    rows_u, rows_v = _equal_rows(u, coef.view(np.int64)), _equal_rows(v)
    if rows_u is None or rows_v is None:
        return
    part = _parts(rows_u, rows_v)
    order = np.lexsort((rows_u, rows_v, part))
    for a, b in spans(part[order]):
        cells = order[a:b]
        row = rows_u[cells]
        heads = np.flatnonzero(np.diff(rows_v[cells], prepend=-1))  # where each row of v begins
        width = len(cells) // len(heads)
        even = np.array_equal(heads, np.arange(0, len(cells), width))
        if even and (row.reshape(-1, width) == row[:width]).all():
            yield cells, cells[:width], cells[heads]


def _equal_rows(*columns: Ints) -> Ints | None:
    """(n,) for each row the first that is equal to it in all of the arrays, (n, k) each.

    None if two different rows have one key by chance.
    """
    k = columns[0].shape[1]
    weights = hash64(np.arange(len(columns) * k)).reshape(len(columns), 1, k) | np.uint64(1)
    key = sum((hash64(x) * w).sum(axis=1) for x, w in zip(columns, weights))
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    same = first[inverse.reshape(-1)]
    return same if all(np.array_equal(x, x[same]) for x in columns) else None


def _parts(rows_u: Ints, rows_v: Ints) -> Ints:
    """(n,) a number that cells have in common if they are linked by rows in common.

    In a complete grid one round is enough, so cells that two rounds do not link are no grid.
    """
    part = np.arange(len(rows_u))
    for rows in (rows_u, rows_v, rows_u, rows_v):
        lowest = np.full(len(part), len(part))
        np.minimum.at(lowest, rows, part)
        part = lowest[rows]
    return part


class Matrices(NamedTuple):
    """A stack: H matrix products at once, C rows of u meet A rows of v; -1 where there is no node.

    Some cells may not be wanted, and rows may end early, as in a causal model the sums of the first
    position do. What is missing stands for 0.

        u \\ v   x   y   z       of the scores of three positions,
            x    0               x . x, y . x, y . y, ...,
            y    1   2           6 of 9 cells are wanted
            z    3   4   5
    """

    nodes: Ints  # (H, A, C)
    u: Ints  # (H, C, k)
    v: Ints  # (H, A, k)

    def cells(self) -> Ints:
        """(n,) where the nodes are: in order or, if some are missing, row of u by row of u."""
        places = np.arange(self.nodes.size)
        if (self.nodes >= 0).all():
            return places
        return places.reshape(self.nodes.shape).swapaxes(1, 2)[self.nodes.swapaxes(1, 2) >= 0]


def find_stacks(terms: Terms) -> tuple[list[Matrices], Mask]:
    """The stacks among sums of any lengths, and (t,) which terms are in none of them."""
    found, left = _find_stacks(terms)
    return (found, left) if found else _find_stacks(terms._replace(u=terms.v, v=terms.u))


def _find_stacks(terms: Terms) -> tuple[list[Matrices], Mask]:
    """The same, where rows of v may be cut short, and those of u may not.

    Sums linked by rows in common are a part, of c rows of u and a rows of v, k terms long. Parts
    of one shape make one stack, if enough of their cells are wanted.
    """
    starts, counts = span_lengths(terms.node)
    (key,) = terms.keys(hash64(terms.u))
    rows_u = _longest(terms, terms.u, key + hash64(counts))
    rows_v = _longest(terms, terms.v, terms.v[starts])
    _, part = np.unique(_parts(rows_u, rows_v), return_inverse=True)
    (in_c, c), (in_a, a) = _ranked(part, rows_u), _ranked(part, rows_v)
    k = np.zeros_like(c)
    np.maximum.at(k, part, counts)
    wanted = np.bincount(part, counts)
    filled = wanted / (c * a * k)
    fits = np.flatnonzero((c * a >= FEW_CELLS) & (filled >= FILLED))
    shapes, kind = np.unique(np.stack([c, a, k])[:, fits], axis=1, return_inverse=True)
    sizes = np.bincount(kind.reshape(-1), wanted[fits])
    found, left = [], np.ones(len(terms.node), bool)
    for i in np.flatnonzero(sizes >= max(SMALL_STACK, len(left) / MOST_STACKS)).tolist():
        parts = fits[kind.reshape(-1) == i]
        if len(parts) == 1 and filled[parts[0]] == 1:  # a grid
            continue
        inside = np.isin(part, parts)
        own = np.repeat(inside, counts)
        h = np.searchsorted(parts, part[inside])
        stack = _stack(terms.take(own), shapes[:, i].tolist(), h, in_c[inside], in_a[inside])
        if (stack.nodes >= 0).sum() == len(h):  # else some pair is there twice
            found.append(stack)
            left &= ~own
    return found, left


def _stack(terms: Terms, shape: tuple[int, int, int], h: Ints, c: Ints, a: Ints) -> Matrices:
    """The matrices in which each sum has its cell at [h, a, c]."""
    n, (most_c, most_a, k) = h.max() + 1, shape
    sizes = (n, most_a, most_c), (n, most_c, k), (n, most_a, k)
    stack = Matrices(*(np.full(size, -1) for size in sizes))
    starts, counts, places = terms.spans()
    stack.nodes[h, a, c] = terms.node[starts]
    h, a, c = (np.repeat(x, counts) for x in (h, a, c))
    stack.u[h, c, places], stack.v[h, a, places] = terms.u, terms.v
    return stack


def _longest(terms: Terms, x: Ints, key: NDArray[np.integer[Any]]) -> Ints:
    """(n,) for each sum the longest of those with its key, if that begins with the sum's x.

    If it does not, the sum itself. So two sums have the same number if one row serves both.
    """
    starts, counts, places = terms.spans()
    _, kind = np.unique(key, return_inverse=True)
    order = np.argsort(-counts, kind="stable")[::-1]
    of_kind = np.empty(kind.max() + 1, np.intp)
    of_kind[kind[order]] = order  # the last one that is written stays: the longest
    longest = of_kind[kind]
    same = x[np.repeat(starts[longest], counts) + places] == x
    return np.where(np.logical_and.reduceat(same, starts), longest, np.arange(len(key)))


def _ranked(part: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """(n,) which of the distinct rows of its part a row is, and how many each part has."""
    distinct, index = np.unique(part * len(part) + rows, return_inverse=True)
    counts = np.bincount(distinct // len(part))
    return index - (np.cumsum(counts) - counts)[part], counts
