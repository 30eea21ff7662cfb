"""Powers and logarithms, angles and hyperbolic functions, of plain numbers and arrays.

Rows of `ops` add the derivatives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .numbers import Rule, by_numpy, quietly, select

if TYPE_CHECKING:
    from .signatures import Numbers

LN2 = math.log(2)

# --- powers and logarithms -----------------------------------------------------------------------

# For these exponents np.power may or may not take a short cut, depending on the operands' layout.
# Taking it always, as PyTorch does, makes the result depend on the numbers alone.
_root = quietly(np.sqrt)
SHORT_CUTS: dict[float, Rule] = {
    -1.0: lambda x: 1.0 / x,
    0.0: quietly(np.ones_like),
    0.5: lambda x: select(x == -math.inf, math.inf, _root(x) + 0.0),  # pow(-0.0, 0.5) is 0.0
    1.0: lambda x: x,
    2.0: lambda x: x * x,
}
_general_power: Rule = quietly(np.power)


def pow(x: Any, y: Any) -> Any:
    """x to the power of y; nan if x is negative and y not a whole number.

    As in PyTorch x has no gradient where y is 0, nor has y where x is 0 and y not negative.

    >>> import vgrad
    >>> vgrad.pow(2, 10)
    1024.0
    """
    if not isinstance(y, np.ndarray):
        short_cut = SHORT_CUTS.get(y)
        return short_cut(x) if short_cut else _general_power(x, y)
    out = _general_power(x, y)
    for exponent, short_cut in SHORT_CUTS.items():
        hit = y == exponent
        if hit.any():
            out = np.where(hit, short_cut(x), out)
    return out


@by_numpy(np.exp)
def exp(x: Any) -> Any:
    """e to the power of x; inf above 709.78.

    Its derivative is exp(x) itself.

    >>> import vgrad
    >>> vgrad.exp(0)
    1.0
    """


@by_numpy(np.exp2)
def exp2(x: Any) -> Any:
    """2 to the power of x; inf from 1024.

    Its derivative is log(2) * exp2(x).

    >>> import vgrad
    >>> vgrad.exp2(10)
    1024.0
    """


@by_numpy(np.expm1)
def expm1(x: Any) -> Any:
    """exp(x) - 1, accurate for small x too; inf above 709.78.

    Its derivative is exp(x).

    >>> import vgrad
    >>> vgrad.expm1(1e-20)
    1e-20
    """


@by_numpy(np.log)
def log(x: Any) -> Any:
    """The natural logarithm: -inf at 0, nan below.

    Its derivative is 1 / x: inf at 0, and below that too, where the logarithm is nan.

    >>> import vgrad
    >>> vgrad.log(0)
    -inf
    """


@by_numpy(np.log2)
def log2(x: Any) -> Any:
    """The logarithm to base 2: -inf at 0, nan below.

    Its derivative is 1 / (x * log(2)), inf at 0.

    >>> import vgrad
    >>> vgrad.log2(1024)
    10.0
    """


@by_numpy(np.log10)
def log10(x: Any) -> Any:
    """The logarithm to base 10: -inf at 0, nan below.

    Its derivative is 1 / (x * log(10)), inf at 0.

    >>> import vgrad
    >>> vgrad.log10(1000)
    3.0
    """


@by_numpy(np.log1p)
def log1p(x: Any) -> Any:
    """log(1 + x), accurate for small x too: -inf at -1, nan below.

    Its derivative is 1 / (1 + x), inf at -1.

    >>> import vgrad
    >>> vgrad.log1p(1e-20)
    1e-20
    """


@quietly
def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)), without overflow: the sum of two numbers given by their logarithms.

    Its derivatives are exp(x) and exp(y) as shares of their sum; nan at two equal infinities.

    >>> import vgrad
    >>> vgrad.logaddexp(1000, 1000)
    1000.6931471805599
    """
    far = np.maximum(x, y) + np.log1p(np.exp(-np.abs(x - y)))  # several times as quick as NumPy's
    return np.where(x == y, x + LN2, far)  # which at infinities would be nan


@by_numpy(np.sqrt)
def sqrt(x: Any) -> Any:
    """The square root: nan below 0.

    Its derivative is 1 / (2 * sqrt(x)), inf at 0.

    >>> import vgrad
    >>> vgrad.sqrt(9)
    3.0
    """


@by_numpy(np.cbrt)
def cbrt(x: Any) -> Any:
    """The cube root; negative for negative x.

    Its derivative is 1 / (3 * cbrt(x)**2), inf at 0.

    >>> import vgrad
    >>> vgrad.cbrt(-8)
    -2.0
    """


