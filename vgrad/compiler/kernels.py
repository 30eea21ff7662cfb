"""What runs a group: a forward, and an adjoint that carries its gradient to its operands.

Each adds its NumPy calls to a `Calls`, once for every width of batch; nothing here runs in a sweep.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import ops
from ..arguments import Array
from ..flat import BATCHED, FROM_INPUTS, Rows, recorded
from .calls import Calls, Source
from .fuse import Fused, Ints
from .lowering import add_op, add_rule
from .schedule import Group, Schedule


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
    lasting: int = 0  # and how many that no other kernel may use
    out: Rows
    operands: list[Rows]

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        raise NotImplementedError

    def _access(self, nodes: Ints) -> Rows:
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
        return Rows(buffer, rows)

    def _origin(self, nodes: Ints) -> int:
        return int(np.bitwise_or.reduce(self._fused.origin[nodes], axis=None))


class Map(Kernel):
    """One op, element by element."""

    def __init__(self, group: Group, fused: Fused, schedule: Schedule) -> None:
        super().__init__(group, fused, schedule)
        self.op = ops.OPS[group.op]
        self.name, self.flops = self.op.name, len(group.nodes)
        self.scratch = 3 * len(group.nodes)
        accesses = folded([self._access(nodes) for nodes in (group.nodes, *group.operands)])
        self.out, *self.operands = accesses
        self.number: float | None = None  # of the static operand, if that is a constant
        if self.op.static is not None:
            operand = group.operands[self.op.static][0]
            if fused.op[operand] == ops.const.code:
                self.number = float(fused.value[operand])

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        operands = [calls.value(x, self.buffer) for x in self.operands]
        return add_op(calls, self.op, self.number, operands, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.out.shape + calls.tail[self.buffer]
        for k, (rule, nodes) in enumerate(zip(self.op.vjp, self.group.operands)):
            if rule is not None and self._origin(nodes) & wanted:
                calls.contribute(self.operands[k], shape, partial(self._vjp, calls, k))

    def _vjp(self, calls: Calls, k: int, out: Array | None) -> Source:
        operands = [calls.value(x, self.buffer) for x in self.operands]
        own = calls.value(self.out, self.buffer)
        g = calls.grad(self.out)
        rule = recorded(self.op, self.op.vjp[k], self.number, leading=2)
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


def folded(accesses: list[Rows]) -> list[Rows]:
    """The same rows in the shape, (n,) or (a, n / a), that makes most of them views."""
    for access in accesses:
        if access.strides is None:
            step = np.diff(access.array)
            period = int(np.flatnonzero(step != step[0])[0]) + 1
            if len(access.array) % period == 0:
                accesses = [Rows(x.buffer, x.array.reshape(-1, period)) for x in accesses]
                break
    out, *operands = accesses
    return [out, *map(narrow, operands)]


def narrow(access: Rows) -> Rows:
    """The same with a length of 1 along axes on which nothing changes."""
    flat = [step == 0 and size > 1 for step, size in zip(access.strides or (), access.shape)]
    if not any(flat):
        return access
    kept = tuple(slice(0, 1) if same else slice(None) for same in flat)
    return Rows(access.buffer, access.array[kept])
