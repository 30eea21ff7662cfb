"""The fused plan as text: a NumPy function that a person can read, and run without vgrad.

One assignment per group of the schedule. Its result has an axis of rows, unless it is one row
alone, and behind it that of the batch, unless no input reaches it.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from keyword import iskeyword
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Shape, Structure, count
from ..compiler import CHAIN, GRID, MAP, SEGMENTS, Group, Ints, fuse, schedule
from ..flat import BATCHED, SHARED, Graph
from .operands import RESERVED, WIDTH, Line, Operands, dims, fitted, tupled, wrapped
from .text import Text, Variable, applied, as_floats, infix, negative

BIASES = 2  # columns of ones, at the most, that are left out of a matrix product and added to it
LABELS = 3  # that a comment has


def to_numpy_source(graph: Graph, name: str = "f") -> str:
    """The graph as the text of a NumPy function `name(theta, *arrays)`, fused as by `compile`.

    It takes theta (P,) and one array (B, ...) per argument, and returns what a `Program` does when
    it is called, but for roundings. It needs NumPy and nothing else.

    >>> import vgrad
    >>> w, b = vgrad.Value(3.0, label="w"), vgrad.Value(1.0, label="b")
    >>> source = vgrad.trace(lambda x: vgrad.tanh(w * x + b), ()).to_numpy_source("neuron")
    >>> print(source)
    import numpy as np
    <BLANKLINE>
    <BLANKLINE>
    def neuron(theta, x):
        \"\"\"theta (2,), x (B,) -> (B,)\"\"\"
        theta = np.asarray(theta, float)
        x = np.array(x, float)
        w = theta[0]
        b = theta[1]
        with np.errstate(all="ignore"):
            sum1 = w * x + b  # level 1: (B,), for 2 nodes
            tanh1 = np.tanh(sum1)  # level 2: (B,), for 1 node
        return tanh1
    <BLANKLINE>
    >>> exec(source)
    >>> neuron([3.0, 1.0], [0.0, 1.0])
    array([0.76159416, 0.9993293 ])

    Raises ValueError for a name that is no identifier, and TypeError for an op whose row in the
    table has neither a ufunc nor a rule of other ops.
    """
    name = normalize("NFKC", name) if isinstance(name, str) else name  # as Python does
    if not isinstance(name, str) or not name.isidentifier() or iskeyword(name) or name in RESERVED:
        raise ValueError(f"name must be an identifier (got {name!r})")
    return _Writer(graph, name).source()


class _Writer:
    """Writes one graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self.fused = fuse(graph, alone=True)
        self.groups = schedule(self.fused, graph.inputs, graph.parameters).groups
        self.operands = Operands(graph, self.fused, name)
        self.arguments = list(self._arguments())
        self.returned: set[str] = set()

    def source(self) -> str:
        """The whole text."""
        for group in self.groups:
            self._group(group)
        outputs = self._structured(self.graph.output_shapes, iter(self.fused.outputs))
        if isinstance(self.graph.output_shapes, list) and len(self.graph.output_shapes) > 1:
            outputs = outputs[1:-1]
        body = [self._docstring()]
        body += [line.text(WIDTH - 4) for line in (*self._prelude(outputs), *self.operands.given)]
        kernels = "\n".join(self._kernels())
        if kernels:
            body += ['with np.errstate(all="ignore"):', textwrap.indent(kernels, " " * 4)]
        body.append(fitted("return ", outputs, WIDTH - 4))
        arguments = ", ".join(["theta", *self.arguments])
        head = f"def {self.name}({arguments}):"
        if len(head) > WIDTH:
            head = f"def {self.name}(\n{wrapped(arguments, WIDTH)}\n):"
        constants = ["", *self.operands.constants] if self.operands.constants else []
        parts = ["import numpy as np", *constants, "", "", head]
        return "\n".join(parts) + "\n" + textwrap.indent("\n".join(body), " " * 4) + "\n"

    # --- what stands around the kernels ----------------------------------------------------------

    def _arguments(self) -> Iterator[str]:
        start = 0
        for i, shape in enumerate(self.graph.input_shapes):
            nodes = self.graph.inputs[start : start + count(shape)]
            start += len(nodes)
            name = self.operands.free(self.operands.label(nodes, base=True) or f"input{i}")
            self.operands.hold(Variable(name, len(nodes), True, len(nodes) != 1), nodes)
            yield name

    def _docstring(self) -> str:
        shapes = [(len(self.graph.parameters),), *self.graph.input_shapes]
        batches = [(), *[("B",)] * len(self.arguments)]
        takes = [
            f"{name} {dims(*batch, *shape)}"
            for name, batch, shape in zip(["theta", *self.arguments], batches, shapes)
        ]
        text = f'"""{", ".join(takes)} -> {self._shapes(self.graph.output_shapes)}"""'
        return text if len(text) <= WIDTH - 4 else "\n".join(textwrap.wrap(text, WIDTH - 4))

    def _shapes(self, structure: Structure) -> str:
        if isinstance(structure, list):
            return tupled(map(self._shapes, structure))
        return dims(self.operands.batch, *structure)

    def _prelude(self, outputs: str) -> Iterator[Line]:
        """The arguments as the kernels take them: floats, and a row per number of a sample."""
        shared, batched = self.operands.lines
        codes = (line.code for line in (*self.operands.given, *shared, *batched))
        used = set(re.findall(r"\w+", " ".join([*codes, outputs])))
        if "B" in used:
            yield Line("B", f"len({self.arguments[0]})")
        if "theta" in used:
            yield Line("theta", "np.asarray(theta, float)")
        for name, shape in zip(self.arguments, self.graph.input_shapes):
            if name in used:
                size = count(shape)
                code = f"np.array({name}, float)"  # a copy, as a result may be a part of it
                if len(shape) > 1:
                    code += f".reshape(len({name}), {size})"
                if shape:
                    code += ".T" if size > 1 else "[:, 0]"
                yield Line(name, code, dims(size, "B") if size > 1 else "")

    def _kernels(self) -> Iterator[str]:
        whole = all(self.operands.lines)
        for title, lines in zip(["what no input reaches", "for every sample"], self.operands.lines):
            if whole:
                yield f"# {title}"
            for line in lines:
                yield line.text(WIDTH - 8)

    def _structured(self, structure: Structure, outputs: Iterator[Any]) -> str:
        if isinstance(structure, list):
            return tupled(self._structured(part, outputs) for part in structure)
        nodes = np.array([next(outputs) for _ in range(count(structure))], np.intp)
        code = self._output(nodes, structure)
        again = code in self.returned
        self.returned.add(code)
        return f"{code}.copy()" if again else code

    def _output(self, nodes: Ints, shape: Shape) -> str:
        text, n = self.operands.rows(nodes), len(nodes)
        if not self.operands.batched(nodes):
            own = (self.operands.batch, n) if shape else (self.operands.batch,)
            code = f"np.full({dims(*own) if shape else self.operands.batch}, {text.code})"
        elif not shape:
            return text.code
        else:
            code = (
                self.operands.filled(text.column(), n, BATCHED)
                .then(".T" if n > 1 else "[:, None]")
                .code
            )
        return code if len(shape) < 2 else f"{code}.reshape{dims(-1, *shape)}"

    # --- kernels ---------------------------------------------------------------------------------

    def _group(self, group: Group) -> None:
        """Write a group, and note where its nodes are."""
        product = group.kind == GRID and (group.buffer == BATCHED or len(group.nodes) > 1)
        kind = ops.OPS[group.op].name if group.kind == MAP else "sum"
        label = self.operands.label(group.nodes)
        name = (
            self.operands.free(label) if label else self.operands.numbered("h" if product else kind)
        )
        write = {MAP: self._map, CHAIN: self._chain, SEGMENTS: self._segments, GRID: self._grid}
        n = len(group.nodes)
        code = self.operands.filled(write[group.kind](group, name), n, group.buffer).code
        stands = int(self.fused.sources[group.nodes].sum())
        axes = [n] * (n > 1) + ["B"] * group.buffer
        comment = f"level {group.level}: {dims(*axes)}, for {stands:,} node{'s' * (stands != 1)}"
        if not label:
            comment += self._labels(group.nodes)
        self.operands.lines[group.buffer].append(Line(name, code, comment))
        self.operands.hold(Variable(name, n, bool(group.buffer), n > 1), group.nodes)

    def _labels(self, nodes: Ints) -> str:
        """A few of the labels, as a comment can have them."""
        labels = self.graph.labels
        found = [labels[i] for i in nodes.tolist() if i in labels] if labels else []
        shown = [ascii(x)[1:-1][: WIDTH // LABELS] for x in found[:LABELS]]
        more = [f"and {len(found) - LABELS:,} more"] * (len(found) > LABELS)
        return ": " + ", ".join([*shown, *more]) if found else ""

    def _map(self, group: Group, name: str) -> Text:
        op = ops.OPS[group.op]
        operands = [self._operand(nodes, group) for nodes in group.operands]
        known = [float(self.fused.value[nodes[0]]) for nodes in group.operands]
        constant = [self.operands.constant(nodes[:1]) for nodes in group.operands]
        if all(constant):  # Python's numbers, for which 1 / 0 is an error
            operands[0] = Text(f"np.float64({operands[0].code})", rows=operands[0].rows)
        numbers = [x if k == op.static and constant[k] else None for k, x in enumerate(known)]
        result = as_floats(applied(op, operands, tuple(numbers)))
        if re.fullmatch(r"[-.e\d]+", result.code) and group.buffer == SHARED:
            return Text(f"np.float64({result.code})")  # as 1.0 for x**0
        return result

    def _chain(self, group: Group, name: str) -> Text:
        total, negated = None, False
        for u, v, coef in zip(group.u.T, group.v.T, group.coef.T):
            subtract = bool((coef < 0).all())
            term = self._term(group, u, v, np.abs(coef) if subtract else coef)
            if total is None:
                total, negated = term, subtract
            elif negated and not subtract:
                total, negated = infix("-", term, total), False
            else:
                total = infix("+" if negated == subtract else "-", total, term)
        assert total is not None
        return negative(total) if negated else total

    def _term(self, group: Group, u: Ints, v: Ints, coef: NDArray[np.float64]) -> Text:
        """The products of terms (n,), element by element."""
        one = self.fused.one
        factors = [self._operand(x, group) for x in (u, v) if (x != one).any()]
        product = infix("*", *factors) if len(factors) > 1 else factors[0] if factors else None
        if product is not None and (coef == 1).all():
            return product
        scale = self.operands.numbers(coef)
        scale = scale.column() if group.buffer else scale
        return scale if product is None else infix("*", scale, product)

    def _segments(self, group: Group, name: str) -> Text:
        n, t = len(group.nodes), len(group.u)
        terms = self.operands.filled(
            self._term(group, group.u, group.v, group.coef), t, group.buffer
        )
        lengths = np.diff(group.starts, append=t)
        if n == 1:
            return terms.then(".sum(axis=0)")._replace(rows=False)
        if (lengths == lengths[0]).all():
            shape = dims(n, int(lengths[0]), *[-1] * group.buffer)
            return terms.then(f".reshape{shape}.sum(axis=1)")
        starts = self.operands.literal(group.starts)
        return Text(f"np.add.reduceat({terms.code}, {starts})", rows=True, batch=terms.batch)

    def _grid(self, group: Group, name: str) -> Text:
        u, v, coef = group.u, group.v, group.coef
        suffix = name[1:] if name[1:].isdigit() else f"_{name}"
        bias = (v == self.fused.one).all(axis=0)
        apart = bias.sum() <= BIASES and not bias.all()
        biases = np.flatnonzero(bias & apart)
        kept = np.setdiff1d(np.arange(u.shape[1]), biases)
        result = self._product(group, u[:, kept], v[:, kept], coef[:, kept], f"W{suffix}")
        for j in biases:
            added = self.operands.rows(u[:, j], f"b{suffix}")
            if (coef[:, j] != 1).any():
                added = infix("*", self.operands.numbers(coef[:, j]), added)
            result = infix("+", result, added.column() if group.buffer else added)
        if len(u) > 1 and len(v) > 1:
            shape = f".reshape({len(group.nodes)}, -1)" if group.buffer else ".ravel()"
            result = result.then(shape)
        return result._replace(rows=len(group.nodes) > 1, batch=bool(group.buffer))

    def _product(
        self, group: Group, u: Ints, v: Ints, coef: NDArray[np.float64], hint: str
    ) -> Text:
        """u (C, k) @ v (A, k, B), with the axes in the order of the group's nodes."""
        if (v == self.fused.one).all():
            return self._scaled(u, coef, hint).then(f".sum(axis={int(len(u) > 1)})")
        if u.shape[1] == 1 and 1 in (len(u), len(v)):
            n = len(group.nodes)
            first, second = (np.broadcast_to(x[:, 0], n) for x in (u, v))
            term = self._term(group, first, second, np.broadcast_to(coef[:, 0], n))
            return self.operands.filled(term, n, group.buffer)
        if len(u) == 1 and (u == self.fused.one).all() and (coef == 1).all():
            return self.operands.table(v).then(f".sum(axis={int(len(v) > 1)})")
        left, right = self._scaled(u, coef, hint), self.operands.table(v)
        if self.operands.batched(u):
            c, a = "c" * (len(u) > 1), "a" * (len(v) > 1)
            form = f'"{c}kb,{a}kb->{a}{c}b"'
            return Text(f"np.einsum({form}, {left.code}, {right.code})", batch=True)
        if group.buffer == BATCHED or len(v) == 1:
            return infix("@", left, right)
        return infix("@", right, left.then(".T") if len(u) > 1 else left)

    def _scaled(self, u: Ints, coef: NDArray[np.float64], hint: str) -> Text:
        """A table of u, times the coefficients."""
        if self.operands.constant(u):
            scaled = self.fused.value[u] * coef
            return self.operands.array(scaled if len(u) > 1 else scaled[0])
        table = self.operands.table(u, hint)
        if (coef == 1).all():
            return table
        if (coef == -1).all():
            return negative(table)
        scale = self.operands.numbers(coef if len(u) > 1 else coef[0])
        if scale.rows and self.operands.batched(u):
            scale = scale.then("[..., None]")
        return infix("*", scale, table)

    def _operand(self, nodes: Ints, group: Group) -> Text:
        """These nodes (n,), to be combined with others element by element."""
        text = self.operands.rows(nodes)
        return text.column() if group.buffer else text
