"""Special functions of floats and NumPy arrays: erf, the normal cdf, lgamma, polygamma.

Each gives a number the same bits, alone or anywhere in an array: the arithmetic is elementwise, and
what a number's path is depends on that number only. Nothing warns or raises; IEEE 754 at the edges,
as in scipy.special. Numbers in sources: A&S is Abramowitz & Stegun, Handbook of Mathematical
Functions, 1964.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import numpy as np

Rule = Callable[..., Any]

_IN_CACHE = 8192  # about so many numbers at a time

# --- numbers and arrays alike ---------------------------------------------------------------------


def _elementwise(rule: Rule) -> Rule:
    """`rule`, written for floats and one-dimensional float64 arrays, as a function of any array."""

    @wraps(rule)
    def function(x: Any) -> Any:
        with np.errstate(all="ignore"):
            if not isinstance(x, np.ndarray):
                return _number(rule, float(x))
            flat = np.ascontiguousarray(x, np.float64).reshape(-1)
            out = _in_blocks(rule, flat).reshape(x.shape)
            return out.astype(x.dtype) if x.dtype.kind == "f" else out

    return function


def _in_blocks(rule: Rule, x: Any) -> Any:
    blocks = round(x.size / _IN_CACHE)
    if blocks < 2:
        return rule(x)
    return np.concatenate([rule(block) for block in np.array_split(x, blocks)])


def _number(rule: Rule, x: float) -> float:
    try:
        return float(rule(x))
    except ZeroDivisionError:  # Python raises where IEEE 754 has an infinity
        return float(rule(np.array([x]))[0])


def _pieces(x: Any, *pieces: tuple[float, Rule]) -> Any:
    """The rule of the first (bound, rule) with x >= bound, applied to each x; nan for nan."""
    if not isinstance(x, np.ndarray):
        return next((rule(x) for bound, rule in pieces if x >= bound), math.nan)
    out, upper = np.full_like(x, math.nan), math.nan
    for bound, rule in pieces:
        hit = (x >= bound) & ~(x >= upper)
        if hit.all():
            return rule(x)
        where = hit.nonzero()[0]
        if where.size:
            out[where] = rule(x[where])
        upper = bound
    return out


def _least(x: Any, top: float) -> Any:
    return np.minimum(x, top) if isinstance(x, np.ndarray) else min(x, top)


def _whole(x: Any) -> Any:
    """The whole number next to `x`."""
    return np.rint(x) if isinstance(x, np.ndarray) else float(round(x))


def _any(hit: Any) -> bool:
    return bool(hit.any() if isinstance(hit, np.ndarray) else hit)


def _horner(t: Any, coefficients: Sequence[float]) -> Any:
    """The polynomial in `t` with these coefficients, the highest power's first."""
    p = t * coefficients[0]
    for c in coefficients[1:-1]:
        p += c
        p *= t
    p += coefficients[-1]
    return p


def _mapped(x: Any, a: float, coefficients: Sequence[float]) -> Any:
    """A polynomial in t = (x - a) / (x + a), which takes x >= 0 to -1 <= t < 1."""
    t = x - a
    t /= x + a
    return _horner(t, coefficients)


# --- the error function and the normal distribution -----------------------------------------------

