"""The compiler on one page: from a recorded graph to kernels whose rows are laid out."""

from __future__ import annotations

from dataclasses import dataclass

from ..flat import Graph, SweepSummary
from .fuse import Fused, fuse
from .kernels import Kernel
from .layout import Layout
from .levels import find_kinds
from .schedule import choose_levels, find_kernels, lay_out


@dataclass(frozen=True, eq=False)
class Plan:
    """What runs a graph: kernels in order, shared before batched, and the rows of their nodes."""

    graph: Graph
    fused: Fused
    kernels: list[Kernel]
    layout: Layout

    @property
    def summary(self) -> SweepSummary:
        """What there is to tell of it."""
        kernels = [kernel.summary(self.fused) for kernel in self.kernels]
        return SweepSummary(kernels, len(self.fused.op), self.fused.outputs)


def compile_plan(graph: Graph, alone: bool = False) -> Plan:
    """Turn a recorded graph into kernels, pass by pass.

    Where inf or nan might make a difference another sweep can take over, unless this one is
    `alone`, as an exported function is. Take a layer of two neurons:

    >>> import vgrad
    >>> W = np.array([[vgrad.Value(1.0), vgrad.Value(2.0)], [vgrad.Value(3.0), vgrad.Value(4.0)]])
    >>> b = np.array([vgrad.Value(5.0), vgrad.Value(6.0)])
    >>> graph = vgrad.trace(lambda x: sum(np.tanh(W @ x + b)), (2,), parameters=[*W.flat, *b])

    1. *Fuse.* Additions and products that are used once become the terms of contractions, sums
       of coef * u * v; a lone bias is a product with 1. Here 4 products and 4 sums become 2
       contractions of 3 terms, w00 * x0 + w01 * x1 + b0 * 1 and w10 * x0 + w11 * x1 + b1 * 1.
    2. *Split.* What no input reaches is summed once and not per sample, and products are summed
       apart from what would tell them apart. Here nothing is.
    3. *Families.* Nodes that might run together: the same op, or sums whose factors are batched
       in the same way. Here both contractions are of one family, and both tanh are.
    4. *Levels.* As soon as possible, or later where that lets a family run together. Here the
       contractions run on level 1, the two tanh on level 2, their sum on level 3.
    5. *Kernels.* In a family of sums, grids in which each row of u meets each row of v are matrix
       products. Here u has the rows (w00, w01, b0) and (w10, w11, b1), and v has (x0, x1, 1).
    6. *Rows.* Every node gets a row of one of two buffers, so that kernels read slices. Here
       theta is shared 0:6 as (w00, w01, b0, w10, w11, b1), which is u as a view of 2 x 3; the
       inputs are batched 0:2, and behind them lies a row of ones, so that v is batched 0:3.
    7. *Locate.* Each kernel finds the rows that it reads and writes.

    >>> plan = compile_plan(graph)
    >>> [(kernel.level, kernel.name, kernel.out, kernel.operands) for kernel in plan.kernels]
    ...     # doctest: +NORMALIZE_WHITESPACE
    [(1, 'matmul', view 1x2, [view 2x3, view 1x3]),
     (2, 'tanh', view 2, [view 2]),
     (3, 'chain', view 1, [view 1, view 1])]

    Then, for every width of batch, `Bound` has the kernels add their calls to lists: here
    np.dot(theta as 2 x 3, inputs and ones, out=rows of the layer), np.tanh and np.add.
    """
    fused = fuse(graph, alone)
    kinds = find_kinds(fused)
    level = choose_levels(fused, kinds)
    kernels = find_kernels(fused, kinds, level)
    kernels, layout = lay_out(fused, kernels, graph.inputs, graph.parameters)
    for kernel in kernels:
        kernel.locate(fused, layout)
    return Plan(graph, fused, kernels, layout)
