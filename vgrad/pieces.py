"""How special functions are computed: polynomials on pieces, of numbers and arrays alike.

A number gets the same bits alone or anywhere in an array: arithmetic is element by element, and
what happens to a number depends on that number only. An operand that records what is done to it
goes the way of a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import numpy as np

from .numbers import Rule

P = ParamSpec("P")
BLOCK = 8192  # numbers at a time, so that what is computed on the way stays in the cache


def elementwise(rule: Callable[P, Any]) -> Callable[P, Any]:
    """`rule`, written for floats and one-dimensional float64 arrays, as a function of any array."""

    of_one: Rule = rule

    @wraps(rule)
    def function(x: Any) -> Any:
        with np.errstate(all="ignore"):
            if hasattr(x, "_apply"):  # the rule itself is being recorded
                return of_one(x)
            if not isinstance(x, np.ndarray):
                try:
                    return float(of_one(float(x)))
                except ZeroDivisionError:  # Python raises where IEEE 754 has an infinity
                    return float(of_one(np.array([x], np.float64))[0])
            flat = np.ascontiguousarray(x, np.float64).reshape(-1)
            count = round(flat.size / BLOCK)
            if count > 1:
                out = np.empty_like(flat)
                for some, result in zip(np.array_split(flat, count), np.array_split(out, count)):
                    result[:] = of_one(some)
            else:
                out = of_one(flat)
            out = out.reshape(x.shape)
            return out.astype(x.dtype, copy=False) if x.dtype.kind == "f" else out

    return function  # type: ignore[return-value]


def pieces(x: Any, *pieces: tuple[float, Rule]) -> Any:
    """The rule of the first (bound, rule) with x >= bound, applied to each x; nan for nan."""
    if not isinstance(x, np.ndarray):
        return next((rule(x) for bound, rule in pieces if x >= bound), math.nan)
    out, left = None, None  # what is left is neither in a piece above nor nan
    for bound, rule in pieces:
        above = x >= bound
        hit = above if left is None else above & left
        count = np.count_nonzero(hit)
        if count == x.size:
            return rule(x)
        if count:
            out = np.full_like(x, math.nan) if out is None else out
            where = hit.nonzero()[0]
            out[where] = rule(x.take(where))
        left = ~above
    return np.full_like(x, math.nan) if out is None else out


def least(x: Any, top: float) -> Any:
    """The smaller of the two."""
    return np.minimum(x, top) if isinstance(x, np.ndarray) else min(x, top)


def whole(x: Any) -> Any:
    """The whole number next to `x`."""
    return float(round(x)) if isinstance(x, float) else np.rint(x)


def with_sign(q: Any, x: Any) -> Any:
    """`q`, which is not negative, with the sign of `x`."""
    if isinstance(x, np.ndarray):
        return np.copysign(q, x)
    return math.copysign(q, x) if isinstance(x, float) else reflect(q, x, 0.0)


class Polynomial:
    """A polynomial, called with a number or an array; its coefficients, the highest power's first.

    To an array NumPy adds an array of no dimensions twice as quickly as a float.
    """

    def __init__(self, *coefficients: float) -> None:
        self.numbers = coefficients
        self.arrays = [np.array(x) for x in coefficients]

    def __call__(self, t: Any) -> Any:
        if not isinstance(t, np.ndarray):
            first, *numbers, last = self.numbers
            p = t * first
            for number in numbers:
                p = (p + number) * t
            return p + last
        top, *middle, bottom = self.arrays
        p = t * top
        for c in middle:  # a little quicker than p += c and p *= t
            np.add(p, c, p)
            np.multiply(p, t, p)
        return np.add(p, bottom, p)


def reflect(q: Any, x: Any, total: float) -> Any:
    """`q`, or total - q where x is negative. NumPy's `where` is slower where signs are mixed."""
    if not isinstance(x, np.ndarray):
        return total - q if x < 0 else q
    side = np.copysign(0.5 * total, x)
    side -= 0.5 * total  # 0, or -total
    q = np.copysign(q, x)
    q -= side
    return q


def two_product(x: Any, y: Any) -> tuple[Any, Any]:
    """x * y, and its rounding error: Dekker, Numer. Math. 18 (1971)."""
    product, c, d = x * y, x * 134217729.0, y * 134217729.0
    a, b = c - (c - x), d - (d - y)  # the leading 26 bits
    return product, ((a * b - product) + a * (y - b) + (x - a) * b) + (x - a) * (y - b)


def by_order(rule_of: Callable[[int], Rule], highest: int, n: Any, x: Any) -> Any:
    """rule_of(n)(x) for whole numbers n from 0 to the highest; nan for any other."""
    if not isinstance(n, np.ndarray):
        rule = rule_of(int(n)) if 0 <= n <= highest and n == int(n) else elementwise(_no_number)
        return rule(x)
    n, x = np.broadcast_arrays(n, x)
    if n.size and (n == n.flat[0]).all():
        return by_order(rule_of, highest, n.flat[0], x)
    out = np.full(x.shape, math.nan, x.dtype if x.dtype.kind == "f" else np.float64)
    for order in np.unique(n[n == n]):
        hit = n == order
        out[hit] = by_order(rule_of, highest, order, x[hit])
    return out


def _no_number(x: Any) -> Any:
    return x * math.nan
