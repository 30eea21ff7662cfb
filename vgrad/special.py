"""The error function and the normal distribution, of plain numbers and arrays.

IEEE 754 at the edges, as in scipy.special, and errors of at most 4 ulp, in the tails too. Rows of
`ops` add the derivatives. `gamma` has the other special functions. A&S is Abramowitz & Stegun,
1964.
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import numpy as np

from .gamma import digamma as digamma
from .gamma import lgamma as lgamma
from .gamma import polygamma as polygamma
from .numbers import Rule
from .pieces import Polynomial, by_order, elementwise, least, pieces, reflect, with_sign

# Coefficients in t = (x - a) / (x + a) of Chebyshev interpolants, by mpmath with 60 digits: of
# (1 + x) exp(x^2) erfc(x) for x from 0 to 28.5 and a = 3, as in Shepherd & Laframboise, Math. Comp.
# 36 (1981); of (1 + x) exp(x^2 / 2) ndtr(-x) for x from 0 to 60, a = 4; of
# (1 + x) (1 - exp(x^2) erfc(x)) / x for x from 0 to 3.5, a = 2.5.
# fmt: off
_ERFCX = Polynomial(
    -2.014202817e-9, -4.6935242e-9, 1.3679343944e-8, 4.6563657829e-8, -4.4434270146e-8,
    -2.8872066875e-7, 5.9087235138e-8, 1.585565402641e-6, 2.614515116854e-7, -8.98864216461e-6,
    -1.514651212485e-6, 5.6118949474657e-5, -2.0551542413478e-5, -0.000367288396988724,
    0.0006458141921283086, 0.001618569117165453, -0.009750689291552038, 0.021957764013313726,
    -0.023803913108738296, -0.010235388899027746, 0.09902075367944162, -0.23092733308380903,
    0.7160046047255598)
_MILLS = Polynomial(
    -8.933845674e-10, -1.761035488e-9, 6.526661646e-9, 1.8460198937e-8, -2.0157532517e-8,
    -1.123054974e-7, 1.456169418e-9, 5.531879029815e-7, 4.04663888836e-7, -2.6135866394065e-6,
    -3.432348632056e-6, 1.3627122528259e-5, 2.125011163206e-5, -8.78532451700705e-5,
    -9.4430268816742e-5, 0.000694897114019243, -0.000285623095908983, -0.005002378591903903,
    0.01793609747952013, -0.03219783742804514, 0.028600364053555972, 0.01399963472442465,
    -0.09670347732652586, 0.47205320650984467)
_ERF = Polynomial(
    7.02905341575e-8, 6.56754667311e-7, 2.490801546996e-6, 3.772260459638e-6,
    -3.331265495532e-6, -1.75069201904365e-5, 1.2257808769928e-5, 0.000112972659402943,
    -6.9577967481244e-5, -0.000775707961200025, 0.001134845294734799, 0.004960687796114983,
    -0.023323029589980334, 0.04245130631224933, -0.018432948912533463, -0.110923481222522,
    1.104871090314399)
# fmt: on


def _tail(z: Any, a: float, polynomial: Polynomial) -> Any:
    """A polynomial in t = (z - a) / (z + a), over 1 + z; for z >= 0."""
    t = z - a
    t /= z + a
    g = polynomial(t)
    g /= 1.0 + z
    return g


def _gauss(z: Any, minus_half: float) -> Any:
    """exp(minus_half z^2) for 0 <= z <= 40: the rounding error of z^2, times z^2, would be seen."""
    square = z * z
    head = z + 1.5 * 2.0**32  # z to 20 bits after the point, so that its square is exact
    head -= 1.5 * 2.0**32
    error = z - head
    error *= z + head
    head *= head
    head -= square
    error += head
    error *= minus_half
    square *= minus_half
    e = np.exp(square)
    error *= e
    e += error
    return e


@elementwise
def erf(x: Any) -> Any:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x.

    Its derivative is 2 / sqrt(pi) * exp(-x**2).

    Computed by a Chebyshev interpolant of (1 - exp(x**2) * erfc(x)) / x, as in Shepherd &
    Laframboise, Math. Comp. 36 (1981).

    >>> import vgrad
    >>> vgrad.erf(0), vgrad.erf(30)
    (0.0, 1.0)
    """
    z = least(abs(x), 6.0)
    m = np.expm1(-z * z)
    s = _tail(z, 2.5, _ERF)
    s *= z
    s *= 1.0 + m  # erf(z) = (1 - exp(-z^2)) + exp(-z^2) (1 - exp(z^2) erfc(z)): no cancellation
    s -= m
    return with_sign(s, x)


