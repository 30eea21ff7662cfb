"""When: the level at which each node of a fused graph runs, so that nodes of one kind meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import FROM_INPUTS, hash64, span_lengths
from .fuse import CONTRACTION, Fused, Ints, Mask, Terms


@dataclass(frozen=True, eq=False)
class Kinds:
    """Which nodes may run as one kernel: those of one family.

    Maps of one family have the same op, of operands that are batched alike, and the same constant
    where the op has short cuts for some. Sums of one family have batched factors in the same
    places. Those that share weights, or what these are multiplied with, may make up a matrix
    product; of other nodes, all in a family share weights, and none multiplies anything.
    """

    computed: Ints  # the nodes that run
    family: Ints  # (m,) which nodes are of one family
    weights: Ints  # (m,) which share weights, and are of one family
    factors: Ints  # (m,) which sums have the same factors besides the weights; 0 for other nodes
    terms: Terms  # of the sums, one after the other, factors in an order that lets weights meet
    starts: Ints  # where the terms of each sum begin
    uniform: Mask  # (m,) whether the terms of a sum are batched alike

    def families(self, level: Ints) -> int:
        """How many there are in all levels together: about as many kernels as run."""
        nodes = self.computed
        return len(np.unique(level[nodes] * len(self.family) + self.family[nodes]))


def find_kinds(fused: Fused) -> Kinds:
    """The kinds of all nodes."""
    batched = np.append(fused.origin & FROM_INPUTS, 0).astype(np.intp)
    terms = _oriented(fused)
    starts, counts = span_lengths(terms.node)
    sums = terms.node[starts]
    maps = np.flatnonzero(fused.alive & (fused.parents[:, 0] >= 0))
    family, weights, factors = np.zeros((3, len(fused.op)), np.uint64)
    uniform = np.zeros(len(fused.op), bool)
    family[maps] = _families(fused, maps, batched)
    if len(sums):
        # a term of a batched sum has two batched factors or, a factor of 1 counting as both, one
        both = (batched[terms.u] & batched[terms.v]).astype(np.uint64)
        place = hash64(np.arange(len(terms.node)) - np.repeat(starts, counts)) | 1
        how_many = np.add.reduceat(both, starts)
        uniform[sums] = (how_many == 0) | (how_many == counts)
        pattern = np.add.reduceat(both * place, starts)
        pattern = np.where(uniform[sums], np.minimum(how_many, np.uint64(1)), pattern)
        family[sums] = hash64(hash64(pattern) + batched[sums].astype(np.uint64))
        is_weight = fused.op[terms.u] == ops.parameter.code
        weights[sums] = np.add.reduceat(is_weight * hash64(terms.u) * place, starts)
        factors[sums] = np.add.reduceat(hash64(terms.v) * place, starts)

    computed = np.concatenate([maps, sums])
    return Kinds(
        computed=computed,
        family=_numbered(family, computed),
        weights=_numbered(family + weights, computed),
        factors=_numbered(family + factors, sums),
        terms=terms,
        starts=starts,
        uniform=uniform,
    )


def _families(fused: Fused, maps: Ints, batched: Ints) -> Ints:
    """A number for each map: its op, what is batched, and the constant, if it matters which."""
    op, parents = fused.op[maps].astype(np.intp), fused.parents[maps]
    static = np.array([-1 if o.static is None else o.static for o in ops.OPS])[op]
    constant = parents[np.arange(len(maps)), static].astype(np.intp)
    matters = (static >= 0) & (fused.op[constant] == ops.const.code)
    which: Ints = batched[maps] + batched[parents] @ np.array([2, 4, 8])  # below 16; ops, 256
    which += 16 * (op + 256 * np.where(matters, constant, -1))
    return which


def _numbered(key: NDArray[np.uint64], nodes: Ints) -> Ints:
    """(m,) the keys of these nodes as numbers from 1 on, and 0 elsewhere."""
    numbers = np.zeros(len(key), np.intp)
    numbers[nodes] = 1 + np.unique(key[nodes], return_inverse=True)[1]
    return numbers


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


Step = tuple[Ints, Ints, slice, Ints]
Steps = tuple[Terms, list[Step]]


def in_steps(fused: Fused, kinds: Kinds, order: Ints) -> Steps:
    """The nodes that run, those of one number in `order`, (m,), together, from the lowest up.

    Each step has the nodes that are no sums, the sums, where these have their terms, and where in
    those each sum begins.
    """
    computed = kinds.computed[np.argsort(order[kinds.computed], kind="stable")]
    is_sum = fused.op[computed] == CONTRACTION
    others, sums = computed[~is_sum], computed[is_sum]
    place = np.empty(len(fused.op), np.intp)
    place[sums] = np.arange(len(sums))
    terms = kinds.terms.take(np.argsort(place[kinds.terms.node], kind="stable"))
    counts = np.bincount(place[terms.node], minlength=len(sums))
    starts = np.append(0, np.cumsum(counts))
    numbers = np.unique(order[computed])
    of_others = np.append(np.searchsorted(order[others], numbers), len(others)).tolist()
    of_sums = np.append(np.searchsorted(order[sums], numbers), len(sums)).tolist()
    steps = []
    for a, b, c, d in zip(of_others, of_others[1:], of_sums, of_sums[1:]):
        first = starts[c]
        steps.append((others[a:b], sums[c:d], slice(first, starts[d]), starts[c:d] - first))
    return terms, steps


def _lowest(fused: Fused, terms: Terms, step: Step, level: Ints) -> tuple[Ints, Ints]:
    """One more than the highest operand's level: of the nodes that are no sums, of the sums."""
    others, sums, where, starts = step
    of_sums = of_others = np.empty(0, np.intp)
    if len(others):
        of_others = 1 + level[fused.parents[others]].max(axis=1)
    if len(sums):
        highest = np.maximum(level[terms.u[where]], level[terms.v[where]])
        of_sums = 1 + np.maximum.reduceat(highest, starts)
    return of_others, of_sums


