"""Special functions against mpmath, at the edges, and to the bit however the numbers lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from helpers import half, same_bits

import vgrad
from vgrad import special

mpmath = pytest.importorskip("mpmath")
mp = mpmath.mp

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "erf": vgrad.erf,
    "erfc": vgrad.erfc,
    "erfcx": vgrad.erfcx,
    "ndtr": vgrad.ndtr,
    "log_ndtr": vgrad.log_ndtr,
    "lgamma": vgrad.lgamma,
    "digamma": vgrad.digamma,
    "polygamma": vgrad.polygamma,
}
FORWARD = {name: getattr(special, name) for name in FUNCTIONS}  # what the rows compute with
ORDERS = [1, 2, 3, 4, 5, 6, 10, 20, 40, 170]
INF, NAN, TINY = math.inf, math.nan, 5e-324
ULPS, ABSOLUTE = 4.0, 1e-15


def unary(name: str, functions: dict[str, Callable[..., Any]] = FUNCTIONS) -> Callable[[Any], Any]:
    """The function of x: "polygamma 2" is the polygamma function of order 2."""
    function, _, order = name.partition(" ")
    if not order:
        return functions[function]
    return lambda x: functions[function](float(order), x)


UNARY = [*list(FUNCTIONS)[:-1], *(f"polygamma {n}" for n in (0, 1, 2, 7, 20))]

# --- against mpmath -------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def digits() -> Any:
    with mpmath.workdps(28):
        yield


class Points:
    """Seeded numbers of several kinds; `take` says how many there are."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.groups: list[Any] = []

    def uniform(self, count: int, low: float, high: float) -> Points:
        self.groups.append(self.random.uniform(low, high, count))
        return self

    def magnitudes(
        self, count: int, low: float, high: float, signs: Any = (1, -1), around: Any = 0.0
    ) -> Points:
        """Logarithmically uniform distances, 10^low to 10^high, to one of the points `around`."""
        distance = 10.0 ** self.random.uniform(low, high, count) * self.random.choice(signs, count)
        self.groups.append(self.random.choice(np.atleast_1d(around), count) + distance)
        return self

    def take(self) -> Any:
        return np.concatenate(self.groups)


def differences(got: Any, want: list[Any]) -> tuple[Any, Any]:
    """got - want, which has more digits than a float, and `want` as floats."""
    near = np.array([float(w) for w in want])
    rest = np.array([float(w - n) for w, n in zip(want, near.tolist())])
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(near) & (got == near), 0.0, (got - near) - rest), near


def check(
    name: str,
    x: Any,
    reference: Any,
    zeros: Any = False,
    absolute: float = ABSOLUTE,
    scale: Any = 0.0,
) -> None:
    """The errors are at most 4 ulp; at `zeros`, if the result is less than 1, at most `absolute`.

    `scale` is the size of the terms whose sum is the result, where they cancel.
    """
    got = unary(name)(x)
    errors, want = differences(got, [reference(mp.mpf(v)) for v in x.tolist()])
    size = np.minimum(np.maximum(abs(want), scale), 1.7e308)
    ulps = abs(errors) / np.spacing(size)
    zeros = zeros & (abs(want) < 1.0)
    worst = np.argmax(np.where(zeros, 0.0, ulps))
    error = np.max(abs(errors), where=zeros, initial=0.0)
    at_zeros = f", {error:.1e} absolute at zeros" if np.any(zeros) else ""
    print(
        f"{name}: {np.where(zeros, 0.0, ulps)[worst]:.2f} ulp at {x[worst]} of {x.size}{at_zeros}"
    )
    assert not np.isnan(got).any()
    assert ulps[worst] <= ULPS
    assert error <= absolute


def ndtr(x: Any) -> Any:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def log_ndtr(x: Any) -> Any:
    if x > 0:
        return mp.log1p(-ndtr(-x))
    if x > -1e5:
        return mp.log(ndtr(x))
    return -x * x / 2 - mp.log(-x * mp.sqrt(2 * mp.pi)) - 1 / (x * x)


def test_erf() -> None:
    points = Points().magnitudes(3000, -323, 0).uniform(6000, -3, 3).uniform(1000, -30, 30)
    check("erf", points.take(), mp.erf)


