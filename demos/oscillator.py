"""Fits a damped oscillation to noisy measurements by least squares, with standard errors.

SciPy minimises, with gradients from here; where it is not installed, Gauss-Newton does.
"""

from pathlib import Path
from typing import Any

import numpy as np
from panels import BLUE, INK, ORANGE, panels
from terminal import count, options, run_main

import vgrad
from vgrad import Value

try:
    from scipy.optimize import minimize
except ImportError:
    minimize = None

SECONDS, SAMPLES, NOISE = 8.0, 80, 0.15
TRUTH = {"amplitude": 2.0, "damping": 0.35, "frequency": 4.0, "phase": 0.6}
GUESS = {"amplitude": Value(1.5), "damping": Value(0.5), "frequency": Value(3.8), "phase": Value(1)}


def displacement(w: dict[str, Any], t: Any) -> Any:
    swing = vgrad.cos(w["frequency"] * t + w["phase"])
    return w["amplitude"] * vgrad.exp(-w["damping"] * t) * swing


def half_square(t: Any, x: Any) -> tuple[Any, Any]:
    residual = displacement(GUESS, t) - x
    return residual**2 / 2, residual


def fit(t: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The parameters with the least sum of squares, and their standard errors."""
    program = vgrad.compile(half_square, parameters=GUESS, reduce="sum")
    theta = program.theta()
    if minimize is not None:
        theta = minimize(program.value_and_grad, theta, args=(t, x), jac=True).x
    else:
        for _ in range(20):
            (_, residuals), (_, jacobian) = program.jacobian(theta, t, x)
            theta -= np.linalg.lstsq(jacobian, residuals, rcond=None)[0]
    variance = 2 * program.value_and_grad(theta, t, x)[0] / (len(t) - len(theta))
    return theta, np.sqrt(variance * np.diag(np.linalg.inv(program.hessian(theta, t, x))))


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, "oscillator.png")
    parser.add_argument("--seed", type=count, default=1337, help="of the noise")
    args = parser.parse_args(argv)
    t = np.linspace(0, SECONDS, SAMPLES)
    x = displacement(TRUTH, t) + np.random.default_rng(args.seed).normal(0, NOISE, SAMPLES)
    theta, errors = fit(t, x)
    print(f"{SAMPLES} measurements, fitted by {'BFGS' if minimize else 'Gauss-Newton'}")
    for (name, truth), found, error in zip(TRUTH.items(), theta, errors):
        print(f"{name:10}{found:8.4f} ± {error:.4f}, truth {truth:g}")
    if not args.no_plot:
        plot(args.out / "oscillator.png", t, x, dict(zip(GUESS, theta)))
    return 0


def plot(path: Path, t: np.ndarray, x: np.ndarray, found: dict[str, float]) -> None:
    fine, guess = np.linspace(0, SECONDS, 400), {name: w.data for name, w in GUESS.items()}
    with panels(path, 2, 1, sharex=True, height_ratios=[3, 1]) as (above, below):
        above.plot(fine, displacement(guess, fine), "--", color=ORANGE, label="guess")
        above.plot(fine, displacement(found, fine), color=BLUE, label="fit")
        above.plot(t, x, ".", color=INK, label="measured")
        above.set_ylabel("displacement")
        above.legend(ncols=3)
        below.plot(t, x - displacement(found, t), ".", color=INK)
        below.set(xlabel="seconds", ylabel="residual")


if __name__ == "__main__":
    run_main(main)
