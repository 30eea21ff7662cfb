"""Sums of products: a tree of additions, subtractions and products becomes one contraction.

A contraction is a node that computes the sum of c * u * v over its terms, where c is a constant
and u and v are nodes. A neuron is one, whatever its width, and so is a penalty over all parameters:

            tanh                    tanh
             +                       |            c   u   v
          +     b         ->    contraction       1  w0  x0
       *     *                                    1  w1  x1
     w0 x0 w1 x1                                  1   b   1
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product
from math import isnan, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import FROM_INPUTS, Graph, hash64, origins, reached, span_lengths

Floats = NDArray[np.float64]
Ints = NDArray[np.signedinteger[Any]]
Mask = NDArray[np.bool_]
Uses = tuple[Ints, Ints, Floats]  # (e,) each

CONTRACTION, GONE = 255, 254  # in `Fused.op`: no op has these codes
STEPS = 4  # of depth between levels of the graph, to have room for new nodes
SMALL_SUM = 4  # terms; as they run one after the other, they may be of several kinds

# A constant that scales a product becomes its coefficient, and multiplies one factor first. It must
# not be small, or that factor might lose digits that the product keeps. If it is large, an overflow
# shows, and the plain sweep takes over. A constant in front of a sum stays outside: inside it would
# round every term.
COEFFICIENTS = 1.0, 2.0**30

SIGNS = {ops.add: (1, 1), ops.sub: (1, -1), ops.neg: (-1,)}  # of the operands of a sum
IS_SUM = np.isin(np.arange(256), [op.code for op in SIGNS])  # by op code
LARGEST = float(np.finfo(np.float32).max)  # a number that is finite in every dtype


class Terms(NamedTuple):
    """The terms of all contractions, t in all, those of one contraction side by side."""

    node: Ints  # (t,) the contraction
    u: Ints  # (t,) one factor
    v: Ints  # (t,) the other, or the node that is 1
    coef: Floats  # (t,)

    def take(self, order: Ints | Mask | slice) -> Terms:
        """The terms at these places."""
        return Terms(self.node[order], self.u[order], self.v[order], self.coef[order])

    def joined(self, other: Terms) -> Terms:
        """These terms and then the others."""
        columns: list[Any] = [np.append(*pair) for pair in zip(self, other)]
        return Terms(*columns)

    def how_many(self, mask: Mask) -> Ints:
        """(t,) for each term how many terms of its contraction are in `mask`."""
        return np.bincount(self.node[mask], minlength=self.node.max(initial=0) + 1)[self.node]

    def spans(self) -> tuple[Ints, Ints, Ints]:
        """Where each contraction's terms begin, how many it has, and (t,) their places in it."""
        starts, counts = span_lengths(self.node)
        return starts, counts, np.arange(len(self.node)) - np.repeat(starts, counts)

    def keys(self, *columns: NDArray[Any]) -> list[NDArray[np.uint64]]:
        """For each column x (t,) one number per contraction, in place of the tuple of its terms' x.

        A sum of hashes takes one call for all; different tuples have equal keys by chance alone.
        """
        starts, _, places = self.spans()
        factor = hash64(places) | 1
        return [np.add.reduceat(x * factor, starts) for x in columns]


@dataclass(frozen=True, eq=False)
class Fused:
    """A graph with contractions: the nodes of the `Graph`, then the node 1, then new ones."""

    op: NDArray[np.uint8]  # (m,) op codes, CONTRACTION, or GONE: replaced by another node
    parents: Ints  # (m, 3) of nodes with an op; -1 elsewhere
    value: Floats  # (m,) of constants
    origin: NDArray[np.uint8]  # (m,) FROM_... bits
    depth: Ints  # (m,) grows from parents to children; 0 for leaves
    sources: Ints  # (m,) how many computed nodes of the graph each one stands for
    outputs: Ints
    one: int  # the node that is 1
    terms: Terms
    alone: bool  # whether no other sweep can take over
    picks: bool = False  # whether parameters must be finite, as products stand for where(c, w, 0)
    unguarded: bool = False  # whether nan may come out where the graph has a guard

    @cached_property
    def batched(self) -> Mask:
        """(m,) which nodes differ between samples."""
        batched: Mask = (self.origin & FROM_INPUTS) > 0
        return batched