def test_erfc() -> None:
    points = Points().magnitudes(1000, -20, 0).uniform(3000, -6, 6).uniform(5000, 0, 26.5)
    check("erfc", points.uniform(1000, 26.5, 28).take(), mp.erfc)


def erfcx(x: Any) -> Any:
    if x < 1000:
        return mp.exp(x * x) * mp.erfc(x)
    square = x * x
    return (1 - 1 / (2 * square) + 3 / (4 * square**2) - 15 / (8 * square**3)) / (
        x * mp.sqrt(mp.pi)
    )


def test_erfcx() -> None:
    points = Points().magnitudes(1000, -20, 0).uniform(3000, -6, 6).uniform(2000, -26.6, 0)
    points = points.uniform(3000, 0, 60).magnitudes(1000, 0, 307, signs=[1])
    check("erfcx", points.take(), erfcx)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_derivatives_of_erfcx_and_log_ndtr_far_out(n: int) -> None:
    """To 2e-11, as products of order x**2 cancel in the third of log_ndtr: x**2 roundings."""
    x = np.array([-5.0, -40.0, -300.0, 2.0, 5.0])
    for name, reference in (("log_ndtr", lambda x: mp.log(ndtr(x))), ("erfcx", erfcx)):
        graph = vgrad.trace(FUNCTIONS[name], ())
        for _ in range(n):
            graph = graph.gradient(graph.inputs, of=len(graph.outputs) - 1)
        points = x if name == "log_ndtr" else -x[1:] / 1.5 + 3.0
        with mpmath.workdps(60):
            want = [float(mp.diff(reference, mp.mpf(v), n)) for v in points.tolist()]
        got = np.ravel(vgrad.compile(graph)([], points)[-1])
        assert got == pytest.approx(want, rel=2e-11, abs=0)


def test_ndtr() -> None:
    points = Points().magnitudes(1000, -20, 0).uniform(4000, -8, 8).uniform(4000, -37.5, 0)
    check("ndtr", points.uniform(1000, -40, -37.5).take(), ndtr)


def test_log_ndtr() -> None:
    points = Points().magnitudes(1000, -20, 0).uniform(3500, -8, 8).uniform(2500, 0, 38.5)
    points = points.uniform(2000, -100, 0).magnitudes(1000, 0, 154, signs=[-1])
    check("log_ndtr", points.take(), log_ndtr)


def log_gamma(x: Any) -> Any:
    if x > 0:
        return mp.loggamma(x)
    return mp.log(mp.pi / abs(x * mp.sinpi(x))) - mp.loggamma(-x)


def test_lgamma_of_positive_numbers() -> None:
    points = Points().magnitudes(2000, -323, 305.4, signs=[1]).uniform(4000, 0, 10)
    points = points.uniform(1000, 0, 200).magnitudes(1000, -4, -1, around=[0.8, 6.5])
    points = points.magnitudes(2000, -16, -0.5, around=[1.0, 2.0])
    check("lgamma", points.take(), log_gamma)


def test_lgamma_of_negative_numbers() -> None:
    poles, zeros = -np.arange(40.0), [-2.4570247382208006, -2.7476826467274127, -3.143580888349]
    points = Points().uniform(2000, -5, 0).uniform(3000, -40, 0)
    points = points.magnitudes(500, -300, 15, signs=[-1]).magnitudes(4000, -14, -0.3, around=poles)
    x = points.magnitudes(500, -15, -2, around=zeros).take()
    x = x[(x < 0) & (x != np.rint(x))]
    assert x.size > 9700
    check("lgamma", x, log_gamma, zeros=True, absolute=3e-16)


def test_digamma_of_positive_numbers() -> None:
    points = Points().magnitudes(2000, -308, 308, signs=[1]).uniform(4000, 0, 10)
    points = points.uniform(1000, 0, 200).magnitudes(1000, -4, -1, around=[0.8, 6.5])
    points = points.magnitudes(2000, -16, -0.5, around=1.4616321449683622)
    check("digamma", points.take(), mp.digamma)


