"""The gamma function's logarithm and its derivatives, of plain numbers and arrays.

IEEE 754 at the edges, as in scipy.special, and errors of at most 4 ulp; near their negative zeros
lgamma and digamma have 15 digits after the point, digamma down to -25. Rows of `ops` add the
derivatives. A&S is Abramowitz & Stegun, 1964.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .numbers import Rule
from .pieces import Polynomial, by_order, elementwise, least, pieces, reflect, two_product, whole

if TYPE_CHECKING:
    from .signatures import Numbers

# --- lgamma and digamma ---------------------------------------------------------------------------

# Coefficients in t = (x - a) / (x + a) of Chebyshev interpolants for x from 0.7 to 6.5, by mpmath
# with 60 digits: of lgamma(x) / ((x - 1) t), a = 2, and of digamma(x) x / (x - x0), a = 4.
# fmt: off
_LGAMMA = Polynomial(0.55950613625, -0.00100702988, -0.48826214549, 0.005112628735, 0.416347150767,
    -0.0001013773994, -0.026222756231, 0.0022387446297, 0.1308824951527, 0.0024638036626,
    0.10943575552942, 0.00298488589083, 0.129392361491297, 0.00387891163869, 0.14793398986709,
    0.005161055010364, 0.173786974667967, 0.0072225789858292, 0.2105578180601894,
    0.0108243189600236, 0.267253356127501, 0.01796045635148992, 0.3665860183800476,
    0.034833777783485655, 0.5907437265685862, 0.08606051360420651, 1.6911373403938685)
_DIGAMMA = Polynomial(0.001515823214394, 0.0086908411578425, 0.023966876412123, 0.042407586314269,
    0.0563093416520566, 0.0631486658433194, 0.0669146051313462, 0.0705055738878732,
    0.0761026351972419, 0.08160722281022673, 0.09023954358466728, 0.09692884548193674,
    0.11115684189852294, 0.11858789918424087, 0.14558180407935786, 0.1512862648999372,
    0.21175923578834438, 0.20658896355649659, 0.3790987432584572, 0.3261208183065111,
    1.2984706127248562, 1.9794099833747612)
# fmt: on

# Bernoulli numbers B2, B4, ..., A&S table 23.2
_BERNOULLI = [
    *(1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798),
    *(-174611 / 330, 854513 / 138, -236364091 / 2730, 8553103 / 6, -23749461029 / 870),
]
_STIRLING = Polynomial(
    *[b / ((2 * k + 2) * (2 * k + 1)) for k, b in enumerate(_BERNOULLI[:12])][::-1]
)
_LOG_SERIES = Polynomial(*[-b / (2 * k + 2) for k, b in enumerate(_BERNOULLI[:12])][::-1])
_PI_LOW = 1.2246467991473532e-16  # pi - math.pi
_WHOLE = 2.0**53  # from here on every float is a whole number, so a pole if it is negative


@elementwise
def lgamma(x: Any) -> Any:
    """The logarithm of |gamma(x)|, where gamma(n + 1) is n!: inf at 0, -1, -2, ...

    Its derivative is digamma(x): -inf at 0, nan at -1, -2, ... SciPy calls it gammaln.

    Computed by a Chebyshev interpolant from 0.8 to 6.5, by Stirling's series A&S 6.1.41 above, and
    by recurrence and reflection below.

    >>> import vgrad
    >>> vgrad.lgamma(1), vgrad.lgamma(2), vgrad.lgamma(0)
    (0.0, 0.0, inf)
    """
    return pieces(
        x,
        (6.5, _lgamma_large),
        (-0.25, lambda x: _middle(x, _lgamma_base, lambda x: np.log(abs(x)))),
        (-25.0, _lgamma_product),
        (-math.inf, _lgamma_reflected),
    )


def _lgamma_large(x: Any) -> Any:
    """Stirling's series, A&S 6.1.41, arranged as in fdlibm."""
    w = _STIRLING(1.0 / (x * x))
    w /= x
    return (x - 0.5) * (np.log(x) - 1.0) + (w + 0.4189385332046727)  # (log(2 pi) - 1) / 2


