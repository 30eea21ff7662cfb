"""The compiler on one page: from a recorded graph to kernels whose rows are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..arguments import FLOAT64
from ..cached import cached_property
from ..flat import (
    BATCHED,
    FROM_INPUTS,
    FROM_PARAMETERS,
    SHARED,
    Graph,
    Rows,
    SweepSummary,
)
from ..progress import Progress
from .fuse import (
    Fused,
    Ints,
    contract_sums,
    drop_guards,
    split_mixed,
    split_residuals,
    split_shared,
    unfused,
)
from .fused import traced_anew, without_gone
from .kernels import Kernel
from .layout import Layout, Places, undying
from .levels import find_kinds, find_levels
from .lifetimes import EVER, KEEP, Lifetimes
from .maxima import join_maxima
from .schedule import find_kernels, lay_out
from .simplify import (
    drop_dead,
    drop_identities,
    fold_constants,
    merge_constants,
    merge_equal,
    use_plain_ops,
)
from .watch import largest_exponent

SILENT = Progress()


@dataclass(frozen=True, eq=False)
class Plan:
    """A compiled graph: kernels in order, shared before batched, and the rows of their nodes."""

    graph: Graph
    fused: Fused
    kernels: list[Kernel]
    layout: Layout

    @cached_property
    def inputs(self) -> Ints:
        """The nodes of the graph's inputs, by their numbers here."""
        return self.fused.stands[self.graph.inputs]

    @cached_property
    def parameters(self) -> Ints:
        """The nodes of the graph's parameters, by their numbers here."""
        return self.fused.stands[self.graph.parameters]

    @property
    def picks(self) -> bool:
        """Whether parameters must be finite."""
        return self.fused.picks

    @property
    def merged(self) -> bool:
        """Whether nodes that were recorded apart are computed once."""
        return self.fused.merged

    @property
    def unguarded(self) -> bool:
        """Whether nan may come out where the graph has a guard."""
        return self.fused.unguarded

    @property
    def rows(self) -> int:
        """How many rows are computed for each sample."""
        return self.layout.sizes[BATCHED]

    @cached_property
    def runs(self) -> int:
        """How many kernels run in every tile."""
        return sum(kernel.buffer for kernel in self.kernels)

    @property
    def held(self) -> int:
        """How many of these are there."""
        return self.runs

    @property
    def busy(self) -> int:
        """How many numbers of a sample a cache should hold."""
        return sum(self.sizes()[BATCHED])

    def sizes(self, wanted: int = FROM_PARAMETERS) -> list[tuple[int, int]]:
        """Of both buffers: about how many numbers the rows take, and the largest scratch."""
        sizes = []
        memory = 2 * self.layout.sizes[SHARED], self.places(wanted).size
        for buffer, rows in enumerate(memory):
            kernels = [x for x in self.kernels if x.buffer == buffer]
            scratch = max((x.scratch for x in kernels), default=0)
            sizes.append((rows + sum(x.lasting for x in kernels), scratch))
        return sizes

    def places(self, wanted: int) -> Places:
        """Where the batched rows lie, if gradients go to the wanted leaves."""
        if wanted not in self._places:
            self._places[wanted] = self._placed(wanted)
        return self._places[wanted]

    @cached_property
    def _places(self) -> dict[int, Places]:
        return {}

    def _placed(self, wanted: int) -> Places:
        rows, row, batched = self.rows, self.layout.row, self.fused.batched
        if wanted & KEEP:
            return undying(rows)
        watched, ones = self.layout.watched[BATCHED], self.layout.ones[BATCHED]
        inputs, outputs = row[self.inputs], self.fused.outputs
        found = Lifetimes(rows, self.kernels, [Rows(BATCHED, watched)], wanted)
        found.lives(0, inputs, 0, 0)
        found.lives(0, np.array(ones), 0, EVER)
        found.lives(0, np.arange(rows)[watched], 0, found.last)
        found.lives(0, self.watched_sums(BATCHED), found.last, found.last)
        found.lives(0, row[outputs[batched[outputs]]], found.last, EVER)
        found.run()
        if wanted and batched[outputs[0]]:
            found.fix_constants(Rows(BATCHED, row[outputs[:1]]))
        if wanted & FROM_INPUTS:
            found.lives(1, inputs, 0, EVER)
        return found.places()

    def watched_sums(self, buffer: int) -> Ints:
        """The rows of the sums that may overflow where the graph's do not."""
        kernels = [x for x in self.kernels if x.buffer == buffer and x.is_watched(self.fused)]
        nodes = [np.empty(0, np.intp), *(x.nodes for x in kernels)]
        rows: Ints = self.layout.row[np.concatenate(nodes)]
        return rows

    def summary(self) -> SweepSummary:
        """The plan as `explain` and pictures show it."""
        kernels = [kernel.summary(self.fused) for kernel in self.kernels]
        number, outputs, stands = self.fused.number, self.fused.outputs, self.fused.stands[:-1]
        return SweepSummary(kernels, int(number[-1]) + 1, number[outputs], number[stands])