@elementwise
def erfc(x: Any) -> Any:
    """1 - erf(x), accurate even where it is small; 0 above 27.3.

    Its derivative is -2 / sqrt(pi) * exp(-x**2).

    Computed by one polynomial, a Chebyshev interpolant as in Shepherd & Laframboise,
    Math. Comp. 36 (1981), times an exact exp(-x**2).

    >>> import vgrad
    >>> vgrad.erfc(0), vgrad.erfc(-30)
    (1.0, 2.0)
    """
    z = least(abs(x), 28.0)
    return reflect(_gauss(z, -1.0) * _tail(z, 3.0, _ERFCX), x, 2.0)


@elementwise
def erfcx(x: Any) -> Any:
    """exp(x**2) * erfc(x), which falls as slowly as 1 / x; inf below -26.7.

    Its derivative is 2 * x * erfcx(x) - 2 / sqrt(pi).

    Computed by the interpolant that ndtr has, and from 28 on by the series A&S 7.1.23.

    >>> import vgrad
    >>> vgrad.erfcx(0)
    1.0
    """
    return pieces(
        x,
        (28.0, _erfcx_large),
        (0.0, lambda x: 2.0 * _mills(_ROOT_2 * x)),
        (-26.628735713751, lambda x: 2.0 * (_gauss(-x, 1.0) - _mills(-_ROOT_2 * x))),
        (-math.inf, lambda x: x * x * math.inf),
    )


def _erfcx_large(x: Any) -> Any:
    w = 0.5 / x / x
    return (1.0 - _FAR(w) * w) / math.sqrt(math.pi) / x


_ROOT_2 = math.sqrt(2.0)
_FAR = Polynomial(
    -10395.0, 945.0, -105.0, 15.0, -3.0, 1.0
)  # of sqrt(pi) x erfcx(x), in 1 / (2 x^2)


def ierfcx(n: Any, x: Any) -> Any:
    """exp(x**2) times the n-th repeated integral of erfc from x to infinity; erfcx where n is 0.

    Its derivative is -2 * (n + 1) * ierfcx(n + 1, x): so those of erfcx are found, of every order.

    Computed from 2 on by a continued fraction for the ratio of two of them, Gautschi, SIAM Rev. 9
    (1967), and by the recurrence A&S 7.2.5 below.

    >>> ierfcx(0, 0.5) == erfcx(0.5)
    True
    """
    return by_order(_ierfcx, 170, n, x)


@cache
def _ierfcx(n: int) -> Rule:
    if n == 0:
        return erfcx
    return elementwise(
        lambda x: pieces(
            x, (2.0, partial(_by_fraction, n)), (-math.inf, partial(_by_recurrence, n))
        )
    )


def _by_fraction(n: int, x: Any) -> Any:
    ratio, product = 0.0, erfcx(x)
    for k in range(n + 80, 0, -1):  # enough at 2
        ratio = 1.0 / (2.0 * x + 2.0 * (k + 1.0) * ratio)
        if k <= n:
            product = product * ratio
    return product


def _by_recurrence(n: int, x: Any) -> Any:
    before, last = 2.0 / math.sqrt(math.pi), erfcx(x)
    for k in range(1, n + 1):
        before, last = last, (before - 2.0 * x * last) / (2.0 * k)
    return last


@elementwise
def ndtr(x: Any) -> Any:
    """The normal distribution: the probability that a standard normal number is at most x.

    It is erfc(-x / sqrt(2)) / 2, accurate even where it is small; 0 below -38.6. Its
    derivative is exp(-x**2 / 2) / sqrt(2 * pi), the density.

    Computed by Chebyshev interpolants of exp(x**2 / 2) * ndtr(-x), as in Shepherd & Laframboise,
    Math. Comp. 36 (1981), times an exact exp(-x**2 / 2).

    >>> import vgrad
    >>> vgrad.ndtr(0), vgrad.ndtr(40)
    (0.5, 1.0)
    """
    return reflect(_upper_tail(abs(x)), -x, 1.0)


def _upper_tail(x: Any) -> Any:
    """ndtr(-x) for x >= 0."""
    z = least(x, 40.0)
    return _gauss(z, -0.5) * _mills(z)


def _mills(z: Any) -> Any:
    """exp(z^2 / 2) ndtr(-z) for z >= 0, Mills' ratio but for a factor."""
    return _tail(z, 4.0, _MILLS)


@elementwise
def log_ndtr(x: Any) -> Any:
    """log(ndtr(x)), finite where ndtr(x) is too small for a float.

    Its derivative is exp(-x**2 / 2) / sqrt(2 * pi) / ndtr(x), about -x where x is far below 0;
    there the third derivative loses digits, as if x**2 were rounded.

    Computed by the logarithm of the interpolant that ndtr has.

    >>> import vgrad
    >>> round(vgrad.log_ndtr(0), 6)
    -0.693147
    """
    return pieces(x, (0.0, lambda x: np.log1p(-_upper_tail(x))), (-math.inf, _log_tail))


def _log_tail(x: Any) -> Any:
    z = least(-x, 1e18)  # beyond, x^2 / 2 is all
    return np.log(_mills(z)) - (0.5 * x) * x
