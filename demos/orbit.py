"""Finds the departure velocities from Earth that reach Mars in given times: Lambert's problem.

Newton's method needs the Jacobian of the end of a flight, through all steps of Runge-Kutta.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from panels import COLOURS, INK, panels
from terminal import options, positive, run_main

import vgrad

EARTH, MARS = (1.0, 0.0, 0.0, 1.0), (-0.9, 1.2)  # position and velocity; position
DAYS, DAY, KM_PER_SECOND = np.arange(80, 201, 3), 2 * np.pi / 365.25, 29.78  # Earth has speed 1


def slope(x: Any, y: Any, vx: Any, vy: Any) -> list[Any]:
    cubed = (x**2 + y**2) ** 1.5
    return [vx, vy, -x / cubed, -y / cubed]


def flight(start: Any, time: Any, steps: int) -> Any:
    """The states (steps + 1, 4) at equal times: x, y and velocity."""
    states, h = [list(start)], time / steps
    for _ in range(steps):
        s = states[-1]
        k1 = slope(*s)
        k2 = slope(*[x + h / 2 * k for x, k in zip(s, k1)])
        k3 = slope(*[x + h / 2 * k for x, k in zip(s, k2)])
        k4 = slope(*[x + h * k for x, k in zip(s, k3)])
        states.append([x + h / 6 * sum(k) for x, *k in zip(s, k1, k2, k2, k3, k3, k4)])
    return vgrad.array(states)


def shoot(times: np.ndarray, steps: int) -> np.ndarray:
    """The states (B, 4) at departure of flights that are at Mars after these times."""
    arrival = vgrad.compile(lambda start, t: flight(start, t, steps)[-1, :2])
    starts = np.tile(EARTH, (len(times), 1))
    for k in range(7):
        ends, (jacobian, _) = arrival.input_jacobian([], starts, times)
        print(f"step {k}: misses Mars by {np.abs(ends - MARS).max():.1e}")
        starts[:, 2:] -= np.linalg.solve(jacobian[:, :, 2:], (ends - MARS)[..., None])[..., 0]
    return starts


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, "orbit.png")
    parser.add_argument("--steps", type=positive, default=100, help="of Runge-Kutta in a flight")
    args = parser.parse_args(argv)
    starts = shoot(DAYS * DAY, args.steps)
    states = vgrad.compile(partial(flight, steps=args.steps))([], starts, DAYS * DAY)
    x, y, vx, vy = np.moveaxis(states, 2, 0)  # (B, steps + 1) each
    energy = (vx**2 + vy**2) / 2 - 1 / np.hypot(x, y)
    speed = KM_PER_SECOND * np.hypot(*(starts - EARTH)[:, 2:].T)  # relative to Earth
    print(f"energy changes by {np.ptp(energy, axis=1).max():.1e} at most")
    print(f"least departure speed: {speed.min():.2f} km/s, for {DAYS[speed.argmin()]} days")
    if not args.no_plot:
        plot(args.out / "orbit.png", x, y, speed)
    return 0


def plot(path: Path, x: np.ndarray, y: np.ndarray, speed: np.ndarray) -> None:
    radii, angle = np.hypot(*zip(EARTH[:2], MARS)), np.linspace(0, 2 * np.pi, 200)[:, None]
    with panels(path, 1, 2) as (left, right):
        left.plot(radii * np.cos(angle), radii * np.sin(angle), ":", color=INK, lw=1)
        left.plot(0, 0, "o", color=COLOURS[5], markersize=14)
        right.plot(DAYS, speed, color=INK)
        for k, colour in zip(range(0, len(DAYS), 10), COLOURS):
            left.plot(x[k], y[k], color=colour)
            right.plot(DAYS[k], speed[k], "o", color=colour)
        left.plot(*zip(EARTH[:2], MARS), "o", color=INK)
        left.set(aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1], title="flights")
        right.set(xlabel="days", title="departure speed, km/s")


if __name__ == "__main__":
    run_main(main)
