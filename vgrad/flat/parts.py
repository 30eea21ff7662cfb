"""Graphs made of a graph: a part of it, or the same with more parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Structure
from ..engine import Value
from .graph import Graph


def needed(graph: Graph, nodes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(n + 1,) these nodes and all that they are computed from; the last entry is for no parent.

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x, y: (x + 1, x * y), (), ())
    >>> needed(graph, graph.outputs[:1])  # of 1, x, y, x + 1, x * y
    array([ True,  True, False,  True, False, False])
    """
    bits = bytearray(len(graph) + 1)
    mask = np.frombuffer(bits, np.bool_)  # the same memory, for Python and for NumPy
    if not len(nodes):
        return mask
    mask[nodes] = True
    for node, (x, y, z) in zip(range(len(graph))[::-1], graph.parents[::-1].tolist()):
        if bits[node]:
            bits[x] = bits[y] = bits[z] = True
    bits[-1] = False
    return mask


def asked(graph: Graph) -> NDArray[np.bool_]:
    """(n + 1,) the nodes that are asked about and all that they are computed from.

    Of what a path's answers depend on every bit counts, as some sample may lie on the very edge of
    a branch.
    """
    return needed(graph, graph.outputs[len(graph.outputs) - len(graph.questions) :])


def part(graph: Graph, outputs: NDArray[np.int32], shapes: Structure) -> Graph:
    """The graph with these nodes as the only outputs, and without what they do not need.

    Inputs and parameters stay, in their order.
    """
    kept = needed(graph, np.concatenate([outputs, graph.inputs, graph.parameters]))[:-1]
    new = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(np.int32)
    return replace(
        graph,
        op=graph.op[kept],
        parents=new[graph.parents[kept]],
        value=graph.value[kept],
        level=graph.level[kept],
        inputs=new[graph.inputs],
        parameters=new[graph.parameters],
        outputs=new[outputs],
        output_shapes=shapes,
        labels={int(new[i]): text for i, text in graph.labels.items() if kept[i]},
        lines={int(new[i]): text for i, text in graph.lines.items() if kept[i]},
    )


def with_parameters(graph: Graph, leaves: Sequence[Value]) -> Graph:
    """The graph with more parameters, which it does not use, behind its own: `leaves` are all."""
    more = leaves[len(graph.parameters) :]
    if not more:
        return graph
    n, count = len(graph), len(more)
    return replace(
        graph,
        op=np.append(graph.op, np.full(count, ops.parameter.code, np.uint8)),
        parents=np.pad(graph.parents, ((0, count), (0, 0)), constant_values=-1),
        value=np.append(graph.value, [leaf._number for leaf in more]),
        level=np.pad(graph.level, (0, count)),
        parameters=np.append(graph.parameters, np.arange(n, n + count, dtype=np.int32)),
        leaves=tuple(leaves),
    )