# The coefficients in t are of Chebyshev interpolants, computed by mpmath with 60 digits: of
# (1 + x) exp(x^2) erfc(x) for x from 0 to 28.5 and a = 3, as in Shepherd & Laframboise, Math. Comp.
# 36 (1981); of (1 + x) exp(x^2 / 2) ndtr(-x) for x from 0 to 60, a = 4; of
# (1 + x) (1 - exp(x^2) erfc(x)) / x for x from 0 to 3.5, a = 2.5; and for x from 0.7 to 6.5, of
# lgamma(x) / ((x - 1) t), a = 2, and of digamma(x) x / (x - x0), a = 4.
# fmt: off
_ERFCX = (
    -2.014202816606359e-09, -4.6935242003117555e-09, 1.3679343943801649e-08, 4.6563657828891406e-08,
    -4.4434270145937007e-08, -2.8872066875023963e-07, 5.9087235138209344e-08,
    1.5855654026406273e-06, 2.6145151168540813e-07, -8.988642164610154e-06, -1.5146512124851554e-06,
    5.6118949474656674e-05, -2.0551542413478143e-05, -0.0003672883969887244, 0.0006458141921283086,
    0.001618569117165453, -0.009750689291552038, 0.021957764013313726, -0.023803913108738296,
    -0.010235388899027746, 0.09902075367944162, -0.23092733308380903, 0.7160046047255598,
)
_MILLS = (
    -8.93384567401378e-10, -1.7610354878106501e-09, 6.5266616458691196e-09, 1.8460198937243853e-08,
    -2.0157532516730564e-08, -1.1230549739964382e-07, 1.4561694181401163e-09, 5.531879029815464e-07,
    4.046638888356961e-07, -2.6135866394064523e-06, -3.4323486320560418e-06, 1.362712252825933e-05,
    2.1250111632059958e-05, -8.785324517007047e-05, -9.443026881674167e-05, 0.000694897114019243,
    -0.000285623095908983, -0.005002378591903903, 0.01793609747952013, -0.03219783742804514,
    0.028600364053555972, 0.01399963472442465, -0.09670347732652586, 0.47205320650984467,
)
_ERF = (
    7.029053415747313e-08, 6.567546673106251e-07, 2.490801546996252e-06, 3.7722604596381213e-06,
    -3.3312654955316263e-06, -1.7506920190436495e-05, 1.2257808769927882e-05,
    0.00011297265940294296, -6.957796748124438e-05, -0.0007757079612000251, 0.0011348452947347988,
    0.004960687796114983, -0.023323029589980334, 0.04245130631224933, -0.018432948912533463,
    -0.110923481222522, 1.104871090314399,
)
_LGAMMA = (
    0.5595061362454975, -0.0010070298809513518, -0.48826214549072655, 0.0051126287352902785,
    0.41634715076686774, -0.00010137739944570278, -0.02622275623107126, 0.0022387446296802628,
    0.13088249515268552, 0.0024638036625808193, 0.10943575552941752, 0.002984885890833336,
    0.12939236149129676, 0.003878911638688673, 0.1479339898670908, 0.005161055010363877,
    0.1737869746679669, 0.007222578985829247, 0.21055781806018936, 0.010824318960023609,
    0.267253356127501, 0.01796045635148992, 0.3665860183800476, 0.034833777783485655,
    0.5907437265685862, 0.08606051360420651, 1.6911373403938685,
)
_DIGAMMA = (
    0.0015158232143941553, 0.008690841157842508, 0.023966876412122893, 0.04240758631426904,
    0.05630934165205658, 0.06314866584331945, 0.06691460513134624, 0.07050557388787324,
    0.0761026351972419, 0.08160722281022673, 0.09023954358466728, 0.09692884548193674,
    0.11115684189852294, 0.11858789918424087, 0.14558180407935786, 0.1512862648999372,
    0.21175923578834438, 0.20658896355649659, 0.3790987432584572, 0.3261208183065111,
    1.2984706127248562, 1.9794099833747612,
)
# fmt: on


def _tail(z: Any, a: float, coefficients: Sequence[float]) -> Any:
    """The polynomial of a function from 0 to infinity that falls as 1 / (1 + z)."""
    g = _mapped(z, a, coefficients)
    g /= 1.0 + z
    return g


def _gauss(z: Any, minus_half: float) -> Any:
    """exp(minus_half z^2) for 0 <= z <= 40: the rounding error of z^2, times z^2, would be seen."""
    square = z * z
    head = z + 1.5 * 2.0**32  # z to 20 bits after the point, so that its square is exact
    head -= 1.5 * 2.0**32
    error = z - head
    error *= z + head
    error += head * head - square
    e = np.exp(square * minus_half)
    e += e * (error * minus_half)
    return e


def _reflect(q: Any, x: Any, total: float) -> Any:
    """`q`, or total - q where x is negative. NumPy's `where` is slower where signs are mixed."""
    if not isinstance(x, np.ndarray):
        return total - q if x < 0 else q
    side = np.copysign(0.5 * total, x)
    return (0.5 * total - side) + np.copysign(q, x)


@_elementwise
def erf(x: Any) -> Any:
    """The error function: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.

    >>> erf(0.0), erf(-7.0)
    (0.0, -1.0)
    """
    z = _least(abs(x), 6.0)
    m = np.expm1(-z * z)
    s = _tail(z, 2.5, _ERF)
    s *= z
    s *= 1.0 + m  # erf(z) = (1 - exp(-z^2)) + exp(-z^2) (1 - exp(z^2) erfc(z)): no cancellation
    s -= m
    return np.copysign(s, x) if isinstance(x, np.ndarray) else math.copysign(s, x)


