"""Which nodes run as one kernel, and which rows they get.

Nodes that no input reaches are shared: computed once, in a buffer of one number per row. The others
are batched, in a buffer of one number per row and sample. Nodes of one level and one kind make a
kernel, which takes consecutive rows, in an order that lets kernels see their operands as slices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from .. import ops
from ..flat import BATCHED, SHARED, span_lengths, spans
from .fuse import CONTRACTION, SMALL_SUM, Fused, Ints, Mask, Terms
from .grids import SMALL_STACK, find_grids, find_stacks
from .kernels import Kernel, Links, Map
from .layout import Layout
from .levels import Kinds
from .maxima import Largest
from .products import Grid, Stack
from .sums import SHORT, Chain, Segments
from .watch import SHARE

# A grid of fewer products runs with the other sums of its level, unless there are few grids and few
# lengths.
SMALL_GRID, FEW_GRIDS = 128, 2


def find_kernels(fused: Fused, kinds: Kinds, level: Ints) -> list[Kernel]:
    """All kernels, shared before batched, and from the bottom up."""
    kernels = [*_maps(fused, kinds, level), *_sums(fused, kinds, level)]
    return sorted(kernels, key=lambda kernel: (kernel.buffer, kernel.level))


def _maps(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Kernel]:
    nodes = kinds.computed[fused.op[kinds.computed] != CONTRACTION]
    nodes = nodes[np.lexsort((kinds.family[nodes], level[nodes]))]
    for a, b in spans(level[nodes], kinds.family[nodes]):
        some, first = nodes[a:b], nodes[a]
        op = ops.OPS[int(fused.op[first])]
        parents = tuple(fused.parents[some, k] for k in range(op.arity))
        place = int(level[first]), int(fused.batched[first])
        yield Map(*place, some, op, parents, bool(fused.asked[some].any()))


def _sums(fused: Fused, kinds: Kinds, level: Ints) -> Iterator[Kernel]:
    terms = kinds.terms
    _, counts = span_lengths(terms.node)
    keys = np.repeat(counts, counts), kinds.family[terms.node], level[terms.node]
    order = np.lexsort(keys)
    terms = terms.take(order)
    for a, b in spans(*(key[order] for key in keys[1:])):
        pool = terms.take(slice(a, b))
        first = pool.node[0]
        place = int(level[first]), int(fused.batched[first])
        if fused.largest[first]:
            yield Largest.of(pool, fused.one, *place)
            continue
        ordered = bool(fused.ordered[first])
        if not ordered and _may_stack(fused, pool):
            stacks, left = find_stacks(pool)
            for stack in stacks:
                cells = stack.cells()
                nodes, coef = stack.nodes.reshape(-1)[cells], np.ones(1)
                yield Stack(*place, nodes, stack.u, stack.v, coef, cells)
            pool = pool.take(left)
        yield from _pool(fused, pool, place, bool(kinds.uniform[first]))


def _may_stack(fused: Fused, pool: Terms) -> bool:
    """Whether all terms are products of two nodes, those on either side in one buffer."""
    if fused.alone or len(pool.node) < SMALL_STACK:
        return False
    u, v = fused.batched[pool.u], fused.batched[pool.v]
    lone = (pool.u == fused.one) | (pool.v == fused.one)
    return not (lone | (u != u[0]) | (v != v[0]) | (pool.coef != 1)).any()


def _pool(fused: Fused, terms: Terms, place: tuple[int, int], uniform: bool) -> Iterator[Kernel]:
    """The kernels of the sums of one level and one family, which come sorted by their length.

    Grids that are worth a kernel of their own come first. Of the others the short ones run as
    chains, one per length, if they are the larger part, and the rest as segments. If terms are not
    `uniform`, no matrix holds all of their factors, and there are no grids, nor are there where
    sums keep their order.
    """
    chains = _by_length(terms, place)
    may_be = uniform and not fused.ordered[terms.node].any()
    grids = [_grids(fused, chain) if may_be else [] for chain in chains]
    few = max(len(chains), sum(map(len, grids))) <= FEW_GRIDS
    rest = []
    for chain, found in zip(chains, grids):
        left = np.ones(len(chain.nodes), bool)
        for cells, rows_u, rows_v in found:
            if few or len(cells) * chain.k >= SMALL_GRID:
                left[cells] = False
                u, v, coef = chain.u[rows_u], chain.v[rows_v], chain.coef[rows_u]
                by = np.argsort((v == fused.one).all(axis=0), kind="stable")  # biases come last
                yield Grid(*place, chain.nodes[cells], u[:, by], v[:, by], coef[:, by])
        if left.any():
            rest.append(chain.some(left))
    short = [chain for chain in rest if chain.k <= SMALL_SUM]
    long = [chain for chain in rest if chain.k > SMALL_SUM]
    if not uniform:
        short, long = rest, []
    elif sum(x.u.size for x in short) <= sum(x.u.size for x in long):
        short, long = [], rest
    yield from short
    # what is long would be filled up to the length of the longest
    for _, alike in groupby(long, lambda chain: (chain.k > SHORT) * chain.k.bit_length()):
        some = terms.take(np.isin(terms.node, np.concatenate([x.nodes for x in alike])))
        starts, _ = span_lengths(some.node)
        yield Segments(*place, some.node[starts], some.u, some.v, some.coef, starts)


def _by_length(terms: Terms, place: tuple[int, int]) -> list[Chain]:
    """The sums, sorted by their length, as one chain for each length."""
    starts, counts = span_lengths(terms.node)
    chains = []
    for a, b in spans(counts):
        k, part = int(counts[a]), slice(starts[a], starts[b - 1] + counts[b - 1])
        u, v = (x[part].reshape(-1, k) for x in (terms.u, terms.v))
        chains.append(Chain(*place, terms.node[starts[a:b]], u, v, terms.coef[part].reshape(-1, k)))
    return chains


def _grids(fused: Fused, chain: Chain) -> list[tuple[Ints, Ints, Ints]]:
    """The grids in a chain, but for those that gain little.

    Short sums of one row of u need no gathering, and of two rows of one use each no matrix product
    is made: added up in order, equal products cancel as the scalar engine's do.
    """
    if chain.k <= SMALL_SUM and len(chain.nodes) == 1:
        return []
    found = find_grids(chain.u, chain.v, chain.coef)
    both = bool((fused.batched[chain.u] & fused.batched[chain.v]).all())
    return [
        (cells, rows_u, rows_v)
        for cells, rows_u, rows_v in found
        if (chain.k > SMALL_SUM or len(rows_u) > 1) and not (both and len(cells) == 1)
    ]


def lay_out(
    fused: Fused, kernels: list[Kernel], inputs: Ints, parameters: Ints, largest: int
) -> tuple[list[Kernel], Layout]:
    """Give every node a row, and cut and order the kernels so that they read slices.

    Leaves come first, in the order in which matrix products use them; then results, kernel by
    kernel, each with its nodes in the order of their operands' rows. Sums that are watched, and may
    be 2.0**largest or more, come before the others.
    """
    layout = Layout(fused, _follows(fused, kernels))
    grids = [x for x in kernels if isinstance(x, Grid)]
    # what runs in every tile chooses first, and then the weights that most products share
    times = Counter(grid.u.tobytes() for grid in grids)
    grids.sort(key=lambda grid: (-grid.buffer, -times[grid.u.tobytes()]))
    constants = np.flatnonzero(fused.op == ops.const.code)
    layout.give(constants, SHARED)
    layout.begin_watched()
    layout.give(_wished(parameters, [grid.u for grid in grids]), SHARED)
    layout.give(_wished(inputs, [grid.v for grid in grids]), BATCHED)
    before_ones, bound = _before_ones(kernels, layout.follows), np.zeros(len(fused.op))
    bound[[*inputs, *parameters]] = largest / SHARE
    with np.errstate(divide="ignore"):  # 0 is 2.0**-inf
        bound[constants] = np.log2(np.abs(fused.value[constants]))
    links, placed = Links(*np.full((2, len(fused.op)), -1)), list[Kernel]()
    for k, kernel in reversed([*enumerate(kernels)]):
        for nodes in kernel.reads():
            links.used_by[nodes] = k
    for whole in kernels:
        for part in whole.parts(links, layout):
            kernel = part.in_order(layout)
            rows = kernel.row_order(before_ones)
            bound[kernel.nodes] = size = kernel.exponent(bound)
            layout.give(rows, kernel.buffer, last=size < largest or not kernel.is_watched(fused))
            links.made_by[kernel.nodes] = len(placed)
            placed.append(kernel)
    layout.settle()
    return placed, layout


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
    every = np.concatenate([use.reshape(-1) for use in (*uses, leaves)])
    distinct, first = np.unique(every, return_index=True)
    in_order = distinct[np.argsort(first)]
    return in_order[np.isin(in_order, leaves)]
