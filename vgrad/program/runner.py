"""One recorded graph and the sweeps that can run it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .. import ops
from ..arguments import FLOAT64, Array, Shape
from ..compiler import FusedSweep, Plan, compile_plan
from ..flat import Graph, PlainSweep, tangent

Sweep = FusedSweep | PlainSweep


class Runner:
    """A graph, ready to run over batches; it holds no state that a call could see.

    Three sweeps can run it, with the same methods: the quick one; the careful one, in which maps
    keep gradients of 0 even where they meet inf or nan; and the plain one, which computes what the
    scalar engine does. The first two sum in another order. `call.py` chooses among them.
    """

    def __init__(
        self,
        graph: Graph,
        fuse: bool = True,
        tile: int | None = None,
        dtype: np.dtype[Any] = FLOAT64,
    ) -> None:
        self.graph, self.fuse, self.tile, self.dtype = graph, fuse, tile, dtype
        shape = graph.output_shapes
        while isinstance(shape, list):
            shape = shape[0]
        self.objective_shape: Shape = shape  # of output 0

    def __reduce__(self) -> Any:
        return _restored, (self._pickled,)

    @cached_property
    def _pickled(self) -> bytes:
        plain_data = replace(self.graph, leaves=())
        return pickle.dumps((plain_data, self.fuse, self.tile, self.dtype), pickle.HIGHEST_PROTOCOL)

    # --- sweeps ---

    @cached_property
    def plan(self) -> Plan:
        """The compiled graph, which the quick and the careful sweep have in common."""
        return compile_plan(self.graph)

    @cached_property
    def quick(self) -> FusedSweep:
        """The fused sweep."""
        return FusedSweep(self.plan, self.tile, self.dtype)

    @cached_property
    def careful(self) -> FusedSweep:
        """The fused sweep that keeps gradients of 0 in maps."""
        return FusedSweep(self.plan, self.tile, self.dtype, careful=True)

    @cached_property
    def plain(self) -> PlainSweep:
        """The plain sweep; if others run before it, it is careful from the start."""
        return PlainSweep(self.graph, self.tile, self.dtype, careful=self.fuse)

    @property
    def first(self) -> Sweep:
        """The sweep that runs if all is finite."""
        return self.quick if self.fuse else self.plain

    def sweep(self, name: str) -> Sweep:
        """The sweep of this name: "quick", "careful" or "plain"."""
        sweep: Sweep = getattr(self, name)
        return sweep

    def can_fuse(self, theta: Array) -> bool:
        """Whether the fused sweeps may run; if products stand for choices, theta must be finite."""
        return self.fuse and not (self.plan.fused.picks and not np.isfinite(theta).all())

    # --- the same graph with other inputs or outputs ---

    @cached_property
    def per_sample(self) -> Runner:
        """The same with the parameters as one more input, for their gradients per sample."""
        graph = self.graph
        op = graph.op.copy()
        op[graph.parameters] = ops.input.code
        as_inputs = replace(
            graph,
            op=op,
            inputs=np.concatenate([graph.inputs, graph.parameters]),
            parameters=graph.parameters[:0],
            input_shapes=(*graph.input_shapes, graph.parameters.shape),
            leaves=(),
        )
        return Runner(as_inputs, self.fuse, self.tile, self.dtype)

    @cached_property
    def along(self) -> Runner:
        """The derivative of output 0 along a direction v, as a function of theta and v, (2 P,)."""
        return Runner(tangent(self.graph), self.fuse, self.tile, self.dtype)


@lru_cache(maxsize=8)  # a worker meets the same program with every task
def _restored(pickled: bytes) -> Runner:
    return Runner(*pickle.loads(pickled))
