"""The plain sweep: one call per group of equal ops, exactly what the scalar engine computes.

It is what `fuse=False` runs, and what the fused sweep falls back on where it meets inf or nan. Read
it first: the layout, the kernel of a group, and the two sweeps over a batch, tile by tile.

Nodes that no input reaches are shared: computed once, in a buffer of shape (rows, 1). The others
are batched, in a buffer of shape (rows, samples). Nodes of one level, one op and one kind of
operands form a group; a group takes consecutive rows and runs as one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Array
from .graph import BATCHED, FROM_INPUTS, FROM_PARAMETERS, SHARED, Graph
from .memory import require_buffers
from .passes import Duplicates, duplicates, origins

# --- layout ---------------------------------------------------------------------------------------

Rows = slice | NDArray[np.int32]  # a slice where they are consecutive


class Place(NamedTuple):
    """Rows of one of the two buffers, and what is computed there."""

    buffer: int
    rows: Rows
    origin: int  # FROM_... bits


class Group(NamedTuple):
    """Nodes of one op on one level: where their results go, and where each operand lies."""

    level: int
    op: ops.Op
    out: Place
    operands: tuple[Place, ...]

    @property
    def size(self) -> int:
        """How many nodes there are."""
        assert isinstance(self.out.rows, slice)
        return int(self.out.rows.stop - self.out.rows.start)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The layout of the buffers, and the groups in the order in which they run."""

    buffer: NDArray[np.uint8]  # (n,) SHARED or BATCHED
    row: NDArray[np.int32]  # (n,) its row there: inputs and parameters come first, in order
    rows: tuple[int, int]  # how many rows each buffer has
    groups: list[Group]


def schedule(graph: Graph) -> Schedule:
    """Lay out the nodes of `graph` and group them, level by level."""
    origin = origins(graph)
    buffer = (origin[:-1] & FROM_INPUTS).astype(np.uint8)
    of_parents = origin[graph.parents]  # (n, 3), 0 where there is no parent
    kind = of_parents @ np.array([1, 4, 16])
    constants = np.flatnonzero(graph.op == ops.const.code)
    computed = np.flatnonzero(graph.level)
    computed = computed[np.lexsort((kind[computed], graph.op[computed], graph.level[computed]))]
    order = np.concatenate([graph.inputs, graph.parameters, constants, computed])
    row = np.empty(len(graph), np.int32)
    rows = []
    for side in (SHARED, BATCHED):
        nodes = order[buffer[order] == side]
        row[nodes] = np.arange(len(nodes))
        rows.append(len(nodes))
    keys = np.stack([graph.level[computed], graph.op[computed], kind[computed]])
    starts = np.flatnonzero(np.diff(keys, prepend=-1).any(axis=0))
    groups = list(_groups(graph, origin, row, computed, starts))
    return Schedule(buffer, row, (rows[SHARED], rows[BATCHED]), groups)


def _groups(
    graph: Graph,
    origin: NDArray[np.uint8],
    row: NDArray[np.int32],
    computed: NDArray[np.intp],
    starts: NDArray[np.intp],
) -> Iterator[Group]:
    """One group per start; the passes over nodes are NumPy's, what is left is per group."""
    ends = np.append(starts, len(computed))[1:]
    first = computed[starts]
    parent_rows = row[graph.parents[computed]]
    # how many times, up to each node, an operand's rows have stopped being consecutive
    breaks = np.cumsum(np.diff(parent_rows, axis=0, prepend=0) != 1, axis=0)
    columns = (
        graph.level[first].tolist(),
        starts.tolist(),
        ends.tolist(),
        graph.op[first].tolist(),
        row[first].tolist(),
        origin[first].tolist(),
        parent_rows[starts].tolist(),
        origin[graph.parents[first]].tolist(),
        (breaks[starts] == breaks[ends - 1]).tolist(),
    )
    for level, start, end, code, out_row, out_origin, first_rows, kinds, consecutive in zip(
        *columns
    ):
        op, size = ops.OPS[code], end - start
        operands = []
        for k in range(len(op.vjp)):
            rows: Rows = (
                slice(first_rows[k], first_rows[k] + size)
                if consecutive[k]
                else parent_rows[start:end, k]
            )
            operands.append(Place(kinds[k] & FROM_INPUTS, rows, kinds[k]))
        out = Place(out_origin & FROM_INPUTS, slice(out_row, out_row + size), out_origin)
        yield Group(level, op, out, tuple(operands))