def unfused(graph: Graph, alone: bool) -> Fused:
    """The graph as it is, and the node 1."""
    nothing = np.empty(0, np.intp)
    return Fused(
        op=np.append(graph.op, np.uint8(ops.const.code)),
        parents=np.pad(graph.parents, ((0, 1), (0, 0)), constant_values=-1),
        value=np.append(graph.value, 1.0),
        origin=origins(graph),  # its last entry, for no parent, serves the node 1: from nothing
        depth=np.append(STEPS * graph.level.astype(np.intp), 0),
        sources=np.append(graph.level > 0, 0),
        outputs=graph.outputs,
        one=len(graph),
        terms=Terms(nothing, nothing, nothing, np.empty(0)),
        alone=alone,
    )


def _replaced(fused: Fused, by: Ints) -> Fused:
    """Put node by[i] in the place of every node i; what is replaced is gone."""
    gone = by != np.arange(len(by))
    parents = np.append(by, -1)[fused.parents]
    parents[gone] = -1
    sources = np.zeros_like(fused.sources)
    np.add.at(sources, by, fused.sources)
    op, outputs = np.where(gone, np.uint8(GONE), fused.op), by[fused.outputs]
    return replace(fused, op=op, parents=parents, sources=sources, outputs=outputs)


def merge_constants(fused: Fused) -> Fused:
    """Keep one constant of those with the same bits; for ones, that is the node 1."""
    constants = np.flatnonzero(fused.op == ops.const.code)[::-1]  # the node 1 comes first
    bits = fused.value[constants].view(np.int64)
    _, first, inverse = np.unique(bits, return_index=True, return_inverse=True)
    by = np.arange(len(fused.op))
    by[constants] = constants[first][inverse.reshape(-1)]
    return _replaced(fused, by)


def drop_guards(fused: Fused, graph: Graph) -> Fused:
    """Replace guards by what they guard, guard(x, y) by y, where the plain sweep can take over.

    Where y is nan and the guard would be 0, nan goes on. If nothing hides it, it shows in a result,
    and the plain sweep takes over, which has all guards.
    """
    guards = np.flatnonzero(graph.op == ops.guard.code)
    if fused.alone or not len(guards):
        return fused
    behind = reached(graph, {1: guards})[graph.parents] > 0
    uses = [(op, k) for op in ops.OPS if op is not ops.guard for k in range(op.arity)]
    if any(behind[graph.op == op.code, k].any() and _hides_nan(op, k) for op, k in uses):
        return fused
    by = np.arange(len(fused.op))
    by[guards] = fused.parents[guards, 1]
    while (by[by] != by).any():  # a guard of a guard
        by = by[by]
    return replace(_replaced(fused, by), unguarded=True)


@cache
def _hides_nan(op: ops.Op, k: int) -> bool:
    """Whether a result may depend on operand k, and not be nan where that is."""
    numbers = (0.0, 1.0, -1.0)
    for xs in product(numbers, repeat=op.arity):
        tried = [(*xs[:k], x, *xs[k + 1 :]) for x in (nan, *numbers)]
        of_nan, *others = [ops.evaluate(op.forward, *operands) for operands in tried]
        if not isnan(of_nan) and len(set(others)) > 1:
            return True
    return False


def contract_sums(fused: Fused) -> Fused:
    """Turn every tree of sums into one contraction, which takes the place of its root.

    An inner node is used once, by the node above it, and so counts in the root of its tree alone.

    >>> import vgrad
    >>> w = [vgrad.Value(1.0), vgrad.Value(2.0), vgrad.Value(3.0)]
    >>> neuron = lambda x: vgrad.tanh(w[0] * x[0] + w[1] * x[1] + w[2])
    >>> graph = vgrad.trace(neuron, (2,), parameters=w)
    >>> terms = contract_sums(unfused(graph, alone=False)).terms
    >>> terms.u.tolist(), terms.v.tolist()  # w[0] is node 0, x[0] is 1, and 10 is the number 1
    ([0, 2, 4], [1, 3, 10])
    """
    uses = user, used, weight = _uses(fused)
    once = np.bincount(np.append(used, fused.outputs))[used] == 1
    joins = once & (weight != 0) & _may_join(fused, used, user)
    inner = used[joins]
    root, coef = _climb(inner, user[joins], weight[joins], len(fused.op))
    terms, roots = _terms(fused, uses, root, coef), np.unique(root[inner])
    picks = bool((fused.op[inner] == ops.where.code).any())
    fused = replace(_replaced(fused, root), terms=terms, picks=picks)
    fused.op[roots], fused.parents[roots] = CONTRACTION, -1
    return fused


