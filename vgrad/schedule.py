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
    groups: Iterator[Group]


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
    groups = _groups(graph, origin, row, computed, starts)
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
    parents = graph.parents[computed]
    out_rows, rows = row[computed], row[parents]
    # breaks[i] counts the places before i where an operand's rows stop being consecutive
    breaks = np.cumsum(np.diff(rows, axis=0, prepend=0) != 1, axis=0).tolist()
    first_row, first_out = rows[starts].tolist(), out_rows[starts].tolist()
    heads = computed[starts]
    origins, out_origin = origin[graph.parents[heads]].tolist(), origin[heads].tolist()
    codes = graph.op[heads].tolist()
    ends = np.append(starts[1:], len(computed)).tolist()
    for i, (start, end) in enumerate(zip(starts.tolist(), ends)):
        op = ops.OPS[codes[i]]
        size = end - start
        operands = []
        for k in range(op.arity):
            at: Rows
            if breaks[end - 1][k] == breaks[start][k]:
                at = slice(first_row[i][k], first_row[i][k] + size)
            else:
                at = rows[start:end, k]
            operands.append(Place(origins[i][k] & FROM_INPUTS, at, origins[i][k]))
        out = slice(first_out[i], first_out[i] + size)
        yield Group(op, Place(out_origin[i] & FROM_INPUTS, out, out_origin[i]), tuple(operands))
