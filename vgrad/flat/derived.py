"""Graphs of derivatives: a graph on a new tape, with nodes that compute its derivatives.

The result is a graph like any other. It compiles, and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..engine import Value
from .derivatives import Nodes, Number, changes, gradients, is_zero
from .graph import Graph
from .node import Node
from .parts import part
from .tape import Tape

Leaves = Literal["inputs", "parameters"]


def gradient_graph(graph: Graph, wrt: Any = None, of: Any = 0) -> Graph:
    """The graph with one output more: the gradient of output `of` to the nodes `wrt`.

    `wrt` are node numbers in an array of any shape, by default `graph.parameters`; `graph.inputs`
    are others. `of` counts the outputs' numbers, from 0, the objective; it may be a list of them.
    The new output has the shape of `wrt`, or (len(of), *shape). So the gradient of the gradient's
    first number is at `of=1`:

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x: x**3, ())
    >>> first = graph.gradient(graph.inputs)
    >>> second = first.gradient(first.inputs, of=1)
    >>> vgrad.compile(second)([], [2.0])
    (array([8.]), array([[12.]]), array([[12.]]))

    A gradient of 0 stays 0, as in `Value.backward`; `vgrad.finite` has examples. Raises ValueError
    if `wrt` names anything but nodes of the graph, or if there is no output `of`.
    """
    wrt = _as_nodes(graph, graph.parameters if wrt is None else wrt)
    several = isinstance(of, list | tuple | range | np.ndarray)
    outputs = [_as_output(graph, k) for k in (of if several else [of])]
    if not outputs:
        raise ValueError("of must be an output, or a list of one or more (got an empty one)")
    replay = _Replay(graph)
    keys = wrt.ravel().tolist()
    rows = [gradients(replay.view, output, keys) for output in outputs]
    derived = replay.graph_of([*replay.outputs(), *(x for row in rows for x in row)])
    shapes = graph.output_shapes if isinstance(graph.output_shapes, list) else [graph.output_shapes]
    shape = (len(outputs), *wrt.shape) if several else wrt.shape
    return replace(derived, output_shapes=[*shapes, shape], leaves=graph.leaves)


def jacobian(graph: Graph, leaves: Leaves, guarded: bool = False) -> Graph:
    """The outputs, M, and their derivatives to n leaves, (n, M), behind them.

    Forward, leaf by leaf, or backward, output by output, whichever are fewer. If `guarded`, a
    gradient of 0 stays 0 where it meets inf, which holds backward only.
    """
    replay, outputs = _Replay(graph), graph.outputs.tolist()
    keys = replay.leaves(leaves)
    if len(keys) < len(outputs) and not guarded:
        rows = [changes(replay.view, outputs, {key: 1.0}) for key in keys]
    else:
        columns = [gradients(replay.view, output, keys, guarded) for output in outputs]
        rows = [list(row) for row in zip(*columns)]
    return replay.graph_of([*replay.outputs(), *(x for row in rows for x in row)])


def hessian(graph: Graph, leaves: Leaves, guarded: bool = False) -> Graph:
    """The second derivatives of output 0 to n leaves, (n, n).

    They are computed forward over backward. There the matrix is symmetric, and each pair of leaves
    has one node; if `guarded`, backward over backward, nan may stand on one side alone.
    """
    replay = _Replay(graph)
    view, keys = replay.view, replay.leaves(leaves)
    firsts = gradients(view, int(graph.outputs[0]), keys, guarded)
    places = [view.key(view.operand_of(g)) for g in firsts]
    if guarded:
        rows = [gradients(view, place, keys) for place in places]
    else:
        columns = [changes(view, places[j:], {key: 1.0}) for j, key in enumerate(keys)]
        rows = [
            [columns[min(i, j)][abs(i - j)] for j in range(len(keys))] for i in range(len(keys))
        ]
    return replay.graph_of([x for row in rows for x in row])


def weighted(graph: Graph) -> Graph:
    """The sum of the outputs, each times a weight, (M,), which is one more argument."""
    replay = _Replay(graph)
    weights = replay.tape.argument((len(graph.outputs),), "cotangent")
    terms = [weight * output for weight, output in zip(weights, replay.outputs())]
    derived = replay.graph_of([sum(terms[1:], terms[0]), *replay.outputs()])
    return replace(derived, input_shapes=(*graph.input_shapes, weights.shape))


def tangent(graph: Graph, leaves: Leaves, guarded: bool = False) -> Graph:
    """The derivatives of the outputs along a direction v of some leaves; and the outputs.

    v are as many more leaves: parameters behind theta, (2 P,), or one more argument. Computed
    forward; if `guarded`, as v times the gradient, number by number. That is right, and so is its
    own gradient, even where a gradient of 0 meets inf. It is slower: products of v with each number
    of the gradient do not become matrix products.
    """
    replay, outputs = _Replay(graph), graph.outputs.tolist()
    keys, direction = replay.leaves(leaves), replay.direction(leaves)
    if guarded:
        found = []
        for output in outputs:
            parts = gradients(replay.view, output, keys)
            terms: list[Number] = [v * g for v, g in zip(direction, parts) if not is_zero(g)]
            while len(terms) > 1:  # by halves, as each level of a graph costs a call
                terms = [*map(add, terms[::2], terms[1::2]), *terms[len(terms) & ~1 :]]
            found += terms or [0.0]
    else:
        found = changes(replay.view, outputs, dict(zip(keys, direction)))
    derived = replay.graph_of([*found, *replay.outputs()])
    more = ((len(keys),),) if leaves == "inputs" else ()
    return replace(derived, input_shapes=(*graph.input_shapes, *more))


def slope(graph: Graph, leaves: Leaves, guarded: bool = False) -> Graph:
    """The derivative of output 0 along a direction, as `tangent` has it, and nothing else."""
    derived = tangent(part(graph, graph.outputs[:1], ()), leaves, guarded)
    return part(derived, derived.outputs[:1], ())


def _as_output(graph: Graph, of: Any) -> int:
    """The node of an output."""
    if isinstance(of, bool) or not hasattr(of, "__index__") or not 0 <= of < len(graph.outputs):
        raise ValueError(f"of must be an output, 0 to {len(graph.outputs) - 1} (got {of!r})")
    return int(graph.outputs[of])


def _as_nodes(graph: Graph, wrt: Any) -> NDArray[np.intp]:
    nodes = np.asarray(wrt)
    if not nodes.size:
        raise ValueError(
            "wrt must name one node or more (got none; a graph without parameters has its "
            "graph.inputs)"
        )
    if nodes.dtype.kind not in "iu":
        raise ValueError(f"wrt must be node numbers, such as graph.inputs (got {wrt!r})")
    if (nodes < 0).any() or (nodes >= len(graph)).any():
        raise ValueError(f"wrt must be nodes of the graph, 0 to {len(graph) - 1} (got {wrt!r})")
    return nodes.astype(np.intp)


class _Replay:
    """A graph on a new tape, to which nodes that compute its derivatives are added."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tape = tape = Tape([])
        rows = zip(graph.op.tolist(), graph.parents.tolist())
        self.nodes = [tape.record(code, *parents) for code, parents in rows]  # numbered as there
        self.view = Nodes(tape)
        leaves = np.flatnonzero(graph.level == 0).tolist()
        tape.value = dict(zip(leaves, graph.value[leaves].tolist()))
        tape.inputs = graph.inputs.tolist()
        values = graph.leaves or [Value(x) for x in graph.value[graph.parameters].tolist()]
        tape.parameters.leaves = dict(zip(graph.parameters.tolist(), values))
        tape.labels, tape.lines = dict(graph.labels), dict(graph.lines)

    def outputs(self) -> list[Number]:
        """The graph's own outputs."""
        return [self.nodes[i] for i in self.graph.outputs.tolist()]

    def leaves(self, leaves: Leaves) -> list[int]:
        """The nodes of the inputs, or of the parameters."""
        nodes: list[int] = getattr(self.graph, leaves).tolist()
        return nodes

    def direction(self, leaves: Leaves) -> list[Node]:
        """As many new leaves: the numbers of a direction v."""
        count = len(self.leaves(leaves))
        if leaves == "inputs":
            return list(self.tape.argument((count,), "tangent")) if count else []
        places = [self.tape.leaf(ops.parameter, Value(0.0)) for _ in range(count)]
        return [self.tape.node(place) for place in places]

    def graph_of(self, results: Sequence[Number]) -> Graph:
        """The graph whose outputs are these numbers."""
        outputs = [x if isinstance(x, Node) else Value(x, trainable=False) for x in results]
        derived = self.tape.graph(outputs, self.graph.input_shapes, "a derivative")
        shape = () if len(outputs) == 1 else (len(outputs),)
        return replace(derived, output_shapes=shape, leaves=())