def as_soon_as_possible(fused: Fused, by_depth: Steps) -> Ints:
    """(m + 1,) 0 for a leaf, else one more than the highest operand's; 0 for no operand."""
    terms, steps = by_depth
    level = np.zeros(len(fused.op) + 1, np.intp)
    for step in steps:
        level[step[0]], level[step[1]] = _lowest(fused, terms, step, level)
    return level


def _as_late_as_possible(fused: Fused, by_depth: Steps, last: int) -> Ints:
    """(m + 1,) as late as those that use a node let it run."""
    terms, steps = by_depth
    level = np.full(len(fused.op) + 1, last)
    for others, sums, where, starts in reversed(steps):
        if len(others):
            for k in range(fused.parents.shape[1]):
                np.minimum.at(level, fused.parents[others, k], level[others] - 1)
        if len(sums):
            before = np.repeat(level[sums] - 1, np.diff(starts, append=where.stop - where.start))
            np.minimum.at(level, terms.u[where], before)
            np.minimum.at(level, terms.v[where], before)
    return level


def meeting(fused: Fused, kinds: Kinds, by_depth: Steps, last: int) -> Ints:
    """(m + 1,) as late as can be, but then down to where others of their kind run.

    What the earliest order leaves apart, as where one path is shorter than those beside it, the
    latest brings together at their end. It parts what is used at different times, such as the
    results of a layer; these go down again, to where the last before them run that share weights,
    or else factors. Those that share weights go down together, or they would be apart again.
    """
    level = np.zeros(len(fused.op) + 1, np.intp)
    level[kinds.computed] = _as_late_as_possible(fused, by_depth, last)[kinds.computed]
    met, met_factors = np.full((2, len(fused.op) + 1), -1)  # where the last of them run
    terms, steps = in_steps(fused, kinds, level)
    for step in steps:
        nodes = np.concatenate(step[:2])
        lowest = np.concatenate(_lowest(fused, terms, step, level))
        weights, index = np.unique(kinds.weights[nodes], return_inverse=True)
        factors = kinds.factors[nodes]
        need = np.zeros(len(weights), np.intp)
        np.maximum.at(need, index, lowest)
        low = np.full(len(weights), last)
        np.minimum.at(low, index, met_factors[factors])
        to = np.where(low >= need, low, level[nodes[0]])
        to = np.where(met[weights] >= need, met[weights], to)
        level[nodes] = to[index]
        met[weights] = to
        met_factors[factors] = level[nodes]
        met_factors[0] = -1
    return level
