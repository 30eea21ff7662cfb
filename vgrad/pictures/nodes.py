"""A diagram of a graph node by node, or of the neighbourhood of one node.

A computed node is an op, a small round box, with its result behind it; a result without a label
and numbers has no box of its own. Computed nodes stand in the order of their levels, and a leaf
stands just before its first use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from textwrap import fill
from typing import Any, NamedTuple, TypeVar

from .. import ops
from ..engine import NO_GRADIENT, Value, reachable
from ..flat import Graph
from .diagram import Diagram, Kind, numeral, one_line

LABEL_WIDTH = 24  # characters per line
LEAVES: dict[ops.Op, Kind] = {ops.input: "input", ops.parameter: "parameter", ops.const: "constant"}


Key = TypeVar("Key", bound=Hashable)


class Item(NamedTuple):
    """A node of either kind of graph, as a picture needs it."""

    key: Hashable  # a Value, or a node's number in a Graph
    op: ops.Op
    parents: tuple[int, ...]  # their indices in the list of items
    level: int
    kind: Kind
    label: Any  # as the user gave it
    title: Any  # as it is shown
    cells: tuple[str, ...]


def titles(values: Iterable[Value]) -> dict[Value, str]:
    """Names, no two alike: labels, else v1, v2 and so on; constants need none.

    All pictures of a value's graph have the same, so that formulas can be found in a drawing.

    >>> w, v = Value(1.0, "w"), Value(2.0, "w")
    >>> list(titles([w, v, w * v]).values())
    ['w', 'w_2', 'v1']
    """
    labels = {x: one_line(x.label) for x in values}
    return distinct({x: label for x, label in labels.items() if label or x.op is not ops.const})


def distinct(labels: Mapping[Key, str]) -> dict[Key, str]:
    """The labels with a number at the end of those that have come before, or are empty."""
    taken = set(labels.values())
    found: dict[str, Key] = {}
    counts: dict[str, Iterator[int]] = defaultdict(lambda: count(2), v=count(1))
    for x, label in labels.items():
        if not label or label in found:
            stem = f"{label}_" if label else "v"
            label = next(name for k in counts[stem] if (name := f"{stem}{k}") not in taken)
        found[label] = x
    return {x: title for title, x in found.items()}


def value_items(roots: Sequence[Value], digits: int, names: Mapping[Value, str]) -> Iterator[Item]:
    """All that the roots were computed from, as items with these titles."""
    values = reachable(*roots)[::-1]  # parents before their children
    place = {value: k for k, value in enumerate(values)}
    results = set(roots)
    for value in values:
        leaf: Kind = "parameter" if value.trainable else "input"
        kind: Kind = "constant" if value.op is ops.const else leaf
        if value.level:
            kind = "result" if value in results else "computed"
        parents = tuple(place[x] for x in value.parents)
        cells = value_cells(value, value.data, _gradient(value), digits)
        title = names.get(value, "")
        yield Item(value, value.op, parents, value.level, kind, value.label, title, cells)


def _gradient(value: Value) -> float | None:
    """The gradient, or None if no backward pass has computed it since it was set to 0."""
    untouched = value.grad is NO_GRADIENT or (value.grad == 0 and isinstance(value.grad, int))
    return None if untouched else value.grad  # an int is micrograd's `p.grad = 0`


def value_cells(
    value: Value, data: float | None, grad: float | None, digits: int
) -> tuple[str, ...]:
    """The cells of a value with these numbers, None if not known yet."""
    if value.op is ops.const:
        return (numeral(value.data, digits),)
    texts = ["—" if x is None else numeral(x, digits) for x in (data, grad)]
    return f"data {texts[0]}", f"grad {texts[1]}"


def graph_items(graph: Graph, digits: int) -> Iterator[Item]:
    """The nodes of a recorded graph as items."""
    outputs: dict[int, str] = {}
    for k, node in enumerate(graph.outputs.tolist()):
        name = f"output {k}" if len(graph.outputs) > 1 else "output"
        outputs[node] = f"{outputs[node]}, {k}" if node in outputs else name
    columns = (graph.op.tolist(), graph.parents.tolist(), graph.level.tolist())
    for i, (code, parents, level) in enumerate(zip(*columns)):
        op = ops.OPS[code]
        kind = LEAVES.get(op) or ("result" if i in outputs else "computed")
        cells = [outputs[i]] if i in outputs else []
        if kind in ("parameter", "constant"):
            text = numeral(float(graph.value[i]), digits)
            cells.append(text if kind == "constant" else f"data {text}")
        label = graph.labels.get(i, "") or (kind if kind == "input" else "")
        yield Item(i, op, tuple(parents[: op.arity]), level, kind, label, label, tuple(cells))


def node_diagram(items: list[Item], around: Any = None, hops: int = 0, limit: int = 0) -> Diagram:
    """All nodes, or the `limit` nearest within `hops` edges of the one that `around` names.

    Raises ValueError if `around` is neither a node's key nor the name of exactly one.
    """
    if around is None:
        return _boxes(items, range(len(items)))
    middle = _find(around, items)
    diagram = _boxes(items, _neighbourhood(middle, items, hops, limit))
    diagram.focus = diagram.value_of[items[middle].key]
    return diagram


def _find(around: Any, items: list[Item]) -> int:
    if isinstance(around, str):
        found = [k for k, item in enumerate(items) if around in (item.label, item.title)]
        if len(found) != 1:
            have = f"{len(found)} nodes have" if found else "no node has"
            raise ValueError(
                f"around must be the label of one node (got {around!r}, which {have}); "
                "a Value, or of a Graph a node's number, says which"
            )
        return found[0]
    try:
        return {item.key: k for k, item in enumerate(items)}[around]
    except (KeyError, TypeError):
        raise ValueError(
            "around must be a node of the graph: a Value, or of a Graph its number, 0 to "
            f"{len(items) - 1}, or a label (got {around!r})"
        ) from None


def _neighbourhood(middle: int, items: list[Item], hops: int, limit: int) -> list[int]:
    """The items at most `hops` edges from that one, nearest first up to `limit`."""
    beside = [list(item.parents) for item in items]
    for k, item in enumerate(items):
        for x in item.parents:
            beside[x].append(k)
    near = edge = dict.fromkeys([middle])
    for _ in range(min(hops, len(items))):
        edge = dict.fromkeys(x for k in edge for x in beside[k] if x not in near)
        near |= edge
    return sorted(list(near)[:limit])


def _boxes(items: list[Item], shown: Sequence[int]) -> Diagram:
    """The items shown, in topological order, and a sign wherever others are left out."""
    diagram = Diagram()
    rank = _ranks(items, shown)
    leads_out = {x for k, item in enumerate(items) if k not in rank for x in item.parents}
    source: dict[int, int] = {}  # the box where an item's edges begin
    for k in shown:
        item, column = items[k], 2 * rank[k]
        if item.parents:
            op = source[k] = diagram.op_of[item.key] = diagram.add("op", column - 1, item.op.symbol)
            for x in item.parents:
                operand = source[x] if x in source else diagram.add("more", column - 2, "…")
                diagram.edges.append((operand, op))
        title = fill(one_line(item.title), LABEL_WIDTH)
        if title or item.cells:
            box = diagram.add(item.kind, column, title, *item.cells)
            if item.parents:
                diagram.edges.append((source[k], box))
            source[k] = box
        diagram.value_of[item.key] = source[k]
        if k in leads_out:
            diagram.edges.append((source[k], diagram.add("more", column + 1, "…")))
    return diagram


def _ranks(items: list[Item], shown: Sequence[int]) -> dict[int, int]:
    """The levels that are shown, counted from 1; a leaf's is one before its first use."""
    computed = sorted((items[k].level, k) for k in shown if items[k].parents)
    count = {level: n for n, level in enumerate(dict(computed), 1)}
    rank = {k: count[level] for level, k in computed}
    first = {x: rank[k] for k in reversed(rank) for x in items[k].parents}
    return {k: rank.get(k, first.get(k, 1) - 1) for k in shown}
