"""Graphs of derivatives: a graph on a new tape, with nodes that compute its derivatives.

The result is a graph like any other. It compiles, and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..engine import Value
from .derivatives import Nodes, Number, changes, gradients, is_zero
from .graph import Graph
from .tape import Node, Tape


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
    derived = replay.graph_of([*replay.outputs(), *(part for row in rows for part in row)])
    shapes = graph.output_shapes if isinstance(graph.output_shapes, list) else [graph.output_shapes]
    shape = (len(outputs), *wrt.shape) if several else wrt.shape
    return replace(derived, output_shapes=[*shapes, shape], leaves=graph.leaves)


def jacobian(graph: Graph, wrt: NDArray[Any], guarded: bool = False) -> Graph:
    """The graph with more outputs: the derivatives of its M outputs to n nodes `wrt`, (M, n).

    Forward, node of `wrt` by node, or backward, output by output, whichever is fewer. If `guarded`,
    a gradient of 0 stays 0 where it meets inf, which holds backward only.
    """
    replay, keys = _Replay(graph), wrt.tolist()
    outputs = graph.outputs.tolist()
    if len(keys) < len(outputs) and not guarded:
        columns = [changes(replay.view, outputs, {key: 1.0}) for key in keys]
        rows = [list(row) for row in zip(*columns)]
    else:
        rows = [gradients(replay.view, output, keys, guarded) for output in outputs]
    return replay.graph_of([*replay.outputs(), *(part for row in rows for part in row)])


def hessian(graph: Graph, wrt: NDArray[Any], guarded: bool = False) -> Graph:
    """The second derivatives of output 0 to n nodes `wrt`, as n (n + 1) / 2 outputs.

    They are the rows of the lower triangle: (0, 0), (1, 0), (1, 1), (2, 0) and so on.
    """
    replay, keys = _Replay(graph), wrt.tolist()
    view = replay.view
    firsts = gradients(view, int(graph.outputs[0]), keys, guarded)
    if guarded:
        rows = [
            gradients(view, view.key(g), keys[: i + 1]) if isinstance(g, Node) else [0.0] * (i + 1)
            for i, g in enumerate(firsts)
        ]
        return replay.graph_of([part for row in rows for part in row])
    places = [view.key(view.operand_of(g)) for g in firsts]
    columns = [changes(view, places[j:], {key: 1.0}) for j, key in enumerate(keys)]
    return replay.graph_of([columns[j][i - j] for i in range(len(keys)) for j in range(i + 1)])


def tangent(graph: Graph, count: int = 1) -> Graph:
    """The derivatives of the first outputs along a direction v of theta, of theta and v, (2 P,).

    They come first, and behind them the outputs, if there are more than one.
    """
    replay = _Replay(graph)
    along = dict(zip(graph.parameters.tolist(), replay.direction()))
    return replay.along(changes(replay.view, graph.outputs[:count].tolist(), along), count)


def slope(graph: Graph, count: int = 1) -> Graph:
    """The same as `tangent` gives, but computed as v times the gradient, number by number.

    So it is right, and so is its own gradient, even where a gradient of 0 meets inf. It is slower:
    products of v with each number of the gradient do not become matrix products.
    """
    replay = _Replay(graph)
    direction, found = replay.direction(), []
    for output in graph.outputs[:count].tolist():
        parts = gradients(replay.view, output, graph.parameters.tolist())
        terms: list[Number] = [v * g for v, g in zip(direction, parts) if not is_zero(g)]
        while len(terms) > 1:  # by halves, as each level of a graph costs a call
            terms = [*map(add, terms[::2], terms[1::2]), *terms[len(terms) & ~1 :]]
        found += terms or [0.0]
    return replay.along(found, count)


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

    def direction(self) -> list[Node]:
        """New parameters, one for each of the graph's: the numbers of a direction v."""
        zeros = [Value(0.0) for _ in self.graph.parameters]
        return [Node(self.tape, self.tape.leaf(ops.parameter, zero)) for zero in zeros]

    def along(self, parts: Sequence[Number], count: int) -> Graph:
        """The graph of derivatives along a direction, and of several also the outputs."""
        return self.graph_of([*parts, *self.outputs()[:count]] if count > 1 else parts)

    def graph_of(self, results: Sequence[Number]) -> Graph:
        """The graph whose outputs are these numbers."""
        outputs = [x if isinstance(x, Node) else Value(x, trainable=False) for x in results]
        derived = self.tape.graph(outputs, self.graph.input_shapes, "a derivative")
        shape = () if len(outputs) == 1 else (len(outputs),)
        return replace(derived, output_shapes=shape, leaves=())
