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
    earliest = _earliest(fused)
    groups = list(_groups(fused, earliest))
    # Nodes of one kind that the earliest order leaves a level apart may meet in the latest.
    if len(groups) > len({(group.buffer, group.level) for group in groups}):
        latest = list(_groups(fused, _latest(fused, earliest)))
        groups = min(groups, latest, key=len)
    return _layout(fused, groups, inputs, parameters)


# --- levels --------------------------------------------------------------------------------------


def _steps(fused: Fused) -> tuple[Terms, list[tuple[Ints, Ints, slice, Ints]]]:
    """The computed nodes from the bottom up, those of one depth together.

    Each step has the nodes that are no sums, the sums, where these have their terms, and where in
    those each sum begins.
    """
    computed = np.flatnonzero(
        fused.alive & ((fused.parents[:, 0] >= 0) | (fused.op == CONTRACTION))
    )
    computed = computed[np.argsort(fused.depth[computed], kind="stable")]
    is_sum = fused.op[computed] == CONTRACTION
    others, sums = computed[~is_sum], computed[is_sum]
    place = np.empty(len(fused.op), np.intp)
    place[sums] = np.arange(len(sums))
    terms = fused.terms.take(np.argsort(place[fused.terms.node], kind="stable"))
    counts = np.bincount(place[terms.node], minlength=len(sums))
    starts = np.append(0, np.cumsum(counts))
    depths = np.unique(fused.depth[computed])
    of_others = np.append(np.searchsorted(fused.depth[others], depths), len(others)).tolist()
    of_sums = np.append(np.searchsorted(fused.depth[sums], depths), len(sums)).tolist()
    steps = []
    for a, b, c, d in zip(of_others, of_others[1:], of_sums, of_sums[1:]):
        first = starts[c]
        steps.append((others[a:b], sums[c:d], slice(first, starts[d]), starts[c:d] - first))
    return terms, steps


def _earliest(fused: Fused) -> Ints:
    """(m + 1,) 0 for a leaf, else one more than the highest operand's; 0 for no operand."""
    terms, steps = _steps(fused)
    level = np.zeros(len(fused.op) + 1, np.intp)
    for others, sums, where, starts in steps:
        if len(others):
            level[others] = 1 + level[fused.parents[others]].max(axis=1)
        if len(sums):
            highest = np.maximum(level[terms.u[where]], level[terms.v[where]])
            level[sums] = 1 + np.maximum.reduceat(highest, starts)
    return level


def _latest(fused: Fused, earliest: Ints) -> Ints:
    """(m + 1,) as late as those that use a node let it run."""
    terms, steps = _steps(fused)
    level = np.full(len(fused.op) + 1, earliest.max())
    for others, sums, where, starts in reversed(steps):
        if len(others):
            for k in range(fused.parents.shape[1]):
                np.minimum.at(level, fused.parents[others, k], level[others] - 1)
        if len(sums):
            before = np.repeat(level[sums] - 1, np.diff(starts, append=where.stop - where.start))
            np.minimum.at(level, terms.u[where], before)
            np.minimum.at(level, terms.v[where], before)
    return level


# --- groups --------------------------------------------------------------------------------------


def _groups(fused: Fused, level: Ints) -> Iterator[Group]:
    """All groups, shared before batched, and from the bottom up."""
    groups = [*_maps(fused, level), *_sums(fused, level)]
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


def _maps(fused: Fused, level: Ints) -> Iterator[Group]:
    nodes = np.flatnonzero(fused.alive & (fused.parents[:, 0] >= 0))
    op, parents = fused.op[nodes], fused.parents[nodes]
    batched = np.append(fused.origin & FROM_INPUTS, 0).astype(np.intp)
    kind = batched[nodes] + batched[parents] @ np.array([2, 4, 8]) + 16 * op.astype(np.intp)
    static = np.array([-1 if o.static is None else o.static for o in ops.OPS])[op]
    constant = parents[np.arange(len(nodes)), static]  # where an op has short cuts for constants
    is_static = (static >= 0) & (fused.op[constant] == ops.const.code)
    constant = np.where(is_static, constant, -1)
    order = np.lexsort((constant, level[nodes] * (1 << 13) + kind))
    nodes, kind, constant, parents = nodes[order], kind[order], constant[order], parents[order]
    for a, b in _blocks(level[nodes], kind, constant):
        op_code = int(fused.op[nodes[a]])
        operands = tuple(parents[a:b, k] for k in range(ops.OPS[op_code].arity))
        buffer = int(batched[nodes[a]])
        yield Group(MAP, int(level[nodes[a]]), buffer, nodes[a:b], op_code, operands)


def _sums(fused: Fused, level: Ints) -> Iterator[Group]:
    terms = _oriented(fused)
    if not len(terms.node):
        return
    batched = (fused.origin & FROM_INPUTS).astype(np.intp)
    # a term of a batched sum has two batched factors or, a factor of 1 counting as both, one
    both = (batched[terms.u] & batched[terms.v]).astype(np.uint64)
    starts = np.flatnonzero(np.diff(terms.node, prepend=-1))
    sums, counts = terms.node[starts], np.diff(starts, append=len(terms.node))
    place = np.arange(len(terms.node)) - np.repeat(starts, counts)
    few = np.add.reduceat(both, starts)
    pattern = np.add.reduceat(both * _scatter(place), starts)
    uniform = (few == 0) | (few == counts)
    pattern = np.where(uniform, np.minimum(few, 1), pattern)
    keys = level[sums] * 2 + batched[sums]
    order = np.lexsort((counts, pattern, keys))
    sums, counts, pattern, keys = sums[order], counts[order], pattern[order], keys[order]
    new_starts = np.cumsum(counts) - counts
    index = np.repeat(starts[order] - new_starts, counts) + np.arange(len(terms.node))
    terms = terms.take(index)
    for a, b in _blocks(keys, pattern):
        last = new_starts[b - 1] + counts[b - 1]
        pool = terms.take(np.arange(new_starts[a], last))
        yield from _pool(pool, int(level[sums[a]]), int(batched[sums[a]]), bool(pattern[a] <= 1))


def _oriented(fused: Fused) -> Terms:
    """The terms with their factors in an order that lets equal weights meet.

    Parameters before constants before what is computed from them before what is batched. A lone
    shared term of a batched sum has the 1, of which there are batched ones, in second place.
    """
    terms, batched = fused.terms, fused.origin & FROM_INPUTS
    rank = np.where(batched, 3, 2)
    rank[fused.op == ops.parameter.code] = 0
    rank[fused.op == ops.const.code] = 1
    lone = (batched[terms.node] > 0) & ((batched[terms.u] | batched[terms.v]) == 0)
    swap = (rank[terms.v] < rank[terms.u]) & ~lone
    u, v = np.where(swap, terms.v, terms.u), np.where(swap, terms.u, terms.v)
    return Terms(terms.node, u, v, terms.coef)


def _scatter(x: Ints) -> NDArray[np.uint64]:
    """A number for each that looks like chance, so that sums of them tell lists apart.

    The finaliser of MurmurHash3, by Austin Appleby.
    """
    h = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h ^= h >> np.uint64(33)
        h *= np.uint64(factor)
    return h ^ (h >> np.uint64(33))


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
    weights = _scatter(np.arange(len(columns) * k)).reshape(len(columns), 1, k) | np.uint64(1)
    key = sum((_scatter(x) * w).sum(axis=1) for x, w in zip(columns, weights))
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
