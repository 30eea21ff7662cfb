"""The op table: one row per op, read by both engines, the tests and the drawings.

A row holds the forward rule and one vjp rule per operand, written once for floats, NumPy arrays and
graph nodes alike: with operators, and with other rows of the table, which are functions. In every
rule `g` is the gradient that arrives, `out` the op's own result, and `x, y` its operands.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rule = Callable[..., Any]
Range = tuple[float, float]

OPS: list[Op] = []  # the table; a row's place in it is its op code


@dataclass(frozen=True, eq=False)
class Op:
    """One row of the table, and the function of that name.

    Called on `Value`s or traced nodes it applies the op to them, on object arrays it does so
    element by element; plain numbers give a float, numeric arrays an array. IEEE 754 throughout.

    >>> from vgrad import Value, maximum
    >>> maximum(1, 2), maximum(Value(3.0), 2)
    (2.0, Value(data=3.0, grad=0.0))

    Raises TypeError for a wrong number of operands, or an operand that is no real number.
    """

    name: str
    symbol: str
    forward: Rule
    vjp: tuple[Rule | None, ...] = ()  # one per operand; None where the derivative is zero
    domain: tuple[Range, ...] = ()  # where to sample each operand in tests
    ufunc: np.ufunc | None = None  # NumPy's own name for the op, where it has one
    code: int = field(init=False, default_factory=lambda: len(OPS))

    def __post_init__(self) -> None:
        OPS.append(self)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> str:
        return self.name  # copies and pickles are this very row

    @property
    def arity(self) -> int:
        """The number of operands; 0 for a leaf."""
        return len(self.vjp)

    def __call__(self, *operands: Any) -> Any:
        if len(operands) != len(self.vjp):
            raise TypeError(f"{self.name}() takes {self.arity} operands (got {len(operands)})")
        if _PLAIN.issuperset(map(type, operands)):
            return evaluate(self.forward, *map(float, operands))
        arrays = [x for x in operands if isinstance(x, np.ndarray)]
        engines = [x for x in operands if hasattr(x, "_apply")]
        if any(x.dtype == object for x in arrays) or (arrays and engines):
            return np.frompyfunc(self, self.arity, 1)(*operands)
        if arrays:
            with np.errstate(all="ignore"):
                return self.forward(*operands)
        if not engines:
            return evaluate(self.forward, *map(number, operands))
        result = engines[0]._apply(self, *operands)
        if result is NotImplemented:
            kinds = ", ".join(type(x).__name__ for x in operands)
            raise TypeError(f"{self.name}() takes numbers, Values and nodes (got {kinds})")
        return result


_PLAIN = frozenset([float, int, bool])


def is_number(x: Any) -> bool:
    """Whether `x` is a real number: Python's, NumPy's, or an array of no dimensions holding one."""
    if isinstance(x, np.ndarray):
        return x.ndim == 0 and x.dtype.kind in "fiub"
    return isinstance(x, (float, int, np.floating, np.integer, np.bool_))


def number(x: Any) -> float:
    """`x` as a float; raises TypeError unless it is a real number (a string is none)."""
    if is_number(x):
        return float(x)
    if hasattr(x, "_apply"):
        raise TypeError(f"must be a plain number (got {x!r}, which can be used as it is)")
    raise TypeError(f"must be a real number (got {x!r}, a {type(x).__name__})")


def evaluate(rule: Rule, *numbers: float) -> float:
    """`rule(*numbers)` by IEEE 754: 1/0 is inf, and 0/0 is nan, where Python would raise."""
    try:
        return float(rule(*numbers))
    except ArithmeticError:
        with np.errstate(all="ignore"):
            return float(rule(*map(np.float64, numbers)))


# --- forward rules that Python's operators do not give -------------------------------------------
# Each must give one number the same bits as a whole array, whatever path NumPy takes inside.


def _numpy(function: Rule) -> Rule:
    """A NumPy function as a forward rule: no warnings, and a float for a float."""

    def forward(*xs: Any) -> Any:
        with np.errstate(all="ignore"):
            out = function(*xs)
        return out if out.ndim else float(out)

    return forward


def _select(c: Any, x: Any, y: Any) -> Any:
    if any(isinstance(z, np.ndarray) for z in (c, x, y)):
        return np.where(c, x, y)
    return x if c else y


# For these exponents np.power may or may not take a short cut, depending on the operands' layout.
# Taking it always, as PyTorch does, makes the result depend on the numbers alone.
_SHORT_CUTS: dict[float, Rule] = {
    -1.0: lambda x: 1.0 / x,
    0.0: _numpy(np.ones_like),
    0.5: _numpy(np.sqrt),
    1.0: lambda x: x,
    2.0: lambda x: x * x,
}
_general_power = _numpy(np.power)


def _power(x: Any, y: Any) -> Any:
    if not isinstance(y, np.ndarray):
        short_cut = _SHORT_CUTS.get(y)
        return short_cut(x) if short_cut else _general_power(x, y)
    out = _general_power(x, y)
    for exponent, short_cut in _SHORT_CUTS.items():
        hit = y == exponent
        if hit.any():
            out = np.where(hit, short_cut(x), out)
    return out


# --- the table -----------------------------------------------------------------------------------
# Names are the op's own, so a few hide a built-in here; nothing in this file needs the built-in.
# Ties: relu and abs have derivative 0 at 0; maximum and minimum split a tie in halves.
# pow follows PyTorch: no gradient to x where y is 0, none to y where x is 0 and y is not negative.

R = (-2.0, 2.0)  # anywhere
P = (0.2, 3.0)  # positive


def _leaf() -> None:
    raise TypeError("a leaf has a value and computes none")


# fmt: off
const = Op("const", "", _leaf)
input = Op("input", "", _leaf)
parameter = Op("parameter", "", _leaf)

add = Op("add", "+", operator.add, (
    lambda g, out, x, y: g,
    lambda g, out, x, y: g), (R, R), np.add)
sub = Op("sub", "-", operator.sub, (
    lambda g, out, x, y: g,
    lambda g, out, x, y: -g), (R, R), np.subtract)
mul = Op("mul", "*", operator.mul, (
    lambda g, out, x, y: g * y,
    lambda g, out, x, y: g * x), (R, R), np.multiply)
div = Op("div", "/", operator.truediv, (
    lambda g, out, x, y: g / y,
    lambda g, out, x, y: -g * out / y), (R, P), np.divide)
pow: Op = Op("pow", "**", _power, (
    lambda g, out, x, y: where(y == 0, 0.0, g * y * pow(x, y - 1)),
    lambda g, out, x, y: where((x == 0) * (y >= 0), 0.0, g * out * log(x))), (P, R), np.power)
maximum = Op("maximum", "max", lambda x, y: _select((x > y) | (x != x), x, y), (
    lambda g, out, x, y: where(x > y, g, where(x == y, 0.5 * g, 0.0)),
    lambda g, out, x, y: where(x < y, g, where(x == y, 0.5 * g, 0.0))), (R, R), np.maximum)
minimum = Op("minimum", "min", lambda x, y: _select((x < y) | (x != x), x, y), (
    lambda g, out, x, y: where(x < y, g, where(x == y, 0.5 * g, 0.0)),
    lambda g, out, x, y: where(x > y, g, where(x == y, 0.5 * g, 0.0))), (R, R), np.minimum)
where: Op = Op("where", "where", _select, (
    None,
    lambda g, out, c, x, y: where(c, g, 0.0),
    lambda g, out, c, x, y: where(c, 0.0, g)), ((0.0, 1.0), R, R))

neg = Op("neg", "-", operator.neg, (lambda g, out, x: -g,), (R,), np.negative)
exp = Op("exp", "exp", _numpy(np.exp), (lambda g, out, x: g * out,), (R,), np.exp)
log: Op = Op("log", "log", _numpy(np.log), (lambda g, out, x: g / x,), (P,), np.log)
sqrt = Op("sqrt", "sqrt", _numpy(np.sqrt), (lambda g, out, x: g / (2 * out),), (P,), np.sqrt)
tanh = Op("tanh", "tanh", _numpy(np.tanh), (lambda g, out, x: g * (1 - out * out),), (R,), np.tanh)
sigmoid = Op("sigmoid", "sigmoid", _numpy(lambda x: 1.0 / (1.0 + np.exp(-x))), (
    lambda g, out, x: g * out * (1 - out),), (R,))
relu = Op("relu", "relu", lambda x: _select((x > 0) | (x != x), x, 0.0), (
    lambda g, out, x: where(x > 0, g, 0.0),), (R,))
abs = Op("abs", "abs", operator.abs, (
    lambda g, out, x: where(x > 0, g, where(x < 0, -g, 0.0)),), (R,), np.absolute)
sin = Op("sin", "sin", _numpy(np.sin), (lambda g, out, x: g * cos(x),), (R,), np.sin)
cos: Op = Op("cos", "cos", _numpy(np.cos), (lambda g, out, x: -g * sin(x),), (R,), np.cos)

gt = Op("gt", ">", lambda x, y: (x > y) * 1.0, (None, None), (R, R), np.greater)
lt = Op("lt", "<", lambda x, y: (x < y) * 1.0, (None, None), (R, R), np.less)
ge = Op("ge", ">=", lambda x, y: (x >= y) * 1.0, (None, None), (R, R), np.greater_equal)
le = Op("le", "<=", lambda x, y: (x <= y) * 1.0, (None, None), (R, R), np.less_equal)
eq = Op("eq", "==", lambda x, y: (x == y) * 1.0, (None, None), (R, R), np.equal)
ne = Op("ne", "!=", lambda x, y: (x != y) * 1.0, (None, None), (R, R), np.not_equal)
# fmt: on
