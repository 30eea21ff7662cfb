"""Graphs of gradients: the op table's rules applied to nodes, so that what they give is a graph.

That graph computes a gradient as it computes anything else. It compiles, and differentiates again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import inf, isnan, nan
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

    A gradient of 0 stays 0, as in `Value.backward`. Raises ValueError where `wrt` names no node of
    the graph, or where there is no output `of`.
    """
    wrt = _as_nodes(graph, graph.parameters if wrt is None else wrt)
    if isinstance(of, bool) or not hasattr(of, "__index__") or not 0 <= of < len(graph.outputs):
        raise ValueError(f"of must be an output, 0 to {len(graph.outputs) - 1} (got {of!r})")
    tape, nodes = _replayed(graph)
    concerned = reached(graph, {1: wrt}).tolist()  # computed from what is asked for
    gradients: dict[int, Number] = {int(graph.outputs[of]): 1.0}
    for i in range(int(graph.outputs[of]), -1, -1):
        g = gradients.get(i, 0.0)
        if concerned[i] and not (isinstance(g, float) and g == 0):
            for k, parent in enumerate(graph.parents[i].tolist()):
                if parent >= 0 and concerned[parent]:
                    _add(gradients, parent, _part(graph, nodes, i, k, g))
    results = [gradients.get(node, 0.0) for node in wrt.ravel().tolist()]
    derived = _recorded(graph, tape, [*(nodes[i] for i in graph.outputs.tolist()), *results])
    shapes = graph.output_shapes if isinstance(graph.output_shapes, list) else [graph.output_shapes]
    return replace(derived, output_shapes=[*shapes, wrt.shape], leaves=graph.leaves)


def tangent(graph: Graph) -> Graph:
    """The derivative of output 0 along a direction v: of theta, as a graph of theta and v, (2 P,).

    It is computed forward, node by node, from the same rules: along one operand an op changes by
    its vjp with the operand's own change in place of g.
    """
    tape, nodes = _replayed(graph)
    changes: dict[int, Number] = {}
    for i in graph.parameters.tolist():
        changes[i] = Node(tape, tape.leaf(ops.parameter, Value(0.0)))
    for i, parents in enumerate(graph.parents.tolist()):
        for k, parent in enumerate(parents):
            if parent in changes:
                _add(changes, i, _part(graph, nodes, i, k, changes[parent]))
    result = changes.get(int(graph.outputs[0]), 0.0)
    return replace(_recorded(graph, tape, [result]), output_shapes=(), leaves=())


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


def _replayed(graph: Graph) -> tuple[Tape, list[Node]]:
    """The graph on a new tape, to go on from; its nodes have there the numbers they have here."""
    tape = Tape([])
    rows = zip(graph.op.tolist(), graph.parents.tolist())
    nodes = [tape.record(code, *parents) for code, parents in rows]
    leaves = np.flatnonzero(graph.level == 0).tolist()
    tape.value = dict(zip(leaves, graph.value[leaves].tolist()))
    tape.inputs = graph.inputs.tolist()
    values = graph.leaves or [Value(x) for x in graph.value[graph.parameters].tolist()]
    tape.leaves = dict(zip(graph.parameters.tolist(), values))
    tape.labels, tape.lines = dict(graph.labels), dict(graph.lines)
    return tape, nodes


def _recorded(graph: Graph, tape: Tape, results: Sequence[Number]) -> Graph:
    outputs = [x if isinstance(x, Node) else Value(x, trainable=False) for x in results]
    return tape.graph(outputs, graph.input_shapes, "a derivative")


def _add(sums: dict[int, Number], node: int, part: Number | None) -> None:
    if part is not None:
        sums[node] = sums[node] + part if node in sums else part


# --- the rule of one operand ----------------------------------------------------------------------


def _part(graph: Graph, nodes: list[Node], i: int, k: int, g: Number) -> Number | None:
    """What node i makes of `g` for its operand k; None where that is nothing."""
    op = ops.OPS[int(graph.op[i])]
    rule = op.vjp[k]
    if rule is None:
        return None
    parents = graph.parents[i, : op.arity].tolist()
    constant = [graph.op[x] == ops.const.code for x in parents]
    known = tuple(float(graph.value[x]) if c else None for x, c in zip(parents, constant))
    operands = [nodes[x] if number is None else number for x, number in zip(parents, known)]
    recording = recorded(op, rule, None if op.static is None else known[op.static], leading=2)
    tape, before = nodes[i].tape, len(nodes[i].tape.op)
    part = interpret(recording, [g, nodes[i], *operands], float, _applied)
    if isinstance(part, float):
        return part if part else None
    if isinstance(g, Node) and part is not g and _loses_zero(op, k, known):
        part = ops.guard(g, part)
    if tape.lines and i in graph.lines:  # an error in a derivative leads to the line it is of
        tape.lines.update(dict.fromkeys(range(before, len(tape.op)), graph.lines[i]))
    return part


def _applied(op: ops.Op, operands: list[Number], *_: Any) -> Number:
    """`op(*operands)`, without a node where the result is known, or is one of the operands."""
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
