"""When: the level at which each node of a fused graph runs, so that nodes of one family meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import hash64, span_lengths, spans
from .fuse import Fused, Ints, Mask, Terms
from .fused import by_code

FILLED = 32  # terms up to which maxima of any number are one family
LONG = 32  # calls of a special function, forward and backward


@dataclass(frozen=True, eq=False)
class Kinds:
    """Which nodes may run as one kernel: those of one family.

    Maps of one family have the same op, operands that are batched alike, the same constant if the
    op has short cuts for some, and all are asked about or none is if that has another rule. Sums of
    one family have batched factors in the same places, and all keep their order or none does.
    Those that share weights, or the factors of these, may make up a matrix product; of other nodes,
    all in a family count as sharing weights, and none has factors.
    """

    computed: Ints  # the nodes that run
    family: Ints  # (m,) which nodes are of one family
    weights: Ints  # (m,) which share weights, and are of one family
    factors: Ints  # (m,) which sums have the same factors besides the weights; 0 for other nodes
    terms: Terms  # of the sums, factors in an order that lets equal weights meet
    uniform: Mask  # (m,) whether the terms of a sum are batched alike
    long: Mask  # (m,) which nodes take many calls, as special functions do

    def calls(self, level: Ints) -> int:
        """About how many calls run, if nodes of one family and level are one kernel."""
        nodes = self.computed
        keys = level[nodes] * len(self.family) + self.family[nodes]
        _, first = np.unique(keys, return_index=True)
        return len(first) + LONG * int(self.long[nodes[first]].sum())


def find_kinds(fused: Fused) -> Kinds:
    """The kinds of all nodes, from keys that stand for tuples.

    Those of a sum: its family has tuple(u and v are batched), its weights tuple(u if it is a
    parameter), its factors tuple(v). The neurons w0 * x0 + w1 * x1 and w2 * x0 + w3 * x1 have the
    same factors, x0 and x1. At another sample of a captured graph each has the same weights.
    """
    terms, batched = _oriented(fused), fused.batched
    starts, counts = span_lengths(terms.node)
    maps, sums = np.flatnonzero(fused.parents[:, 0] >= 0), terms.node[starts]
    computed = np.concatenate([maps, sums])
    # a term of a batched sum has two batched factors or, a factor of 1 counting as both, one
    both = (batched[terms.u] & batched[terms.v]).astype(np.uint64)
    how_many = np.add.reduceat(both, starts)
    uniform = np.zeros(len(fused.op), bool)
    uniform[sums] = (how_many == 0) | (how_many == counts)
    is_weight = fused.op[terms.u] == ops.parameter.code
    pattern, weights, factors = terms.keys(both, is_weight * hash64(terms.u), hash64(terms.v))
    pattern = np.where(uniform[sums], np.minimum(how_many, np.uint64(1)), pattern)
    keys = np.zeros((3, len(fused.op)), np.uint64)
    keys[:, maps] = _families(fused, maps)
    apart = batched[sums] + 2 * fused.ordered[sums].astype(np.uint64)
    size = 4 * (1 + (counts > FILLED) * np.frexp(counts)[1])  # as shorter ones are filled up
    apart += np.where(fused.largest[sums], size, 0).astype(np.uint64)
    keys[:, sums] = hash64(hash64(pattern) + apart)
    keys[1:, sums] += weights, factors
    family, weights_of, factors_of = map(_numbered, keys, (computed, computed, sums))
    long = by_code(lambda op: op.ufunc is None and op.fast is None)[fused.op]
    return Kinds(computed, family, weights_of, factors_of, terms, uniform, long)


def _families(fused: Fused, maps: Ints) -> Ints:
    """A number for each map: its op, which operands are batched, the constant if it matters.

    And whether it is asked about, if its op then has another rule.
    """
    batched = np.append(fused.batched, False).astype(np.intp)
    op, parents = fused.op[maps].astype(np.intp), fused.parents[maps]
    static = np.array([-1 if o.static is None else o.static for o in ops.OPS])[op]
    constant = parents[np.arange(len(maps)), static].astype(np.intp)
    matters = (static >= 0) & (fused.op[constant] == ops.const.code)
    which: Ints = batched[maps] + batched[parents] @ np.array([2, 4, 8])  # below 16; ops, 256
    apart = fused.asked[maps] & by_code(lambda op: bool(op.loose))[fused.op[maps]]
    which += 16 * (op + 256 * (2 * np.where(matters, constant, -1) + apart))
    return which


def _numbered(key: NDArray[np.uint64], nodes: Ints) -> Ints:
    """(m,) the keys of these nodes as numbers from 1 on, and 0 elsewhere."""
    numbers = np.zeros(len(key), np.intp)
    numbers[nodes] = 1 + np.unique(key[nodes], return_inverse=True)[1]
    return numbers


def _oriented(fused: Fused) -> Terms:
    """The terms with their factors in an order that lets equal weights meet.

    Parameters before constants before other shared nodes before batched ones. A lone shared term of
    a batched sum has the 1, which exists in batched rows too, in second place.
    """
    terms, batched = fused.terms, fused.batched
    rank = np.where(batched, 3, 2)
    rank[fused.op == ops.parameter.code] = 0
    rank[fused.op == ops.const.code] = 1
    lone = batched[terms.node] & ~(batched[terms.u] | batched[terms.v])
    swap = (rank[terms.v] < rank[terms.u]) & ~lone
    u, v = np.where(swap, terms.v, terms.u), np.where(swap, terms.u, terms.v)
    return terms._replace(u=u, v=v)


class Step(NamedTuple):
    """Nodes that run at the same time, and what they read."""

    nodes: Ints  # (n,)
    starts: Ints  # (n,) where the operands of each begin
    users: Ints  # (e,) each node, once for every operand
    operands: Ints  # (e,)

    def lowest(self, level: Ints) -> Ints:
        """(n,) one more than the level of the highest operand."""
        return 1 + np.maximum.reduceat(level[self.operands], self.starts)


def in_steps(fused: Fused, order: Ints) -> list[Step]:
    """The nodes that run, in steps: those with one number in `order` (m,), from the lowest up."""
    maps, k = np.nonzero(fused.parents >= 0)
    sums, u, v, _ = fused.terms
    users = np.concatenate([maps, sums, sums])
    operands = np.concatenate([fused.parents[maps, k], u, v])
    by = np.lexsort((users, order[users]))
    users, operands = users[by], operands[by]
    starts, _ = span_lengths(users)
    nodes, bounds = users[starts], [*starts.tolist(), len(users)]
    steps = []
    for a, b in spans(order[nodes]):
        here = slice(bounds[a], bounds[b])
        steps.append(Step(nodes[a:b], starts[a:b] - bounds[a], users[here], operands[here]))
    return steps


def find_levels(fused: Fused, kinds: Kinds) -> Ints:
    """(m,) the level at which each node runs; 0 for leaves.

    Where some level has several families, some of these might run with those of another level.
    As each costs some calls, the fewest are the best.
    """
    steps = in_steps(fused, fused.depth)
    soon = as_soon_as_possible(fused, steps)
    calls = kinds.calls(soon)
    if calls > len(np.unique(soon[kinds.computed])):
        late = as_late_as_possible(fused, steps, int(soon.max()))
        met = pull_together(kinds, in_steps(fused, late), late)
        if kinds.calls(met) < calls:
            return met
    return soon


def as_soon_as_possible(fused: Fused, steps: list[Step]) -> Ints:
    """(m,) one more than the highest operand's level; 0 for leaves."""
    level = np.zeros(len(fused.op), np.intp)
    for step in steps:
        level[step.nodes] = step.lowest(level)
    return level


