"""Which nodes run as one kernel, and which rows they get.

Nodes that no input reaches are shared: computed once, in a buffer of one number per row. The others
are batched, in a buffer of one number per row and sample. Nodes of one level and one kind make a
kernel, which takes consecutive rows, in an order that lets kernels see their operands as slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .. import ops
from ..flat import BATCHED, SHARED, span_lengths, spans
from .fuse import CONTRACTION, SMALL_SUM, Floats, Fused, Ints, Mask, Terms
from .grids import SMALL_STACK, find_grids, find_stacks
from .kernels import Kernel, Map
from .layout import Layout
from .levels import Kinds
from .products import Grid, Stack
from .sums import Chain, Segments

# A grid of fewer products runs with the other sums of its level, unless there are few grids and few
# lengths.
SMALL_GRID, FEW_GRIDS = 128, 2


# --- kernels -------------------------------------------------------------------------------------


def find_kernels(fused: Fused, kinds: Kinds, level: Ints) -> list[Kernel]:
    """All kernels, shared before batched, and from the bottom up."""
    kernels = [*_maps(fused, kinds, level), *_sums(fused, kinds, level)]
    return sorted(kernels, key=lambda kernel: (kernel.buffer, kernel.level))


def _maps(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Kernel]:
    nodes = kinds.computed[fused.op[kinds.computed] != CONTRACTION]
    nodes = nodes[np.lexsort((kinds.family[nodes], level[nodes]))]
    for a, b in spans(level[nodes], kinds.family[nodes]):
        some = nodes[a:b]
        op = ops.OPS[int(fused.op[some[0]])]
        parents = tuple(fused.parents[some, k] for k in range(op.arity))
        yield Map(int(level[some[0]]), fused.buffer_of(some[0]), some, op, parents)


def _sums(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Kernel]:
    terms, starts = kinds.terms, kinds.starts
    sums, counts = terms.node[starts], np.diff(starts, append=len(terms.node))
    order = np.lexsort((counts, kinds.family[sums], level[sums]))
    sums, counts = sums[order], counts[order]
    new_starts = np.cumsum(counts) - counts
    index = np.repeat(starts[order] - new_starts, counts) + np.arange(len(terms.node))
    terms = terms.take(index)
    for a, b in spans(level[sums], kinds.family[sums]):
        pool = terms.take(np.arange(new_starts[a], new_starts[b - 1] + counts[b - 1]))
        place = int(level[sums[a]]), fused.buffer_of(sums[a])
        if _may_stack(fused, pool):
            stacks, left = find_stacks(pool)
            for stack in stacks:
                cells = stack.cells()
                yield Stack(*place, stack.nodes.reshape(-1)[cells], stack.u, stack.v, cells)
            pool = pool.take(left)
        yield from _pool(pool, place, bool(kinds.uniform[sums[a]]))


def _may_stack(fused: Fused, pool: Terms) -> bool:
    """Whether all terms are products of two nodes in the same buffer."""
    if fused.alone or len(pool.node) < SMALL_STACK:
        return False
    batched = fused.batched
    lone = (pool.u == fused.one) | (pool.v == fused.one)
    other = (batched[pool.u] != batched[pool.v]) | (pool.coef != 1)
    return not (lone | other).any()


def _pool(terms: Terms, place: tuple[int, int], uniform: bool) -> Iterator[Kernel]:
    """The kernels of the sums of one level and one family, which come sorted by their length.

    Grids that are worth a kernel of their own come first. Of the others the short ones run as
    chains, one per length, if they are the larger part, and the rest as segments. If terms are not
    `uniform`, no matrix holds all of their factors, and there are no grids.
    """
    blocks = _by_length(terms)
    grids = [_grids(block) if uniform else [] for block in blocks]
    few = max(len(blocks), sum(map(len, grids))) <= FEW_GRIDS
    rest = []
    for block, found in zip(blocks, grids):
        left = np.ones(len(block.nodes), bool)
        for cells, rows_u, rows_v in found:
            if few or len(cells) * block.k >= SMALL_GRID:
                left[cells] = False
                u, v, coef = block.u[rows_u], block.v[rows_v], block.coef[rows_u]
                yield Grid(*place, block.nodes[cells], u, v, coef)
        if left.any():
            rest.append(block.some(left))
    short = [block for block in rest if block.k <= SMALL_SUM]
    long = [block for block in rest if block.k > SMALL_SUM]
    if sum(x.u.size for x in short) <= sum(x.u.size for x in long):
        short, long = [], rest
    for block in short:
        yield Chain(*place, block.nodes, block.u, block.v, block.coef)
    if long:
        yield _segments(long, place)


class Block(NamedTuple):
    """n sums of k terms each."""

    nodes: Ints  # (n,)
    u: Ints  # (n, k)
    v: Ints  # (n, k)
    coef: Floats  # (n, k)

    @property
    def k(self) -> int:
        """The length of the sums."""
        return int(self.u.shape[1])

    def some(self, which: Mask) -> Block:
        """These of the sums."""
        return Block(self.nodes[which], self.u[which], self.v[which], self.coef[which])


def _by_length(terms: Terms) -> list[Block]:
    """The sums, sorted by their length, in blocks of one length."""
    starts, counts = span_lengths(terms.node)
    blocks = []
    for a, b in spans(counts):
        k, part = int(counts[a]), slice(starts[a], starts[b - 1] + counts[b - 1])
        u, v = (x[part].reshape(-1, k) for x in (terms.u, terms.v))
        blocks.append(Block(terms.node[starts[a:b]], u, v, terms.coef[part].reshape(-1, k)))
    return blocks


def _grids(block: Block) -> list[tuple[Ints, Ints, Ints]]:
    """The grids in a block, but for short sums of one row of u, which need no gathering."""
    if block.k <= SMALL_SUM and len(block.nodes) == 1:
        return []
    found = find_grids(block.u, block.v, block.coef)
    return [grid for grid in found if block.k > SMALL_SUM or len(grid[1]) > 1]


def _segments(blocks: list[Block], place: tuple[int, int]) -> Kernel:
    """One kernel for sums of all lengths."""
    lengths = np.concatenate([np.full(len(block.nodes), block.k) for block in blocks])
    nodes, u, v, coef = (np.concatenate([x.ravel() for x in column]) for column in zip(*blocks))
    return Segments(*place, nodes, u, v, coef, np.cumsum(lengths) - lengths)


# --- rows ----------------------------------------------------------------------------------------


def lay_out(
    fused: Fused, kernels: list[Kernel], inputs: Ints, parameters: Ints
) -> tuple[list[Kernel], Layout]:
    """Give every node a row, and cut and order the kernels so that they read slices.

    Leaves come first, in the order in which matrix products use them; then results, kernel by
    kernel, each with its nodes in the order of their operands' rows.
    """
    rows = _Rows(fused, _follows(fused, kernels))
    grids = [kernel for kernel in kernels if isinstance(kernel, Grid)]
    grids.sort(key=lambda grid: -grid.buffer)  # what runs in every tile chooses first
    rows.give(_wished(parameters, [grid.u for grid in grids]), SHARED)
    rows.give(np.flatnonzero(fused.op == ops.const.code), SHARED)
    rows.give(_wished(inputs, [grid.v for grid in grids]), BATCHED)
    before_ones = _before_ones(kernels, rows.follows)
    batched, made_by = fused.batched, np.full(len(fused.op), -1)
    placed: list[Kernel] = []
    for whole in kernels:
        for part in whole.parts(made_by):
            kernel = part.in_order(rows.row, batched, fused.one)
            rows.give(kernel.rows(before_ones), kernel.buffer)
            made_by[kernel.nodes] = len(placed)
            placed.append(kernel)
    return placed, rows.layout()


class _Rows:
    """Hands out rows, one after the other in each of the two buffers."""

    def __init__(self, fused: Fused, follows: Mask) -> None:
        self.fused, self.follows = fused, follows
        self.row = np.full(len(fused.op), -1)
        self.sizes = [0, 0]
        self.ones: tuple[list[Ints], list[Ints]] = [], []

    def give(self, nodes: Ints, buffer: int) -> None:
        """Give these nodes the next rows, in order; some are followed by a row of ones."""
        behind = self.follows[nodes]
        gaps: Ints = np.cumsum(behind) - behind
        self.row[nodes] = self.sizes[buffer] + np.arange(len(nodes)) + gaps
        self.ones[buffer].append(self.row[nodes[behind]] + 1)
        self.sizes[buffer] += len(nodes) + int(behind.sum())

    def layout(self) -> Layout:
        """The finished layout; its last batched row is one of ones, for general use."""
        shared, batched = self.sizes
        self.ones[BATCHED].append(np.array([batched]))
        ones = np.concatenate(self.ones[SHARED]), np.concatenate(self.ones[BATCHED])
        return Layout(self.fused, self.row, (shared, batched + 1), self.follows, ones)


def _follows(fused: Fused, kernels: list[Kernel]) -> Mask:
    """(m,) which nodes a row of ones is to follow: those before a 1 in a row of a grid."""
    follows = np.zeros(len(fused.op), bool)
    for kernel in kernels:
        if isinstance(kernel, Grid):
            before = kernel.v[:, :-1][kernel.v[:, 1:] == fused.one]
            if (fused.op[before] != ops.const.code).all():
                follows[before] = True
    return follows


def _before_ones(kernels: list[Kernel], follows: Mask) -> Mask:
    """(m,) which nodes are followed by rows of ones, or feed maps whose results are."""
    before = follows.copy()
    for kernel in reversed(kernels):
        if isinstance(kernel, Map | Chain) and before[kernel.nodes].any():
            for nodes in kernel.reads():
                before[nodes] = True
    return before


def _wished(leaves: Ints, uses: list[Ints]) -> Ints:
    """The leaves that matrix products use, in that order, and then the others."""
    used = np.concatenate([use.ravel() for use in uses]) if uses else np.empty(0, np.intp)
    distinct, first = np.unique(used, return_index=True)
    in_order = distinct[np.argsort(first)]
    in_order = in_order[np.isin(in_order, leaves)]
    return np.concatenate([in_order, leaves[~np.isin(leaves, in_order)]])
