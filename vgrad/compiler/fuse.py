"""Sums of products: a run of additions, subtractions and products becomes one contraction.

A contraction is a node that computes the sum of c * u * v over its terms, where c is a constant
and u and v are nodes. A neuron is one, whatever its width, and so is a penalty over all parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import FROM_INPUTS, Graph, hash64, origins, reached, span_lengths

Ints = NDArray[np.signedinteger[Any]]
Mask = NDArray[np.bool_]

CONTRACTION = 255  # stands in `Fused.op` for a contraction; no op has that code
STEPS = 4  # of depth between levels of the graph, to have room for new nodes
SMALL_SUM = 4  # terms; so many may mix kinds, as they run one after the other

# What scales a product rides along as its coefficient, and multiplies one factor first. It must not
# be small, or that factor might lose its digits where the product would not have. If it is large,
# an overflow shows, and the plain sweep takes over. A constant in front of a sum stays outside:
# inside it would round every term.
COEFFICIENTS = 1.0, 2.0**30


LARGEST = float(np.finfo(np.float32).max)  # a number that is finite in every dtype


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of all contractions, t in all, those of one contraction side by side."""

    node: Ints  # (t,) the contraction
    u: Ints  # (t,) the one factor
    v: Ints  # (t,) the other; the node that is 1 where there is none
    coef: NDArray[np.float64]  # (t,)

    def take(self, order: Ints | Mask) -> Terms:
        """The terms at these places."""
        return Terms(self.node[order], self.u[order], self.v[order], self.coef[order])

    def __add__(self, other: Terms) -> Terms:
        return Terms(
            np.concatenate([self.node, other.node]),
            np.concatenate([self.u, other.u]),
            np.concatenate([self.v, other.v]),
            np.concatenate([self.coef, other.coef]),
        )


@dataclass(frozen=True, eq=False)
class Fused:
    """A graph with contractions: the nodes of the `Graph`, then the node 1, then new ones."""

    op: NDArray[np.uint8]  # (m,) op codes, and CONTRACTION
    parents: Ints  # (m, 3) of what is no contraction; -1 elsewhere
    value: NDArray[np.float64]  # (m,) of constants
    origin: NDArray[np.uint8]  # (m,) FROM_... bits
    depth: Ints  # (m,) grows from parents to children; 0 for leaves
    sources: Ints  # (m,) for how many computed nodes of the graph each stands for
    alive: Mask  # (m,) False for what has vanished into a contraction, or is computed elsewhere
    one: int  # the node that is 1
    picks: bool  # whether parameters must be finite, as products stand for where(c, w, 0)
    alone: bool  # whether no other sweep can take over
    unguarded: bool  # whether nan may stand where the graph has a guard of a gradient of 0
    terms: Terms
    outputs: Ints

    def origin_of(self, nodes: Ints) -> int:
        """FROM_... bits: what any of these nodes is computed from."""
        return int(np.bitwise_or.reduce(self.origin[nodes], axis=None))

    def buffer_of(self, node: int) -> int:
        """SHARED or BATCHED."""
        return int(self.origin[node] & FROM_INPUTS)


def fuse(graph: Graph, alone: bool = False) -> Fused:
    """Find the contractions of `graph`, by passes over all of its nodes at once.

    Where inf or nan might make a difference, another sweep can take over; unless it is `alone`.
    """
    n = len(graph)
    one = n
    op = np.append(graph.op, np.uint8(ops.const.code))
    value = np.append(graph.value, 1.0)
    origin = origins(graph)  # the node 1 is in the place of no parent: it comes from nothing
    same = _equal_constants(op, value, one)
    guards = np.empty(0, np.intp) if alone else _needless_guards(graph)
    same[guards] = graph.parents[guards, 1]
    while (same[same] != same).any():  # a guard of a guard
        same = same[same]
    parents = np.append(graph.parents, np.full((1, 3), -1, np.int32), axis=0)
    parents = np.append(same, np.int32(-1))[parents]
    parents[guards] = -1
    outputs = same[graph.outputs]
    picks = _picks(op, parents, value) & (not alone)
    runs = _SumTrees(op, parents, value, origin, outputs, picks)
    terms = runs.terms(one)
    fused = Fused(
        op=np.where(runs.roots, np.uint8(CONTRACTION), op),
        parents=np.where(runs.roots[:, None], -1, parents),
        value=value,
        origin=origin,
        depth=np.append(STEPS * graph.level.astype(np.intp), 0),
        sources=np.where(op == ops.const.code, 0, runs.sizes),
        alive=~runs.absorbed & (same == np.arange(n + 1)),
        one=one,
        picks=bool((picks & (runs.absorbed | runs.roots)).any()),
        alone=alone,
        unguarded=len(guards) > 0,
        terms=terms,
        outputs=outputs,
    )
    np.add.at(fused.sources, runs.top[same[guards]], 1)
    return _split_residuals(_split_mixed(_split_shared(fused)))


