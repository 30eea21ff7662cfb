"""What runs a group: a forward, and an adjoint that carries its gradient to its operands.

Each adds its NumPy calls to a `Calls`, once for every width of batch; nothing here runs in a sweep.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ops
from .calls import Access, Array, Calls, Source, take
from .fuse import Fused, Ints
from .graph import BATCHED, FROM_INPUTS, Shape
from .rules import add_op, add_rule, recorded
from .schedule import CHAIN, GRID, MAP, SEGMENTS, Group, Schedule


class Kernel:
    """A group, and where its results and operands lie."""

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        self.group = group
        self.buffer = group.buffer
        self._fused, self._schedule = fused, schedule
        self.origin = self._origin(group.nodes)

    def forward(self, calls: Calls) -> None:
        """Add the calls that compute the group's values."""
        calls.store(self.out, partial(self._produce, calls))

    def adjoint(self, calls: Calls, wanted: int) -> None:
        """Add the calls that take its gradient to the operands that come from what is wanted."""
        raise NotImplementedError

    name: str
    flops: int  # of a forward, per sample where it is batched
    scratch: int  # about how many numbers it holds besides the buffers, per sample
    out: Access
    operands: list[Access]

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        raise NotImplementedError

    def _access(self, nodes: Ints) -> Access:
        """Where these nodes lie, along every axis on which they differ."""
        batched = self._fused.origin[nodes] & FROM_INPUTS
        buffer = int(batched.max())
        rows = self._schedule.row[nodes]
        ones = nodes == self._fused.one
        assert (ones | (batched == buffer)).all(), "rows of two buffers make no array"
        if ones.any():  # a row of ones that lies behind the node before, or any other
            before = np.roll(nodes, 1, axis=-1)
            behind = self._schedule.follows[before] & (before != self._fused.one)
            other = self._schedule.ones[BATCHED][-1] if buffer == BATCHED else rows
            rows = np.where(ones, np.where(behind, self._schedule.row[before] + 1, other), rows)
        return Access(buffer, rows)

    def _origin(self, nodes: Ints) -> int:
        return int(np.bitwise_or.reduce(self._fused.origin[nodes], axis=None))


# --- maps ----------------------------------------------------------------------------------------


