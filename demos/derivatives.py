"""Derivatives that fields ask for: Jacobians of residuals, second derivatives, losses of both.

Each entry of `DERIVATIVES` has a function of one sample, and a call that gives derivatives of its
program. Run as a script it fits a camera to points, by Gauss and Newton, from residuals and
Jacobians.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from terminal import run_main

import vgrad
from vgrad import nn

Array = NDArray[np.float64]

VISCOSITY = 0.01  # of Burgers' equation
OBSERVED = 31_843  # of a bundle adjustment, as in the smallest problem of Agarwal et al. 2010


def rotated(by: Any, point: Any) -> list[Any]:
    """A point turned about an axis by an angle, the length of `by`: Rodrigues' formula."""
    angle = vgrad.sqrt(by[0] ** 2 + by[1] ** 2 + by[2] ** 2)
    cos, sin = vgrad.cos(angle), vgrad.sin(angle)
    x, y, z = [part / angle for part in by]
    a, b, c = point
    along = (x * a + y * b + z * c) * (1 - cos)
    across = [y * c - z * b, z * a - x * c, x * b - y * a]
    return [p * cos + q * sin + r * along for p, q, r in zip(point, across, (x, y, z))]


def reprojection(camera: Any, point: Any, weight: Any, seen: Any) -> Any:
    """How far a point lies from where a camera saw it, in pixels: two residuals.

    The camera is its rotation, 3, centre, 3, focal length, principal point, 2, and two radial
    distortions.
    """
    x, y, z = rotated(camera[:3], [point[i] - camera[3 + i] for i in range(3)])
    u, v = x / z, y / z
    squared = u**2 + v**2
    zoom = camera[6] * (1 + camera[9] * squared + camera[10] * squared**2)
    found = [camera[7] + zoom * u, camera[8] + zoom * v]
    return vgrad.array([weight * (p - q) for p, q in zip(found, seen)])


def observations(samples: int) -> tuple[Array, ...]:
    """Cameras, points before them, weights, and pixels that are off by noise."""
    rng = np.random.default_rng(1337)
    camera = np.concatenate(
        [
            rng.normal(scale=0.3, size=(samples, 6)),
            rng.uniform(400, 600, size=(samples, 1)),
            rng.normal(size=(samples, 2)),
            rng.normal(scale=0.05, size=(samples, 2)),
        ],
        axis=1,
    )
    point = rng.normal((0.0, 0.0, 6.0), size=(samples, 3))
    return camera, point, rng.uniform(0.5, 1.0, samples), rng.normal(scale=200, size=(samples, 2))


def network(outputs: int) -> nn.MLP:
    """Two inputs, two layers of 16 units, and outputs."""
    return nn.MLP(2, [16, 16, outputs], activation="tanh", rng=random.Random(1337))


def burgers(model: nn.MLP) -> Callable[..., Any]:
    """How far a network is from Burgers' equation, squared, u_t + u u_x = 0.01 u_xx.

    Raissi, Perdikaris and Karniadakis 2019.
    """

    def residual(t: Any, x: Any) -> Any:
        u = model([t, x])
        u_t, u_x = vgrad.gradient(u, [t, x])
        u_xx = vgrad.gradient(u_x, x)
        return (u_t + u * u_x - VISCOSITY * u_xx) ** 2

    return residual


def option(spot: Any, strike: Any, years: Any, rate: Any, volatility: Any) -> Any:
    """The price of a European call, Black and Scholes 1973."""
    spread = volatility * vgrad.sqrt(years)
    up = (vgrad.log(spot / strike) + rate * years) / spread + spread / 2
    discount = vgrad.exp(-rate * years)
    return spot * vgrad.ndtr(up) - strike * discount * vgrad.ndtr(up - spread)


class Derivative(NamedTuple):
    """A function and its parameters, samples of it, and what gives derivatives, as a tuple."""

    fn: Callable[..., Any]
    parameters: Any
    arrays: Callable[[int], tuple[Any, ...]]  # of so many samples
    call: Callable[..., Any]  # of a program, theta and arrays
    samples: tuple[int, ...]  # how many to measure with

    def program(self, **options: Any) -> vgrad.Program:
        """The function, compiled."""
        return vgrad.compile(self.fn, self.parameters, **options)


def points(samples: int) -> tuple[Array, ...]:
    """Samples of two numbers, in one array."""
    return (np.random.default_rng(1337).uniform(-1, 1, size=(samples, 2)),)


def quotes(samples: int) -> tuple[Any, ...]:
    """Options on one share: its price, rate and volatility are those of all."""
    rng = np.random.default_rng(1337)
    return 100.0, rng.uniform(80, 120, samples), rng.uniform(0.1, 2.0, samples), 0.02, 0.25


def _with(outputs: Any, parts: Any) -> tuple[Any, ...]:
    return outputs, *parts


def made() -> dict[str, Derivative]:
    """The entries of `DERIVATIVES`."""
    wide, single = network(20), network(1)
    return {
        "bundle": Derivative(
            reprojection,
            [],
            observations,
            lambda program, theta, *arrays: _with(*program.input_jacobian(theta, *arrays)),
            (1000, OBSERVED),
        ),
        "20 outputs": Derivative(
            lambda x: vgrad.array(wide(x)),
            wide,
            points,
            lambda program, theta, x: program.jacobian(theta, x),
            (100, 1000),
        ),
        "20, inputs": Derivative(
            lambda x: vgrad.array(wide(x)),
            wide,
            points,
            lambda program, theta, x: _with(*program.input_jacobian(theta, x)),
            (1000, 10_000),
        ),
        "hessian": Derivative(
            lambda x: (single(x) - x[0] * x[1]) ** 2,
            single,
            points,
            lambda program, theta, x: (program.hessian(theta, x),),
            (100, 1000),
        ),
        "gammas": Derivative(
            option,
            [],
            quotes,
            lambda program, theta, *arrays: (program.input_hessian(theta, *arrays),),
            (1000, 100_000),
        ),
        "PINN": Derivative(
            burgers(single),
            single,
            lambda samples: tuple(points(samples)[0].T.copy()),
            lambda program, theta, *arrays: program.value_and_grad(theta, *arrays),
            (1000, 10_000),
        ),
    }


DERIVATIVES = made()


def main(argv: list[str] | None = None) -> int:
    """Fit a camera to what it saw, from residuals and Jacobians."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    rng = np.random.default_rng(1337)
    truth = np.array([0.1, -0.2, 0.05, 0.3, -0.1, 0.2, 500.0, 3.0, -2.0, 0.02, -0.01])
    _, point, weight, _ = observations(200)
    program = DERIVATIVES["bundle"].program()
    seen = program([], np.broadcast_to(truth, (200, 11)), point, 1.0, np.zeros((200, 2)))
    seen += rng.normal(scale=0.5, size=seen.shape)
    camera, damping = truth + rng.normal(scale=0.02, size=11) * abs(truth), 1e-3
    for step in range(5):
        everywhere = np.broadcast_to(camera, (200, 11))
        residuals, (jacobian, *_) = program.input_jacobian([], everywhere, point, weight, seen)
        r, J = residuals.ravel(), jacobian.reshape(-1, 11)
        print(f"step {step}: {np.sqrt(np.mean(r**2)):.4f} pixels")
        A = J.T @ J
        camera = camera - np.linalg.solve(A + damping * np.diag(A.diagonal()), J.T @ r)
    return 0


if __name__ == "__main__":
    run_main(main)
