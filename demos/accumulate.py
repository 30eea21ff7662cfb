"""Why gradients are accumulated, and in topological order: a = 1, b = a + a, c = b + b.

`backward()` waits until all parts of a node's gradient have come, and passes their sum on, once.
Here are two ways to get that wrong, beside the right one and what a small change of a does to c.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial

from terminal import options, run_main, write

import vgrad
from vgrad import Value
from vgrad.engine import reachable


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    start = 1.0 if args.seed is None else round(random.Random(args.seed).uniform(-2, 2), 2)
    roots, reasons = [], []
    print(f"a = {start}, b = a + a, c = b + b\n")
    print(f"{'':58}  c.grad  b.grad  a.grad")
    for name, (what, way) in WAYS.items():
        a, b, c = graph(start, name)
        reasons.append(f"{name}: {way(c)}")
        roots.append(c)
        print(f"{name:20}{what:38}{c.grad:8.1f}{b.grad:8.1f}{a.grad:8.1f}")
    step = 1e-3
    change = (graph(start + step)[2].data - graph(start - step)[2].data) / (2 * step)
    print(f"{'how much c changes with a, measured':58}{change:24.1f}\n")
    print(*reasons[1:], sep="\n")
    if not args.no_plot:
        print()
        write(args.out / "accumulate.svg", partial(vgrad.draw, roots))
    return 0


def graph(start: float, name: str = "") -> tuple[Value, Value, Value]:
    """a, b and c; with a name, labelled by it."""
    a = Value(start)
    b = a + a
    c = b + b
    for value, letter in zip((a, b, c), "abc"):
        value.label = f"{letter} ({name})" if name else letter
    return a, b, c


# --- three ways to pass gradients on, each of which says what happened ----------------------------


def topological(root: Value) -> str:
    """Passes a sum on when all of its parts have come."""
    root.backward()
    return ""


def too_soon(root: Value) -> str:
    """Passes a sum on each time a part has come, so that the earlier parts are passed on again."""
    passed: dict[Value, list[float]] = {}
    arrive(root, 1.0, passed)
    return ", ".join(
        f"{letter(node)} passed {added(sums)} on, where its gradient was {node.grad:g}"
        for node, sums in passed.items()
        if len(sums) > 1
    )


def arrive(node: Value, part: float, passed: dict[Value, list[float]]) -> None:
    node.grad += part
    if node.parents:
        passed.setdefault(node, []).append(node.grad)
    for parent, vjp in zip(node.parents, node.op.vjp):
        arrive(parent, derivative(vjp, node), passed)


def overwritten(root: Value) -> str:
    """Keeps the part that came last, and loses the others."""
    root.grad = 1.0
    came: dict[Value, list[float]] = {}
    for node in reachable(root):
        for parent, vjp in zip(node.parents, node.op.vjp):
            parent.grad = derivative(vjp, node)
            came.setdefault(parent, []).append(parent.grad)
    return ", ".join(
        f"{letter(node)} got {added(parts)}, and kept {node.grad:g}" for node, parts in came.items()
    )


def added(parts: list[float]) -> str:
    """As in "1 + 2 = 3"."""
    return f"{' + '.join(f'{x:g}' for x in parts)} = {sum(parts):g}"


def letter(node: Value) -> str:
    return node.label.split()[0]


def derivative(vjp: Callable[..., float] | None, node: Value) -> float:
    """What the gradient of `node` gives to one of its parents, by the rule of its op."""
    return vjp(node.grad, node.data, *(x.data for x in node.parents)) if vjp else 0.0


WAYS = {
    "right": ("passes its sum on, once all has come", topological),
    "wrong: too soon": ("passes its sum on at each part", too_soon),
    "wrong: overwritten": ("keeps only the last part", overwritten),
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "accumulate.svg")
    parser.add_argument("--seed", type=int, help="of a random a; 1 when left out")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_main(main)
