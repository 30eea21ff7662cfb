"""Kernels: nodes that run together, by a forward and by an adjoint that carries gradients back.

A kernel starts as a group of nodes and has a say in the order of their rows. Once rows are
assigned, it locates them; then, for each width of batch, it adds its NumPy calls to a `Calls`.
Nothing here runs during a sweep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import inf
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..arguments import Array
from ..flat import Graph, KernelSummary, ReadSummary, Rows, recorded
from .arithmetic import Source
from .calls import Calls
from .fuse import Floats, Fused, Ints, Mask
from .layout import Layout
from .lowering import add_forward, add_op, add_rule

# A kernel that reads the results of several kernels is cut into this many parts at most, and only
# if it reads this many numbers.
FEW_PARTS, WORTH_A_PART = 2, 256
FEW_KEYS, WORTH_A_KEY = 6, 8  # or parts of a map that all read slices, of so many nodes,
RUNS = 2  # or parts of a map that take as long as gathering one of its operands


class Links(NamedTuple):
    """(m,) of each node the number of the kernel that computes it, and of the first that reads it.

    Those of leaves, of results that none reads, and of kernels that have no rows yet are -1.
    """

    made_by: Ints
    used_by: Ints


@dataclass(eq=False)
class Kernel:
    """n nodes of one level, all shared or all batched, that run together."""

    level: int
    buffer: int
    nodes: Ints  # (n,)

    name: str = field(init=False)  # as `explain` lists it
    flops: int = field(init=False)  # of a forward, per sample if it is batched
    scratch: int = field(init=False)  # about how many numbers it holds besides the buffers,
    lasting: int = field(init=False, default=0)  # and how many of its own between the sweeps
    out: Rows = field(init=False)
    operands: list[Rows] = field(init=False)

    def reads(self) -> tuple[Ints, ...]:
        """The nodes that it reads, operand by operand."""
        raise NotImplementedError

    def title(self, one: int) -> str:
        """What it computes, as in "16 × dot of 3, matmul"; `one` is the node that is 1."""
        raise NotImplementedError

    def parts(self, links: Links, layout: Layout) -> list[Kernel]:
        """The kernel cut so that each part reads the results of one kernel, and so reads slices.

        All that it reads has rows. If parts would be many or small, gathering is as quick, and the
        kernel stays whole.
        """
        return [self]

    def is_exact(self, fused: Fused) -> bool:
        """Whether a forward gives what the graph does, to the bit."""
        raise NotImplementedError

    def is_watched(self, fused: Fused) -> bool:
        """Whether its values may be infinite, or nan, where the graph's are not."""
        return not self.is_exact(fused)

    def exponent(self, bound: Floats) -> float:
        """Its values are at most 2.0**this, if those of any node i are at most 2.0**bound[i]."""
        raise NotImplementedError

    def in_order(self, layout: Layout) -> Kernel:
        """The kernel with its nodes in the order of their operands' rows, if any order will do."""
        return self

    def row_order(self, before_ones: Mask) -> Ints:
        """The nodes in the order of their rows."""
        return self.nodes

    def locate(self, fused: Fused, layout: Layout) -> None:
        """Find the rows of its nodes and of those that it reads."""
        raise NotImplementedError

    def forward(self, calls: Calls) -> None:
        """Add the calls that compute the kernel's values."""
        calls.store(self.out, partial(self._produce, calls))

    def adjoint(self, calls: Calls, wanted: int) -> None:
        """Add the calls that pass its gradient on to operands computed from the wanted leaves."""
        raise NotImplementedError

    def saved(self, wanted: int) -> list[Rows]:
        """Those of its rows, and of its operands', whose values the adjoint reads."""
        raise NotImplementedError

    def linear(self, wanted: int) -> list[Rows]:
        """The operands whose gradients depend on its own alone, and are constant if that is."""
        return []

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        raise NotImplementedError

    def summary(self, fused: Fused) -> KernelSummary:
        """The kernel as `explain` and pictures show it."""
        reads = np.concatenate([x.reshape(-1) for x in self.reads()])
        result, *operands = (
            ReadSummary(x.strides is not None, x.shape, bool(x.buffer))
            for x in (self.out, *self.operands)
        )
        sources = int(fused.sources[self.nodes].sum())
        head = self.level, self.name, self.title(fused.one), sources, self.flops
        read, exact = reads[reads >= 0], self.is_exact(fused)
        nodes, read = fused.number[self.nodes], fused.number[read]
        return KernelSummary(*head, nodes, read, result, operands, exact)


