"""The op table: one row per op, read by both engines, the tests and the drawings.

A row holds the forward rule and one vjp rule per operand, written once for floats, NumPy arrays and
graph nodes alike: with operators, and with other rows of the table, which are functions. In every
rule `g` is the gradient that arrives, `out` the op's own result, and `x, y` its operands.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import GraphFormatError

Rule = Callable[..., Any]
Range = tuple[float, float]

OPS: list[Op] = []  # the table; a row's place in it is its op code
MAX_ARITY = 3


@dataclass(frozen=True, eq=False)
class Op:
    """One row of the table, and the function of that name.

    Called on `Value`s or traced nodes it applies the op to them, on object arrays it does so
    element by element; plain numbers give a float, numeric arrays an array. IEEE 754 throughout.

    >>> from vgrad import Value, maximum
    >>> maximum(1, 2), maximum(Value(3.0), 2)
    (2.0, Value(data=3.0, grad=0.0))

    Raises TypeError for a wrong number of operands, or an operand that is not a real number. A new
    row raises ValueError unless its name is a new identifier and its operands are three at most.
    """

    name: str
    symbol: str
    forward: Rule
    ufunc: np.ufunc | None = None  # NumPy's own function for the op, if there is one
    domain: tuple[Range, ...] = ()  # where to sample each operand in tests
    vjp: tuple[Rule | None, ...] = ()  # one per operand; None if its derivative is always 0
    fast: Rule | None = None  # the forward by rows that NumPy runs faster; signs of 0 may differ
    static: int | None = None  # the operand whose value, if it is constant, selects a `fast` rule
    rounds: Rule = lambda number: False  # for which of its values that rounds in another way
    nonnegative: bool | Rule = False  # no result is < 0, or not if the static operand fits the rule
    signs: tuple[int, ...] = ()  # of a sum: what it multiplies each operand with, before it adds
    chooses: bool = False  # every result is an operand, perhaps with another sign, or 0
    bounded: bool = False  # nor is any result larger than 1, or than the largest operand
    code: int = field(init=False, default_factory=lambda: len(OPS))

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or any(op.name == self.name for op in OPS):
            raise ValueError(
                f"an op's name must be an identifier and not in the table yet (got {self.name!r}); "
                "use another"
            )
        if self.arity > MAX_ARITY:
            raise ValueError(
                f"op {self.name!r} must have at most {MAX_ARITY} vjp rules, one per operand (got "
                f"{self.arity}); write it as a function of ops that have fewer"
            )
        OPS.append(self)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> Any:
        return named, (self.name,)  # copies and pickles are this very row

    @property
    def arity(self) -> int:
        """The number of operands; 0 for a leaf."""
        return len(self.vjp)

    @property
    def operator(self) -> np.ufunc | None:
        """The ufunc that computes the forward on arrays to the bit, or None."""
        return self.ufunc if self.forward.__module__ == operator.add.__module__ else None

    @property
    def is_condition(self) -> bool:
        """Whether its result is 1.0 or 0.0, always."""
        return self.ufunc is not None and "dd->?" in self.ufunc.types

    @property
    def is_bounded(self) -> bool:
        """Whether no result is larger than 1, or than the largest operand."""
        return self.bounded or self.chooses or self.is_condition

    def __call__(self, *operands: Any) -> Any:
        if len(operands) != len(self.vjp):
            raise TypeError(f"{self.name}() takes {self.arity} operands (got {len(operands)})")
        if _PLAIN.issuperset(map(type, operands)):
            return evaluate(self.forward, *map(number, operands))
        arrays = [x for x in operands if isinstance(x, np.ndarray) and not is_number(x)]
        engines = [x for x in operands if hasattr(x, "_apply")]
        if arrays:
            with np.errstate(all="ignore"):
                if engines or any(x.dtype == object for x in arrays):
                    return np.frompyfunc(self, self.arity, 1)(*operands)
                floats = [_as_floats(x, rule is None) for x, rule in zip(operands, self.vjp)]
                return self.forward(*floats)
        if not engines:
            return evaluate(self.forward, *map(number, operands))
        result = engines[0]._apply(self, *operands)
        if result is NotImplemented:
            kinds = ", ".join(type(x).__name__ for x in operands)
            raise TypeError(f"{self.name}() takes numbers, Values and nodes (got {kinds})")
        return result


_PLAIN = frozenset([float, int, bool])


def named(name: Any) -> Op:
    """The op of this name; raises GraphFormatError unless the table has it.

    >>> named("tanh")
    <op tanh>
    """
    for op in OPS:
        if op.name == name:
            return op
    got = f"{name!r:.50}, which must be defined first"
    raise GraphFormatError(f"every op must be known (got {got})")


def is_number(x: Any) -> bool:
    """Whether `x` is a real number: Python's, NumPy's, or an array of no dimensions holding one."""
    if isinstance(x, (float, int, np.floating, np.integer, np.bool_)):
        return not isinstance(x, np.timedelta64)  # NumPy counts it among the integers
    return isinstance(x, np.ndarray) and x.ndim == 0 and x.dtype.kind in "fiub"


def is_count(x: Any) -> bool:
    """Whether `x` is an integer, 1 or more, Python's or NumPy's, and not a bool."""
    if isinstance(x, bool) or hasattr(x, "_apply"):
        return False
    return hasattr(x, "__index__") and bool(x >= 1)


def number(x: Any) -> float:
    """`x` as a float; raises TypeError unless it is a real number, which a string is not."""
    if x.__class__ is float or is_number(x):
        try:
            return float(x)
        except OverflowError:  # an int beyond the range of floats
            return math.inf if x > 0 else -math.inf
    if hasattr(x, "_apply"):
        raise TypeError(f"must be a plain number (got {x!r}, which can be used as it is)")
    raise TypeError(f"must be a real number (got {x!r}, a {type(x).__name__})")


def _as_floats(x: Any, mask: bool) -> Any:
    """A number or array as a forward rule takes it: floats, or with `mask` booleans too."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"must hold real numbers (got an array of {array.dtype})")
    return array if mask and array.dtype == bool else array.astype(np.float64, copy=False)


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
    if isinstance(c, np.ndarray) or isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return np.where(c, x, y)
    return x if c else y


