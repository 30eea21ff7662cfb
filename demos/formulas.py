"""Formulas of several fields, as people write them: over single numbers, parts of them repeated.

Each function takes the functions of a module (`vgrad`, or another with `log`, `exp`, `where` ...),
its parameters, a list `w`, and one sample. `FORMULAS[name]` has numbers for the parameters and
draws samples.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import vgrad
from vgrad import Value

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Array, ...]]

NEWTON_STEPS = 20  # of the equation of state
MIXED, HIDDEN = 5, 16  # densities of the mixture density network, and its hidden units
FEATURES = 8  # of the regression
EDGES = [(2, 5), (5, 1)]  # of the spline network: from how many units to how many
INTERVALS, ORDER = 5, 3  # of its splines, from -1 to 1
SPLINES = INTERVALS + ORDER
STEP = 2 / INTERVALS
KNOTS = [-1 + STEP * k for k in range(-ORDER, INTERVALS + ORDER + 1)]
COMPONENTS, DIMENSIONS = 25, 10  # of the Gaussian mixture


# --- finance -------------------------------------------------------------------------------------


def option(m: Any, w: Any, spot: Any, strike: Any, years: Any, rate: Any, volatility: Any) -> Any:
    """The price of a European call, Black and Scholes 1973."""
    d1 = m.log(spot / strike) + (rate + 0.5 * volatility**2) * years
    d1 = d1 / (volatility * m.sqrt(years))
    d2 = d1 - volatility * m.sqrt(years)
    return spot * m.ndtr(d1) - strike * m.exp(-rate * years) * m.ndtr(d2)


def sabr(m: Any, w: Any, forward: Any, strike: Any, years: Any, quoted: Any) -> Any:
    """The squared error of a volatility smile: SABR, Hagan et al. 2002, equation 2.17a."""
    alpha, beta, rho, nu = w
    log_ratio = m.log(forward / strike)
    middle = (forward * strike) ** ((1 - beta) / 2)
    z = nu / alpha * middle * log_ratio
    at_the_money = abs(z) < 1e-8
    z = m.where(at_the_money, 1e-8, z)
    x = m.log((m.sqrt(1 - 2 * rho * z + z**2) + z - rho) / (1 - rho))
    spread = middle * (
        1 + (1 - beta) ** 2 / 24 * log_ratio**2 + (1 - beta) ** 4 / 1920 * log_ratio**4
    )
    drift = (
        (1 - beta) ** 2 / 24 * alpha**2 / middle**2
        + rho * beta * nu * alpha / (4 * middle)
        + (2 - 3 * rho**2) / 24 * nu**2
    )
    volatility = alpha / spread * m.where(at_the_money, 1.0, z / x) * (1 + drift * years)
    return (volatility - quoted) ** 2


# --- thermodynamics ------------------------------------------------------------------------------


def cubic(m: Any, w: Any, temperature: Any, pressure: Any, measured: Any) -> Any:
    """The squared error of the compressibility factor of a gas: Peng and Robinson 1976.

    `w` has the critical temperature and pressure and the acentric factor; Newton's method finds
    the largest root.
    """
    critical_temperature, critical_pressure, omega = w
    t, p = temperature / critical_temperature, pressure / critical_pressure
    kappa = 0.37464 + 1.54226 * omega - 0.26992 * omega**2
    a = 0.45724 * (1 + kappa * (1 - m.sqrt(t))) ** 2 * p / t**2
    b = 0.07780 * p / t
    z = 1.0
    for _ in range(NEWTON_STEPS):
        f = z**3 - (1 - b) * z**2 + (a - 2 * b - 3 * b**2) * z - (a * b - b**2 - b**3)
        slope = 3 * z**2 - 2 * (1 - b) * z + (a - 2 * b - 3 * b**2)
        z = z - f / slope
    return (z - measured) ** 2


# --- statistics ----------------------------------------------------------------------------------


def mixture_density(m: Any, w: Any, x: Any, y: Any) -> Any:
    """A mixture density network, Bishop 1994: the negative log-likelihood of y, given x."""
    weights = iter(w)
    hidden = [m.tanh(next(weights) * x + next(weights)) for _ in range(HIDDEN)]
    logits, means, log_deviations = (
        [sum(next(weights) * h for h in hidden) + next(weights) for _ in range(MIXED)]
        for _ in range(3)
    )
    logs = [
        a - 0.5 * ((y - mean) / m.exp(s)) ** 2 - s - 0.5 * math.log(2 * math.pi)
        for a, mean, s in zip(logits, means, log_deviations)
    ]
    return m.logsumexp(logits) - m.logsumexp(logs)


def counts(m: Any, w: Any, x: Any, y: Any) -> Any:
    """Regression of counts that vary more than Poisson's: the negative binomial's -log-likelihood.

    `w` has a coefficient for each number in x, a constant, and the logarithm of the dispersion r.
    """
    mean = m.exp(sum(a * b for a, b in zip(w, x)) + w[-2])
    r = m.exp(w[-1])
    log_choices = m.lgamma(y + r) - m.lgamma(r) - m.lgamma(y + 1)
    return -(log_choices + r * m.log(r / (r + mean)) + y * m.log(mean / (r + mean)))


def gaussian_mixture(m: Any, w: Any, x: Any) -> Any:
    """A Gaussian mixture: the negative log-likelihood of a point, but for constants.

    The objective of ADBench, Srajer et al. 2018, without its prior: each component has a weight's
    logarithm, a mean, and the Cholesky factor of its precision, with the diagonal's logarithms.
    """
    d, n = DIMENSIONS, COMPONENTS
    size = d + d + d * (d - 1) // 2
    logits, logs = w[:n], []
    for k in range(n):
        own = w[n + size * k :]
        mean, diagonal, below = own[:d], own[d : 2 * d], iter(own[2 * d : size])
        error = [a - b for a, b in zip(x, mean)]
        scaled = [
            sum(next(below) * error[j] for j in range(i)) + m.exp(diagonal[i]) * error[i]
            for i in range(d)
        ]
        logs.append(logits[k] + sum(diagonal) - 0.5 * sum(z**2 for z in scaled))
    return m.logsumexp(logits) - m.logsumexp(logs)


# --- networks ------------------------------------------------------------------------------------


def spline_network(m: Any, w: Any, x: Any, y: Any) -> Any:
    """The squared error of a Kolmogorov-Arnold network, Liu et al. 2024.

    Every edge has a curve of its own: a multiple of silu, and a sum of B-splines.
    """
    weights = iter(w)
    units = list(x)
    for inputs, outputs in EDGES:
        units = [sum(curve(m, weights, units[i]) for i in range(inputs)) for _ in range(outputs)]
    return (units[0] - y) ** 2


def curve(m: Any, weights: Any, x: Any) -> Any:
    base = next(weights) * x / (1 + m.exp(-x))
    return base + sum(next(weights) * b for b in splines(x))


def splines(x: Any) -> list[Any]:
    """The values of all B-splines at x, by the recursion of Cox and de Boor."""
    values = [(x >= a) * (x < b) for a, b in pairwise(KNOTS)]
    for k in range(1, ORDER + 1):
        values = [
            (x - KNOTS[i]) / (KNOTS[i + k] - KNOTS[i]) * values[i]
            + (KNOTS[i + k + 1] - x) / (KNOTS[i + k + 1] - KNOTS[i + 1]) * values[i + 1]
            for i in range(len(values) - 1)
        ]
    return values


# --- samples -------------------------------------------------------------------------------------


def draw_options(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    ranges = [(50.0, 150.0), (50.0, 150.0), (0.1, 2.0), (0.0, 0.1), (0.1, 0.5)]
    return tuple(rng.uniform(low, high, batch) for low, high in ranges)


def draw_quotes(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    ranges = [(0.02, 0.04), (0.01, 0.06), (0.5, 10.0), (0.2, 0.4)]
    return tuple(rng.uniform(low, high, batch) for low, high in ranges)


def draw_states(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    ranges = [(320.0, 600.0), (1.0, 40.0), (0.7, 1.0)]
    return tuple(rng.uniform(low, high, batch) for low, high in ranges)


def draw_curve(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    y = rng.uniform(0, 1, batch)
    return y + 0.3 * np.sin(2 * np.pi * y) + rng.normal(0, 0.05, batch), y


def draw_counts(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    x = rng.normal(size=(batch, FEATURES))
    mean = rng.gamma(2.0, np.exp(0.3 * x.sum(axis=1)) / 2.0)
    return x, rng.poisson(mean).astype(np.float64)


def draw_points(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    return (rng.normal(size=(batch, DIMENSIONS)),)


def draw_surface(rng: np.random.Generator, batch: int) -> tuple[Array, ...]:
    x = rng.uniform(-0.99, 0.99, (batch, 2))
    return x, np.exp(np.sin(np.pi * x[:, 0]) + x[:, 1] ** 2)


class Formula(NamedTuple):
    fn: Callable[..., Any]
    numbers: list[float]  # for w
    draw: Draw

    @property
    def theta(self) -> Array:
        return np.array(self.numbers, np.float64)

    def arrays(self, batch: int, seed: int = 1337) -> tuple[Array, ...]:
        """Samples, the batch first."""
        return self.draw(np.random.default_rng(seed), batch)

    def program(self, **options: Any) -> vgrad.Program:
        w = [Value(x) for x in self.numbers]
        return vgrad.compile(partial(self.fn, vgrad, w), w, **options)


def normal(count: int, deviation: float) -> list[float]:
    rng = random.Random(count)
    return [rng.gauss(0, deviation) for _ in range(count)]


OUTPUTS = 3 * MIXED
EDGE_COUNT = sum(inputs * outputs for inputs, outputs in EDGES)
PER_COMPONENT = 2 * DIMENSIONS + DIMENSIONS * (DIMENSIONS - 1) // 2

FORMULAS = {
    "options": Formula(option, [], draw_options),
    "sabr": Formula(sabr, [0.04, 0.5, -0.3, 0.4], draw_quotes),
    "cubic": Formula(cubic, [304.1, 73.8, 0.225], draw_states),
    "mdn": Formula(mixture_density, normal(2 * HIDDEN + OUTPUTS * (HIDDEN + 1), 0.5), draw_curve),
    "glm": Formula(counts, [*normal(FEATURES, 0.3), 0.1, 0.5], draw_counts),
    "kan": Formula(spline_network, normal(EDGE_COUNT * (1 + SPLINES), 0.3), draw_surface),
    "gmm": Formula(gaussian_mixture, normal(COMPONENTS * (1 + PER_COMPONENT), 0.3), draw_points),
}
