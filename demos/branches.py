"""Throw balls into a room so that, all at one moment, they spell a word.

Each ball bounces off the floor and the walls in an order of its own: `thrown` is ordinary Python on
the numbers of one ball, with `if`, `while` and an early return. `vgrad.compile` runs it for all of
them, and gradient descent goes through the bounces to each ball's first velocity. A bounce that is
in the way may keep a ball from its place; such balls are thrown anew now and then.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from terminal import count, options, positive, run_main, several, write

import vgrad
from vgrad import Value
from vgrad.pictures.plots import COLOURS

G, WIDTH, KEPT = 9.81, 10.0, 0.8  # m/s², m, and the speed that a bounce keeps
SECONDS = 1.4  # from the throw to the moment that counts
RATE, MOST = 0.25, 1.0  # of a step, which changes a velocity by MOST m/s at the most
AGAIN = 20  # steps until balls that are further than NEAR from their places are thrown anew
NEAR = 0.01  # m
FEW = 40  # balls whose flights are drawn, and that run on the scalar engine
OTHER, EMPTY = "#777777", "#c4c4c4"  # the colours of rare paths, and of places without a ball
SURFACES = {"1": "floor", "2": "wall"}
THROW = 9.0, 2.0, 0.6  # m/s, m/s and s: one to explore, and what it may become
RANGES = {"vx": (4, 16), "vy": (-3, 4), "left": (0.01, 0.7)}


def thrown(vx, vy, left):
    """Where a ball is `left` seconds after its throw, and what it hit: 1 the floor, 2 a wall."""
    x, y, hits = 1.0, 1.0, 0
    while True:
        side = WIDTH if vx > 0 else 0.0
        wall = (side - x) / vx  # seconds until it would be there
        floor = (vy + vgrad.sqrt(vy**2 + 2 * G * y)) / G
        if left < floor and left < wall:
            return x + vx * left, y + vy * left - G / 2 * left**2, hits
        if floor < wall:
            x, y, vy = x + vx * floor, 0.0, KEPT * (G * floor - vy)
            left, hits = left - floor, 10 * hits + 1
        else:
            x, y = side, y + vy * wall - G / 2 * wall**2
            vx, vy = -KEPT * vx, vy - G * wall
            left, hits = left - wall, 10 * hits + 2


def miss(v: Any, place: Any) -> tuple[Any, ...]:
    """How far a ball is from its place at the moment that counts, squared; its x, y and hits."""
    x, y, hits = thrown(v[0], v[1], SECONDS)
    return (x - place[0]) ** 2 + (y - place[1]) ** 2, x, y, hits


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    rng = np.random.default_rng(args.seed)
    places, first = spelled(args.word, args.balls, rng), throws(args.balls, rng)
    program = vgrad.compile(miss, parameters=[])
    last = aimed(program, first, places, args.steps, rng)
    before, after = (program([], v, places) for v in (first, last))
    (paths,) = program.paths.values()
    print(f"{several(args.balls, 'ball')}, {several(args.steps, 'step')} of gradient descent")
    print(
        f"mean squared distance: {before[0].mean():.3g} m² before, {after[0].mean():.3g} m² after"
    )
    print(f"where they should be:  {(after[0] <= NEAR**2).sum():,}, to 1 cm")
    print(f"paths found:           {len(paths.runners)}, and at last on")
    for hits, balls in Counter(after[3].tolist()).most_common():
        print(f"{balls:7,}  {named(hits)}")
    compare(program, first, places)
    if not args.no_plot:
        panels = {"before": (first, before), "after": (last, after)}
        write(args.out / "branches.png", partial(plot, panels, places))
        if args.explore:
            page = vgrad.explore(thrown, *THROW, ranges=RANGES)
            write(args.out / "explore.html", page.save)
    return 0


def throws(balls: int, rng: np.random.Generator) -> np.ndarray:
    """Velocities (balls, 2) at random, to the right."""
    return rng.uniform((2, -13), (16, 10), (balls, 2))


def aimed(program: vgrad.Program, v: np.ndarray, places: np.ndarray, steps: int, rng: Any) -> Any:
    """The velocities after gradient descent."""
    v = v.copy()
    for step in range(steps):
        if step and step % AGAIN == 0:
            far = np.flatnonzero(program([], v, places)[0] > NEAR**2)
            v[far] = throws(len(far), rng)
        change = RATE * program.input_grads([], v, places)[0]
        v -= change * np.minimum(1, MOST / (np.linalg.norm(change, axis=1, keepdims=True) + 1e-9))
    return v


def spelled(word: str, balls: int, rng: np.random.Generator) -> np.ndarray:
    """Places (balls, 2) that form a word: points of a grid that is just fine enough."""
    shape = TextPath((0, 0), word, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    (left, low), (right, high) = shape.get_extents().get_points()
    inside = np.empty((0, 2))
    for columns in range(10, 10_000):
        x = np.linspace(left, right, columns)
        grid = np.stack(np.meshgrid(x, np.arange(low, high, x[1] - x[0])), axis=-1).reshape(-1, 2)
        if len(inside := grid[shape.contains_points(grid)]) >= balls:
            break
    centred = rng.permutation(inside)[:balls] - [(left + right) / 2, (low + high) / 2]
    return centred * 0.76 * WIDTH / (right - left) + [WIDTH / 2, 2.4]


def compare(program: vgrad.Program, v: np.ndarray, places: np.ndarray) -> None:
    """Print the times of a gradient on both engines, and how the results differ."""
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        gradients = program.input_grads([], v, places)[0]
        seconds.append(time.perf_counter() - start)
    vector, few = min(seconds), min(FEW, len(v))
    values, start, expected = program([], v, places)[0], time.perf_counter(), []
    for numbers, place in zip(v[:few].tolist(), places.tolist()):
        ball = [Value(number) for number in numbers]
        loss = miss(ball, place)[0]
        loss.backward()
        expected.append([loss.data, *(number.grad for number in ball)])
    scalar = (time.perf_counter() - start) * len(v) / few
    gap = np.abs(np.column_stack([values, gradients])[:few] - expected).max(axis=0)
    print(f"gradient, vgrad:       {1e3 * vector:.2f} ms")
    print(f"the scalar engine:     {1e3 * scalar:.0f} ms, from {several(few, 'ball')}")
    print(f"ratio:                 {scalar / vector:.0f}")
    print(f"largest difference:    {gap[0]:.1e} in values, {gap[1:].max():.1e} in gradients")


def named(hits: float) -> str:
    """What a ball hit, in words."""
    return ", ".join(SURFACES[digit] for digit in f"{hits:.0f}" if hits) or "no bounce"


def plot(panels: dict[str, Any], places: np.ndarray, path: Path) -> None:
    """Some flights, and where all balls are at the moment that counts, coloured by path."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    common = Counter(panels["after"][1][3].tolist()).most_common(len(COLOURS))
    colours = {hits: colour for (hits, _), colour in zip(common, COLOURS)}
    times = np.linspace(0, SECONDS, 100).tolist()
    for axes, (title, (v, (distances, x, y, hits))) in zip(figure.subplots(1, 2), panels.items()):
        axes.plot(*places.T, ".", color=EMPTY, markersize=2)
        for ball, code in zip(v[:FEW].tolist(), hits):
            flight = [thrown(*ball, t)[:2] for t in times]
            axes.plot(*zip(*flight), color=colours.get(code, OTHER), alpha=0.5, linewidth=0.8)
        axes.scatter(x, y, s=5, c=[colours.get(code, OTHER) for code in hits], zorder=2)
        axes.plot([0, 0, WIDTH, WIDTH], [9, 0, 0, 9], color="#444444", linewidth=3)
        axes.set_title(f"{title}: mean squared distance {distances.mean():.3f} m²")
        axes.set(xlim=(-0.05, WIDTH + 0.05), ylim=(-0.05, 5.6), aspect="equal")
        axes.axis("off")
    shown = {
        **{named(hits): colour for hits, colour in colours.items()},
        "others": OTHER,
        "places": EMPTY,
    }
    marks = [axes.plot([], [], "o", color=colour, label=name)[0] for name, colour in shown.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    figure.savefig(path, dpi=100)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "branches.png and explore.html")
    add = parser.add_argument
    add("--balls", type=positive, default=2000, help="how many are thrown")
    add("--steps", type=positive, default=300, help="gradient steps")
    add("--word", default="vgrad", help="what they spell")
    add("--seed", type=count, default=1337, help="of the first throws")
    add("--explore", action="store_true", help="write one throw as a page with sliders, too")
    args = parser.parse_args(argv)
    if not args.word.strip():
        parser.error(f"argument --word: must have letters (got {args.word!r})")
    if args.no_plot and args.explore:
        parser.error("--explore writes a page: leave --no-plot out")
    return args


if __name__ == "__main__":
    run_main(main)