def test_digamma_of_negative_numbers() -> None:
    """Far from 0 terms of size log(-x) cancel; below -25 not to 1e-15 at the zeros."""
    zeros = [-0.50408300826446, -1.5734984731624, -2.610720868444, -3.6352933664369]
    points = Points().uniform(2000, -5, 0).uniform(5000, -25, -5)
    points = points.magnitudes(1500, -300, 15, signs=[-1]).magnitudes(1000, -9, -2, around=zeros)
    x = points.magnitudes(500, -14, -1, around=-np.arange(1.0, 40.0)).take()
    x = x[x != np.rint(x)]
    assert x.size > 9700
    scale = np.where(x < -5, np.log(abs(x)), 0.0)
    check("digamma", x, mp.digamma, zeros=x > -25, scale=scale)


def zeta_sum(n: int, x: Any) -> Any:
    """n! times the sum of (x + k)^-(n + 1) over k >= 0, for x > 0, by A&S 6.4.11."""
    shift = max(0, 20 + n // 2 - int(min(x, 1000)))
    total = sum((x + k) ** -(n + 1) for k in range(shift)) * mp.factorial(n)
    z = x + shift
    series, square = mp.factorial(n - 1) * (1 + n / (2 * z)), z * z
    power = mp.one
    for factor in series_factors(n):
        power /= square
        series += factor * power
    return total + series / z**n


@cache
def series_factors(n: int) -> list[Any]:
    return [
        mp.bernoulli(2 * k) * mp.factorial(2 * k + n - 1) / mp.factorial(2 * k)
        for k in range(1, 20)
    ]


def polygamma(n: int, x: Any) -> Any:
    """For x < -1 from the sum over all whole k, less the part that does not belong."""
    if x > 0:
        return (-1) ** (n + 1) * zeta_sum(n, x)
    if x > -1:
        return (-1) ** (n + 1) * (mp.factorial(n) * x ** -(n + 1) + zeta_sum(n, 1 + x))
    r = x - mp.floor(x)
    return (-1) ** (n + 1) * zeta_sum(n, r) + zeta_sum(n, 1 - r) - zeta_sum(n, 1 - x)


def test_the_reference_of_polygamma_is_right() -> None:
    with mpmath.workdps(60):
        for n, x in [(1, 0.3), (2, 45.5), (20, 7.25), (3, -2.3), (8, -0.25), (100, 30.0)]:
            want = mp.polygamma(n, mp.mpf(x))
            assert abs(polygamma(n, mp.mpf(x)) / want - 1) < 1e-21


@pytest.mark.parametrize("n", half(ORDERS))
def test_polygamma(n: int) -> None:
    """Next to the zeros of an even order, terms of size n! / 1.5^(n + 1) cancel."""
    end, k = min(300.0, 330.0 / n), 3 if n <= 10 else 1
    points = Points().magnitudes(70 * k, -min(end, 307.0 / (n + 1)), end, signs=[1])
    points = points.uniform(130 * k, 0, 60).magnitudes(50 * k, -2, 4, signs=[1])
    points = points.uniform(100 * k, -10, 0).magnitudes(40 * k, -3, 8, signs=[-1])
    points = points.magnitudes(30 * k, -15, -2, around=-np.arange(6) - 0.5)
    x = points.magnitudes(20 * k, -300.0 / (n + 1), -1.0, signs=[-1]).take()
    assert x.size == 440 * k  # 10,560 in all
    scale = np.where(x < 0, math.factorial(n) / 1.5 ** (n + 1), 0.0) if n % 2 == 0 else 0.0
    check(f"polygamma {n}", x, lambda x: polygamma(n, x), scale=scale)


def test_a_wrong_number_is_noticed() -> None:
    x = np.linspace(0.1, 3.0, 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FUNCTIONS, "erf", lambda x: vgrad.erf(x) * (1 + 2e-15))
        with pytest.raises(AssertionError):
            check("erf", x, mp.erf)
        patch.setitem(FUNCTIONS, "lgamma", lambda x: vgrad.lgamma(x) + 2e-15)
        with pytest.raises(AssertionError):
            check("lgamma", -2.457 - x / 1e3, log_gamma, zeros=True)


# --- edges ----------------------------------------------------------------------------------------

EDGES = {
    "erf": {INF: 1.0, -INF: -1.0, 0.0: 0.0, TINY: TINY, -1e300: -1.0},
    "erfc": {INF: 0.0, -INF: 2.0, 0.0: 1.0, TINY: 1.0, 27.5: 0.0, -1e300: 2.0, 1e300: 0.0},
    "erfcx": {INF: 0.0, -INF: INF, 0.0: 1.0, TINY: 1.0, -27.0: INF, -1e300: INF},
    "ndtr": {INF: 1.0, -INF: 0.0, 0.0: 0.5, TINY: 0.5, 1e300: 1.0, -38.5: 0.0, -1e300: 0.0},
    "log_ndtr": {INF: -0.0, -INF: -INF, 0.0: -math.log(2), -1e200: -INF, 1e300: -0.0, -1e10: -5e19},
    "lgamma": {INF: INF, -INF: INF, 0.0: INF, 1.0: 0.0, 2.0: 0.0, 1e308: INF, -1e308: INF}
    | {-1.0: INF, -24.0: INF, -25.0: INF, -26.0: INF, -(2.0**52): INF, -1e306: INF},
    "digamma": {INF: INF, -INF: NAN, 0.0: -INF, TINY: -INF, -TINY: INF, 1e308: math.log(1e308)}
    | {-1.0: NAN, -5.0: NAN, -6.0: NAN, -(2.0**52): NAN, -1e300: NAN},
    "polygamma 0": {INF: INF, -INF: NAN, 0.0: -INF, -1.0: NAN},
    "polygamma 1": {INF: 0.0, -INF: INF, 0.0: INF, -0.5: 8.934802200544679, -1.0: INF, 1e-200: INF},
    "polygamma 2": {INF: -0.0, -INF: -INF, 0.0: -INF, -1.0: -INF, -1e300: -INF, -1e-200: INF},
    "polygamma 3": {INF: 0.0, -INF: INF, 0.0: INF, -7.0: INF, 1e300: 0.0},
    "polygamma 20": {INF: -0.0, 0.0: -INF, -3.0: -INF, 1e300: -0.0, 1e-300: -INF},
}
SIGNED_ZERO = {"erf": -0.0, "digamma": INF, "polygamma 0": INF}  # elsewhere as at 0.0


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str) -> None:
    function, edges = unary(name), EDGES[name]
    with np.errstate(all="raise"):
        for x, want in edges.items():
            assert same_bits(function(x), want), x
            assert same_bits(function(np.array([1.5, x]))[1], want), x
        assert same_bits(function(-0.0), SIGNED_ZERO.get(name, edges[0.0]))
        assert same_bits(function(np.array([-0.0])), [SIGNED_ZERO.get(name, edges[0.0])])
        assert math.isnan(function(NAN)) and np.isnan(function(np.full(3, NAN))).all()


