"""The fused plan as text: a NumPy function that a person can read, and run without vgrad."""

from __future__ import annotations

import ast
from keyword import iskeyword
from textwrap import fill, indent
from typing import Any
from unicodedata import normalize

import numpy as np

from .. import ops
from ..arguments import Array, Structure, count
from ..compiler import Chain, Grid, Ints, Kernel, Map, Segments, compile_plan
from ..flat import Graph
from .variables import Expression, Variables, applied, combined, constant, tuple_of

WIDTH, TAB = 92, " " * 4  # a statement may be indented twice
LABELS, BIASES = 3, 2  # how many a comment has, and how many are added to a matrix product
RESERVED = {
    "np",
    "special",
    "theta",
    "B",
    "len",
    "float",
    "__debug__",
}  # names that the text has anyway


def to_numpy_source(graph: Graph, name: str = "f") -> str:
    """The graph as the text of a NumPy function `name(theta, *arrays)`, fused as by `compile`.

    It takes theta (P,) and one array (B, ...) per argument, and returns what a `Program` does when
    it is called, but for roundings. It needs NumPy and nothing else, but for functions such as erf,
    which NumPy lacks: these it imports from `vgrad.special`.

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
    return _Writer(graph, name).source(name)


class _Writer:
    """Writes one graph."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.plan = graph, compile_plan(graph, alone=True)
        self.fused = self.plan.fused
        self.variables = Variables(graph, self.fused, {name, *RESERVED})
        self.takes = {"theta": f"({len(graph.parameters)},)"}  # the arguments' shapes, and then
        self.given = ["theta = np.asarray(theta, float)"] * (len(graph.parameters) > 0)  # floats
        self.returned: set[str] = set()  # variables
        bounds = np.cumsum([count(shape) for shape in graph.input_shapes], dtype=int)
        for shape, nodes in zip(graph.input_shapes, np.split(graph.inputs, bounds)):
            label = self.variables.label(nodes, base=True)
            name = self.variables.new(label or f"input{len(self.takes) - 1}")
            self.takes[name] = tuple_of(("B", *shape))
            code = f"np.array({name}, float)"  # a copy, as a result may be a part of it
            code += f".reshape(len({name}), {len(nodes)})" * (len(shape) > 1) + ".T" * (shape != ())
            self.given.append(_statement(f"{name} = ", code, f"({len(nodes)}, B)" * (shape != ())))
            self.variables.hold(Expression(name, int(shape != ()), True), nodes)
            self.variables.samples = f"{name}.shape[-1]"

    def source(self, name: str) -> str:
        """The whole text."""
        kernels = [indent(self._kernel(kernel), TAB) for kernel in self.plan.kernels]
        codes, shapes = self._results(self.graph.output_shapes, self.fused.outputs.tolist()[::-1])
        takes = ", ".join(map(" ".join, self.takes.items()))
        body = [_fill(f'"""{takes} -> {tuple_of(shapes)}"""'), *self.given]
        body += [_statement(f"{x} = ", code) for code, x in self.variables.parts.items()]
        body += ['with np.errstate(all="ignore"):', *kernels] if kernels else []
        several = isinstance(codes, tuple) and len(codes) > 1
        body.append(_statement("return ", tuple_of(codes)[1:-1] if several else tuple_of(codes)))
        lists = self.variables.lists.items()
        text = ["import numpy as np"]
        if any("special." in kernel for kernel in kernels):
            text += ["from vgrad import special"]
        text += [""] * bool(lists)
        text += [_block(f"{x} = np.array([", code[1:-1], "])") for code, x in lists]
        text += ["", "", _block(f"def {name}(", ", ".join(self.takes), "):", WIDTH)]
        return "\n".join([*text, *(indent(x, TAB) for x in body), ""])

    def _results(self, structure: Structure, nodes: list[int]) -> Any:
        """The code and the shapes of what is returned; no two arrays of it share memory."""
        if isinstance(structure, list):
            return tuple(zip(*(self._results(part, nodes) for part in structure)))
        n, is_array = count(structure), structure != ()
        found = self.variables.read(np.array([nodes.pop() for _ in range(n)]))
        code = self.variables.full(found, (n,) * is_array, batch=True).code
        name = code.split("[")[0].split(".")[0]
        copy = ".copy()" * (name in self.returned)
        self.returned |= {name} - {"np"}
        code += ".T" * is_array + f".reshape{(-1, *structure)}" * (len(structure) > 1) + copy
        return code, ("B" if self.graph.input_shapes else 1, *structure)

    def _kernel(self, kernel: Kernel) -> str:
        """A kernel as a line, without needless parentheses; its nodes are held by its name."""
        prefix, result = self._computed(kernel)
        label = self.variables.label(kernel.nodes)
        name = self.variables.new(label, prefix)
        self.variables.hold(result._replace(code=name), kernel.nodes)
        shape = tuple_of((*[len(kernel.nodes)] * result.rows, *["B"] * result.batch))
        n = int(self.fused.sources[kernel.nodes].sum())
        comment = f"level {kernel.level}: {shape}, for {n:,} node{'s' * (n != 1)}"
        found = [self.graph.labels[i] for i in kernel.nodes.tolist() if i in self.graph.labels]
        more = [f"and {len(found) - LABELS:,} more"] * (len(found) > LABELS)
        if found and not label:
            comment += f": {', '.join([ascii(x)[1:-1][:30] for x in found[:LABELS]] + more)}"
        return _statement(f"{name} = ", ast.unparse(ast.parse(result.code)), comment)

    def _computed(self, kernel: Kernel) -> tuple[str, Expression]:
        """What a kernel computes, and how its name begins; no other method knows the kinds."""
        if isinstance(kernel, Map):
            return kernel.op.name, self._map(kernel.op, kernel.parents)
        if isinstance(kernel, Grid):
            prefix = "h" if kernel.buffer or len(kernel.nodes) > 1 else "sum"
            return prefix, self._grid(kernel.u, kernel.v, kernel.coef)
        assert isinstance(kernel, Segments | Chain)
        terms = kernel.u, kernel.v, kernel.coef
        ordered = bool(self.fused.ordered[kernel.nodes[0]])
        if isinstance(kernel, Segments):
            return "sum", self._segments(*terms, kernel.starts, ordered)
        return "sum", self._chain(*terms, ordered)

    def _map(self, op: ops.Op, nodes: tuple[Ints, ...]) -> Expression:
        operands = [self.variables.read(x) for x in nodes]
        if all(x.value is not None for x in operands):  # of Python's numbers 1 / 0 is an error
            operands[0] = combined("np.float64({})", operands[0])
        result = applied(op, operands)
        return combined("{}" if result.value is None else "np.float64({})", result)

    def _chain(self, u: Ints, v: Ints, coef: Array, ordered: bool) -> Expression:
        """Sums of k terms each, term by term; what is subtracted comes last, if it may."""
        signs = np.where((coef < 0).all(axis=0), -1.0, 1.0)
        order = np.argsort(-signs, kind="stable")
        if ordered:  # but for the first two
            order = np.append(np.argsort(-signs[:2], kind="stable"), np.arange(2, len(signs)))
        terms = [self._term(u[:, k], v[:, k], signs[k] * coef[:, k]) for k in order]
        form = " ".join(f"{'-' if signs[k] < 0 else '+'} {{}}" for k in order)
        return combined(f"({form.removeprefix('+ ')})", *terms)

    def _segments(self, u: Ints, v: Ints, coef: Array, starts: Ints, ordered: bool) -> Expression:
        """Sums of t terms in all, each of which begins at one of `starts`."""
        terms = self.variables.full(self._term(u, v, coef), u.shape)
        if ordered:  # as np.sum adds up in pairs
            if len(starts) == 1:
                return combined("np.add.accumulate({})", terms).then("[-1]", 0)
            form = f"np.split({{}}, {self.variables.listed(starts[1:])})"
            return combined(f"np.array([np.add.accumulate(x)[-1] for x in {form}])", terms)
        if len(starts) == 1:
            return terms.sum()
        return combined(f"np.add.reduceat({{}}, {self.variables.listed(starts)})", terms)

    def _term(self, u: Ints, v: Ints, coef: Array, prefix: str = "") -> Expression:
        """Products coef * u * v (n,)."""
        factors = [self.variables.read(x, prefix) for x in (u, v) if (x != self.fused.one).any()]
        total = self._scaled(factors[0] if factors else constant(1.0), coef)
        return combined("({} * {})", total, factors[1]) if len(factors) > 1 else total

    def _scaled(self, x: Expression, coef: Array) -> Expression:
        scale = self.variables.constants(coef)
        form = {1.0: "{1}", -1.0: "(-{1})"}.get(scale.value or 0.0, "({} * {})")
        return combined(form, scale, x)

    def _grid(self, u: Ints, v: Ints, coef: Array) -> Expression:
        """The product of u (C, k) and v (A, k, B); where v is 1, u is a bias."""
        bias = (v == self.fused.one).all(axis=0)
        rest = ~bias | (bias.sum() > BIASES) | bias.all()
        total = self._product(u[:, rest], v[:, rest], coef[:, rest])
        for j in np.flatnonzero(~rest):
            total = combined("({} + {})", total, self._term(u[:, j], v[:1, j], coef[:, j], "b"))
        flat = f".reshape({len(u) * len(v)}, -1)" if total.batch else ".ravel()"
        return total.then(flat, 1) if total.rows > 1 else total

    def _product(self, u: Ints, v: Ints, coef: Array) -> Expression:
        """u (C, k) @ v (A, k, B): (A, C, B), but for axes of length 1."""
        u, coef = (u[0], coef[0]) if len(u) == 1 else (u, coef)
        v = v[0] if len(v) == 1 else v
        left = self._scaled(self.variables.full(self.variables.read(u, "W"), u.shape), coef)
        if (v == self.fused.one).all():
            return left.sum()
        right = self.variables.full(self.variables.read(v), v.shape)
        if (u == self.fused.one).all() and (coef == 1).all():
            return right.sum()
        if left.batch:
            c, a, b = "c" * (left.rows - 1), "a" * (right.rows - 1), "b" * right.batch
            code = f"np.einsum('{c}kb,{a}k{b}->{a}{c}b', {left.code}, {right.code})"
        elif right.batch or right.rows == 1:
            code = f"({left.code} @ {right.code})"
        else:
            code = f"({right.code} @ {left.code}{'.T' * (left.rows - 1)})"
        return Expression(code, left.rows + right.rows - 2, left.batch or right.batch)


def _statement(start: str, code: str, comment: str = "") -> str:
    """In one line, or in parentheses over several; its comment beside it, or above."""
    line = start + code if len(start + code) <= WIDTH else _block(f"{start}(", code, ")")
    if len(f"{line}  # {comment}") > WIDTH and comment:
        return _fill(f"# {comment}", "# ") + f"\n{line}"
    return f"{line}  # {comment}" if comment else line


def _block(start: str, code: str, end: str, width: int = 0) -> str:
    """What is in brackets, in lines of its own unless all of it has this width."""
    line = start + code + end
    return line if len(line) <= width else f"{start}\n{_fill(TAB + code)}\n{end}"


def _fill(text: str, tab: str = TAB) -> str:
    """Over several lines, broken at blanks, if one is not enough."""
    return fill(text, WIDTH, subsequent_indent=tab, break_long_words=False, break_on_hyphens=False)
