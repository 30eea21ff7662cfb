"""The plain sweep: one call per group of equal ops, exactly what the scalar engine computes.

`fuse=False` runs it, and it has the last word after inf or nan. Read it first: the kernel of a
group, the layout, and the sweeps over a batch, tile by tile.

Nodes that no input reaches are shared: computed once, in a buffer of shape (rows, 1). The others
are batched, in a buffer of shape (rows, samples). Nodes of one level, one op and one kind of
operands form a group; a group takes consecutive rows and runs as one call. So the graph of
tanh(w * x0) + tanh(w * x1), where x0 and x1 are inputs and w is a parameter, has the rows

    shared    0  w
    batched   0  x0      2  w * x0      4  tanh(w * x0)      6  the sum
              1  x1      3  w * x1      5  tanh(w * x1)

and three groups: rows 2:4 are shared 0 times 0:2, rows 4:6 are tanh of 2:4, row 6 is 4 plus 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite, nan
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Array
from .graph import BATCHED, FROM_INPUTS, FROM_PARAMETERS, SHARED, Graph
from .memory import require_buffers
from .passes import origins, spans
from .rows import Rows, as_slice
from .summary import KernelSummary, ReadSummary, SweepSummary

Inputs = Sequence[Array]  # one per argument of a call, (B, ...)
Buffers = tuple[Array, Array]  # the shared and the batched one; the shared has one column
Views = list[list[Array] | None]  # the arguments of each kernel; None if some are copies
# How a gradient of 0 passes through inf and nan: as nan, as 0, or as nan where it was computed, and
# as 0 into branches that were not taken.
Zeros = Literal["quick", "careful", "strict"]


class Map:
    """The kernel of a group: n nodes of one op on one level, computed element by element."""

    def __init__(
        self, level: int, op: ops.Op, nodes: NDArray[np.intp], out: Rows, operands: list[Rows]
    ) -> None:
        self.level, self.op, self.nodes, self.out, self.operands = level, op, nodes, out, operands
        self.ufunc = op.operator  # this and the rest is looked up once, for the hot paths below
        self.places = [(x.buffer, x.rows) for x in (out, *operands)]
        self.has_views = all(isinstance(rows, slice) for _, rows in self.places)
        self.rules = [(vjp, x) for vjp, x in zip(op.vjp, operands) if vjp is not None and x.origin]

    def arguments(self, values: Buffers) -> list[Array]:
        """The group's rows and those of its operands."""
        return [values[buffer][rows] for buffer, rows in self.places]

    def forward(self, values: Buffers) -> list[Array] | None:
        """Compute the group's rows; returns the arguments for the adjoint if all are views."""
        out, *operands = arguments = self.arguments(values)
        if self.ufunc is not None:
            self.ufunc(*operands, out)
        else:
            out[...] = self.op.forward(*operands)
        return arguments if self.has_views else None

    def adjoint(
        self, arguments: list[Array], grads: Buffers, wanted: int, gates: Buffers | None
    ) -> None:
        """Add the group's gradient to that of each operand computed from the wanted leaves.

        Where a node has 0 in `gates`, it passes on 0, even times inf or nan. Hot path.
        """
        g = grads[self.out.buffer][self.out.rows]
        gate = g if gates is None else gates[self.out.buffer][self.out.rows]
        some_zero = gates is not None and np.count_nonzero(gate) < gate.size
        for vjp, x in self.rules:
            if not x.origin & wanted:
                continue
            part = vjp(g, *arguments)
            if some_zero:
                part = np.where(gate == 0, 0.0, part)
            if x.buffer < self.out.buffer:  # a shared operand's gradient sums over the samples
                part = np.add.reduce(part, axis=1, keepdims=True)
            target, rows = grads[x.buffer], x.rows
            if isinstance(rows, slice):
                view = target[rows]
                view += part  # `target[rows] += part` would copy the view onto itself
            elif x.duplicates is None:
                target[rows] += part
            else:
                order, starts, rows = x.duplicates
                target[rows] += np.add.reduceat(part[order], starts, axis=0)

    def summary(self, graph: Graph) -> KernelSummary:
        """The kernel as `explain` and pictures show it."""
        n, name = len(self.nodes), self.op.name
        result, *operands = (
            ReadSummary(isinstance(x.rows, slice), (n,), bool(x.buffer))
            for x in (self.out, *self.operands)
        )
        head = self.level, name, f"{n:,} × {name}", n, n
        reads = graph.parents[self.nodes, : self.op.arity].reshape(-1)
        return KernelSummary(*head, self.nodes, reads, result, operands)


