"""Graphs of gradients: the op table's rules applied to nodes, which records the derivative.

The result is a graph like any other. It compiles, and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import inf, isnan, nan
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..engine import Value
from .graph import Graph
from .passes import reached
from .recording import interpret, recorded
from .tape import Node, Tape

Number = Node | float  # a node, or a number that is known already


def gradient(graph: Graph, wrt: Any = None, of: int = 0) -> Graph:
    """The graph with one output more: the gradient of output `of` to the nodes `wrt`.

    `wrt` are node numbers in an array of any shape, by default `graph.parameters`; `graph.inputs`
    are others, and the new output has their shape. `of` counts the outputs' numbers, from 0, the
    objective. So the gradient of the gradient's first number is at `of=1`:

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
    if isinstance(of, bool) or not hasattr(of, "__index__") or not 0 <= of < len(graph.outputs):
        raise ValueError(f"of must be an output, 0 to {len(graph.outputs) - 1} (got {of!r})")
    replay = _Replay(graph)
    results = replay.gradients(wrt, int(graph.outputs[of]))
    derived = replay.graph_of([*(replay.nodes[i] for i in graph.outputs.tolist()), *results])
    shapes = graph.output_shapes if isinstance(graph.output_shapes, list) else [graph.output_shapes]
    return replace(derived, output_shapes=[*shapes, wrt.shape], leaves=graph.leaves)


def tangent(graph: Graph) -> Graph:
    """The derivative of output 0 along a direction v of theta, as a graph of theta and v, (2 P,).

    It is computed forward, node by node, from the same rules: along one operand an op changes by
    its vjp with the operand's own change in place of g. Where a change of 0 meets inf it is nan, as
    by IEEE 754; `slope` has the last word there.
    """
    replay = _Replay(graph)
    changes: dict[int, Number] = dict(zip(graph.parameters.tolist(), replay.direction()))
    for i, parents in enumerate(graph.parents.tolist()):
        for k, parent in enumerate(parents):
            if parent in changes:
                _add(changes, i, replay.part(i, k, changes[parent], guarded=False))
    return replay.derivative(changes.get(int(graph.outputs[0]), 0.0))


def slope(graph: Graph) -> Graph:
    """The same as `tangent` gives, but computed as v times the gradient, number by number.

    So its own gradient is that of what `gradient` gives, even where a gradient of 0 meets inf. It
    is slower: products of v with each number of the gradient do not become matrix products.
    """
    replay = _Replay(graph)
    parts = replay.gradients(graph.parameters, int(graph.outputs[0]))
    terms: list[Number] = [v * g for v, g in zip(replay.direction(), parts) if not _is_zero(g)]
    while len(terms) > 1:  # by halves, as each level of a graph costs a call
        terms = [*map(add, terms[::2], terms[1::2]), *terms[len(terms) & ~1 :]]
    return replay.derivative(*terms or [0.0])


def _add(sums: dict[int, Number], node: int, part: Number) -> None:
    if not _is_zero(part):
        sums[node] = sums[node] + part if node in sums else part


def _is_zero(x: Number) -> bool:
    return isinstance(x, float) and x == 0


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
        leaves = np.flatnonzero(graph.level == 0).tolist()
        tape.value = dict(zip(leaves, graph.value[leaves].tolist()))
        tape.inputs = graph.inputs.tolist()
        values = graph.leaves or [Value(x) for x in graph.value[graph.parameters].tolist()]
        tape.parameters.leaves = dict(zip(graph.parameters.tolist(), values))
        tape.labels, tape.lines = dict(graph.labels), dict(graph.lines)

    def gradients(self, wrt: NDArray[Any], of: int) -> list[Number]:
        """The gradient of node `of` to each of the nodes `wrt`."""
        concerned = reached(self.graph, {1: wrt}).tolist()  # what depends on wrt; parent -1 not
        found: dict[int, Number] = {of: 1.0}
        for i in range(of, -1, -1):
            g = found.get(i, 0.0)
            if concerned[i] and not _is_zero(g):
                for k, parent in enumerate(self.graph.parents[i].tolist()):
                    if concerned[parent]:
                        _add(found, parent, self.part(i, k, g))
        return [found.get(node, 0.0) for node in wrt.ravel().tolist()]

    def direction(self) -> list[Node]:
        """New parameters, one for each of the graph's: the numbers of a direction v."""
        zeros = [Value(0.0) for _ in self.graph.parameters]
        return [Node(self.tape, self.tape.leaf(ops.parameter, zero)) for zero in zeros]

    def part(self, i: int, k: int, g: Number, guarded: bool = True) -> Number:
        """The vjp of node i for its operand k and the gradient `g`, recorded as nodes.

        If `guarded`, a gradient of 0 gives 0 and never nan.
        """
        op = ops.OPS[int(self.graph.op[i])]
        vjp = op.vjp[k]
        if vjp is None:
            return 0.0
        operands = [self._number(x) for x in self.graph.parents[i, : op.arity].tolist()]
        known = tuple(x if isinstance(x, float) else None for x in operands)
        rule = recorded(op, vjp, None if op.static is None else known[op.static], leading=2)
        before = len(self.tape.op)
        part = interpret(rule, [g, self.nodes[i], *operands], float, _applied)
        if guarded and isinstance(g, Node) and isinstance(part, Node) and part is not g:
            part = ops.guard(g, part) if _loses_zero(op, k, known) else part
        if self.tape.lines and i in self.graph.lines:  # an error there leads to the line of node i
            added = range(before, len(self.tape.op))
            self.tape.lines.update(dict.fromkeys(added, self.graph.lines[i]))
        return part

    def _number(self, i: int) -> Number:
        """Node i, or its value if it is a constant."""
        return float(self.graph.value[i]) if self.graph.op[i] == ops.const.code else self.nodes[i]

    def derivative(self, result: Number) -> Graph:
        """The graph of one output, a derivative."""
        return replace(self.graph_of([result]), output_shapes=(), leaves=())

    def graph_of(self, results: Sequence[Number]) -> Graph:
        """The graph whose outputs are these."""
        outputs = [x if isinstance(x, Node) else Value(x, trainable=False) for x in results]
        return self.tape.graph(outputs, self.graph.input_shapes, "a derivative")


def _applied(op: ops.Op, operands: list[Number], *_: Any) -> Number:
    """`op(*operands)`, without a node if the result is known or is one of the operands."""
    x, *others = operands
    if op is ops.where and isinstance(x, float):
        return others[0] if x else others[1]
    if op is ops.mul and 1.0 in [x for x in operands if isinstance(x, float)]:
        return others[0] if isinstance(x, float) and x == 1.0 else x
    result: Number = op(*operands)
    return result


@lru_cache(maxsize=4096)
def _loses_zero(op: ops.Op, k: int, known: tuple[float | None, ...]) -> bool:
    """Whether the rule for operand k can make nan of a gradient of 0; some operands are `known`."""
    rule = op.vjp[k]
    assert rule is not None
    edges = (0.0, 0.5, -2.0, inf, -inf, nan)
    return any(
        isnan(ops.evaluate(rule, 0.0, ops.evaluate(op.forward, *xs), *xs))
        for xs in product(*(edges if x is None else (x,) for x in known))
    )
