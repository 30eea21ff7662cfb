"""The two sweeps over a graph: values forward, gradients backward, for one tile of samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import ops
from .graph import Graph
from .kernels import Buffers, Map
from .schedule import BATCHED, FROM_INPUTS, FROM_PARAMETERS, SHARED, schedule

Array = NDArray[np.float64]


class Sweep:
    """A graph, laid out and ready to run; it holds no state between calls.

    P parameters and K inputs; the samples of a tile, T in all, lie along the last axis throughout.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layout = schedule(graph)
        self.kernels = [Map(group) for group in self.layout.groups]
        nodes = graph.outputs
        self.outputs = list(
            zip(self.layout.buffer[nodes].tolist(), self.layout.row[nodes].tolist())
        )
        self._constants = np.flatnonzero(graph.op == ops.const.code)

    def forward(self, theta: Array, inputs: Array) -> Buffers:
        """Every node's value, given theta (P,) and inputs (K, T), in new buffers."""
        shared, batched = self.layout.rows
        values = np.empty((shared, 1)), np.empty((batched, inputs.shape[1]))
        values[SHARED][: len(theta), 0] = theta
        values[SHARED][self.layout.row[self._constants], 0] = self.graph.value[self._constants]
        values[BATCHED][: len(inputs)] = inputs
        with np.errstate(all="ignore"):
            for kernel in self.kernels:
                kernel.forward(values)
        return values

    def output(self, values: Buffers, k: int) -> Array:
        """Output k for every sample, (T,), or (1,) where it is shared."""
        buffer, row = self.outputs[k]
        result: Array = values[buffer][row]
        return result

    def parameter_gradient(self, values: Buffers, weight: float) -> Array:
        """The gradient of weight times the sum over the tile of output 0, (P,)."""
        grads = self._backward(values, weight, FROM_PARAMETERS, columns=1)
        return grads[:, 0]

    def parameter_gradients(self, values: Buffers) -> Array:
        """The gradient of output 0 to the parameters for every sample, (P, T)."""
        return self._backward(values, 1.0, FROM_PARAMETERS, columns=values[BATCHED].shape[1])

    def input_gradients(self, values: Buffers) -> Array:
        """The gradient of output 0 to the inputs for every sample, (K, T)."""
        return self._backward(values, 1.0, FROM_INPUTS, columns=1)

    def _backward(self, values: Buffers, weight: float, wanted: int, columns: int) -> Array:
        gradient = self._pass(values, weight, wanted, columns, exact=False)
        if not np.isfinite(gradient).all():  # 0 * inf, maybe, where a gradient of 0 must stay 0
            gradient = self._pass(values, weight, wanted, columns, exact=True)
        return gradient

    def _pass(
        self, values: Buffers, weight: float, wanted: int, columns: int, exact: bool
    ) -> Array:
        samples = values[BATCHED].shape[1]
        grads = np.zeros((self.layout.rows[SHARED], columns)), np.zeros_like(values[BATCHED])
        buffer, row = self.outputs[0]
        each = samples // grads[buffer].shape[1]  # how many samples a column of that buffer sums
        grads[buffer][row] = weight * each
        with np.errstate(all="ignore"):
            for kernel in reversed(self.kernels):
                if kernel.out.origin & wanted:
                    kernel.adjoint(values, grads, wanted, exact)
        if wanted == FROM_INPUTS:
            return grads[BATCHED][: len(self.graph.inputs)]
        return grads[SHARED][: len(self.graph.parameters)]
