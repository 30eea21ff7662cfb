"""Train the network of the micrograd lecture, 3-4-4-1 with tanh, on its four samples."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from terminal import options, positive, run_main, write

import vgrad
from vgrad import nn, optim

EVERY = 10  # epochs are printed


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    X, y = vgrad.datasets.make_lecture()
    model = nn.MLP(3, [4, 4, 1], "tanh", "tanh", rng=random.Random(args.seed))
    print(f"{len(model.parameters())} parameters, {len(X)} samples")
    show("first predictions:", model, X)
    losses = ENGINES[args.engine](model, X, y, args)
    show("final predictions:", model, X)
    print("targets:          ", *(f"{target:+.4f}" for target in y))
    if not args.no_plot:
        write(args.out / "lecture.png", partial(vgrad.plot_training, losses))
    return 0


def squared_error(prediction: Any, target: Any) -> Any:
    return (prediction - target) ** 2


def scalar(model: nn.MLP, X: np.ndarray, y: np.ndarray, args: argparse.Namespace) -> list[float]:
    """Builds the sum over the samples out of `Value`s, at every epoch."""
    optimiser = optim.SGD(args.rate)
    losses: list[float] = []
    for epoch in range(args.epochs + 1):
        loss = sum(squared_error(model(x), target) for x, target in zip(X, y))
        report(epoch, loss.data, losses)
        if epoch < args.epochs:
            model.zero_grad()
            loss.backward()
            optimiser.step(model.parameters())
    return losses


def vector(model: nn.MLP, X: np.ndarray, y: np.ndarray, args: argparse.Namespace) -> list[float]:
    """Records the error of one sample once, and replays it over the four."""
    program = vgrad.compile(
        lambda x, target: squared_error(model(x), target),
        parameters=model.parameters(),
        reduce="sum",
    )
    theta = program.theta()
    optimiser = optim.SGD(args.rate)
    losses: list[float] = []
    for epoch in range(args.epochs + 1):
        loss, grad = program.value_and_grad(theta, X, y)
        report(epoch, loss, losses)
        if epoch < args.epochs:
            optimiser.step(theta, grad)
    program.assign(theta)
    return losses


ENGINES: dict[str, Callable[..., list[float]]] = {"vector": vector, "scalar": scalar}


def report(epoch: int, loss: float, losses: list[float]) -> None:
    losses.append(loss)
    if epoch % EVERY == 0:
        print(f"Epoch {epoch}: Loss = {loss:.10f}")


def show(title: str, model: nn.MLP, X: np.ndarray) -> None:
    print(title, *(f"{model(x).data:+.4f}" for x in X))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "lecture.png")
    add = parser.add_argument
    add("--engine", choices=ENGINES, default="vector", help="what trains")
    add("--epochs", type=positive, default=100, help="gradient steps")
    add("--rate", type=float, default=0.1, help="learning rate")
    add("--seed", type=int, default=1337, help="of the weights")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_main(main)
