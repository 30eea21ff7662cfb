"""The neuron of the micrograd lecture, o = tanh(x1*w1 + x2*w2 + b): its gradients, as a picture.

With --visualize it also writes its backpropagation step by step as a page, and opens that.
"""

from __future__ import annotations

import argparse
import random
import webbrowser
from functools import partial

from terminal import options, positive, run_main, write

import vgrad
from vgrad import Value

LECTURE = {"x1": 2.0, "x2": 0.0, "w1": -3.0, "w2": 1.0, "b": 6.8813735870195432}


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    numbers = LECTURE
    if args.seed is not None:
        draw = random.Random(args.seed).uniform
        numbers = {name: round(draw(-2, 2), 2) for name in LECTURE}
    values, o = neuron(numbers)
    o.backward()
    for value in (*values, o):
        print(f"{value.label:2}  data {value.data:9.4f}  grad {value.grad:9.4f}")
    if args.no_plot:
        return 0
    write(args.out / "graph.svg", partial(vgrad.draw, o))
    if args.step is not None or args.visualize:
        step_through(vgrad.animate(o, forward=True, by=args.by), args)
    return 0


def step_through(animation: vgrad.Animation, args: argparse.Namespace) -> None:
    if args.step is not None:
        if args.step > len(animation):
            raise SystemExit(f"--step must be at most {len(animation)} (got {args.step})")
        write(args.out / "backprop.png", partial(animation.draw, args.step - 1))
    if args.visualize:
        path = args.out / "backprop.html"
        write(path, animation.save)
        if not webbrowser.open(path.resolve().as_uri()):
            print("open it in a browser")


def neuron(numbers: dict[str, float]) -> tuple[list[Value], Value]:
    """The leaves and the output of the neuron, each with its name."""
    leaves = {
        name: Value(number, label=name, trainable=not name.startswith("x"))
        for name, number in numbers.items()
    }
    x1, x2, w1, w2, b = leaves.values()
    x1w1 = named(x1 * w1, "x1w1")
    x2w2 = named(x2 * w2, "x2w2")
    total = named(x1w1 + x2w2, "x1w1 + x2w2")
    n = named(total + b, "n")
    return [x1, x2, w1, w2, b], named(n.tanh(), "o")


def named(value: Value, label: str) -> Value:
    value.label = label
    return value


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "graph.svg and the other pictures")
    add = parser.add_argument
    add("--visualize", action="store_true", help="write backprop.html, and open it in a browser")
    add("--step", type=positive, help="write this step of it, 1 or more, as backprop.png")
    add("--by", choices=["node", "level"], default="node", help="what makes a step")
    add("--seed", type=int, help="of random numbers; the lecture's numbers when left out")
    args = parser.parse_args(argv)
    if args.no_plot and (args.visualize or args.step):
        parser.error("--visualize and --step write pictures: leave --no-plot out")
    return args


if __name__ == "__main__":
    run_main(main)