# For these exponents np.power may or may not take a short cut, depending on the operands' layout.
# Taking it always, as PyTorch does, makes the result depend on the numbers alone.
_root = _numpy(np.sqrt)
_SHORT_CUTS: dict[float, Rule] = {
    -1.0: lambda x: 1.0 / x,
    0.0: _numpy(np.ones_like),
    0.5: lambda x: _select(x == -math.inf, math.inf, _root(x) + 0.0),  # pow(-0.0, 0.5) is 0.0
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


_FAST_POWERS: dict[float, Rule] = _SHORT_CUTS | {  # these as rows of the table too
    -0.5: lambda x: 1.0 / _FAST_POWERS[0.5](x),
    0.0: lambda x: 1.0,
    0.5: lambda x: where(x == -math.inf, math.inf, sqrt(x + 0.0)),
    3.0: lambda x: x * x * x,
}


# --- the table -----------------------------------------------------------------------------------
# Names are the op's own, so a few hide a built-in here; nothing in this file needs the built-in.
# Ties: relu and abs have derivative 0 at 0; maximum and minimum split a tie in halves.
# pow follows PyTorch: no gradient to x where y is 0, none to y where x is 0 and y is not negative.

ANY, POSITIVE = (-2.0, 2.0), (0.2, 3.0)
ONE, TWO = (ANY,), (ANY, ANY)


def _leaf() -> None:
    raise TypeError("a leaf has a value and computes none")


# fmt: off
const     = Op("const", "", _leaf)
input     = Op("input", "", _leaf)
parameter = Op("parameter", "", _leaf)

add = Op("add", "+", operator.add, np.add, TWO, (
    lambda g, out, x, y: g,
    lambda g, out, x, y: g),
    signs=(1, 1))
sub = Op("sub", "-", operator.sub, np.subtract, TWO, (
    lambda g, out, x, y: g,
    lambda g, out, x, y: -g),
    signs=(1, -1))
mul = Op("mul", "*", operator.mul, np.multiply, TWO, (
    lambda g, out, x, y: y * g,
    lambda g, out, x, y: x * g))
div = Op("div", "/", operator.truediv, np.divide, (ANY, POSITIVE), (
    lambda g, out, x, y: g / y,
    lambda g, out, x, y: -g * out / y))
pow: Op = Op("pow", "**", _power, np.power, (POSITIVE, ANY), (
    lambda g, out, x, y: where(y == 0, 0.0, g * y * pow(x, y - 1)),
    lambda g, out, x, y: where((x == 0) * (y >= 0), 0.0, g * out * log(x))),
    fast=lambda x, y: _FAST_POWERS[y](x) if is_number(y) and y in _FAST_POWERS else pow(x, y),
    static=1, rounds=lambda y: y in (-0.5, 3.0), nonnegative=lambda y: y % 2 == 0)
maximum: Op = Op(
    "maximum", "max", lambda x, y: _select((x > y) | (x != x), x, y), np.maximum, TWO, (
    lambda g, out, x, y: where(x > y, g, where(x == y, 0.5 * g, 0.0)),
    lambda g, out, x, y: where(x < y, g, where(x == y, 0.5 * g, 0.0))),
    chooses=True)
minimum = Op("minimum", "min", lambda x, y: _select((x < y) | (x != x), x, y), np.minimum, TWO, (
    lambda g, out, x, y: where(x < y, g, where(x == y, 0.5 * g, 0.0)),
    lambda g, out, x, y: where(x > y, g, where(x == y, 0.5 * g, 0.0))),
    chooses=True)
where: Op = Op("where", "where", _select, None, (ANY, ANY, ANY), (
    None,
    lambda g, out, c, x, y: where(c, g, 0.0),
    lambda g, out, c, x, y: where(c, 0.0, g)),
    chooses=True)
guard: Op = Op(  # y, but 0 where y is nan and the gradient x is 0; for graphs of gradients
    "guard", "guard", lambda x, y: _select((x == 0) & (y != y), 0.0, y), None, TWO, (
    None,
    lambda g, out, x, y: where((x == 0) * (y != y), 0.0, g)),
    fast=lambda x, y: where((x == 0) * (y != y), 0.0, y), chooses=True)

neg = Op("neg", "-", operator.neg, np.negative, ONE, (lambda g, out, x: -g,),
    signs=(-1,), chooses=True)
exp: Op = Op("exp", "exp", _numpy(np.exp), np.exp, ONE, (
    lambda g, out, x: g * out,),
    nonnegative=True)
log: Op = Op("log", "log", _numpy(np.log), np.log, (POSITIVE,), (lambda g, out, x: g / x,))
sqrt: Op = Op("sqrt", "sqrt", _numpy(np.sqrt), np.sqrt, (POSITIVE,), (
    lambda g, out, x: g / (2 * out),),
    nonnegative=True, bounded=True)
tanh = Op("tanh", "tanh", _numpy(np.tanh), np.tanh, ONE, (
    lambda g, out, x: g * (1 - out * out),),
    bounded=True)
sigmoid = Op("sigmoid", "sigmoid", _numpy(lambda x: 1.0 / (1.0 + np.exp(-x))), None, ONE, (
    lambda g, out, x: g * out * (1 - out),),
    fast=lambda x: 1.0 / (1.0 + exp(-x)), nonnegative=True, bounded=True)
relu = Op("relu", "relu", lambda x: _select((x > 0) | (x != x), x, 0.0), None, ONE, (
    lambda g, out, x: where(x > 0, g, 0.0),),
    fast=lambda x: maximum(x, 0.0), nonnegative=True, chooses=True)
abs = Op("abs", "abs", operator.abs, np.absolute, ONE, (
    lambda g, out, x: where(x > 0, g, where(x < 0, -g, 0.0)),),
    nonnegative=True, chooses=True)
sin = Op("sin", "sin", _numpy(np.sin), np.sin, ONE, (lambda g, out, x: g * cos(x),), bounded=True)
cos: Op = Op("cos", "cos", _numpy(np.cos), np.cos, ONE, (lambda g, out, x: -g * sin(x),),
    bounded=True)

stop_gradient = Op("stop_gradient", "stop", lambda x: x * 1.0, None, ONE, (None,), chooses=True)

gt = Op("gt", ">",  lambda x, y: (x > y) * 1.0,  np.greater,       TWO, (None, None))
lt = Op("lt", "<",  lambda x, y: (x < y) * 1.0,  np.less,          TWO, (None, None))
ge = Op("ge", ">=", lambda x, y: (x >= y) * 1.0, np.greater_equal, TWO, (None, None))
le = Op("le", "<=", lambda x, y: (x <= y) * 1.0, np.less_equal,    TWO, (None, None))
eq = Op("eq", "==", lambda x, y: (x == y) * 1.0, np.equal,         TWO, (None, None))
ne = Op("ne", "!=", lambda x, y: (x != y) * 1.0, np.not_equal,     TWO, (None, None))
# fmt: on
