"""A diagram of a graph node by node, or of the neighbourhood of one node.

A computed node is an op, a small round box, with its result behind it; a result of which there is
nothing to tell has no box of its own. Computed nodes stand in the order of their levels, and a leaf
stands just before its first use.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .. import ops
from ..engine import NO_GRADIENT, Value, reachable
from ..flat import Graph
from .diagram import (
    COMPUTED,
    CONSTANT,
    INPUT,
    MORE,
    OP,
    PARAMETER,
    RESULT,
    Diagram,
    label_lines,
    numeral,
)


class Item(NamedTuple):
    """A node of either kind of graph, as a picture needs it."""

    op: ops.Op
    parents: tuple[int, ...]
    level: int
    kind: str
    label: str
    cells: tuple[str, ...]


def value_diagram(
    roots: Sequence[Value],
    around: Any = None,
    hops: int = 2,
    limit: int = 0,
    digits: int = 6,
    names: Mapping[Value, str] | None = None,
) -> Diagram:
    """Everything that the roots were computed from, or the part within `hops` edges of `around`.

    That is `limit` nodes at the most. Numbers have `digits` significant digits; `names` stand in
    for labels. Raises ValueError if `around` is no node of it.
    """
    values = reachable(*roots)[::-1]  # parents before their children
    return _diagram(values, _of_values(values, roots, digits, names or {}), around, hops, limit)


def graph_diagram(graph: Graph, around: Any, hops: int, limit: int, digits: int) -> Diagram:
    """The same of a recorded graph, whose nodes are numbers."""
    return _diagram(range(len(graph)), list(_of_graph(graph, digits)), around, hops, limit)


def _diagram(
    keys: Sequence[Hashable], nodes: list[Item], around: Any, hops: int, limit: int
) -> Diagram:
    if around is None:
        return _boxes(keys, nodes, range(len(nodes)))
    middle = _find(around, keys, nodes)
    result = _boxes(keys, nodes, _neighbourhood(middle, nodes, hops, limit))
    result.focus = result.value_of[keys[middle]]
    return result


# --- the text of a node --------------------------------------------------------------------------


def _of_values(
    values: Sequence[Value], roots: Sequence[Value], digits: int, names: Mapping[Value, str]
) -> list[Item]:
    place = {value: k for k, value in enumerate(values)}
    results = set(roots)
    nodes = []
    for value in values:
        if value.level:
            kind = RESULT if value in results else COMPUTED
        elif value.op is ops.const:
            kind = CONSTANT
        else:
            kind = PARAMETER if value.trainable else INPUT
        parents = tuple(place[x] for x in value.parents)
        cells = value_cells(value, value._data, _gradient(value), digits)
        label = names.get(value, value.label)
        nodes.append(Item(value.op, parents, value.level, kind, label, cells))
    return nodes


def _gradient(value: Value) -> float | None:
    """The gradient, or None if no backward pass has computed it since it was set to 0."""
    untouched = value.grad is NO_GRADIENT or (value.grad == 0 and isinstance(value.grad, int))
    return None if untouched else value.grad  # an int is micrograd's `p.grad = 0`


def value_cells(
    value: Value, data: float | None, grad: float | None, digits: int
) -> tuple[str, ...]:
    """The cells of a value with these numbers; None stands for a number not known yet."""
    if value.op is ops.const:
        return (numeral(value._data, digits),)
    texts = ["—" if x is None else numeral(x, digits) for x in (data, grad)]
    return f"data {texts[0]}", f"grad {texts[1]}"


def _of_graph(graph: Graph, digits: int) -> Iterator[Item]:
    kinds = {ops.input: INPUT, ops.parameter: PARAMETER, ops.const: CONSTANT}
    outputs: dict[int, str] = {}
    for k, node in enumerate(graph.outputs.tolist()):
        name = f"output {k}" if len(graph.outputs) > 1 else "output"
        outputs[node] = f"{outputs[node]}, {k}" if node in outputs else name
    columns = (graph.op.tolist(), graph.parents.tolist(), graph.level.tolist())
    for i, (code, parents, level) in enumerate(zip(*columns)):
        op = ops.OPS[code]
        kind = kinds.get(op) or (RESULT if i in outputs else COMPUTED)
        cells = [outputs[i]] if i in outputs else []
        if kind in (PARAMETER, CONSTANT):
            text = numeral(float(graph.value[i]), digits)
            cells.append(text if kind == CONSTANT else f"data {text}")
        label = graph.labels.get(i, "") or (kind if kind == INPUT else "")
        yield Item(op, tuple(parents[: op.arity]), level, kind, label, tuple(cells))


# --- a neighbourhood -----------------------------------------------------------------------------


def _find(around: Any, keys: Sequence[Hashable], nodes: list[Item]) -> int:
    """The place of the node that `around` names: a `Value`, a node's number, or a label."""
    if isinstance(around, str):
        places = [k for k, node in enumerate(nodes) if node.label == around]
        if len(places) != 1:
            have = f"{len(places)} nodes have" if places else "no node has"
            raise ValueError(
                f"around must be the label of one node (got {around!r}, which {have}); "
                "a Value, or of a Graph a node's number, says which"
            )
        return places[0]
    try:
        return {key: k for k, key in enumerate(keys)}[around]
    except (KeyError, TypeError):
        raise ValueError(
            "around must be a node of the graph: a Value, or of a Graph its number, 0 to "
            f"{len(nodes) - 1}, or a label (got {around!r})"
        ) from None


