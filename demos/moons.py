"""Train micrograd's moons classifier, on either engine or on both.

The published notebook of micrograd comes out with the default arguments: a 2-16-16-1 network, the
SVM max-margin loss with an L2 penalty, and plain gradient descent whose rate falls from 1.0 to 0.1.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import vgrad
from vgrad import nn, optim

ALPHA = 1e-4  # weight of the penalty


class Step(NamedTuple):
    loss: float
    accuracy: float  # of 1


class Run(NamedTuple):
    steps: list[Step]
    theta: np.ndarray
    seconds: float


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    X, y = vgrad.datasets.make_moons(args.samples, args.noise, args.seed)
    y = 2 * y - 1  # classes -1 and 1
    model = nn.MLP(2, [*args.hidden, 1], args.activation, rng=random.Random(args.seed))
    theta = [p.data for p in model.parameters()]
    print(f"{model}\n{len(theta)} parameters, {len(X)} samples")
    runs = {}
    for name in ENGINES if args.engine == "both" else [args.engine]:
        print(f"\n{name} engine")
        for p, start in zip(model.parameters(), theta):
            p.data = start
        runs[name] = train(ENGINES[name](model), model, X, y, args)
    print()
    for name, run in runs.items():
        print(f"{name} engine: {args.steps} steps in {run.seconds:.3f} s")
    if args.engine == "both":
        compare(runs["scalar"], runs["vector"])
    if not args.no_plot:
        args.out.mkdir(parents=True, exist_ok=True)
        path = args.out / "moons.png"
        plot(runs[name].steps, model, X, y, path)
        print(f"wrote {path}")
    return 0


# --- one loss, two engines -----------------------------------------------------------------------


def margin(score: Any, y: Any) -> Any:
    """The max-margin loss of one sample whose class y is -1 or 1."""
    return (1 - y * score).relu()


def penalty(model: nn.MLP) -> Any:
    return ALPHA * sum(p * p for p in model.parameters())


class Scalar:
    """Builds the graph of a whole batch out of `Value`s, at every step, as micrograd does."""

    def __init__(self, model: nn.MLP) -> None:
        self.model = model

    def step(self, X: np.ndarray, y: np.ndarray, optimiser: optim.Optimiser) -> Step:
        scores = [self.model(x) for x in X.tolist()]
        margins = [margin(score, t) for score, t in zip(scores, y.tolist())]
        loss = sum(margins) * (1.0 / len(margins)) + penalty(self.model)
        self.model.zero_grad()
        loss.backward()
        optimiser.step(self.model.parameters())
        return Step(loss.data, accuracy([score.data for score in scores], y))

    def finish(self) -> None:
        """Nothing to do: the model has been trained in place."""


class Vector:
    """Records the loss of one sample once, and replays it over the batch."""

    def __init__(self, model: nn.MLP) -> None:
        def loss(x: Any, y: Any) -> Any:
            score = model(x)
            return margin(score, y) + penalty(model), score

        self.program = vgrad.compile(loss, parameters=model.parameters())
        self.theta = self.program.theta()

    def step(self, X: np.ndarray, y: np.ndarray, optimiser: optim.Optimiser) -> Step:
        (loss, (_, scores)), grad = self.program.value_and_grad(self.theta, X, y, aux=True)
        optimiser.step(self.theta, grad)
        return Step(loss, accuracy(scores, y))

    def finish(self) -> None:
        self.program.assign(self.theta)


ENGINES: dict[str, Callable[[nn.MLP], Scalar | Vector]] = {"scalar": Scalar, "vector": Vector}


def accuracy(scores: Any, y: np.ndarray) -> float:
    return float(np.mean((np.asarray(scores) > 0) == (y > 0)))


def train(
    engine: Scalar | Vector, model: nn.MLP, X: np.ndarray, y: np.ndarray, args: argparse.Namespace
) -> Run:
    optimiser = optim.SGD(rate=lambda k: 1.0 - 0.9 * k / args.steps)
    steps = []
    start = time.perf_counter()
    for k, rows in enumerate(batches(len(X), args)):
        steps.append(engine.step(X[rows], y[rows], optimiser))
        print(f"step {k} loss {steps[-1].loss}, accuracy {100 * steps[-1].accuracy:.1f}%")
    engine.finish()
    seconds = time.perf_counter() - start
    return Run(steps, np.array([p.data for p in model.parameters()]), seconds)


def batches(samples: int, args: argparse.Namespace) -> Iterator[Any]:
    """The rows of each step: all of them, or `--batch` at random."""
    rng = np.random.default_rng(args.seed)
    for _ in range(args.steps):
        yield rng.permutation(samples)[: args.batch] if args.batch else slice(None)


# --- what is shown -------------------------------------------------------------------------------


def compare(scalar: Run, vector: Run) -> None:
    losses = np.array([[a.loss, b.loss] for a, b in zip(scalar.steps, vector.steps)])
    print(f"ratio: the vector engine is {scalar.seconds / vector.seconds:.1f} times faster")
    print(f"largest difference in loss:       {np.abs(losses[:, 0] - losses[:, 1]).max():.1e}")
    print(f"largest difference in parameters: {np.abs(scalar.theta - vector.theta).max():.1e}")


def plot(steps: list[Step], model: nn.MLP, X: np.ndarray, y: np.ndarray, path: Path) -> None:
    """The data on the decision boundary, and the training beside it."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplot_mosaic([["boundary", "loss"], ["boundary", "accuracy"]])

    low, high = X.min(axis=0) - 0.5, X.max(axis=0) + 0.5
    across, up = np.meshgrid(np.linspace(low[0], high[0], 200), np.linspace(low[1], high[1], 200))
    program = vgrad.compile(model, parameters=model.parameters())
    grid = np.column_stack([across.ravel(), up.ravel()])
    scores = program(program.theta(), grid).reshape(across.shape)
    ax = axes["boundary"]
    ax.contourf(across, up, scores > 0, levels=[-0.5, 0.5, 1.5], colors=["#cfe2f3", "#fbe0c3"])
    ax.contour(
        across, up, scores, levels=[-1, 0, 1], colors="#444444", linestyles=["--", "-", "--"]
    )
    for sign, colour, marker in ((-1, "#0072b2", "o"), (1, "#d55e00", "^")):
        points = X[y == sign]
        ax.scatter(*points.T, c=colour, marker=marker, edgecolors="white", label=f"class {sign:+d}")
    ax.set(title="decision boundary (solid) and margins (dashed)", xlabel="x[0]", ylabel="x[1]")
    ax.legend(loc="lower left")

    axes["loss"].plot([step.loss for step in steps], color="#0072b2")
    axes["loss"].set(title="training", ylabel="loss", yscale="log")
    axes["accuracy"].plot([100 * step.accuracy for step in steps], color="#d55e00")
    axes["accuracy"].set(xlabel="step", ylabel="accuracy, %", ylim=(0, 103))
    axes["loss"].sharex(axes["accuracy"])
    figure.savefig(path, dpi=100)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--engine", choices=["vector", "scalar", "both"], default="vector", help="what trains")
    add("--steps", type=positive, default=100, help="gradient steps")
    add("--samples", type=positive, default=100, help="points in the data set")
    add("--noise", type=float, default=0.1, help="standard deviation of the points' noise")
    add("--hidden", type=positive, nargs="*", default=[16, 16], help="neurons in hidden layers")
    add("--activation", choices=["relu", "tanh"], default="relu", help="of the hidden layers")
    add("--batch", type=positive, help="random samples in a step; all when left out")
    add("--seed", type=int, default=1337, help="of the weights, the data and the batches")
    add("--out", type=Path, default=Path("."), help="folder for moons.png")
    add("--no-plot", action="store_true", help="write no picture")
    args = parser.parse_args(argv)
    if args.noise < 0:
        parser.error(f"argument --noise: must not be negative (got {args.noise})")
    return args


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {number})")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
