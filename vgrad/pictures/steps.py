"""Backpropagation one step after the other, with the arithmetic of each step in words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple

from .. import ops
from ..engine import Value, backpropagate, reachable
from ..operand import Operand
from .diagram import numeral


@dataclass(frozen=True, eq=False)
class Step:
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
    words = _Words(names, digits)
    result = list(_forward(root, words)) if forward else []
    result += _backward(root, words)
    if by == "node":
        return result
    sweeps = groupby(result, lambda step: (bool(step.grads), step.active and step.active[0].level))
    return [_together(list(level)) for _, level in sweeps]


def _together(level: list[Step]) -> Step:
    return replace(
        level[-1],
        active=tuple(x for step in level for x in step.active),
        edges=tuple(edge for step in level for edge in step.edges),
        lines=tuple(line for step in level for line in step.lines),
    )


def _forward(root: Value, words: _Words) -> Iterator[Step]:
    nodes = reachable(root)[::-1]
    data = {x: x._data for x in nodes if not x.level}
    lines = ("The leaves are given; every other value is computed from its parents.",)
    yield Step((), (), lines, dict(data), {}, frozenset(data))
    for node in nodes:
        if node.level:
            data[node] = node._data
            line = words.forward(node)
            edges = tuple((node, k) for k in range(node.op.arity))
            yield Step((node,), edges, (line,), dict(data), {}, frozenset(data) - {node})


def _backward(root: Value, words: _Words) -> Iterator[Step]:
    nodes = reachable(root)
    data = {x: x._data for x in nodes}
    waiting = {x: 0 for x in nodes}  # how many times a node is still to be an operand
    for node in nodes:
        for x in node.parents:
            waiting[x] += 1
    seed, parts = _run(root, words)
    grads, finished = {root: seed}, {x for x in nodes if x.op is ops.const}
    name = words.names[root]
    line = f"{name}.grad = {numeral(seed, words.digits)}, the derivative of {name} by itself"
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
                lines = [f"{words.names[node]} passes nothing on: {why}"]
            for x in node.parents:
                waiting[x] -= 1
                if not waiting[x] and not x.level:
                    finished.add(x)
                    if x.op is not ops.const:
                        grads.setdefault(x, 0.0)
            yield Step((node,), tuple(edges), tuple(lines), data, dict(grads), frozenset(finished))
            finished.add(node)
    yield Step((), (), ("All gradients are known.",), data, grads, frozenset(nodes))


Parts = dict[Value, list[tuple[int, str, float]]]


def _run(root: Value, words: _Words) -> tuple[float, Parts]:
    """What the engine does: the root's gradient, and for each node what it passes on.

    That is to which operand, in words, and the gradient that this has then.
    """
    before = {x: x.grad for x in reachable(root)}
    had = dict.fromkeys(before, 0.0)
    parts: Parts = {x: [] for x in before}

    def note(node: Value, x: Value, part: float) -> None:
        after = parts[node][-1][0] + 1 if parts[node] else 0
        operands = list(zip(node.parents, node.op.vjp))
        k = next(k for k in range(after, len(operands)) if operands[k][0] is x and operands[k][1])
        line = words.contribution(node, k, part)
        if had[x]:
            line += f"\n    {words.sum(x, had[x], part)}"
        parts[node].append((k, line, x.grad))
        had[x] = x.grad

    try:
        for x in before:
            x.grad = 0.0
        backpropagate(root, note)
        return root.grad, parts
    finally:
        for x, grad in before.items():
            x.grad = grad


# --- the arithmetic in words ---------------------------------------------------------------------


class _Words(NamedTuple):
    """Says what a node does, with these names and so many significant digits."""

    names: dict[Value, str]
    digits: int

    def forward(self, node: Value) -> str:
        """As in "z.data = x.data * y.data = 2.0 * 3.0 = 6.0"."""
        symbols = Formula._apply(node.op, *self._symbols(node))
        numbers = Formula._apply(node.op, *self._numbers(node))
        return self._line(f"{self.names[node]}.data = ", symbols, numbers, node._data)

    def contribution(self, node: Value, k: int, part: float) -> str:
        """As in "x.grad += y.data * z.grad = 3.0 * 0.5 = 1.5"."""
        rule, name = node.op.vjp[k], self.names[node]
        assert rule is not None
        own = [Formula.named(f"{name}.{what}", self.digits) for what in ("grad", "data")]
        symbols = rule(*own, *self._symbols(node))
        own = [Formula.number(x, self.digits) for x in (node.grad, node._data)]
        numbers = rule(*own, *self._numbers(node))
        return self._line(f"{self.names[node.parents[k]]}.grad += ", symbols, numbers, part)

    def sum(self, x: Value, before: float, part: float) -> str:
        """As in "x.grad = 1.0 + 0.5 = 1.5"."""
        old, new, total = (numeral(n, self.digits) for n in (before, part, x.grad))
        return f"{self.names[x]}.grad = {old} + {new} = {total}"

    def _symbols(self, node: Value) -> list[Any]:
        """The operands of a node by name; a constant is the number that it is."""
        return [
            x._data if x.op is ops.const else Formula.named(f"{self.names[x]}.data", self.digits)
            for x in node.parents
        ]

    def _numbers(self, node: Value) -> list[Any]:
        """The operands of a node as numbers to be written."""
        return [
            x._data if x.op is ops.const else Formula.number(x._data, self.digits)
            for x in node.parents
        ]

    def _line(self, start: str, *sides: Any) -> str:
        """The sides joined by "=", save one that says what the one before it says."""
        texts = [x.side() if isinstance(x, Formula) else numeral(x, self.digits) for x in sides]
        return start + " = ".join(text for text, _ in groupby(texts))


class Formula(Operand):
    """An operand that writes down what is done with it, so that a rule of the op table tells.

    >>> g, out, x = map(Formula.named, ["o.grad", "o.data", "x.data"])
    >>> print(ops.tanh.vjp[0](g, out, x))
    o.grad * (1.0 - o.data * o.data)
    """

    __slots__ = ("tree", "digits")

    def __init__(self, tree: ast.expr, digits: int) -> None:
        self.tree = tree
        self.digits = digits  # of the numbers that it meets

    @staticmethod
    def named(text: str, digits: int = 6) -> Formula:
        """What stands in formulas as this text."""
        return Formula(ast.Name(text), digits)

    @staticmethod
    def number(x: float, digits: int) -> Formula:
        """A number, with its sign as an operation, so that -3.0 squared is (-3.0) ** 2."""
        text = numeral(x, digits)
        name = ast.Name(text.removeprefix("-"))
        return Formula(ast.UnaryOp(ast.USub(), name) if text.startswith("-") else name, digits)

    def __str__(self) -> str:
        return ast.unparse(self.tree)

    def side(self) -> str:
        """As a side of an equation, where a comparison needs parentheses."""
        return f"({self})" if isinstance(self.tree, ast.Compare) else str(self)

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        if op is ops.where and not isinstance(operands[0], Formula):
            return operands[1] if operands[0] else operands[2]  # decided by a constant
        digits = max((x.digits for x in operands if isinstance(x, Formula)), default=6)
        formulas = [
            x if isinstance(x, Formula) else Formula.number(float(x), digits) for x in operands
        ]
        places = "xyz"[: op.arity]
        if op.symbol.isalpha():
            pattern = f"{op.name}({', '.join(places)})"
        else:
            pattern = op.symbol.join(places) if op.arity > 1 else f"{op.symbol}x"
        filling = {place: x.tree for place, x in zip(places, formulas)}
        if op.arity == 1 and str(formulas[0]).startswith(op.symbol):
            filling["x"] = ast.Name(f"({formulas[0]})")  # -(-2.0) and not --2.0
        return Formula(_Fill(filling).visit(ast.parse(pattern, mode="eval").body), digits)


class _Fill(ast.NodeTransformer):
    """Puts operands in the places of a pattern."""

    def __init__(self, filling: dict[str, ast.expr]) -> None:
        self.filling = filling

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.filling.get(node.id, node)