@_elementwise
def erfc(x: Any) -> Any:
    """1 - erf(x), with all digits where that is small.

    >>> erfc(0.0), erfc(np.array([-7.0, 1e-20]))
    (1.0, array([2., 1.]))
    """
    z = _least(abs(x), 28.0)
    return _reflect(_gauss(z, -1.0) * _tail(z, 3.0, _ERFCX), x, 2.0)


@_elementwise
def ndtr(x: Any) -> Any:
    """The cumulative distribution function of the standard normal distribution.

    >>> ndtr(0.0), ndtr(-50.0)
    (0.5, 0.0)
    """
    return _reflect(_upper_tail(abs(x)), -x, 1.0)


def _upper_tail(x: Any) -> Any:
    """ndtr(-x) for x >= 0."""
    z = _least(x, 40.0)
    return _gauss(z, -0.5) * _tail(z, 4.0, _MILLS)


_ROOT_2 = math.sqrt(2.0)
# Of sqrt(pi) x exp(x^2) erfc(x) in 1 / (2 x^2), A&S 7.1.23: from 28 on these are enough.
_FAR = (-10395.0, 945.0, -105.0, 15.0, -3.0, 1.0)
_ONE_BY_ROOT_PI = 1.0 / math.sqrt(math.pi)


@_elementwise
def erfcx(x: Any) -> Any:
    """exp(x**2) * erfc(x)."""
    return _pieces(
        x,
        (28.0, lambda x: (1.0 - _horner(0.5 / x / x, _FAR) * (0.5 / x / x)) * _ONE_BY_ROOT_PI / x),
        (0.0, lambda x: 2.0 * _tail(_ROOT_2 * x, 4.0, _MILLS)),
        (
            -26.628735713751,
            lambda x: 2.0 * _gauss(-x, 1.0) - 2.0 * _tail(-_ROOT_2 * x, 4.0, _MILLS),
        ),
        (-math.inf, lambda x: x * x * math.inf),
    )


@_elementwise
def log_ndtr(x: Any) -> Any:
    """log(ndtr(x)), also where ndtr(x) is 0 or 1.

    >>> log_ndtr(-1e10), log_ndtr(50.0)
    (-5e+19, -0.0)
    """
    return _pieces(x, (0.0, lambda x: np.log1p(-_upper_tail(x))), (-math.inf, _log_tail))


def _log_tail(x: Any) -> Any:
    z = _least(-x, 1e18)  # beyond, x^2 / 2 is all
    return np.log(_tail(z, 4.0, _MILLS)) - (0.5 * x) * x


# --- lgamma and digamma ---------------------------------------------------------------------------

# Bernoulli numbers B2, B4, ..., A&S table 23.2
_BERNOULLI = [
    *(1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798),
    *(-174611 / 330, 854513 / 138, -236364091 / 2730, 8553103 / 6, -23749461029 / 870),
]
_STIRLING = [b / ((2 * k + 2) * (2 * k + 1)) for k, b in enumerate(_BERNOULLI[:12])][::-1]
_LOG_SERIES = [-b / (2 * k + 2) for k, b in enumerate(_BERNOULLI[:12])][::-1]
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_PI_LOW = 1.2246467991473532e-16  # pi - math.pi
_WHOLE = 2.0**53  # from here on every float is a whole number, so a pole if it is negative


@_elementwise
def lgamma(x: Any) -> Any:
    """The logarithm of the absolute value of the gamma function.

    >>> lgamma(2.0), lgamma(-1.0)
    (0.0, inf)
    """
    return _pieces(
        x,
        (6.5, _lgamma_large),
        (-0.25, lambda x: _middle(x, _lgamma_base, lambda x: np.log(abs(x)))),
        (-25.0, _lgamma_product),
        (-math.inf, _lgamma_reflected),
    )


def _lgamma_large(x: Any) -> Any:
    """Stirling's series, A&S 6.1.41, arranged as in fdlibm."""
    w = _horner(1.0 / (x * x), _STIRLING)
    w /= x
    w += _HALF_LOG_2PI - 0.5
    return (x - 0.5) * (np.log(x) - 1.0) + w


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
    return (x - 1.0) * t * _horner(t, _LGAMMA) + 0.0  # not -0.0 at 1


