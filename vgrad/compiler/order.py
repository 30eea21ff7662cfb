"""Order: which sums must be added up as they are written.

A fused sum may add up in another order, as a matrix product does. That costs digits only where
terms cancel that the scalar engine adds without rounding. So these keep their order, and give what
the scalar engine gives, to the bit:

  * sums of numbers that are not rounded, of leaves and of their sums, as in (a - b) + (c - d),
    where either difference may be small and exact;
  * sums that subtract a number, or a factor, which they add as well, as in (x + M) - M, or that
    have constants of either sign;
  * sums of products of which others have both factors too, as where the error of a product is
    found, a1 * b1 - p + a1 * b2 + a2 * b1 + a2 * b2;
  * sums on which a question depends, as the answer tells which way a sample goes.

In any other sum every number is added to a rounded one, a product or a tanh. Where they cancel, the
scalar engine's roundings show as well, unless they happen to be none: products of whole numbers
are exact, and equal ones cancel. Nor does order matter where all terms have one sign.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from .fused import Floats, Fused, Ints, Mask, Terms, by_code
from .trees import Forest, named


def parted(whole: Forest) -> tuple[Forest, Mask]:
    """The trees, cut so that what keeps its order is by itself; (m,) which sums do.

    A sum that keeps its order takes another in on its left alone, as in ((a + b) + c) + d; any
    other, on its right, one that has no more than a number besides its products.
    """
    fused, edges, several = whole.fused, whole.edges, whole.several
    is_rounded = _is_rounded(fused, whole.coef)
    users = edges.user[whole.adds][is_rounded[edges.used[whole.adds]]]
    rounded = whole.spread(np.append(users, whole.products[is_rounded[whole.products]]))
    ordered = several & (_keeps_order(whole)[whole.root] | ~rounded)
    chooses = fused.op[fused.parents[edges.used, 0]] == ops.eq.code
    numbers = whole.meet(whole.adds & ~chooses, whole.products[:0])
    apart = named(whole.bends, len(several)) & numbers
    may_cancel = ~whole.one_sign[whole.root]
    ordered, apart = (ordered & may_cancel) | (several & fused.asked), apart & may_cancel
    if not (ordered | apart).any():
        return whole, ordered
    node, user = edges.used, edges.user
    alike = (ordered[node] == ordered[user]) & (~ordered[user] | (whole.side[node] == 0))
    same_buffer = fused.batched[node] == fused.batched[user]
    sums = ~several[node] | (alike & ~apart[node])
    fits = np.where(whole.is_sum[node], sums, ~ordered[user] | same_buffer)
    joins = whole.joins & (fits | ~whole.is_sum[user])
    del whole, node, user, sums, fits  # which take more memory than the graph
    return Forest(fused, edges, joins), ordered


def _is_rounded(fused: Fused, coef: Floats | Ints) -> Mask:
    """(m,) which nodes have roundings of their own, if `coef` multiplies them.

    A leaf has none, nor has a choice among numbers, a whole number as of floor, or a number times a
    power of 2, a sign or a condition. A sum has, but may have been made to cancel with its own
    terms. Of the rows that `take` chooses among, where(k == 0, x, 0) and so on, one counts and the
    others are 0, so they never cancel: they pass for rounded.
    """
    op, (x, y, _) = fused.op, fused.parents.T
    exact = by_code(lambda op: op.is_exact)[op]
    constants = np.flatnonzero(op == ops.const.code)
    power = named(constants[_are_powers(fused.value[constants])], len(op))
    keeps = by_code(lambda op: op.is_condition or op is ops.sign)[op] | power
    products, quotients, powers = (
        np.flatnonzero(op == some.code) for some in (ops.mul, ops.div, ops.pow)
    )
    scaled = _are_powers(coef[products])
    exact[products] |= (keeps[x[products]] | keeps[y[products]]) & scaled
    exact[quotients] |= power[y[quotients]]
    exponent = y[powers]
    exact[powers] |= (op[exponent] == ops.const.code) & (fused.value[exponent] == 1)
    choices = np.flatnonzero(op == ops.where.code)
    exact[choices] &= op[x[choices]] != ops.eq.code
    return ~exact


def _are_powers(numbers: Floats | Ints) -> Mask:
    """(n,) which of these are 0 or powers of 2; of int8, as 1 and -1 are, all."""
    if numbers.dtype == np.int8:
        return np.ones(len(numbers), bool)
    mantissa, _ = np.frexp(numbers)
    return np.isin(np.abs(mantissa), (0.0, 0.5))


def _keeps_order(whole: Forest) -> Mask:
    """(m,) the roots of trees with terms that may have been made to cancel."""
    fused, m = whole.fused, len(whole.root)
    constant, lone = fused.op == ops.const.code, whole.terms.v == fused.one
    numbers, products = whole.terms.take(lone), _repeated(whole.terms.take(~lone), m)
    sign = np.sign(numbers.coef * np.where(constant, fused.value, 0.0)[numbers.u])
    opposite = named(numbers.node[sign > 0], m) & named(numbers.node[sign < 0], m)
    return (
        opposite
        | _of_both_signs(numbers, numbers.u, m)
        | _of_both_signs(*_factors(fused, products), m)
        | named(_mixed(fused, _mixed(fused, products)).node, m)  # not counting w * x of a weight
        | _taken_away(whole.numbers, m)
    )


def _repeated(products: Terms, m: int) -> Terms:
    """The products of trees in which some factor is in two: in most of them none is."""
    u, v = (products.node * m + x for x in (products.u, products.v))
    keys = np.sort(np.append(u, v[u != v]))
    return products.take(named(keys[1:][keys[1:] == keys[:-1]] // m, m)[products.node])


def _of_both_signs(terms: Terms, numbers: Ints, m: int) -> Mask:
    """(m,) the roots of trees of which one term adds a number and another subtracts it."""
    key = np.sign(terms.coef) * (1 + terms.node * m + numbers)
    return named(terms.node[np.isin(-key, key)], m)


def _factors(fused: Fused, products: Terms) -> tuple[Terms, Ints]:
    """The factors that are no constants, each with its term; but not of rows that `take` picks."""
    both, factors = products.joined(products), np.append(products.u, products.v)
    kind = fused.op[np.stack([both.u, both.v])]
    fits = (fused.op[factors] != ops.const.code) & (kind != ops.eq.code).all(axis=0)
    fits[len(products.node) :] &= products.u != products.v
    return both.take(fits), factors[fits]


def _mixed(fused: Fused, products: Terms) -> Terms:
    """Those products of whose factors, of either, there are others in their tree."""
    m = len(fused.op)
    terms, factors = _factors(fused, products)
    distinct, times = np.unique(terms.node * m + factors, return_counts=True)
    alone = distinct[times == 1]
    own = [np.isin(products.node * m + x, alone) for x in (products.u, products.v)]
    picks = (fused.op[products.u] == ops.eq.code) | (fused.op[products.v] == ops.eq.code)
    return products.take(~(own[0] | own[1] | picks))


def _taken_away(numbers: Terms, m: int) -> Mask:
    """(m,) the roots of two trees of which one adds a number, and the other takes it away again.

    As s = a * b + M and y = s - M, where s has another use too. Of all the `numbers` that sums
    add, s is a sum itself, and meets its own numbers, here M:

        for root, s in numbers:
            for number in numbers_of[s]:
                found = -number in numbers_of[root]
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
