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

from .. import ops
from ..flat import FROM_INPUTS, SHARED, span_lengths, spans
from .fuse import CONTRACTION, SMALL_SUM, Fused, Ints, Mask, Terms
from .grids import SMALL_STACK, find_grids, find_stacks
from .levels import Kinds, find_kinds, find_levels

MAP, GRID, STACK, CHAIN, SEGMENTS = "map", "matmul", "stack", "chain", "sum"

# A grid smaller than this, in products, runs with the other sums of its level, unless these are few
# grids, and of few lengths.
SMALL_GRID, FEW_GRIDS = 128, 2
# A kernel that reads several groups' results is cut into so many at the most, if it reads so much.
FEW_PARTS, WORTH_A_PART = 2, 256


@dataclass(frozen=True, eq=False)
class Group:
    """n nodes that run as one kernel; the factors and operands are nodes too.

    A map applies `op` to its operands. A chain is n sums of k terms each, added one after the
    other; a sum is n sums of t terms in all, each beginning at one of `starts`; a grid is A * C
    sums of k terms, each row of `v` meeting each row of `u`: a matrix product. A stack is H of
    these, of which some `cells` are wanted; in `u` and `v`, -1 stands for no node, and for 0.
    """

    kind: str
    level: int
    buffer: int
    nodes: Ints  # (n,); of a grid (A * C,), C running fastest
    op: int = CONTRACTION
    operands: tuple[Ints, ...] = ()  # of a map: (n,) each
    u: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n, k), (t,), ([H,] C, k)
    v: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n, k), (t,), ([H,] A, k)
    coef: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # as u
    starts: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n,)
    cells: Ints = field(default_factory=lambda: np.empty(0, np.intp))  # (n,) of H * A * C


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
    level = find_levels(fused, kinds)
    return _layout(fused, _groups(fused, kinds, level), inputs, parameters)


# --- groups --------------------------------------------------------------------------------------


def _groups(fused: Fused, kinds: Kinds, level: Ints) -> list[Group]:
    """All groups, shared before batched, and from the bottom up."""
    groups = [*_maps(fused, kinds, level), *_sums(fused, kinds, level)]
    return sorted(groups, key=lambda group: (group.buffer, group.level))


def _maps(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Group]:
    nodes = kinds.computed[fused.op[kinds.computed] != CONTRACTION]
    nodes = nodes[np.lexsort((kinds.family[nodes], level[nodes]))]
    for a, b in spans(level[nodes], kinds.family[nodes]):
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
    for a, b in spans(level[sums], kinds.family[sums]):
        last = new_starts[b - 1] + counts[b - 1]
        pool = terms.take(np.arange(new_starts[a], last))
        at, buffer = int(level[sums[a]]), int(fused.origin[sums[a]] & FROM_INPUTS)
        if _may_stack(fused, pool):
            found, left = find_stacks(pool)
            for stack in found:
                cells = stack.cells()
                nodes = stack.nodes.reshape(-1)[cells]
                yield Group(STACK, at, buffer, nodes, u=stack.u, v=stack.v, cells=cells)
            pool = pool.take(left)
        yield from _pool(pool, at, buffer, bool(kinds.uniform[sums[a]]))


def _may_stack(fused: Fused, pool: Terms) -> bool:
    """Whether they are products of two numbers in one buffer, and nothing else."""
    if fused.alone or len(pool.node) < SMALL_STACK:
        return False
    batched = fused.origin & FROM_INPUTS
    lone = (pool.u == fused.one) | (pool.v == fused.one)
    other = (batched[pool.u] != batched[pool.v]) | (pool.coef != 1)
    return not (lone | other).any()


def _pool(terms: Terms, level: int, buffer: int, uniform: bool) -> Iterator[Group]:
    """The groups of the sums of one level and one kind, which come sorted by their length.

    Where their terms are not of one kind throughout, no matrix would have all of their factors.
    """
    starts, counts = span_lengths(terms.node)
    blocks = []
    for a, b in spans(counts):
        k, block = int(counts[a]), slice(starts[a], starts[b - 1] + counts[b - 1])
        u, v = (x[block].reshape(-1, k) for x in (terms.u, terms.v))
        coef = terms.coef[block].reshape(-1, k)
        # short sums of one row of u run as well, and without gathering, term by term
        worth_a_look = uniform and (k > SMALL_SUM or len(u) > 1)
        found = find_grids(u, v, coef) if worth_a_look else ()
        grids = [grid for grid in found if k > SMALL_SUM or len(grid[1]) > 1]
        blocks.append((terms.node[starts[a:b]], u, v, coef, grids))
    few = max(len(blocks), sum(len(grids) for *_, grids in blocks)) <= FEW_GRIDS
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
    long = [block for block in rest if block[1].shape[1] > SMALL_SUM]
    short = [block for block in rest if block[1].shape[1] <= SMALL_SUM]
    if sum(u.size for _, u, *_ in short) <= sum(u.size for _, u, *_ in long):
        short, long = [], rest
    for nodes, u, v, coef in short:
        yield Group(CHAIN, level, buffer, nodes, u=u, v=v, coef=coef)
    if long:
        yield _segments(long, level, buffer)


