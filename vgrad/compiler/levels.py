"""When: the level at which each node of a fused graph runs, so that nodes of one family meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import hash64, span_lengths, spans
from .fuse import Fused, Ints, Mask, Terms


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
    terms: Terms  # of the sums, factors in an order that lets equal weights meet
    starts: Ints  # where the terms of each sum begin
    uniform: Mask  # (m,) whether the terms of a sum are batched alike
    uses: tuple[Ints, Ints]  # (e,) the nodes that run, in order, and (e,) what each of them reads

    def families(self, level: Ints) -> int:
        """How many there are in all levels together: about as many kernels as run."""
        nodes = self.computed
        return len(np.unique(level[nodes] * len(self.family) + self.family[nodes]))


def find_kinds(fused: Fused) -> Kinds:
    """The kinds of all nodes; keys tell them apart, and are numbered then.

    Of sums with terms (u, v), u a weight if there is one, the keys of these tuples:

        family   tuple(both u and v are batched)
        weights  tuple(u if it is a parameter else 0)
        factors  tuple(v)

    The neurons w0 * x0 + w1 * x1 + b and w2 * x0 + w3 * x1 + c have one family and the same
    factors, (x0, x1, 1). The first neuron at another sample of a captured graph, with x2 and x3,
    has its weights, (w0, w1, b).
    """
    terms = _oriented(fused)
    starts, counts = span_lengths(terms.node)
    maps, sums = np.flatnonzero(fused.parents[:, 0] >= 0), terms.node[starts]
    family, weights, factors = np.zeros((3, len(fused.op)), np.uint64)
    uniform = np.zeros(len(fused.op), bool)
    family[maps] = _families(fused, maps)
    # a term of a batched sum has two batched factors or, a factor of 1 counting as both, one
    both = (fused.batched[terms.u] & fused.batched[terms.v]).astype(np.uint64)
    how_many = np.add.reduceat(both, starts)
    uniform[sums] = (how_many == 0) | (how_many == counts)
    pattern = np.where(uniform[sums], np.minimum(how_many, np.uint64(1)), terms.keys(both))
    family[sums] = hash64(hash64(pattern) + fused.batched[sums].astype(np.uint64))
    is_weight = fused.op[terms.u] == ops.parameter.code
    weights[sums] = terms.keys(is_weight * hash64(terms.u))
    factors[sums] = terms.keys(hash64(terms.v))
    computed = np.concatenate([maps, sums])
    return Kinds(
        computed=computed,
        family=_numbered(family, computed),
        weights=_numbered(family + weights, computed),
        factors=_numbered(family + factors, sums),
        terms=terms,
        starts=starts,
        uniform=uniform,
        uses=_uses(fused, terms),
    )


def _families(fused: Fused, maps: Ints) -> Ints:
    """A number for each map: its op, what is batched, and the constant, if it matters which."""
    batched = np.append(fused.batched, False).astype(np.intp)
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
    terms, batched = fused.terms, fused.batched
    rank = np.where(batched, 3, 2)
    rank[fused.op == ops.parameter.code] = 0
    rank[fused.op == ops.const.code] = 1
    lone = batched[terms.node] & ~(batched[terms.u] | batched[terms.v])
    swap = (rank[terms.v] < rank[terms.u]) & ~lone
    u, v = np.where(swap, terms.v, terms.u), np.where(swap, terms.u, terms.v)
    return terms._replace(u=u, v=v)


def _uses(fused: Fused, terms: Terms) -> tuple[Ints, Ints]:
    """The nodes that run, once for every node that they read, and the nodes that are read."""
    maps, k = np.nonzero(fused.parents >= 0)
    node = np.concatenate([maps, terms.node, terms.node])
    operand = np.concatenate([fused.parents[maps, k], terms.u, terms.v])
    order = np.argsort(node, kind="stable")
    return node[order], operand[order]


class Step(NamedTuple):
    """Nodes that run at the same time, and what they read."""

    nodes: Ints  # (n,)
    starts: Ints  # (n,) where in these begins what a node reads:
    users: Ints  # (e,) the nodes again,
    operands: Ints  # (e,) and what each of them reads

    def lowest(self, level: Ints) -> Ints:
        """(n,) one more than the level of the highest operand."""
        return 1 + np.maximum.reduceat(level[self.operands], self.starts)


def in_steps(kinds: Kinds, order: Ints) -> list[Step]:
    """The nodes that run, those of one number in `order`, (m,), together, from the lowest up."""
    users, operands = kinds.uses
    by = np.argsort(order[users], kind="stable")
    users, operands = users[by], operands[by]
    starts, _ = span_lengths(users)
    nodes, bounds = users[starts], np.append(starts, len(users)).tolist()
    return [
        Step(nodes[a:b], starts[a:b] - bounds[a], *(x[bounds[a] : bounds[b]] for x in (users, operands)))
        for a, b in spans(order[nodes])
    ]


def find_levels(fused: Fused, kinds: Kinds) -> Ints:
    """(m,) the level at which each node runs; 0 for leaves.

    Where some level has several families, some of these might run with those of another level.
    As each costs some calls, the fewest are the best.
    """
    steps = in_steps(kinds, fused.depth)
    soon = as_soon_as_possible(kinds, steps)
    families = kinds.families(soon)
    if families > len(np.unique(soon[kinds.computed])):
        met = pull_together(kinds, as_late_as_possible(kinds, steps, int(soon.max())))
        if kinds.families(met) < families:
            return met
    return soon


def as_soon_as_possible(kinds: Kinds, steps: list[Step]) -> Ints:
    """(m,) one more than the highest operand's level; 0 for leaves."""
    level = np.zeros(len(kinds.family), np.intp)
    for step in steps:
        level[step.nodes] = step.lowest(level)
    return level