def _middle(x: Any, base: Rule, pole: Rule) -> Any:
    """base(x) from 0.8 to 6.5, and base(1 + x) - pole(x) from -0.25 to 0.8."""
    near = x < 0.8
    out = base(x + near)
    if not isinstance(x, np.ndarray):
        return out - pole(x) if near else out
    if near.any():
        out[near] -= pole(x[near])
    return out


def _lgamma_base(x: Any) -> Any:
    t = (x - 2.0) / (x + 2.0)
    return (x - 1.0) * t * _LGAMMA(t) + 0.0  # not -0.0 at 1


def _lgamma_product(x: Any) -> Any:
    """From -25 to -0.25: log(gamma(y) / (x (x + 1) ... (y - 1))), y = x + n between 0.7 and 1.7.

    The product carries its rounding error along, and its factors are exact: so near the zeros,
    where the product is near gamma(y), little is lost.
    """
    product, error, y = x, 0.0 * x, x + 1.0
    while (y.min() if isinstance(x, np.ndarray) else y) < 0.7:
        low = y < 0.7
        factor = np.where(low, y, 1.0) if isinstance(x, np.ndarray) else y
        product, rounding = two_product(product, factor)
        error = error * factor + rounding
        y = y + low
    return _lgamma_base(y) - (np.log(abs(product)) + error / (product + 5e-324))  # no 0 / 0


def _lgamma_reflected(x: Any) -> Any:
    """Below -25: A&S 6.1.17."""
    z = least(-x, _WHOLE)
    sine = np.sin(math.pi * abs(z - whole(z)))
    return -np.log(z * sine / math.pi) - _lgamma_large(z)


@elementwise
def digamma(x: Any) -> Any:
    """The derivative of lgamma(x): -inf at 0, nan at -1, -2, ...

    Its derivative is polygamma(1, x), which is inf there. SciPy calls it psi too.

    Computed by a Chebyshev interpolant from 0.8 to 6.5, by the series A&S 6.3.18 above, and by
    recurrence and reflection, A&S 6.3.7, below.

    >>> import vgrad
    >>> round(vgrad.digamma(1), 12)  # minus Euler's constant
    -0.577215664902
    """
    return pieces(
        x,
        (6.5, _digamma_large),
        (-0.25, lambda x: _middle(x, _digamma_base, lambda x: 1.0 / x)),
        (-5.5, lambda x: _digamma_base(1.0 - x) - _pi_cot(x)),  # A&S 6.3.7
        (-math.inf, lambda x: _digamma_large(1.0 - x, _pi_cot(-least(-x, _WHOLE)))),
    )


def _digamma_large(x: Any, less: Any = 0.0) -> Any:
    """digamma(x) - less by A&S 6.3.18; the largest terms may cancel, so they come first."""
    w = 1.0 / (x * x)
    return (np.log(x) - less) - (0.5 / x - _LOG_SERIES(w) * w)


def _digamma_base(x: Any) -> Any:
    zero = (x - 1.4616321449683622) - 9.549995429965697e-17
    return zero / x * _DIGAMMA((x - 4.0) / (x + 4.0))


def _pi_cot(x: Any) -> Any:
    """pi / tan(pi x), with what is lost by rounding pi x and pi; nan at the poles."""
    r = x - whole(x)
    angle, error = two_product(r, math.pi)
    error += r * _PI_LOW
    cot = math.pi / np.tan(angle)
    turn = cot / math.pi
    return cot + (turn * _PI_LOW - error * (math.pi + cot * turn))


# --- polygamma ------------------------------------------------------------------------------------


@cache
def _order(n: int) -> tuple[float, Polynomial, float, float, float, float]:
    """From which x on the series A&S 6.4.11 will do, its coefficients divided by n!, and scales.

    Neither n! nor a power of x need be a float where their product is one: so x is multiplied by a
    scale, a power of 2, and n! by the same power of that. There are two: for results that may be
    large, with a factor that is at least 1, and for small ones, with a factor that is at most 1.
    """
    factorial, bits = math.factorial, math.log2(math.factorial(n))
    series = [
        b * (factorial(2 * k + n + 1) / (factorial(2 * k + 2) * factorial(n)))
        for k, b in enumerate(_BERNOULLI)
    ]
    limit = (abs(series.pop()) * n * 2.0**56) ** (0.5 / len(_BERNOULLI))
    p, q = math.floor(bits / (n + 1)), math.ceil(bits / n)
    factors = math.ldexp(factorial(n), -p * (n + 1)), math.ldexp(factorial(n), -q * n)
    return limit, Polynomial(*series[::-1], 1 / n), 0.5**p, factors[0], 0.5**q, factors[1]


