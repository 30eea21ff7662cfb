"""The operands of a fused plan as text: which variable has a node, and how to read rows of it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from keyword import iskeyword
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from ..compiler import Fused, Ints
from ..flat import FROM_INPUTS, Graph
from .text import Text, Variable, number, runs

WIDTH = 100
INLINE = 40  # characters; a longer list stands before the function
RUNS = 6  # pieces of several arrays that are joined as they are
RESERVED = {"np", "theta", "B", "len", "float", "__debug__"}  # names that the text has anyway


class Line(NamedTuple):
    """An assignment, and a comment to it."""

    name: str
    code: str
    comment: str = ""

    def text(self, width: int) -> str:
        """In as many lines as it takes."""
        line = fitted(f"{self.name} = ", self.code, width)
        if not self.comment:
            return line
        if "\n" not in line and len(line) + len(self.comment) + 4 <= width:
            return f"{line}  # {self.comment}"
        above = textwrap.wrap(self.comment, width, initial_indent="# ", subsequent_indent="# ")
        return "\n".join([*above, line])


class Operands:
    """The variables of the text, and the nodes that they have."""

    def __init__(self, graph: Graph, fused: Fused, name: str) -> None:
        self.graph, self.fused = graph, fused
        self.batch = "B" if graph.input_shapes else "1"  # its size
        self.constants: list[str] = []  # what stands before the function,
        self.given: list[Line] = []  # before its first kernel,
        self.lines: tuple[list[Line], list[Line]] = ([], [])  # and in it: shared, and batched
        self._taken = {name, *RESERVED}
        self._memo: dict[tuple[Any, ...], Text] = {}
        self._literals: dict[tuple[Any, ...], str] = {}
        self._home = np.full(len(fused.op), -1)  # the variable that has a node; -1: a constant
        self._place = np.zeros(len(fused.op), np.intp)  # its row there
        self._variables: list[Variable] = []
        self._counts: dict[str, int] = {}
        self.hold(Variable("theta", len(graph.parameters), False, True), graph.parameters)

    def hold(self, variable: Variable, nodes: Ints) -> None:
        """Note that this variable has these nodes, in order."""
        self._home[nodes] = len(self._variables)
        self._place[nodes] = np.arange(len(nodes))
        self._variables.append(variable)

    def rows(self, nodes: Ints, hint: str = "") -> Text:
        """These nodes (n,), without an axis of rows where they are all the same."""
        key = ("rows", nodes.astype(np.intp).tobytes())
        if key not in self._memo:
            homes = self._home[nodes]
            if (homes != homes[0]).any():
                self._memo[key] = self._named(self._joined(nodes), nodes, hint)
            elif homes[0] < 0:
                self._memo[key] = self.numbers(self.fused.value[nodes])
            else:
                variable, rows = self._variables[homes[0]], self._place[nodes]
                found = variable.at(rows) or self._gathered(variable, rows)
                self._memo[key] = self._named(found, nodes, hint)
        text: Text = self._memo[key]
        return text

    def table(self, nodes: Ints, hint: str = "") -> Text:
        """These nodes (a, k), along both axes; along one where a is 1."""
        a, k = nodes.shape
        buffer = self.batched(nodes)
        if a == 1:
            row = self.filled(self.rows(nodes[0], hint), k, buffer)
            return row if k > 1 else row.then("[None]")
        if (self._home[nodes] < 0).all():
            return self.array(self.fused.value[nodes])
        key = ("table", nodes.shape, nodes.astype(np.intp).tobytes())
        if key not in self._memo:
            homes = self._home[nodes]
            variable = self._variables[homes[0, 0]]
            if (homes == homes[0, 0]).all() and variable.axis:
                rows = self._place[nodes]
                found = variable.table(rows) or self._gathered(variable, rows)
            else:
                flat = self.filled(self.rows(nodes.ravel()), nodes.size, buffer)
                found = flat.then(f".reshape{dims(a, k, *[-1] * buffer)}")
            self._memo[key] = self._named(found, nodes, hint)
        text: Text = self._memo[key]
        return text

    def _gathered(self, variable: Variable, rows: Ints) -> Text:
        index = (runs(rows) if rows.ndim == 1 else None) or self.literal(rows)
        return Text(f"{variable.name}[{index}]", rows=True, batch=variable.batch)

    def _joined(self, nodes: Ints) -> Text:
        """Nodes (n,) of several arrays: piece by piece, or out of all of the arrays at once."""
        homes = self._home[nodes]
        buffer = self.batched(nodes)
        pieces = np.split(nodes, np.flatnonzero(np.diff(homes)) + 1)
        index = ""
        if len(pieces) > RUNS:
            sources, at = np.unique(homes, return_inverse=True)
            pieces = [np.unique(nodes[homes == source]) for source in sources]
            offsets = np.cumsum([0, *map(len, pieces)])[at.reshape(-1)]
            within = np.zeros(len(nodes), np.intp)
            for source, piece in zip(sources, pieces):
                within[homes == source] = np.searchsorted(piece, nodes[homes == source])
            index = f"[{self.literal(offsets + within)}]"
        parts = [self.rows(piece) for piece in pieces]
        if buffer:
            parts = [self.filled(x.column(), len(p), buffer) for x, p in zip(parts, pieces)]
        else:
            parts = [self.filled(x, len(p), buffer) for x, p in zip(parts, pieces)]
        stack = "np.vstack" if buffer else "np.hstack"
        code = f"{stack}([{', '.join(x.code for x in parts)}]){index}"
        return Text(code, rows=True, batch=bool(buffer))

    def _named(self, text: Text, nodes: Ints, hint: str) -> Text:
        """A parameter that has a name, and what is no plain slice, as a variable of its own."""
        from_theta = bool((self._home[nodes] == 0).all()) and text.code != "theta"
        label = self.label(nodes) if from_theta else ""
        if not label and not (hint and from_theta) and "(" not in text.code:
            return text
        if nodes.ndim > 1 and not from_theta:
            return text
        name = self.free(label or hint) if from_theta and (label or hint) else ""
        name = name or self.numbered("p" if from_theta else "rows")
        lines = self.given if from_theta else self.lines[self.batched(nodes)]
        lines.append(Line(name, text.code))
        return text._replace(code=name)

    def constant(self, nodes: Ints) -> bool:
        """Whether all of them are constants."""
        return bool((self._home[nodes] < 0).all())

    def batched(self, nodes: Ints) -> int:
        """The buffer that they are in, or that of the batched ones among them."""
        return int((self.fused.origin[nodes] & FROM_INPUTS).max())

    def filled(self, text: Text, n: int, buffer: int) -> Text:
        """The same over all of n rows and the batch, where it is the same along one of them."""
        if (text.rows or n == 1) and (text.batch or not buffer):
            return text
        own = [n] * (n > 1) + [self.batch] * buffer
        code = f"np.full({own[0] if len(own) == 1 else dims(*own)}, {text.code})"
        return Text(code, rows=n > 1, batch=bool(buffer))

    def numbers(self, values: NDArray[np.float64]) -> Text:
        """Constants of any shape, as one number where they are the same."""
        bits = values.view(np.int64)
        same = (bits == bits.flat[0]).all()
        return number(float(values.flat[0])) if same else self.array(values)

    def array(self, values: NDArray[np.float64]) -> Text:
        """Constants of any shape."""
        literal = self.literal(values)
        return Text(literal if literal.isidentifier() else f"np.array({literal})", rows=True)

    def literal(self, array: NDArray[Any]) -> str:
        """A short list as it is; a longer one as an array that stands before the function."""
        key = (array.dtype.char, array.shape, array.tobytes())
        if key not in self._literals:
            rows = [_listed(row) for row in array.reshape(-1, array.shape[-1])]
            short = array.size <= INLINE and f"[{', '.join(rows)}]" if array.ndim > 1 else rows[0]
            if short and len(short) <= INLINE:
                return short
            self._literals[key] = name = self.numbered("ROWS" if array.dtype.kind == "i" else "C")
            rows = [wrapped(f"{row}," if array.ndim > 1 else row[1:-1], WIDTH) for row in rows]
            self.constants.append("\n".join([f"{name} = np.array([", *rows, "])"]))
        return self._literals[key]

    # --- names ---

    def free(self, name: str) -> str:
        """A name that nothing has yet, and now has."""
        if iskeyword(name) or name in self._taken:
            name = self.numbered(f"{name}_")
        self._taken.add(name)
        return name

    def numbered(self, prefix: str) -> str:
        """The next of the names that begin so."""
        number = self._counts.get(prefix, 0) + 1
        while f"{prefix}{number}" in self._taken:
            number += 1
        self._counts[prefix] = number
        self._taken.add(f"{prefix}{number}")
        return f"{prefix}{number}"

    def label(self, nodes: Ints, base: bool = False) -> str:
        """What the nodes are called, as an identifier: "x" for "x[0]" and "x[1]"; or nothing."""
        labels = self.graph.labels
        found = labels.get(int(nodes[0, 0] if nodes.ndim > 1 else nodes[0])) if nodes.size else ""
        if not found:
            return ""
        if nodes.size > 1 or base:
            found = found.partition("[")[0]
            if any(labels.get(i, "").partition("[")[0] != found for i in nodes.ravel().tolist()):
                return ""
        name = re.sub(r"\W+", "_", normalize("NFKC", found)).strip("_")
        name = f"_{name}" if name[:1].isdigit() else name
        return name if name.isidentifier() and len(name) <= INLINE else ""


def _listed(row: NDArray[Any]) -> str:
    numbers = row.tolist()
    return f"[{', '.join(number(x).code if isinstance(x, float) else str(x) for x in numbers)}]"


def dims(*sizes: Any) -> str:
    """As Python writes a tuple of sizes and names."""
    return tupled(map(str, sizes))


def tupled(parts: Iterable[str]) -> str:
    """As Python writes a tuple."""
    parts = list(parts)
    return f"({', '.join(parts)}{',' * (len(parts) == 1)})"


def fitted(start: str, code: str, width: int) -> str:
    """In one line, or in parentheses over several."""
    line = start + code
    return line if len(line) <= width else f"{start}(\n{wrapped(code, width)}\n)"


def wrapped(code: str, width: int) -> str:
    """Several lines, indented."""
    return "\n".join(
        textwrap.wrap(
            code,
            width,
            initial_indent=" " * 4,
            subsequent_indent=" " * 4,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
