"""Fits a Kalman filter's two variances to the flow of the Nile, by maximum likelihood.

The local level model of Durbin and Koopman 2012, chapter 2: the level is a random walk, observed
with noise. Newton's method has the gradient and the Hessian through all steps of the filter.
"""

from pathlib import Path
from typing import Any

import numpy as np
from panels import BLUE, INK, ORANGE, panels
from terminal import options, run_main

import vgrad
from vgrad import Value

STEPS = 8  # of Newton's method
FLOW = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100
1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456
824 702 1120 1100 832 764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822
1010 771 676 649 846 812 742 801 1040 860 874 848 890 744 749 838 1050 918 986 797 923 975 815 1020
906 901 1170 912 746 919 718 714 740
"""  # at Aswan from 1871 to 1970, in 10^8 m³; Cobb 1978


def kalman(step_variance: Any, noise_variance: Any, observations: Any) -> tuple[Any, ...]:
    """The negative log-likelihood after the first observation, the levels and their variances."""
    first, *others = observations  # before the first, nothing is known of the level
    level, variance = first, noise_variance
    levels, variances, total = [level], [variance], 0.0
    for y in others:
        variance = variance + step_variance
        forecast = variance + noise_variance  # the variance of y, as foreseen
        total += (vgrad.log(2 * np.pi * forecast) + (y - level) ** 2 / forecast) / 2
        gain = variance / forecast
        level, variance = level + gain * (y - level), (1 - gain) * variance
        levels.append(level)
        variances.append(variance)
    return total, vgrad.array(levels), vgrad.array(variances)


def fit(flow: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """The two variances of greatest likelihood, and what the filter gives with them."""
    logs = [Value(np.log(flow.var() / 2)) for _ in range(2)]  # so that variances stay positive
    program = vgrad.compile(lambda y: kalman(*map(vgrad.exp, logs), y), parameters=logs)
    theta = program.theta()
    for step in range(STEPS):
        value, gradient = program.value_and_grad(theta, flow)
        print(f"step {step}: log-likelihood {-value:.4f}, gradient {np.abs(gradient).max():.1e}")
        theta -= np.linalg.solve(program.hessian(theta, flow), gradient)
    return np.exp(theta), program(theta, flow)


def main(argv: list[str] | None = None) -> int:
    args = options(__doc__, "kalman.png").parse_args(argv)
    flow = np.array([FLOW.split()], float)  # one sample: a hundred years
    (steps, noise), (_, levels, variances) = fit(flow)
    print(f"variances: {steps:.1f} of the level's steps, {noise:.1f} of the noise")
    if not args.no_plot:
        plot(args.out / "kalman.png", flow[0], levels[0], np.sqrt(variances[0]))
    return 0


def plot(path: Path, flow: np.ndarray, levels: np.ndarray, deviations: np.ndarray) -> None:
    years, low, high = np.arange(1871, 1971), levels - 2 * deviations, levels + 2 * deviations
    with panels(path, 1, 1) as axes:
        axes.fill_between(years, low, high, color=BLUE, alpha=0.2, lw=0)
        axes.plot(years, levels, color=BLUE, label="level, ± 2 standard deviations")
        axes.plot(years, flow, ".", color=INK, label="flow of the Nile")
        axes.axvline(1899, color=ORANGE, ls="--", label="dam at Aswan begun")
        axes.set(xlabel="year", ylabel="$10^8$ m³ a year")
        axes.legend()


if __name__ == "__main__":
    run_main(main)
