"""Kernels of sums of products that are matrix products, complete or with parts left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from ..arguments import Array, Shape
from ..flat import BATCHED, SHARED, Rows
from .calls import Calls, Source
from .fuse import Floats, Fused, Ints, Mask
from .kernels import Kernel, producers
from .layout import Layout
from .sums import Sum


@dataclass(eq=False)
class Grid(Sum):
    """C rows of u times A rows of v, k terms each: a matrix product.

    Where the batch has an axis, u (C, k) @ v (A, k, B), once for each of A; where it has none, v
    (A, k) @ u.T (k, C). Where both are batched, no matrix product fits, and einsum adds up.
    """

    coef: Floats

    kind = "matmul"

    @property
    def name(self) -> str:
        return "einsum" if self.operands[0].buffer == BATCHED else self.kind

    def parts(self, made_by: Ints) -> list[Kernel]:
        found = producers(self.v[:, 0], made_by, max(len(self.nodes), self.v.size))
        cells = self.nodes.reshape(len(self.v), -1)
        parts = [replace(self, nodes=cells[part].reshape(-1), v=self.v[part]) for part in found]
        return [*parts] or [self]

    def in_order(self, row: Ints, batched: Mask, one: int) -> Kernel:
        """The terms of a single sum may come in any order."""
        ones = self.v[0] == one
        if len(self.nodes) > 1 or (ones.any() and not ones.all()):  # it lies behind another row
            return self
        by = np.lexsort((row[self.v[0]], row[self.u[0]]))
        return replace(self, u=self.u[:, by], v=self.v[:, by], coef=self.coef[:, by])

    def rows(self, before_ones: Mask) -> Ints:
        """Row of u by row of u, if the product is batched.

        Then rows of v and samples form one axis, and two matrices are multiplied. If rows of ones
        had to lie in between, this would not work.
        """
        if self.buffer == SHARED or before_ones[self.nodes].any():
            return self.nodes
        return self.nodes.reshape(len(self.v), -1).T.reshape(-1)

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops = 2 * len(self.u) * self.v.size
        self.scratch = self.u.size + 2 * self.v.size
        self.out = layout.access(self.nodes.reshape(len(self.v), len(self.u)))
        self.operands = [layout.access(self.u), layout.access(self.v)]
        self.scaled = bool((self.coef != 1).any())
        # A sum of squares, such as a penalty, has one gradient, twice, and not two.
        self.square = not self.scaled and len(self.u) == 1 and np.array_equal(self.u, self.v)

    def _u(self, calls: Calls) -> Source:
        of_u = self.operands[0]
        u = calls.value(of_u, of_u.buffer)
        if not self.scaled:
            return u
        coef = self.coef.reshape(of_u.shape + (1,) * (u.array.ndim - 2))
        return calls.compute(np.multiply, u, calls.constant(coef))

    def _v(self, calls: Calls) -> Source:
        of_v = self.operands[1]
        return calls.value(of_v, of_v.buffer)

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        u, v = self._u(calls), self._v(calls)
        out, constant = calls.result(self.out.shape + calls.tail[self.buffer], u, v, out=out)
        if self.operands[0].buffer == BATCHED and v.array.ndim == 3:
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
        rules = (self._grad_square,) if self.square else (self._grad_u, self._grad_v)
        for access, rule in zip(self.operands, rules):
            if access.origin & wanted:
                shape = access.shape + calls.tail[access.buffer]
                calls.contribute(access, shape, partial(rule, calls, shape))

    def _grad_u(self, calls: Calls, shape: Shape, out: Array | None) -> Source:
        g, v = calls.grad(self.out), self._v(calls)
        out, constant = calls.result(shape, g, v, out=None if self.scaled else out)
        of_g, of_v = _columns(g.array), _columns(v.array)
        if out.ndim == 3:
            calls.call(partial(np.einsum, "acb,akb->ckb", g.array, v.array, out=out), constant)
        elif of_g is not None and of_v is not None:
            _dot(calls, of_g, of_v.T, out, constant)
        else:
            each = calls.scratch((len(v.array), *out.shape), constant)
            calls.call(partial(np.matmul, g.array, v.array.transpose(0, 2, 1), each), constant)
            calls.call(partial(np.add.reduce, each, 0, None, out), constant)
        if not self.scaled:
            return Source(out, constant)
        coef = self.coef.reshape(shape[:2] + (1,) * (out.ndim - 2))
        return calls.compute(np.multiply, Source(out, constant), calls.constant(coef))

    def _grad_square(self, calls: Calls, shape: Shape, out: Array | None) -> Source:
        g, u = calls.grad(self.out), self._u(calls)
        twice = calls.compute(np.add, g, g)
        return calls.compute(np.multiply, u, twice, out=out)

    def _grad_v(self, calls: Calls, shape: Shape, out: Array | None) -> Source:
        g, u = calls.grad(self.out), self._u(calls)
        out, constant = calls.result(shape, g, u, out=out)
        if u.array.ndim == 3:
            calls.call(partial(np.einsum, "acb,ckb->akb", g.array, u.array, out=out), constant)
        else:
            self._multiply(calls, u.array.T, g.array, out, constant)
        return Source(out, constant)


def _columns(x: Array) -> Array | None:
    """(A, n) or (A, n, B) as one matrix of n rows, if its memory is laid out like one."""
    if x.ndim == 2:
        return x.T
    a, n, b = x.shape
    if a > 1 and x.strides[0] != b * x.strides[2]:
        return None
    return x.transpose(1, 0, 2).reshape(n, a * b)


def _dot(calls: Calls, a: Array, b: Array, out: Array, constant: bool) -> None:
    """A matrix product: by np.dot, which is quicker to call, if the result is contiguous."""
    if out.T.flags.c_contiguous and not out.flags.c_contiguous:
        a, b, out = b.T, a.T, out.T
    calls.call(partial(np.dot if out.flags.c_contiguous else np.matmul, a, b, out), constant)


class Part:
    """Nodes at some places of an array, (H, ., .), that is 0 elsewhere."""

    def __init__(self, access: Rows, places: Ints | None, shape: Shape) -> None:
        self.access, self.places, self.shape = access, places, shape

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


@dataclass(eq=False)
class Stack(Sum):
    """H matrix products at once, v (A, k) @ u.T (k, C), some cells and some factors left out.

    Whatever is left out is 0, in arrays that last. So 0 may meet inf, which the sums themselves do
    not, and give nan; and where inf meets -inf, BLAS may miss the nan. Later kernels might hide
    that, so a result that is not finite is noted, and another sweep takes over.
    """

    cells: Ints  # (n,) which of the H * A * C sums are wanted; in u and v, -1 stands for 0

    kind = "stack"

    def locate(self, fused: Fused, layout: Layout) -> None:
        (h, c, k), a = self.u.shape, self.v.shape[1]
        self.flops = 2 * h * a * c * k
        self.scratch = h * (a * c + c * k + a * k)
        every = len(self.cells) == h * a * c
        self.out = layout.access(self.nodes.reshape(h, a, c) if every else self.nodes)
        self.result = Part(self.out, None if every else self.cells, (h, a, c))
        self.factors = [self._part(nodes, layout) for nodes in (self.u, self.v)]
        self.operands = [part.access for part in self.factors]
        parts = (self.result, *self.factors)
        self.lasting = sum(prod(x.shape) for x in parts if x.places is not None)

    def _part(self, nodes: Ints, layout: Layout) -> Part:
        there = np.flatnonzero(nodes.reshape(-1) >= 0)
        some = nodes.reshape(-1)[there]
        whole = len(some) == nodes.size
        access = layout.access(nodes if whole else some)
        return Part(access, None if whole else there, nodes.shape)

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
        u, v = (self._whole(calls, part) for part in self.factors)
        return self.result.chosen(calls, _stacked(calls, self.result, v, _turned(u), out), out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        u, v = (self._whole(calls, part) for part in self.factors)
        g = self.result.whole(calls, calls.grad(self.out))
        for factor, x, y in zip(self.factors, (_turned(g), g), (v, u)):
            if factor.access.origin & wanted:
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
    result = calls.result(part.shape + tail, x, y, out=out if part.places is None else None)
    arrays = (np.moveaxis(a, 3, 1) if tail else a for a in (x.array, y.array, result.array))
    calls.call(partial(np.matmul, *arrays), result.constant)
    return result
