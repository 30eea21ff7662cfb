"""Which is quicker: arithmetic on floats, sample by sample, or calls on arrays; by an estimate.

Floats take a while for each node and sample, arrays for each kernel, whatever the samples; numbers
cost next to nothing while they are few. So up to some number of samples floats are quicker, if
there are few nodes to a kernel: some 3 to 20 samples in recurrences, none in networks. What has few
kernels runs on arrays in any case, and so gives the same bits for any number of samples.

How many kernels there will be takes a hundredth of the time to estimate that a plan takes.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from ..flat import Graph
from ..floats import seconds
from .costs import CALL, CALLS, NUMBER
from .fused import Mask, by_code

WORTH = 32  # kernels; what has fewer takes little time either way


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


def few(graph: Graph) -> int:
    """Up to how many samples floats are quicker than arrays."""
    count = kernel_count(graph)
    if count < WORTH:
        return 0
    times = np.bincount(graph.op[graph.level > 0]).tolist()
    number = CALLS * NUMBER[0][1]
    per_sample = sum(n * (seconds(op) - number) for n, op in zip(times, ops.OPS))
    return int(CALL * CALLS * count / per_sample)