def test_tails() -> None:
    """Single numbers that the random points might miss."""
    for x in (TINY, 1e-310, 1e-300, 2.2250738585072014e-308):
        check("erf", np.array([x, -x]), mp.erf)
        check("lgamma", np.array([x, -x, 1e300]), log_gamma)
    check("erfc", np.array([26.0, 26.5, 26.6, 27.0, 27.2]), mp.erfc)
    check("ndtr", np.array([-37.0, -38.0, -38.4, -38.46]), ndtr)
    check("log_ndtr", np.array([-40.0, -1e10, -1e100, -1.8e154, 30.0, 38.0, -37.9]), log_ndtr)


@pytest.mark.parametrize("n", [-1.0, 0.5, 170.5, 171.0, 1e300, INF, -INF, NAN])
def test_an_order_that_polygamma_does_not_have(n: float) -> None:
    assert math.isnan(FUNCTIONS["polygamma"](n, 1.5))
    assert np.isnan(FUNCTIONS["polygamma"](np.array([n, n]), 1.5)).all()
    assert np.isnan(FUNCTIONS["polygamma"](n, np.ones((2, 3)))).all()


def test_orders_of_polygamma_as_arrays() -> None:
    f, x = FORWARD["polygamma"], np.linspace(-3.3, 20.0, 12).reshape(3, 4)
    orders = np.array([0.0, 1.0, 2.0, 2.5])
    want = np.stack([f(n, x[:, k]) for k, n in enumerate(orders)], axis=1)
    assert same_bits(f(orders, x), want)
    assert same_bits(f(orders, 2.5), [f(n, 2.5) for n in orders])
    assert same_bits(f(np.full(4, 3.0), x), f(3.0, x))
    assert same_bits(f(np.array(3.0), x), f(3, x))
    assert same_bits(f(np.array([[2.0]]), 1.5), [[f(2.0, 1.5)]])
    assert f(np.array(2.0), np.array(1.5)).shape == () and f(orders[:0], 1.0).shape == (0,)
    with pytest.raises(ValueError, match="broadcast"):
        f(orders, np.ones(3))


