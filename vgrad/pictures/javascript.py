"""The op table in JavaScript: functions of its rows, written from their rules.

A row that is a function of NumPy's is written as JavaScript's function of that kind, and any other
as what its rule records: arithmetic on other rows. A rule with branches, as those of the special
functions have, is recorded path by path, and the function tries one path after the other.
"""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np

from .. import ops
from ..engine import Value
from ..errors import PathsWarning
from ..flat import Graph, recorded
from ..program import compile

# NumPy's functions in JavaScript; names without "Math" are those of HELPERS.
EXPRESSIONS: dict[Any, str] = {
    np.add: "({} + {})",
    np.subtract: "({} - {})",
    np.multiply: "({} * {})",
    np.divide: "({} / {})",
    np.negative: "(-{})",
    np.power: "power({}, {})",
    np.exp2: "power(2, {})",
    np.absolute: "Math.abs({})",
    np.maximum: "maximum({}, {})",
    np.minimum: "minimum({}, {})",
    np.sign: "(Math.sign({}) + 0)",  # not -0
    np.rint: "rint({})",
    np.remainder: "divmod({}, {})[1]",
    np.fmod: "({} % {})",
    np.floor_divide: "divmod({}, {})[0]",
    np.greater: "+({} > {})",
    np.less: "+({} < {})",
    np.greater_equal: "+({} >= {})",
    np.less_equal: "+({} <= {})",
    np.equal: "+({} === {})",
    np.not_equal: "+({} !== {})",
    np.arcsin: "Math.asin({})",
    np.arccos: "Math.acos({})",
    np.arctan: "Math.atan({})",
    np.arctan2: "Math.atan2({}, {})",
    np.arcsinh: "Math.asinh({})",
    np.arccosh: "Math.acosh({})",
    np.arctanh: "Math.atanh({})",
    **{
        ufunc: f"Math.{ufunc.__name__}({', '.join(['{}'] * ufunc.nin)})"
        for ufunc in (
            *(np.exp, np.expm1, np.log, np.log2, np.log10, np.log1p, np.cbrt, np.sqrt, np.hypot),
            *(np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh),
            *(np.floor, np.ceil, np.trunc),
        )
    },
}
HELPERS = """\
const power = (x, y) =>  // which JavaScript has as NaN for 1 ** NaN and 1 ** Infinity
  x === 1 || x === -1 && Math.abs(y) === Infinity ? 1 : x ** y;
const rint = x => x % 1 === 0.5 || x % 1 === -0.5 ? 2 * Math.round(x / 2) : Math.round(x);
const maximum = (x, y) => x > y || x !== x ? x : y;
const minimum = (x, y) => x < y || x !== x ? x : y;
const zero = sign => sign < 0 || Object.is(sign, -0) ? -0 : 0;
const divmod = (x, y) => {  // as NumPy and Python have it
  const rest = x % y, first = (x - rest) / y;
  if (y === 0) return [x / y, rest];
  const below = rest !== 0 && y < 0 !== rest < 0;
  const quotient = below ? first - 1 : first, whole = Math.floor(quotient);
  return [
    quotient === 0 ? zero(x / y) : quotient - whole > 0.5 ? whole + 1 : whole,
    rest === 0 ? zero(y) : below ? rest + y : rest,
  ];
};
"""

# Where rules with branches are recorded: all of their pieces have some of these numbers.
_NEAR = np.linspace(-40.0, 40.0, 1601) + 0.01  # on either side of each of their whole numbers
_FAR = np.geomspace(1e-9, 1e18, 109)
MOST_WAYS = 64
SAMPLES = np.concatenate([_NEAR, np.rint(_NEAR), _FAR, -_FAR, [np.inf, -np.inf, np.nan]])


def literal(x: float) -> str:
    """A number as JavaScript writes it, to the last bit."""
    if math.isfinite(x):
        return f"({x!r})" if math.copysign(1.0, x) < 0 else repr(x)
    return "NaN" if x != x else f"({'-' * (x < 0)}Infinity)"