# --- angles, in radians --------------------------------------------------------------------------


@by_numpy(np.sin)
def sin(x: Any) -> Any:
    """The sine of an angle in radians; nan at infinity.

    Its derivative is cos(x).

    >>> import vgrad
    >>> vgrad.sin(0)
    0.0
    """


@by_numpy(np.cos)
def cos(x: Any) -> Any:
    """The cosine of an angle in radians; nan at infinity.

    Its derivative is -sin(x).

    >>> import vgrad
    >>> vgrad.cos(0)
    1.0
    """


@by_numpy(np.tan)
def tan(x: Any) -> Any:
    """The tangent of an angle in radians; nan at infinity. No float is a pole.

    Its derivative is 1 + tan(x)**2.

    >>> import vgrad
    >>> vgrad.tan(0)
    0.0
    """


@by_numpy(np.arcsin)
def arcsin(x: Any) -> Any:
    """The angle, from -pi/2 to pi/2, whose sine is x; nan outside of -1 to 1.

    Its derivative is 1 / sqrt(1 - x**2), inf at -1 and 1.

    >>> import vgrad
    >>> vgrad.arcsin(0)
    0.0
    """


@by_numpy(np.arccos)
def arccos(x: Any) -> Any:
    """The angle, from 0 to pi, whose cosine is x; nan outside of -1 to 1.

    Its derivative is -1 / sqrt(1 - x**2), -inf at -1 and 1.

    >>> import vgrad
    >>> vgrad.arccos(1)
    0.0
    """


@by_numpy(np.arctan)
def arctan(x: Any) -> Any:
    """The angle, from -pi/2 to pi/2, whose tangent is x.

    Its derivative is 1 / (1 + x**2).

    >>> import vgrad
    >>> vgrad.arctan(0)
    0.0
    """


@by_numpy(np.arctan2)
def arctan2(y: Numbers, x: Numbers) -> Any:
    """The angle of the point (x, y), from -pi to pi, with y first.

    Its derivatives are x and -y, divided by x**2 + y**2; 0 at (0, 0), as in PyTorch,
    and nan where x or y is infinite.

    >>> import vgrad
    >>> round(vgrad.arctan2(1, 0), 6)
    1.570796
    """


@by_numpy(np.hypot)
def hypot(x: Numbers, y: Numbers) -> Any:
    """sqrt(x**2 + y**2), without overflow: the length of the vector (x, y).

    Its derivatives are x and y, divided by it: both are 0 at (0, 0), as for
    abs, and nan to an infinite operand.

    >>> import vgrad
    >>> vgrad.hypot(3, 4)
    5.0
    """


# --- hyperbolic functions ------------------------------------------------------------------------


@by_numpy(np.sinh)
def sinh(x: Any) -> Any:
    """The hyperbolic sine, (exp(x) - exp(-x)) / 2.

    Its derivative is cosh(x).

    >>> import vgrad
    >>> vgrad.sinh(0)
    0.0
    """


@by_numpy(np.cosh)
def cosh(x: Any) -> Any:
    """The hyperbolic cosine, (exp(x) + exp(-x)) / 2.

    Its derivative is sinh(x).

    >>> import vgrad
    >>> vgrad.cosh(0)
    1.0
    """


@by_numpy(np.tanh)
def tanh(x: Any) -> Any:
    """The hyperbolic tangent, sinh(x) / cosh(x).

    Its derivative is 1 - tanh(x)**2.

    >>> import vgrad
    >>> vgrad.tanh(0)
    0.0
    """


@by_numpy(np.arcsinh)
def arcsinh(x: Any) -> Any:
    """The number whose hyperbolic sine is x, log(x + sqrt(x**2 + 1)).

    Its derivative is 1 / sqrt(x**2 + 1).

    >>> import vgrad
    >>> vgrad.arcsinh(0)
    0.0
    """


@by_numpy(np.arccosh)
def arccosh(x: Any) -> Any:
    """The number >= 0 whose hyperbolic cosine is x, log(x + sqrt(x**2 - 1)); nan below 1.

    Its derivative is 1 / sqrt(x**2 - 1), inf at 1.

    >>> import vgrad
    >>> vgrad.arccosh(1)
    0.0
    """


@by_numpy(np.arctanh)
def arctanh(x: Any) -> Any:
    """The number whose hyperbolic tangent is x: -inf and inf at -1 and 1, nan beyond.

    Its derivative is 1 / (1 - x**2), inf at -1 and 1.

    >>> import vgrad
    >>> vgrad.arctanh(0)
    0.0
    """
