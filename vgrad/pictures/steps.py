"""Backpropagation step by step, with the arithmetic of each step in words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Literal, NamedTuple

from .. import ops
from ..engine import Value, backpropagate, reachable
from ..operand import Operand
from .diagram import numeral

By = Literal["node", "level"]
GIVEN = "The leaves are given; every other value is computed from its parents."
KNOWN = "All gradients are known."


@dataclass(frozen=True, eq=False)
class Step:
    """What happens at once, and what is known after it."""

    active: tuple[Value, ...]  # the nodes at work
    edges: tuple[tuple[Value, int], ...]  # along which edges: a node, and which of its operands
    lines: tuple[str, ...]  # the arithmetic
    data: dict[Value, float]  # the numbers known by then
    grads: dict[Value, float]  # the gradients, as far as they have been added up
    finished: frozenset[Value]  # the nodes whose part in the pass is done


def steps(root: Value, names: dict[Value, str], forward: bool, by: By, digits: int) -> list[Step]:
    """The steps of `root.backward()`, and before them with `forward` those of the values."""
    words = _Words(names, digits)
    result = [*(_forward(root, words) if forward else ()), *_backward(root, words)]
    if by == "node":
        return result
    levels = groupby(result, lambda step: (bool(step.grads), step.active and step.active[0].level))
    return [_together(list(level)) for _, level in levels]


def _together(level: list[Step]) -> Step:
    return replace(
        level[-1],
        finished=level[0].finished,
        active=tuple(x for step in level for x in step.active),
        edges=tuple(edge for step in level for edge in step.edges),
        lines=tuple(line for step in level for line in step.lines),
    )


def _forward(root: Value, words: _Words) -> Iterator[Step]:
    nodes = reachable(root)[::-1]
    data = {x: x._number for x in nodes if not x.level}
    yield Step((), (), (GIVEN,), data, {}, frozenset(data))
    for node in nodes[len(data) :]:
        finished, data = frozenset(data), data | {node: node._number}
        edges = tuple((node, k) for k in range(node.op.arity))
        yield Step((node,), edges, (words.forward(node),), data, {}, finished)


def _backward(root: Value, words: _Words) -> Iterator[Step]:
    nodes = reachable(root)
    data = {x: x._number for x in nodes}
    last = {x: node for node in nodes for x in node.parents}  # the last node to add to x's gradient
    seed, parts = _run(root, words)
    grads, finished = {root: seed}, frozenset[Value]()
    name = words.names[root]
    line = f"{name}.grad = {numeral(seed, words.digits)}, the derivative of {name} by itself"
    yield Step((root,), (), (line,), data, grads, finished)
    for node in (x for x in nodes if x.level):
        leaves = {x for x in node.parents if last[x] is node and not x.level} - finished
        totals = {node.parents[k]: total for k, (_, total) in parts[node].items()}
        grads = dict.fromkeys((node, *leaves), 0.0) | grads | totals
        lines = tuple(line for line, _ in parts[node].values())
        if not lines:
            why = f"{node.op.name} has derivative 0" if grads[node] else "its gradient is 0.0"
            lines = (f"{words.names[node]} passes nothing on: {why}",)
        yield Step((node,), tuple((node, k) for k in parts[node]), lines, data, grads, finished)
        finished |= {node, *leaves}  # what a child is still at work for is not
    yield Step((), (), (KNOWN,), data, grads, frozenset(nodes))


def _run(root: Value, words: _Words) -> tuple[float, dict[Value, dict[int, tuple[str, float]]]]:
    """Run the engine; its seed, and node -> operand -> words, the operand's gradient after it."""
    before = {x: x.grad for x in reachable(root)}
    sums = dict.fromkeys(before, 0.0)
    parts: dict[Value, dict[int, tuple[str, float]]] = {x: {} for x in before}

    def note(node: Value, x: Value, part: float) -> None:
        rules = enumerate(node.op.vjp)
        known = parts[node]
        k = next(k for k, rule in rules if rule and node.parents[k] is x and k not in known)
        known[k] = words.contribution(node, k, sums[x], part), x.grad
        sums[x] = x.grad

    try:
        for x in before:
            x.grad = 0.0
        backpropagate(root, note)
        return root.grad, parts
    finally:
        for x, grad in before.items():
            x.grad = grad


class _Words(NamedTuple):
    """Says what a node does, with these names and this number of significant digits."""

    names: dict[Value, str]
    digits: int

    def forward(self, node: Value) -> str:
        """As in "z.data = x.data * y.data = 2.0 * 3.0 = 6.0"."""
        line = value_line(self.names[node], node.op, *self._operands(node), self.digits)
        return line.filled([x._number for x in node.parents], node._number, self.digits)

    def contribution(self, node: Value, k: int, before: float, part: float) -> str:
        """As in "x.grad += y.data * z.grad = 3.0 * 0.5 = 1.5", and the new sum if there is one."""
        target = self.names[node.parents[k]]
        line = part_line(target, self.names[node], node.op, k, *self._operands(node), self.digits)
        numbers = [node.grad, node._number, *[x._number for x in node.parents]]
        text = line.filled(numbers, part, self.digits)
        if before:
            terms = [numeral(x, self.digits) for x in (before, part, node.parents[k].grad)]
            text += "\n    {}.grad = {} + {} = {}".format(target, *terms)
        return text

    def _operands(self, node: Value) -> tuple[list[str], list[float | None]]:
        """Their names, and the numbers of those that are constants."""
        constants = [x._number if x.op is ops.const else None for x in node.parents]
        return [self.names[x] for x in node.parents], constants


