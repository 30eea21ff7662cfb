"""The op table: one row per op, read by both engines, the tests and the drawings.

A row is a function of plain numbers and arrays, which has the op's name, operands and docstring,
and one vjp rule per operand, written once for floats, NumPy arrays and graph nodes alike: with
operators, and with other rows of the table, which are functions too. In every rule `g` is the
gradient that arrives, `out` the op's own result, and `x, y` its operands.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from keyword import iskeyword
from math import log as _log
from math import pi
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from . import activations, choices, elementary, special
from .errors import GraphFormatError, UnknownOpError
from .numbers import PLAIN, as_floats, each, operand_names
from .numbers import Rule as Rule
from .numbers import evaluate as evaluate
from .numbers import is_count as is_count
from .numbers import is_number as is_number
from .numbers import number as number

if TYPE_CHECKING:
    from .signatures import Function

P = ParamSpec("P")
D = TypeVar("D")
Range = tuple[float, float]

OPS: list[Op] = []  # the table; a row's place in it is its op code
MAX_ARITY = 3
REPLACED = " (replaced)"  # the end of its name, if an op has been defined anew
MAX_OPS = 254  # the compiler has two more codes of a byte


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
    loose: bool | Rule = False  # `fast` or the ufunc may change a bit, or if `static` fits the rule
    nonnegative: bool | Rule = False  # no result is < 0, or not if the static operand fits the rule
    signs: tuple[int, ...] = ()  # of a sum: what it multiplies each operand with, before it adds
    neutral: tuple[float | None, ...] = ()  # each operand's number that leaves the other as it is
    chooses: bool = False  # every result is an operand, perhaps with another sign, or 0
    exact: bool = False  # results may be as exact as operands, as those of floor and elu are
    bounded: bool = False  # no result is larger than 1, or than the largest operand
    definition: Rule | None = None  # a function that names the operands, and has the docstring
    defined: str = ""  # the line that made the row, if it is not vgrad's own,
    digest: int = 0  # and a number that tells its code from others'
    code: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        same = [op for op in OPS if op.name == self.name]
        if same or not self.name.isidentifier() or iskeyword(self.name):
            where = f", which is in {same[0].defined}" if same and same[0].defined else ""
            raise ValueError(
                f"an op's name must be an identifier and not in the table yet (got {self.name!r}"
                f"{where}); use another"
            )
        if self.arity > MAX_ARITY:
            raise ValueError(
                f"op {self.name!r} must have at most {MAX_ARITY} vjp rules, one per operand (got "
                f"{self.arity}); write it as a function of ops that have fewer"
            )
        if len(OPS) == MAX_OPS:
            raise ValueError(f"there must be at most {MAX_OPS} ops (got one more, {self.name!r})")
        if self.definition is not None:  # so that help, editors and doctest see a function
            heading = f"{self.name}({operand_names(self.definition)})"
            vars(self).update(
                __doc__=f"{heading}\n\n    {self.definition.__doc__ or ''}",
                __name__=self.name,
                __qualname__=getattr(self.definition, "__qualname__", self.name),
                __module__=self.definition.__module__,
                __wrapped__=self.definition,
            )
        OPS.append(self)
        vars(self)["code"] = OPS.index(self)  # in this order, as threads may make ops at once

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> Any:
        reference = self.reference  # copies and pickles are this very row
        return (named, (reference,)) if isinstance(reference, str) else (imported, reference)

    @property
    def reference(self) -> str | tuple[Any, ...]:
        """What stands for the row in files: its name; of one's own also line, module and digest."""
        own = (self.name, self.defined, self.__module__, self.digest)
        return own if self.defined else self.name

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

    @property
    def is_exact(self) -> bool:
        """Whether no result is rounded; those of sums are, but may have been made to cancel."""
        return self.exact or self.chooses or self.is_condition or bool(self.signs) or not self.arity

    def __call__(self, *operands: Any, **named: Any) -> Any:
        if named or len(operands) != len(self.vjp):
            operands = self._in_order(operands, named)
        if PLAIN.issuperset(map(type, operands)):
            return evaluate(self.forward, *map(number, operands))
        engine, arrays = None, []
        for x in operands:
            if isinstance(x, np.ndarray) and not is_number(x):
                arrays.append(x)
            elif engine is None and hasattr(x, "_apply"):
                engine = x
        if arrays:
            with np.errstate(all="ignore"):
                if engine is not None or any(x.dtype == object for x in arrays):
                    return each(self, operands)
                floats = [as_floats(x, self is where and x is operands[0]) for x in operands]
                return self.forward(*floats)
        if engine is None:
            return evaluate(self.forward, *map(number, operands))
        result = engine._apply(self, *operands)
        if result is NotImplemented:
            kinds = ", ".join(type(x).__name__ for x in operands)
            raise TypeError(f"{self.name}() takes numbers, Values and nodes (got {kinds})")
        return result

    def _in_order(self, operands: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All operands, where some are given by name, or are left to their defaults."""
        if self.definition is not None:
            with suppress(TypeError):
                bound = signature(self.definition).bind(*operands, **named)
                bound.apply_defaults()
                if not bound.kwargs.keys() & named.keys():  # no operands are keyword-only
                    return bound.args
        got = ", ".join([str(len(operands)), *named])
        hint = f", as in {self.name}({operand_names(self.definition)})" if self.definition else ""
        many = f"{self.arity} operand" + "s" * (self.arity > 1)
        raise TypeError(f"{self.name}() takes {many} (got {got}){hint}")


def row(
    function: Callable[P, Any],
    domain: D,
    vjp: tuple[Rule | None, ...],
    symbol: str = "",
    forward: Rule | None = None,
    **facts: Any,
) -> Function[D, P]:
    """A row with the name, operands and docstring of a function, which computes its forward."""
    name, facts = function.__name__, {"ufunc": getattr(function, "ufunc", None), **facts}
    facts |= {"domain": domain, "vjp": vjp, "definition": function}
    return Op(name, symbol or name, forward or function, **facts)  # type: ignore[return-value]


def named(name: Any, defined: Any = "", module: Any = "", digest: Any = 0) -> Op:
    """The op of this name; raises GraphFormatError unless the table has it.

    >>> named("tanh")
    <op tanh>
    """
    for op in OPS:
        if op.name == name:
            return op
    where = f", as in {defined!s:.200} of {module!s:.200}" if defined else ""
    got = f"{name!r:.50}, which must be defined first{where}"
    raise UnknownOpError(f"every op must be known (got {got})")


def imported(name: str, defined: str, module: str, digest: int) -> Op:
    """The op of this name, once its module is imported: for pickles alone, as files run nothing."""
    with suppress(ImportError):
        if module != "__main__":
            import_module(module)
    op = named(name, defined, module)
    if op.digest != digest:
        raise GraphFormatError(
            f"op {name!r} must be as it was when it was pickled (got another one, {op.defined}); "
            "start executors after it was defined for the last time"
        )
    return op


# --- the table -----------------------------------------------------------------------------------
# Names are the op's own, so a few hide a built-in here; nothing below needs the built-in.
# Ties: relu and abs have derivative 0 at 0; maximum and minimum split a tie in halves.
# pow follows PyTorch: no gradient to x where y is 0, none to y where x is 0 and y is not negative.

ANY, POSITIVE, ABOVE_ONE, UNIT = (-2.0, 2.0), (0.2, 3.0), (1.2, 3.0), (-0.9, 0.9)
ONE, TWO = (ANY,), (ANY, ANY)
LN2, LN10 = elementary.LN2, _log(10)
ONE_BY_ROOT_2PI, TWO_BY_ROOT_PI = 1 / (2 * pi) ** 0.5, 2 / pi**0.5

_FAST_POWERS: dict[float, Rule] = elementary.SHORT_CUTS | {  # these as rows of the table too
    -0.5: lambda x: 1.0 / _FAST_POWERS[0.5](x),
    0.0: lambda x: 1.0,
    0.5: lambda x: where(x == -np.inf, np.inf, sqrt(x + 0.0)),
    3.0: lambda x: x * x * x,
    4.0: lambda x: (x * x) * (x * x),
}


def _leaf() -> None:
    raise TypeError("a leaf has a value and computes none")


def _turn(g: Any, x: Any, y: Any) -> Any:
    """g * x / (x**2 + y**2), whose squares might overflow, or vanish; 0 at (0, 0)."""
    r = hypot(x, y)
    r = where(r == 0, 1.0, r)
    return g * (x / r) / r


# Rules name rows that follow, of which mypy asks the type too early.
# mypy: disable-error-code="has-type"
# fmt: off
const     = Op("const", "", _leaf)
input     = Op("input", "", _leaf)
parameter = Op("parameter", "", _leaf)

add = row(choices.add, TWO, (lambda g, out, x, y: g, lambda g, out, x, y: g),
    "+", operator.add, ufunc=np.add, signs=(1, 1), neutral=(-0.0, -0.0))
sub = row(choices.sub, TWO, (lambda g, out, x, y: g, lambda g, out, x, y: -g),
    "-", operator.sub, ufunc=np.subtract, signs=(1, -1), neutral=(None, 0.0))
mul = row(choices.mul, TWO, (
    lambda g, out, x, y: y * g,
    lambda g, out, x, y: x * g), "*", operator.mul, ufunc=np.multiply, neutral=(1.0, 1.0))
div = row(choices.div, (ANY, POSITIVE), (
    lambda g, out, x, y: g / y, lambda g, out, x, y: -(g * out / y)),
    "/", operator.truediv, ufunc=np.divide, neutral=(None, 1.0))
neg = row(choices.neg, ONE, (lambda g, out, x: -g,), "-", operator.neg, ufunc=np.negative,
    signs=(-1,), chooses=True)
pow = row(elementary.pow, (POSITIVE, ANY), (
    lambda g, out, x, y: where(y == 0, 0.0, g * y * pow(x, y - 1)),
    lambda g, out, x, y: where((x == 0) * (y >= 0), 0.0, g * out * log(x))), "**", ufunc=np.power,
    fast=lambda x, y: _FAST_POWERS[y](x) if is_number(y) and y in _FAST_POWERS else pow(x, y),
    static=1, rounds=lambda y: y in (-0.5, 3.0, 4.0), nonnegative=lambda y: y % 2 == 0,
    loose=lambda y: y not in elementary.SHORT_CUTS, neutral=(None, 1.0))

maximum = row(choices.maximum, TWO, (
    lambda g, out, x, y: where(x > y, g, where(x == y, 0.5 * g, 0.0)),
    lambda g, out, x, y: where(x < y, g, where(x == y, 0.5 * g, 0.0))),
    "max", ufunc=np.maximum, chooses=True, loose=True)
minimum = row(choices.minimum, TWO, (
    lambda g, out, x, y: where(x < y, g, where(x == y, 0.5 * g, 0.0)),
    lambda g, out, x, y: where(x > y, g, where(x == y, 0.5 * g, 0.0))),
    "min", ufunc=np.minimum, chooses=True, loose=True)
where = row(choices.where, (ANY, ANY, ANY), (
    None,
    lambda g, out, c, x, y: where(c, g, 0.0),
    lambda g, out, c, x, y: where(c, 0.0, g)), chooses=True)
guard = row(choices.guard, (ANY, ANY, ANY), (
    None, None,
    lambda g, out, x, y, z: guard(x, y, g)),
    fast=lambda x, y, z: where((x == 0) * (y != y), 0.0, z), chooses=True)
abs = row(choices.abs, ONE, (lambda g, out, x: where(x > 0, g, where(x < 0, -g, 0.0)),),
    forward=operator.abs, ufunc=np.absolute, nonnegative=True, chooses=True)
stop_gradient = row(choices.stop_gradient, ONE, (None,), "stop", chooses=True)

gt = row(choices.gt, TWO, (None, None), ">", ufunc=np.greater)
lt = row(choices.lt, TWO, (None, None), "<", ufunc=np.less)
ge = row(choices.ge, TWO, (None, None), ">=", ufunc=np.greater_equal)
le = row(choices.le, TWO, (None, None), "<=", ufunc=np.less_equal)
eq = row(choices.eq, TWO, (None, None), "==", ufunc=np.equal)
ne = row(choices.ne, TWO, (None, None), "!=", ufunc=np.not_equal)

sign  = row(choices.sign,  ONE, (None,), exact=True, bounded=True)
floor = row(choices.floor, ONE, (None,), exact=True)
ceil  = row(choices.ceil,  ONE, (None,), exact=True)
trunc = row(choices.trunc, ONE, (None,), exact=True, bounded=True)
rint  = row(choices.rint,  ONE, (None,), exact=True)
floor_divide = row(choices.floor_divide, (ANY, POSITIVE), (None, None), "//", exact=True)
remainder = row(choices.remainder, (ANY, POSITIVE), (
    lambda g, out, x, y: g,
    lambda g, out, x, y: -(g * rint((x - out) / y))), "%", exact=True, bounded=True)
fmod = row(choices.fmod, (ANY, POSITIVE), (
    lambda g, out, x, y: g,
    lambda g, out, x, y: -(g * rint((x - out) / y))), exact=True, bounded=True)

exp   = row(elementary.exp,   ONE, (lambda g, out, x: g * out,), nonnegative=True)
exp2  = row(elementary.exp2,  ONE, (lambda g, out, x: g * out * LN2,), nonnegative=True)
expm1 = row(elementary.expm1, ONE, (lambda g, out, x: g * exp(x),))
log   = row(elementary.log,   (POSITIVE,), (lambda g, out, x: g / x,))
log2  = row(elementary.log2,  (POSITIVE,), (lambda g, out, x: g / (x * LN2),))
log10 = row(elementary.log10, (POSITIVE,), (lambda g, out, x: g / (x * LN10),))
log1p = row(elementary.log1p, (POSITIVE,), (lambda g, out, x: g / (1 + x),))
sqrt  = row(elementary.sqrt,  (POSITIVE,), (lambda g, out, x: g / (2 * out),), nonnegative=True,
    bounded=True)
cbrt  = row(elementary.cbrt,  (POSITIVE,), (lambda g, out, x: g / (3 * out * out),), bounded=True)
logaddexp = row(elementary.logaddexp, TWO, (
    lambda g, out, x, y: g / (1 + exp(y - x)),
    lambda g, out, x, y: g / (1 + exp(x - y))), ufunc=np.logaddexp,
    fast=lambda x, y: where(x == y, x + LN2, maximum(x, y) + log1p(exp(-abs(x - y)))))

sin = row(elementary.sin, ONE, (lambda g, out, x: g * cos(x),), bounded=True)
cos = row(elementary.cos, ONE, (lambda g, out, x: -(g * sin(x)),), bounded=True)
tan = row(elementary.tan, ((-1.2, 1.2),), (lambda g, out, x: g * (1 + out * out),))
arcsin = row(elementary.arcsin, (UNIT,), (lambda g, out, x: g / sqrt((1 - x) * (1 + x)),))
arccos = row(elementary.arccos, (UNIT,), (
    lambda g, out, x: -(g / sqrt((1 - x) * (1 + x))),), nonnegative=True)
arctan = row(elementary.arctan, ONE, (lambda g, out, x: g / (1 + x * x),), bounded=True)
arctan2 = row(elementary.arctan2, (ANY, POSITIVE), (
    lambda g, out, y, x: _turn(g, x, y),
    lambda g, out, y, x: -_turn(g, y, x)))
hypot = row(elementary.hypot, TWO, (
    lambda g, out, x, y: g * (x / where(out == 0, 1.0, out)),
    lambda g, out, x, y: g * (y / where(out == 0, 1.0, out))), nonnegative=True)

sinh = row(elementary.sinh, ONE, (lambda g, out, x: g * cosh(x),))
cosh = row(elementary.cosh, ONE, (lambda g, out, x: g * sinh(x),), nonnegative=True)
tanh = row(elementary.tanh, ONE, (lambda g, out, x: g * (1 - out * out),), bounded=True)
arcsinh = row(elementary.arcsinh, ONE, (lambda g, out, x: g / hypot(x, 1.0),), bounded=True)
arccosh = row(elementary.arccosh, (ABOVE_ONE,), (
    lambda g, out, x: g / (sqrt(x - 1) * sqrt(x + 1)),), nonnegative=True)
arctanh = row(elementary.arctanh, (UNIT,), (lambda g, out, x: g / ((1 - x) * (1 + x)),))

erf = row(special.erf, ONE, (lambda g, out, x: g * (TWO_BY_ROOT_PI * exp(-x * x)),), bounded=True)
erfc = row(special.erfc, ONE, (
    lambda g, out, x: -(g * (TWO_BY_ROOT_PI * exp(-x * x))),), nonnegative=True)
erfcx = row(special.erfcx, ONE, (lambda g, out, x: -2.0 * g * ierfcx(1.0, x),), nonnegative=True)
ierfcx = row(special.ierfcx, ((1.0, 1.0), ANY), (  # for derivatives of erfcx
    None, lambda g, out, n, x: -2.0 * g * (n + 1) * ierfcx(n + 1, x)), nonnegative=True)
ndtr = row(special.ndtr, ONE, (
    lambda g, out, x: g * (ONE_BY_ROOT_2PI * exp(-0.5 * x * x)),), nonnegative=True, bounded=True)
log_ndtr = row(special.log_ndtr, ONE, (
    lambda g, out, x: g * (2 * ONE_BY_ROOT_2PI) / erfcx(x * -(0.5**0.5)),))
lgamma = row(special.lgamma, (POSITIVE,), (lambda g, out, x: g * digamma(x),))
digamma = row(special.digamma, (POSITIVE,), (lambda g, out, x: g * polygamma(1.0, x),))
polygamma = row(special.polygamma, ((1.0, 1.0), POSITIVE), (
    None, lambda g, out, n, x: g * polygamma(n + 1, x)))

sigmoid = row(activations.sigmoid, ONE, (lambda g, out, x: g * out * (1 - out),),
    fast=lambda x: 1.0 / (1.0 + exp(-x)), nonnegative=True, bounded=True)
relu = row(activations.relu, ONE, (lambda g, out, x: where(x > 0, g, 0.0),),
    fast=lambda x: maximum(x, 0.0), nonnegative=True, chooses=True, loose=True)
leaky_relu = row(activations.leaky_relu, (ANY, POSITIVE), (
    lambda g, out, x, slope: where(x > 0, g, g * slope),
    lambda g, out, x, slope: where(x > 0, 0.0, g * x)), static=1, exact=True,
    fast=lambda x, slope: maximum(x, slope * x) if is_number(slope) and 0 < slope <= 1
    else where(x > 0, x, slope * x))
elu = row(activations.elu, (ANY, POSITIVE), (
    lambda g, out, x, alpha: where(x > 0, g, g * alpha * exp(x)),
    lambda g, out, x, alpha: where(x > 0, 0.0, g * expm1(x))), exact=True,
    fast=lambda x, alpha: where(x > 0, x, alpha * expm1(x)))
softplus = row(activations.softplus, ONE, (lambda g, out, x: g / (1 + exp(-x)),),
    fast=lambda x: maximum(x, 0.0) + log1p(exp(-abs(x))), nonnegative=True)
silu = row(activations.silu, ONE, (lambda g, out, x: g * (out + sigmoid(x) * (1 - out)),),
    fast=lambda x: x / (1.0 + exp(-x)), bounded=True)
gelu = row(activations.gelu, ONE, (
    lambda g, out, x: g * (ndtr(x) + x * (ONE_BY_ROOT_2PI * exp(-0.5 * x * x))),),
    fast=lambda x: x * ndtr(x), bounded=True)
# fmt: on