class Layout(NamedTuple):
    """The rows of the buffers, and the kernels, level by level."""

    buffer: NDArray[np.uint8]  # (n,) SHARED or BATCHED
    row: NDArray[np.int32]  # (n,) its row there: inputs, parameters and constants come first
    rows: tuple[int, int]  # how many rows each buffer has
    kernels: list[Map]


def lay_out(graph: Graph) -> Layout:
    """Give the nodes of `graph` their rows, and group them, level by level."""
    origin = origins(graph)
    buffer = (origin[:-1] & FROM_INPUTS).astype(np.uint8)
    kind = origin[graph.parents] @ np.array([1, 4, 16])  # (n,) where its operands come from
    constants = np.flatnonzero(graph.op == ops.const.code)
    computed = np.flatnonzero(graph.level)
    computed = computed[np.lexsort((kind[computed], graph.op[computed], graph.level[computed]))]
    order = np.concatenate([graph.inputs, graph.parameters, constants, computed])
    row = np.empty(len(graph), np.int32)
    for side in (SHARED, BATCHED):
        nodes = order[buffer[order] == side]
        row[nodes] = np.arange(len(nodes))
    kernels = []
    parent_rows, parent_origin = row[graph.parents[computed]], origin[graph.parents[computed]]
    for a, b in spans(graph.level[computed], graph.op[computed], kind[computed]):
        first = computed[a]
        op, start = ops.OPS[graph.op[first]], int(row[first])
        out = Rows(int(buffer[first]), slice(start, start + b - a), int(origin[first]))
        operands = [
            Rows(bits & FROM_INPUTS, as_slice(parent_rows[a:b, k]), bits)
            for k, bits in enumerate(parent_origin[a, : op.arity].tolist())
        ]
        kernels.append(Map(int(graph.level[first]), op, computed[a:b], out, operands))
    batched = int(buffer.sum())
    return Layout(buffer, row, (len(graph) - batched, batched), kernels)


BUFFER_BYTES = 1 << 24  # what one tile's buffers may take, so that memory does not grow with B
MIN_TILE = 16  # samples; fewer would spend more time on calls than on numbers


