"""Teaches a network how hot a reacting slab gets, from Bratu's equation alone, u'' + h exp(u) = 0.

The heat h is an input, so that one network has all solutions; from 3.52 on, the slab explodes.
"""

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from panels import COLOURS, panels
from terminal import count, options, positive, run_main

import vgrad
from vgrad import nn

HEATS, MOST, SAMPLES = (1.0, 2.0, 3.0), 3.4, 200  # shown, and the most that is trained for


def temperature(model: nn.MLP, x: Any, heat: Any) -> Any:
    return x * (1 - x) * model([2 * x - 1, heat - 1.5])  # 0 at both sides


def residual(model: nn.MLP, x: Any, heat: Any) -> Any:
    u = temperature(model, x, heat)
    return vgrad.gradient(vgrad.gradient(u, x), x) + heat * vgrad.exp(u)


def exact(x: np.ndarray, heat: float) -> np.ndarray:
    theta = 0.0
    for _ in range(200):  # a contraction, to the cooler one of two solutions
        theta = np.sqrt(2 * heat) * np.cosh(theta / 4)
    return -2 * np.log(np.cosh((x - 0.5) * theta / 2) / np.cosh(theta / 4))


def trained(model: nn.MLP, x: np.ndarray, heat: np.ndarray, steps: int) -> np.ndarray:
    """The parameters of least squared residuals, by Levenberg and Marquardt's method."""
    program = vgrad.compile(partial(residual, model), parameters=model)
    theta, damping = program.theta(), 1.0
    r, J = program.jacobian(theta, x, heat)
    for _ in range(steps):
        trial = theta - np.linalg.solve(J.T @ J + damping * np.eye(len(theta)), J.T @ r)
        trial_r, trial_J = program.jacobian(trial, x, heat)
        damping *= 3
        if trial_r @ trial_r < r @ r:
            theta, r, J, damping = trial, trial_r, trial_J, damping / 9
    return theta


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, "pinn.png")
    parser.add_argument("--steps", type=positive, default=50, help="of Levenberg and Marquardt")
    parser.add_argument("--seed", type=count, default=1337, help="of the weights and samples")
    args = parser.parse_args(argv)
    model = nn.MLP(2, [8, 8, 1], "tanh", rng=random.Random(args.seed))
    x, heat = np.random.default_rng(args.seed).uniform(0, [[1], [MOST]], (2, SAMPLES))
    theta = trained(model, x, heat, args.steps)
    x, solution = np.linspace(0, 1, 201), vgrad.compile(partial(temperature, model), model)
    curves = {heat: (solution(theta, x, heat), exact(x, heat)) for heat in HEATS}
    for heat, (found, true) in curves.items():
        print(f"heat {heat:g}: hottest {true.max():.4f}, error {np.abs(found - true).max():.1e}")
    if not args.no_plot:
        plot(args.out / "pinn.png", x, curves)
    return 0


def plot(path: Path, x: np.ndarray, curves: dict[float, Any]) -> None:
    with panels(path, 1, 2) as (left, right):
        for colour, (heat, (found, true)) in zip(COLOURS, curves.items()):
            left.plot(x, true, color=colour, label=f"heat {heat:g}")
            left.plot(x[10::20], found[10::20], "o", color=colour)
            right.semilogy(x[1:-1], abs(found - true)[1:-1], color=colour)
        left.set(title="exact, and network (dots)", xlabel="x", ylabel="temperature", ylim=(0, 0.9))
        left.legend(loc="upper right")
        right.set(title="error", xlabel="x")


if __name__ == "__main__":
    run_main(main)