class Library:
    """Functions of ops as JavaScript, each written when it is first asked for.

    An op has a name here; where its first operand is an order, as that of `polygamma`, the order
    is a part of the name. `text` has the objects `forward`, of functions by name, and `vjp`, of a
    list of functions by name, one per operand, called with (g, out, x, y, z) as in the op table.
    A function returns undefined where its rule goes a way that was not found.
    """

    def __init__(self) -> None:
        self._forward: dict[str, str] = {}
        self._vjp: dict[str, str] = {}

    def name(self, op: ops.Op, first: float | None) -> str:
        """The name of an op whose first operand is this constant, or None; it has a forward now.

        Raises TypeError for an op that neither is a function of JavaScript's nor has a rule of ops
        that are.
        """
        order = first if takes_order(op) else None
        name = op.name if op.name.isidentifier() and op.name.isascii() else f"${op.code}"
        if takes_order(op):
            if order is None:
                raise TypeError(
                    f"the order of {op.name} must be a plain number to be explored, as in "
                    f"{op.name}(1, x) (got one that is computed)"
                )
            name += re.sub(r"\W", "_", f"_{order!r}").replace("_", "$", 1)  # no op has a $
        if name not in self._forward:
            self._forward[name] = ""  # so that a rule that uses itself ends
            self._forward[name] = self._function(op, "xyz"[: op.arity], _paths(op, order))
        return name

    def require_vjp(self, op: ops.Op, first: float | None) -> str:
        """The same; it has the rules of its derivatives, too."""
        name, order = self.name(op, first), first if takes_order(op) else None
        if name not in self._vjp:
            arguments = ["g", "out", *"xyz"[: op.arity]]
            rules = [
                "null"
                if vjp is None
                else self._function(op, arguments, [recorded(op, vjp, order, 2, known=0)])
                for vjp in op.vjp
            ]
            self._vjp[name] = f"[{', '.join(rules)}]"
        return name

    @property
    def text(self) -> str:
        """All functions so far."""
        parts = [HELPERS]
        for name, functions in (("forward", self._forward), ("vjp", self._vjp)):
            lines = [f"  {name}: {code},\n" for name, code in functions.items()]
            parts.append(f"const {name} = {{\n{''.join(lines)}}};\n")
        return "".join(parts)

    def _function(self, op: ops.Op, arguments: Any, paths: list[Graph] | None) -> str:
        """A function that computes output 0 of the path whose questions have their answers."""
        head = f"({', '.join(arguments)}) =>"
        if paths is None:  # a function of JavaScript's
            return f"{head} {self._applied(op, list(arguments))}"
        bodies = [self._body(graph, list(arguments)) for graph in paths]
        if len(paths) == 1 and not paths[0].questions and len(bodies[0]) == 1:
            return f"{head} {bodies[0][0].removeprefix('return ').rstrip(';')}"
        if len(paths) == 1:
            return f"{head} {{ {' '.join(bodies[0])} }}"
        tries = [f"    ({', '.join(arguments)}) => {{ {' '.join(body)} }},\n" for body in bodies]
        call = f"attempt({', '.join(arguments)})"
        return (
            f"{head} {{\n    for (const attempt of [\n{''.join(tries)}    ]) {{\n"
            f"      const found = {call};\n      if (found !== undefined) return found;\n"
            "    }\n  }"
        )

    def _body(self, graph: Graph, arguments: list[str]) -> list[str]:
        """Statements that compute a path, and return early where a question has another answer."""
        texts = dict(zip(graph.inputs.tolist(), arguments))
        results = graph.outputs.tolist()
        asked = dict(zip(results[len(results) - len(graph.questions) :], graph.questions))
        uses = np.bincount(np.maximum(graph.parents, 0).ravel(), minlength=len(graph))
        known: dict[int, float] = {}
        body = []
        for node, (code, parents) in enumerate(zip(graph.op.tolist(), graph.parents.tolist())):
            op = ops.OPS[code]
            if op is ops.const:
                known[node] = float(graph.value[node])
                texts[node] = literal(known[node])
            elif op.arity:
                operands = [texts[x] for x in parents[: op.arity]]
                texts[node] = self._applied(op, operands, known.get(parents[0]))
                if uses[node] > 1 or node in asked:
                    body.append(f"const v{node} = {texts[node]};")
                    texts[node] = f"v{node}"
            if node in asked:
                body.append(f"if ({texts[node]} !== {literal(asked[node].answer)}) return;")
        return [*body, f"return {texts[results[0]]};"]

    def _applied(self, op: ops.Op, operands: list[str], first: float | None = None) -> str:
        """An op applied to expressions."""
        if op is ops.where:
            return "({} !== 0 ? {} : {})".format(*operands)
        if op.ufunc in EXPRESSIONS:
            return EXPRESSIONS[op.ufunc].format(*operands)
        name = self.name(op, first)
        return f"forward.{name}({', '.join(operands)})"


def takes_order(op: ops.Op) -> bool:
    """Whether the first operand is an order: the table samples one number for it."""
    return op.arity > 1 and op.domain != () and op.domain[0][0] == op.domain[0][1]


def _paths(op: ops.Op, order: float | None) -> list[Graph] | None:
    """What computes an op, path by path; None for a function of JavaScript's."""
    if op is ops.where or op.ufunc in EXPRESSIONS:
        return None
    rule = op.definition or op.forward

    def call(*xs: Any) -> Any:
        result = rule(*xs if order is None else (order, *xs[1:]))
        return result if hasattr(result, "_apply") else Value(result, trainable=False)

    try:
        if op.fast is not None:
            return [recorded(op, op.fast, None)]
        program = compile(call, parameters=[], fuse=False, paths=MOST_WAYS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PathsWarning)
            shuffle = np.random.default_rng(0).permutation
            pairs = [np.concatenate([SAMPLES, shuffle(SAMPLES)]) for _ in range(op.arity)]
            program([], *pairs)
    except Exception as error:
        raise TypeError(
            "an op must be a function of NumPy's, or be made of other ops, to be written in "
            f"JavaScript (got {op.name!r}, which cannot be recorded: {error})"
        ) from error
    return [runner.graph for paths in program.paths.values() for runner in paths.runners]