def _uses(fused: Fused) -> Uses:
    """All uses of nodes: the user, the node, and what a sum or a scaled product multiplies it with.

    x + y: 1, 1     x - y: 1, -1     -x: -1     2 * x: 0, 2     any other: 0
    """
    user, k = np.nonzero(fused.parents >= 0)
    used, other = fused.parents[user, k], fused.parents[user, 1 - k]
    (low, high), size = COEFFICIENTS, np.abs(fused.value[other])
    scaled = (fused.op[user] == ops.mul.code) & (fused.op[other] == ops.const.code)
    weight = np.where(scaled & (low <= size) & (size <= high), fused.value[other], 0.0)
    for op, signs in SIGNS.items():
        of_op = fused.op[user] == op.code
        weight[of_op] = np.take(signs, k[of_op])
    return user, used, weight


def _may_join(fused: Fused, node: Ints, user: Ints) -> Mask:
    """Whether a node may be an inner node below its user: a product, or a sum below a sum."""
    is_sum, is_product = IS_SUM[fused.op], fused.op == ops.mul.code
    # A shared sum stays by itself in a batched one, as it is computed once and not per sample.
    same_buffer = fused.batched[node] == fused.batched[user]
    into_sum = (is_product | _picks(fused))[node] | (is_sum[node] & same_buffer)
    into_scale = is_product[node] & same_buffer  # a pick, scaled, might overflow
    joins: Mask = np.where(is_sum[user], into_sum, into_scale) & (fused.origin[node] > 0)
    return joins


def _picks(fused: Fused) -> Mask:
    """(m,) which nodes are where(c, w, 0) of a condition c and a parameter or number w.

    That is the product c * w if w is finite. A sum of them, as `take` makes, may then be a matrix
    product, of a row that is 1 in one place.
    """
    op, value = fused.op, fused.value
    picks: Mask = op == ops.where.code
    c, w, zero = fused.parents[picks].T
    number = (op[w] == ops.const.code) & (np.abs(value[w]) <= LARGEST)
    nothing = (op[zero] == ops.const.code) & (value[zero] == 0)
    picked = (op[w] == ops.parameter.code) | number
    condition = np.array([x.is_condition for x in ops.OPS])[op[c]]
    picks[picks] = condition & picked & nothing & (not fused.alone)
    return picks


def _climb(node: Ints, user: Ints, weight: Floats, m: int) -> tuple[Ints, Floats]:
    """(m,) for these inner nodes the root and what that multiplies them with; themselves and 1.

    The loop below does this for all of them, in rounds that double the distance covered:
    5 -> 7 -> 8 -> 9 becomes 5 -> 8 -> 9 becomes 5 -> 9. For one node:

        root, coef = user[node], weight[node]
        while inner[root]:
            root, coef = user[root], coef * weight[root]
    """
    root, coef, inner = np.arange(m), np.ones(m), np.zeros(m, bool)
    root[node], coef[node], inner[node] = user, weight, True
    while len(node := node[inner[root[node]]]):
        above = root[node]
        coef[node] *= coef[above]
        root[node] = root[above]
    return root, coef


def _terms(fused: Fused, uses: Uses, root: Ints, coef: Floats) -> Terms:
    """The terms of all trees: what their nodes read from outside, in the order of evaluation."""
    user, used, weight = uses
    inner = root != np.arange(len(root))
    in_tree, is_sum = inner.copy(), IS_SUM[fused.op]
    in_tree[root[inner]] = True
    zero = (fused.op == ops.const.code) & (fused.value == 0)  # as sum() begins with
    adds = (in_tree & is_sum)[user] & ~(inner | zero)[used]
    node, u = user[adds], used[adds]
    added = Terms(node, u, np.full_like(u, fused.one), coef[node] * weight[adds])
    node = np.flatnonzero(in_tree & ~is_sum & ~inner[fused.parents].any(axis=1))
    u, v, _ = fused.parents[node].T
    terms = added.joined(Terms(node, u, v, coef[node]))
    terms = terms.take(np.lexsort((terms.node, root[terms.node])))
    return terms._replace(node=root[terms.node])


def split_shared(fused: Fused) -> Fused:
    """Move the terms of a batched sum that no input reaches to a shared sum of their own.

    x + p * p + q * q becomes x + s. A single node that is added as it is, such as a bias, stays.
    """
    terms, batched = fused.terms, fused.batched
    shared = batched[terms.node] & ~(batched[terms.u] | batched[terms.v])
    bias = (terms.v == fused.one) & (terms.coef == 1) & (terms.how_many(shared) == 1)
    return _split(fused, shared & ~bias, below=3)


