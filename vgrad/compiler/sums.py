"""Kernels of sums of products: term by term, span by span, or as matrix products.

All of them compute the sum of coef * u * v over the terms of each of n nodes. They differ in the
pattern of the terms, and so in how u and v are written down:

    chain      n sums of k terms, added one after the other            u, v, coef (n, k)
    segments   n sums of t terms in all, each from one of `starts`     u, v, coef (t,)
    grid       A * C sums of k terms, every row of v with every of u   u, coef (C, k), v (A, k)
    stack      H such grids, from which some sums and terms are missing  u (H, C, k), v (H, A, k)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import chain, islice
from math import log2
from typing import ClassVar

import numpy as np

from ..arguments import Array, Shape
from ..flat import Rows
from .arithmetic import Source
from .calls import Calls
from .fuse import Floats, Fused, Ints, Mask
from .kernels import Kernel, are_same, folded, narrow
from .layout import Layout

SHORT = 32  # terms of the longest of some sums; those are added up turn by turn

# A number, and whether a minus in front of it is still to be taken.
Signed = tuple[Source, bool]


@dataclass(eq=False)
class Sum(Kernel):
    """Sums of products, in any of these ways."""

    u: Ints  # the one factor of each term,
    v: Ints  # and the other, or the node that is 1
    coef: Floats

    keeps_order: ClassVar[bool] = True  # whether terms are multiplied and added one by one

    def reads(self) -> tuple[Ints, ...]:
        return self.u, self.v

    def title(self, one: int) -> str:
        lengths = self._lengths()
        length = " to ".join(f"{n:,}" for n in sorted({lengths.min(), lengths.max()}))
        kind = "sum" if (self.u == one).all() or (self.v == one).all() else "dot"
        what = "product" if length == "1" else f"{kind} of {length}"
        return f"{len(self.nodes):,} × {what}, {self.name}"

    def is_exact(self, fused: Fused) -> bool:
        return self.keeps_order and bool(fused.exact[self.nodes].all())

    def exponent(self, bound: Floats) -> float:
        factors = [float(bound[x[x >= 0]].max()) for x in self.reads()]
        largest = float(np.abs(self.coef).max())
        return sum(factors) + log2(largest) + log2(self._lengths().max())

    def saved(self, wanted: int) -> list[Rows]:
        u, v = self.operands  # each is read for the other's gradient
        return [x for x, other in ((u, v), (v, u)) if other.origin & wanted]

    def _lengths(self) -> Ints:
        """How many terms the sums have; those of a grid or stack, one number for each row of u."""
        lengths: Ints = np.count_nonzero(self.u >= 0, axis=-1)
        return lengths


@dataclass(eq=False)
class Chain(Sum):
    """Sums of few terms, added one after the other."""

    name = "chain"

    @property
    def k(self) -> int:
        """The length of the sums."""
        return int(self.u.shape[1])

    def some(self, by: Ints | Mask) -> Chain:
        """These of the sums, in this order."""
        return replace(self, nodes=self.nodes[by], u=self.u[by], v=self.v[by], coef=self.coef[by])

    def in_order(self, layout: Layout) -> Kernel:
        return self.some(layout.order([*chain(*zip(self.v.T, self.u.T))], self.buffer))

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops, self.scratch = 2 * self.coef.size, 3 * len(self.nodes)
        given = [[x for x in pair if (x != fused.one).any()] for pair in zip(self.u.T, self.v.T)]
        self.out, *self.operands = folded([*map(layout.rows, (self.nodes, *chain(*given)))])
        found = iter(self.operands)
        # the coefficients of each term, and those of its factors that are not 1
        self.terms = [(coef, [*islice(found, len(x))]) for coef, x in zip(self.coef.T, given)]

    def saved(self, wanted: int) -> list[Rows]:
        return [x for _, factors in self.terms if len(factors) > 1 for x in factors]

    def linear(self, wanted: int) -> list[Rows]:
        return [factors[0] for _, factors in self.terms if len(factors) == 1]

    def _coef(self, calls: Calls, coef: Floats) -> Source:
        """One number if they are all equal, else a column."""
        if (coef == coef[0]).all():
            return calls.constant(coef[0])
        return calls.constant(coef.reshape(self.out.shape + (1,) * len(calls.tail[self.buffer])))

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        total = None
        for column, factors in self.terms:
            values = [calls.value(x, self.buffer) for x in factors]
            negative = bool((column == -1).all())
            if not negative and (column != 1).any():
                values.append(self._coef(calls, column))
            # Constants stay out of `out`, which the calls of every sweep overwrite.
            into = out if total is None and not all(x.constant for x in values) else None
            term = _product(calls, values, into) if values else calls.one, negative
            total = term if total is None else _plus(calls, total, term, out)
        assert total is not None
        result, negative = total
        return calls.compute(np.negative, result, out=out) if negative else result

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape, g = self.out.shape + calls.tail[self.buffer], calls.grad(self.out)
        for column, factors in reversed(self.terms):  # as the scalar engine does
            aims = [x for x in factors if x.origin & wanted]
            negative = bool((column == -1).all())
            scaled = partial(self._scaled, calls, column, g)
            if len(factors) == len(aims) == 1:  # a lone number: straight to its gradient
                calls.contribute(aims[0], shape, scaled, negative)
            elif aims:
                values = [scaled(None)]
                if are_same(factors):
                    values, aims = [calls.compute(np.add, *values, *values)], aims[:1]
                for x in aims:
                    others = [calls.value(y, self.buffer) for y in factors if y is not x]
                    product = partial(_product, calls, values + others)
                    calls.contribute(x, shape, product, negative)

    def _scaled(self, calls: Calls, column: Floats, g: Source, out: Array | None) -> Source:
        """The gradient times the coefficients of a term, without a sign that all have."""
        if (np.abs(column) == 1).all() and (column == column[0]).all():
            return g
        return calls.compute(np.multiply, g, self._coef(calls, column), out=out)


def _plus(calls: Calls, total: Signed, term: Signed, out: Array | None) -> Signed:
    """The two added up, in one call: -a - b is -(a + b), and -a + b is b - a."""
    (a, minus_a), (b, minus_b) = total, term
    out = None if a.constant and b.constant else out
    if minus_a == minus_b:
        return calls.compute(np.add, a, b, out=out), minus_a
    first, second = (b, a) if minus_a else (a, b)
    return calls.compute(np.subtract, first, second, out=out), False


def _product(calls: Calls, factors: list[Source], out: Array | None) -> Source:
    *others, last = factors
    if not others:
        return last
    product = reduce(partial(calls.compute, np.multiply), others)
    return calls.compute(np.multiply, product, last, out=out)


@dataclass(eq=False)
class Segments(Sum):
    """Sums of many terms that are no grid: gather, multiply, add up in order.

    Sums of one length are the rows of an array, (n, k). Of others, if they are short, all first
    terms come first, then the second ones, and so on, the longest sums before the shorter:

        a0 b0 c0   a1 b1   a2         a0 b0 c0  +  a1 b1  +  a2

    If they are long, that would take many calls, and zeros fill up the rows of an array instead.
    """

    starts: Ints  # (n,) where the terms of each sum begin

    name = "sum"

    def _lengths(self) -> Ints:
        return np.diff(self.starts, append=len(self.u))

    def in_order(self, layout: Layout) -> Kernel:
        """The sums in the order of the rows at which their terms begin; or the longest first."""
        lengths, is_one = self._lengths(), self.u == layout.fused.one
        first = layout.row[np.where(is_one, self.v, self.u)[self.starts]]
        by_length = -lengths if lengths.max() <= SHORT else np.zeros_like(lengths)
        order = np.lexsort((first, by_length))
        rank = np.argsort(order)
        terms = np.argsort(np.repeat(rank, lengths), kind="stable")
        starts = np.cumsum(lengths[order]) - lengths[order]
        u, v, coef = self.u[terms], self.v[terms], self.coef[terms]
        return replace(self, nodes=self.nodes[order], u=u, v=v, coef=coef, starts=starts)

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops, self.scratch = 2 * self.coef.size, 5 * len(self.u)
        lengths = self._lengths()
        n, k, t = len(lengths), int(lengths.max()), len(self.u)
        owner = np.repeat(np.arange(n), lengths)
        place = np.arange(t) - self.starts[owner]
        self.turns: list[tuple[int, int]] = []  # where all first terms begin and end, and so on
        by = np.arange(t)
        self.even = bool((lengths == k).all())
        if not self.even and k <= SHORT:
            by = np.lexsort((owner, place))
            ends = np.cumsum(np.bincount(place)).tolist()
            self.turns = list(zip([0, *ends], ends))
        self.owner, self.places = owner[by], (owner * k + place)[by]  # of the terms in (n, k)
        self.padded: Shape = (n, k)
        self.lasting = 0 if self.even or self.turns else n * k
        self.shape: Shape = (n, k) if self.even else (t,)
        self.out = layout.rows(self.nodes)
        factors = [x[by].reshape(self.shape) for x in (self.u, self.v) if (x != fused.one).any()]
        self.operands = [narrow(layout.rows(x)) for x in factors]
        self.scaled = bool((self.coef != 1).any())
        self.coefs = self.coef[by].reshape(self.shape)

    def saved(self, wanted: int) -> list[Rows]:
        return self.operands if len(self.operands) > 1 else []

    def linear(self, wanted: int) -> list[Rows]:
        return self.operands if len(self.operands) == 1 else []

    def _values(self, calls: Calls, factors: list[Rows]) -> list[Source]:
        """The values of these factors, and the coefficients."""
        values = [calls.value(x, self.buffer) for x in factors]
        if self.scaled:
            column = self.shape + (1,) * len(calls.tail[self.buffer])
            values.append(calls.constant(self.coefs.reshape(column)))
        return values

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        tail = calls.tail[self.buffer]
        values = self._values(calls, self.operands) or [calls.one]
        terms = _product(calls, values, None)
        terms = terms._replace(array=np.broadcast_to(terms.array, self.shape + tail))
        if self.turns:
            return calls.sum_in_turns(terms, self.turns, out)
        if not self.even:
            array = calls.lasting(self.padded + tail, -0.0)
            flat = array.reshape(-1, *tail)
            calls.call(partial(flat.__setitem__, self.places, terms.array), terms.constant)
            terms = terms._replace(array=array)
        return calls.sum_in_order(terms, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.shape + calls.tail[self.buffer]
        g = calls.grad(self.out)
        g = g._replace(array=g.array[:, None]) if self.even else calls.take(g, self.owner)
        aims = [x for x in self.operands if x.origin & wanted]
        if are_same(self.operands):
            g, aims = calls.compute(np.add, g, g), aims[:1]
        for x in aims:
            others = self._values(calls, [y for y in self.operands if y is not x])
            calls.contribute(x, shape, partial(_product, calls, [g, *others]))
