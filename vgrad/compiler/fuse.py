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

from dataclasses import replace
from functools import cache
from itertools import product
from math import isnan, nan
from typing import Any

import numpy as np

from .. import ops
from ..flat import Graph, hash64, reached, span_lengths
from .fused import (
    CONTRACTION,
    GONE,
    SMALL_SUM,
    Floats,
    Fused,
    Ints,
    Mask,
    Terms,
    replaced,
    traced_anew,
    unfused,
)
from .order import parted
from .trees import named, whole_forest

__all__ = [
    "CONTRACTION", "GONE", "SMALL_SUM", "Floats", "Fused", "Ints", "Mask", "Terms",
    "contract_sums", "drop_guards", "split_mixed", "split_residuals",
    "split_shared", "unfused",
]  # fmt: skip


def drop_guards(fused: Fused, graph: Graph) -> Fused:
    """Replace guards by what they guard, guard(x, y, z) by z, where the plain sweep can take over.

    Where the guard would be 0, nan goes on. If nothing hides it, it shows in a result, and the
    plain sweep takes over, which has all guards. Those that a question depends on stay.

    Where z is not y but a gradient of it, as in second derivatives, z goes on to the operands of y.
    There it meets what y is nan of: y is x times r, and x is 0, so r is not finite, nor is z * r.
    """
    guards = np.flatnonzero((fused.op == ops.guard.code) & ~fused.asked)
    if fused.alone or not len(guards):
        return fused
    behind = reached(graph, {1: guards})[graph.parents] > 0
    uses = [(op, k) for op in ops.OPS if op is not ops.guard for k in range(op.arity)]
    if any(behind[graph.op == op.code, k].any() and _hides_nan(op, k) for op, k in uses):
        return fused
    by = np.arange(len(fused.op))
    by[guards] = fused.parents[guards, 2]
    while (by[by] != by).any():  # a guard of a guard
        by = by[by]
    # y may have been all that differed between samples
    return replace(traced_anew(replaced(fused, by), graph, None), unguarded=True)


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
    """Turn every tree of sums into a contraction, which takes the place of its root.

    An inner node is used once, by the node above it, and so counts in the root of its tree alone.
    What must keep its order is a tree by itself. A 0 that is added is left out, but in what is
    asked about added last.

    >>> import vgrad
    >>> w = [vgrad.Value(1.0), vgrad.Value(2.0), vgrad.Value(3.0)]
    >>> neuron = lambda x: vgrad.tanh(w[0] * x[0] + w[1] * x[1] + w[2])
    >>> graph = vgrad.trace(neuron, (2,), parameters=w)
    >>> terms = contract_sums(unfused(graph, alone=False)).terms
    >>> terms.u.tolist(), terms.v.tolist()  # w[0] is node 0, x[0] is 1, and 10 is the number 1
    ([0, 2, 4], [1, 3, 10])
    """
    forest, ordered = parted(whole_forest(fused))
    inner, root = forest.inner, forest.root
    roots = np.unique(root[inner])
    is_root = named(roots, len(root))
    found: dict[str, Any] = dict(
        terms=forest.terms,
        picks=bool((fused.op[inner] == ops.where.code).any()),
        ordered=(ordered | fused.asked) & is_root,
        exact=~named(root[forest.bends], len(root)),
        one_sign=forest.one_sign,
    )
    zeros = forest.zeros & fused.asked[forest.edges.user]
    zero = np.full(len(root), -1, np.int32)
    zero[root[forest.edges.user[zeros]]] = forest.edges.used[zeros]
    del forest, ordered, inner, is_root, zeros  # which take more memory than the graph
    fused = replace(replaced(fused, root), **found)
    fused.op[roots], fused.parents[roots] = CONTRACTION, -1
    return _with_zeros(fused, zero)


def _with_zeros(fused: Fused, zero: Ints) -> Fused:
    """Add node zero[i], if it is not -1, to contraction i, which becomes a node of its own."""
    roots = np.flatnonzero(zero >= 0)
    if not len(roots):
        return fused
    names = ("origin", "aims", "ordered", "exact", "one_sign", "largest", "asked")
    columns: dict[str, Any] = {name: getattr(fused, name)[roots] for name in names}
    depth, sources = fused.depth[roots] - 1, fused.sources[roots] - 1
    by, new = np.arange(len(zero)), len(zero) + np.arange(len(roots))
    by[roots] = new
    terms = fused.terms._replace(node=by[fused.terms.node])
    fused = _grown(replace(fused, terms=terms), depth=depth, sources=sources, **columns)
    fused.op[roots], fused.sources[roots], fused.ordered[roots] = ops.add.code, 1, False
    fused.parents[roots, :2] = np.stack([new, zero[roots]], axis=1)
    return fused


def _grown(fused: Fused, **columns: Any) -> Fused:
    """The same with as many contractions behind its nodes as the columns are long."""
    n = len(columns["depth"])
    columns = {name: np.zeros(n, bool) for name in ("ordered", "largest", "asked")} | columns
    longer: dict[str, Any] = {
        name: np.append(getattr(fused, name), column) for name, column in columns.items()
    }
    return replace(
        fused,
        op=np.pad(fused.op, (0, n), constant_values=CONTRACTION),
        parents=np.pad(fused.parents, ((0, n), (0, 0)), constant_values=-1),
        value=np.pad(fused.value, (0, n)),
        number=np.append(fused.number, fused.number[-1] + 1 + np.arange(n, dtype=np.int32)),
        **longer,
    )


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

    Those that keep their order are left alone. `below` is how much deeper the new ones are: less
    from one split to the next, as a later one may move a sum that an earlier one has made.
    """
    moved = moved & ~fused.ordered[fused.terms.node]
    if not moved.any():
        return fused
    out, kept = fused.terms.take(moved), fused.terms.take(~moved)
    roots, index, counts = np.unique(out.node, return_inverse=True, return_counts=True)
    n, starts = len(roots), np.cumsum(counts) - counts
    new = len(fused.op) + np.arange(n)
    links = Terms(roots, new, np.full(n, fused.one), np.ones(n))
    terms = kept.joined(links).joined(out._replace(node=new[index]))
    products = np.add.reduceat((out.v != fused.one).astype(np.intp), starts)
    fused = _grown(
        fused,
        origin=np.bitwise_or.reduceat(fused.origin[out.u] | fused.origin[out.v], starts),
        aims=np.bitwise_or.reduceat(fused.aims[out.u] | fused.aims[out.v], starts),
        depth=fused.depth[roots] - below,
        sources=counts + products - 1,
        exact=np.zeros(n, bool),
        one_sign=fused.one_sign[roots],
    )
    fused.sources[roots] -= fused.sources[new]  # the addition that joins them stays behind
    fused.exact[roots] = False
    return replace(fused, terms=terms.take(np.argsort(terms.node, kind="stable")))
