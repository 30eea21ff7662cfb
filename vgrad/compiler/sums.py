"""What runs sums of products: term by term, run by run, or as matrix products.

All of them compute the sum of coef * u * v over the terms of each of n nodes. They differ in the
pattern of the terms, and so in how u and v are written down:

    chain      n sums of k terms, added one after the other            u, v, coef (n, k)
    segments   n sums of t terms in all, each from one of `starts`     u, v, coef (t,)
    grid       A * C sums of k terms, every row of v with every of u   u, coef (C, k), v (A, k)
    stack      H such grids, from which some sums and terms are missing  u (H, C, k), v (H, A, k)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from ..arguments import Array, Shape
from ..flat import Rows
from .calls import Calls, Source
from .fuse import Floats, Fused, Ints, Mask
from .kernels import Kernel, folded, narrow, order_of
from .layout import Layout


@dataclass(eq=False)
class Sum(Kernel):
    """Sums of products, whatever runs them."""

    u: Ints  # the one factor of each term,
    v: Ints  # and the other, or the node that is 1

    def reads(self) -> tuple[Ints, ...]:
        return self.u, self.v

    def title(self, one: int) -> str:
        lengths = self._lengths()
        low, high = int(lengths.min()), int(lengths.max())
        length = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        if length == "1":
            return f"{len(self.nodes):,} × product, {self.name}"
        what = "sum" if (self.u == one).all() or (self.v == one).all() else "dot"
        return f"{len(self.nodes):,} × {what} of {length}, {self.name}"

    def _lengths(self) -> Ints:
        """How many terms the sums have, or some of them that tell."""
        lengths: Ints = (self.u >= 0).sum(axis=-1)
        return lengths


@dataclass(eq=False)
class Chain(Sum):
    """Sums of few terms, added one after the other."""

    coef: Floats

    kind = "chain"

    def in_order(self, row: Ints, batched: Mask, one: int) -> Kernel:
        columns = [x[:, k] for k in range(self.u.shape[1]) for x in (self.v, self.u)]
        by = order_of(columns, self.buffer, row, batched)
        return replace(self, nodes=self.nodes[by], u=self.u[by], v=self.v[by], coef=self.coef[by])

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops, self.scratch = 2 * self.coef.size, 3 * len(self.nodes)
        columns = [x[:, j] for j in range(self.u.shape[1]) for x in (self.u, self.v)]
        given = [x for x in columns if (x != fused.one).any()]
        self.out, *self.operands = folded([*map(layout.access, (self.nodes, *given))])
        found = iter(self.operands)
        factors = [next(found) if (x != fused.one).any() else None for x in columns]
        # the coefficients of each term, and its factors; None for one that is 1
        self.terms = list(zip(self.coef.T, zip(factors[::2], factors[1::2])))

    def _coef(self, calls: Calls, coef: Floats) -> Source:
        """One number where they are equal, else a column."""
        if (coef == coef[0]).all():
            return calls.constant(coef[0])
        return calls.constant(coef.reshape(self.out.shape + (1,) * len(calls.tail[self.buffer])))

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        total = None
        for column, factors in self.terms:
            values = [calls.value(x, self.buffer) for x in factors if x]
            negative = bool((column == -1).all())
            if not negative and (column != 1).any():
                values.append(self._coef(calls, column))
            # Constants stay out of `out`, which the calls of every sweep overwrite.
            into = out if total is None and not all(x.constant for x in values) else None
            term = Signed(_product(calls, values, into) if values else calls.one, negative)
            total = term if total is None else _plus(calls, total, term, out)
        assert total is not None
        return calls.compute(np.negative, total.source, out=out) if total.negative else total.source

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.out.shape + calls.tail[self.buffer]
        for column, factors in self.terms:
            g = calls.grad(self.out)
            aims = [
                (x, other) for x, other in zip(factors, factors[::-1]) if x and x.origin & wanted
            ]
            if [other for _, other in aims] == [None]:  # a lone number: straight to its gradient
                scaled = partial(self._scaled, calls, column, g)
                calls.contribute(aims[0][0], shape, scaled)
            elif aims:
                g = self._scaled(calls, column, g, None)
                for access, other in aims:
                    values = [g, *([calls.value(other, self.buffer)] if other else [])]
                    calls.contribute(access, shape, partial(_product, calls, values))

    def _scaled(self, calls: Calls, column: Floats, g: Source, out: Array | None) -> Source:
        """The gradient times the coefficients of a term."""
        if (column == 1).all():
            return g
        if (column == -1).all():
            return calls.compute(np.negative, g, out=out)
        return calls.compute(np.multiply, g, self._coef(calls, column), out=out)


class Signed(NamedTuple):
    """A number, or with a minus in front of it that is still to be taken."""

    source: Source
    negative: bool


def _plus(calls: Calls, total: Signed, term: Signed, out: Array | None) -> Signed:
    """The two added up, in one call: -a - b is -(a + b), and -a + b is b - a."""
    (a, minus_a), (b, minus_b) = total, term
    out = None if a.constant and b.constant else out
    if minus_a == minus_b:
        return Signed(calls.compute(np.add, a, b, out=out), minus_a)
    first, second = (b, a) if minus_a else (a, b)
    return Signed(calls.compute(np.subtract, first, second, out=out), False)


def _product(calls: Calls, factors: list[Source], out: Array | None) -> Source:
    product = factors[0]
    for i, factor in enumerate(factors[1:], 2):
        product = calls.compute(
            np.multiply, product, factor, out=out if i == len(factors) else None
        )
    return product


@dataclass(eq=False)
class Segments(Sum):
    """Sums of many terms that are no grid: gather, multiply, reduce."""

    coef: Floats
    starts: Ints  # (n,) where the terms of each sum begin

    kind = "sum"

    def _lengths(self) -> Ints:
        return np.diff(self.starts, append=len(self.u))

    def in_order(self, row: Ints, batched: Mask, one: int) -> Kernel:
        """The sums in the order of the rows at which their terms begin."""
        first = np.where(self.u == one, self.v, self.u)[self.starts]
        order = np.argsort(row[first], kind="stable")
        lengths = self._lengths()[order]
        starts = np.cumsum(lengths) - lengths
        terms = np.repeat(self.starts[order] - starts, lengths) + np.arange(len(self.u))
        u, v, coef = self.u[terms], self.v[terms], self.coef[terms]
        return replace(self, nodes=self.nodes[order], u=u, v=v, coef=coef, starts=starts)

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops, self.scratch = 2 * self.coef.size, 5 * len(self.u)
        lengths = self._lengths()
        # (n, k) where the sums have one length, else (t,)
        self.even = bool((lengths == lengths[0]).all())
        self.shape: Shape = (len(lengths), int(lengths[0])) if self.even else (len(self.u),)
        self.owner = np.repeat(np.arange(len(lengths)), lengths)
        self.out = layout.access(self.nodes)
        self.factors = [
            narrow(layout.access(x.reshape(self.shape))) if (x != fused.one).any() else None
            for x in (self.u, self.v)
        ]
        self.operands = [x for x in self.factors if x]
        self.scaled = bool((self.coef != 1).any())

    def _values(self, calls: Calls, *factors: Rows | None) -> list[Source]:
        """The values of those that are not 1, and the coefficients."""
        values = [calls.value(x, self.buffer) for x in factors if x]
        if self.scaled:
            column = self.shape + (1,) * len(calls.tail[self.buffer])
            values.append(calls.constant(self.coef.reshape(column)))
        return values

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        values = self._values(calls, *self.factors)
        terms = _product(calls, values, None)
        tail = calls.tail[self.buffer]
        terms = terms._replace(array=np.broadcast_to(terms.array, self.shape + tail))
        if self.even:
            return calls.sum(terms, (1,), self.out.shape + tail, out)
        return calls.sum_spans(terms, self.starts, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.shape + calls.tail[self.buffer]
        g = calls.grad(self.out)
        g = g._replace(array=g.array[:, None]) if self.even else calls.take(g, self.owner)
        for factor, other in zip(self.factors, self.factors[::-1]):
            if factor and factor.origin & wanted:
                values = [g, *self._values(calls, other)]
                calls.contribute(factor, shape, partial(_spread, calls, values, shape))


def _spread(calls: Calls, factors: list[Source], shape: Shape, out: Array | None) -> Source:
    """The product, over all terms even where it is the same for several."""
    if len(factors) == 1:
        return factors[0]._replace(array=np.broadcast_to(factors[0].array, shape))
    return _product(calls, factors, out)
