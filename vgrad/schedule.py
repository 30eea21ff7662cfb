"""When and where: which nodes run as one kernel, and which row of which buffer each of them gets.

Nodes that no input reaches are shared: computed once, in a buffer of one number per row. The others
are batched, in a buffer of one number per row and sample. Nodes of one level and one kind form a
group, and a group takes consecutive rows, in an order that lets kernels see their operands as
slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from .fuse import CONTRACTION, SMALL_SUM, Fused, Ints, Mask, Terms
from .graph import FROM_INPUTS, SHARED
from .levels import Kinds, earliest, find_kinds, meeting
from .passes import scatter

MAP, GRID, CHAIN, SEGMENTS = "map", "matmul", "chain", "sum"

# A grid smaller than this, in products, runs with the others of its level, unless there are few.
SMALL_GRID, FEW_GRIDS = 64, 2


@dataclass(frozen=True, eq=False)
class Group:
    """n nodes that run as one kernel; the factors and operands are nodes too.

    A map applies `op` to its operands. A chain is n sums of k terms each, added one after the
    other; a sum is n sums of t terms in all, each beginning at one of `starts`; a grid is A * C
    sums of k terms, each row of `v` meeting each row of `u`: a matrix product.
    """

    kind: str
    level: int
    buffer: int
    nodes: Ints  # (n,); of a grid (A * C,), C running fastest
    op: int = CONTRACTION
    operands: tuple[Ints, ...] = ()  # of a map: (n,) each
    u: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n, k), (t,) or (C, k)
    v: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n, k), (t,) or (A, k)
    coef: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # as u
    starts: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n,)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The groups in the order in which they run, and the layout of the two buffers."""

    groups: list[Group]
    row: Ints  # (m,) the row of each node in its buffer
    rows: tuple[int, int]  # how many rows the buffers have
    follows: Mask  # (m,) whether a row of ones lies behind the node's own
    ones: tuple[Ints, Ints]  # the rows of ones in each buffer


def schedule(fused: Fused, inputs: Ints, parameters: Ints) -> Schedule:
    """Group the nodes, and lay them out."""
    kinds = find_kinds(fused)
    level = earliest(fused, kinds)
    groups = list(_groups(fused, kinds, level))
    if len(groups) > len({(group.buffer, group.level) for group in groups}):
        level = meeting(fused, kinds, int(level.max()))
        groups = min(groups, list(_groups(fused, kinds, level)), key=len)
    return _layout(fused, groups, inputs, parameters)


# --- groups --------------------------------------------------------------------------------------


def _groups(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Group]:
    """All groups, shared before batched, and from the bottom up."""
    groups = [*_maps(fused, kinds, level), *_sums(fused, kinds, level)]
    return iter(sorted(groups, key=lambda group: (group.buffer, group.level)))


