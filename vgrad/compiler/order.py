"""Order: which sums must be added up as they are written.

A fused sum may add up in another order, as a matrix product does. That costs digits only where
terms cancel that the scalar engine adds without rounding. So these keep their order, and give what
the scalar engine gives, to the bit:

  * sums of numbers that are no products, as in (a - b) + (c - d), where either difference may be
    small and exact;
  * sums of a number and of terms made to cancel it: the number again, as in (x + M) - M, a constant
    of the other sign, or products of which other terms have both factors too, as where an error is
    found, a1 * b1 - p + a1 * b2 + a2 * b1 + a2 * b2.

In any other sum every number is added to rounded products. Where these cancel, so do the roundings
show that the scalar engine has made. Nor does order matter where no terms cancel, as all are >= 0.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from .fused import Fused, Ints, Mask, Terms
from .trees import Forest, named


def parted(whole: Forest) -> tuple[Forest, Mask]:
    """The trees, cut so that what keeps its order is by itself; (m,) which sums do.

    A sum that keeps its order takes another in on its left alone, as in ((a + b) + c) + d.
    """
    fused, edges, several = whole.fused, whole.edges, whole.several
    numbers = edges.used[whole.adds]
    choices = edges.user[whole.adds][_chooses(fused, fused.parents[numbers, 0])]
    rounded = whole.spread(np.append(whole.products[_is_rounded(whole)], choices))
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
            fits = (fused.op[number] == ops.const.code) & op.nonnegative(fused.value[number])
            never_negative[nodes] = fits
    fits = (terms.u == terms.v) | (never_negative[terms.u] & (terms.v == fused.one))
    up, down = (named(terms.node[~fits | (sign * terms.coef < 0)], m) for sign in (1, -1))
    return named(terms.node, m) & ~(up & down)


def _is_rounded(whole: Forest) -> Mask:
    """Which of the products are rounded, as a condition, or a power of 2, times a number is not."""
    fused, products = whole.fused, whole.products
    factors = fused.parents[products, :2]
    mantissa, _ = np.frexp(np.append(fused.value[factors], whole.coef[products][:, None], axis=1))
    power = np.isin(np.abs(mantissa), (0.0, 0.5))  # of 0 and of powers of 2
    is_condition = np.array([op.is_condition for op in ops.OPS])[fused.op[factors]]
    exact = is_condition | ((fused.op[factors] == ops.const.code) & power[:, :2])
    rounded: Mask = ~(exact.any(axis=1) & power[:, 2]) | _chooses(fused, factors).any(axis=1)
    return rounded


def _chooses(fused: Fused, nodes: Ints) -> Mask:
    """Which nodes are x == k, as where `take` chooses one row of a table: all others count as 0."""
    chooses: Mask = (fused.op[nodes] == ops.eq.code) & (nodes >= 0)
    return chooses


def _keeps_order(whole: Forest) -> Mask:
    """(m,) the roots of trees of a number and of terms that may have been made to cancel it."""
    fused, m = whole.fused, len(whole.root)
    constant, lone = fused.op == ops.const.code, whole.terms.v == fused.one
    numbers = whole.terms.take(lone)
    products = whole.terms.take(~lone & named(numbers.node, m)[whole.terms.node])
    keys = np.sort(numbers.node * m + numbers.u)
    twice = keys[1:][keys[1:] == keys[:-1]] // m
    sign = np.sign(numbers.coef * np.where(constant, fused.value, 0.0)[numbers.u])
    opposite = named(numbers.node[sign > 0], m) & named(numbers.node[sign < 0], m)
    return (
        named(twice, m)
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
        company &= (often | (fused.op[factor] == ops.const.code)) & ~_chooses(fused, factor)
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
