"""Backpropagation one step after the other, with the arithmetic of each step in words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal, NamedTuple

from . import ops
from .diagram import number
from .operators import Operand
from .value import Value, backpropagation, reachable


class Step(NamedTuple):
    """What happens at once, and what is known after it."""

    active: tuple[Value, ...]  # the nodes at work
    edges: tuple[tuple[Value, int], ...]  # along which edges: a node, and which of its operands
    lines: tuple[str, ...]  # the arithmetic
    data: dict[Value, float]  # the numbers known by then
    grads: dict[Value, float]  # the gradients, as far as they have been added up
    finished: frozenset[Value]  # the nodes whose part in the pass is done


def steps(
    root: Value, names: dict[Value, str], forward: bool, by: Literal["node", "level"], digits: int
) -> list[Step]:
    """The steps of `root.backward()` from gradients of 0, and with `forward` what came before.

    The numbers are those of the engine, whose gradients are left as they are.
    """
    result = list(_forward(root, names, digits)) if forward else []
    result += _backward(root, names, digits)
    if by == "node":
        return result
    sweeps = groupby(result, lambda step: (bool(step.grads), step.active and step.active[0].level))
    return [_together(list(level)) for _, level in sweeps]


def _together(level: list[Step]) -> Step:
    active, edges, lines = (sum(parts, ()) for parts in list(zip(*level))[:3])
    return level[-1]._replace(active=active, edges=edges, lines=lines)


def _forward(root: Value, names: dict[Value, str], digits: int) -> Iterator[Step]:
    nodes = reachable(root)[::-1]
    data = {x: x._data for x in nodes if not x.level}
    lines = ("The leaves are given; every other value is computed from its parents.",)
    yield Step((), (), lines, dict(data), {}, frozenset(data))
    for node in nodes:
        if node.level:
            data[node] = node._data
            line = _line(
                f"{names[node]}.data = ",
                Formula._apply(node.op, *_symbols(node, names)),
                Formula._apply(node.op, *_numbers(node, digits)),
                number(node._data, digits),
            )
            edges = tuple((node, k) for k in range(node.op.arity))
            yield Step((node,), edges, (line,), dict(data), {}, frozenset(data) - {node})


def _backward(root: Value, names: dict[Value, str], digits: int) -> Iterator[Step]:
    nodes = reachable(root)
    data = {x: x._data for x in nodes}
    waiting = {x: 0 for x in nodes}  # how many times a node is still to be an operand
    for node in nodes:
        for x in node.parents:
            waiting[x] += 1
    seed, parts = _run(root, names, digits)
    grads, finished = {root: seed}, {x for x in nodes if x.op is ops.const}
    name = names[root]
    line = f"{name}.grad = {number(seed, digits)}, the derivative of {name} by itself"
    yield Step((root,), (), (line,), data, dict(grads), frozenset(finished))
    for node in nodes:
        if node.level:
            grads.setdefault(node, 0.0)
            edges, lines = [], []
            for k, line, total in parts[node]:
                edges.append((node, k))
                lines.append(line)
                grads[node.parents[k]] = total
            if not lines:
                why = f"{node.op.name} has derivative 0" if grads[node] else "its gradient is 0.0"
                lines = [f"{names[node]} passes nothing on: {why}"]
            for x in node.parents:
                waiting[x] -= 1
                if not waiting[x] and not x.level:
                    finished.add(x)
                    if x.op is not ops.const:
                        grads.setdefault(x, 0.0)
            yield Step((node,), tuple(edges), tuple(lines), data, dict(grads), frozenset(finished))
            finished.add(node)
    yield Step((), (), ("All gradients are known.",), data, grads, frozenset(nodes))


def _run(
    root: Value, names: dict[Value, str], digits: int
) -> tuple[float, dict[Value, list[tuple[int, str, float]]]]:
    """What the engine does: the root's gradient, and for each node what it passes on.

    That is to which operand, in words, and the gradient that this has then.
    """
    before = {x: x.grad for x in reachable(root)}
    had = dict.fromkeys(before, 0.0)
    parts: dict[Value, list[tuple[int, str, float]]] = {x: [] for x in before}
    try:
        for x in before:
            x.grad = 0.0
        for node, k, part in backpropagation(root):
            x = node.parents[k]
            line = _contribution(node, k, part, names, digits)
            if had[x]:
                numbers = [number(n, digits) for n in (had[x], part, x.grad)]
                line += "\n    {}.grad = {} + {} = {}".format(names[x], *numbers)
            parts[node].append((k, line, x.grad))
            had[x] = x.grad
        return root.grad, parts
    finally:
        for x, grad in before.items():
            x.grad = grad


def _contribution(node: Value, k: int, part: float, names: dict[Value, str], digits: int) -> str:
    """In words, as in "x.grad += y.data * xy.grad = 3.0 * 0.5 = 1.5"."""
    rule, name = node.op.vjp[k], names[node]
    assert rule is not None
    symbols = [Formula.named(f"{name}.{x}") for x in ("grad", "data")] + _symbols(node, names)
    numbers = [_number(x, digits) for x in (node.grad, node._data)] + _numbers(node, digits)
    start = f"{names[node.parents[k]]}.grad += "
    return _line(start, rule(*symbols), rule(*numbers), number(part, digits))


def _line(start: str, *sides: Any) -> str:
    """The sides joined by "=", one that says what the one before says left out."""
    texts = [x if isinstance(x, str) else str(Formula.of(x)) for x in sides]
    return start + " = ".join(text for text, _ in groupby(texts))


# --- formulas ------------------------------------------------------------------------------------


def _symbols(node: Value, names: dict[Value, str]) -> list[Any]:
    """The operands of a node by name; a constant is the number that it is."""
    return [
        x._data if x.op is ops.const else Formula.named(f"{names[x]}.data") for x in node.parents
    ]


def _numbers(node: Value, digits: int) -> list[Any]:
    """The operands of a node as numbers to be written."""
    return [x._data if x.op is ops.const else _number(x._data, digits) for x in node.parents]


def _number(x: float, digits: int) -> Formula:
    """A number as text, which Python's operators leave standing as it is."""
    text = number(x, digits)
    if text.startswith("-"):
        return Formula(ast.UnaryOp(ast.USub(), ast.Name(text[1:])))
    return Formula.named(text)


