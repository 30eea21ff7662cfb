"""How many kernels a graph may take: an estimate, which costs a hundredth of a plan."""

from __future__ import annotations

import numpy as np

from .. import ops
from ..flat import Graph
from .fused import Mask, by_code


def stands_alone(graph: Graph) -> Mask:
    """(n,) which computed nodes are kernels of their own, or a part of one with their like.

    The others are sums and products that a single sum reads, and that go up in it.
    """
    uses = np.bincount(graph.parents[graph.parents >= 0], minlength=len(graph))
    is_sum = by_code(lambda op: bool(op.signs))[graph.op]
    goes_up = np.zeros(len(graph), bool)
    goes_up[graph.parents[is_sum]] = True
    goes_up &= (is_sum | (graph.op == ops.mul.code)) & (uses == 1)
    goes_up[graph.outputs] = False
    alone: Mask = (graph.level > 0) & ~goes_up
    return alone


def kernel_count(graph: Graph) -> int:
    """About how many there are: nodes of one op and level that stand alone make one."""
    alone = stands_alone(graph)
    is_sum = by_code(lambda op: bool(op.signs))[graph.op]
    op = np.where(is_sum, ops.add.code, graph.op)[alone]
    return len(np.unique(graph.level[alone] * np.int64(256) + op))
