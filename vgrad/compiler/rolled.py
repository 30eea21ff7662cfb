"""Re-rolled: what repeats is planned once, and its calls run turn after turn on the same buffers.

A loop that was recorded without one, or a network of many layers, is cut into pieces; those that
are alike share one plan, which is bound once (`turns`). Around it, numbers move:

    forward     what the piece reads comes in, its calls run, what others read goes out
    backward    what it computed is there again, kept or computed anew, with the gradients of what
                went out; its calls run, and the gradients of what came in are added up

Planning takes as long as for one piece, whatever their number. Of each there are only the numbers
that it passes on; values, gradients, scratch arrays and calls exist once. A cache holds them, so
calls are quicker too. What no input reaches runs apart, once per call of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import FLOAT64
from ..cached import cached_property
from ..flat import (
    BATCHED,
    FROM_INPUTS,
    FROM_PARAMETERS,
    Form,
    Graph,
    KernelSummary,
    SweepSummary,
    in_turns,
    needed,
    origins,
    program_order,
)
from ..floats import FloatSweep
from .estimate import few, stands_alone
from .fuse import Ints, Mask
from .lifetimes import KEEP
from .plan import Plan, compile_plan
from .trees import LARGEST

DEEP = 128  # levels; a graph of fewer has little to repeat,
WIDE = 50  # and one of more nodes to a level takes longer to compute than to plan
MOVES = 2  # kernels that take as long as moving the numbers of a piece


@dataclass(frozen=True, eq=False)
class Turn:
    """A form with its plan, and which nodes each of its pieces reads and writes."""

    plan: Plan
    samples: Ints  # (p, k) what differs between samples,
    numbers: Ints  # (p, s) and what does not
    leaving: Ints  # (p, m)
    nodes: Ints  # (p, n) the nodes of the plan's graph, by their numbers in the whole


@dataclass(frozen=True, eq=False)
class Shared:
    """What no input reaches: a graph whose outputs pieces read, and how it runs."""

    graph: Graph
    nodes: Ints  # (1, n) its nodes, by their numbers in the whole
    sweep: Plan | FloatSweep


@dataclass(frozen=True, eq=False)
class RolledPlan:
    """A compiled graph whose levels repeat; it takes the place of a `Plan`."""

    graph: Graph
    shared: Shared | None  # what no input reaches: before all pieces
    turns: list[Turn]
    order: list[tuple[int, int]]  # of the pieces: which turn, and which of its pieces
    samples: Ints  # the nodes that differ between samples, and are kept: inputs, then others
    numbers: Ints  # the nodes that do not: parameters, constants, then those of `shared`
    place: Ints  # (n,) where in one or the other each of them is
    origin: NDArray[np.uint8]  # (n + 1,) FROM_... bits

    @cached_property
    def needs(self) -> Mask:
        """(n + 1,) what output 0 is computed from."""
        return needed(self.graph, self.graph.outputs[:1])

    @cached_property
    def picks(self) -> bool:
        """Whether parameters must be finite, and what is computed from them alone."""
        return any(plan.picks for plan in self._plans)

    unguarded = False  # as guards stay

    @cached_property
    def rows(self) -> int:
        """How many rows are computed for each sample."""
        return sum(self.turns[k].plan.rows for k, _ in self.order)

    @cached_property
    def runs(self) -> int:
        """How many kernels run in every tile; moving the numbers of a piece counts as some."""
        return sum(self.turns[k].plan.runs + MOVES for k, _ in self.order)

    @property
    def held(self) -> int:
        """How many of these are there."""
        return sum(turn.plan.runs + MOVES for turn in self.turns)

    def sizes(self) -> list[tuple[int, int]]:
        """Of both buffers: about how many numbers the rows take, and the largest scratch."""
        # (plans, buffers, 2); a turn's rows stay for its backward
        sizes = np.array([plan.sizes(FROM_PARAMETERS | KEEP) for plan in self._plans])
        rows = 2 * np.array([len(self.numbers), len(self.samples)])
        totals = sizes[:, :, 0].sum(axis=0) + rows
        return list(zip(totals.tolist(), sizes[:, :, 1].max(axis=0).tolist()))

    @cached_property
    def busy(self) -> int:
        """How many numbers of a sample a cache should hold: those of one turn."""
        return max(sum(plan.sizes(FROM_PARAMETERS | KEEP)[BATCHED]) for plan in self._plans)

    @property
    def merged(self) -> bool:
        """Whether nodes that were recorded apart are computed once."""
        return any(plan.merged for plan in self._plans)

    @property
    def _plans(self) -> list[Plan]:
        plans = [turn.plan for turn in self.turns]
        alone = self.shared.sweep if self.shared else None
        return [*plans, alone] if isinstance(alone, Plan) else plans

    def summary(self) -> SweepSummary:
        """The plan as `explain` and pictures show it: the kernels of a turn, and how often."""
        parts: list[Any] = [(turn.plan, turn.plan.graph, turn.nodes) for turn in self.turns]
        if self.shared is not None:
            parts.insert(0, (self.shared.sweep, self.shared.graph, self.shared.nodes))
        kernels, stands = list[KernelSummary](), np.arange(len(self.graph))
        for sweep, graph, nodes in parts:
            own = sweep.summary()
            kernels += [_everywhere(kernel, len(graph), nodes) for kernel in own.kernels]
            first = len(graph) - nodes.shape[1]
            by = own.stands[first:] - first
            known = (by >= 0) & (by < nodes.shape[1])
            stands[nodes[:, known]] = nodes[:, by[known]]
        return SweepSummary(kernels, len(self.graph), self.graph.outputs, stands)


def compile_rolled(
    graph: Graph, dtype: np.dtype[Any] = FLOAT64, merge: bool = True
) -> RolledPlan | None:
    """Plan a deep graph piece by piece; None if it is wide and not deep, or repeats little.

    Nodes that are equal may `merge` within a piece. What a question depends on must keep every
    bit, which is seen in the whole graph alone.
    """
    alone = stands_alone(graph)
    width = np.bincount(graph.level, alone)  # of each level, without what goes up in a sum
    levels = np.count_nonzero(width)
    if graph.questions or levels < max(DEEP, alone.sum() / WIDE):
        return None
    weights = np.where(alone, 1 / np.maximum(width, 1)[graph.level], 0.0)
    origin, order = origins(graph), program_order(graph)
    batched = (origin[order] & FROM_INPUTS) > 0
    pieces = in_turns(graph, order[batched], origin, weights)
    if pieces is None or not pieces.forms:
        return None
    read = np.zeros(len(graph), bool)
    for form in pieces.forms:
        read[form.outside] = True
    read[graph.outputs] = True
    others = order[~batched]
    results = others[read[others]]
    constants = pieces.constants(graph)
    samples = np.concatenate([graph.inputs, pieces.leaving])
    numbers = np.concatenate([graph.parameters, constants, results])
    place = np.full(len(graph), -1)
    for kept in (samples, numbers):
        place[kept] = np.arange(len(kept))
    compiled, shared = partial(compile_plan, dtype=dtype, merge=merge), None
    if len(results):
        part = _without_inputs(graph, others, results)
        sweep = FloatSweep(part) if few(part) else compiled(part)
        shared = Shared(part, others[None], sweep)
    turns = [_turn(graph, form, origin, compiled) for form in pieces.forms]
    order_of_pieces = pieces.running_order()
    plan = RolledPlan(graph, shared, turns, order_of_pieces, samples, numbers, place, origin)
    # a constant that stands for a parameter must be as finite as parameters are asked to be
    is_finite = (np.abs(graph.value[constants]) <= LARGEST).all()
    return plan if is_finite or not plan.picks else None


def _turn(
    graph: Graph, form: Form, origin: NDArray[np.uint8], compiled: Callable[..., Plan]
) -> Turn:
    """The plan of a form; its leaves are slots, even where some piece has one node in two."""
    slots = np.array(form.slots, np.intp)
    batched = (origin[form.outside[0, slots]] & FROM_INPUTS) > 0
    leaves = [slots[batched], slots[~batched], np.array([*form.constants], np.intp)]
    ends = np.cumsum([*map(len, leaves)]).tolist()
    own, size = np.concatenate(leaves), len(form.op)
    new = np.empty(form.outside.shape[1], np.intp)
    new[own] = np.arange(len(own))
    reads = np.array(form.reads)
    parents = np.where(reads >= 0, reads + len(own), new[np.maximum(-2 - reads, -1)])
    parents = np.where(reads == -1, -1, parents).astype(np.int32)
    kinds = ops.input.code, ops.parameter.code, ops.const.code
    part = Graph(
        op=np.append(np.repeat(kinds, [*map(len, leaves)]), form.op).astype(np.uint8),
        parents=np.pad(parents, ((len(own), 0), (0, 0)), constant_values=-1),
        value=np.append(graph.value[form.outside[0, own]], np.zeros(size)),
        level=np.append(np.zeros(len(own), np.int32), graph.level[form.nodes[0]]),
        inputs=np.arange(ends[0], dtype=np.int32),
        parameters=np.arange(*ends[:2], dtype=np.int32),
        outputs=np.array(form.leaving, np.int32) + np.int32(len(own)),
        input_shapes=((ends[0],),),
        output_shapes=(len(form.leaving),),
    )
    bits = origin[form.outside[0, own[: ends[1]]]]
    marks = {bit: np.flatnonzero(bits & bit) for bit in (FROM_INPUTS, FROM_PARAMETERS)}
    samples, numbers, _ = (form.outside[:, x] for x in leaves)
    plan = compiled(part, marks=marks)
    return Turn(plan, samples, numbers, form.nodes[:, form.leaving], form.nodes)


def _everywhere(kernel: KernelSummary, size: int, nodes: Ints) -> KernelSummary:
    """A kernel of a graph of this size, with its nodes in all pieces; `nodes` (p, n) are last."""
    own = kernel.nodes[kernel.nodes < size] - (size - nodes.shape[1])
    return kernel._replace(
        sources=len(nodes) * kernel.sources,
        flops=len(nodes) * kernel.flops,
        nodes=nodes[:, own].reshape(-1),
        reads=kernel.reads[:0],
        times=len(nodes) * kernel.times,
    )


def _without_inputs(graph: Graph, nodes: Ints, outputs: Ints) -> Graph:
    """The graph of what no input reaches: its leaves, and then these nodes."""
    leaves = np.unique(graph.parents[nodes])
    leaves = np.setdiff1d(leaves[leaves >= 0], [*nodes, *graph.parameters])
    own = np.concatenate([graph.parameters, leaves, nodes])
    new = np.full(len(graph) + 1, -1, np.int32)
    new[own] = np.arange(len(own))
    return replace(
        graph,
        op=graph.op[own],
        parents=new[graph.parents[own]],
        value=graph.value[own],
        level=graph.level[own],
        inputs=graph.inputs[:0],
        parameters=new[graph.parameters],
        outputs=new[outputs],
        input_shapes=(),
        output_shapes=outputs.shape,
        labels={},
        lines={},
    )