def _equal_constants(op: NDArray[np.uint8], value: NDArray[np.float64], one: int) -> Ints:
    """(m,) for each node itself, but for each constant the one that stands for all of its bits."""
    same = np.arange(len(op), dtype=np.int32)
    constants = np.flatnonzero(op == ops.const.code)[::-1]  # `one` comes first
    _, first, inverse = np.unique(
        value[constants].view(np.int64), return_index=True, return_inverse=True
    )
    same[constants] = constants[first][inverse.reshape(-1)]
    return same


def _needless_guards(graph: Graph) -> Ints:
    """The guards that the fused sweep can do without.

    Where one is needed, nan goes through in its place. If nothing on the way hides that, it shows
    in a result, and the plain sweep takes over, which has them all.
    """
    guards = np.flatnonzero(graph.op == ops.guard.code)
    if len(guards):
        behind = reached(graph, {1: guards})[graph.parents].astype(bool)
        for op in ops.OPS:
            if op is not ops.guard:
                hidden = [_hides_nan(op, k) for k in range(op.arity)]
                if behind[graph.op == op.code][:, : op.arity][:, hidden].any():
                    return guards[:0]
    return guards


@cache
def _hides_nan(op: ops.Op, k: int) -> bool:
    """Whether a result may depend on operand k, and not be nan where that is."""
    numbers = (0.0, 1.0, -1.0)
    for xs in product(*[numbers] * op.arity):
        of_nan, *others = [
            ops.evaluate(op.forward, *xs[:k], x, *xs[k + 1 :]) for x in (nan, *numbers)
        ]
        if not isnan(of_nan) and len(set(others)) > 1:
            return True
    return False


def _picks(op: NDArray[np.uint8], parents: Ints, value: NDArray[np.float64]) -> Mask:
    """(m,) which nodes are where(c, w, 0) of a condition c and a parameter or number w.

    That is the product c * w if w is finite. A sum of them, as `take` makes, may then be a matrix
    product, of a row that is 1 in one place.
    """
    c, w, zero = parents.T
    condition = np.isin(op, [o.code for o in ops.OPS if o.is_condition])
    number = (op == ops.const.code) & (np.abs(value) <= LARGEST)
    picked = (op == ops.parameter.code) | number
    nothing = (op == ops.const.code) & (value == 0)
    picks: Mask = (op == ops.where.code) & condition[c] & picked[w] & nothing[zero]
    return picks