class PlainSweep:
    """A graph, laid out and ready to run; it holds no state between calls.

    P parameters, K inputs, M outputs and a batch of B samples, cut into tiles; theta is (P,).
    Shared kernels run once in each direction, batched ones once per tile. Results follow IEEE 754;
    the caller silences NumPy's warnings.

    The careful backward sweep is exact, and the quick one is too where its gradients are finite.
    The strict one has gradients of nan where a gradient of 0 met inf or nan by arithmetic. Along
    with it goes a gradient of nan, which reaches all but the branches that were not taken: there
    rules give 0, whatever arrives. Nodes that it does not reach pass nothing on.
    """

    def __init__(
        self, graph: Graph, tile: int | None, dtype: np.dtype[Any], zeros: Zeros = "quick"
    ) -> None:
        self.graph, self.dtype, self.layout, self.zeros = graph, dtype, lay_out(graph), zeros
        self._buffers = 3 if zeros == "strict" else 2  # values, gradients, and which are reached
        item, (shared, batched), kernels = dtype.itemsize, self.layout.rows, self.layout.kernels
        self.tile = tile or max(
            MIN_TILE, BUFFER_BYTES // (self._buffers * item * max(1, shared + batched))
        )
        largest = max((len(kernel.nodes) for kernel in kernels), default=0)
        # the most bytes that a tile can take: for the shared rows, and for each sample
        self._at_most = (
            self._buffers * item * shared,
            item * (self._buffers * batched + 8 * largest),
        )
        self._shared = [kernel for kernel in kernels if kernel.out.buffer == SHARED]
        self._batched = [kernel for kernel in kernels if kernel.out.buffer == BATCHED]
        places = self.layout.buffer[graph.outputs], self.layout.row[graph.outputs]
        self._outputs = list(zip(*(place.tolist() for place in places)))
        self._constants = graph.value[graph.op == ops.const.code]

    def outputs(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Every output for every sample, (M, B)."""
        outputs = np.empty((len(self._outputs), batch), self.dtype)
        for samples, values, _ in self._forward(theta, arrays, batch, tile):
            self._read(values, outputs[:, samples])
        return outputs

    def gradient(
        self, theta: Array, arrays: Inputs, batch: int, tile: int, divisor: float, aux: bool = False
    ) -> tuple[float, Array, Array | None]:
        """The sum of output 0 over the batch, by `divisor`, its gradient (P,), and with `aux`
        every output, (M, B).

        Of a path only the samples that follow it count; without `aux`, their answers come last,
        (Q, B).
        """
        outputs = np.empty((len(self._outputs), batch), self.dtype)
        sheets, grads = self._sheets(SHARED, 1), None
        for values, views in self._followed(theta, arrays, batch, tile, outputs):
            grads = self._backward(values, views, sheets, 1 / divisor, FROM_PARAMETERS)
        if grads is not None:
            for kernel in reversed(self._shared):
                self._adjoint(kernel, kernel.arguments(values), grads, FROM_PARAMETERS)
        gradient = sheets[-1][: len(theta), 0]
        graph = self.graph
        objective = outputs[0, graph.follows(outputs)] if graph.questions else outputs[0]
        value = np.add.reduce(objective) / divisor
        if not isfinite(value):  # a mean may be finite where the sum is not
            value = np.add.reduce(objective / divisor)
        answers = outputs[len(outputs) - len(graph.questions) :] if graph.questions else None
        return float(value), gradient.copy(), outputs if aux else answers

    def input_gradients(self, theta: Array, arrays: Inputs, batch: int, tile: int) -> Array:
        """Output 0 for every sample, its gradient to the inputs, and the sample's answers to the Q
        questions of a path, (1 + K + Q, B)."""
        questions, inputs = len(self.graph.questions), len(self.graph.inputs)
        result = np.empty((1 + inputs + questions, batch), self.dtype)
        buffer, row = self._outputs[0]
        asked = self._outputs[len(self._outputs) - questions :]
        for samples, values, views in self._forward(theta, arrays, batch, tile):
            result[0, samples] = values[buffer][row]
            grads = self._backward(values, views, self._sheets(SHARED, 1), 1.0, FROM_INPUTS)
            result[1 : 1 + inputs, samples] = grads[-1][BATCHED][:inputs]
            for k, (buffer_of, row_of) in enumerate(asked, start=1 + inputs):
                result[k, samples] = values[buffer_of][row_of]
        return result

    def _followed(
        self, theta: Array, arrays: Inputs, batch: int, tile: int, outputs: Array
    ) -> Iterator[tuple[Buffers, Views]]:
        """The values of all nodes, tile by tile, for the samples that follow the path: where some
        leave it, it goes forward again without them. Outputs are those of every sample, (M, B)."""
        for samples, values, views in self._forward(theta, arrays, batch, tile):
            self._read(values, outputs[:, samples])
            if self.graph.questions:
                stay = self.graph.follows(outputs[:, samples])
                if not stay.any():
                    continue
                if not stay.all():
                    some = [array[samples][stay] for array in arrays]
                    values, views = self._values(values[SHARED], some, int(stay.sum()))
            yield values, views

    def _forward(
        self, theta: Array, arrays: Inputs, batch: int, tile: int
    ) -> Iterator[tuple[slice, Buffers, Views]]:
        """The samples of each tile, the values of all nodes for them, views for the adjoints."""
        self.admit(min(tile, batch), 0)
        shared = np.empty((self.layout.rows[SHARED], 1), self.dtype)
        leaves = np.concatenate([theta, self._constants])
        shared[: len(leaves), 0] = leaves
        for kernel in self._shared:
            kernel.forward((shared, shared))
        for start in range(0, batch, tile):
            samples = slice(start, min(start + tile, batch))
            some = [array[samples] for array in arrays]
            yield samples, *self._values(shared, some, samples.stop - start)

    def _values(self, shared: Array, arrays: Inputs, width: int) -> tuple[Buffers, Views]:
        """The values of all nodes for the samples of a tile, and views for the adjoints."""
        values = shared, np.empty((self.layout.rows[BATCHED], width), self.dtype)
        if arrays:
            inputs = [array.reshape(width, -1).T for array in arrays]
            values[BATCHED][: len(self.graph.inputs)] = np.concatenate(inputs)
        return values, [kernel.forward(values) for kernel in self._batched]

    def _sheets(self, buffer: int, width: int) -> list[Array]:
        """Zeros for gradients of a buffer's rows; before them, if strict, for what is reached."""
        shape = self.layout.rows[buffer], width
        return [np.zeros(shape, self.dtype) for _ in range(self._buffers - 1)]

    def _backward(
        self, values: Buffers, views: Views, shared: list[Array], seed: float, wanted: int
    ) -> list[Buffers]:
        """The gradients for one tile, if output 0's is `seed`; those of shared nodes are added to
        the columns `shared`, and go on from there only once all tiles are done."""
        width = values[BATCHED].shape[1]
        sheets = list(zip(shared, self._sheets(BATCHED, width)))
        buffer, row = self._outputs[0]
        for grads, start in zip(sheets[::-1], (seed, nan)):
            # the one column of the shared buffer sums over all samples
            grads[buffer][row] += start * (width // grads[buffer].shape[1])
        for kernel, arguments in zip(reversed(self._batched), reversed(views)):
            if kernel.out.origin & wanted:
                self._adjoint(kernel, arguments or kernel.arguments(values), sheets, wanted)
        return sheets

    def _adjoint(
        self, kernel: Map, arguments: list[Array], sheets: list[Buffers], wanted: int
    ) -> None:
        """Carry gradients through a kernel; if strict, first what is reached."""
        gates = None if self.zeros == "quick" else sheets[0]
        for grads in sheets:
            kernel.adjoint(arguments, grads, wanted, gates)

    def _read(self, values: Buffers, outputs: Array) -> None:
        for k, (buffer, row) in enumerate(self._outputs):
            outputs[k] = values[buffer][row]

    def width(self, batch: int) -> int:
        """How many samples each tile of a batch has, save the last."""
        return min(self.tile, batch)

    def tile_for(self, batch: int) -> int:
        """The same: no width is dearer than another here."""
        return min(self.tile, batch)

    def memory(self, width: int) -> int:
        """The bytes that the buffers of one tile take."""
        return self._buffers * self.dtype.itemsize * sum(self.layout.rows) * width

    def admit(self, width: int, wanted: int, workers: int = 1, taken: int = 0) -> None:
        """Raise OutOfMemoryError unless `workers` tiles of this width and `taken` bytes fit."""
        require_buffers(width, *self._at_most, workers, taken)

    def summary(self) -> SweepSummary:
        """The kernels as `explain` and pictures show them."""
        kernels = [kernel.summary(self.graph) for kernel in self.layout.kernels]
        n = len(self.graph)
        return SweepSummary(kernels, n, self.graph.outputs, np.arange(n))