def polygamma(n: Numbers, x: Numbers) -> Any:
    """The n-th derivative of digamma(x); nan unless n is a whole number from 0 to 170.

    At 0, -1, -2, ... it is inf where n is odd, and -inf where n is even, but not 0. Its derivative
    to x is polygamma(n + 1, x), and it has none to n.

    Computed for n to 170 by the series A&S 6.4.11 and terms of the sum 6.4.10.

    >>> import vgrad
    >>> round(vgrad.polygamma(1, 1), 12)  # pi**2 / 6
    1.644934066848
    """
    return by_order(_polygamma, 170, n, x)


@cache
def _polygamma(n: int) -> Rule:
    if n == 0:
        return digamma
    sign, rules = (-1.0) ** (n + 1), ((0.0, partial(_zeta, n)), (-math.inf, partial(_negative, n)))
    return elementwise(lambda x: sign * pieces(x, *rules))


def _zeta(n: int, x: Any) -> Any:
    """n! zeta(n + 1, x) for x >= 0."""
    limit, _, _, _, scale, factor = _order(n)
    large = (limit, lambda x: _zeta_series(n, x, scale) * factor)
    return pieces(x, large, (0.0, lambda x: _zeta_small(n, x)))


def _zeta_small(n: int, x: Any) -> Any:
    """Terms of the sum, smallest first, on top of the series for the rest."""
    limit, _, scale, factor, _, _ = _order(n)
    total = _zeta_series(n, x + float(math.ceil(limit)), scale) * (factor / scale)
    for k in range(math.ceil(limit) - 1, 0, -1):
        y = x + float(k)
        total += _term(n, y) * (1.0 - ((x - y) + k) * (n + 1.0) / y)  # as in _at_sum
    return total + _term(n, x + 0.0)


def _zeta_series(n: int, x: Any, scale: float) -> Any:
    """(scale x)^-n (1 / n + 1 / (2 x) + ...)."""
    series = _order(n)[1](1.0 / (x * x)) + 0.5 / x
    return _power(scale * x, -n) * series


def _term(n: int, x: Any) -> Any:
    """n! x^-(n + 1)."""
    _, _, scale, factor, _, _ = _order(n)
    return _power(scale * x, -n - 1) * factor


def _power(x: Any, exponent: int) -> Any:
    if exponent == -1:  # here NumPy may or may not take a short cut, as the layout is
        return 1.0 / x
    power = np.power(x, float(exponent))
    return float(power) if isinstance(power, float) else power


def _at_sum(rule: Rule, n: int, a: Any, b: Any) -> Any:
    """rule(a + b), with what rounding a + b does to it, if it is about as x^-(n + 1)."""
    x = a + b
    return rule(n, x) * (1.0 - ((a - x) + b) * (n + 1.0) / x)


def _negative(n: int, x: Any) -> Any:
    """n! zeta(n + 1, x) for x < 0, from the sum over all whole k of (x + k)^-(n + 1).

    The two terms next to x come first: where n is even they have opposite signs and are as good
    as equal at the zeros, so their difference is taken with care.
    """
    x = -least(-x, _WHOLE)
    r = x - whole(x)
    q = abs(r)
    near, zeta = _term(n, q), partial(_at_sum, _zeta, n)
    if n % 2:
        near = near + _at_sum(_term, n, 1.0, -q)
        return near + zeta(1.0, q) + zeta(2.0, -q) - zeta(1.0, -x)
    near *= -np.expm1((n + 1.0) * np.log1p(-(1.0 - 2.0 * q) / (1.0 - q)))
    return reflect(near + (zeta(1.0, q) - zeta(2.0, -q)), r, 0.0) + zeta(1.0, -x)