# --- the same bits, however the numbers lie -------------------------------------------------------


def mixed(count: int) -> Any:
    """Numbers for every piece of every function, in a mixed order."""
    points = Points().uniform(count // 2, -40, 40).magnitudes(count // 4, -2, 1)
    points = points.magnitudes(count // 4, -310, 308)
    x = np.concatenate([points.take(), [0.0, -0.0, INF, -INF, NAN, 1.0, -1.0, -30.0, 1e16, -1e16]])
    return np.random.default_rng(1).permutation(x)


@pytest.mark.parametrize("name", UNARY)
def test_one_number_and_any_array_have_the_same_bits(name: str) -> None:
    function, x = unary(name, FORWARD), mixed(700)
    want = np.array([function(v) for v in x.tolist()])
    assert all(type(function(v)) is float for v in (0.5, np.float64(0.5), -1.0, NAN, 1, True))
    assert same_bits(function(x), want)
    assert same_bits(function(np.resize(x, 50_001)), np.resize(want, 50_001))
    for length in range(71):
        for start in (0, 1, 3, 450):
            part = slice(start, start + length)
            assert same_bits(function(x[part]), want[part]), (start, length)
    for v, w in zip(x[:40], want):
        alone = function(np.array(v))
        assert type(alone) is np.ndarray and same_bits(alone, w)


@pytest.mark.parametrize("name", UNARY)
def test_layouts(name: str) -> None:
    function, x = unary(name, FORWARD), mixed(712)[:720]
    want = function(x)
    table, wanted = x.reshape(24, 30), want.reshape(24, 30)
    offset = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64)
    for way in (slice(None, None, -1), slice(1, None, 2), slice(None, None, -7)):
        assert same_bits(function(x[way]), want[way])
    assert same_bits(function(offset), want)
    assert same_bits(function(table.T), wanted.T)
    assert same_bits(function(np.asfortranarray(table)), wanted)
    assert same_bits(function(table[::-2, 3:20:3]), wanted[::-2, 3:20:3])
    assert same_bits(function(np.broadcast_to(x, (3, 720))), np.broadcast_to(want, (3, 720)))
    assert same_bits(function(x.astype(">f8")), want)
    assert same_bits(function(np.zeros((2, 0, 3))), np.zeros((2, 0, 3)))


@pytest.mark.parametrize("name", UNARY)
def test_operands_are_left_as_they_are_and_nothing_warns(name: str) -> None:
    function, x = unary(name, FORWARD), mixed(2000)
    x.flags.writeable = False  # a result that is the operand itself could be written to
    before = x.copy()
    with np.errstate(all="raise"):
        out = function(x)
        [function(v) for v in x.tolist()]
    assert same_bits(x, before) and not np.shares_memory(out, x)
    assert out.flags.writeable and out.dtype == np.float64 and np.geterr()["over"] == "warn"


@pytest.mark.parametrize("name", UNARY)
def test_other_types_of_numbers(name: str) -> None:
    function, x = unary(name, FORWARD), np.array([[0.3, 2.5], [-0.75, 9.0]], np.float32)
    assert function(x).dtype == np.float32
    assert same_bits(function(x), function(x.astype(float)).astype(np.float32))
    assert same_bits(function(np.array([1, 2, 30])), function(np.array([1.0, 2.0, 30.0])))
    assert same_bits(function(np.array([True])), [function(1.0)])
