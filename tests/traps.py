"""Where a gradient of 0 meets inf or nan: functions, and their gradients worked out by hand.

`fn(x, y, w)` takes two numbers and four parameters, which are 2, 1, 4 and 0.5. A case is
(x, y), the value, (d/dx, d/dy), and d/dw as far as it is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import vgrad
from vgrad import log, maximum, relu, sqrt, tanh, where

NUMBERS = [2.0, 1.0, 4.0, 0.5]
INF, NAN = math.inf, math.nan

Case = tuple[tuple[float, float], float, tuple[float, float], tuple[float, ...]]


class Trap(NamedTuple):
    fn: Callable[..., Any]
    cases: list[Case]


def root(x: Any) -> Any:
    return where(x > 0, sqrt(x), 0.0)


def inverse(x: Any) -> Any:
    return where(x > 0, 1 / x, 0.0)


def dot(a: Any, b: Any) -> Any:
    return sum(p * q for p, q in zip(a, b))


def layer(x: Any, y: Any, w: Any) -> Any:
    return sum(relu(row @ np.array([root(x), inverse(y)])) for row in np.reshape(w, (2, 2)))


TRAPS = {
    "a root behind where": Trap(lambda x, y, w: root(x), [
        ((0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((-0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((-1.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((4.0, 0.0), 2.0, (0.25, 0.0), ()),
        ((INF, 0.0), INF, (0.0, 0.0), ()),
    ]),
    "a logarithm behind where": Trap(lambda x, y, w: where(x > 0, log(x), x), [
        ((0.0, 0.0), 0.0, (1.0, 0.0), ()),
        ((-3.0, 0.0), -3.0, (1.0, 0.0), ()),
        ((2.0, 0.0), math.log(2), (0.5, 0.0), ()),
        ((-INF, 0.0), -INF, (1.0, 0.0), ()),
    ]),
    "a quotient behind where": Trap(lambda x, y, w: where(y != 0, x / y, 0.0) * w[0], [
        ((3.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((3.0, 2.0), 3.0, (1.0, -1.5), (1.5,)),
    ]),
    "a quotient by where": Trap(lambda x, y, w: x / where(y > 0, y, 1 / y), [
        ((3.0, 2.0), 1.5, (0.5, -0.75), ()),
        ((3.0, -2.0), -6.0, (-2.0, 3.0), ()),
    ]),
    "a quotient by where of what is safe": Trap(lambda x, y, w: x / where(y > 0, sqrt(y), 1.0), [
        ((3.0, 0.0), 3.0, (1.0, 0.0), ()),
        ((3.0, -2.0), 3.0, (1.0, 0.0), ()),
        ((3.0, 4.0), 1.5, (0.5, -0.1875), ()),
    ]),
    "a norm at 0": Trap(lambda x, y, w: where((x == 0) * (y == 0), 0.0, sqrt(x * x + y * y)), [
        ((0.0, -0.0), 0.0, (0.0, 0.0), ()),
        ((3.0, 4.0), 5.0, (0.6, 0.8), ()),
        ((0.0, -2.0), 2.0, (0.0, -1.0), ()),
    ]),
    "a norm of three at 0": Trap(
        lambda x, y, w: where(x == 0, 0.0, sqrt(x * x + y * y * x * x + w[3] * x * x)), [
        ((0.0, 1.0), 0.0, (0.0, 0.0), ()),
        ((2.0, 0.0), math.sqrt(6), (math.sqrt(1.5), 0.0), (0.0, 0.0, 0.0, 2 / math.sqrt(6))),
    ]),
    "the larger of infinities": Trap(lambda x, y, w: maximum(x, y), [
        ((INF, INF), INF, (0.5, 0.5), ()),
        ((-INF, -INF), -INF, (0.5, 0.5), ()),
        ((-INF, INF), INF, (0.0, 1.0), ()),
        ((1.0, -INF), 1.0, (1.0, 0.0), ()),
    ]),
    "a mask of -inf": Trap(lambda x, y, w: maximum(where(y > 0, x * w[0], -INF), 0.0), [
        ((3.0, 1.0), 6.0, (2.0, 0.0), (3.0,)),
        ((3.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((-3.0, 1.0), 0.0, (0.0, 0.0), ()),
    ]),
    "a softmax with a mask": Trap(
        lambda x, y, w: x.exp() / (x.exp() + where(y > 0, 0.0, -INF).exp() * x), [
        ((1.0, 0.0), 1.0, (0.0, 0.0), ()),
        ((0.0, 0.0), 1.0, (0.0, 0.0), ()),
    ]),
    "an exponential that overflows": Trap(lambda x, y, w: where(x > 30, x, log(1 + x.exp())), [
        ((1000.0, 0.0), 1000.0, (1.0, 0.0), ()),
        ((0.0, 0.0), math.log(2), (0.5, 0.0), ()),
        ((-INF, 0.0), 0.0, (0.0, 0.0), ()),
    ]),
    "sin(x) / x": Trap(lambda x, y, w: where(x == 0, 1.0, vgrad.sin(x) / x), [
        ((0.0, 0.0), 1.0, (0.0, 0.0), ()),
        ((math.pi / 2, 0.0), 2 / math.pi, (-4 / math.pi**2, 0.0), ()),
    ]),
    "powers behind where": Trap(lambda x, y, w: where(x > 0, x**0.5 + x**-1.5 + x**y, 0.0), [
        ((0.0, -1.0), 0.0, (0.0, 0.0), ()),
        ((-2.0, 0.5), 0.0, (0.0, 0.0), ()),
        ((4.0, 2.0), 18.125, (0.25 - 1.5 / 32 + 8, 16 * math.log(4)), ()),
    ]),
    "one where in another": Trap(lambda x, y, w: where(y > 0, root(x) / y, 0.0), [
        ((0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((4.0, 2.0), 1.0, (0.125, -0.5), ()),
        ((4.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((0.0, 2.0), 0.0, (0.0, 0.0), ()),
    ]),
    "relu of minus infinity": Trap(lambda x, y, w: relu(x * -1e308 * 10) + w[0] * x, [
        ((1.0, 0.0), 2.0, (2.0, 0.0), (1.0,)),
    ]),
    "nothing times a logarithm": Trap(lambda x, y, w: relu(-1 - abs(x)) * log(x - x), [
        ((0.0, 0.0), NAN, (0.0, 0.0), ()),
        ((-1.0, 0.0), NAN, (0.0, 0.0), ()),
    ]),
    "a constant of 0": Trap(lambda x, y, w: 0.0 * sqrt(x) + 0.0 * log(y) + w[0] * w[1], [
        ((0.0, 0.0), NAN, (0.0, 0.0), (1.0, 2.0)),
        ((-1.0, 1.0), NAN, (0.0, 0.0), (1.0, 2.0)),
    ]),
    "a comparison with itself": Trap(lambda x, y, w: where(x == x, 0.0, vgrad.exp(x * 1e6)), [
        ((1.0, 0.0), 0.0, (0.0, 0.0), ()),
    ]),
    # sums that fuse
    "a neuron": Trap(lambda x, y, w: relu(w[0] * root(x) + w[1] * y + w[3]), [
        ((0.0, 1.0), 1.5, (0.0, 1.0), (0.0, 1.0, 0.0, 1.0)),
        ((-1.0, 1.0), 1.5, (0.0, 1.0), (0.0, 1.0, 0.0, 1.0)),
        ((4.0, 1.0), 5.5, (0.5, 1.0), (2.0, 1.0, 0.0, 1.0)),
        ((0.0, -1.0), 0.0, (0.0, 0.0), ()),
    ]),
    "a neuron of many inputs": Trap(
        lambda x, y, w: tanh(0 * x + dot([*w, *w], [root(x)] * 8)) * 0.0 + w[0] * y, [
        ((0.0, 3.0), 6.0, (0.0, 2.0), (3.0,)),
        ((-1.0, 3.0), 6.0, (0.0, 2.0), (3.0,)),
    ]),
    "a penalty of inverses": Trap(
        lambda x, y, w: sum(inverse(p) * inverse(p) for p in (x, y, w[0], w[0] - 2.0, w[1])), [
        ((0.0, 0.0), 1.25, (0.0, 0.0), (-0.25, -2.0)),
        ((1.0, -1.0), 2.25, (-2.0, 0.0), (-0.25, -2.0)),
        ((2.0, 4.0), 1.5625, (-0.25, -0.03125), (-0.25, -2.0)),
    ]),
    "a matrix product": Trap(layer, [
        ((4.0, 2.0), 12.75, (1.5, -0.375), (2.0, 0.5, 2.0, 0.5)),
        ((0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((4.0, 0.0), 12.0, (1.5, 0.0), (2.0, 0.0, 2.0, 0.0)),
        ((-1.0, 2.0), 0.75, (0.0, -0.375), (0.0, 0.5, 0.0, 0.5)),
    ]),
    "a sum behind where": Trap(
        lambda x, y, w: where(x > 0, dot([1 / x, x, x * x] * 2, [x] * 6), 0.0), [
        ((0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((-1.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((2.0, 0.0), 26.0, (32.0, 0.0), ()),
    ]),
    "a sum of wheres": Trap(lambda x, y, w: 3 * root(x) - 2 * root(y) + 0.5 * (x * y) + w[0], [
        ((0.0, 0.0), 2.0, (0.0, 0.0), (1.0,)),
        ((4.0, 0.0), 8.0, (0.75, 2.0), (1.0,)),
        ((0.0, 4.0), -2.0, (2.0, -0.5), (1.0,)),
        ((-1.0, -2.0), 3.0, (-1.0, -0.5), (1.0,)),
    ]),
    # what is shared by the samples
    "a parameter behind where": Trap(lambda x, y, w: where(x > 0, log(x * w[0] ** 2), 0.0), [
        ((0.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((-1.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((0.25, 0.0), 0.0, (4.0, 0.0), (1.0,)),
    ]),
    "a shared branch not taken": Trap(lambda x, y, w: where(w[0] > 3, sqrt(w[0] - 3), 0.0) * x, [
        ((3.0, 0.0), 0.0, (0.0, 0.0), ()),
        ((-1.0, 0.0), 0.0, (0.0, 0.0), ()),
    ]),
    "a shared root at 0": Trap(lambda x, y, w: root(w[0] - 2.0) * x + x * w[1], [
        ((3.0, 0.0), 3.0, (1.0, 0.0), (0.0, 3.0)),
    ]),
    "a shared root that nothing needs": Trap(lambda x, y, w: sqrt(w[0] - 2.0) * x + x * w[1], [
        ((0.0, 0.0), 0.0, (1.0, 0.0), ()),
    ]),
}  # fmt: skip
