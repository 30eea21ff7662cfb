"""Which sweep is the quicker one: arithmetic on floats, sample by sample, or calls on arrays.

Floats cost 60 ns for each node and sample: some three statements of Python, forward and backward.
Arrays cost 0.5 us for each call, and there are some six calls to a kernel, whatever the samples;
numbers cost next to nothing while they are few. So up to some number of samples floats are quicker,
if there are few nodes to a kernel: 3 to 20 samples in recurrences, none in networks. What has few
kernels runs on arrays in any case, and so gives the same bits for any number of samples.

All of this was measured on one machine, and is the same to a factor of 2 on others.
"""

from __future__ import annotations

import numpy as np

from .. import ops
from ..compiler import kernel_count
from ..flat import Graph
from ..floats import seconds

CALL, CALLS = 0.5e-6, 6  # seconds for a call on arrays, and calls for a kernel
NUMBER = 0.3e-9  # seconds for a number in a call
WORTH = 32  # kernels; what has fewer takes little time either way


def few(graph: Graph) -> int:
    """Up to how many samples floats are quicker than arrays."""
    count = kernel_count(graph)
    if count < WORTH:
        return 0
    times = np.bincount(graph.op[graph.level > 0]).tolist()
    per_sample = sum(n * (seconds(op) - CALLS * NUMBER) for n, op in zip(times, ops.OPS))
    return int(CALL * CALLS * count / per_sample)