class Line(NamedTuple):
    """A line of arithmetic: what it changes, and how, in names and with blanks for numbers.

    >>> part_line("x", "z", ops.mul, 0, ["x", "y"], [None, None], 6)
    Line(start='x.grad += ', names='y.data * z.grad', blanks='{3} * {0}')
    """

    start: str
    names: str
    blanks: str

    def filled(self, numbers: Sequence[float], result: float, digits: int) -> str:
        """With a number in each blank, and the result, joined by "=" where these differ."""
        numerals = [numeral(x, digits) for x in numbers]

        def fill(blank: re.Match[str]) -> str:
            sign, k, power = blank.groups(default="")
            text = numerals[int(k)]  # -(-3.0) and (-3.0) ** 2
            text = f"({text})" if text.startswith("-") and (sign or power) else text
            return sign + text + power

        sides = [self.names, BLANK.sub(fill, self.blanks), numeral(result, digits)]
        return self.start + " = ".join(text for text, _ in groupby(sides))


BLANK = re.compile(r"(-?)\{(\d)\}( \*\*)?")
Constants = Sequence[float | None]


def value_line(
    name: str, op: ops.Op, operands: Sequence[str], constants: Constants, digits: int
) -> Line:
    """How a value is computed; the blanks {0} and so on are its operands' numbers."""
    apply = partial(Formula._apply, op)
    return _line(f"{name}.data = ", apply, [f"{x}.data" for x in operands], constants, digits)


def part_line(
    target: str,
    name: str,
    op: ops.Op,
    k: int,
    operands: Sequence[str],
    constants: Constants,
    digits: int,
) -> Line:
    """What operand k gets of a gradient; the blanks are those of the vjp's arguments, in order."""
    arguments = [f"{name}.grad", f"{name}.data", *[f"{x}.data" for x in operands]]
    return _line(f"{target}.grad += ", op.vjp[k], arguments, [None, None, *constants], digits)


def _line(start: str, rule: Any, names: list[str], constants: Constants, digits: int) -> Line:
    """The rule applied to names, and to blanks; constants are numbers in both."""
    blanks = [f"{{{k}}}" for k in range(len(names))]
    sides = [
        rule(*[Formula(ast.Name(x), digits) if c is None else c for x, c in zip(texts, constants)])
        for texts in (names, blanks)
    ]
    return Line(start, *[str(x) if isinstance(x, Formula) else numeral(x, digits) for x in sides])


@dataclass(eq=False, slots=True)
class Formula(Operand):
    """An operand that writes down what is done to it, and so spells out a rule of the op table.

    >>> g, out, x = (Formula(ast.Name(name)) for name in ("o.grad", "o.data", "x.data"))
    >>> print(ops.tanh.vjp[0](g, out, x))
    o.grad * (1.0 - o.data * o.data)
    """

    tree: ast.expr
    digits: int = 6  # of the numbers that it meets

    @staticmethod
    def number(x: float, digits: int) -> Formula:
        """A number, with its sign as an operation, so that -3.0 squared is (-3.0) ** 2."""
        text = numeral(x, digits)
        name = ast.Name(text.removeprefix("-"))
        return Formula(ast.UnaryOp(ast.USub(), name) if text.startswith("-") else name, digits)

    def __str__(self) -> str:
        text = ast.unparse(self.tree)
        return f"({text})" if isinstance(self.tree, ast.Compare) else text

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        if op is ops.where and not isinstance(operands[0], Formula):
            return operands[1] if operands[0] else operands[2]  # decided by a constant
        digits = max((x.digits for x in operands if isinstance(x, Formula)), default=6)
        trees = [
            (x if isinstance(x, Formula) else Formula.number(float(x), digits)).tree
            for x in operands
        ]
        if op.symbol.isidentifier():
            return Formula(ast.Call(ast.Name(op.name), trees, []), digits)
        node = ast.parse(f"x {op.symbol} x" if op.arity > 1 else f"{op.symbol}x", mode="eval").body
        if isinstance(node, ast.BinOp):
            node.left, node.right = trees
        elif isinstance(node, ast.Compare):
            node.left, node.comparators = trees[0], trees[1:]
        elif isinstance(node, ast.UnaryOp):  # -(-2.0) and not --2.0
            text = ast.unparse(trees[0])
            node.operand = ast.Name(f"({text})") if text.startswith(op.symbol) else trees[0]
        return Formula(node, digits)
