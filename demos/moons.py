"""Train micrograd's moons classifier, on either engine or on both.

The published notebook of micrograd comes out with the default arguments: a 2-16-16-1 network, the
SVM max-margin loss with an L2 penalty, and plain gradient descent whose rate falls from 1.0 to 0.1.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from terminal import Progress, options, positive, run_main, write

import vgrad
from vgrad import nn, optim
from vgrad.pictures.figures import save_gif

ALPHA = 1e-4  # weight of the penalty
FRAMES = 50  # of the animation, at the most


class Step(NamedTuple):
    loss: float
    accuracy: float  # of 1


class Run(NamedTuple):
    steps: list[Step]
    theta: np.ndarray
    thetas: list[np.ndarray]  # what it was at each step, where the animation needs it
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
        draw_boundary = boundary(model, X, y)
        write(args.out / "moons.png", partial(plot, runs[name], draw_boundary))
        if args.animate:
            write(args.out / "moons.gif", partial(animate, runs[name], draw_boundary))
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

    def parameters(self) -> np.ndarray:
        return np.array([p.data for p in self.model.parameters()])

    def finish(self) -> None:
        """Nothing to do: the model has been trained in place."""


class Vector:
    """Records the loss of one sample once, and replays it over the batch."""

    def __init__(self, model: nn.MLP, executor: Any = None) -> None:
        def loss(x: Any, y: Any) -> Any:
            score = model(x)
            return margin(score, y) + penalty(model), score

        self.program = vgrad.compile(loss, parameters=model.parameters(), executor=executor)
        self.theta = self.program.theta()

    def step(self, X: np.ndarray, y: np.ndarray, optimiser: optim.Optimiser) -> Step:
        (loss, (_, scores)), grad = self.program.value_and_grad(self.theta, X, y, aux=True)
        optimiser.step(self.theta, grad)
        return Step(loss, accuracy(scores, y))

    def parameters(self) -> np.ndarray:
        return self.theta.copy()

    def finish(self) -> None:
        self.program.assign(self.theta)


ENGINES: dict[str, Callable[[nn.MLP], Scalar | Vector]] = {"scalar": Scalar, "vector": Vector}


def accuracy(scores: Any, y: np.ndarray) -> float:
    return float(np.mean((np.asarray(scores) > 0) == (y > 0)))


def train(
    engine: Scalar | Vector, model: nn.MLP, X: np.ndarray, y: np.ndarray, args: argparse.Namespace
) -> Run:
    optimiser = optim.SGD(rate=lambda k: 1.0 - 0.9 * k / args.steps)
    steps, thetas = [], []
    live = live_picture(engine, model, X, y) if args.live else None
    start = time.perf_counter()
    with Progress() as progress:
        for k, rows in enumerate(batches(len(X), args)):
            if args.animate:
                thetas.append(engine.parameters())
            step = engine.step(X[rows], y[rows], optimiser)
            steps.append(step)
            progress(f"step {k} loss {step.loss}, accuracy {100 * step.accuracy:.1f}%")
            if live:
                live(loss=step.loss, accuracy=step.accuracy)
    engine.finish()
    seconds = time.perf_counter() - start
    if live:
        live.finish()
    return Run(steps, engine.parameters(), thetas, seconds)


def live_picture(
    engine: Scalar | Vector, model: nn.MLP, X: np.ndarray, y: np.ndarray
) -> vgrad.LivePlot:
    """A window that shows the training while it goes on."""
    program = vgrad.compile(model, parameters=model.parameters())
    try:
        return vgrad.LivePlot(lambda grid: program(engine.parameters(), grid), X, y, margin=1.0)
    except RuntimeError as error:
        raise SystemExit(
            f"\n--live: {str(error).split(';')[0]}; a window needs a screen, and PyQt6 "
            "(pip install PyQt6) or Tk; --animate writes the training as moons.gif instead"
        ) from None


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


def boundary(model: nn.MLP, X: np.ndarray, y: np.ndarray) -> Callable[..., Any]:
    """What draws the decision boundary of a theta on a figure."""
    program = vgrad.compile(model, parameters=model.parameters())

    def draw(theta: np.ndarray, figure: Any) -> None:
        vgrad.plot_boundary(lambda grid: program(theta, grid), X, y, margin=1.0, figure=figure)

    return draw


def plot(run: Run, draw_boundary: Callable[..., Any], path: Path) -> None:
    """The data on the decision boundary and its margins, and the training beside it."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subfigures(1, 2)
    draw_boundary(run.theta, left)
    losses, accuracies = zip(*run.steps)
    vgrad.plot_training({"loss": losses, "accuracy": accuracies}, figure=right)
    figure.savefig(path, dpi=100)


def animate(run: Run, draw_boundary: Callable[..., Any], path: Path) -> None:
    """The boundary over the training, as a GIF."""
    figure = Figure(figsize=(5, 4.5), layout="constrained")

    def draw(k: int) -> None:
        figure.clear()
        draw_boundary(run.thetas[k], figure)
        step = run.steps[k]
        title = f"step {k}, loss {step.loss:.4f}, accuracy {100 * step.accuracy:.1f}%"
        figure.suptitle(title)

    every = -(-len(run.steps) // FRAMES)
    shown = [*range(0, len(run.steps) - 1, every), len(run.steps) - 1]
    save_gif(figure, path, map(draw, shown), seconds=0.1)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "moons.png and moons.gif")
    add = parser.add_argument
    add("--engine", choices=["vector", "scalar", "both"], default="vector", help="what trains")
    add("--steps", type=positive, default=100, help="gradient steps")
    add("--samples", type=positive, default=100, help="points in the data set")
    add("--noise", type=float, default=0.1, help="standard deviation of the points' noise")
    add(
        "--hidden",
        type=positive,
        nargs="*",
        default=[16, 16],
        help="neurons in hidden layers",
    )
    add("--activation", choices=["relu", "tanh"], default="relu", help="of the hidden layers")
    add("--batch", type=positive, help="random samples in a step; all when left out")
    add("--seed", type=int, default=1337, help="of the weights, the data and the batches")
    add("--animate", action="store_true", help="write the boundary over the training, moons.gif")
    add("--live", action="store_true", help="show the training in a window while it goes on")
    args = parser.parse_args(argv)
    if args.no_plot and args.animate:
        parser.error("--animate writes a picture: leave --no-plot out")
    if not 0 <= args.noise < 1e3:
        parser.error(f"argument --noise: must not be negative, nor 1000 or more (got {args.noise})")
    if not 0 <= args.seed < 2**32:
        parser.error(f"argument --seed: must be from 0 to {2**32 - 1} (got {args.seed})")
    return args


if __name__ == "__main__":
    run_main(main)