def as_late_as_possible(kinds: Kinds, steps: list[Step], last: int) -> Ints:
    """(m,) one less than the lowest user's level, or the last; 0 for leaves."""
    late = np.full(len(kinds.family), last)
    for step in reversed(steps):
        np.minimum.at(late, step.operands, late[step.users] - 1)
    level = np.zeros_like(late)
    level[kinds.computed] = late[kinds.computed]
    return level


def pull_together(kinds: Kinds, late: Ints) -> Ints:
    """(m,) as late as possible, but then down to where others of the same family run.

    As soon as possible leaves apart what lies on paths of different lengths: here, the two log of
    log(exp(x)) + log(exp(y) + exp(z)). As late as possible brings them together at the end, but the
    three exp are apart, as one of them is used later.

        level             1         2       3            pulled together
        as soon           exp exp   log +   log     1    exp exp exp
        as late           exp exp   exp +   log log 2    +
                                                    3    log log

    So the exp goes down again, to where the last before it ran that share its weights or else its
    factors. Nodes that share weights go down together, or they would be apart again:

        for nodes of one level, of all that share weights, from the lowest level up:
            need = the lowest level at which all of them can run
            if the last with these weights ran at `need` or later: go there
            elif the last with the same factors did: go there, to the lowest of them
    """
    level, last = late.copy(), int(late.max())
    of_weights, of_factors = np.full((2, len(late) + 1), -1)  # where the last of them run
    for step in in_steps(kinds, late):
        weights, index = np.unique(kinds.weights[step.nodes], return_inverse=True)
        factors = kinds.factors[step.nodes]
        need = np.zeros(len(weights), np.intp)
        np.maximum.at(need, index, step.lowest(level))
        low = np.full(len(weights), last)
        np.minimum.at(low, index, of_factors[factors])
        to = np.where(low >= need, low, late[step.nodes[0]])
        to = np.where(of_weights[weights] >= need, of_weights[weights], to)
        level[step.nodes] = to[index]
        of_weights[weights] = to
        of_factors[factors] = to[index]
        of_factors[0] = -1
    return level