def _lgamma_product(x: Any) -> Any:
    """From -25 to -0.25: log(gamma(y) / (x (x + 1) ... (y - 1))), y = x + n between 0.7 and 1.7.

    The product carries its rounding error along, and its factors are exact: so near the zeros,
    where the product is near gamma(y), little is lost.
    """
    product, error, y = x, 0.0 * x, x + 1.0
    while _any(low := y < 0.7):
        factor = np.where(low, y, 1.0) if isinstance(x, np.ndarray) else y
        product, rounding = _two_product(product, factor)
        error = error * factor + rounding
        y = y + low
    return _lgamma_base(y) - (np.log(abs(product)) + error / (product + 5e-324))


def _two_product(x: Any, y: Any) -> tuple[Any, Any]:
    """x * y, and its rounding error: Dekker, Numer. Math. 18 (1971)."""
    (a, b), (c, d), product = _split(x), _split(y), x * y
    return product, ((a * c - product) + a * d + b * c) + b * d


def _split(x: Any) -> tuple[Any, Any]:
    high = x * 134217729.0
    high = high - (high - x)
    return high, x - high


def _lgamma_reflected(x: Any) -> Any:
    """A&S 6.1.17."""
    z = _least(-x, _WHOLE)
    sine = np.sin(math.pi * abs(z - _whole(z)))
    return -np.log(z * sine / math.pi) - _lgamma_large(z)


@_elementwise
def digamma(x: Any) -> Any:
    """The derivative of lgamma.

    >>> digamma(np.array([1.0, 0.0, -1.0]))
    array([-0.57721566,        -inf,         nan])
    """
    return _pieces(
        x,
        (6.5, _digamma_large),
        (-0.25, lambda x: _middle(x, _digamma_base, lambda x: 1.0 / x)),
        (-5.5, lambda x: _digamma_base(1.0 - x) - _pi_cot(x)),  # A&S 6.3.7
        (-math.inf, lambda x: _digamma_large(1.0 - x, _pi_cot(-_least(-x, _WHOLE)))),
    )


def _digamma_large(x: Any, less: Any = 0.0) -> Any:
    """digamma(x) - less by A&S 6.3.18; the largest terms may cancel, so they come first."""
    w = 1.0 / (x * x)
    return (np.log(x) - less) - (0.5 / x - _horner(w, _LOG_SERIES) * w)


def _digamma_base(x: Any) -> Any:
    zero = (x - 1.4616321449683622) - 9.549995429965697e-17
    return zero / x * _mapped(x, 4.0, _DIGAMMA)


def _pi_cot(x: Any) -> Any:
    """pi / tan(pi x), with what is lost by rounding pi x and pi; nan at the poles."""
    r = x - _whole(x)
    angle, error = _two_product(r, math.pi)
    error += r * _PI_LOW
    cot = math.pi / np.tan(angle)
    turn = cot / math.pi
    return cot + (turn * _PI_LOW - error * (math.pi + cot * turn))


# --- polygamma ------------------------------------------------------------------------------------


class _Order(NamedTuple):
    """What the polygamma function of an order n needs: n! zeta(n + 1, x), up to its sign.

    Neither n! nor a power of x need be a float where their product is one: so x is multiplied by a
    scale, a power of 2, and n! is divided by its powers. Two of them: for results that are large,
    with a factor that is at least 1, and for small ones, with a factor that is at most 1.
    """

    n: float
    limit: float  # from this x on the asymptotic series will do
    series: tuple[float, ...]
    scale: float
    factor: float  # n! scale^(n + 1)
    small_scale: float
    small_factor: float  # n! small_scale^n


@cache
def _order(n: int) -> _Order:
    """The asymptotic series is A&S 6.4.11, divided by n!; its last term says where it will do."""
    factorial, bits = math.factorial, math.log2(math.factorial(n))
    series = [
        b * (factorial(2 * k + n + 1) / (factorial(2 * k + 2) * factorial(n)))
        for k, b in enumerate(_BERNOULLI)
    ]
    limit = (abs(series.pop()) * n * 2.0**56) ** (0.5 / len(_BERNOULLI))
    p, q = math.floor(bits / (n + 1)), math.ceil(bits / n)
    factors = math.ldexp(factorial(n), -p * (n + 1)), math.ldexp(factorial(n), -q * n)
    return _Order(n, limit, (*series[::-1], 1 / n), 0.5**p, factors[0], 0.5**q, factors[1])


