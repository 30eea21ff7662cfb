"""Expressions of NumPy as text: ops applied to them, and rows read from variables."""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import suppress
from itertools import count
from keyword import iskeyword
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from .. import ops, special
from ..arguments import Array, Shape
from ..compiler import Fused, Ints
from ..flat import Graph, interpret, recorded, strides_of

# Not "**", which takes short cuts of its own where the exponent is a Python number.
OPERATORS = {"+", "-", "*", "/", ">", "<", ">=", "<=", "==", "!="}
LONGEST, SLICES = 40, 6  # how long a name from a label may be, and how many slices an index has
CONSTANT, THETA = -1, 0  # homes of nodes that no kernel computes


class Expression(NamedTuple):
    """The code of an array, an atom or in parentheses, and the axes that the array has."""

    code: str
    rows: int = 0  # how many axes of rows
    batch: bool = False  # whether behind them there is one of samples
    mask: bool = False  # whether its numbers are booleans
    value: Any = None  # of a constant

    def then(self, code: str, rows: int) -> Expression:
        """The same with an index or a method behind it, which leaves so many axes of rows."""
        return Expression(self.code + code, rows, self.batch)

    def column(self) -> Expression:
        """The same with an axis of samples, if it has rows only."""
        extra = f"[{':, ' * self.rows}None]" if self.rows and not self.batch else ""
        return self._replace(code=self.code + extra)

    def sum(self) -> Expression:
        """The sum along the last axis of rows."""
        return self.then(f".sum(axis={self.rows - 1})", self.rows - 1)


def constant(x: Any) -> Expression:
    """A number, or nested lists of numbers, to the last bit."""
    return Expression(re.sub("nan|inf", r"np.\g<0>", str(x)), value=x)


def tuple_of(parts: Any) -> str:
    """As Python writes a tuple, where some parts are code."""
    return str(parts).replace("'", "")


def combined(form: str, *operands: Expression) -> Expression:
    """The operands in the places of "{}", to be combined element by element."""
    rows, batch = max(x.rows for x in operands), any(x.batch for x in operands)
    aligned = [x.column() if batch else x for x in operands]
    codes = [f"({x.code} * 1.0)" if x.mask else x.code for x in aligned]
    return Expression(form.format(*codes), rows, batch)


def applied(op: ops.Op, operands: list[Expression], *_: Any) -> Expression:
    """An op as its row says: as a rule of other ops, or as its ufunc."""
    if op is ops.where:
        return combined("np.where({}, {}, {})", operands[0]._replace(mask=False), *operands[1:])
    if op.definition is getattr(special, op.name, False):
        return combined(f"special.{op.name}({', '.join(['{}'] * op.arity)})", *operands)
    for rule in filter(None, (op.fast, None if op.ufunc else op.definition or op.forward)):
        with suppress(Exception):  # whatever a rule meets that was not written for nodes
            graph = recorded(op, rule, None if op.static is None else operands[op.static].value)
            uses = np.bincount(np.maximum(graph.parents, 0).ravel(), minlength=len(graph))
            is_tree = (uses[1:][graph.level[1:] > 0] < 2).all()  # else its text might have no end
            if op.code not in graph.op and (is_tree or not op.defined):
                return interpret(graph, operands, constant, applied)
    if op.ufunc is None:
        raise TypeError(f"op {op.name!r} must have a ufunc, or a rule of other ops (got neither)")
    form = f"np.{op.ufunc.__name__}({', '.join(['{}'] * op.arity)})"
    if op.symbol in OPERATORS:
        form = f"({'{}' * (op.arity - 1)} {op.symbol} {{}})"
    return combined(form, *operands)._replace(mask="d" * op.arity + "->?" in op.ufunc.types)


