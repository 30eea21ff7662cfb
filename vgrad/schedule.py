"""When and where: which nodes run together, and which row of which buffer each of them gets.

Nodes that no input reaches are shared: computed once, in a buffer of shape (rows, 1). The others
are batched, in a buffer of shape (rows, samples). Nodes of one level, one op and one kind of
operands form a group; a group takes consecutive rows and runs as one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ops
from .graph import Graph

SHARED, BATCHED = 0, 1  # the two buffers
FROM_INPUTS, FROM_PARAMETERS = 1, 2  # bits that say what a node is computed from
# The bit of what comes from inputs is also the number of the buffer: origin & FROM_INPUTS.
assert FROM_INPUTS == BATCHED

Rows = slice | NDArray[np.int32]  # a slice where they are consecutive


class Place(NamedTuple):
    """Rows of one of the two buffers, and what is computed there."""

    buffer: int
    rows: Rows
    origin: int  # FROM_... bits


class Group(NamedTuple):
    """Nodes of one op on one level: where their results go, and where each operand lies."""

    op: ops.Op
    out: Place
    operands: tuple[Place, ...]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The layout of the buffers, and the groups in the order in which they run."""

    buffer: NDArray[np.uint8]  # (n,) SHARED or BATCHED
    row: NDArray[np.int32]  # (n,) its row there: inputs and parameters come first, in order
    rows: tuple[int, int]  # how many rows each buffer has
    groups: list[Group]


def schedule(graph: Graph) -> Schedule:
    """Lay out the nodes of `graph` and group them, level by level."""
    origin = _origins(graph)
    buffer = (origin[:-1] & FROM_INPUTS).astype(np.uint8)
    origins = origin[graph.parents]  # (n, 3), 0 where there is no parent
    kind = origins @ np.array([1, 4, 16])
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


def _origins(graph: Graph) -> NDArray[np.uint8]:
    """(n + 1,) what each node is computed from, as FROM_... bits; the last stands for no parent."""
    origin = np.zeros(len(graph) + 1, np.uint8)
    origin[graph.inputs] = FROM_INPUTS
    origin[graph.parameters] = FROM_PARAMETERS
    bits = origin.tolist()
    # The one pass that goes node by node: NumPy would take a call per level, slower in deep graphs.
    for node, (x, y, z) in enumerate(graph.parents.tolist()):
        bits[node] |= bits[x] | bits[y] | bits[z]
    return np.array(bits, np.uint8)


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
        starts.tolist(),
        ends.tolist(),
        graph.op[first].tolist(),
        row[first].tolist(),
        origin[first].tolist(),
        parent_rows[starts].tolist(),
        origin[graph.parents[first]].tolist(),
        (breaks[starts] == breaks[ends - 1]).tolist(),
    )
    for start, end, code, out_row, out_origin, first_rows, origins, consecutive in zip(*columns):
        op, size = ops.OPS[code], end - start
        operands = []
        for k in range(len(op.vjp)):
            rows: Rows = (
                slice(first_rows[k], first_rows[k] + size)
                if consecutive[k]
                else parent_rows[start:end, k]
            )
            operands.append(Place(origins[k] & FROM_INPUTS, rows, origins[k]))
        out = Place(out_origin & FROM_INPUTS, slice(out_row, out_row + size), out_origin)
        yield Group(op, out, tuple(operands))
