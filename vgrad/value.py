"""The scalar engine: a number that remembers how it was computed. It is the definition."""

from __future__ import annotations

from collections.abc import Container, Iterable
from operator import attrgetter
from typing import Any

from . import ops
from .operators import Operand


class Value(Operand):
    """A number with a gradient; arithmetic on it gives more of them.

    `data` is the number and `grad` its gradient, both floats. `op` and `parents` say how it was
    computed; `level` is 0 for a leaf, else one more than its highest parent's. A leaf that is
    `trainable` is a parameter: `learn` moves it, and `vgrad.compile` finds it.

    >>> a, b = Value(2.0, label="a"), Value(3.0)
    >>> (a * b + a).backward()
    >>> a
    Value(a, data=2.0, grad=4.0)

    Raises TypeError where `data` is no real number.
    """

    __slots__ = ("data", "grad", "op", "parents", "level", "label", "trainable")

    data: float
    grad: float
    op: ops.Op
    parents: tuple[Value, ...]
    level: int
    label: str
    trainable: bool

    def __init__(self, data: Any, label: str = "", trainable: bool = True) -> None:
        self.data = ops.number(data)
        self.grad = 0.0
        self.op = ops.parameter
        self.parents = ()
        self.level = 0
        self.label = label
        self.trainable = trainable

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        for x in operands:
            if x.__class__ is not Value:
                return _apply_mixed(op, operands)
        return _node(op, operands)

    def backward(self) -> None:
        """Add this value's gradient to that of every leaf it was computed from.

        Interior gradients start from 0 at each call, so a second call doubles those of the leaves
        and nothing else. A gradient of 0 propagates as 0, through inf and nan too. Constants, the
        plain numbers of an expression, get none.
        """
        nodes = reachable([self])
        for node in nodes:
            if node.parents:
                node.grad = 0.0
        self.grad += 1.0
        for node in nodes:
            if node.grad:
                arguments = (node.grad, node.data, *[x.data for x in node.parents])
                for x, vjp in zip(node.parents, node.op.vjp):
                    if vjp is not None and x.op is not ops.const:
                        try:
                            x.grad += vjp(*arguments)
                        except ArithmeticError:
                            x.grad += ops.evaluate(vjp, *arguments)

    def zero_grad(self) -> None:
        """Set the gradient of this value, and of all it was computed from, to 0."""
        for node in reachable([self]):
            node.grad = 0.0

    def learn(self, rate: float) -> None:
        """`backward()`, then one step of gradient descent on the trainable leaves it reaches.

        Leaves accumulate: call `zero_grad()` first where they hold an older gradient.

        >>> x = Value(3.0)
        >>> (x * x).learn(0.1)
        >>> x
        Value(data=2.4, grad=6.0)
        """
        rate = ops.number(rate)
        self.backward()
        for node in reachable([self]):
            if node.trainable:
                node.data -= rate * node.grad

    def __repr__(self) -> str:
        label = f"{self.label}, " if self.label else ""
        return f"Value({label}data={self.data}, grad={self.grad})"

    def __float__(self) -> float:
        return float(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __bool__(self) -> bool:
        return self.data != 0.0


def reachable(roots: Iterable[Value], known: Container[Value] = ()) -> list[Value]:
    """All that `roots` were computed from and they themselves, highest level first.

    Does not look behind the values in `known`, nor list them.
    """
    nodes: list[Value] = []
    seen: set[Value] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value not in seen and value not in known:
            seen.add(value)
            nodes.append(value)
            stack.extend(value.parents)
    nodes.sort(key=attrgetter("level"), reverse=True)
    return nodes


def _node(op: ops.Op, parents: tuple[Value, ...]) -> Value:
    for x in parents:
        if x.data.__class__ is not float:  # set by hand to another kind of number
            x.data = ops.number(x.data)
    if len(parents) == 2:  # most of all work, so without a loop
        x, y = parents
        level = x.level if x.level > y.level else y.level
        try:
            data = op.forward(x.data, y.data)
        except ArithmeticError:
            data = ops.evaluate(op.forward, x.data, y.data)
    else:
        level = max([x.level for x in parents])
        data = ops.evaluate(op.forward, *[x.data for x in parents])
    node = _new(Value)
    node.data = data
    node.grad = 0.0
    node.op = op
    node.parents = parents
    node.level = level + 1
    node.label = ""
    node.trainable = False
    return node


def _apply_mixed(op: ops.Op, operands: tuple[Any, ...]) -> Any:
    """Numbers among the operands become constants; an operand of another engine takes over."""
    parents = []
    for x in operands:
        if isinstance(x, Operand) and not isinstance(x, Value):
            return x._apply(op, *operands)
        if not isinstance(x, Value):
            if not ops.is_number(x):
                return NotImplemented
            x = _constant(x)
        parents.append(x)
    return _node(op, tuple(parents))


def _constant(x: Any) -> Value:
    value = Value(x, trainable=False)
    value.op = ops.const
    return value


_new = object.__new__
