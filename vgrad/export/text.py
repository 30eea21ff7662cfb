"""Python text: expressions of NumPy, ops of the table applied to them, and views of rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import ops
from ..compiler import Ints
from ..flat import Graph, recorded, strides_of

COMPARISON, SUM, PRODUCT, UNARY, ATOM = range(5)  # how tightly an expression binds

# Not "**", which takes short cuts of its own where the exponent is a Python number.
INFIX = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "@": PRODUCT}
INFIX |= dict.fromkeys([">", "<", ">=", "<=", "==", "!="], COMPARISON)

RUNS = 6  # slices that make up an index


class Text(NamedTuple):
    """An expression, and which axes its result has: (rows, batch), either of them or none."""

    code: str
    tight: int = ATOM
    rows: bool = False
    batch: bool = False
    mask: bool = False  # whether its numbers are booleans

    def at(self, tight: int) -> str:
        """The code as an operand of what binds so tightly."""
        return self.code if self.tight >= tight else f"({self.code})"

    def then(self, code: str) -> Text:
        """The same array through an index or a method."""
        return self._replace(code=self.at(ATOM) + code, tight=ATOM)

    def column(self) -> Text:
        """Numbers without a batch, one per row, as they meet rows of a batch."""
        if self.batch or not self.rows:
            return self
        name, bracket, index = self.code.partition("[")
        if bracket and name.isidentifier() and set(index[:-1]) <= set("0123456789:-"):
            return self._replace(code=f"{self.code[:-1]}, None]")
        return self.then("[:, None]")


def number(x: float) -> Text:
    """A constant, to the last bit."""
    if math.isnan(x):
        return Text("np.nan")
    code = repr(x).replace("inf", "np.inf")
    return Text(code, UNARY if code.startswith("-") else ATOM)


def infix(symbol: str, x: Text, y: Text) -> Text:
    """Two operands and the operator between them."""
    tight = INFIX[symbol]
    return _joined(f"{x.at(tight)} {symbol} {y.at(tight + 1)}", tight, x, y)


def negative(x: Text) -> Text:
    """The operand with a minus."""
    return _joined(f"-{x.at(ATOM)}", UNARY, x)


def call(function: str, *operands: Text) -> Text:
    """A call of a function that goes element by element."""
    return _joined(f"{function}({', '.join(x.code for x in operands)})", ATOM, *operands)


def _joined(code: str, tight: int, *operands: Text) -> Text:
    rows, batch = any(x.rows for x in operands), any(x.batch for x in operands)
    return Text(code, tight, rows, batch)


# --- ops -----------------------------------------------------------------------------------------


def applied(op: ops.Op, operands: list[Text], numbers: tuple[float | None, ...]) -> Text:
    """What the op's row says: its `fast` rule, its ufunc, or its forward as a rule of other ops.

    `numbers` are the operands that the rule may look at. Raises TypeError where the row has no
    ufunc, and no rule that can be written down.
    """
    for rule in (op.fast, None if op.ufunc or op is ops.where else op.forward):
        graph = None if rule is None else _recorded(op, rule, numbers)
        if graph is not None and op.code not in graph.op:
            return _ruled(graph, operands)
    if op is ops.where:
        return call("np.where", *operands)
    if op.ufunc is None:
        raise _unwritable(op)
    if op.symbol in INFIX and op.arity == 2:
        result = infix(op.symbol, *operands)
    elif op.symbol == "-":
        result = negative(*operands)
    else:
        result = call(f"np.{op.ufunc.__name__}", *operands)
    return result._replace(mask="d" * op.arity + "->?" in op.ufunc.types)


def _recorded(op: ops.Op, rule: ops.Rule, numbers: tuple[float | None, ...]) -> Graph:
    try:
        return recorded(op, rule, None if op.static is None else numbers[op.static])
    except Exception as error:  # whatever a rule meets that was not written for nodes
        raise _unwritable(op) from error


def _unwritable(op: ops.Op) -> TypeError:
    return TypeError(
        f"op {op.name!r} must have a ufunc, or a rule of other ops, to be written as NumPy "
        "(got a row with neither)"
    )


def _ruled(rule: Graph, operands: list[Text]) -> Text:
    """A recorded rule, written out."""
    results = dict(zip(rule.inputs.tolist(), operands))
    known: dict[int, float] = {}
    for node, code in enumerate(rule.op.tolist()):
        op = ops.OPS[code]
        if op is ops.const:
            known[node] = float(rule.value[node])
            results[node] = number(known[node])
        elif op.arity:
            places = rule.parents[node, : op.arity].tolist()
            given = [results[x] for x in places]
            if op is ops.where:
                given[1:] = map(as_floats, given[1:])
            else:
                given = list(map(as_floats, given))
            numbers = [known.get(x) if k == op.static else None for k, x in enumerate(places)]
            results[node] = applied(op, given, tuple(numbers))
    return as_floats(results[int(rule.outputs[0])])


def as_floats(x: Text) -> Text:
    """A mask as 0.0 and 1.0."""
    return infix("*", x, Text("1.0")) if x.mask else x


# --- rows ----------------------------------------------------------------------------------------


class Variable(NamedTuple):
    """An array, a number per row, or per row and sample; with a single row it may lack the axis."""

    name: str
    size: int
    batch: bool
    axis: bool

    @property
    def whole(self) -> Text:
        """All of it."""
        return Text(self.name, rows=self.axis, batch=self.batch)

    def at(self, rows: Ints) -> Text | None:
        """These rows (n,), or one without an axis where they are the same; None for no pattern."""
        strides = strides_of(rows)
        if not self.axis:
            return self.whole
        if strides is None:
            return self._folded(rows)
        if strides[0] == 0:
            return Text(f"{self.name}[{rows[0]}]", batch=self.batch)
        return Text(self._slice(int(rows[0]), len(rows), strides[0]), ATOM, True, self.batch)

    def table(self, rows: Ints) -> Text | None:
        """These rows (a, k), as an array of two axes before that of the batch; None as above."""
        strides = strides_of(rows)
        if not self.axis or strides is None:
            return self._columns(rows) if self.axis else None
        (a, k), (down, along), first = rows.shape, strides, int(rows[0, 0])
        code = self._window(first, a, down, k, along)
        if code is None:
            code = self._window(first, k, along, a, down)
            code = code and code + (".swapaxes(0, 1)" if self.batch else ".T")
        if code is None and down and along:
            index = f"{_arange(first, a, down)}[:, None] + {_arange(0, k, along)}"
            code = f"{self.name}[{index}]"
        return None if code is None else Text(code, ATOM, True, self.batch)

    def _folded(self, rows: Ints) -> Text | None:
        """Rows that are those of a table, one after the other."""
        steps = rows[1:] - rows[:-1]
        period = int((steps != steps[0]).argmax()) + 1
        if len(rows) % period:
            return None
        table = rows.reshape(-1, period)
        strides = strides_of(table)
        if strides is None:
            return None
        if strides[1] == 0:
            once = self._slice(int(rows[0]), len(table), strides[0])
            return Text(f"np.repeat({once}, {period}, axis=0)", ATOM, True, self.batch)
        if strides[0] == 0:
            once = self._slice(int(rows[0]), period, strides[1])
            times = f"({len(table)}, 1)" if self.batch else len(table)
            return Text(f"np.tile({once}, {times})", ATOM, True, self.batch)
        found = self.table(table)
        return found and found.then(f".reshape({len(rows)}, -1)" if self.batch else ".ravel()")

    def _columns(self, rows: Ints) -> Text | None:
        """Rows of which each has the columns that the first has."""
        first, columns = rows.min(), rows[0] - rows.min()
        down = int(rows[1, 0] - rows[0, 0])
        if (rows != first + down * np.arange(len(rows))[:, None] + columns).any():
            return None
        code = self._window(int(first), len(rows), down, int(columns.max()) + 1, 1, columns)
        return None if code is None else Text(code, ATOM, True, self.batch)

    def _window(
        self, first: int, a: int, down: int, k: int, along: int, columns: Ints | None = None
    ) -> str | None:
        """Part of the columns of `a` rows that follow each other, `down` numbers each."""
        if k == 1:
            return f"{self._slice(first, a, down)}[:, None]" if down else None
        offset = max(0, first + a * down - self.size)  # so that the last row is complete
        if along != 1 or down < k or offset > min(first, down - k):
            return None
        tail = ", -1" if self.batch else ""
        code = f"{self._slice(first - offset, a * down, 1)}.reshape({a}, {down}{tail})"
        if columns is not None:
            index = runs(offset + columns)
            return None if index is None else f"{code}[:, {index}]"
        return code if down == k else f"{code}[:, {_span(offset, k, 1, down)}]"

    def _slice(self, first: int, n: int, step: int) -> str:
        span = _span(first, n, step, self.size)
        return self.name if span == ":" else f"{self.name}[{span}]"


def _span(first: int, n: int, step: int, size: int) -> str:
    """A slice of n out of `size`."""
    last = first + step * (n - 1)
    start = "" if first == (0 if step > 0 else size - 1) else first
    over = last + step >= size if step > 0 else last == 0
    stop = "" if over else last + (1 if step > 0 else -1)
    return f"{start}:{stop}" if step == 1 else f"{start}:{stop}:{step}"


def runs(rows: Ints) -> str | None:
    """An index of these rows (n,) as a few slices; None where it takes many."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    if len(parts) > min(RUNS, len(rows) // 2):
        return None
    spans = [f"{x[0]}:{x[-1] + 1}" if len(x) > 1 else str(x[0]) for x in parts]
    return f"np.r_[{', '.join(spans)}]"


def _arange(first: int, n: int, step: int) -> str:
    stop = first + step * n
    if step != 1:
        return f"np.arange({first}, {stop}, {step})"
    return f"np.arange({first}, {stop})" if first else f"np.arange({stop})"
