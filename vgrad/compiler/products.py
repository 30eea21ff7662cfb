"""Kernels of sums of products that are matrix products, complete or with parts left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np

from ..arguments import Array, Shape
from ..flat import BATCHED, SHARED
from .arithmetic import Source
from .calls import Calls
from .fuse import Fused, Ints, Mask
from .kernels import Kernel, Links, are_same, producers
from .layout import Layout
from .sums import Sum


@dataclass(eq=False)
class Grid(Sum):
    """C rows of u times A rows of v, k terms each: a matrix product.

    Where the batch has an axis, u (C, k) @ v (A, k, B), once for each of A; where it has none, v
    (A, k) @ u.T (k, C). Where both are batched, no matrix product fits, and einsum adds up.
    """

    keeps_order = False

    def is_watched(self, fused: Fused) -> bool:
        return not fused.one_sign[self.nodes].all()

    def parts(self, links: Links, layout: Layout) -> list[Kernel]:
        found = producers(self.v[:, 0], links.made_by, max(len(self.nodes), self.v.size))
        cells = self.nodes.reshape(len(self.v), -1)
        parts = [replace(self, nodes=cells[part].reshape(-1), v=self.v[part]) for part in found]
        return [*parts] or [self]

    def in_order(self, layout: Layout) -> Kernel:
        """The terms of a single sum may come in any order."""
        ones = self.v[0] == layout.fused.one
        if len(self.nodes) > 1 or (ones.any() and not ones.all()):  # a row of ones behind another
            return self
        by = np.lexsort((layout.row[self.v[0]], layout.row[self.u[0]]))
        return replace(self, u=self.u[:, by], v=self.v[:, by], coef=self.coef[:, by])

    def row_order(self, before_ones: Mask) -> Ints:
        """Row of u by row of u, if the product is batched.

        Then rows of v and samples form one axis, and two matrices are multiplied. With rows of ones
        in between, this would not work.
        """
        if self.buffer == SHARED or before_ones[self.nodes].any():
            return self.nodes
        return self.nodes.reshape(len(self.v), -1).T.reshape(-1)

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops = 2 * len(self.u) * self.v.size
        self.scratch = self.u.size + 2 * self.v.size
        self.out = layout.rows(self.nodes.reshape(len(self.v), len(self.u)))
        self.operands = [layout.rows(self.u), layout.rows(self.v)]
        self.name = "einsum" if self.operands[0].buffer == BATCHED else "matmul"
        self.scaled = bool((self.coef != 1).any())
        # A sum of squares, such as a penalty, has one gradient, twice, and not two.
        self.square = not self.scaled and len(self.u) == 1 and are_same(self.operands)

    def _u(self, calls: Calls) -> Source:
        return self._scaled(calls, calls.value(self.operands[0]))

    def _scaled(self, calls: Calls, x: Source) -> Source:
        """x, of the shape of u, times the coefficients."""
        if not self.scaled:
            return x
        coef = self.coef.reshape(self.coef.shape + (1,) * (x.array.ndim - 2))
        return calls.compute(np.multiply, x, calls.constant(coef))

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        shape = self.out.shape + calls.tail[self.buffer]
        return _multiplied(calls, self._u(calls), calls.value(self.operands[1]), shape, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        rules = (self._grad_square,) if self.square else (self._grad_u, self._grad_v)
        for x, rule in zip(self.operands, rules):
            if x.origin & wanted:
                shape = x.shape + calls.tail[x.buffer]
                calls.contribute(x, shape, partial(rule, calls, shape))

    def _grad_u(self, calls: Calls, shape: Shape, out: Array | None) -> Source:
        g, v = calls.grad(self.out), calls.value(self.operands[1])
        result = out, constant = calls.result(shape, g, v, out=None if self.scaled else out)
        of_g, of_v = _columns(g.array), _columns(v.array)
        if out.ndim == 3:
            calls.call(partial(np.einsum, "acb,akb->ckb", g.array, v.array, out=out), constant)
        elif of_g is not None and of_v is not None:
            _dot(calls, of_g, of_v.T, out, constant)
        else:
            each = calls.scratch((len(v.array), *out.shape), constant)
            calls.call(partial(np.matmul, g.array, v.array.transpose(0, 2, 1), each), constant)
            calls.call(partial(np.add.reduce, each, 0, None, out), constant)
        return self._scaled(calls, result)

    def _grad_square(self, calls: Calls, shape: Shape, out: Array | None) -> Source:
        g, u = calls.grad(self.out), self._u(calls)
        twice = calls.compute(np.add, g, g)
        return calls.compute(np.multiply, u, twice, out=out)

    def _grad_v(self, calls: Calls, shape: Shape, out: Array | None) -> Source:
        u = self._u(calls)
        turned = u._replace(array=u.array.swapaxes(0, 1))
        return _multiplied(calls, turned, calls.grad(self.out), shape, out)


def _multiplied(calls: Calls, x: Source, y: Source, shape: Shape, out: Array | None) -> Source:
    """x (c, k) times every matrix of y, (a, k, B) or (a, k); with samples of its own, by einsum."""
    result = calls.result(shape, x, y, out=out)
    columns, results = _columns(y.array), _columns(result.array)
    if x.array.ndim == 3:
        einsum = partial(np.einsum, "ckb,akb->acb", x.array, y.array, out=result.array)
        calls.call(einsum, result.constant)
    elif columns is not None and results is not None:
        _dot(calls, x.array, columns, results, result.constant)
    else:
        calls.call(partial(np.matmul, x.array, y.array, result.array), result.constant)
    return result


def _columns(x: Array) -> Array | None:
    """(A, n) or (A, n, B) as one matrix of n rows, if its memory is laid out like one."""
    if x.ndim == 2:
        return x.T
    a, n, b = x.shape
    if a > 1 and x.strides[0] != b * x.strides[2]:
        return None
    return x.transpose(1, 0, 2).reshape(n, a * b)


def _dot(calls: Calls, a: Array, b: Array, out: Array, constant: bool) -> None:
    """A matrix product: by a.dot, which is quicker to call, if the result is contiguous."""
    if out.T.flags.c_contiguous and not out.flags.c_contiguous:
        a, b, out = b.T, a.T, out.T
    contiguous = out.flags.c_contiguous
    calls.call(partial(a.dot, b, out) if contiguous else partial(np.matmul, a, b, out), constant)


class Part:
    """Nodes at some places of an array, (H, ., .), that is 0 elsewhere."""

    def __init__(self, layout: Layout, nodes: Ints, places: Ints, shape: Shape) -> None:
        is_whole = len(places) == prod(shape)
        self.rows = layout.rows(nodes.reshape(shape) if is_whole else nodes)
        self.places, self.shape = None if is_whole else places, shape  # None if there is no 0

    def whole(self, calls: Calls, numbers: Source) -> Source:
        """The array with these numbers at their places."""
        if self.places is None:
            return numbers
        array = calls.lasting(self.shape + numbers.array.shape[1:], 0.0)
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
    not, and give nan; and where inf meets -inf, BLAS may miss the nan.
    """

    cells: Ints  # (n,) which of the H * A * C sums are wanted; in u and v, -1 stands for 0

    name = "stack"
    keeps_order = False

    def locate(self, fused: Fused, layout: Layout) -> None:
        (h, c, k), a = self.u.shape, self.v.shape[1]
        self.flops = 2 * h * a * c * k
        self.result = Part(layout, self.nodes, self.cells, (h, a, c))
        self.factors = [
            Part(layout, x[x >= 0], np.flatnonzero(x >= 0), x.shape) for x in (self.u, self.v)
        ]
        self.out, self.operands = self.result.rows, [part.rows for part in self.factors]
        own = [x for x in (self.result, *self.factors) if x.rows.buffer == self.buffer]
        self.scratch = sum(prod(x.shape) for x in own)
        self.lasting = sum(prod(x.shape) for x in own if x.places is not None)

    def _whole(self, calls: Calls, part: Part) -> Source:
        """The array of a factor; the adjoint finds what the forward has put together."""
        if part.places is None:
            return calls.value(part.rows)
        if part not in calls.kept:
            calls.kept[part] = part.whole(calls, calls.value(part.rows))
        return calls.kept[part]

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        u, v = (self._whole(calls, part) for part in self.factors)
        return _stacked(calls, self.result, v, _turned(u), out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        u, v = (self._whole(calls, part) for part in self.factors)
        g = self.result.whole(calls, calls.grad(self.out))
        for factor, x, y in zip(self.factors, (_turned(g), g), (v, u)):
            if factor.rows.origin & wanted:
                shape = factor.rows.shape + calls.tail[factor.rows.buffer]
                calls.contribute(factor.rows, shape, partial(_stacked, calls, factor, x, y))


def _turned(x: Source) -> Source:
    """Every matrix of a stack transposed."""
    return x._replace(array=x.array.swapaxes(1, 2))


def _stacked(calls: Calls, part: Part, x: Source, y: Source, out: Array | None) -> Source:
    """The numbers of a part of x @ y, (H, m, k) @ (H, k, n), for every matrix of a stack.

    Samples (B,) of either are on another axis behind these. If both have them, each sample has its
    own product, or where the part has none, their sum is wanted.
    """
    of_x, of_y = x.array.shape[3:], y.array.shape[3:]
    tail = calls.tail[part.rows.buffer]
    if of_x and of_y and not tail:
        return part.chosen(calls, _summed(calls, part, x, y), out)
    whole = calls.result(part.shape + tail, x, y, out=out if part.places is None else None)
    a, b, result = x.array, y.array, whole.array
    if of_x and of_y:  # to step over samples, which lie next to each other, takes half of einsum's
        a, b, result = (np.moveaxis(z, 3, 1) for z in (a, b, result))  # time, and copies nothing
    elif of_y:  # a column of y with all samples is a matrix
        a, b, result = a[:, None], b.swapaxes(1, 2), result.swapaxes(1, 2)
    elif of_x:
        a, b = b.swapaxes(1, 2)[:, None], a
    calls.call(partial(np.matmul, a, b, result), whole.constant)
    return part.chosen(calls, whole, out)


def _summed(calls: Calls, part: Part, x: Source, y: Source) -> Source:
    """The sum of x @ y over the samples."""
    h, m, n = part.shape
    k = x.array.shape[2]
    each = calls.result((h, k, m, n), x, y)
    a, b = x.array.swapaxes(1, 2), y.array.swapaxes(2, 3)
    calls.call(partial(np.matmul, a, b, each.array), each.constant)
    if k == 1:
        return each._replace(array=each.array[:, 0])
    return calls.sum(each, (1,), part.shape)
