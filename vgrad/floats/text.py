"""The Python text of a form: ordinary arithmetic on floats, forward and backward.

Every number has a name: `a0`, `a1` for what a piece reads from outside, `v0`, `v1` for what it
computes, `g1` for gradients that arrive, `t5` for what is computed from them. `Text.forward` and
`Text.backward` show a piece of two nodes.
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
# and but for a last bit. Most raise an error where an operand is finite and the result is not.
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
LITERAL = re.compile(r"\(?(-?[\d.e+-]+|-?inf|nan)\)?")  # as `literal` writes it
NAMES = re.compile(r"\b[av]\d+\b")  # of a forward's numbers

NODE, FORWARD = 60e-9, 5e-6  # seconds: some three statements, and a call of a row's forward


class Writer:
    """Statements that give numbers names. An expression that comes twice is computed once."""

    def __init__(self, prefix: str, before: Writer | None = None) -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self.names: dict[str, str] = dict(before.names) if before else {}  # by expression
        self.tests: set[str] = set(before.tests) if before else set()  # what is true or false
        self.calls: dict[str, Any] = dict(before.calls) if before else {}  # besides FUNCTIONS
        self.rounded = 0  # how many ops may differ from the scalar engine's in a last bit

    def named(self, expression: str) -> str:
        """The name of an expression, which is computed now unless it is already."""
        if expression not in self.names:
            self.names[expression] = name = f"{self.prefix}{len(self.names)}"
            self.lines.append(f"    {name} = {expression}")
        return self.names[expression]

    def total(self, parts: list[str]) -> str:
        """The name of a sum."""
        return parts[0] if len(parts) == 1 else self.named(" + ".join(parts))

    def as_float(self, x: str) -> str:
        """An operand as a number, if it is a test."""
        return self.named(f"1.0 if {x} else 0.0") if x in self.tests else x

    def ruled(self, rule: Graph, operands: list[str]) -> str:
        """The name of what a recorded rule gives."""

        def apply(op: ops.Op, xs: list[str], number: float | None, is_last: bool) -> str:
            return self.computed(op, xs, number)

        return interpret(rule, operands, literal, apply)

    def computed(
        self, op: ops.Op, operands: list[str], number: float | None, exactly: bool = False
    ) -> str:
        """The name of what an op gives: by a rule of other ops, its own text, or its forward."""
        if op is ops.where:
            condition, x, y = operands
            if (known := LITERAL.fullmatch(condition)) is not None:
                return self.as_float(x if float(known[1]) else y)
            return self.named(f"{self.as_float(x)} if {condition} else {self.as_float(y)}")
        operands = [self.as_float(x) for x in operands]
        text = EXACT.get(op.ufunc) or (None if exactly else ROUNDED.get(op.ufunc))
        rule = None if exactly or (text and number is None) else _rule(op, number)
        if rule is not None:
            return self.ruled(rule, operands)
        self.rounded += text is not None and op.ufunc in ROUNDED
        if text is None:
            name = f"op{op.code}"
            text = f"{name}({', '.join(['{}'] * op.arity)})"
            self.calls[name] = partial(ops.evaluate, op.forward)
        if op.is_condition:  # as it stands in a choice; elsewhere it becomes a number
            test = text.format(*operands)
            self.tests.add(test)
            return test
        return self.named(text.format(*operands))


class Function(NamedTuple):
    """A function of a piece as text, and what it calls besides FUNCTIONS."""

    text: str
    calls: dict[str, Any]
    kept: list[str]  # of a backward: what it needs of the forward
    slots: list[int]  # and where its gradients go


class Text:
    """The functions of one form, as text; nothing here changes once it is made."""

    def __init__(self, form: Form) -> None:
        self.form, self._writer = form, Writer("v")
        self._at: list[str] = []  # the name, by place
        self.exact: list[bool] = []  # whether a place has the scalar engine's number, to the bit
        for place, (code, exactly) in enumerate(zip(form.op, form.asked)):
            op, before = ops.OPS[code], self._writer.rounded
            number = self._number(op, place)
            self._at.append(self._writer.computed(op, self._operands(place), number, exactly))
            self.exact.append(self._writer.rounded == before and not op.rounds(number))
        for place in form.leaving:
            self._at[place] = self._writer.as_float(self._at[place])

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

    def forward(self, kept: list[str] | None = None) -> Function:
        """What computes the numbers that leave the piece, and if asked for, those that are `kept`.

        Of a piece of two nodes, tanh(a * x), the second of which leaves it:

            def forward(a0, a1):
                v0 = a0 * a1
                v1 = tanh(v0)
                return (v1, ), (a0, a1, v1, )
        """
        arguments = ", ".join(f"a{k}" for k in self.form.slots)
        leaving, more = (
            f"({''.join(f'{x}, ' for x in names)})"
            for names in ([self._at[place] for place in self.form.leaving], kept or [])
        )
        result = leaving if kept is None else f"{leaving}, {more}"
        lines = [f"def forward({arguments}):", *self._writer.lines, f"    return {result}\n"]
        return Function("\n".join(lines), self._writer.calls, [], [])

    def backward(self, places: list[bool], slots: list[bool]) -> Function:
        """What carries gradients back to some places and slots. Of the same piece:

        def backward(G, kept, at, writes):
            a0, a1, v1, = kept
            g1, = G[writes]
            i0, i1, = at
            t2 = v1 * v1
            t3 = 1.0 - t2
            t4 = g1 * t3
            t5 = a1 * t4
            t6 = a0 * t4
            G[i0] += t5
            G[i1] += t6
        """
        form, writer = self.form, Writer("t", before=self._writer)
        parts: dict[int, list[str]] = {place: [f"g{place}"] for place in form.leaving}
        for place in reversed(range(len(form.op))):
            if not places[place] or place not in parts:
                continue
            op, operands = ops.OPS[form.op[place]], self._operands(place)
            g, number = writer.total(parts[place]), self._number(op, place)
            for vjp, read in zip(op.vjp, form.reads[place]):
                if vjp is not None and (places[read] if read >= 0 else slots[-2 - read]):
                    rule = recorded(op, vjp, number, leading=2)
                    part = writer.ruled(rule, [g, self._at[place], *operands])
                    parts.setdefault(read, []).append(part)
        at = [k for k in range(len(slots)) if slots[k] and -2 - k in parts]
        adds = [f"    G[i{k}] += {' + '.join(parts[-2 - k])}" for k in at]
        names = NAMES.findall("\n".join([*writer.lines, *adds]))
        kept = [f"a{k}" for k in form.slots] + list(self._writer.names.values())
        kept = sorted(set(kept).intersection(names))
        lines = ["def backward(G, kept, at, writes):"]
        for left, source in (
            (kept, "kept"),
            ([f"g{place}" for place in form.leaving], "G[writes]"),
            ([f"i{k}" for k in at], "at"),
        ):
            lines += [f"    {', '.join(left)}, = {source}"] * bool(left)
        text = "\n".join([*lines, *writer.lines, *adds, "    return\n"])
        return Function(text, writer.calls, kept, at)

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


def literal(x: float) -> str:
    """A number as an operand."""
    text = repr(x)
    return f"({text})" if math.copysign(1.0, x) < 0 else text


@cache
def seconds(op: ops.Op) -> float:
    """About how long an op takes for one number, forward and backward."""
    is_text = op is ops.where or op.ufunc in EXACT or op.ufunc in ROUNDED
    return NODE if not op.arity or is_text or _rule(op, None) else FORWARD


def _rule(op: ops.Op, number: float | None) -> Graph | None:
    """What an op does as a rule of other ops, if there is one."""
    for rule in (op.fast, None if op.defined or op.ufunc else op.forward):
        if rule is not None:
            with suppress(Exception):  # whatever a rule meets that was not written for nodes
                graph = recorded(op, rule, number)
                if op.code not in graph.op:
                    return graph
    return None
