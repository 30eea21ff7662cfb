"""Learns a hidden Markov model of an ion channel from noisy currents, by gradient descent.

Only the forward algorithm is written. The posterior of the states needs no backward algorithm: it
is the gradient of the log-likelihood with respect to the log-probabilities of the emissions.
"""

from pathlib import Path
from typing import Any

import numpy as np
from panels import COLOURS, INK, panels
from terminal import count, options, positive, run_main

import vgrad
from vgrad import Value, optim

STATES = {"closed": 0.0, "half open": 1.0, "open": 2.5}  # and the current in each, in pA
NOISE, STAY, RECORDINGS = 0.7, 0.9, 8


def log_likelihood(w: dict[str, Any], currents: Any, added: Any) -> Any:
    """Of a recording (T,); `added` (T, states) is 0, and there for its gradient."""
    rows = [[x - vgrad.logsumexp(row) for x in row] for row in w["transitions"]]
    alpha = [-np.log(len(rows))] * len(rows)  # logarithms, of each state and the past
    for t, current in enumerate(currents):
        if t > 0:
            alpha = [vgrad.logsumexp([a + x for a, x in zip(alpha, into)]) for into in zip(*rows)]
        for k, mean in enumerate(w["means"]):
            z = (current - mean) / vgrad.exp(w["log_deviation"])
            log_density = -(z**2) / 2 - w["log_deviation"] - np.log(2 * np.pi) / 2
            alpha[k] = alpha[k] + log_density + added[t, k]
    return vgrad.logsumexp(alpha)


def recorded(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """States of a channel and its currents, both (recordings, T)."""
    rng = np.random.default_rng(seed)
    states = rng.integers(len(STATES), size=(RECORDINGS, length))
    for t in range(1, length):
        states[:, t] = np.where(rng.random(RECORDINGS) < STAY, states[:, t - 1], states[:, t])
    return states, rng.normal(np.array([*STATES.values()])[states], NOISE)


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, "hmm.png")
    parser.add_argument("--steps", type=positive, default=100, help="gradient steps")
    parser.add_argument("--length", type=positive, default=200, help="currents in a recording")
    parser.add_argument("--seed", type=count, default=1337, help="of the recordings")
    args = parser.parse_args(argv)
    states, currents = recorded(args.length, args.seed)
    w = {
        "transitions": [[Value(2.0 * (i == j)) for i in range(3)] for j in range(3)],
        "means": [Value(x) for x in np.quantile(currents, [0.2, 0.5, 0.8])],
        "log_deviation": Value(0.0),
    }
    program = vgrad.compile(lambda *sample: -log_likelihood(w, *sample), parameters=w)
    theta, adam, zeros = program.theta(), optim.Adam(rate=0.1), np.zeros((*currents.shape, 3))
    for _ in range(args.steps):
        loss, gradient = program.value_and_grad(theta, currents, zeros)
        adam.step(theta, gradient)
    posterior = -program.input_grads(theta, currents, zeros)[1]
    means, right = program.unflatten(theta)["means"], posterior.argmax(axis=2) == states
    print("currents:", *(f"{x:.3f} ({truth})" for x, truth in zip(means, STATES.values())))
    print(f"log-likelihood {-loss:.2f}; most probable states are right: {right.mean():.1%}")
    if not args.no_plot:
        plot(args.out / "hmm.png", currents[0], posterior[0])
    return 0


def plot(path: Path, currents: np.ndarray, posterior: np.ndarray) -> None:
    with panels(path, 2, 1, sharex=True, height_ratios=[3, 2]) as (above, below):
        above.plot(currents, color=INK, lw=1)
        above.set_ylabel("current, pA")
        below.stackplot(range(len(currents)), posterior.T, colors=COLOURS, labels=STATES)
        below.set(xlabel="milliseconds", ylabel="probability", ylim=(0, 1))
        below.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))


if __name__ == "__main__":
    run_main(main)
