"""Trees of additions, subtractions, negations and products: what may become one contraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..cached import cached_property
from .fused import Floats, Fused, Ints, Mask, Terms, by_code

LARGEST = float(np.finfo(np.float32).max)  # a number that is finite in every dtype

# A constant that scales a product becomes its coefficient, and multiplies one factor first. It must
# not be small, or that factor might lose digits that the product keeps. If it is large, an overflow
# is noticed. A constant in front of a sum stays outside: inside it would round every term.
COEFFICIENTS = 1.0, 2.0**30


NEAR = 8  # steps up a tree, before what is above is worth looking for in all trees at once


@dataclass(frozen=True, eq=False)
class Edges:
    """Every use of a node by another, e in all."""

    user: Ints  # (e,) int32, as graphs have them: half the memory, and half the time to go through
    side: Ints  # (e,) which operand of the user it is
    used: Ints  # (e,)
    # (e,) what a sum, or a product with a constant, multiplies it with; int8 if that is 1, 0 or -1
    weight: Floats | Ints


def edges_of(fused: Fused) -> Edges:
    """All uses of nodes: the user, the node, and what a sum or a scaled product multiplies it with.

    x + y: 1, 1     x - y: 1, -1     -x: -1     2 * x: 0, 2     any other: 0
    """
    parents = fused.parents.reshape(-1)
    place = np.flatnonzero(parents >= 0).astype(np.int32)
    user = place // ops.MAX_ARITY
    side = (place - ops.MAX_ARITY * user).astype(np.int8)
    signs = np.zeros((256, ops.MAX_ARITY), np.int8)
    for op in ops.OPS:
        signs[op.code, : len(op.signs)] = op.signs
    code = fused.op[user]
    weight = signs[code, side]
    if not fused.alone:  # where nobody would notice an overflow
        product = np.flatnonzero(code == ops.mul.code)
        other = parents[place[product] + 1 - 2 * side[product]]
        is_constant = fused.op[other] == ops.const.code
        product, other = product[is_constant], other[is_constant]
        (low, high), size = COEFFICIENTS, np.abs(fused.value[other])
        scaled = (low <= size) & (size <= high)
        if scaled.any():
            weight = weight.astype(np.float64)
            weight[product[scaled]] = fused.value[other[scaled]]
    return Edges(user, side, parents[place], weight)


def _adds(op: ops.Op) -> bool:
    return bool(op.signs)


def _may_join(fused: Fused, edges: Edges) -> Mask:
    """(e,) whether the node may be an inner node below its user.

    It is a product, or a sum below a sum, and used just once. Below a node that is asked about, the
    contraction must also compute it as it is written.
    """
    node, user = edges.used, edges.user
    once = np.bincount(np.append(node, fused.outputs))[node] == 1
    is_sum, is_product = by_code(_adds)[fused.op], fused.op == ops.mul.code
    # A shared sum stays by itself in a batched one, as it is computed once and not per sample.
    same_buffer = fused.batched[node] == fused.batched[user]
    into_sum = (is_product | _picks(fused))[node] | (is_sum[node] & same_buffer)
    into_scale = is_product[node] & same_buffer  # a pick, scaled, might overflow
    joins: Mask = np.where(is_sum[user], into_sum, into_scale) & (fused.origin[node] > 0)
    joins &= once & (edges.weight != 0)
    # of 2 * (3 * (x * y)) the outer scale stays outside: 6 might overflow where they do not
    scales = joins & ~is_sum[user]
    joins &= ~(scales & named(user[scales], len(fused.op))[node])
    return joins & (~fused.asked[user] | _as_written(fused, edges))


def _as_written(fused: Fused, edges: Edges) -> Mask:
    """(e,) whether a contraction would compute node and user as they are written, to the bit.

    A minus in front of a sum would go to its terms, and make 0.0 of -0.0 where they cancel. A pick
    of nothing may be -0.0 as a product.
    """
    binary = by_code(lambda op: op in (ops.add, ops.sub))[fused.op]
    is_product = fused.op == ops.mul.code
    left = binary[edges.used] & (edges.side == 0)
    fits: Mask = (binary | is_product)[edges.user] & (is_product[edges.used] | left)
    return fits


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
    condition = by_code(lambda op: op.is_condition)[op[c]]
    picks[picks] = condition & picked & nothing & (not fused.alone)
    return picks


def whole_forest(fused: Fused) -> Forest:
    """The trees as large as they may be."""
    edges = edges_of(fused)
    return Forest(fused, edges, _may_join(fused, edges))


class Forest:
    """Trees of sums and products, given which edges join a node to the one above it.

    For every node, (m,): whether it is `inner`, which node is `above` it and on which `side`; the
    root of its tree, and what that multiplies it with. A node that is not inner is its own root.
    """

    def __init__(self, fused: Fused, edges: Edges, joins: Mask) -> None:
        self.fused, self.edges, self.joins = fused, edges, joins
        m, node = len(fused.op), edges.used[joins]
        self.inner = named(node, m)
        self.above, self.side = np.arange(m, dtype=np.int32), np.zeros(m, np.int8)
        self.above[node], self.side[node] = edges.user[joins], edges.side[joins]
        weight: Any = np.ones(m, edges.weight.dtype)
        weight[node] = edges.weight[joins]
        self.root, self.coef = climb(self.above, weight, self.inner)

    @cached_property
    def is_sum(self) -> Mask:
        """(m,) which nodes are additions, subtractions or negations."""
        mask: Mask = by_code(_adds)[self.fused.op]
        return mask

    @cached_property
    def is_binary(self) -> Mask:
        """(m,) which of them have two operands."""
        mask: Mask = self.is_sum & (self.fused.op != ops.neg.code)
        return mask

    @cached_property
    def _adds_two(self) -> Mask:
        """(m,) which nodes have two operands that are terms, or made of them."""
        two = self.is_binary.copy()
        two[self.edges.user[self.zeros]] = False
        return two

    @cached_property
    def adds(self) -> Mask:
        """(e,) which numbers from outside are added; not the 0 that sum() begins with."""
        adds: Mask = self._from_outside & ~self.zeros
        return adds

    @cached_property
    def zeros(self) -> Mask:
        """(e,) which zeros are no terms; of sums that are asked about, those that are + 0.0.

        After x + 0.0 a sum cannot be -0.0 again; so it may as well be added in the end.
        """
        fused, edges = self.fused, self.edges
        zero = (fused.op == ops.const.code) & (fused.value == 0)
        plus = (edges.weight > 0) & ~np.signbit(fused.value[edges.used])
        zeros: Mask = self._from_outside & zero[edges.used] & (plus | ~fused.asked[edges.user])
        return zeros

    @cached_property
    def _from_outside(self) -> Mask:
        """(e,) what the sums of trees read from outside."""
        mask: Mask = (self._in_tree & self.is_sum)[self.edges.user] & ~self.joins
        return mask

    @cached_property
    def _in_tree(self) -> Mask:
        """(m,) which nodes are inner or the root of others."""
        return self.inner | named(self.root[self.inner], len(self.root))

    @cached_property
    def terms(self) -> Terms:
        """The terms of all trees: what their nodes read from outside.

        They come in the order of the additions, ((a + b) + c) + d; the first two in either order.
        In a tree with bends, products come first.
        """
        products, user = self.products, self.edges.user[self.adds]
        u, v, _ = self.fused.parents[products].T
        # of eight bytes, as two of them multiply to keys
        root, coef = self.root[products].astype(np.intp), self.coef[products].astype(np.float64)
        multiplied = Terms(root, u, v, coef)
        terms, own = self._read(self.adds).joined(multiplied), np.append(user, products)
        at = np.where(self._adds_two[own], own, self._place(own)[0])
        at = np.where(named(self.root[self.bends], len(self.root))[terms.node], own, at)
        return terms.take(np.lexsort((own, terms.v == self.fused.one, at, terms.node)))

    @property
    def lengths(self) -> Ints:
        """(m,) how many terms the tree of each root has."""
        own = np.append(self.edges.user[self.adds], self.products)
        return np.bincount(self.root[own], minlength=len(self.root))

    @cached_property
    def numbers(self) -> Terms:
        """What is added by any sum, be it a tree or not, and is no product or sum of a tree."""
        terms = self._read(self.is_sum[self.edges.user] & ~self.joins)
        return terms.take(np.argsort(terms.node, kind="stable"))

    def _read(self, some: Mask) -> Terms:
        """Some edges (e,), as terms of one factor."""
        user, used = self.edges.user[some], self.edges.used[some]
        coef = (self.coef[user] * self.edges.weight[some]).astype(np.float64)
        root = self.root[user].astype(np.intp)
        return Terms(root, used, np.full_like(used, self.fused.one), coef)

    @cached_property
    def products(self) -> Ints:
        """The nodes of trees that are products of two numbers from outside."""
        leaf = self._in_tree & ~self.is_sum & ~self.inner[self.fused.parents].any(axis=1)
        return np.flatnonzero(leaf)

    def _place(self, nodes: Ints) -> tuple[Ints, Ints]:
        """The addition above each node, past what scales, negates or adds 0; its side there."""
        carried = self.inner & ~self._adds_two[self.above]
        top: Ints = climb(self.above, np.ones(len(carried), np.int8), carried)[0][nodes]
        side: Ints = np.where(self.inner[top], self.side[top], 0)
        at: Ints = self.above[top]
        return at, side

    @cached_property
    def bends(self) -> Ints:
        """The sums that are added to what stands on their left, as b + c is in a + (b + c)."""
        sums: Ints = np.flatnonzero(self.inner & self.is_sum & self.several)
        bends: Ints = sums[self._place(sums)[1] == 1]
        return bends

    @cached_property
    def one_sign(self) -> Mask:
        """(m,) the roots of trees whose terms cannot cancel: of squares, and of numbers >= 0."""
        fused, terms, m = self.fused, self.terms, len(self.root)
        never_negative = (fused.op == ops.const.code) & (fused.value >= 0)
        for op in ops.OPS:
            nodes = np.flatnonzero(fused.op == op.code)
            if op.is_condition or (op.nonnegative and op.static is None):
                never_negative[nodes] = True
            elif callable(op.nonnegative):
                number = fused.parents[nodes, op.static]
                with np.errstate(invalid="ignore"):
                    fits = op.nonnegative(fused.value[number])
                never_negative[nodes] = (fused.op[number] == ops.const.code) & fits
        fits = (terms.u == terms.v) | (never_negative[terms.u] & (terms.v == fused.one))
        up, down = (named(terms.node[~fits | (sign * terms.coef < 0)], m) for sign in (1, -1))
        one_sign: Mask = named(terms.node, m) & ~(up & down)
        return one_sign

    def spread(self, nodes: Ints) -> Mask:
        """(m,) these nodes and all that is above them in their trees.

        The loop does this for all of them, in rounds that double the distance covered:

            for node in nodes:
                while inner[node]:
                    node = above[node]
                    mask[node] = True
        """
        mask, above = named(nodes, len(self.above)), self.above
        for _ in range(NEAR):  # in most trees, all is marked that is above what was
            nodes = above[nodes]
            nodes = nodes[~mask[nodes]]
            if not len(nodes):
                return mask
            mask[nodes] = True
        while True:
            mask[above[mask]] = True
            further = above[above]
            if np.array_equal(further, above):
                return mask
            above = further

    @cached_property
    def several(self) -> Mask:
        """(m,) which sums have two terms or more."""
        return self.meet(self.adds, self.products)

    def meet(self, numbers: Mask, products: Ints) -> Mask:
        """(m,) the sums in which two of some numbers, (e,), or products meet; and all above."""
        edges = self.edges
        holds = self.spread(np.append(edges.user[numbers], products))
        full = numbers | (self.joins & holds[edges.used])
        sides = np.bincount(edges.user[full], minlength=len(holds))
        return self.spread(np.flatnonzero((sides == 2) & self.is_sum))


def climb(above: Ints, weight: Floats | Ints, inner: Mask) -> tuple[Ints, Floats | Ints]:
    """(m,) for each inner node the first above it that is not, and what that multiplies it with.

    For any other node itself and 1. The loop does this for all of them, in rounds that double the
    distance covered: 5 -> 7 -> 8 -> 9 becomes 5 -> 8 -> 9 becomes 5 -> 9. For one node:

        root, coef = above[node], weight[node]
        while inner[root]:
            root, coef = above[root], coef * weight[root]
    """
    root: Ints = np.where(inner, above, np.arange(len(above), dtype=above.dtype))
    coef = np.where(inner, weight, np.ones(1, weight.dtype))
    has_weights = bool((coef != 1).any())
    below = named(above[inner], len(above))  # nothing is below the others, so they can wait
    for node in (np.flatnonzero(inner & below), np.flatnonzero(inner & ~below)):
        while len(node := node[inner[root[node]]]):
            at = root[node]
            if has_weights:
                coef[node] *= coef[at]
            root[node] = root[at]
    return root, coef


def named(nodes: Ints, m: int) -> Mask:
    """(m,) which nodes these are."""
    mask = np.zeros(m, bool)
    mask[nodes] = True
    return mask