def split_mixed(fused: Fused) -> Fused:
    """Let a long sum have either products of two batched factors or other terms, but not both.

    w0 * x0 + w1 * x1 + w2 * x2 + x0 * x1 + x1 * x2 becomes w0 * x0 + w1 * x1 + w2 * x2 + s.
    """
    terms, batched = fused.terms, fused.batched
    both = batched[terms.u] & batched[terms.v]
    products, others = terms.how_many(both), terms.how_many(~both)
    return _split(fused, both & (others > 0) & (products + others > SMALL_SUM), below=2)


def split_residuals(fused: Fused) -> Fused:
    """Give the products of a long sum a sum of their own if it adds a few other numbers too.

    As in x + W @ x, where the numbers that are added would tell the rows of W @ x apart: x + s.
    """
    terms, batched = fused.terms, fused.batched
    leaf = np.isin(fused.op, [ops.parameter.code, ops.const.code])
    own = (batched[terms.u] == batched[terms.node]) & ~leaf[terms.u]
    added = (terms.v == fused.one) & (own | differing_biases(fused))
    few, rest = terms.how_many(added), terms.how_many(~added)
    long = (few > 0) & (few <= SMALL_SUM) & (rest > SMALL_SUM)
    return _split(fused, long & ~added, below=1)


def differing_biases(fused: Fused) -> Mask:
    """(t,) which terms are biases of sums with weights that other sums use with other biases.

    A bias goes with a row of weights; what a position of a sequence adds to all tokens does not:
    after w0 * x0 + w1 * x1 + p and w0 * y0 + w1 * y1 + q, both p and q differ. In Python, where
    sums of hashes below stand for the sets:

        biases_of = defaultdict(set)
        for s in sums_with_a_bias:
            biases_of[weights(s)].add(biases(s))
        differing = [s for s in sums_with_a_bias if len(biases_of[weights(s)]) > 1]
    """
    terms, batched = fused.terms, fused.batched
    parameter = fused.op == ops.parameter.code
    shared = parameter[terms.u] | (batched[terms.node] & ~batched[terms.u])
    bias: Mask = shared & (terms.v == fused.one)
    if not bias.any():
        return bias
    starts, counts = span_lengths(terms.node)
    weight = (parameter[terms.u] | parameter[terms.v]) & ~bias
    hashes = hash64(np.where(parameter[terms.u] | bias, terms.u, terms.v))
    weights, biases = (
        np.repeat(np.add.reduceat(hashes * x, starts), counts)[bias] for x in (weight, bias)
    )
    _, row = np.unique(weights, return_inverse=True)
    some = np.empty(row.max() + 1, np.uint64)
    some[row] = biases  # of all sums with these weights, those of one
    bias[bias] = np.bincount(row, biases != some[row])[row] > 0
    return bias


def _split(fused: Fused, moved: Mask, below: int) -> Fused:
    """Move terms out of their contractions into new ones, which the old ones then add.

    `below` is how much deeper the new ones are: less from one split to the next, as a later one may
    move a sum that an earlier one has made.
    """
    if not moved.any():
        return fused
    out, kept = fused.terms.take(moved), fused.terms.take(~moved)
    roots, index, counts = np.unique(out.node, return_inverse=True, return_counts=True)
    n, starts = len(roots), np.cumsum(counts) - counts
    new = len(fused.op) + np.arange(n)
    links = Terms(roots, new, np.full(n, fused.one), np.ones(n))
    terms = kept.joined(links).joined(out._replace(node=new[index]))
    products = np.add.reduceat((out.v != fused.one).astype(np.intp), starts)
    sources = np.append(fused.sources, counts + products - 1)
    sources[roots] -= sources[new]  # the addition that joins them stays behind
    origin = np.bitwise_or.reduceat(fused.origin[out.u] | fused.origin[out.v], starts)
    return replace(
        fused,
        op=np.pad(fused.op, (0, n), constant_values=CONTRACTION),
        parents=np.pad(fused.parents, ((0, n), (0, 0)), constant_values=-1),
        value=np.pad(fused.value, (0, n)),
        origin=np.append(fused.origin, origin),
        depth=np.append(fused.depth, fused.depth[roots] - below),
        sources=sources,
        terms=terms.take(np.argsort(terms.node, kind="stable")),
    )
