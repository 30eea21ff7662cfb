"""Functions that branch: as Python says it, by `where`, and as straight lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vgrad
from vgrad import Value

Array = NDArray[np.float64]

THETA = np.array([1.5, -0.7])
TOLERANCE = 1e-10  # where Newton's method ends
MOST = 12  # steps that it may take


def three_ifs(w: list[Value], x: Any) -> Any:
    """Six ways through three questions."""
    y = w[0] * x
    y = vgrad.sin(y) + x if y > 0 else y * y
    if y > 0.5:
        y = y * w[1]
    if x < w[1]:
        y = y + 1
    return y


def three_wheres(xp: Any, w: Any, x: Any) -> Any:
    """The same in the functions of a module, with every branch for every sample."""
    y = w[0] * x
    y = xp.where(y > 0, xp.sin(y) + x, y * y)
    y = xp.where(y > 0.5, y * w[1], y)
    return xp.where(x < w[1], y + 1, y)


def root(w: list[Value], a: Any) -> Any:
    """A square root by Newton's method, until it converges."""
    x = 0.5 * a + w[0] * w[0]
    for _ in range(MOST):
        step = (x * x - a) / (2 * x)
        x = x - step
        if abs(step) < TOLERANCE:
            break
    return x * w[1]


def root_in_steps(steps: int, w: list[Value], a: Any) -> Any:
    """The same in a number of steps: one of its paths, without questions."""
    x = 0.5 * a + w[0] * w[0]
    for _ in range(steps):
        x = x - (x * x - a) / (2 * x)
    return x * w[1]


def root_by_where(xp: Any, w: Any, a: Any) -> Any:
    """The same as array libraries have it: every step for every sample, kept until converged."""
    x, done = 0.5 * a + w[0] * w[0], False
    for _ in range(MOST):
        step = (x * x - a) / (2 * x)
        x = xp.where(done, x, x - step)
        done = done | (abs(step) < TOLERANCE)
    return x * w[1]


def by_scalars(fn: Callable[..., Any], w: list[Value], samples: list[float]) -> float:
    """The mean over the samples, and its gradient, one after another on the scalar engine."""
    total = sum(fn(w, Value(x)) for x in samples) / len(samples)
    for p in w:
        p.grad = 0.0
    total.backward()
    return float(total.data)


def leaky(x: Any) -> Any:
    """An activation with a branch."""
    return x if x > 0 else 0.1 * x


def leaky_by_where(x: Any) -> Any:
    """The same without."""
    return vgrad.where(x > 0, x, 0.1 * x)
