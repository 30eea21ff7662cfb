"""Trains a decision tree by gradient descent, and then runs it with ordinary `if`s.

No gradient passes through an `if`: it is trained as a soft tree, whose splits become sharper.
"""

from pathlib import Path
from typing import Any

import numpy as np
from panels import panels
from terminal import count, options, positive, run_main

import vgrad


def grow(depth: int, rng: np.random.Generator) -> dict[str, Any]:
    if depth == 0:
        return {"leaf": vgrad.Value(0.0)}
    split = [vgrad.Value(number) for number in rng.uniform((-np.pi, -1.5), (np.pi, 1.5))]
    return {"split": split, "yes": grow(depth - 1, rng), "no": grow(depth - 1, rng)}


def distance(node: dict[str, Any], x: Any) -> Any:  # with a sign, to the line of a split
    angle, offset = node["split"]
    return vgrad.cos(angle) * x[0] + vgrad.sin(angle) * x[1] - offset


def hard(node: dict[str, Any], x: Any) -> Any:
    while "leaf" not in node:
        node = node["yes"] if distance(node, x) > 0 else node["no"]
    return node["leaf"]


def soft(node: dict[str, Any], x: Any, sharpness: Any) -> Any:
    if "leaf" in node:
        return node["leaf"]
    share = vgrad.sigmoid(sharpness * distance(node, x))
    return share * soft(node["yes"], x, sharpness) + (1 - share) * soft(node["no"], x, sharpness)


def peaks(x: Any, y: Any) -> Any:  # as MATLAB's
    z = 3 * (1 - x) ** 2 * np.exp(-(x**2) - (y + 1) ** 2) - np.exp(-((x + 1) ** 2) - y**2) / 3
    return z - 10 * (x / 5 - x**3 - y**5) * np.exp(-(x**2) - y**2)


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, "tree.png")
    parser.add_argument("--depth", type=positive, default=6, help="splits above a leaf")
    parser.add_argument("--steps", type=positive, default=600, help="gradient steps")
    parser.add_argument("--seed", type=count, default=1337, help="of the splits and the samples")
    args = parser.parse_args(argv)
    rng = np.random.default_rng(args.seed)
    root, x = grow(args.depth, rng), rng.uniform(-3, 3, (1000, 2))
    z = peaks(x[:, 0], x[:, 1])
    learning = vgrad.compile(lambda x, z, sharpness: (soft(root, x, sharpness) - z) ** 2, root)
    theta, adam = learning.theta(), vgrad.optim.Adam(lambda k: 0.05 * (1 - k / args.steps))
    for step in range(args.steps):
        loss, gradient = learning.value_and_grad(theta, x, z, 2 * 50 ** (step / args.steps))
        adam.step(theta, gradient)
    tree = vgrad.compile(lambda x: hard(root, x), root)
    reached = tree.per_sample_grads(theta, x)  # (B, P): 1 for the leaf of a sample
    theta += np.linalg.lstsq(reached, z - tree(theta, x), rcond=None)[0]
    print(f"leaves with samples: {reached.any(axis=0).sum()}, variance: {z.var():.3f}")
    print(f"squared error: {loss:.3f} soft, {np.mean((tree(theta, x) - z) ** 2):.3f} with `if`s")
    if not args.no_plot:
        plot(args.out / "tree.png", tree, theta)
    return 0


def plot(path: Path, tree: vgrad.Program, theta: np.ndarray) -> None:
    x, y = np.mgrid[-3:3:200j, -3:3:200j]
    mosaic = tree(theta, np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(x.shape)
    with panels(path, 1, 2, sharey=True) as axes:
        for panel, name, z in zip(axes, ("surface", "tree"), (peaks(x, y), mosaic)):
            panel.pcolormesh(x, y, z, vmin=-6, vmax=8)
            panel.set(title=name, aspect="equal")


if __name__ == "__main__":
    run_main(main)