# --- the kernel of a group ------------------------------------------------------------------------

Buffers = tuple[Array, Array]  # the shared and the batched one; the shared has one column


class Map:
    """The nodes of one op on one level, element by element."""

    __slots__ = ("op", "operands", "out", "rules")

    def __init__(self, group: Group) -> None:
        _, self.op, self.out, self.operands = group
        self.rules = [
            (vjp, *place, None if isinstance(place.rows, slice) else duplicates(place.rows))
            for vjp, place in zip(self.op.vjp, self.operands)
            if vjp is not None and place.origin
        ]

    def forward(self, values: Buffers) -> None:
        """Compute the group's rows from those of its operands."""
        operands = [values[buffer][rows] for buffer, rows, _ in self.operands]
        buffer, rows, _ = self.out
        values[buffer][rows] = self.op.forward(*operands)

    def adjoint(self, values: Buffers, grads: Buffers, wanted: int, exact: bool) -> None:
        """Add what the group's gradient gives to each operand that comes from what is wanted.

        With `exact` a gradient of 0 gives 0, even times inf or nan; the same but for that, and
        faster, without.
        """
        buffer, rows, _ = self.out
        g = grads[buffer][rows]
        arguments = [values[buffer][rows]]
        arguments += [values[buffer][rows] for buffer, rows, _ in self.operands]
        for vjp, buffer, rows, origin, runs in self.rules:
            if origin & wanted:
                gradient = vjp(g, *arguments)
                if exact:
                    gradient = np.where(g == 0, 0.0, gradient)
                _add(grads[buffer], rows, runs, gradient)


def _add(
    buffer: Array,
    rows: Rows,
    runs: Duplicates | None,
    gradient: Array,
) -> None:
    """Add `gradient`, a row for each row named, summed over the batch where the buffer is."""
    if gradient.shape[1] > buffer.shape[1]:
        gradient = gradient.sum(axis=1, keepdims=True)
    if runs is not None:
        order, starts, rows = runs
        gradient = np.add.reduceat(gradient[order], starts, axis=0)
    if isinstance(rows, slice):
        target = buffer[rows]
        target += gradient
    else:
        buffer[rows] += gradient


# --- sweeps ---------------------------------------------------------------------------------------

TILE_BYTES = 1 << 24  # what the buffers of one tile may take, so that memory does not grow with B
MIN_TILE = 16  # samples; fewer would spend more time on calls than on numbers