def as_late_as_possible(fused: Fused, steps: list[Step], last: int) -> Ints:
    """(m,) one less than the lowest user's level, or `last` if there is none; 0 for leaves."""
    level = np.full(len(fused.op), last)
    for step in reversed(steps):
        np.minimum.at(level, step.operands, level[step.users] - 1)
    return np.where(fused.depth > 0, level, 0)


def pull_together(kinds: Kinds, steps: list[Step], late: Ints) -> Ints:
    """(m,) as late as possible, but then down to where others of the same family run.

    `steps` are those of `late`. In log(exp(x)) + log(exp(y) + exp(z)) one path is shorter:

        level   as soon as possible    as late as possible    pulled together
          1     exp exp exp            exp exp                exp exp exp
          2     + log                  exp +                  +
          3     log                    log log                log log

    So nodes that were used later than others, here an exp, go down again: to where the last before
    them ran that share their weights, or else their factors. Nodes that share weights go down
    together, or they would be apart again:

        for the nodes of each level, of those that share weights, from the lowest level up:
            need = the lowest level at which all of them can run
            to = where the last with these weights ran, if that is not below `need`,
                 or else the lowest of where the last with their factors ran, if it is not,
                 or else where they are
    """
    level, last = late.copy(), int(late.max())
    of_weights, of_factors = np.full((2, len(late) + 1), -1)  # where the last of them run
    for step in steps:
        weights, index = np.unique(kinds.weights[step.nodes], return_inverse=True)
        factors = kinds.factors[step.nodes]
        need, low = np.zeros(len(weights), np.intp), np.full(len(weights), last)
        np.maximum.at(need, index, step.lowest(level))
        np.minimum.at(low, index, of_factors[factors])
        to = np.where(low >= need, low, late[step.nodes[0]])
        to = np.where(of_weights[weights] >= need, of_weights[weights], to)
        level[step.nodes] = of_factors[factors] = to[index]
        of_weights[weights] = to
        of_factors[0] = -1
    return level
