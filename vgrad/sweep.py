"""The two sweeps over a graph: values forward and gradients backward, tile by tile of the batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from . import ops
from .graph import Graph
from .kernels import Buffers, Map
from .schedule import BATCHED, FROM_INPUTS, FROM_PARAMETERS, SHARED, schedule

Array = NDArray[np.float64]

TILE_BYTES = 1 << 24  # what the buffers of one tile may take, so that memory does not grow with B
MIN_TILE = 16  # samples; fewer would spend more time on calls than on numbers


class Sweep:
    """A graph, laid out and ready to run; it holds no state between calls.

    P parameters, K inputs, M outputs and a batch of B samples, which lie along the last axis
    throughout: theta is (P,), inputs are (K, B). What is shared runs once in each direction, what
    is batched once per tile. Nothing warns: results are IEEE 754's.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layout = schedule(graph)
        kernels = [Map(group) for group in self.layout.groups]
        self._shared = [kernel for kernel in kernels if kernel.out.buffer == SHARED]
        self._batched = [kernel for kernel in kernels if kernel.out.buffer == BATCHED]
        places = self.layout.buffer[graph.outputs], self.layout.row[graph.outputs]
        self._outputs = list(zip(*(place.tolist() for place in places)))
        self._constants = np.flatnonzero(graph.op == ops.const.code)

    def outputs(self, theta: Array, inputs: Array) -> Array:
        """Every output for every sample, (M, B)."""
        outputs = np.empty((len(self._outputs), inputs.shape[1]))
        with np.errstate(all="ignore"):
            shared = self._forward_shared(theta)
            for tile in self._tiles(inputs.shape[1]):
                values = self._forward(shared, inputs[:, tile])
                self._read(values, outputs[:, tile])
        return outputs

    def gradient(self, theta: Array, inputs: Array, weight: float) -> tuple[Array, Array]:
        """Every output, (M, B), and the gradient of weight times the sum of output 0, (P,)."""
        outputs = np.empty((len(self._outputs), inputs.shape[1]))
        with np.errstate(all="ignore"):
            shared = self._forward_shared(theta)
            for exact in (False, True):
                shared_grads = np.zeros((self.layout.rows[SHARED], 1))
                for tile in self._tiles(inputs.shape[1]):
                    values = self._forward(shared, inputs[:, tile])
                    self._read(values, outputs[:, tile])
                    grads = shared_grads, np.zeros_like(values[BATCHED])
                    self._backward(values, grads, weight, FROM_PARAMETERS, exact)
                self._backward_shared(values, grads, exact)
                gradient = shared_grads[: len(theta), 0]
                if np.isfinite(gradient).all():
                    break  # else 0 * inf, maybe, where a gradient of 0 must stay 0
        return outputs, gradient.copy()

    def per_sample_gradients(self, theta: Array, inputs: Array, wanted: int) -> Array:
        """The gradient of output 0 per sample, to the parameters, (P, B), or the inputs, (K, B)."""
        buffer = BATCHED if wanted == FROM_INPUTS else SHARED
        size = len(inputs) if wanted == FROM_INPUTS else len(theta)
        gradients = np.empty((size, inputs.shape[1]))
        with np.errstate(all="ignore"):
            shared = self._forward_shared(theta)
            for tile in self._tiles(inputs.shape[1]):
                values = self._forward(shared, inputs[:, tile])
                for exact in (False, True):
                    batched_grads = np.zeros_like(values[BATCHED])
                    columns = batched_grads.shape[1] if buffer == SHARED else 1
                    grads = np.zeros((self.layout.rows[SHARED], columns)), batched_grads
                    self._backward(values, grads, 1.0, wanted, exact)
                    if buffer == SHARED:
                        self._backward_shared(values, grads, exact)
                    gradients[:, tile] = grads[buffer][:size]
                    if np.isfinite(gradients[:, tile]).all():
                        break
        return gradients

    def _tiles(self, batch: int) -> Iterator[slice]:
        size = max(MIN_TILE, TILE_BYTES // (8 * 2 * max(1, sum(self.layout.rows))))
        return (slice(start, min(start + size, batch)) for start in range(0, batch, size))

    def _forward_shared(self, theta: Array) -> Array:
        shared = np.empty((self.layout.rows[SHARED], 1))
        shared[: len(theta), 0] = theta
        shared[self.layout.row[self._constants], 0] = self.graph.value[self._constants]
        values = shared, np.empty((0, 1))
        for kernel in self._shared:
            kernel.forward(values)
        return shared

    def _forward(self, shared: Array, inputs: Array) -> Buffers:
        values = shared, np.empty((self.layout.rows[BATCHED], inputs.shape[1]))
        values[BATCHED][: len(inputs)] = inputs
        for kernel in self._batched:
            kernel.forward(values)
        return values

    def _read(self, values: Buffers, outputs: Array) -> None:
        for k, (buffer, row) in enumerate(self._outputs):
            outputs[k] = values[buffer][row]

    def _backward(
        self, values: Buffers, grads: Buffers, weight: float, wanted: int, exact: bool
    ) -> None:
        buffer, row = self._outputs[0]
        # a column of a gradient buffer sums over one sample or, where it is alone, over all
        grads[buffer][row] += weight * (values[BATCHED].shape[1] // grads[buffer].shape[1])
        for kernel in reversed(self._batched):
            if kernel.out.origin & wanted:
                kernel.adjoint(values, grads, wanted, exact)

    def _backward_shared(self, values: Buffers, grads: Buffers, exact: bool) -> None:
        for kernel in reversed(self._shared):
            if kernel.out.origin:
                kernel.adjoint(values, grads, FROM_PARAMETERS, exact)
