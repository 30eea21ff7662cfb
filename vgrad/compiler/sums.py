"""What runs sums of products: term by term, run by run, or as matrix products."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array, Shape
from ..flat import BATCHED, Rows
from .calls import Calls, Source
from .fuse import Fused, Ints
from .kernels import Kernel, folded, narrow
from .schedule import Group, Schedule


class Factor(NamedTuple):
    """One of the two factors of terms, where it lies and what it comes from."""

    access: Rows
    origin: int


class Chain(Kernel):
    """Sums of few terms, added one after the other."""

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        self.name, self.flops = group.kind, 2 * group.coef.size
        self.scratch = 3 * len(group.nodes)
        columns = [x[:, j] for j in range(group.u.shape[1]) for x in (group.u, group.v)]
        given = [x for x in columns if (x != fused.one).any()]
        self.out, *self.operands = folded(list(map(self._access, [group.nodes, *given])))
        found = iter(map(Factor, self.operands, map(self._origin, given)))
        factors = [next(found) if (x != fused.one).any() else None for x in columns]
        # the coefficients of each term, and its factors; None for one that is 1
        self.terms = list(zip(group.coef.T, zip(factors[::2], factors[1::2])))

    def _coef(self, calls: Calls, coef: NDArray[np.float64]) -> Source:
        """One number where they are equal, else a column."""
        if (coef == coef[0]).all():
            return calls.constant(coef[0])
        return calls.constant(coef.reshape(self.out.shape + (1,) * len(calls.tail[self.buffer])))

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        total, negative = None, False
        for column, factors in self.terms:
            coef = self._coef(calls, column)
            values = [calls.value(x.access, self.buffer) for x in factors if x]
            subtract = bool((column == -1).all())
            if not subtract and (column != 1).any():
                values.append(coef)
            # What is constant stays out of `out`, which the calls of each sweep write over.
            into = out if total is None and not all(x.constant for x in values) else None
            term = _product(calls, values, into) if values else calls.one
            if total is None:
                total, negative = term, subtract
                continue
            into = None if total.constant and term.constant else out
            if negative and not subtract:
                total, negative = calls.compute(np.subtract, term, total, out=into), False
            else:
                combine = np.add if negative == subtract else np.subtract
                total = calls.compute(combine, total, term, out=into)
        assert total is not None
        return calls.compute(np.negative, total, out=out) if negative else total

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.out.shape + calls.tail[self.buffer]
        for column, factors in self.terms:
            g = calls.grad(self.out)
            aims = [
                (x.access, other)
                for x, other in zip(factors, factors[::-1])
                if x and x.origin & wanted
            ]
            if [other for _, other in aims] == [None]:  # a lone number: straight to its gradient
                scaled = partial(self._scaled, calls, column, g)
                calls.contribute(aims[0][0], shape, scaled)
            elif aims:
                g = self._scaled(calls, column, g, None)
                for access, other in aims:
                    values = [g, *([calls.value(other.access, self.buffer)] if other else [])]
                    calls.contribute(access, shape, partial(_product, calls, values))

    def _scaled(
        self, calls: Calls, column: NDArray[np.float64], g: Source, out: Array | None
    ) -> Source:
        """The gradient times the coefficients of a term."""
        if (column == 1).all():
            return g
        if (column == -1).all():
            return calls.compute(np.negative, g, out=out)
        return calls.compute(np.multiply, g, self._coef(calls, column), out=out)


def _product(calls: Calls, factors: list[Source], out: Array | None) -> Source:
    product = factors[0]
    for i, factor in enumerate(factors[1:], 2):
        product = calls.compute(
            np.multiply, product, factor, out=out if i == len(factors) else None
        )
    return product


class Segments(Kernel):
    """Sums of many terms that are no grid: gather, multiply, reduce."""

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        self.name, self.flops = group.kind, 2 * group.coef.size
        self.scratch = 5 * len(group.u)
        lengths = np.diff(group.starts, append=len(group.u))
        # (n, k) where the sums have one length, else (t,)
        self.even = bool((lengths == lengths[0]).all())
        self.shape: Shape = (len(lengths), int(lengths[0])) if self.even else (len(group.u),)
        self.owner = np.repeat(np.arange(len(lengths)), lengths)
        self.out = self._access(group.nodes)
        self.factors = [
            Factor(narrow(self._access(x.reshape(self.shape))), self._origin(x))
            if (x != fused.one).any()
            else None
            for x in (group.u, group.v)
        ]
        self.operands = [x.access for x in self.factors if x]
        self.coef = None if (group.coef == 1).all() else group.coef

    def _values(self, calls: Calls, *factors: Factor | None) -> list[Source]:
        """The values of those that are not 1, and the coefficients."""
        values = [calls.value(x.access, self.buffer) for x in factors if x]
        if self.coef is not None:
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
        return calls.sum_spans(terms, self.group.starts, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.shape + calls.tail[self.buffer]
        g = calls.grad(self.out)
        g = g._replace(array=g.array[:, None]) if self.even else calls.take(g, self.owner)
        for factor, other in zip(self.factors, self.factors[::-1]):
            if factor and factor.origin & wanted:
                values = [g, *self._values(calls, other)]
                calls.contribute(factor.access, shape, partial(_spread, calls, values, shape))


def _spread(calls: Calls, factors: list[Source], shape: Shape, out: Array | None) -> Source:
    """The product, over all terms even where it is the same for several."""
    if len(factors) == 1:
        return factors[0]._replace(array=np.broadcast_to(factors[0].array, shape))
    return _product(calls, factors, out)


class Grid(Kernel):
    """C rows of u times A rows of v, k terms each: a matrix product.

    Where the batch has an axis, u (C, k) @ v (A, k, B), once for each of A; where it has none, v
    (A, k) @ u.T (k, C). Where both are batched, no matrix product fits, and einsum adds up.
    """

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        self.flops = 2 * len(group.u) * group.v.size
        self.scratch = group.u.size + 2 * group.v.size
        self.out = self._access(group.nodes.reshape(len(group.v), len(group.u)))
        self.u, self.v = self._access(group.u), self._access(group.v)
        self.name = "einsum" if self.u.buffer == BATCHED else group.kind
        self.operands = [self.u, self.v]
        self.coef = None if (group.coef == 1).all() else group.coef
        # A sum of squares, such as a penalty, has one gradient, twice, and not two.
        self.square = self.coef is None and np.array_equal(group.u, group.v) and len(group.u) == 1

    def _u(self, calls: Calls) -> Source:
        u = calls.value(self.u, self.u.buffer)
        if self.coef is None:
            return u
        coef = self.coef.reshape(self.u.shape + (1,) * (u.array.ndim - 2))
        return calls.compute(np.multiply, u, calls.constant(coef))

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        u, v = self._u(calls), calls.value(self.v, self.v.buffer)
        constant = u.constant and v.constant
        if out is None:
            out = calls.scratch(self.out.shape + calls.tail[self.buffer], constant)
        if self.u.buffer == BATCHED and v.array.ndim == 3:
            calls.call(partial(np.einsum, "ckb,akb->acb", u.array, v.array, out=out), constant)
        else:
            self._multiply(calls, u.array, v.array, out, constant)
        return Source(out, constant)

    def _multiply(self, calls: Calls, u: Array, v: Array, out: Array, constant: bool) -> None:
        """u (C, k) times every matrix of v, (A, k, B) or (A, k)."""
        columns, results = _columns(v), _columns(out)
        if columns is not None and results is not None:
            _dot(calls, u, columns, results, constant)
        else:
            calls.call(partial(np.matmul, u, v, out), constant)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        if self.square and self._origin(self.group.u) & wanted:
            shape = self.u.shape + calls.tail[self.u.buffer]
            calls.contribute(self.u, shape, partial(self._grad_square, calls))
            return
        if self._origin(self.group.u) & wanted:
            shape = self.u.shape + calls.tail[self.u.buffer]
            calls.contribute(self.u, shape, partial(self._grad_u, calls))
        if self._origin(self.group.v) & wanted:
            shape = self.v.shape + calls.tail[self.v.buffer]
            calls.contribute(self.v, shape, partial(self._grad_v, calls))

    def _grad_u(self, calls: Calls, out: Array | None) -> Source:
        g, v = calls.grad(self.out), calls.value(self.v, self.v.buffer)
        constant = g.constant and v.constant
        if out is None or self.coef is not None:
            out = calls.scratch(self.u.shape + calls.tail[self.u.buffer], constant)
        of_g, of_v = _columns(g.array), _columns(v.array)
        if out.ndim == 3:
            calls.call(partial(np.einsum, "acb,akb->ckb", g.array, v.array, out=out), constant)
        elif of_g is not None and of_v is not None:
            _dot(calls, of_g, of_v.T, out, constant)
        else:
            each = calls.scratch((len(v.array), *out.shape), constant)
            calls.call(partial(np.matmul, g.array, v.array.transpose(0, 2, 1), each), constant)
            calls.call(partial(np.add.reduce, each, 0, None, out), constant)
        if self.coef is None:
            return Source(out, constant)
        coef = self.coef.reshape(self.u.shape + (1,) * (out.ndim - 2))
        return calls.compute(np.multiply, Source(out, constant), calls.constant(coef))

    def _grad_square(self, calls: Calls, out: Array | None) -> Source:
        g, u = calls.grad(self.out), calls.value(self.u, self.u.buffer)
        twice = calls.compute(np.add, g, g)
        return calls.compute(np.multiply, u, twice, out=out)

    def _grad_v(self, calls: Calls, out: Array | None) -> Source:
        g, u = calls.grad(self.out), self._u(calls)
        constant = g.constant and u.constant
        if out is None:
            out = calls.scratch(self.v.shape + calls.tail[self.v.buffer], constant)
        if u.array.ndim == 3:
            calls.call(partial(np.einsum, "acb,ckb->akb", g.array, u.array, out=out), constant)
        else:
            self._multiply(calls, u.array.T, g.array, out, constant)
        return Source(out, constant)


def _columns(x: Array) -> Array | None:
    """(A, n) or (A, n, B) as one matrix of n rows, if it lies in memory as that."""
    if x.ndim == 2:
        return x.T
    a, n, b = x.shape
    if a > 1 and x.strides[0] != b * x.strides[2]:
        return None
    return x.transpose(1, 0, 2).reshape(n, a * b)


def _dot(calls: Calls, a: Array, b: Array, out: Array, constant: bool) -> None:
    """A matrix product; np.dot is the quicker to call, but wants its result in one piece."""
    if out.T.flags.c_contiguous and not out.flags.c_contiguous:
        a, b, out = b.T, a.T, out.T
    calls.call(partial(np.dot if out.flags.c_contiguous else np.matmul, a, b, out), constant)


class Part:
    """Nodes at some places of an array, (H, ., .), that is 0 elsewhere."""

    def __init__(self, access: Rows, places: Ints | None, shape: Shape, origin: int) -> None:
        self.access, self.places, self.shape, self.origin = access, places, shape, origin

    def whole(self, calls: Calls, numbers: Source) -> Source:
        """The array with these numbers at their places."""
        if self.places is None:
            return numbers
        array = calls.zeros(self.shape + numbers.array.shape[1:])
        flat = array.reshape(-1, *numbers.array.shape[1:])
        calls.call(partial(flat.__setitem__, self.places, numbers.array), numbers.constant)
        return Source(array, numbers.constant)

    def chosen(self, calls: Calls, whole: Source, out: Array | None) -> Source:
        """The numbers of an array that are at the places."""
        if self.places is None:
            return whole
        flat = whole.array.reshape(-1, *whole.array.shape[3:])
        return calls.take(whole._replace(array=flat), self.places, out)


class Stack(Kernel):
    """H matrix products at once, v (A, k) @ u.T (k, C), some cells and some factors left out.

    What is left out is 0, in arrays that last. So 0 may meet inf where the sums do not, and give
    nan; and where inf meets -inf, BLAS may miss the nan. As what follows might hide that, a result
    that is not finite is noted, and another sweep takes over.
    """

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        (h, c, k), a = group.u.shape, group.v.shape[1]
        self.name, self.flops = group.kind, 2 * h * a * c * k
        self.scratch = h * (a * c + c * k + a * k)
        every = len(group.cells) == h * a * c
        self.out = self._access(group.nodes.reshape(h, a, c) if every else group.nodes)
        self.result = Part(self.out, None if every else group.cells, (h, a, c), self.origin)
        self.u, self.v = self._part(group.u), self._part(group.v)
        self.operands = [self.u.access, self.v.access]
        self.lasting = sum(
            prod(x.shape) for x in (self.result, self.u, self.v) if x.places is not None
        )

    def _part(self, nodes: Ints) -> Part:
        there = np.flatnonzero(nodes.reshape(-1) >= 0)
        some = nodes.reshape(-1)[there]
        whole = len(some) == nodes.size
        access = self._access(nodes if whole else some)
        return Part(access, None if whole else there, nodes.shape, self._origin(some))

    def forward(self, calls: Calls) -> None:
        super().forward(calls)
        calls.note(self.out)

    def _whole(self, calls: Calls, part: Part) -> Source:
        """The array of a factor; the adjoint finds what the forward has put together."""
        if part.places is None:
            return calls.value(part.access, self.buffer)
        if part not in calls.kept:
            calls.kept[part] = part.whole(calls, calls.value(part.access, self.buffer))
        return calls.kept[part]

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        u, v = self._whole(calls, self.u), self._whole(calls, self.v)
        return self.result.chosen(calls, _stacked(calls, self.result, v, _turned(u), out), out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        u, v = self._whole(calls, self.u), self._whole(calls, self.v)
        g = self.result.whole(calls, calls.grad(self.out))
        for factor, x, y in ((self.u, _turned(g), v), (self.v, g, u)):
            if factor.origin & wanted:
                shape = factor.access.shape + calls.tail[self.buffer]
                calls.contribute(factor.access, shape, partial(self._grad, calls, factor, x, y))

    def _grad(self, calls: Calls, factor: Part, x: Source, y: Source, out: Array | None) -> Source:
        return factor.chosen(calls, _stacked(calls, factor, x, y, out), out)


def _turned(x: Source) -> Source:
    """Every matrix of a stack transposed."""
    return x._replace(array=x.array.swapaxes(1, 2))


def _stacked(calls: Calls, part: Part, x: Source, y: Source, out: Array | None) -> Source:
    """x @ y for every matrix of a stack, and every sample, into `out` if that is the whole of it.

    To have matmul step over the samples, which lie next to each other, takes a half of einsum's
    time, and copies nothing.
    """
    tail = x.array.shape[3:]
    constant = x.constant and y.constant
    whole = out if part.places is None and out is not None else None
    if whole is None:
        whole = calls.scratch(part.shape + tail, constant)
    arrays = (np.moveaxis(a, 3, 1) if tail else a for a in (x.array, y.array, whole))
    calls.call(partial(np.matmul, *arrays), constant)
    return Source(whole, constant)