def _segments(
    blocks: list[tuple[Ints, Ints, Ints, NDArray[np.float64]]], level: int, buffer: int
) -> Group:
    """One group for sums of all lengths."""
    lengths = np.concatenate([np.full(len(nodes), u.shape[1]) for nodes, u, *_ in blocks])
    nodes, u, v = (np.concatenate([x.ravel() for x in xs]) for xs in list(zip(*blocks))[:3])
    coef = np.concatenate([x.ravel() for *_, x in blocks])
    starts = np.cumsum(lengths) - lengths
    return Group(SEGMENTS, level, buffer, nodes, u=u, v=v, coef=coef, starts=starts)


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
    place(np.flatnonzero(fused.op == ops.const.code), SHARED)
    place(_wished(inputs, [group.v for group in grids]), FROM_INPUTS)
    placed: list[Group] = []
    before_ones = _before_ones(groups, follows)
    made_by = np.full(len(row), -1)  # the place in `placed` of the group that computes a node
    for whole in groups:
        for part in _by_producer(whole, made_by):
            group = _sorted(part, row, batched, fused.one)
            place(_in_rows(group, before_ones), group.buffer)
            made_by[group.nodes] = len(placed)
            placed.append(group)
    ones[FROM_INPUTS].append(np.array([sizes[FROM_INPUTS]]))
    sizes[FROM_INPUTS] += 1
    shared_ones, batched_ones = map(np.concatenate, ones)
    return Schedule(placed, row, (sizes[0], sizes[1]), follows, (shared_ones, batched_ones))


def _by_producer(group: Group, made_by: Ints) -> list[Group]:
    """The group in parts that read what one group has computed each, as a rule in one piece.

    Where the parts would be many or small, one that gathers what it reads is as quick.
    """
    if group.kind not in (MAP, GRID) or max(len(group.nodes), group.v.size) < WORTH_A_PART:
        return [group]
    first = group.operands[0] if group.kind == MAP else group.v[:, 0]
    origins = np.unique(made_by[first])
    if not 1 < len(origins) <= FEW_PARTS:
        return [group]
    parts = [np.flatnonzero(made_by[first] == origin) for origin in origins]
    if group.kind == MAP:
        return [_some(group, part) for part in parts]
    cells = group.nodes.reshape(len(group.v), -1)
    return [replace(group, nodes=cells[part].reshape(-1), v=group.v[part]) for part in parts]


def _some(group: Group, order: Ints) -> Group:
    """These nodes of a map or chain, in this order."""
    taken: dict[str, Any] = {"operands": tuple(x[order] for x in group.operands)}
    if group.kind == CHAIN:
        taken |= {name: getattr(group, name)[order] for name in ("u", "v", "coef")}
    return replace(group, nodes=group.nodes[order], **taken)


def _before_ones(groups: list[Group], follows: Mask) -> Mask:
    """(m,) which nodes rows of ones lie behind, or behind what maps make of them, row by row."""
    before = follows.copy()
    for group in reversed(groups):
        if group.kind in (MAP, CHAIN) and before[group.nodes].any():
            for nodes in (*group.operands, group.u, group.v):
                before[nodes] = True
    return before


def _in_rows(group: Group, before_ones: Mask) -> Ints:
    """The nodes of a group in the order of their rows.

    Where a batched product has several rows of v, these run fastest, so that they and the samples
    make one axis, and the product is that of two matrices. Rows of ones would lie between them.
    """
    if group.kind != GRID or group.buffer == SHARED or before_ones[group.nodes].any():
        return group.nodes
    return group.nodes.reshape(len(group.v), -1).T.reshape(-1)


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
    elif group.kind == SEGMENTS:
        return _sorted_segments(group, row, one)
    else:
        return group
    same = [row[x] for x in columns if batched[x[0]] == group.buffer]
    order = np.lexsort(same[::-1]) if same else np.arange(len(group.nodes))
    return _some(group, order)


def _sorted_segments(group: Group, row: Ints, one: int) -> Group:
    """The sums in the order of the rows at which their terms begin."""
    lengths = np.diff(group.starts, append=len(group.u))
    first = np.where(group.u == one, group.v, group.u)[group.starts]
    order = np.argsort(row[first], kind="stable")
    starts = np.cumsum(lengths[order]) - lengths[order]
    terms = np.repeat(group.starts[order] - starts, lengths[order]) + np.arange(len(group.u))
    u, v, coef = group.u[terms], group.v[terms], group.coef[terms]
    return replace(group, nodes=group.nodes[order], u=u, v=v, coef=coef, starts=starts)