def _neighbourhood(middle: int, nodes: list[Item], hops: int, limit: int) -> list[int]:
    """The places of the nodes at most `hops` edges from that one, nearest first up to `limit`."""
    children = _children(nodes)
    near = dict.fromkeys([middle])
    edge = [middle]
    for _ in range(min(hops, len(nodes))):
        edge = [x for k in edge for x in (*nodes[k].parents, *children[k])]
        edge = list(dict.fromkeys(x for x in edge if x not in near))
        near.update(dict.fromkeys(edge))
    return sorted(list(near)[:limit])


def _children(nodes: list[Item]) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in nodes]
    for k, node in enumerate(nodes):
        for x in node.parents:
            children[x].append(k)
    return children


# --- node by node --------------------------------------------------------------------------------


def _boxes(keys: Sequence[Hashable], nodes: list[Item], shown: Sequence[int]) -> Diagram:
    """The nodes at these places, in topological order, and a sign wherever others are left out."""
    result = Diagram()
    rank = _ranks(nodes, shown)
    children = _children(nodes) if len(shown) < len(nodes) else [[] for _ in nodes]
    source: dict[int, int] = {}  # the box where a node's edges begin
    for k in shown:
        node, key, column = nodes[k], keys[k], 2 * rank[k]
        if node.parents:
            op = source[k] = result.op_of[key] = result.add(OP, column - 1, node.op.symbol)
            for x in node.parents:
                operand = source[x] if x in source else result.add(MORE, column - 2, "…")
                result.edges.append((operand, op))
        title = label_lines(node.label)
        if title or node.cells:
            box = result.value_of[key] = result.add(node.kind, column, title, *node.cells)
            if node.parents:
                result.edges.append((source[k], box))
            source[k] = box
        result.value_of.setdefault(key, source[k])
        if any(x not in rank for x in children[k]):
            result.edges.append((source[k], result.add(MORE, column + 1, "…")))
    return result.close_ranks()


def _ranks(nodes: list[Item], shown: Sequence[int]) -> dict[int, int]:
    """The levels that are shown, counted from 0; a leaf's is one before its first use."""
    levels = sorted({nodes[k].level for k in shown if nodes[k].parents})
    count = {level: n + 1 for n, level in enumerate(levels)}
    rank = {k: count[nodes[k].level] for k in shown if nodes[k].parents}
    first: dict[int, int] = {}
    for k, n in rank.items():
        for x in nodes[k].parents:
            first[x] = min(first.get(x, n), n)
    return {k: rank[k] if k in rank else first.get(k, 1) - 1 for k in shown}