def compile_plan(
    graph: Graph,
    alone: bool = False,
    dtype: np.dtype[Any] = FLOAT64,
    marks: dict[int, Ints] | None = None,
    merge: bool = True,
    say: Progress = SILENT,
) -> Plan:
    """Turn a recorded graph into kernels, pass by pass.

    Where inf or nan make a difference another sweep can take over, unless the plan is used
    `alone`, as in an exported function. What a question of the graph depends on keeps every bit in
    all passes. Of an excerpt from a graph, `marks` has the FROM_... bits of its leaves there, and
    guards stay, as other nodes may hide nan. Take a layer of two neurons, whose results are added:

    >>> import vgrad
    >>> w = [vgrad.Value(1.0, label=name) for name in ("w0", "w1", "b0", "w2", "w3", "b1")]
    >>> def layer(x):
    ...     sums = [w[0] * x[0] + w[1] * x[1] + w[2], w[3] * x[0] + w[4] * x[1] + w[5]]
    ...     return vgrad.tanh(sums[0]) + vgrad.tanh(sums[1])
    >>> plan = compile_plan(vgrad.trace(layer, (2,), parameters=w))

    fold_constants     What depends on constants alone is computed. Here nothing.
    merge_constants    Constants of the same bits become one node. Here there are none.
    drop_identities    x * 1 and the like become x. Here there are none.
    use_plain_ops      x ** 2 becomes x * x. Here there is none.
    merge_equal        Nodes with the same op and operands become one, if they may `merge`. None.
    drop_dead          What no output needs is left out. Here nothing.
    drop_guards        Guards go where the plain sweep would notice. Here there are none.
    contract_sums      Additions and products become *terms*, c * u * v, of contractions; a bias is
                       a product with 1. Here the neurons w0 * x0 + w1 * x1 + b0 * 1 and
                       w2 * x0 + w3 * x1 + b1 * 1; a lone addition stays as it is. Sums whose
                       terms may cancel are contractions by themselves, and keep their order.
    without_gone       What is part of another node by now is left out of all arrays.
    join_maxima        Trees of maxima that only stop_gradient reads become one node. Here none.
    split_...          Terms that no input reaches, and those that would keep others from being a
                       matrix product, get contractions of their own. Here none.
    find_kinds         Nodes that may run together are of one *family*: here the two neurons, the
                       two tanh, and the addition.
    find_levels        As soon as possible, or later if families meet then. Here 1, 2 and 3.
    find_kernels       In a family of sums, those in which every row of u meets every row of v are
                       a *grid*, a matrix product. Here (w0, w1, b0) and (w2, w3, b1) meet
                       (x0, x1, 1), and both tanh are one map.
    lay_out            Nodes get *rows* of the two buffers, in an order that makes what a kernel
                       reads a slice. Here the shared ones are w0 w1 b0 w2 w3 b1, so u is a view
                       of 2 x 3; the batched ones are x0 x1 and a row of ones behind them, which
                       is v; then the neurons, the tanh, the result.
    locate             Each kernel finds its rows:

    >>> for kernel in plan.kernels:
    ...     print(kernel.level, kernel.name, kernel.out, kernel.operands)
    1 matmul view 1x2 [view 2x3, view 1x3]
    2 tanh view 2 [view 2]
    3 add view 1 [view 1, view 1]

    For every width of batch `Bound` then has the kernels add their *calls*: here np.dot of that u
    and v, into the rows of the neurons, np.tanh and np.add; and backward np.add.reduce and so on.
    """
    many = f"compiling {len(graph):,} nodes"
    say(f"{many}: constants")
    fused = unfused(graph, alone, marks)
    fused = merge_constants(fold_constants(fused, dtype))
    fewer = drop_identities(fused)
    # where a choice is gone, so may be all that differed between samples
    chosen = (fewer.op != fused.op)[fused.op == ops.where.code].any()
    fused = use_plain_ops(traced_anew(fewer, graph, marks) if chosen else fewer)
    del fewer  # the graph once more, at a time when memory is short
    say(f"{many}: equal nodes")
    fused = drop_dead(merge_equal(fused) if merge else fused)
    fused = drop_guards(fused, graph) if marks is None else fused
    say(f"{many}: sums of products")
    fused = contract_sums(fused)
    if not alone and marks is None:  # others go by the graph's own numbers of nodes
        fused = without_gone(fused)
    fused = join_maxima(fused)
    fused = split_residuals(split_mixed(split_shared(fused)))
    say(f"{many}: what runs together")
    kinds = find_kinds(fused)
    levels = find_levels(fused, kinds)
    kernels = find_kernels(fused, kinds, levels)
    say(f"{many}: where numbers lie")
    largest = largest_exponent(dtype)
    leaves = fused.stands[graph.inputs], fused.stands[graph.parameters]
    kernels, layout = lay_out(fused, kernels, *leaves, largest)
    for kernel in kernels:
        kernel.locate(fused, layout)
    return Plan(graph, fused, kernels, layout)