class PlainSweep:
    """A graph, laid out and ready to run; it holds no state between calls.

    P parameters, K inputs, M outputs and a batch of B samples, which lie along the last axis
    throughout: theta is (P,), inputs are (K, B). What is shared runs once in each direction, what
    is batched once per tile. Nothing warns: results are IEEE 754's.
    """

    def __init__(self, graph: Graph, tile: int | None, dtype: np.dtype[Any]) -> None:
        self.graph, self.dtype = graph, dtype
        self.layout = schedule(graph)
        item, rows = dtype.itemsize, self.layout.rows
        row_bytes = 2 * item * max(1, sum(rows))
        self.tile = tile or max(MIN_TILE, TILE_BYTES // row_bytes)  # samples that run at a time
        largest = max((group.size for group in self.layout.groups), default=0)
        # the bytes that one tile takes at most: what is shared, and what is needed per sample
        self._at_most = 2 * item * rows[SHARED], item * (2 * rows[BATCHED] + 8 * largest)
        kernels = [Map(group) for group in self.layout.groups]
        self._shared = [kernel for kernel in kernels if kernel.out.buffer == SHARED]
        self._batched = [kernel for kernel in kernels if kernel.out.buffer == BATCHED]
        places = self.layout.buffer[graph.outputs], self.layout.row[graph.outputs]
        self._outputs = list(zip(*(place.tolist() for place in places)))
        self._constants = np.flatnonzero(graph.op == ops.const.code)

    def outputs(self, theta: Array, inputs: Array) -> Array:
        """Every output for every sample, (M, B)."""
        outputs = np.empty((len(self._outputs), inputs.shape[1]), self.dtype)
        with np.errstate(all="ignore"):
            shared = self._forward_shared(theta)
            for tile in self._tiles(inputs.shape[1]):
                values = self._forward(shared, inputs[:, tile])
                self._read(values, outputs[:, tile])
        return outputs

    def gradient(self, theta: Array, inputs: Array, weight: float) -> tuple[Array, Array]:
        """Every output, (M, B), and the gradient of weight times the sum of output 0, (P,)."""
        outputs = np.empty((len(self._outputs), inputs.shape[1]), self.dtype)
        with np.errstate(all="ignore"):
            shared = self._forward_shared(theta)
            for exact in (False, True):
                shared_grads = np.zeros((self.layout.rows[SHARED], 1), self.dtype)
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

    def input_gradients(self, theta: Array, inputs: Array) -> tuple[float, Array]:
        """The sum of output 0, and its gradient to the inputs, per sample, (K, B)."""
        gradients, value = np.empty_like(inputs), 0.0
        buffer, row = self._outputs[0]
        with np.errstate(all="ignore"):
            shared = self._forward_shared(theta)
            for tile in self._tiles(inputs.shape[1]):
                values = self._forward(shared, inputs[:, tile])
                objective = np.broadcast_to(values[buffer][row], gradients[0:1, tile].shape)
                value += float(np.add.reduce(objective, axis=None))
                for exact in (False, True):
                    grads = np.zeros_like(shared), np.zeros_like(values[BATCHED])
                    self._backward(values, grads, 1.0, FROM_INPUTS, exact)
                    gradients[:, tile] = grads[BATCHED][: len(inputs)]
                    if np.isfinite(gradients[:, tile]).all():
                        break
        return value, gradients

    def admit(self, width: int, wanted: int, exact: bool, workers: int = 1, taken: int = 0) -> None:
        """Raise OutOfMemoryError where tiles of this width would take too much, whatever is wanted.

        `workers` is how many run at once, `taken` how many bytes the call needs besides.
        """
        require_buffers(width, *self._at_most, workers, taken)

    def _tiles(self, batch: int) -> Iterator[slice]:
        self.admit(min(self.tile, batch), 0, False)
        return (slice(start, min(start + self.tile, batch)) for start in range(0, batch, self.tile))

    def _forward_shared(self, theta: Array) -> Array:
        shared = np.empty((self.layout.rows[SHARED], 1), self.dtype)
        shared[: len(theta), 0] = theta
        shared[self.layout.row[self._constants], 0] = self.graph.value[self._constants]
        values = shared, np.empty((0, 1), self.dtype)
        for kernel in self._shared:
            kernel.forward(values)
        return shared

    def _forward(self, shared: Array, inputs: Array) -> Buffers:
        values = shared, np.empty((self.layout.rows[BATCHED], inputs.shape[1]), self.dtype)
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
        # the one column of the shared buffer sums over all samples
        grads[buffer][row] += weight * (values[BATCHED].shape[1] // grads[buffer].shape[1])
        for kernel in reversed(self._batched):
            if kernel.out.origin & wanted:
                kernel.adjoint(values, grads, wanted, exact)

    def _backward_shared(self, values: Buffers, grads: Buffers, exact: bool) -> None:
        for kernel in reversed(self._shared):
            if kernel.out.origin:
                kernel.adjoint(values, grads, FROM_PARAMETERS, exact)