class Map(Kernel):
    """One op, element by element."""

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        self.op = ops.OPS[group.op]
        self.name, self.flops = self.op.name, len(group.nodes)
        self.scratch = 3 * len(group.nodes)
        accesses = _folded([self._access(nodes) for nodes in (group.nodes, *group.operands)])
        self.out, *self.operands = accesses
        self.numbers: tuple[float | None, ...] = (None,) * len(self.operands)
        if self.op.static is not None:
            operand = group.operands[self.op.static]
            if fused.op[operand[0]] == ops.const.code:
                number = float(fused.value[operand[0]])
                self.numbers = tuple(
                    number if k == self.op.static else None for k in range(self.op.arity)
                )

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        operands = [calls.value(x, self.buffer) for x in self.operands]
        return add_op(calls, self.op, self.numbers, operands, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.out.shape + calls.tail[self.buffer]
        for k, (rule, nodes) in enumerate(zip(self.op.vjp, self.group.operands)):
            if rule is not None and self._origin(nodes) & wanted:
                calls.contribute(self.operands[k], shape, partial(self._vjp, calls, k))

    def _vjp(self, calls: Calls, k: int, out: Array | None) -> Source:
        operands = [calls.value(x, self.buffer) for x in self.operands]
        own = calls.value(self.out, self.buffer)
        g = calls.grad(self.out)
        rule = recorded(self.op.vjp[k], 2, self.numbers)
        result = add_rule(calls, rule, [g, own, *operands], out, masks=not calls.exact)
        if calls.exact and result.array is not g.array:
            zero = calls.compute(np.equal, g, calls.zero)
            whole = np.broadcast_to(result.array, g.array.shape)
            return calls.compute(_choose_zero, zero, result._replace(array=whole), out=out)
        return result


def _choose_zero(zero: Array, gradient: Array, out: Array) -> None:
    if out is not gradient:
        np.copyto(out, gradient)
    np.copyto(out, 0.0, where=zero)


def _folded(accesses: list[Access]) -> list[Access]:
    """The same rows in the shape, (n,) or (a, n / a), that makes most of them views."""
    for access in accesses:
        if access.strides is None:
            step = np.diff(access.rows)
            period = int(np.flatnonzero(step != step[0])[0]) + 1
            if len(access.rows) % period == 0:
                accesses = [Access(x.buffer, x.rows.reshape(-1, period)) for x in accesses]
                break
    out, *operands = accesses
    return [out, *map(_narrow, operands)]


def _narrow(access: Access) -> Access:
    """The same with a length of 1 along axes on which nothing changes."""
    flat = [step == 0 and size > 1 for step, size in zip(access.strides or (), access.shape)]
    if not any(flat):
        return access
    kept = tuple(slice(0, 1) if same else slice(None) for same in flat)
    return Access(access.buffer, access.rows[kept])


# --- sums of products ----------------------------------------------------------------------------


class Factor(NamedTuple):
    """One of the two factors of terms, where it lies and what it comes from."""

    access: Access
    origin: int


class Chain(Kernel):
    """Sums of few terms, added one after the other."""

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        self.name, self.flops = group.kind, 2 * group.coef.size
        self.scratch = 3 * len(group.nodes)
        columns = [x[:, j] for j in range(group.u.shape[1]) for x in (group.u, group.v)]
        given = [x for x in columns if (x != fused.one).any()]
        self.out, *self.operands = _folded(list(map(self._access, [group.nodes, *given])))
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
            Factor(_narrow(self._access(x.reshape(self.shape))), self._origin(x))
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
        reduce = partial(_sum_terms) if self.even else partial(_sum_runs, starts=self.group.starts)
        return calls.into(reduce, self.out.shape + tail, terms, out=out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.shape + calls.tail[self.buffer]
        g = calls.grad(self.out)
        if self.even:
            g = g._replace(array=g.array[:, None])
        else:
            g = calls.into(partial(take, rows=self.owner), shape, g)
        for factor, other in zip(self.factors, self.factors[::-1]):
            if factor and factor.origin & wanted:
                values = [g, *self._values(calls, other)]
                calls.contribute(factor.access, shape, partial(_spread, calls, values, shape))


def _spread(calls: Calls, factors: list[Source], shape: Shape, out: Array | None) -> Source:
    """The product, over all terms even where it is the same for several."""
    if len(factors) == 1:
        return factors[0]._replace(array=np.broadcast_to(factors[0].array, shape))
    return _product(calls, factors, out)


def _sum_terms(terms: Array, out: Array) -> None:
    np.add.reduce(terms, axis=1, out=out)


def _sum_runs(terms: Array, out: Array, starts: Ints) -> None:
    np.add.reduceat(terms, starts, 0, None, out)


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
        if v.array.ndim == 2:
            _dot(calls, v.array, u.array.T, out, constant)
        elif u.array.ndim == 3:
            calls.call(partial(np.einsum, "ckb,akb->acb", u.array, v.array, out=out), constant)
        elif len(v.array) == 1:
            _dot(calls, u.array, v.array[0], out[0], constant)
        else:
            calls.call(partial(np.matmul, u.array, v.array, out), constant)
        return Source(out, constant)

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
        if v.array.ndim == 2:
            _dot(calls, g.array.T, v.array, out, constant)
        elif out.ndim == 3:
            calls.call(partial(np.einsum, "acb,akb->ckb", g.array, v.array, out=out), constant)
        elif len(v.array) == 1:
            _dot(calls, g.array[0], v.array[0].T, out, constant)
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
        if out.ndim == 2:
            _dot(calls, g.array, u.array, out, constant)
        elif u.array.ndim == 3:
            calls.call(partial(np.einsum, "acb,ckb->akb", g.array, u.array, out=out), constant)
        elif len(out) == 1:
            _dot(calls, u.array.T, g.array[0], out[0], constant)
        else:
            calls.call(partial(np.matmul, u.array.T, g.array, out), constant)
        return Source(out, constant)


def _dot(calls: Calls, a: Array, b: Array, out: Array, constant: bool) -> None:
    """A matrix product; np.dot is the quicker to call, but wants its result in one piece."""
    calls.call(partial(np.dot if out.flags.c_contiguous else np.matmul, a, b, out), constant)


KERNELS: dict[str, type[Kernel]] = {MAP: Map, CHAIN: Chain, SEGMENTS: Segments, GRID: Grid}