def polygamma(n: Any, x: Any) -> Any:
    """The n-th derivative of digamma; nan unless n is a whole number from 0 to 170.

    >>> polygamma(2, np.array([1.0, 0.0])), polygamma(0.5, 1.0)
    (array([-2.40411381,        -inf]), nan)
    """
    if isinstance(n, np.ndarray):
        n, x = np.broadcast_arrays(n, x)
        if not n.size or (n != n.flat[0]).any():
            return _mixed_orders(n, x)
        n = n.flat[0]
    return _polygamma(int(n) if 0 <= n <= 170 and n == int(n) else None)(x)


def _mixed_orders(n: Any, x: Any) -> Any:
    out = np.full(x.shape, math.nan, x.dtype if x.dtype.kind == "f" else np.float64)
    for order in np.unique(n[n == n]):
        hit = n == order
        out[hit] = polygamma(order, x[hit])
    return out


@cache
def _polygamma(n: int | None) -> Rule:
    """The polygamma function of this order."""
    if n is None:
        return _elementwise(lambda x: x * math.nan)
    if n == 0:
        return digamma
    order, sign = _order(n), 1.0 if n % 2 else -1.0
    positive, negative = partial(_zeta, order), partial(_zeta_reflected, order)
    return _elementwise(lambda x: sign * _pieces(x, (0.0, positive), (-math.inf, negative)))


def _zeta(order: _Order, x: Any) -> Any:
    """n! zeta(n + 1, x) for x >= 0."""
    return _pieces(
        x, (order.limit, partial(_zeta_large, order)), (0.0, partial(_zeta_small, order))
    )


def _zeta_large(order: _Order, x: Any) -> Any:
    return _zeta_series(order, x, order.small_scale) * order.small_factor


def _zeta_series(order: _Order, x: Any, scale: float) -> Any:
    """(scale x)^-n (1 / n + 1 / (2 x) + ...)."""
    series = _horner(1.0 / (x * x), order.series) + 0.5 / x
    return _power(scale * x, -order.n) * series


def _power(x: Any, exponent: float) -> Any:
    if exponent == -1.0:  # here NumPy may or may not take a short cut, as the layout is
        return 1.0 / x
    return np.power(x, exponent) if isinstance(x, np.ndarray) else float(np.power(x, exponent))


def _zeta_small(order: _Order, x: Any) -> Any:
    """Terms of the sum, smallest first, on top of the series for the rest."""
    terms, s = math.ceil(order.limit), order.n + 1.0
    total = _zeta_series(order, x + float(terms), order.scale) * (order.factor / order.scale)
    for k in range(terms - 1, 0, -1):
        y = x + float(k)
        total += _scaled_power(order, y) * (1.0 - ((x - y) + k) * s / y)  # as in _at_sum
    return total + _scaled_power(order, x + 0.0)


def _scaled_power(order: _Order, x: Any) -> Any:
    """n! x^-(n + 1)."""
    return _power(order.scale * x, -order.n - 1.0) * order.factor


def _at_sum(rule: Rule, order: _Order, a: Any, b: Any) -> Any:
    """rule(a + b), with what rounding a + b does to it, if it is about as x^-(n + 1)."""
    x = a + b
    return rule(x) * (1.0 - ((a - x) + b) * (order.n + 1.0) / x)


def _zeta_reflected(order: _Order, x: Any) -> Any:
    """n! zeta(n + 1, x) for x < 0, from the sum over all whole k of (x + k)^-(n + 1).

    The two terms next to x come first: where n is even they have opposite signs and are as good
    as equal at the zeros, so their difference is taken with care.
    """
    x, s = -_least(-x, _WHOLE), order.n + 1.0
    r = x - _whole(x)
    q = abs(r)
    near, zeta = _scaled_power(order, q), partial(_at_sum, partial(_zeta, order), order)
    if order.n % 2:
        far = _at_sum(partial(_scaled_power, order), order, 1.0, -q)
        return near + far + zeta(1.0, q) + zeta(2.0, -q) - zeta(1.0, -x)
    near *= -np.expm1(s * np.log1p(-(1.0 - 2.0 * q) / (1.0 - q)))
    return _reflect(near + (zeta(1.0, q) - zeta(2.0, -q)), r, 0.0) + zeta(1.0, -x)


FUNCTIONS = ("erf", "erfc", "erfcx", "ndtr", "log_ndtr", "lgamma", "digamma", "polygamma")
