"""Recurrences over long sequences, as people write them: a loop over single numbers.

Each function takes its parameters, a list `w`, and one sample. `SEQUENCES[name]` has numbers for
the parameters and draws samples. No loop here branches on a number, so each is recorded as one
straight line, in which every step waits for the one before.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import vgrad
from vgrad import Value

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, int], tuple[Array, ...]]

STATES = range(5)  # of the hidden Markov model
HIDDEN = range(8)  # units of the recurrent network
SECONDS = 0.01  # of a step of an integrator
CLASSES = 12  # of CTC; class 0 is the blank
LABEL = (3, 1, 4, 1, 5, 9, 2, 2)


# --- time series ---------------------------------------------------------------------------------


def garch(w: list[Any], returns: Any) -> Any:
    """GARCH(1, 1), Bollerslev 1986: the negative log-likelihood of returns (T,)."""
    omega, alpha, beta = w
    variance = omega / (1 - alpha - beta)
    total = 0.0
    for r in returns:
        total += vgrad.log(variance) + r**2 / variance
        variance = omega + alpha * r**2 + beta * variance
    return 0.5 * total


def kalman(w: list[Any], observations: Any) -> Any:
    """The negative log-likelihood of observations (T,) of a level that has a slope.

    Both walk at random. `w` has the logarithms of three variances: of the level's steps, of the
    slope's, and of the noise in an observation.
    """
    level_variance, slope_variance, noise = (vgrad.exp(x) for x in w)
    level, slope = 0.0, 0.0
    p11, p12, p22 = 10.0, 0.0, 1.0  # the covariance of level and slope
    total = 0.0
    for y in observations:
        level = level + slope
        p11 = p11 + 2 * p12 + p22 + level_variance
        p12 = p12 + p22
        p22 = p22 + slope_variance
        error, variance = y - level, p11 + noise
        total += vgrad.log(variance) + error**2 / variance
        k1, k2 = p11 / variance, p12 / variance
        level, slope = level + k1 * error, slope + k2 * error
        p22 = p22 - k2 * p12
        p11, p12 = (1 - k1) * p11, (1 - k1) * p12
    return 0.5 * total


def hmm(w: list[Any], observations: Any) -> Any:
    """A hidden Markov model: the negative log-likelihood of observations (T,), forward in logs.

    `w` has the transitions' logits, a row for each state that is left, and each state's mean and
    logarithm of the standard deviation.
    """
    n = len(STATES)
    rows = [w[n * j : n * j + n] for j in STATES]
    means, log_deviations = w[n * n : n * n + n], w[n * n + n :]
    steps = []
    for row in rows:
        total = log_sum_exp(row)
        steps.append([x - total for x in row])

    def emitted(k: int, y: Any) -> Any:
        z = (y - means[k]) / vgrad.exp(log_deviations[k])
        return -0.5 * z**2 - log_deviations[k]

    alpha = [emitted(k, observations[0]) - math.log(n) for k in STATES]
    for y in observations[1:]:
        alpha = [
            log_sum_exp([alpha[j] + steps[j][k] for j in STATES]) + emitted(k, y) for k in STATES
        ]
    return -log_sum_exp(alpha)


def log_sum_exp(xs: Any) -> Any:
    """The logarithm of the sum of exp(x), without overflow."""
    top = highest(xs)
    return top + vgrad.log(sum(vgrad.exp(x - top) for x in xs))


def highest(xs: Any) -> Any:
    top = xs[0]
    for x in xs[1:]:
        top = vgrad.maximum(top, x)
    return top


# --- mechanics -----------------------------------------------------------------------------------


def rk4(f: Callable[[list[Any]], list[Any]], state: list[Any], h: float) -> list[Any]:
    """The state after a step of h seconds, by the classical method of Runge and Kutta."""
    k1 = f(state)
    k2 = f([x + h / 2 * k for x, k in zip(state, k1)])
    k3 = f([x + h / 2 * k for x, k in zip(state, k2)])
    k4 = f([x + h * k for x, k in zip(state, k3)])
    slopes = zip(state, k1, k2, k3, k4)
    return [x + h / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in slopes]


def orbit(steps: int, w: list[Any], start: Any, seen: Any) -> Any:
    """How far a body is from where it was seen, squared, after an orbit around the origin.

    `w` has the strength of gravity and the first velocity; a sample is two places, (2,) each.
    """
    gravity, vx, vy = w

    def moved(state: list[Any]) -> list[Any]:
        x, y, vx, vy = state
        cubed = (x * x + y * y) ** 1.5
        return [vx, vy, -gravity * x / cubed, -gravity * y / cubed]

    state = [start[0], start[1], vx, vy]
    for _ in range(steps):
        state = rk4(moved, state, SECONDS)
    return (state[0] - seen[0]) ** 2 + (state[1] - seen[1]) ** 2


def pendulum(steps: int, w: list[Any], start: Any, seen: Any) -> Any:
    """The squared error of a damped pendulum's last angle; a sample is its first angle and that.

    `w` has gravity divided by the length, and the damping.
    """
    pull, damping = w

    def moved(state: list[Any]) -> list[Any]:
        angle, speed = state
        return [speed, -pull * vgrad.sin(angle) - damping * speed]

    state = [start, 0.0]
    for _ in range(steps):
        state = rk4(moved, state, SECONDS)
    return (state[0] - seen) ** 2


# --- networks ------------------------------------------------------------------------------------


def rnn(w: list[Any], inputs: Any, target: Any) -> Any:
    """A network of tanh that reads inputs (T, 2): the squared error of what it says at the end.

    `w` has, one unit after another, 8 weights of the last state, 2 of the input and a bias, and
    then the weights and the bias of the output.
    """
    n = len(HIDDEN)
    units = [w[(n + 3) * i : (n + 3) * (i + 1)] for i in HIDDEN]
    last = w[(n + 3) * n :]
    state: list[Any] = [0.0] * n
    for x in inputs:
        state = [tanh_unit(unit, [*state, x[0], x[1]]) for unit in units]
    output = last[n]
    for i in HIDDEN:
        output = output + last[i] * state[i]
    return (output - target) ** 2


def tanh_unit(weights: list[Any], inputs: list[Any]) -> Any:
    total = weights[-1]
    for weight, x in zip(weights, inputs):
        total = total + weight * x
    return vgrad.tanh(total)


def ctc(w: list[Any], logits: Any) -> Any:
    """Connectionist temporal classification, Graves et al. 2006: the loss of logits (T, 12).

    That is -log of the probability that the classes drawn, without repeats and then without
    blanks, spell LABEL. `w` is empty: the gradient to the logits is what trains a network.
    """
    classes = [0]
    for symbol in LABEL:
        classes += [symbol, 0]
    alpha: list[Any] = [1.0] + [0.0] * (len(classes) - 1)  # as after a blank before the first step
    loss = 0.0
    for row in logits:
        p = softmax(row)
        reached = []
        for s, symbol in enumerate(classes):
            total = alpha[s]
            if s >= 1:
                total = total + alpha[s - 1]
            if s >= 2 and symbol not in (0, classes[s - 2]):
                total = total + alpha[s - 2]
            reached.append(total * p[symbol])
        scale = sum(reached)
        alpha = [x / scale for x in reached]
        loss -= vgrad.log(scale)
    return loss - vgrad.log(alpha[-1] + alpha[-2])


def softmax(xs: Any) -> list[Any]:
    top = highest(xs)
    exps = [vgrad.exp(x - top) for x in xs]
    total = sum(exps)
    return [x / total for x in exps]


# --- samples -------------------------------------------------------------------------------------


def draw_returns(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    omega, alpha, beta = 0.1, 0.1, 0.8
    variance, returns = np.full(batch, omega / (1 - alpha - beta)), np.empty((batch, steps))
    for t in range(steps):
        returns[:, t] = np.sqrt(variance) * rng.normal(size=batch)
        variance = omega + alpha * returns[:, t] ** 2 + beta * variance
    return (returns,)


def draw_trends(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    slope = rng.normal(0, 0.05, (batch, steps)).cumsum(axis=1)
    level = (slope + rng.normal(0, 0.3, (batch, steps))).cumsum(axis=1)
    return (level + rng.normal(0, 0.5, (batch, steps)),)


def draw_observations(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    state, observations = rng.integers(len(STATES), size=batch), np.empty((batch, steps))
    for t in range(steps):
        observations[:, t] = state + rng.normal(0, 0.6, batch)
        state = (state + (rng.random(batch) < 0.2)) % len(STATES)
    return (observations,)


def draw_places(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    start = np.array([1.0, 0.0]) + rng.normal(0, 0.02, (batch, 2))
    return start, rng.uniform(-1, 1, (batch, 2))


def draw_angles(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    return rng.uniform(0.2, 2.0, batch), rng.uniform(-1, 1, batch)


def draw_inputs(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    return rng.normal(size=(batch, steps, 2)), rng.uniform(-1, 1, batch)


def draw_logits(rng: np.random.Generator, batch: int, steps: int) -> tuple[Array, ...]:
    return (rng.normal(size=(batch, steps, CLASSES)),)


class Sequence(NamedTuple):
    fn: Callable[..., Any]
    numbers: list[float]  # for w
    draw: Draw
    counts: bool = False  # whether fn is told the number of steps first

    @property
    def theta(self) -> Array:
        return np.array(self.numbers, np.float64)

    def loss(self, steps: int) -> Callable[..., Any]:
        """A function of w and a sample."""
        return partial(self.fn, steps) if self.counts else self.fn

    def arrays(self, batch: int, steps: int, seed: int = 1337) -> tuple[Array, ...]:
        """Samples, the batch first."""
        return self.draw(np.random.default_rng(seed), batch, steps)

    def program(self, steps: int, **options: Any) -> vgrad.Program:
        w = [Value(x) for x in self.numbers]
        return vgrad.compile(partial(self.loss(steps), w), w, **options)


DRAW = random.Random(7)
LOGITS = [DRAW.gauss(0, 1) for _ in range(25)]
WEIGHTS = [DRAW.gauss(0, 0.3) for _ in range(97)]

SEQUENCES = {
    "garch": Sequence(garch, [0.12, 0.15, 0.7], draw_returns),
    "kalman": Sequence(kalman, [-2.0, -5.0, -1.0], draw_trends),
    "hmm": Sequence(hmm, [*LOGITS, 0.1, 0.9, 2.2, 3.1, 4.0, *[-0.5] * 5], draw_observations),
    "orbit": Sequence(orbit, [1.0, 0.05, 0.95], draw_places, counts=True),
    "pendulum": Sequence(pendulum, [9.81, 0.2], draw_angles, counts=True),
    "rnn": Sequence(rnn, WEIGHTS, draw_inputs),
    "ctc": Sequence(ctc, [], draw_logits),
}
