"""The Python text of a form: ordinary arithmetic on floats, forward and backward.

Every number has a name. For a piece of two nodes, tanh(a * x), which something outside reads:

    def forward(a0, a1):
        v0 = a0 * a1
        v1 = tanh(v0)
        return (v1,), (a0, a1, v1,)        what leaves the piece, and what its backward needs

    def backward(G, kept, at, writes):
        a0, a1, v1, = kept
        g1, = G[writes]
        t2 = v1 * v1
        t3 = 1.0 - t2
        t4 = g1 * t3
        t5 = a1 * t4
        t6 = a0 * t4
        i0, i1, = at
        G[i0] += t5
        G[i1] += t6
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..flat import Form, Graph, KernelSummary, ReadSummary, interpret, recorded

# NumPy's functions as Python writes them for floats, to the bit;
EXACT: dict[Any, str] = {
    np.add: "{} + {}",
    np.subtract: "{} - {}",
    np.multiply: "{} * {}",
    np.divide: "{} / {}",
    np.negative: "-{}",
    np.absolute: "abs({})",
    np.sqrt: "sqrt({})",
    np.maximum: "{0} if {0} > {1} or {0} != {0} else {1}",
    np.minimum: "{0} if {0} < {1} or {0} != {0} else {1}",
    np.greater: "{} > {}",
    np.less: "{} < {}",
    np.greater_equal: "{} >= {}",
    np.less_equal: "{} <= {}",
    np.equal: "{} == {}",
    np.not_equal: "{} != {}",
}
# and but for a last bit. All of these raise an error where they are not finite.
ROUNDED: dict[Any, str] = {
    np.exp: "exp({})",
    np.expm1: "expm1({})",
    np.log: "log({})",
    np.log2: "log2({})",
    np.log10: "log10({})",
    np.log1p: "log1p({})",
    np.power: "pow({}, {})",
    np.sin: "sin({})",
    np.cos: "cos({})",
    np.tan: "tan({})",
    np.arcsin: "asin({})",
    np.arccos: "acos({})",
    np.arctan: "atan({})",
    np.arctan2: "atan2({}, {})",
    np.hypot: "hypot({}, {})",
    np.sinh: "sinh({})",
    np.cosh: "cosh({})",
    np.tanh: "tanh({})",
    np.arcsinh: "asinh({})",
    np.arccosh: "acosh({})",
    np.arctanh: "atanh({})",
}
FUNCTIONS = {**vars(math), "abs": abs}  # what these texts call
LITERAL = re.compile(r"\(?(-?[\d.e+-]+|inf|nan)\)?")  # as `literal` writes it
NAMES = re.compile(r"\b[av]\d+\b")  # of a forward's numbers

NODE, CALL = 60e-9, 5e-6  # seconds: some three statements, and a call of a row's forward


class Backward(NamedTuple):
    """A function that carries gradients back through a piece."""

    text: str
    kept: list[str]  # what of the forward it needs
    slots: list[int]  # where gradients go


class Text:
    """Writes the functions of one form. An expression that comes twice is computed once."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.calls: dict[str, Any] = {}  # what the text calls besides FUNCTIONS
        self._lines: list[str] = []
        self._names: dict[str, str] = {}  # by expression
        self._tests: set[str] = set()
        self._prefix = "v"
        self._at: list[str] = []  # by place
        self.exact: list[bool] = []  # whether a place has the scalar engine's number, to the bit
        for place, (code, exactly) in enumerate(zip(form.op, form.asked)):
            op = ops.OPS[code]
            number, self._is_rounded = self._number(op, place), False
            self._at.append(self._computed(op, self._operands(place), number, exactly))
            self.exact.append(not (self._is_rounded or op.rounds(number)))
        for place in form.leaving:
            self._at[place] = self._float(self._at[place])
        self._forward, self._known = self._lines, self._names
        self._prefix = "t"

    def summary(self, number: int) -> list[KernelSummary]:
        """The ops of form `number`, each as one kernel, for all of its pieces."""
        form, times = self.form, len(self.form.nodes)
        found = []
        for kind in sorted(set(zip(form.op, self.exact))):
            places = [k for k, x in enumerate(zip(form.op, self.exact)) if x == kind]
            name, n = ops.OPS[kind[0]].name, len(places)
            nodes, read = form.nodes[:, places].reshape(-1), ReadSummary(True, (n,), True)
            head = number, name, f"{n:,} × {name}", times * n, times * n
            found.append(KernelSummary(*head, nodes, nodes[:0], read, [], kind[1], times))
        return found

    def forward(self, kept: list[str] | None = None) -> str:
        """The function that computes what leaves the piece, and if asked for, what is `kept`."""
        arguments = ", ".join(f"a{k}" for k in self.form.slots)
        leaving, more = (
            f"({''.join(f'{x}, ' for x in names)})"
            for names in ([self._at[place] for place in self.form.leaving], kept or [])
        )
        result = leaving if kept is None else f"{leaving}, {more}"
        return "\n".join([f"def forward({arguments}):", *self._forward, f"    return {result}\n"])

    def backward(self, places: list[bool], slots: list[bool]) -> Backward:
        """The function that carries gradients back to some places and slots."""
        self._lines, self._names = [], dict(self._known)
        form = self.form
        parts: dict[int, list[str]] = {place: [f"g{place}"] for place in form.leaving}
        for place in reversed(range(len(form.op))):
            if not places[place] or place not in parts:
                continue
            op, operands = ops.OPS[form.op[place]], self._operands(place)
            g, number = self._sum(parts[place]), self._number(op, place)
            for vjp, read in zip(op.vjp, form.reads[place]):
                if vjp is not None and (places[read] if read >= 0 else slots[-2 - read]):
                    rule = recorded(op, vjp, number, leading=2)
                    part = self._ruled(rule, [g, self._at[place], *operands])
                    parts.setdefault(read, []).append(part)
        at = [k for k in range(len(slots)) if slots[k] and -2 - k in parts]
        adds = [f"    G[i{k}] += {' + '.join(parts[-2 - k])}" for k in at]
        names = NAMES.findall("\n".join([*self._lines, *adds]))
        kept = [f"a{k}" for k in form.slots] + list(self._known.values())
        kept = sorted(set(kept).intersection(names))
        head = ["def backward(G, kept, at, writes):"]
        for left, source in (
            (kept, "kept"),
            ([f"g{place}" for place in form.leaving], "G[writes]"),
            ([f"i{k}" for k in at], "at"),
        ):
            head += [f"    {', '.join(left)}, = {source}"] * bool(left)
        text = "\n".join([*head, *self._lines, *adds, "    return\n"])
        return Backward(text, kept, at)

    def _operands(self, place: int) -> list[str]:
        return [self._operand(x) for x in self.form.reads[place] if x != -1]

    def _operand(self, read: int) -> str:
        if read >= 0:
            return self._at[read]
        constant = self.form.constants.get(-2 - read)
        return f"a{-2 - read}" if constant is None else literal(constant)

    def _number(self, op: ops.Op, place: int) -> float | None:
        """The value of the op's static operand, if it is a constant."""
        if op.static is None:
            return None
        return self.form.constants.get(-2 - self.form.reads[place][op.static])

    def _computed(
        self, op: ops.Op, operands: list[str], number: float | None, exactly: bool
    ) -> str:
        """The name of what an op gives: by a rule of other ops, its own text, or its forward."""
        if op is ops.where:
            condition, x, y = operands
            if (known := LITERAL.fullmatch(condition)) is not None:
                return self._float(x if float(known[1]) else y)
            return self._named(f"{self._float(x)} if {condition} else {self._float(y)}")
        operands = [self._float(x) for x in operands]
        text = EXACT.get(op.ufunc) or (None if exactly else ROUNDED.get(op.ufunc))
        rule = None if exactly or (text and number is None) else _rule(op, number)
        if rule is not None:
            return self._ruled(rule, operands)
        self._is_rounded |= op.ufunc in ROUNDED and text is not None
        if text is None:
            text = f"{op.name}_forward({', '.join(['{}'] * op.arity)})"
            self.calls[f"{op.name}_forward"] = partial(ops.evaluate, op.forward)
        if op.is_condition:  # as it stands in a choice; elsewhere it becomes a number
            test = text.format(*operands)
            self._tests.add(test)
            return test
        return self._named(text.format(*operands))

    def _float(self, x: str) -> str:
        """An operand as a number, if it is a test."""
        return self._named(f"1.0 if {x} else 0.0") if x in self._tests else x

    def _ruled(self, rule: Graph, operands: list[str]) -> str:
        """The name of what a recorded rule gives."""

        def apply(op: ops.Op, xs: list[str], number: float | None, is_last: bool) -> str:
            return self._computed(op, xs, number, exactly=False)

        return interpret(rule, operands, literal, apply)

    def _sum(self, parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else self._named(" + ".join(parts))

    def _named(self, expression: str) -> str:
        """The name of an expression, which is computed now unless it is already."""
        if expression not in self._names:
            self._names[expression] = name = f"{self._prefix}{len(self._names)}"
            self._lines.append(f"    {name} = {expression}")
        return self._names[expression]


def literal(x: float) -> str:
    """A number as an operand."""
    text = repr(x)
    return f"({text})" if math.copysign(1.0, x) < 0 else text


@cache
def seconds(op: ops.Op) -> float:
    """About how long an op takes for one number, forward and backward."""
    is_text = op is ops.where or op.ufunc in EXACT or op.ufunc in ROUNDED
    return NODE if not op.arity or is_text or _rule(op, None) else CALL


def _rule(op: ops.Op, number: float | None) -> Graph | None:
    """What an op does as a rule of other ops, if there is one."""
    for rule in (op.fast, None if op.defined or op.ufunc else op.forward):
        if rule is not None:
            with suppress(Exception):  # whatever a rule meets that was not written for nodes
                graph = recorded(op, rule, number)
                if op.code not in graph.op:
                    return graph
    return None