def producers(first: Ints, made_by: Ints, size: int) -> list[Ints]:
    """The places of the nodes in `first`, one array per kernel that computes them.

    Empty if a kernel of this size should not be cut.
    """
    makers = np.unique(made_by[first]) if size >= WORTH_A_PART else made_by[:0]
    if not 1 < len(makers) <= FEW_PARTS:
        return []
    return [np.flatnonzero(made_by[first] == maker) for maker in makers]


@dataclass(eq=False)
class Map(Kernel):
    """One op, element by element."""

    op: ops.Op
    parents: tuple[Ints, ...]  # (n,) per operand
    asked: bool = False  # whether a question depends on it, so that no bit may change

    def reads(self) -> tuple[Ints, ...]:
        return self.parents

    def title(self, one: int) -> str:
        return f"{len(self.nodes):,} × {self.name}"

    def exponent(self, bound: Floats) -> float:
        sizes = [float(bound[x].max()) for x in self.parents]
        if self.op.is_bounded:
            return max(0.0, *sizes)
        if self.op.signs:
            return max(sizes) + 1
        return sum(sizes) if self.op is ops.mul else inf

    def is_exact(self, fused: Fused) -> bool:
        return self.asked or not self.op.rounds(self.number)

    def is_watched(self, fused: Fused) -> bool:
        return False

    def parts(self, links: Links, layout: Layout) -> list[Kernel]:
        found = producers(self.parents[0], links.made_by, len(self.nodes))
        return [x for part in self._cut(found) for x in part._in_slices(links, layout)]

    def _cut(self, parts: list[Ints]) -> list[Map]:
        return [self._some(part) for part in parts] or [self]

    def _in_slices(self, links: Links, layout: Layout) -> list[Map]:
        """The kernel cut by what it reads, by what reads it, or both, if it then reads slices."""
        gathered = self._gathered(layout)
        if not gathered:
            return [self]
        makers, users = links.made_by[self.parents[0]], links.used_by[self.nodes]
        for key in (makers, users, makers * len(links.used_by) + users):
            distinct = np.unique(key)
            if 1 < len(distinct) <= max(RUNS * gathered, min(FEW_KEYS, len(key) // WORTH_A_KEY)):
                parts = self._cut([np.flatnonzero(key == x) for x in distinct])
                if not any(part._gathered(layout) for part in parts):
                    return parts
        return self._cut(self._in_runs(layout, gathered))

    def _gathered(self, layout: Layout) -> int:
        """How many operands would be no slices; constants are gathered for free."""
        order = layout.order(self.parents, self.buffer)
        rows = [Rows(0, layout.row[x[order]], 1) for x in self.parents if layout.varies(x)]
        return sum(x.strides is None for x in folded(rows)) if rows else 0

    def _in_runs(self, layout: Layout, gathered: int) -> list[Ints]:
        """The places of nodes that would read slices; empty if they are too many.

        Each takes some calls forward and backward, as does each operand that is gathered instead.
        """
        order = layout.order(self.parents, self.buffer)
        columns = [layout.row[x[order]] for x in self.parents]
        ends, steps = [0], None
        for k, step in enumerate(np.diff(columns).T.tolist(), start=1):
            if k - 1 == ends[-1]:
                steps = step
            elif step != steps:
                ends.append(k)
            if len(ends) > RUNS * gathered:
                return []
        return [order[a:b] for a, b in zip(ends, [*ends[1:], len(order)])]

    def in_order(self, layout: Layout) -> Kernel:
        return self._some(layout.order(self.parents, self.buffer))

    def _some(self, order: Ints) -> Map:
        parents = tuple(x[order] for x in self.parents)
        return replace(self, nodes=self.nodes[order], parents=parents)

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.name, self.flops, self.scratch = self.op.name, len(self.nodes), 3 * len(self.nodes)
        self.out, *self.operands = folded([*map(layout.rows, (self.nodes, *self.parents))])
        self.number: float | None = None  # of the static operand, if that is a constant
        if self.op.static is not None:
            operand = self.parents[self.op.static][0]
            if fused.op[operand] == ops.const.code:
                self.number = float(fused.value[operand])

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        operands = [calls.value(x, self.buffer) for x in self.operands]
        add = add_forward if self.asked else add_op
        return add(calls, self.op, self.number, operands, out)

    def adjoint(self, calls: Calls, wanted: int) -> None:
        shape = self.out.shape + calls.tail[self.buffer]
        for operand, rule in self._rules(wanted):
            produce = partial(self._vjp, calls, _without_sign(rule))
            calls.contribute(operand, shape, produce, _is_negative(rule))

    def saved(self, wanted: int) -> list[Rows]:
        return [x for _, rule in self._rules(wanted) for x in self._read_by(rule)]

    def linear(self, wanted: int) -> list[Rows]:
        rules = self._rules(wanted)
        return [x for x, rule in rules if not any(y.origin for y in self._read_by(rule))]

    def _rules(self, wanted: int) -> Iterator[tuple[Rows, Graph]]:
        """The operands that get gradients, each with its recorded rule."""
        is_square = self.op is ops.mul and are_same(self.operands)
        for vjp, operand in zip((_of_square,) if is_square else self.op.vjp, self.operands):
            if vjp is not None and operand.origin & wanted:
                yield operand, recorded(self.op, vjp, self.number, leading=2)

    def _read_by(self, rule: Graph) -> list[Rows]:
        """The rows whose values a rule reads."""
        used = _used(rule)[1:]  # behind g
        return [x for x, is_used in zip((self.out, *self.operands), used) if is_used]

    def _vjp(self, calls: Calls, rule: Graph, out: Array | None) -> Source:
        """The result of a rule."""
        g = calls.grad(self.out)
        values = [  # to gather those that the rule does not use would take time
            calls.value(x, self.buffer) if is_used else calls.zero
            for x, is_used in zip((self.out, *self.operands), _used(rule)[1:])
        ]
        result = add_rule(calls, rule, [g, *values], out, masks=not calls.exact)
        if calls.exact and result.array is not g.array:
            zero = calls.compute(np.equal, g, calls.zero)
            return calls.compute(_choose_zero, zero, result, out=out)
        return result


def are_same(factors: list[Rows]) -> bool:
    """Whether products are squares, whose gradient is the same to both factors."""
    if len(factors) != 2 or factors[0].buffer != factors[1].buffer:
        return False
    return np.array_equal(factors[0].array, factors[1].array)


def _is_negative(rule: Graph) -> bool:
    """Whether a minus is what a recorded rule does last."""
    return bool(rule.op[rule.outputs[0]] == ops.neg.code)


@lru_cache(maxsize=4096)
def _without_sign(rule: Graph) -> Graph:
    """The rule without that minus."""
    last = rule.outputs
    return replace(rule, outputs=rule.parents[last, 0]) if _is_negative(rule) else rule


def _of_square(g: Any, out: Any, x: Any, y: Any) -> Any:
    """The gradient of x * x, in one part and not in two."""
    return (g + g) * x


@lru_cache(maxsize=4096)
def _used(rule: Graph) -> list[bool]:
    """Which of its arguments a recorded rule uses."""
    used: list[bool] = np.isin(rule.inputs, [*rule.parents.flat, *rule.outputs]).tolist()
    return used


def _choose_zero(zero: Array, gradient: Array, out: Array) -> None:
    if out is not gradient:
        np.copyto(out, gradient)
    np.copyto(out, 0.0, where=zero)


def folded(found: list[Rows]) -> list[Rows]:
    """The same rows in the shape, (n,) or (a, n / a), that makes most of them views.

    Those of operands that are constants count last, as they are gathered once.
    """
    shapes = [found]
    for x in found:
        if x.strides is None:
            step = np.diff(x.array)
            period = int((step != step[0]).argmax()) + 1
            if len(x.array) % period == 0:
                shapes.append(
                    [Rows(y.buffer, y.array.reshape(-1, period), y.origin) for y in found]
                )
    best = max(
        shapes,
        key=lambda rows: [
            sum(x.strides is not None for x in some)
            for some in ([x for x in rows if x.origin], rows)
        ],
    )
    return [best[0], *map(narrow, best[1:])]


def narrow(rows: Rows) -> Rows:
    """The same with a length of 1 along axes on which nothing changes."""
    flat = [step == 0 and size > 1 for step, size in zip(rows.strides or (), rows.shape)]
    if not any(flat):
        return rows
    kept = tuple(slice(0, 1) if same else slice(None) for same in flat)
    return Rows(rows.buffer, rows.array[kept], rows.origin)
