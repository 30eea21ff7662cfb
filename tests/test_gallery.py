"""The demos of the gallery are short, and their numbers are those of a closed form or of NumPy."""

from __future__ import annotations

import itertools
import math
import random
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import DEMOS, central_difference

import vgrad

README = (DEMOS / "README.md").read_text(encoding="utf-8")
NAMES = ["options", "oscillator", "kalman", "orbit", "hmm", "pinn", "mixture", "tree"]
SETTLED = {"options", "kalman", "orbit"}  # draw no random numbers


@pytest.fixture
def shown(load, capsys, tmp_path) -> Callable[..., tuple[Any, str]]:
    """Runs a demo, and gives what its picture was drawn from, and what it printed."""

    def run(name: str, *arguments: object) -> tuple[Any, str]:
        main = load(name)["main"]
        plot, given = main.__globals__["plot"], []
        main.__globals__["plot"] = lambda path, *what: [given.extend(what), plot(path, *what)]
        assert main([*map(str, arguments), "--out", str(tmp_path)]) == 0
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        printed = capsys.readouterr()
        assert printed.err == "" and f"wrote {tmp_path / name}.png" in printed.out
        return given, printed.out

    return run


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_is_short_and_has_its_place_in_the_gallery(name):
    assert len((DEMOS / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 80
    assert f"`demos/{name}.py" in README and f"](pictures/{name}.png)" in README


def test_all_pictures_are_shown_and_small():
    shown = re.findall(r"!\[[^]]+\]\(pictures/(.*?)\)", README)
    assert sorted(shown) == sorted(path.name for path in (DEMOS / "pictures").glob("*.[ps]*"))
    for name in shown:
        assert 1000 < (DEMOS / "pictures" / name).stat().st_size < 150_000, name


def test_the_demos_it_names_are_there():
    for name in re.findall(r"`demos/(\w+\.py)", README):
        assert (DEMOS / name).is_file(), name


@pytest.mark.parametrize("name", NAMES)
def test_importing_a_demo_does_nothing_and_its_help_names_its_options(
    name, load, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    main = load(name)["main"]
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr()
    found = set(re.findall(r"--[a-z-]+", printed.out))
    assert {"--out", "--no-plot"} <= found and ("--seed" in found) == (name not in SETTLED)
    assert printed.err == ""


# --- options -------------------------------------------------------------------------------------


@np.vectorize
def normal(x: float) -> float:
    """The distribution function of the normal distribution."""
    return math.erfc(-x / math.sqrt(2)) / 2


def black_scholes(S: Any, K: float, T: float, r: float, sigma: float, kind: float) -> list[Any]:
    """The price, delta, gamma, vega, theta and rho by their formulas: Hull, chapter 19."""
    d1 = (np.log(S / K) + (r + sigma**2 / 2) * T) / (sigma * math.sqrt(T))
    d2 = d1 - sigma * math.sqrt(T)
    density, owed = np.exp(-(d1**2) / 2) / math.sqrt(2 * math.pi), K * math.exp(-r * T)
    return [
        kind * (S * normal(kind * d1) - owed * normal(kind * d2)),
        kind * normal(kind * d1),
        density / (S * sigma * math.sqrt(T)),
        S * density * math.sqrt(T) / 100,
        (-S * density * sigma / (2 * math.sqrt(T)) - kind * r * owed * normal(kind * d2)) / 365,
        kind * T * owed * normal(kind * d2) / 100,
    ]


@pytest.mark.parametrize("kind", [1.0, -1.0])
def test_greeks_are_those_of_the_formulas(kind, load):
    """1e-12 of the largest: some ten roundings, which differences of prices magnify."""
    demo, spots = load("options"), np.linspace(60, 140, 9)
    agreed = [demo[name] for name in ("STRIKE", "YEARS", "RATE", "VOLATILITY")]
    for (name, found), right in zip(
        demo["greeks"](spots, kind).items(), black_scholes(spots, *agreed, kind), strict=True
    ):
        assert found == pytest.approx(right, abs=1e-12 * np.abs(right).max()), name


def test_calls_and_puts_are_at_parity(load):
    """A call less a put is the share less the strike, discounted; 1e-12 of prices of 100."""
    demo, spots = load("options"), np.linspace(60, 140, 9)
    call, put = (demo["greeks"](spots, demo[kind])["price"] for kind in ("CALL", "PUT"))
    owed = demo["STRIKE"] * math.exp(-demo["RATE"] * demo["YEARS"])
    assert call - put == pytest.approx(spots - owed, abs=1e-10)


def test_the_table_of_options(shown):
    _, output = shown("options")
    rows = [numbers(line) for line in output.splitlines() if line.startswith(" ")]
    right = [
        np.transpose(black_scholes(np.array([80.0, 100.0, 120.0]), 100, 0.5, 0.03, 0.25, kind))
        for kind in (1, -1)
    ]
    assert rows == [pytest.approx(row, abs=5.1e-5) for row in np.concatenate(right)]  # 4 digits


# --- an oscillator -------------------------------------------------------------------------------


def residual_and_jacobian(w: Any, t: Any, x: Any) -> tuple[Any, Any]:
    """By hand, of a exp(-d t) cos(f t + p)."""
    a, d, f, p = w
    fading, cos, sin = np.exp(-d * t), np.cos(f * t + p), np.sin(f * t + p)
    by_w = [fading * cos, -t * a * fading * cos, -t * a * fading * sin, -a * fading * sin]
    return a * fading * cos - x, np.stack(by_w, axis=1)


def gradient(w: Any, t: Any, x: Any) -> Any:
    residual, jacobian = residual_and_jacobian(w, t, x)
    return jacobian.T @ residual


def assert_fitted(demo: dict[str, Any], accuracy: float) -> None:
    t = np.linspace(0, 8, 80)
    rng = np.random.default_rng(7)
    x = demo["displacement"](demo["TRUTH"], t) + rng.normal(0, demo["NOISE"], 80)
    theta, errors = demo["fit"](t, x)
    assert np.abs(gradient(theta, t, x)).max() < accuracy  # the normal equations
    step = 1e-5 * np.eye(4)
    hessian = [(gradient(theta + h, t, x) - gradient(theta - h, t, x)) / 2e-5 for h in step]
    residual, _ = residual_and_jacobian(theta, t, x)
    covariance = residual @ residual / 76 * np.linalg.inv(hessian)
    # central differences are off by the square of the step, and by roundings over the step: 1e-9
    assert errors == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-7)
    assert (np.abs(theta - [*demo["TRUTH"].values()]) < 4 * errors).all()


def test_the_oscillator_is_fitted_without_scipy(load, monkeypatch):
    """Gauss-Newton ends at roundings, 1e-16 of sums of some hundred."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert_fitted(load("oscillator"), 1e-10)


def test_the_oscillator_is_fitted_with_scipy(load):
    """BFGS ends at a gradient of 1e-5."""
    pytest.importorskip("scipy")
    assert_fitted(load("oscillator"), 1e-5)


def test_what_the_oscillator_prints(shown):
    (t, x, found), output = shown("oscillator")
    lines = [numbers(line) for line in output.splitlines() if " ± " in line]
    assert [line[0] for line in lines] == pytest.approx([*found.values()], abs=5.1e-5)
    assert np.abs(gradient([*found.values()], t, x)).max() < 1e-5


# --- a Kalman filter -----------------------------------------------------------------------------


def test_a_filter_is_the_normal_distribution_of_all_observations(load):
    """Of which the filter is a way to compute with; 1e-10 for the inverse of a matrix of 29."""
    kalman, steps, noise, n = load("kalman")["kalman"], 0.3, 1.7, 30
    y = np.cumsum(np.random.default_rng(3).normal(size=n))
    # all less the first: what the level has walked, and the noise in both
    walked = steps * np.minimum.outer(np.arange(1, n), np.arange(1, n))
    covariance, d = walked + noise * (np.eye(n - 1) + 1), y[1:] - y[0]
    total, levels, variances = kalman(steps, noise, y)
    _, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
    wanted = (log_determinant + d @ np.linalg.solve(covariance, d)) / 2
    assert total == pytest.approx(wanted, rel=1e-10)
    common = walked[-1] + noise  # of the last level, less the first observation, with d
    gain = np.linalg.solve(covariance, common)
    assert levels[-1] == pytest.approx(y[0] + gain @ d, rel=1e-10)
    wanted = steps * (n - 1) + noise - gain @ common
    assert variances[-1] == pytest.approx(wanted, rel=1e-10)


def test_the_variances_of_the_nile_are_those_of_the_book(shown):
    """Durbin and Koopman 2012, section 2.10.3: 15099 and 1469.1 after some steps of BFGS."""
    (flow, levels, deviations), output = shown("kalman")
    assert len(flow) == len(levels) == len(deviations) == 100
    steps, noise = numbers(output.splitlines()[-2])
    assert steps == pytest.approx(1469.1, abs=0.2) and noise == pytest.approx(15099, abs=1)
    assert "log-likelihood -632.5456, gradient" in output


# --- an orbit ------------------------------------------------------------------------------------


def test_a_quarter_of_a_circle(load):
    """Runge-Kutta is off by some 1e-2 of the fourth power of a step, which is 0.016."""
    end = load("orbit")["flight"]([1.0, 0.0, 0.0, 1.0], np.pi / 2, 100)[-1]
    assert end.tolist() == pytest.approx([0, 1, -1, 0], abs=1e-8)


def test_where_a_flight_leads_has_the_right_derivatives(load):
    """Central differences with a step of 1e-5 are right to 1e-9 for numbers of some 1."""
    flight, start = load("orbit")["flight"], [1.0, 0.0, 0.1, 0.9]
    program = vgrad.compile(lambda start, t: flight(start, t, 10)[-1, :2])
    _, (jacobian, _) = program.input_jacobian([], [start], [1.5])
    for i, k in itertools.product(range(2), range(4)):
        slope = central_difference(lambda *s, i=i: flight(s, 1.5, 10)[-1, i], start, k, 1e-5)
        assert jacobian[0, i, k] == pytest.approx(slope, abs=1e-8)


def kepler(start: Any, time: float) -> Any:
    """Where a body is on its ellipse after a time, by Kepler's equation and f and g."""
    place, velocity = np.array(start[:2]), np.array(start[2:])
    r = np.hypot(*place)
    a = 1 / (2 / r - velocity @ velocity)
    e_cos, e_sin, n = 1 - r / a, place @ velocity / math.sqrt(a), a**-1.5
    moved = n * time  # the eccentric anomaly, less that at the start
    for _ in range(50):
        unlike = moved - e_cos * math.sin(moved) + e_sin * (1 - math.cos(moved)) - n * time
        moved -= unlike / (1 - e_cos * math.cos(moved) + e_sin * math.sin(moved))
    f = 1 - a / r * (1 - math.cos(moved))
    return f * place + (time + (math.sin(moved) - moved) / n) * velocity


def test_flights_arrive_by_keplers_equation(load):
    """With 50 steps Runge-Kutta is off by some 1e-6."""
    demo, times = load("orbit"), np.array([2.2, 2.8, 3.4])
    for start, time in zip(demo["shoot"](times, 50), times):
        assert kepler(start, time) == pytest.approx(demo["MARS"], abs=1e-5)


def test_what_the_orbit_prints(shown):
    (x, y, speed), output = shown("orbit", "--steps", 16)
    *_, misses, energy, least, _ = output.splitlines()
    assert numbers(misses)[0] < 1e-12 and numbers(energy)[0] < 1e-4
    assert numbers(least) == [pytest.approx(speed.min(), abs=0.0051)]  # two digits
    assert x[:, -1] == pytest.approx(-0.9) and y[:, -1] == pytest.approx(1.2)


# --- a hidden Markov model -----------------------------------------------------------------------


def markov(rng: np.random.Generator, T: int) -> tuple[dict[str, Any], Any, Any, Any]:
    """Numbers for a model, currents (T,), and the probabilities: of moves, of what is emitted."""
    w = {
        "transitions": rng.normal(size=(3, 3)).tolist(),
        "means": rng.normal(size=3).tolist(),
        "log_deviation": -0.3,
    }
    moves = np.exp(w["transitions"])
    currents, deviation = rng.normal(size=T), math.exp(w["log_deviation"])
    z = (currents[:, None] - w["means"]) / deviation
    emitted = np.exp(-(z**2) / 2) / (deviation * math.sqrt(2 * np.pi))
    return w, currents, moves / moves.sum(axis=1, keepdims=True), emitted


def posterior(demo: dict[str, Any], w: dict[str, Any], currents: Any) -> tuple[Any, Any]:
    """The log-likelihood, and its gradient to what is added."""
    program = vgrad.compile(lambda *sample: demo["log_likelihood"](w, *sample), parameters=[])
    sample = currents[None], np.zeros((1, len(currents), 3))
    return program([], *sample)[0], program.input_grads([], *sample)[1][0]


def test_a_markov_model_is_the_sum_over_all_sequences_of_states(load):
    """1e-12: the numbers are some ten, and are added up 243 at a time."""
    w, currents, moves, emitted = markov(np.random.default_rng(5), 5)
    total, weights = 0.0, np.zeros((5, 3))
    for path in itertools.product(range(3), repeat=5):
        p = np.prod(emitted[range(5), path]) * np.prod(moves[path[:-1], path[1:]]) / 3
        total += p
        weights[range(5), path] += p
    found, gradient = posterior(load("hmm"), w, currents)
    assert found == pytest.approx(math.log(total), abs=1e-12)
    assert gradient == pytest.approx(weights / total, abs=1e-12)


def test_the_gradient_is_what_forward_and_backward_give(load):
    """1e-12, as each pass takes 40 steps, of some roundings each."""
    w, currents, moves, emitted = markov(np.random.default_rng(6), 40)
    alpha, beta = np.ones((40, 3)), np.ones((40, 3))
    alpha[0] = emitted[0]
    for t in range(1, 40):
        alpha[t] = alpha[t - 1] @ moves * emitted[t]
        beta[-t - 1] = moves @ (emitted[-t] * beta[-t])
    wanted = alpha * beta / (alpha[-1].sum())
    assert posterior(load("hmm"), w, currents)[1] == pytest.approx(wanted, abs=1e-12)


def test_a_markov_model_learns(shown):
    """More currents are nearest to the means after some steps, and posteriors sum to 1."""
    (currents, probabilities), output = shown("hmm", "--steps", 30, "--length", 60)
    assert probabilities.sum(axis=1) == pytest.approx(1) and len(currents) == len(probabilities)
    assert numbers(output.splitlines()[1])[1] > 90  # % of the states


# --- a physics-informed network ------------------------------------------------------------------


@pytest.mark.parametrize("heat", [1.0, 2.0, 3.0])
def test_the_exact_temperature_obeys_the_equation(heat, load):
    """Second differences are off by 1e-3 squared, times fourth derivatives of some ten."""
    exact, x = load("pinn")["exact"], np.linspace(0.1, 0.9, 9)
    assert exact(np.array([0.0, 1.0]), heat) == pytest.approx(0, abs=1e-12)
    curvature = (exact(x + 1e-3, heat) - 2 * exact(x, heat) + exact(x - 1e-3, heat)) / 1e-6
    assert curvature + heat * np.exp(exact(x, heat)) == pytest.approx(0, abs=1e-4)


def test_the_residual_has_the_second_derivative(load):
    """By differences, as above, of a network."""
    demo = load("pinn")
    model = vgrad.nn.MLP(2, [3, 1], "tanh", rng=random.Random(1))

    def u(x: float) -> float:
        return demo["temperature"](model, x, 2.0).data

    found = vgrad.compile(lambda x, h: demo["residual"](model, x, h), [])([], [0.3], 2.0)[0]
    curvature = (u(0.301) - 2 * u(0.3) + u(0.299)) / 1e-6
    assert found == pytest.approx(curvature + 2 * math.exp(u(0.3)), abs=1e-4)


def test_a_network_learns_temperatures(shown):
    """10 steps of the method leave some 1e-2; the hottest, for a heat of 1, is 0.1405."""
    (_, curves), output = shown("pinn", "--steps", 10)
    assert len(curves) == 3 and numbers(output)[0] == 0.1405
    for found, exact in curves.values():
        assert found == pytest.approx(exact, abs=0.03)


# --- a mixture density network -------------------------------------------------------------------


def test_the_density_is_that_of_a_mixture(load):
    """By its formula, 1e-12, and it sums to 1 over a grid that is fine for its deviations."""
    demo = load("mixture")
    model = vgrad.nn.MLP(1, [4, 9], "tanh", rng=random.Random(2))
    w1, w2 = (np.array([[p.data for p in n.w] for n in layer.neurons]) for layer in model.layers)
    out = w2 @ np.tanh(w1[:, 0] * (4 * 0.3 - 2))  # biases are 0
    weights = np.exp(out[:3]) / np.exp(out[:3]).sum()
    means, deviations = out[3:6] + np.array([1, 3, 5]) / 6, np.exp(out[6:])
    x = np.linspace(-30, 30, 6001)
    parts = np.exp(-(((x[:, None] - means) / deviations) ** 2) / 2) / deviations
    wanted = parts @ weights / math.sqrt(2 * np.pi)
    program = vgrad.compile(lambda y, x: demo["log_density"](model, y, x), [])
    density = np.exp(program([], 0.3, x))
    assert density == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert density.sum() * 0.01 == pytest.approx(1, abs=1e-6)


def test_three_gaussians_are_better_than_one(shown):
    (models, y, x), output = shown("mixture", "--steps", 100)
    one, three = (numbers(line)[0] for line in output.splitlines()[:2])
    assert three > one + 0.2
    assert [len(model.parameters()) for model in models] == [83, 185]
    assert len(x) == len(y) == 500


# --- a decision tree -----------------------------------------------------------------------------


def leaf_of(node: dict[str, Any], x: Any) -> Any:
    """What a tree of plain numbers gives for points (B, 2), with masks and no paths."""
    if "leaf" in node:
        return np.full(len(x), node["leaf"])
    angle, offset = node["split"]
    side = np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 1] > offset
    return np.where(side, leaf_of(node["yes"], x), leaf_of(node["no"], x))


def test_a_tree_gives_the_mean_of_the_samples_at_a_leaf(shown, load):
    """1e-12 for values of some ten."""
    (tree, theta), output = shown("tree", "--depth", 3, "--steps", 30, "--seed", 5)
    demo, rng = load("tree"), np.random.default_rng(5)
    demo["grow"](3, rng)
    x = rng.uniform(-3, 3, (1000, 2))  # those of the demo
    z, found = demo["peaks"](x[:, 0], x[:, 1]), tree(theta, x)
    assert found == pytest.approx(leaf_of(tree.unflatten(theta), x), abs=1e-12)
    leaves = np.unique(found.round(9))
    assert len(leaves) >= 4 and int(re.search(r"samples: (\d+)", output)[1]) == len(leaves)
    for leaf in leaves:
        assert z[np.abs(found - leaf) < 1e-8].mean() == pytest.approx(leaf, abs=1e-8)
    assert np.mean((found - z) ** 2) == pytest.approx(numbers(output)[2], abs=5.1e-4)


def test_shares_are_paths_when_they_are_sharp(load):
    """At 1e4, all but the points at a cut, where shares are between 0 and 1."""
    demo, rng = load("tree"), np.random.default_rng(4)
    root = demo["grow"](3, rng)
    x = rng.uniform(-3, 3, (200, 2))
    program = vgrad.compile(lambda x, s: demo["soft"](root, x, s), root)
    theta = program.theta() + rng.normal(size=len(program.theta()))
    right = leaf_of(program.unflatten(theta), x)
    assert np.mean(np.abs(program(theta, x, 1e4) - right) < 1e-6) > 0.95


def test_peaks(load):
    """The highest and lowest points that MATLAB's documentation has, in four digits."""
    peaks = load("tree")["peaks"]
    assert peaks(-0.0093, 1.5814) == pytest.approx(8.1062, abs=5e-4)
    assert peaks(0.2283, -1.6255) == pytest.approx(-6.5511, abs=5e-4)