def _blocks(*keys: Ints) -> list[tuple[int, int]]:
    """Where runs of equal keys begin and end."""
    if not len(keys[0]):
        return []
    breaks = np.zeros(len(keys[0]), bool)
    breaks[0] = True
    for key in keys:
        breaks[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(breaks).tolist()
    return list(zip(starts, [*starts[1:], len(breaks)]))


def _maps(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Group]:
    nodes = kinds.computed[fused.op[kinds.computed] != CONTRACTION]
    nodes = nodes[np.lexsort((kinds.family[nodes], level[nodes]))]
    for a, b in _blocks(level[nodes], kinds.family[nodes]):
        some = nodes[a:b]
        op = int(fused.op[some[0]])
        operands = tuple(fused.parents[some, k] for k in range(ops.OPS[op].arity))
        buffer = int(fused.origin[some[0]] & FROM_INPUTS)
        yield Group(MAP, int(level[some[0]]), buffer, some, op, operands)


def _sums(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Group]:
    terms, starts = kinds.terms, kinds.starts
    sums, counts = terms.node[starts], np.diff(starts, append=len(terms.node))
    order = np.lexsort((counts, kinds.family[sums], level[sums]))
    sums, counts = sums[order], counts[order]
    new_starts = np.cumsum(counts) - counts
    index = np.repeat(starts[order] - new_starts, counts) + np.arange(len(terms.node))
    terms = terms.take(index)
    for a, b in _blocks(level[sums], kinds.family[sums]):
        last = new_starts[b - 1] + counts[b - 1]
        pool = terms.take(np.arange(new_starts[a], last))
        buffer = int(fused.origin[sums[a]] & FROM_INPUTS)
        yield from _pool(pool, int(level[sums[a]]), buffer, bool(kinds.uniform[sums[a]]))


def _pool(terms: Terms, level: int, buffer: int, uniform: bool) -> Iterator[Group]:
    """The groups of the sums of one level and one kind, which come sorted by their length.

    Where their terms are not of one kind throughout, no matrix would have all of their factors.
    """
    starts = np.flatnonzero(np.diff(terms.node, prepend=-1))
    counts = np.diff(starts, append=len(terms.node))
    blocks = []
    for a, b in _blocks(counts):
        k, block = int(counts[a]), slice(starts[a], starts[b - 1] + counts[b - 1])
        u, v = (x[block].reshape(-1, k) for x in (terms.u, terms.v))
        coef = terms.coef[block].reshape(-1, k)
        # short sums of one row of u run as well, and without gathering, term by term
        worth_a_look = uniform and (k > SMALL_SUM or len(u) > 1)
        found = _grids(u, v, coef) if worth_a_look else ()
        grids = [grid for grid in found if k > SMALL_SUM or len(grid[1]) > 1]
        blocks.append((terms.node[starts[a:b]], u, v, coef, grids))
    few = sum(len(grids) for *_, grids in blocks) <= FEW_GRIDS
    rest = []
    for nodes, u, v, coef, grids in blocks:
        left = np.ones(len(nodes), bool)
        for cells, rows_u, rows_v in grids:
            if few or len(cells) * u.shape[1] >= SMALL_GRID:
                left[cells] = False
                yield Group(
                    GRID,
                    level,
                    buffer,
                    nodes[cells],
                    u=u[rows_u],
                    v=v[rows_v],
                    coef=coef[rows_u],
                )
        if left.any():
            rest.append((nodes[left], u[left], v[left], coef[left]))
    short = [block for block in rest if block[1].shape[1] <= SMALL_SUM]
    for nodes, u, v, coef in short:
        yield Group(CHAIN, level, buffer, nodes, u=u, v=v, coef=coef)
    yield from _segments(rest[len(short) :], level, buffer)


def _segments(
    blocks: list[tuple[Ints, Ints, Ints, NDArray[np.float64]]], level: int, buffer: int
) -> Iterator[Group]:
    """One group for sums of all lengths."""
    if blocks:
        lengths = np.concatenate([np.full(len(nodes), u.shape[1]) for nodes, u, *_ in blocks])
        nodes, u, v = (np.concatenate([x.ravel() for x in xs]) for xs in list(zip(*blocks))[:3])
        coef = np.concatenate([x.ravel() for *_, x in blocks])
        starts = np.cumsum(lengths) - lengths
        yield Group(SEGMENTS, level, buffer, nodes, u=u, v=v, coef=coef, starts=starts)


def _grids(u: Ints, v: Ints, coef: NDArray[np.float64]) -> Iterator[tuple[Ints, Ints, Ints]]:
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
    for a, b in _blocks(part[order]):
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
    weights = scatter(np.arange(len(columns) * k)).reshape(len(columns), 1, k) | np.uint64(1)
    key = sum((scatter(x) * w).sum(axis=1) for x, w in zip(columns, weights))
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


# --- rows ----------------------------------------------------------------------------------------


def _layout(fused: Fused, groups: list[Group], inputs: Ints, parameters: Ints) -> Schedule:
    batched = fused.origin & FROM_INPUTS
    follows = np.zeros(len(fused.op), bool)
    for group in groups:
        if group.kind == GRID:
            before = group.v[:, :-1][group.v[:, 1:] == fused.one]
            if (fused.op[before] != ops.const.code).all():
                follows[before] = True
    row = np.full(len(fused.op), -1)
    ones: tuple[list[Ints], list[Ints]] = [], []
    sizes = [0, 0]

    def place(nodes: Ints, buffer: int) -> None:
        behind = follows[nodes]
        gaps = np.cumsum(behind) - behind
        row[nodes] = sizes[buffer] + np.arange(len(nodes)) + gaps
        ones[buffer].append(row[nodes[behind]] + 1)
        sizes[buffer] += len(nodes) + int(behind.sum())

    grids = [group for group in groups if group.kind == GRID]
    grids.sort(key=lambda group: -group.buffer)  # what runs in every tile chooses first
    place(_wished(parameters, [group.u for group in grids]), SHARED)
    place(np.flatnonzero(fused.alive & (fused.op == ops.const.code)), SHARED)
    place(_wished(inputs, [group.v for group in grids]), FROM_INPUTS)
    placed = []
    for group in groups:
        group = _sorted(group, row, batched, fused.one)
        place(group.nodes, group.buffer)
        placed.append(group)
    ones[FROM_INPUTS].append(np.array([sizes[FROM_INPUTS]]))
    sizes[FROM_INPUTS] += 1
    shared_ones, batched_ones = map(np.concatenate, ones)
    return Schedule(placed, row, (sizes[0], sizes[1]), follows, (shared_ones, batched_ones))


def _wished(leaves: Ints, uses: list[Ints]) -> Ints:
    """The leaves in the order in which matrix products use them, and then the others."""
    used = np.concatenate([use.ravel() for use in uses]) if uses else np.empty(0, np.intp)
    distinct, first = np.unique(used, return_index=True)
    in_order = distinct[np.argsort(first)]
    in_order = in_order[np.isin(in_order, leaves)]
    return np.concatenate([in_order, leaves[~np.isin(leaves, in_order)]])


def _sorted(group: Group, row: Ints, batched: NDArray[Any], one: int) -> Group:
    """The group with its nodes in the order of their operands' rows, where it is free to choose."""
    if group.kind == MAP:
        columns = list(group.operands)
    elif group.kind == CHAIN:
        columns = [x[:, k] for k in range(group.u.shape[1]) for x in (group.v, group.u)]
    elif group.kind == GRID and len(group.nodes) == 1:
        ones = group.v[0] == one
        if ones.any() and not ones.all():  # its place is behind the node before
            return group
        terms = np.lexsort((row[group.v[0]], row[group.u[0]]))
        u, v = group.u[:, terms], group.v[:, terms]
        return replace(group, u=u, v=v, coef=group.coef[:, terms])
    else:
        return group
    same = [row[x] for x in columns if batched[x[0]] == group.buffer]
    order = np.lexsort(same[::-1]) if same else np.arange(len(group.nodes))
    taken: dict[str, Any] = {"operands": tuple(x[order] for x in group.operands)}
    if group.kind == CHAIN:
        taken |= {name: getattr(group, name)[order] for name in ("u", "v", "coef")}
    return replace(group, nodes=group.nodes[order], **taken)