class _SumTrees:
    """The runs of single-use nodes that make up the sums."""

    def __init__(
        self,
        op: NDArray[np.uint8],
        parents: Ints,
        value: NDArray[np.float64],
        origin: NDArray[np.uint8],
        outputs: Ints,
        picks: Mask,
    ) -> None:
        self.parents, self.value = parents, value
        x, y, _ = np.ascontiguousarray(parents.T)
        depends = origin > 0
        constant = op == ops.const.code
        self.constant = constant
        self.linear = np.isin(op, [o.code for o in (ops.add, ops.sub, ops.neg)]) & depends
        self.mul = ((op == ops.mul.code) | picks) & depends
        self.sign = np.ones((len(op), 2))  # with which a sum takes its operands
        self.sign[op == ops.sub.code, 1] = -1.0
        self.sign[op == ops.neg.code, 0] = -1.0
        product = op == ops.mul.code
        scaled = product & (constant[x] | constant[y])
        self.factor = np.where(scaled, np.where(constant[x], y, x), -1)  # what a constant scales
        scale = np.where(scaled, np.where(constant[x], value[x], value[y]), 0.0)
        low, high = COEFFICIENTS
        scales = scaled & (np.abs(scale) >= low) & (np.abs(scale) <= high)

        uses = np.bincount(parents[parents >= 0], minlength=len(op))
        uses += np.bincount(outputs, minlength=len(op))
        # of a node that is used once: by whom, and as which operand
        user, place = np.full(len(op), -1, np.int32), np.zeros(len(op), np.int8)
        for k in (1, 0):
            children = np.flatnonzero(parents[:, k] >= 0)
            user[parents[children, k]] = children
            place[parents[children, k]] = k
        # A shared sum stays by itself in a batched one, as it is computed once and not per sample.
        same_buffer = (origin & FROM_INPUTS) == (origin[user] & FROM_INPUTS)
        into_sum = self.linear[user] & (self.mul | (self.linear & same_buffer))
        into_scale = scales[user] & product & same_buffer  # a pick, scaled, might overflow
        self.absorbed = (uses == 1) & (user >= 0) & (into_sum | into_scale)

        inner = np.flatnonzero(self.absorbed)
        self.top = np.arange(len(op), dtype=np.int32)
        self.top[inner] = user[inner]
        self.coef = np.ones(len(op))
        self.coef[inner] = np.where(
            self.linear[user[inner]], self.sign[user[inner], place[inner]], scale[user[inner]]
        )
        self.roots = np.zeros(len(op), bool)
        self.roots[self.top[inner]] = True
        self.roots &= ~self.absorbed
        # each round doubles the distance covered, of those that have not arrived
        while len(inner := inner[self.absorbed[self.top[inner]]]):
            above = self.top[inner]
            self.coef[inner] *= self.coef[above]
            self.top[inner] = self.top[above]
        computed = np.flatnonzero(parents[:, 0] >= 0)
        self.sizes = np.bincount(self.top[computed], minlength=len(op))

    def terms(self, one: int) -> Terms:
        """The terms of every run, in the order of evaluation."""
        inside = self.absorbed | self.roots
        parts = []
        for k in (0, 1):
            nodes = np.flatnonzero(inside & self.linear)
            operand = self.parents[nodes, k]
            zero = self.constant[operand] & (self.value[operand] == 0)  # as sum() begins with
            kept = (operand >= 0) & ~self.absorbed[operand] & ~zero
            nodes, operand = nodes[kept], operand[kept]
            coef = self.coef[nodes] * self.sign[nodes, k]
            parts.append((nodes, operand, np.full(len(nodes), one), coef))
        products = inside & self.mul & ~((self.factor >= 0) & self.absorbed[self.factor])
        nodes = np.flatnonzero(products)
        parts.append((nodes, *self.parents[nodes, :2].T, self.coef[nodes]))
        source, u, v, coef = map(np.concatenate, zip(*parts))
        top = self.top[source]
        return Terms(top, u, v, coef).take(np.lexsort((source, top)))


def _split_shared(fused: Fused) -> Fused:
    """Give the terms of a batched sum that no input reaches a shared sum of their own.

    A single one that is added as it stands, such as a bias, stays: it is a product with 1.
    """
    terms = fused.terms
    batched = fused.origin & FROM_INPUTS
    shared = (batched[terms.node] > 0) & ((batched[terms.u] | batched[terms.v]) == 0)
    count = np.bincount(terms.node[shared], minlength=len(fused.op))
    plain = (terms.v == fused.one) & (terms.coef == 1)
    return _split(fused, shared & ~(plain & (count[terms.node] == 1)), below=3)


def _split_mixed(fused: Fused) -> Fused:
    """Let a long sum have either products of two batched factors or others, but not both."""
    terms = fused.terms
    batched = fused.origin & FROM_INPUTS
    both = (batched[terms.u] & batched[terms.v]) > 0
    count = np.bincount(terms.node, minlength=len(fused.op))
    other = np.bincount(terms.node[~both], minlength=len(fused.op))
    return _split(fused, both & ((count > SMALL_SUM) & (other > 0))[terms.node], below=2)


