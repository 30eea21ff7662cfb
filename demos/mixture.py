"""Learns to undo y = x + 0.3 sin(2 pi x) + noise, where a y has up to three x: Bishop 1994.

Least squares would give their mean, which is none of them. A mixture density network gives the
weights, means and deviations of Gaussians, and learns by the likelihood of the data.
"""

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from panels import COLOURS, GREY, INK, panels
from terminal import count, options, positive, run_main

import vgrad
from vgrad import nn, optim


def mixture(model: nn.MLP, y: Any) -> list[tuple[Any, Any, Any]]:
    """The logarithm of the weight, the mean, and the logarithm of the deviation, of each part."""
    out = model([4 * y - 2])
    n = len(out) // 3
    log_weights = [x - vgrad.logsumexp(out[:n]) for x in out[:n]]
    means = [x + (k + 0.5) / n for k, x in enumerate(out[n : 2 * n])]  # apart from the start
    return [*zip(log_weights, means, out[2 * n :])]


def log_density(model: nn.MLP, y: Any, x: Any) -> Any:
    """The logarithm of p(x | y)."""
    parts = [
        log_weight - log_deviation - ((x - mean) * vgrad.exp(-log_deviation)) ** 2 / 2
        for log_weight, mean, log_deviation in mixture(model, y)
    ]
    return vgrad.logsumexp(parts) - np.log(2 * np.pi) / 2


def trained(components: int, y: np.ndarray, x: np.ndarray, args: Any) -> nn.MLP:
    model = nn.MLP(1, [16, 3 * components], "tanh", rng=random.Random(args.seed))
    program = vgrad.compile(lambda y, x: -log_density(model, y, x), parameters=model)
    theta, adam = program.theta(), optim.Adam(lambda k: 0.03 * (1 - k / args.steps), clip_norm=1)
    for _ in range(args.steps):
        loss, gradient = program.value_and_grad(theta, y, x)
        adam.step(theta, gradient)
    program.assign(theta)
    print(f"Gaussians: {components}, log-likelihood: {-loss:.3f}")
    return model


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, "mixture.png")
    parser.add_argument("--steps", type=positive, default=900, help="gradient steps")
    parser.add_argument("--seed", type=count, default=1337, help="of the weights and the data")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    x = rng.uniform(size=500)
    y = x + 0.3 * np.sin(2 * np.pi * x) + rng.uniform(-0.1, 0.1, 500)
    models = [trained(components, y, x, args) for components in (1, 3)]
    if not args.no_plot:
        plot(args.out / "mixture.png", models, y, x)
    return 0


def plot(path: Path, models: list[nn.MLP], y: np.ndarray, x: np.ndarray) -> None:
    grid = np.linspace(0, 1, 200)
    ys, xs = np.meshgrid(grid, grid)
    with panels(path, 1, 2, sharex=True, sharey=True) as (left, right):
        left.plot(y, x, ".", color=GREY, markersize=4)
        for model, colours in zip(models, ([INK], COLOURS)):
            parts = vgrad.compile(partial(mixture, model), [])([], grid)
            for (log_weight, mean, _), colour in zip(parts, colours):
                left.scatter(grid, mean, 10 * np.exp(log_weight), colour)
        left.set(title="means: of three, of one (black)", xlabel="y", ylabel="x")
        log_p = vgrad.compile(partial(log_density, models[1]), [])([], ys.ravel(), xs.ravel())
        right.pcolormesh(ys, xs, np.exp(log_p / 2).reshape(ys.shape), cmap="Blues")
        right.set(title="density of x for each y", xlabel="y", xlim=(0, 1), ylim=(0, 1))


if __name__ == "__main__":
    run_main(main)