class Variables:
    """The variables of a text: their names, which nodes they have, and how to read these."""

    def __init__(self, graph: Graph, fused: Fused, taken: set[str]) -> None:
        self.parts: dict[str, str] = {}  # parts of theta that have a name, by code
        self.lists: dict[str, str] = {}  # names of lists that stand before the function, by code
        self.samples: str | int = 1  # how many, as code
        self._labels, self._value, self._taken = graph.labels, fused.value, taken
        self._numbers: dict[str, count[int]] = defaultdict(lambda: count(1))
        self._held: list[tuple[Expression, int]] = []  # the variables, and of how many nodes
        self._home = np.full(len(fused.op), CONSTANT)  # the variable that has a node,
        self._row = np.zeros(len(fused.op), np.intp)  # and where
        self.hold(Expression("theta", 1), graph.parameters)

    def new(self, label: str, prefix: str = "") -> str:
        """The label, if nothing has this name yet, or one with a number at its end."""
        if label and not iskeyword(label) and label not in self._taken:
            self._taken.add(label)
            return label
        prefix = f"{label}_" if label else prefix
        return self.new(f"{prefix}{next(self._numbers[prefix])}")

    def label(self, nodes: Ints, base: bool = False) -> str:
        """What the nodes are called, as an identifier: "x" for "x[0]" and "x[1]"; or nothing."""
        labels = {self._labels.get(i, "") for i in nodes.ravel().tolist()}
        if nodes.size > 1 or base:
            labels = {re.sub(r"\[[^.]*$", "", x) for x in labels}
        name = normalize("NFKC", labels.pop()) if len(labels) == 1 else ""
        if "]." in name:  # a place in a model, as layers[0].w[2, 1]; W1 reads better
            return ""
        name = re.sub(r"^(?=\d)", "_", re.sub(r"\W+", "_", name).strip("_"))
        return name if name.isidentifier() and len(name) <= LONGEST else ""

    def hold(self, variable: Expression, nodes: Ints) -> None:
        """Note that this variable has these nodes, in order, or one number for all of them."""
        self._home[nodes] = len(self._held)
        self._row[nodes] = np.arange(len(nodes)) if variable.rows else 0
        self._held.append((variable, len(nodes)))

    def read(self, nodes: Ints, prefix: str = "") -> Expression:
        """These nodes (n,) or (a, k); one row without its axis, if they are all the same."""
        homes, label = self._home[nodes], self.label(nodes)
        home = int(homes.flat[0])
        if (homes != home).any():
            return self._joined(nodes, homes)
        if home == CONSTANT:
            return self.constants(self._value[nodes])
        found = self._rows(*self._held[home], self._row[nodes])
        if home == THETA and found.code != "theta" and (label or prefix):
            name = self.parts.get(found.code) or self.new(label, prefix)
            return found._replace(code=self.parts.setdefault(found.code, name))
        return found

    def full(self, x: Expression, shape: Shape, batch: bool = False) -> Expression:
        """The same with rows of this shape, and over the batch, if it lacks these axes."""
        batch = x.batch or batch
        if x.rows == len(shape) and x.batch == batch:
            return x
        sizes = tuple_of(shape + (self.samples,) * batch)
        return Expression(f"np.full({sizes}, {x.column().code})", len(shape), batch)

    def constants(self, values: Array) -> Expression:
        """Constants of any shape, as one number if they are all the same."""
        if len(np.unique(values.view(np.int64))) == 1:
            return constant(values.flat[0].item())
        return Expression(self.listed(values), values.ndim)

    def listed(self, array: Array | Ints) -> str:
        """The name of an array that stands before the function."""
        code = constant(array.tolist()).code
        name = self.lists.get(code) or self.new("", "C" if array.dtype == float else "ROWS")
        return self.lists.setdefault(code, name)

    def _joined(self, nodes: Ints, homes: Ints) -> Expression:
        """Nodes of several variables: what each of these has, one below the other, and an index."""
        parts = [np.unique(nodes[homes == home]) for home in dict.fromkeys(homes.flat)]
        found = [self.read(part) for part in parts]
        batch = any(x.batch for x in found)
        codes = [self.full(x, p.shape[: len(p) > 1], batch).code for x, p in zip(found, parts)]
        joined = Expression(f"np.{'vstack' if batch else 'hstack'}([{', '.join(codes)}])", 1, batch)
        order = np.argsort(np.concatenate(parts))
        rows = order[np.searchsorted(np.concatenate(parts), nodes, sorter=order)]
        return self._rows(joined, len(order), rows)

    def _rows(self, x: Expression, size: int, rows: Ints) -> Expression:
        """Rows (n,) or (a, k) out of `size`: a view if they are regular, or else a gather."""
        if (rows == rows.flat[0]).all():
            return x.then(f"[{rows.flat[0]}]" * x.rows, 0)
        if rows.ndim == 1:
            return x.then(self._index("", rows, size), 1)
        view = self._window(x, size, rows)
        if view is None and (turned := self._window(x, size, rows.T)):
            view = turned.then(".swapaxes(0, 1)" if x.batch else ".T", 2)
        return view or x.then(f"[{self.listed(rows)}]", 2)

    def _window(self, x: Expression, size: int, rows: Ints) -> Expression | None:
        """Rows (a, k) as columns of a reshaped slice, if they are the same columns in each row."""
        a, first = len(rows), int(rows.min())
        columns, step = rows[0] - first, int(rows[-1, 0] - rows[0, 0]) // max(1, a - 1)
        before = max(0, first + a * step - size)  # so that the last row is complete
        regular = (rows == first + columns + step * np.arange(a)[:, None]).all()
        if not regular or before > min(first, step - 1 - columns.max()):
            return None
        part = self._index("", np.arange(a * step) + first - before, size)
        shape = f".reshape({a}, {step}{', -1' * x.batch})"
        return x.then(part + shape + self._index(":, ", before + columns, step), 2)

    def _index(self, start: str, rows: Ints, size: int) -> str:
        """Rows (n,) out of `size` in brackets: a slice, a few slices, or a list; or nothing."""
        step = (strides_of(rows) or (0,))[0]
        if step:
            end = rows[-1] + np.sign(step)
            span = f"{rows[0] or ''}:{end if end >= 0 else ''}" + f":{step}" * (step != 1)
            return "" if step == 1 and len(rows) == size else f"[{start}{span}]"
        slices = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        if len(slices) > min(SLICES, len(rows) // 2):
            return f"[{start}{self.listed(rows)}]"
        return f"[{start}np.r_[{', '.join(f'{x[0]}:{x[-1] + 1}' for x in slices)}]]"