class Formula(Operand):
    """An operand that writes down what is done with it, so that a rule of the op table tells.

    >>> from vgrad import ops
    >>> g, out, x = map(Formula.named, ["o.grad", "o.data", "x.data"])
    >>> print(ops.tanh.vjp[0](g, out, x))
    o.grad * (1.0 - o.data * o.data)
    """

    __slots__ = ("tree",)

    def __init__(self, tree: ast.expr) -> None:
        self.tree = tree

    @staticmethod
    def named(text: str) -> Formula:
        """What stands in formulas as this text."""
        return Formula(ast.Name(text))

    @staticmethod
    def of(x: Any) -> Formula:
        """A formula, or a plain number as one."""
        return x if isinstance(x, Formula) else _number(float(x), 6)

    def __str__(self) -> str:
        return ast.unparse(self.tree)

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        if op is ops.where and not isinstance(operands[0], Formula):
            return operands[1] if operands[0] else operands[2]  # decided by a constant
        places = "xyz"[: op.arity]
        if op.symbol.isalpha():
            pattern = f"{op.name}({', '.join(places)})"
        else:
            pattern = op.symbol.join(places) if op.arity > 1 else f"{op.symbol}x"
        filling = {place: Formula.of(x).tree for place, x in zip(places, operands)}
        return Formula(_Fill(filling).visit(ast.parse(pattern, mode="eval").body))


class _Fill(ast.NodeTransformer):
    """Puts operands in the places of a pattern."""

    def __init__(self, filling: dict[str, ast.expr]) -> None:
        self.filling = filling

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.filling.get(node.id, node)