def _split_residuals(fused: Fused) -> Fused:
    """Give the products of a long sum a sum of their own where it adds a few other numbers too.

    As in x + W @ x, where the numbers that are added would tell the rows of W @ x apart.
    """
    terms = fused.terms
    batched = fused.origin & FROM_INPUTS
    leaf = np.isin(fused.op, [ops.parameter.code, ops.const.code])
    own = batched[terms.u] == batched[terms.node]
    added = (terms.v == fused.one) & (own & ~leaf[terms.u] | _differing_biases(fused))
    count = np.bincount(terms.node, minlength=len(fused.op))
    few = np.bincount(terms.node[added], minlength=len(fused.op))
    long = (few > 0) & (few <= SMALL_SUM) & (count - few > SMALL_SUM)
    return _split(fused, long[terms.node] & ~added, below=1)


def _differing_biases(fused: Fused) -> Mask:
    """(t,) which terms are shared numbers added to a sum whose weights others use with another one.

    A bias goes with a row of weights; what a position of a sequence adds to all tokens does not.
    """
    terms = fused.terms
    parameter, batched = fused.op == ops.parameter.code, (fused.origin & FROM_INPUTS) > 0
    shared = parameter[terms.u] | (batched[terms.node] & ~batched[terms.u])
    bias: Mask = shared & (terms.v == fused.one)
    if not bias.any():
        return bias
    weight = (parameter[terms.u] | parameter[terms.v]) & ~bias
    starts, counts = span_lengths(terms.node)
    used = np.where(parameter[terms.u] | bias, terms.u, terms.v)
    weights, biases = (np.add.reduceat(hash64(used) * x, starts) for x in (weight, bias))
    some = np.flatnonzero(np.logical_or.reduceat(bias, starts))
    _, row = np.unique(weights[some], return_inverse=True)
    first = np.empty(row.max() + 1, np.uint64)
    first[row] = biases[some]
    differs = np.zeros(len(starts), bool)
    differs[some] = np.isin(row, row[biases[some] != first[row]])
    bias &= np.repeat(differs, counts)
    return bias


def _split(fused: Fused, moved: Mask, below: int) -> Fused:
    """Move terms out of their contractions into new ones, which the old ones then add.

    `below` is how much deeper the new ones are; what is moved later may hold what was moved before.
    """
    if not moved.any():
        return fused
    m, terms = len(fused.op), fused.terms
    out = terms.take(moved)
    roots, index, counts = np.unique(out.node, return_inverse=True, return_counts=True)
    new = m + np.arange(len(roots))
    inside = Terms(new[index.reshape(-1)], out.u, out.v, out.coef)
    kept = terms.take(~moved) + Terms(
        roots, new, np.full(len(roots), fused.one), np.ones(len(roots))
    )
    all_terms = kept + inside
    starts = np.cumsum(counts) - counts
    products = np.add.reduceat((out.v != fused.one).astype(np.intp), starts)
    sources = fused.sources.copy()
    sources[roots] -= counts + products - 1  # the addition that joins them stays behind

    def extend(array: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([array, more.astype(array.dtype)])

    return Fused(
        op=extend(fused.op, np.full(len(new), CONTRACTION)),
        parents=extend(fused.parents, np.full((len(new), 3), -1)),
        value=extend(fused.value, np.zeros(len(new))),
        origin=extend(
            fused.origin, np.bitwise_or.reduceat(fused.origin[out.u] | fused.origin[out.v], starts)
        ),
        depth=extend(fused.depth, fused.depth[roots] - below),
        sources=extend(sources, counts + products - 1),
        alive=extend(fused.alive, np.ones(len(new))),
        one=fused.one,
        picks=fused.picks,
        alone=fused.alone,
        unguarded=fused.unguarded,
        terms=all_terms.take(np.argsort(all_terms.node, kind="stable")),
        outputs=fused.outputs,
    )
