"""Engines to judge the library's by, of which one knows its rounding errors, and one makes few.

They share no rule with the library, only the operators. In the first every number is a pair: its
value, and the effect, to first order, of a relative error of 1 in every operation and leaf before
it. That is the sum of the sizes of all terms that meet in it, and rounding errors are relative to
it, in whatever order sums are taken. The second computes in extended precision, which tells how
good another engine's number is.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vgrad.operand import Operand


class Pair:
    """A value and the size of its errors; arithmetic gives more of them."""

    __slots__ = ("size", "value")

    def __init__(self, value: float, size: float) -> None:
        self.value, self.size = value, size

    def __add__(self, other: Pair) -> Pair:
        value = self.value + other.value
        return Pair(value, abs(value) + self.size + other.size)

    def __sub__(self, other: Pair) -> Pair:
        return self + -other

    def __neg__(self) -> Pair:
        return Pair(-self.value, self.size)

    def __mul__(self, other: Pair) -> Pair:
        x, y = self.value, other.value
        return Pair(x * y, abs(x * y) + abs(y) * self.size + abs(x) * other.size)

    def __truediv__(self, other: Pair) -> Pair:
        value, y = self.value / other.value, abs(other.value)
        return Pair(value, abs(value) + self.size / y + abs(value) * other.size / y)

    def through(self, f: Callable[[float], float], slope: float) -> Pair:
        """f of it, whose derivative there is `slope`."""
        value = f(self.value)
        return Pair(value, abs(value) + abs(slope) * self.size)


ZERO, ONE, TWO = Pair(0.0, 0.0), Pair(1.0, 0.0), Pair(2.0, 0.0)


def exp(x: Pair) -> Pair:
    return x.through(math.exp, math.exp(x.value))


def log(x: Pair) -> Pair:
    return x.through(math.log, 1 / x.value)


def tanh(x: Pair) -> Pair:
    return x.through(math.tanh, 1 / math.cosh(x.value) ** 2)


def power(x: Pair, y: Pair) -> Pair:
    value = x.value**y.value
    by_x = abs(y.value * x.value ** (y.value - 1)) * x.size if x.value and y.value else 0.0
    by_y = abs(value * math.log(x.value)) * y.size if x.value > 0 else 0.0
    return Pair(value, abs(value) + by_x + by_y)


def halves(x: Pair, y: Pair) -> float:
    """How much of the gradient goes to x, if the larger of the two is taken."""
    return 0.5 if x.value == y.value else float(x.value > y.value)


def exact(number: float) -> Pair:
    return Pair(number, 0.0)


Rule = tuple[Callable[..., Pair], Callable[..., tuple[Pair | None, ...]]]

RULES: dict[str, Rule] = {  # the value, and from it and the operands the derivatives
    "add": (lambda x, y: x + y, lambda z, x, y: (ONE, ONE)),
    "sub": (lambda x, y: x - y, lambda z, x, y: (ONE, -ONE)),
    "mul": (lambda x, y: x * y, lambda z, x, y: (y, x)),
    "div": (lambda x, y: x / y, lambda z, x, y: (ONE / y, -(x / (y * y)))),
    "neg": (lambda x: -x, lambda z, x: (-ONE,)),
    "pow": (power, lambda z, x, y: (
        y * power(x, y - ONE) if y.value else ZERO, z * log(x) if x.value > 0 else ZERO)),
    "exp": (exp, lambda z, x: (z,)),
    "log": (log, lambda z, x: (ONE / x,)),
    "sqrt": (lambda x: x.through(math.sqrt, 0.5 / math.sqrt(x.value)),
             lambda z, x: (ONE / (TWO * z),)),
    "tanh": (tanh, lambda z, x: (ONE - z * z,)),
    "sigmoid": (lambda x: ONE / (ONE + exp(-x)), lambda z, x: (z * (ONE - z),)),
    "sin": (lambda x: x.through(math.sin, math.cos(x.value)),
            lambda z, x: (x.through(math.cos, math.sin(x.value)),)),
    "cos": (lambda x: x.through(math.cos, math.sin(x.value)),
            lambda z, x: (-x.through(math.sin, math.cos(x.value)),)),
    "relu": (lambda x: x if x.value > 0 else ZERO, lambda z, x: (exact(float(x.value > 0)),)),
    "abs": (lambda x: Pair(abs(x.value), x.size),
            lambda z, x: (exact(2 * halves(x, ZERO) - 1),)),
    "maximum": (lambda x, y: x if x.value > y.value else y,
                lambda z, x, y: (exact(halves(x, y)), exact(halves(y, x)))),
    "minimum": (lambda x, y: x if x.value < y.value else y,
                lambda z, x, y: (exact(halves(y, x)), exact(halves(x, y)))),
    "where": (lambda c, x, y: x if c.value else y,
              lambda z, c, x, y: (None, ONE, ZERO) if c.value else (None, ZERO, ONE)),
    "stop_gradient": (lambda x: x, lambda z, x: (None,)),
    "gt": (lambda x, y: exact(float(x.value > y.value)), lambda *_: (None, None)),
    "lt": (lambda x, y: exact(float(x.value < y.value)), lambda *_: (None, None)),
    "ge": (lambda x, y: exact(float(x.value >= y.value)), lambda *_: (None, None)),
    "le": (lambda x, y: exact(float(x.value <= y.value)), lambda *_: (None, None)),
    "eq": (lambda x, y: exact(float(x.value == y.value)), lambda *_: (None, None)),
    "guard": (lambda x, y, z: z, lambda out, x, y, z: (None, None, ONE)),
}  # fmt: skip
DECIDES = {"relu", "abs", "maximum", "minimum", "gt", "lt", "ge", "le"}


@dataclass
class Run:
    """Everything that one run of a function has computed, in order."""

    nodes: list[Rough] = field(default_factory=list)
    decisions: list[float] = field(default_factory=list)  # 1, 0 or -1: which of two was larger
    margin: float = math.inf  # how close the closest was, relative to the sizes

    def leaf(self, number: float, size: float | None = None) -> Rough:
        """An input or a parameter; a plain number has the size of one too."""
        return self.record("", (), Pair(number, abs(number) if size is None else size))

    def record(self, op: str, parents: tuple[Rough, ...], pair: Pair) -> Rough:
        node = Rough(self, op, parents, pair, len(self.nodes))
        self.nodes.append(node)
        return node

    def decide(self, x: Pair, y: Pair) -> None:
        gap, size = x.value - y.value, x.size + y.size
        self.decisions.append(float(gap > 0) - float(gap < 0))
        if size and gap:
            self.margin = min(self.margin, abs(gap) / size)

    def gradients(self, root: Rough, leaves: list[Rough]) -> list[Pair]:
        """By reverse accumulation, as pairs."""
        found = [ZERO] * len(self.nodes)
        found[root.index] = ONE
        for node in reversed(self.nodes[: root.index + 1]):
            g = found[node.index]
            if node.op and g.size + abs(g.value):
                _, slopes = RULES[node.op]
                pairs = [x.pair for x in node.parents]
                for parent, slope in zip(node.parents, slopes(node.pair, *pairs)):
                    if slope is not None:
                        found[parent.index] = found[parent.index] + g * slope
        return [found[leaf.index] for leaf in leaves]


class Rough(Operand):
    """A number of this engine."""

    __slots__ = ("index", "op", "pair", "parents", "run")

    def __init__(
        self, run: Run, op: str, parents: tuple[Rough, ...], pair: Pair, index: int
    ) -> None:
        self.run, self.op, self.parents, self.pair, self.index = run, op, parents, pair, index

    @staticmethod
    def _apply(op: Any, *operands: Any) -> Any:
        run = next(x.run for x in operands if isinstance(x, Rough))
        parents = tuple(x if isinstance(x, Rough) else run.leaf(float(x)) for x in operands)
        pairs = [x.pair for x in parents]
        if op.name in DECIDES:
            run.decide(*pairs[:2], *[ZERO] * (2 - len(pairs)))
        return run.record(op.name, parents, RULES[op.name][0](*pairs))


EXTENDED: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "neg": operator.neg, "pow": operator.pow, "abs": abs, "exp": np.exp, "log": np.log,
    "sqrt": np.sqrt, "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "maximum": max, "minimum": min,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "relu": lambda x: max(x, 0 * x),
    "where": lambda c, x, y: x if c else y, "stop_gradient": lambda x: x, "gt": operator.gt,
    "lt": operator.lt, "ge": operator.ge, "le": operator.le, "eq": operator.eq,
}  # fmt: skip


class Extended(Operand):
    """A number with 64 bits of mantissa or more, where the machine has them."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = np.longdouble(value)

    @staticmethod
    def _apply(op: Any, *operands: Any) -> Any:
        numbers = [x.value if isinstance(x, Extended) else np.longdouble(x) for x in operands]
        return Extended(EXTENDED[op.name](*numbers))
