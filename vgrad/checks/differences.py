"""Derivatives by central differences: what a derivative is, whatever the rules say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EPSILON = float(np.finfo(np.float64).eps)


class Slope(NamedTuple):
    """Derivatives of several functions at once, each with how far it may be off."""

    value: Array
    error: Array
    kink: NDArray[np.bool_]  # whether the slopes on either side differ, and stay so


def slope(f: Callable[[float], Any], step: float, epsilon: float = EPSILON) -> Slope:
    """The derivatives at 0 of `f`, which gives a number or an array of them.

    Differences over `step` and over half of it: together they leave an error of the order of
    step**4 (Richardson's extrapolation), and their distance says more than how large that is.
    `epsilon` is the relative rounding error of the numbers that `f` gives.
    """
    with np.errstate(all="ignore"):
        here, up, down, high, low = (
            np.asarray(f(h), np.float64) for h in (0.0, step, -step, step / 2, -step / 2)
        )
        coarse, fine = (up - down) / (2 * step), (high - low) / step
        size = np.maximum.reduce([abs(x) for x in (here, up, down)])
        noise = 8 * epsilon * size / step
        jump, smaller = abs(up + down - 2 * here) / step, 2 * abs(high + low - 2 * here) / step
        kink = (smaller > 0.75 * jump) & (smaller > 100 * noise)  # else it halves with the step
        return Slope((4 * fine - coarse) / 3, abs(fine - coarse) + noise, kink)
