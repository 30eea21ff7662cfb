"""Graphs made of a graph: a part of it, the same with other leaves; and a graph in a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Structure, arranged, cut
from ..arrays import array_of, as_operands, boxed
from ..engine import Value
from ..errors import ShapeError
from ..operand import Operand
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


def shared(graph: Graph, arguments: Sequence[int]) -> Graph:
    """The graph with some of its arguments as parameters, behind its own: all samples share them.

    >>> import vgrad
    >>> graph = shared(vgrad.trace(lambda x, y: x * y, (), ()), [1])
    >>> graph.inputs, graph.parameters, graph.input_shapes
    (array([0], dtype=int32), array([1], dtype=int32), ((),))
    """
    shapes, chosen = graph.input_shapes, set(arguments)
    nodes = cut(graph.inputs, shapes)
    moved = np.concatenate([nodes[i] for i in arguments])
    op = graph.op.copy()
    op[moved] = ops.parameter.code
    return replace(
        graph,
        op=op,
        inputs=np.concatenate([moved[:0], *(x for i, x in enumerate(nodes) if i not in chosen)]),
        parameters=np.concatenate([graph.parameters, moved]),
        input_shapes=tuple(x for i, x in enumerate(shapes) if i not in chosen),
        leaves=(),
    )


def unshared(graph: Graph) -> Graph:
    """The graph with its parameters as one more argument: each sample may have its own.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> graph = unshared(vgrad.trace(lambda x: w * x, ()))
    >>> graph.inputs, graph.parameters, graph.input_shapes
    (array([1, 0], dtype=int32), array([], dtype=int32), ((), (1,)))
    """
    op = graph.op.copy()
    op[graph.parameters] = ops.input.code
    return replace(
        graph,
        op=op,
        inputs=np.concatenate([graph.inputs, graph.parameters]),
        parameters=graph.parameters[:0],
        input_shapes=(*graph.input_shapes, graph.parameters.shape),
        leaves=(),
    )


def without_answers(graph: Graph) -> Graph:
    """A path's graph without its questions, and with the function's own outputs."""
    if not graph.questions:
        return graph
    own = part(graph, graph.outputs[: -len(graph.questions)], graph.output_shapes[0])
    return replace(own, questions=())


def with_parameters(graph: Graph, leaves: Sequence[Value]) -> Graph:
    """The graph with more parameters, which it does not use, behind its own: `leaves` are all."""
    more = leaves[len(graph.parameters) :]
    if not more:
        return graph
    n, new = len(graph), len(more)
    return replace(
        graph,
        op=np.append(graph.op, np.full(new, ops.parameter.code, np.uint8)),
        parents=np.pad(graph.parents, ((0, new), (0, 0)), constant_values=-1),
        value=np.append(graph.value, [leaf._number for leaf in more]),
        level=np.pad(graph.level, (0, new)),
        parameters=np.append(graph.parameters, np.arange(n, n + new, dtype=np.int32)),
        leaves=tuple(leaves),
    )


def inlined(graph: Graph, *arguments: Any, theta: Any = None) -> Any:
    """What the graph computes from other operands: a graph called within a function, or on numbers.

    There is one argument for each of the graph's, of its per-sample shape, made of traced values,
    `Value`s or numbers. The parameters are the `Value`s that the graph was recorded with, or
    `theta`, (P,), operands or numbers. The result is as the recorded function's was.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> graph = vgrad.trace(lambda x: w * x, ())
    >>> vgrad.compile(lambda x, y: graph(x + y) ** 2, parameters=[w])([3.0], [1.0], [2.0])
    array([81.])
    >>> graph(vgrad.Value(2.0)), graph(2.0, theta=[5.0])
    (Value(data=6.0, grad=0.0), 10.0)

    Raises ShapeError if an argument or theta does not fit, and ValueError if a graph from a file,
    which has no `Value`s, is given no theta.
    """
    arrays = [np.array(boxed(x), dtype=object) for x in arguments]
    shapes = tuple(array.shape for array in arrays)
    if shapes != graph.input_shapes:
        raise ShapeError(
            f"arguments must have the graph's shapes {graph.input_shapes} (got {shapes})"
        )
    size = len(graph.parameters)
    if theta is None and size and not graph.leaves:
        raise ValueError(
            f"theta must be given, {size} operands or numbers, as the graph has no Values behind "
            "its parameters (got a graph from a file or of a derivative)"
        )
    numbers = np.array(graph.leaves if theta is None else theta, dtype=object)
    if numbers.shape != (size,):
        raise ShapeError(
            f"theta must have shape ({size},), one per parameter (got {numbers.shape})"
        )
    constants = np.flatnonzero(graph.op == ops.const.code)
    leaves = dict(zip(constants.tolist(), graph.value[constants].tolist()))
    leaves |= zip(graph.inputs.tolist(), map(_operand, (x for array in arrays for x in array.flat)))
    leaves |= zip(graph.parameters.tolist(), map(_operand, numbers.tolist()))
    results = graph.computed_from(leaves)
    outputs = [results[i] for i in graph.outputs.tolist()]
    return arranged(
        graph.output_shapes,
        lambda own, shape: as_operands(array_of(outputs[own], shape)),
    )


def _operand(x: Any) -> Any:
    return x if isinstance(x, Operand) else ops.number(x)
