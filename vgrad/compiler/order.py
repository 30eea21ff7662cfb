"""Order: which sums must be added up as they are written.

A fused sum may add up in another order, as a matrix product does. That costs digits only where
terms cancel that the scalar engine adds without rounding. So these keep their order, and give what
the scalar engine gives, to the bit:

  * sums of numbers that are not rounded, of leaves and of their sums, as in (a - b) + (c - d),
    where either difference may be small and exact;
  * sums of a number and of terms made to cancel it: the number again, as in (x + M) - M, a constant
    of the other sign, or products of which other terms have both factors too, as where an error is
    found, a1 * b1 - p + a1 * b2 + a2 * b1 + a2 * b2.

In any other sum every number is added to a rounded one, a product or a tanh. Where they cancel, the
scalar engine's roundings show as well. Nor does order matter where all terms are >= 0.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np

from .. import ops
from .fused import Floats, Fused, Mask, Terms
from .trees import SIGNS, Forest, named


def parted(whole: Forest) -> tuple[Forest, Mask]:
    """The trees, cut so that what keeps its order is by itself; (m,) which sums do.

    A sum that keeps its order takes another in on its left alone, as in ((a + b) + c) + d.
    """
    fused, edges, several = whole.fused, whole.edges, whole.several
    is_rounded = _is_rounded(fused, whole.coef)
    users = edges.user[whole.adds][is_rounded[edges.used[whole.adds]]]
    rounded = whole.spread(np.append(users, whole.products[is_rounded[whole.products]]))
    ordered = several & (_keeps_order(whole)[whole.root] | ~rounded)
    ordered &= ~of_one_sign(whole)[whole.root]
    node, user = edges.used, edges.user
    alike = (ordered[node] == ordered[user]) & (~ordered[user] | (whole.side[node] == 0))
    same_buffer = fused.batched[node] == fused.batched[user]
    fits = np.where(whole.is_sum[node], ~several[node] | alike, ~ordered[user] | same_buffer)
    return Forest(fused, edges, whole.joins & (fits | ~whole.is_sum[user])), ordered


def of_one_sign(forest: Forest) -> Mask:
    """(m,) the roots of trees whose terms cannot cancel: of squares, and of numbers >= 0."""
    fused, terms, m = forest.fused, forest.terms, len(forest.root)
    never_negative = (fused.op == ops.const.code) & (fused.value >= 0)
    for op in ops.OPS:
        nodes = np.flatnonzero(fused.op == op.code)
        if op.is_condition or (op.nonnegative and op.static is None):
            never_negative[nodes] = True
        elif callable(op.nonnegative):
            number = fused.parents[nodes, op.static]
            with np.errstate(invalid="ignore"):
                fits = (fused.op[number] == ops.const.code) & op.nonnegative(fused.value[number])
            never_negative[nodes] = fits
    fits = (terms.u == terms.v) | (never_negative[terms.u] & (terms.v == fused.one))
    up, down = (named(terms.node[~fits | (sign * terms.coef < 0)], m) for sign in (1, -1))
    return named(terms.node, m) & ~(up & down)


def _is_rounded(fused: Fused, coef: Floats) -> Mask:
    """(m,) which nodes have roundings of their own, if `coef` multiplies them.

    A leaf has none, nor has a choice among numbers, or a power of 2 or a condition times a number.
    A sum has, but may have been made to cancel with its own terms.
    """
    codes, which = np.unique(fused.op, return_inverse=True)
    exact = np.array([code >= len(ops.OPS) or _chooses(ops.OPS[code]) for code in codes])[which]
    mantissa, _ = np.frexp(np.append(fused.value[:, None], coef[:, None], axis=1))
    power, is_power = np.isin(np.abs(mantissa), (0.0, 0.5)).T  # of 0 and of powers of 2
    is_condition = np.array([op.is_condition for op in ops.OPS] + [False] * 256)[fused.op]
    keeps = is_condition | ((fused.op == ops.const.code) & power)
    products = np.flatnonzero(fused.op == ops.mul.code)
    factors = fused.parents[products, :2]
    exact[products] = keeps[factors].any(axis=1) & is_power[products]
    # Of all rows that `take` chooses among, one counts, and the others are 0: they never cancel.
    picked = (fused.op == ops.mul.code) | (fused.op == ops.where.code)
    rows = fused.op[fused.parents[:, :2]] == ops.eq.code
    rounded: Mask = ~exact | (picked & rows.any(axis=1))
    return rounded


@cache
def _chooses(op: ops.Op) -> bool:
    """Whether a result is one of the operands, perhaps with another sign, or 0 or 1; or a sum."""
    numbers = (0.7, -0.6, 0.3)
    if not op.arity or op in SIGNS:
        return True
    return all(
        abs(ops.evaluate(op.forward, *xs)) in (0.0, 1.0, *map(abs, xs))
        for xs in permutations(numbers, op.arity)
    )


def _keeps_order(whole: Forest) -> Mask:
    """(m,) the roots of trees of a number and of terms that may have been made to cancel it."""
    fused, m = whole.fused, len(whole.root)
    constant, lone = fused.op == ops.const.code, whole.terms.v == fused.one
    numbers = whole.terms.take(lone)
    products = whole.terms.take(~lone & named(numbers.node, m)[whole.terms.node])
    keys = np.sign(numbers.coef) * (1 + numbers.node * m + numbers.u)
    both = np.isin(-keys, keys)
    sign = np.sign(numbers.coef * np.where(constant, fused.value, 0.0)[numbers.u])
    opposite = named(numbers.node[sign > 0], m) & named(numbers.node[sign < 0], m)
    return (
        named(numbers.node[both], m)
        | opposite
        | named(products.node[_have_company(fused, products)], m)
        | _taken_away(numbers, m)
    )


def _have_company(fused: Fused, products: Terms) -> Mask:
    """Which products have no factor to themselves: other terms have it too, or it is constant."""
    m, node = len(fused.op), products.node
    pairs = [products.u + node * m, products.v + node * m]
    distinct, times = np.unique(
        np.append(pairs[0], pairs[1][products.u != products.v]), return_counts=True
    )
    company = np.ones(len(node), bool)
    for pair, factor in zip(pairs, (products.u, products.v)):
        often = times[np.searchsorted(distinct, pair)] > 1
        picks = fused.op[factor] == ops.eq.code  # a row, as `take` does
        company &= (often | (fused.op[factor] == ops.const.code)) & ~picks
    return company


def _taken_away(numbers: Terms, m: int) -> Mask:
    """(m,) the roots of two trees of which one adds a number, and the other takes it away again.

    As s = a * b + M and y = s - M, where s has another use too. Of all the `numbers` that trees
    add, s is a tree itself, and meets its own numbers, here M:

        for tree, s in numbers:
            for s, number in numbers_of[s]:
                found = -number in numbers_of[tree]
    """
    starts, counts, _ = numbers.spans()
    first, many = np.zeros((2, m), np.intp)
    first[numbers.node[starts]], many[numbers.node[starts]] = starts, counts
    of_s = many[numbers.u]
    outer = np.repeat(np.arange(len(of_s)), of_s)
    inner = first[numbers.u[outer]] + np.arange(len(outer)) - (np.cumsum(of_s) - of_s)[outer]
    sign, key = np.sign(numbers.coef), 1 + numbers.node * m + numbers.u
    added = sign[outer] * sign[inner] * (1 + numbers.node[outer] * m + numbers.u[inner])
    found = np.isin(-added, sign * key)
    return named(numbers.node[outer[found]], m) | named(numbers.u[outer[found]], m)
