"""Central differences: what a derivative is, whatever the rules say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array

TOLERANCE = 1e-6
SCALES = 1.0, 1 / 32, 1 / 1024  # of the step; the size of the number itself is the last
ROUGH, LEAST = 1e-3, 1e-3  # the error that differences may have, relative to their size or LEAST


class Claims(NamedTuple):
    """A function of several numbers, a point, and the gradient there that an engine claims.

    A number may also be a column, with one number for each sample. Then the function returns B
    results, each with a derivative of its own; derivatives to single numbers are of their mean.
    """

    names: list[Any]  # one for each number, and a list of B for each column
    f: Callable[[list[Any]], Any]
    point: list[Any]  # floats, and columns (B,)
    gradient: list[Any]  # of the same shapes; None if there is nothing to compare
    epsilon: float = 2.0**-52  # the relative rounding error of the results of `f`

    def moved(self, k: int, change: Any) -> Any:
        """The function's result after a change of number k."""
        result = self.f([*self.point[:k], self.point[k] + change, *self.point[k + 1 :]])
        return result if np.ndim(self.point[k]) else np.mean(result, dtype=np.float64)


class Derivative(NamedTuple):
    """One derivative: by the engine, and by differences."""

    name: str
    got: float
    want: float
    error: float  # how far off `want` may be
    kink: bool

    @property
    def judged(self) -> bool:
        """Whether the differences are conclusive: not at a kink, and not too rough."""
        return not self.kink and self.error <= ROUGH * max(abs(self.want), LEAST)

    def gap(self, tolerance: float) -> float:
        """The distance of the two as a share of what is allowed: over 1 is too much."""
        if not self.judged or self.got == self.want:
            return 0.0
        size = max(abs(self.got), abs(self.want))
        gap = abs(self.got - self.want) / (tolerance * size + self.error)
        return gap if gap == gap else np.inf


@np.errstate(all="ignore")
def compare(claims: Claims, step: float) -> list[Derivative]:
    """Compare each derivative with differences, which try steps of several sizes."""
    found: list[Derivative] = []
    for k, (names, x, got) in enumerate(zip(claims.names, claims.point, claims.gradient)):
        if got is None:
            continue
        slopes: list[tuple[Any, ...]] = []
        for scale in (*SCALES, np.where(x == 0, 1.0, abs(np.asarray(x, np.float64)))):
            slopes.append(_slope(claims, k, step, scale))
            if np.any([agrees for *_, agrees in slopes], axis=0).all():
                break
        columns = np.broadcast_arrays(names, got, *_best(slopes))
        found += map(Derivative, *(column.ravel().tolist() for column in columns))
    return found


def _slope(claims: Claims, k: int, step: float, scale: Any) -> tuple[Any, ...]:
    """The derivative to number k, its error, whether it is at a kink, whether the claim agrees.

    Differences over `step` and half of it, in units of `scale`, together leave an error of the
    order of step**4 (Richardson's extrapolation), which is less than the distance between them.
    """
    changes = 0.0, step, -step, step / 2, -step / 2
    here, up, down, high, low = (np.float64(claims.moved(k, scale * change)) for change in changes)
    coarse, fine = (up - down) / (2 * step), (high - low) / step
    noise = 8 * claims.epsilon * np.maximum.reduce([abs(here), abs(up), abs(down)]) / step
    jump, smaller = abs(up + down - 2 * here) / step, 2 * abs(high + low - 2 * here) / step
    # At a kink the slopes on either side stay as far apart when the step is halved.
    kink = (smaller > 0.75 * jump) & (smaller > 100 * noise)
    value, error = (4 * fine - coarse) / 3 / scale, (abs(fine - coarse) + noise) / scale
    got = claims.gradient[k]
    agrees = abs(value - got) + error <= TOLERANCE * np.maximum(abs(got), LEAST)
    return value, error, kink, agrees


def _best(slopes: list[tuple[Any, ...]]) -> tuple[Array, Array, Array]:
    """Each derivative from a step at which it agrees, otherwise from the one with least error.

    That error counts as at least four times the distance to the next best, since the differences of
    a single step do not show rounding inside the function.
    """
    value, error, kink, agrees = map(np.array, zip(*slopes))
    rank = np.where(agrees, -1.0, np.where(np.isnan(error), np.inf, error))
    order = np.argsort(rank, axis=0, kind="stable")
    value, error, kink = (np.take_along_axis(x, order, 0) for x in (value, error, kink))
    if len(slopes) > 1:
        apart = np.nan_to_num(4 * abs(value[0] - value[1]), nan=np.inf)
        error[0] = np.where(agrees.any(axis=0), error[0], np.maximum(error[0], apart))
    return value[0], error[0], kink[0]
