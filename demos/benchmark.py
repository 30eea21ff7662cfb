"""Measure vgrad against its scalar engine, hand-written NumPy, and what else is installed.

Peers run side by side in one process, in turn, and the median of the repeats counts. All must agree
on the loss before a time is printed. The measurements run twice: with one thread per peer, and with
as many as each peer takes. JAX, PyTorch, autograd and micrograd take part where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import branch_peers
import derivative_peers
import formula_peers
import gpt
import gpt_peers
import numpy as np
import sequence_peers
from derivatives import DERIVATIVES, network
from formulas import FORMULAS
from sequences import SEQUENCES
from terminal import Progress, positive, run_main, several, write

import vgrad

ONE_THREAD = {
    **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
ALPHA = 1e-4  # weight of the penalty
SIZES = [16, 16]  # of the hidden layers


class Peer(NamedTuple):
    name: str
    run: Callable[[], float]  # returns what all must agree on
    share: float = 1.0  # how much of the work it does, where all of it would take minutes
    expected: float | None = None  # what it returns then
    tolerance: float = 1e-9  # 100 steps pass on the roundings of sums in other orders, about 1e-13
    slow: bool = False  # whether fewer repeats must do
    loops: int = 1  # how often it runs in each repeat


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if not args.here:  # in processes of their own, as BLAS reads the number when it is loaded
        options = sys.argv[1:] if argv is None else argv
        for threads in [args.threads] if args.threads else ["one", "all"]:
            environment = os.environ | (ONE_THREAD if threads == "one" else {})
            command = [sys.executable, __file__, *options, "--threads", threads, "--here"]
            code = subprocess.run(command, env=environment, check=False).returncode
            if code:
                return code
            options = [option for option in options if option != "--plot"]  # one picture will do
        return 0
    print(f"== {args.threads} thread{'s' * (args.threads == 'all')}, {os.cpu_count()} cores\n")
    for case in args.cases:
        CASES[case](args)
    if args.plot:
        plot(args)
    return 0


# --- measuring -----------------------------------------------------------------------------------


def compare(title: str, peers: list[Peer], args: argparse.Namespace) -> dict[str, float]:
    """Run the peers in turn and print a table; the first is what all are compared with."""
    medians = measured(peers, args)
    print(title)
    for name, median in medians.items():
        print(f"  {name:<34}{1e3 * median:12.2f} ms {median / medians[peers[0].name]:10.2f}")
    print(flush=True)
    return medians


def measured(peers: list[Peer], args: argparse.Namespace) -> dict[str, float]:
    """The peers' seconds: medians of repeats, in turn, once all agree with the first."""
    want = peers[0].run()
    for peer in peers:
        got, expected = peer.run(), want if peer.expected is None else peer.expected
        if not math.isclose(got, expected, rel_tol=peer.tolerance):
            raise SystemExit(f"{peer.name} must agree with {peers[0].name} ({got} and {expected})")
    seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with Progress(lasting=False) as progress:
        for k in range(args.repeats):
            for peer in peers:
                if not (peer.slow or peer.share < 1.0) or k < args.slow_repeats:
                    progress(f"repeat {k + 1} of {args.repeats}: {peer.name}")
                    start = time.perf_counter()
                    for _ in range(peer.loops):
                        peer.run()
                    work = peer.share * peer.loops
                    seconds[peer.name].append((time.perf_counter() - start) / work)
    return {name: statistics.median(times) for name, times in seconds.items()}


def installed(*names: str) -> Iterator[Any]:
    """The modules of these names that can be imported, None for the others."""
    for name in names:
        there = importlib.util.find_spec(name.split(".")[0])
        yield importlib.import_module(name) if there else None


# --- the moons, by every peer --------------------------------------------------------------------


class Moons:
    """The problem: data, and a network's first parameters, flat and as NumPy and JAX take them."""

    def __init__(self, samples: int, activation: vgrad.nn.Activation = "relu") -> None:
        X, y = vgrad.datasets.make_moons(samples, noise=0.1, seed=1337)
        self.X, self.y = X, 2.0 * y - 1
        self.model = vgrad.nn.MLP(2, [*SIZES, 1], activation, rng=random.Random(1337))
        self.theta = np.array([p.data for p in self.model.parameters()])

    def loss(self, x: Any, y: Any) -> Any:
        """Of one sample, as scalar code."""
        penalty = ALPHA * sum(p * p for p in self.model.parameters())
        return (1 - y * self.model(x)).relu() + penalty

    def program(self, **options: Any) -> vgrad.Program:
        return vgrad.compile(self.loss, self.model.parameters(), **options)

    def scalar_loss(self, module: Any = None) -> tuple[Any, list[Any]]:
        """Of all samples, as a graph of `Value`s, vgrad's or another module's; and the leaves."""
        model = self.model
        if module is not None:
            model = module.nn.MLP(2, [*SIZES, 1])
            for p, start in zip(model.parameters(), self.theta.tolist()):
                p.data = start
        margins = [(1 - t * model(x)).relu() for x, t in zip(self.X.tolist(), self.y.tolist())]
        penalty = ALPHA * sum(p * p for p in model.parameters())
        return sum(margins) * (1.0 / len(margins)) + penalty, model.parameters()

    def layers(self) -> list[Any]:
        """theta as W, b, W, b, W, b."""
        arrays, start = [], 0
        for nin, nout in zip([2, *SIZES], [*SIZES, 1]):
            layer = self.theta[start : start + nout * (nin + 1)].reshape(nout, nin + 1)
            arrays += [layer[:, :-1].copy(), layer[:, -1].copy()]
            start += layer.size
        return arrays


def rate(k: int) -> float:
    return 1.0 - 0.9 * k / 100


def by_hand(parameters: list[Any], X: Any, y: Any) -> tuple[float, list[Any]]:
    """The loss and its gradients in NumPy, forward and backward written out."""
    W1, b1, W2, b2, W3, b3 = parameters
    z1 = X @ W1.T + b1
    h1 = np.maximum(z1, 0)
    z2 = h1 @ W2.T + b2
    h2 = np.maximum(z2, 0)
    margin = 1 - y * (h2 @ W3.T + b3)[:, 0]
    loss = np.maximum(margin, 0).mean() + ALPHA * sum(np.vdot(p, p) for p in parameters)
    d3 = np.where(margin > 0, -y / len(y), 0.0)[:, None]
    d2 = (d3 @ W3) * (z2 > 0)
    d1 = (d2 @ W2) * (z1 > 0)
    grads = [d1.T @ X, d1.sum(axis=0), d2.T @ h1, d2.sum(axis=0), d3.T @ h2, d3.sum(axis=0)]
    return loss, [g + 2 * ALPHA * p for g, p in zip(grads, parameters)]


def train_by_hand(moons: Moons, steps: int) -> float:
    parameters = moons.layers()
    for k in range(steps):
        loss, grads = by_hand(parameters, moons.X, moons.y)
        for p, g in zip(parameters, grads):
            p -= rate(k) * g
    return float(loss)


def train(program: vgrad.Program, theta: Any, arrays: tuple[Any, ...], steps: int) -> float:
    theta = theta.copy()
    for k in range(steps):
        loss, grad = program.value_and_grad(theta, *arrays)
        theta -= rate(k) * grad
    return loss


def train_scalar(moons: Moons, steps: int, module: Any = None) -> float:
    """micrograd's loop: the graph of all samples is built anew at every step."""
    parameters = moons.model.parameters()
    for p, start in zip(parameters, moons.theta.tolist()):
        p.data = start
    for k in range(steps):
        loss, parameters = moons.scalar_loss(module)
        for p in parameters:
            p.grad = 0.0
        loss.backward()
        for p in parameters:
            p.data -= rate(k) * p.grad
    for p, start in zip(moons.model.parameters(), moons.theta.tolist()):
        p.data = start
    return loss.data


def array_loss(xp: Any, parameters: Any, X: Any, y: Any) -> Any:
    """The loss in the array functions of autograd or JAX."""
    W1, b1, W2, b2, W3, b3 = parameters
    h = xp.maximum(X @ W1.T + b1, 0)
    h = xp.maximum(h @ W2.T + b2, 0)
    margin = 1 - y * (h @ W3.T + b3)[:, 0]
    penalty = sum(xp.sum(p * p) for p in parameters)
    return xp.mean(xp.maximum(margin, 0)) + ALPHA * penalty


def jax_peers(moons: Moons, steps: int) -> Iterator[Peer]:
    (jax,) = installed("jax")
    if jax is None:
        return
    jax.config.update("jax_enable_x64", True)
    X, y = jax.numpy.asarray(moons.X), jax.numpy.asarray(moons.y)
    start = [jax.numpy.asarray(p) for p in moons.layers()]

    def loss(parameters: Any, X: Any, y: Any) -> Any:
        return array_loss(jax.numpy, parameters, X, y)

    value_and_grad = jax.jit(jax.value_and_grad(loss))

    @jax.jit
    def step(parameters: Any, X: Any, y: Any, rate: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(parameters, X, y)
        return value, [p - rate * g for p, g in zip(parameters, grads)]

    def whole_step() -> float:
        parameters = start
        for k in range(steps):
            value, parameters = step(parameters, X, y, rate(k))
        return float(value)

    def gradient_only() -> float:
        parameters = moons.layers()
        for k in range(steps):
            value, grads = value_and_grad(parameters, X, y)
            for p, g in zip(parameters, grads):
                p -= rate(k) * np.asarray(g)
        return float(value)

    yield Peer("JAX, jit of the gradient", gradient_only)
    if steps > 1:
        yield Peer("JAX, jit of the whole step", whole_step)


def torch_peers(moons: Moons, steps: int) -> Iterator[Peer]:
    (torch,) = installed("torch")
    if torch is None:
        return
    use_threads(torch)
    X, y = torch.from_numpy(moons.X), torch.from_numpy(moons.y)

    def run() -> float:
        parameters = [torch.from_numpy(p).requires_grad_() for p in moons.layers()]
        for k in range(steps):
            W1, b1, W2, b2, W3, b3 = parameters
            h = (torch.relu(X @ W1.T + b1) @ W2.T + b2).relu()
            margin = 1 - y * (h @ W3.T + b3)[:, 0]
            loss = margin.relu().mean() + ALPHA * sum((p * p).sum() for p in parameters)
            grads = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, g in zip(parameters, grads):
                    p -= rate(k) * g
        return loss.item()

    yield Peer("PyTorch, eager", run)


def use_threads(torch: Any) -> None:
    """One, where the environment asks for that."""
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(1)


def autograd_peers(moons: Moons, steps: int) -> Iterator[Peer]:
    autograd, numpy = installed("autograd", "autograd.numpy")
    if autograd is None:
        return
    value_and_grad = autograd.value_and_grad(
        lambda parameters: array_loss(numpy, parameters, moons.X, moons.y)
    )

    def run() -> float:
        parameters = moons.layers()
        for k in range(steps):
            loss, grads = value_and_grad(parameters)
            for p, g in zip(parameters, grads):
                p -= rate(k) * g
        return float(loss)

    yield Peer("autograd", run)


def scalar_peers(moons: Moons, steps: int, few: int) -> Iterator[Peer]:
    """Loops over `Value`s, which take seconds a step: `few` steps, and the time scaled up."""
    few = min(few, steps)
    expected, share = train_by_hand(moons, few), few / steps
    yield Peer("vgrad's scalar engine", lambda: train_scalar(moons, few), share, expected)
    (micrograd,) = installed("micrograd")
    if micrograd is not None:
        importlib.import_module("micrograd.nn")
        run = lambda: train_scalar(moons, 1, micrograd)  # noqa: E731
        yield Peer("micrograd", run, 1 / steps, train_by_hand(moons, 1))


# --- the cases -----------------------------------------------------------------------------------


def training(args: argparse.Namespace) -> None:
    """The moons: training on 100 samples, both engines and peers."""
    steps, moons = args.steps, Moons(100)
    arrays = (moons.X, moons.y)
    fused, plain = moons.program(), moons.program(fuse=False)
    peers = [
        Peer("NumPy by hand", lambda: train_by_hand(moons, steps)),
        Peer("vgrad", lambda: train(fused, moons.theta, arrays, steps)),
        Peer("vgrad, fuse=False", lambda: train(plain, moons.theta, arrays, steps)),
        *jax_peers(moons, steps),
        *torch_peers(moons, steps),
        *autograd_peers(moons, steps),
        *scalar_peers(moons, steps, few=2),
    ]
    compare(f"(a) moons: {steps} steps at 100 samples", peers, args)


def large_batch(args: argparse.Namespace) -> None:
    """The moons: a gradient at many samples, and how it grows."""
    compare_batches(f"(b) moons: value and gradient at {args.batch:,} samples", args.batch, args)


def compare_batches(title: str, batch: int, args: argparse.Namespace) -> dict[str, float]:
    moons = Moons(batch)
    X, y, layers = moons.X, moons.y, moons.layers()
    peers = [Peer("NumPy by hand", lambda: float(by_hand(layers, X, y)[0]))]
    options: dict[str, dict[str, Any]] = {"vgrad": {}, "vgrad, fuse=False": {"fuse": False}}
    with ExitStack() as pools:
        for workers in sorted({2, os.cpu_count() or 1} - {1}):
            pool = pools.enter_context(ThreadPoolExecutor(workers))
            options[f"vgrad, {workers} threads"] = {"executor": pool}
        for name, chosen in options.items():
            program = moons.program(**chosen)
            peers.append(Peer(name, lambda p=program: p.value_and_grad(moons.theta, X, y)[0]))
        others = (jax_peers, torch_peers, autograd_peers)
        return compare(title, [*peers, *(p for find in others for p in find(moons, 1))], args)


def captured(args: argparse.Namespace) -> None:
    """A captured loss of `Value`s, replayed."""
    steps, moons = args.steps, Moons(args.captured)
    graph = vgrad.capture(moons.scalar_loss()[0], parameters=moons.model.parameters())
    fused, plain = vgrad.compile(graph), vgrad.compile(graph, fuse=False)
    peers = [
        Peer("NumPy by hand", lambda: train_by_hand(moons, steps)),
        Peer("vgrad", lambda: train(fused, moons.theta, (), steps)),
        Peer("vgrad, fuse=False", lambda: train(plain, moons.theta, (), steps)),
        *scalar_peers(moons, steps, few=2),
    ]
    title = f"(c) moons: {steps} steps, replaying a captured graph of {len(graph):,} nodes"
    compare(title, peers, args)


def recording(args: argparse.Namespace) -> None:
    """Recording and compiling a network, per node."""
    print("(d) recording and compiling a network, per node")
    for nodes, traced, compiled in recording_times(args):
        print(f"  {nodes:>9,} nodes   trace {traced:6.2f} µs   compile {compiled:6.2f} µs")
    print(flush=True)


def recording_times(args: argparse.Namespace) -> Iterator[tuple[int, float, float]]:
    """Numbers of nodes, and the microseconds a node takes: medians of repeats."""
    for power in range(3, args.nodes + 1):
        width = max(2, round((10**power / 16) ** 0.5))
        model = vgrad.nn.MLP(width, [width] * 8, rng=random.Random(0))
        times = []
        for _ in range(args.repeats if power < 6 else args.slow_repeats):
            start = time.perf_counter()
            graph = vgrad.trace(model, (width,), parameters=model.parameters())
            traced = time.perf_counter()
            vgrad.compile(graph).explain(np.zeros((1, width)))
            times.append((traced - start, time.perf_counter() - traced))
        medians = [1e6 * statistics.median(column) / len(graph) for column in zip(*times)]
        yield len(graph), medians[0], medians[1]


def memory(args: argparse.Namespace) -> None:
    """The moons: peak memory."""
    print("(e) moons: peak memory of value and gradient, beyond the arrays given, in MB")
    for batch, ours, by_numpy in memory_peaks(args):
        print(f"  {batch:>9,} samples   vgrad {ours:8.2f}   NumPy by hand {by_numpy:8.2f}")
    print(flush=True)


def memory_peaks(args: argparse.Namespace) -> Iterator[tuple[int, float, float]]:
    for batch in (-(-args.batch // 100), -(-args.batch // 10), args.batch, 10 * args.batch):
        moons = Moons(batch)
        program, layers = moons.program(), moons.layers()

        def ours(program: Any = program, moons: Moons = moons) -> None:
            program.value_and_grad(moons.theta, moons.X, moons.y)

        def by_numpy(layers: Any = layers, moons: Moons = moons) -> None:
            by_hand(layers, moons.X, moons.y)

        program.theta(moons.X[:1], moons.y[:1])  # records
        yield batch, peak(ours), peak(by_numpy)


def peak(call: Callable[[], None]) -> float:
    tracemalloc.start()
    call()
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest / 1e6


def chain(args: argparse.Namespace) -> None:
    """A chain, x = sin(w x + b), again and again: one operation at a time."""
    depth, batch = args.depth, 100
    w, b = vgrad.Value(0.9), vgrad.Value(0.1)
    X = np.random.default_rng(0).normal(size=batch)
    theta = np.array([0.9, 0.1])

    def loss(x: Any) -> Any:
        for _ in range(depth):
            x = vgrad.sin(w * x + b)
        return x

    def written_out() -> float:
        xs, zs = [X], []
        for _ in range(depth):
            zs.append(theta[0] * xs[-1] + theta[1])
            xs.append(np.sin(zs[-1]))
        g, gw, gb = np.full(batch, 1 / batch), 0.0, 0.0
        for x, z in zip(xs[-2::-1], zs[::-1]):
            g = g * np.cos(z)
            gw, gb, g = gw + g @ x, gb + g.sum(), g * theta[0]
        return float(xs[-1].mean() + gw + gb)

    def run(program: vgrad.Program) -> float:
        value, grad = program.value_and_grad(theta, X)
        return float(value + grad.sum())

    fused, plain = (vgrad.compile(loss, [w, b], fuse=fuse) for fuse in (True, False))
    start = time.perf_counter()
    graph = vgrad.trace(loss, (), parameters=[w, b])
    traced = time.perf_counter()
    fused.value_and_grad(theta, X)
    per_node = [1e6 * t / len(graph) for t in (traced - start, time.perf_counter() - traced)]
    print("(f) a chain: trace {:.2f} µs, trace, compile and run {:.2f} µs a node".format(*per_node))
    peers = [
        Peer("NumPy by hand", written_out),
        Peer("vgrad", lambda: run(fused)),
        Peer("vgrad, fuse=False", lambda: run(plain)),
    ]
    (torch,) = installed("torch")
    if torch is not None:

        def run_torch() -> float:
            p = torch.from_numpy(theta.copy()).requires_grad_()
            x = torch.from_numpy(X)
            for _ in range(depth):
                x = torch.sin(p[0] * x + p[1])
            value = x.mean()
            (grad,) = torch.autograd.grad(value, p)
            return (value + grad.sum()).item()

        peers.append(Peer("PyTorch, eager", run_torch))
    compare(f"    a chain of {2 * depth:,} levels, one node each, at {batch} samples", peers, args)


def options(args: argparse.Namespace) -> None:
    """A book of options, and its Hessians."""
    for samples in (100, args.batch):
        compare_options(samples, args)
        compare_hessians(samples, args)


def compare_options(samples: int, args: argparse.Namespace) -> None:
    steps, moons = max(1, args.steps * 100 // samples), Moons(samples)
    chosen: dict[str, dict[str, Any]] = {
        "vgrad": {},
        "vgrad, check_finite=True": {"check_finite": True},
        "vgrad, dtype=np.float32": {"dtype": np.float32},
    }
    peers = []
    for name, kind in chosen.items():
        run = partial(train, moons.program(**kind), moons.theta, (moons.X, moons.y), steps)
        # steps through kinks of relu part ways that float32 rounds differently
        peers.append(Peer(name, run, tolerance=0.05 if "dtype" in kind else 1e-9))
    compare(f"(g) moons: {steps} steps at {samples:,} samples, with options", peers, args)


def compare_hessians(samples: int, args: argparse.Namespace) -> None:
    """Of a network of tanh, as the second derivative of relu is 0."""
    moons, step = Moons(samples, "tanh"), 1e-6
    theta, arrays, v = moons.theta, (moons.X, moons.y), np.cos(np.arange(len(moons.theta)))
    program = moons.program()

    def two_gradients() -> float:
        up, down = (program.value_and_grad(theta + h * v, *arrays)[1] for h in (step, -step))
        return float(v @ (up - down)) / (2 * step)

    def product() -> float:
        return float(v @ program.hessian_vector_product(theta, v, *arrays))

    peers = [
        Peer("two gradients", two_gradients),
        Peer("hessian_vector_product", product, tolerance=1e-4),  # that of the differences
    ]
    compare(f"    a Hessian times a vector at {samples:,} samples", peers, args)


def language(args: argparse.Namespace) -> None:
    """Steps of the GPT of `gpt.py`, with Adam, on documents that fill its positions."""
    engine = gpt.Vector(gpt.Sizes(vocabulary=27))
    print(f"(h) a GPT written one number at a time: {engine.report}")
    for batch in (1, 32):
        compare_gpts(engine, batch, args)


def compare_gpts(engine: gpt.Vector, batch: int, args: argparse.Namespace) -> None:
    sizes, steps = engine.sizes, -(-args.steps // batch)
    theta = gpt.draw(sizes, random.Random(1337).gauss)
    tokens = np.random.default_rng(1337).integers(27, size=(batch, sizes.block_size + 1))
    problem = (sizes, theta, tokens, steps)
    peers = [
        Peer("NumPy by hand", lambda: gpt_peers.numpy_train(*problem)),
        Peer("vgrad", lambda: train_gpt(engine, theta, tokens, steps, steps)),
    ]
    (torch,) = installed("torch")
    if torch is not None:
        use_threads(torch)
        peers.append(Peer("PyTorch, eager", lambda: gpt_peers.torch_train(torch, *problem)))
    if batch == 1:
        expected, scalar = gpt_peers.numpy_train(sizes, theta, tokens, 1), gpt.Scalar(sizes)
        run = lambda: train_gpt(scalar, theta, tokens, 1, steps)  # noqa: E731
        peers.append(Peer("vgrad's scalar engine", run, 1 / steps, expected))
    title = f"    {several(steps, 'step')}, of {several(batch, 'document')} each"
    compare(title, peers, args)


def train_gpt(
    engine: gpt.Scalar, theta: np.ndarray, tokens: np.ndarray, some: int, steps: int
) -> float:
    """Some steps of so many, through an engine of the demo."""
    theta, documents = theta.copy(), tokens.tolist()
    adam = vgrad.optim.Adam(lambda k: gpt.rate(k, steps), gpt.BETA1, gpt.BETA2)
    for _ in range(some):
        loss, grad = engine.value_and_grad(theta, documents)
        adam.step(theta, grad)
    return loss


# --- Black-Scholes -------------------------------------------------------------------------------


def checked(*greeks: Any) -> float:
    """One number of all of them, for peers to agree on, without going through them all."""
    return sum(float(g[::1000].sum()) for g in greeks)


def options_with_greeks(args: argparse.Namespace) -> None:
    """Options with five Greeks, beside plain programs and NumPy."""
    formula = FORMULAS["options"]
    arrays, theta = formula.arrays(args.batch), formula.theta
    program, plain = formula.program(), formula.program(fuse=False)
    peers = [
        Peer("NumPy by hand", lambda: checked(*formula_peers.options_by_hand(theta, *arrays))),
        Peer("vgrad", lambda: checked(*program.input_grads(theta, *arrays))),
        Peer("vgrad, fuse=False", lambda: checked(*plain.input_grads(theta, *arrays))),
    ]
    jax, torch = installed("jax", "torch")
    if jax is not None:
        jax_greeks = formula_peers.jax_gradient(jax, "options", *arrays)
        peers.append(Peer("JAX, jit", lambda: checked(*jax_greeks())))
    if torch is not None:
        use_threads(torch)
        torch_greeks = formula_peers.torch_gradient(torch, "options", *arrays)
        peers.append(Peer("PyTorch, eager", lambda: checked(*torch_greeks())))
    compare(f"(i) Black-Scholes: five Greeks of {args.batch:,} options", peers, args)


# --- branches ------------------------------------------------------------------------------------


def branches(args: argparse.Namespace) -> None:
    """Ordinary `if`s and loops, beside `where`."""
    compare_ifs(args)
    compare_loops(args)
    compare_merged(args)
    compare_sizes(args)
    new_paths(args)


def leaves() -> list[vgrad.Value]:
    return [vgrad.Value(x) for x in branch_peers.THETA.tolist()]


def mean_of(program: vgrad.Program, *arrays: Any) -> Callable[[], float]:
    """Runs a mean and its gradient to theta."""
    theta = program.theta(*arrays)
    return lambda: float(program.value_and_grad(theta, *arrays)[0])


def few_by_scalars(fn: Callable[..., Any], data: Any, few: int) -> Peer:
    """The scalar engine on some of the samples."""
    program = vgrad.compile(partial(fn, w := leaves()), w)
    some = data[:few]
    expected = float(program.value_and_grad(branch_peers.THETA, some)[0])
    run = partial(branch_peers.by_scalars, fn, w, some.tolist())
    return Peer("vgrad's scalar engine", run, few / len(data), expected)


def jax_mean(fn: Callable[..., Any], data: Any) -> Iterator[Peer]:
    (jax,) = installed("jax")
    if jax is not None:
        jax.config.update("jax_enable_x64", True)
        gradient = jax.jit(jax.value_and_grad(lambda w: fn(jax.numpy, w, data).mean()))
        run = lambda: float(jax.block_until_ready(gradient(branch_peers.THETA))[0])  # noqa: E731
        yield Peer("JAX, where, jit", run)


def compare_ifs(args: argparse.Namespace) -> None:
    data = np.random.default_rng(1337).normal(size=args.batch)
    by_where = vgrad.compile(partial(branch_peers.three_wheres, vgrad, w := leaves()), w)
    by_if = vgrad.compile(partial(branch_peers.three_ifs, w := leaves()), w)
    peers = [
        Peer("vgrad, where", mean_of(by_where, data)),
        Peer("vgrad, if", mean_of(by_if, data)),
        *jax_mean(branch_peers.three_wheres, data),
        few_by_scalars(branch_peers.three_ifs, data, min(1000, args.batch)),
    ]
    compare(f"(j) three ifs, {args.batch:,} samples: mean and gradient", peers, args)


def compare_loops(args: argparse.Namespace) -> None:
    data = np.random.default_rng(1337).uniform(0.1, 50.0, args.batch)
    program = vgrad.compile(partial(branch_peers.root, w := leaves()), w)
    by_where = vgrad.compile(partial(branch_peers.root_by_where, vgrad, w := leaves()), w)
    run = mean_of(program, data)
    run()
    lines = []  # each path's samples, and its number of steps without a question
    for part in program.prepared(branch_peers.THETA, (data,)).parts():
        steps = len(part.runner.graph.questions)
        line = vgrad.compile(partial(branch_peers.root_in_steps, steps, w := leaves()), w)
        lines.append((len(part.numbers) / len(data), mean_of(line, data[part.numbers])))
    peers = [
        Peer("its paths as straight lines", lambda: sum(x * line() for x, line in lines)),
        Peer("vgrad, until converged", run),
        Peer(f"vgrad, {branch_peers.MOST} steps, where", mean_of(by_where, data)),
        *jax_mean(branch_peers.root_by_where, data),
        few_by_scalars(branch_peers.root, data, min(500, args.batch)),
    ]
    compare(f"    Newton's method, {args.batch:,} samples: mean and gradient", peers, args)


def compare_merged(args: argparse.Namespace) -> None:
    """An activation with an `if`, merged, against one with `where`."""
    kinds = {"where": branch_peers.leaky_by_where, "if, merged": branch_peers.leaky}
    peers = []
    for name, activation in kinds.items():
        moons = Moons(1000, activation)
        peers.append(Peer(f"vgrad, {name}", mean_of(moons.program(), moons.X, moons.y)))
    compare("    moons, a leaky activation, 1,000 samples", peers, args)


def compare_sizes(args: argparse.Namespace) -> None:
    """Batches of random sizes against batches of one size."""
    moons, draw = Moons(1000), random.Random(1337)
    program, other = moons.program(), moons.program()
    sizes = [draw.randint(1, 1000) for _ in range(300)]

    def run(sizes: list[int], program: vgrad.Program) -> float:
        for size in sizes:
            program.value_and_grad(moons.theta, moons.X[:size], moons.y[:size])
        return 1.0

    same = [sum(sizes) // len(sizes)] * len(sizes)
    peers = [
        Peer("300 calls, of one size", partial(run, same, program)),
        Peer("300 calls, of random sizes", partial(run, sizes, other)),
    ]
    compare("    moons, batches of 1 to 1,000 samples", peers, args)


def new_paths(args: argparse.Namespace) -> None:
    """What the first sample of a path costs, against its straight line."""
    data = np.array([20.0])

    def first(fn: Callable[..., Any]) -> float:
        program = vgrad.compile(partial(fn, w := leaves()), w)
        return float(program.value_and_grad(branch_peers.THETA, data)[0])

    steps = 6
    peers = [
        Peer("a straight line", lambda: first(partial(branch_peers.root_in_steps, steps))),
        Peer("a path", lambda: first(branch_peers.root)),
    ]
    compare("    record, compile and run for one sample", peers, args)


# --- sequences -----------------------------------------------------------------------------------


def sequences(args: argparse.Namespace) -> None:
    """The programs of `sequences.py`."""
    peers = ["JAX, scan", "PyTorch, eager", "NumPy by hand"]
    print("(s) sequences: vgrad's time for a gradient, and divided by that of each peer;")
    print("    first calls, which record and compile, are apart")
    columns = "".join(f"{name:>16}" for name in [*peers, "vgrad, first", "JAX, first"])
    print(f"  {'':<10}{'steps':>7}{'samples':>9}{'vgrad':>14}{columns}")
    for name in args.sequences:
        for steps, samples in sequence_peers.sizes(name, args.length, min(1000, args.batch)):
            medians, first = compare_gradients(name, steps, samples, args)
            ours = medians["vgrad"]
            ratios = [f"{ours / medians[x]:.3g}" if x in medians else "-" for x in peers]
            took = [f"{first[x]:.2f} s" if x in first else "-" for x in ("vgrad", peers[0])]
            cells = "".join(f"{cell:>16}" for cell in ratios + took)
            print(f"  {name:<10}{steps:>7,}{samples:>9,}{1e3 * ours:11.2f} ms{cells}", flush=True)
            for other in medians.keys() - {"vgrad", *peers}:
                print(f"    {other:<24}{1e3 * medians[other]:11.2f} ms", flush=True)
    print(flush=True)


def compare_gradients(
    name: str, steps: int, samples: int, args: argparse.Namespace
) -> tuple[dict[str, float], dict[str, float]]:
    """The peers' seconds, and those of their first calls."""
    sequence = SEQUENCES[name]
    theta, arrays = sequence.theta, sequence.arrays(samples, steps)
    program = sequence.program(steps)
    gradient = program.input_grads if name == "ctc" else program.value_and_grad
    runs = gradients(sequence_peers, "JAX, scan", name, gradient, theta, arrays, steps)
    (torch,) = installed("torch")
    if torch is not None and name == "ctc":
        runs["PyTorch, ctc_loss"] = sequence_peers.torch_ctc_loss(torch, *arrays)
    return measured_gradients(runs, args)


def gradients(
    peers: Any, jax_name: str, name: str, gradient: Any, theta: Any, arrays: Any, *sizes: int
) -> dict[str, Callable[[], Any]]:
    """What gives the gradient of a program of this name, by vgrad and by every peer of a module."""
    jax, torch = installed("jax", "torch")
    runs: dict[str, Callable[[], Any]] = {"vgrad": lambda: gradient(theta, *arrays)}
    if jax is not None:
        runs[jax_name] = peers.jax_gradient(jax, name, *sizes, *arrays)
    if torch is not None:
        use_threads(torch)
        runs["PyTorch, eager"] = peers.torch_gradient(torch, name, *sizes, *arrays)
    if name in peers.BY_HAND:
        runs["NumPy by hand"] = partial(peers.BY_HAND[name], theta, *arrays)
    return runs


def measured_gradients(
    runs: dict[str, Callable[[], Any]], args: argparse.Namespace, every_time: bool = True
) -> tuple[dict[str, float], dict[str, float]]:
    """The seconds of what gives a value and gradient, or gradients; and those of first calls.

    What is quick runs for a hundredth of a second in each repeat. What all agree on, the sum of all
    sizes, is part of the time, or if not `every_time`, where results are large, added up before.
    """
    peers, first = [], {}
    for peer, run in runs.items():
        times = []
        for _ in range(3):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        first[peer] = times[0]
        total = lambda run=run: sum(float(np.abs(x).sum()) for x in run())  # noqa: E731
        if not every_time:
            agreed = total()
            total = lambda run=run, agreed=agreed: run() and agreed  # noqa: E731
        loops = max(1, int(0.01 / times[2]))
        peers.append(Peer(peer, total, slow=times[1] > 0.5, loops=loops))
    return measured(peers, args), first


# --- formulas ------------------------------------------------------------------------------------


def formulas(args: argparse.Namespace) -> None:
    """The programs of `formulas.py`."""
    peers = ["JAX, jit", "PyTorch, eager", "NumPy by hand"]
    print("(k) formulas: vgrad's time for a gradient, and divided by that of each peer;")
    print("    first calls, which record and compile, are apart")
    columns = "".join(f"{name:>16}" for name in [*peers, "vgrad, first", "JAX, first"])
    for samples in sorted({min(1000, args.batch), args.batch}):
        print(f"  {f'{samples:,} samples':<18}{'vgrad':>14}{'a sample':>13}{columns}")
        ratios: dict[str, list[float]] = {name: [] for name in peers}
        for name in args.formulas:
            (medians, first), size = compare_formula(name, samples, args)
            ours = medians["vgrad"]
            for peer in peers & medians.keys():
                ratios[peer].append(ours / medians[peer])
            cells = [f"{ours / medians[x]:.3g}" if x in medians else "-" for x in peers]
            cells += [f"{first[x]:.2f} s" if x in first else "-" for x in ("vgrad", peers[0])]
            row = "".join(f"{cell:>16}" for cell in cells)
            print(f"  {name:<18}{1e3 * ours:11.3f} ms{size:7,.0f} bytes{row}", flush=True)
        means = [f"{statistics.geometric_mean(x):.3g}" if x else "-" for x in ratios.values()]
        print(f"  {'geometric mean':<45}{''.join(f'{mean:>16}' for mean in means)}")
    print(flush=True)
    stacked_products(args)


def compare_formula(
    name: str, samples: int, args: argparse.Namespace
) -> tuple[tuple[dict[str, float], dict[str, float]], float]:
    """The peers' seconds, and those of their first calls; and vgrad's bytes per sample."""
    formula = FORMULAS[name]
    theta, arrays = formula.theta, formula.arrays(samples)
    program = formula.program()
    gradient = program.input_grads if name == "options" else program.value_and_grad
    runs = gradients(formula_peers, "JAX, jit", name, gradient, theta, arrays)
    return measured_gradients(runs, args), bytes_per_sample(program, *arrays)


def bytes_per_sample(program: vgrad.Program, *arrays: Any) -> float:
    """How much more the buffers of a gradient take for each sample more in a tile."""
    program.theta(*arrays)
    (runner,) = program.runners.values()
    return (runner.quick.memory(300) - runner.quick.memory(200)) / 100


def stacked_products(args: argparse.Namespace) -> None:
    """The squares of M[k] @ x[k], for 25 matrices of 10 x 10, and their gradient to all M."""
    k, d = 25, 10
    rng = np.random.default_rng(1337)
    matrices, X = rng.normal(size=(k, d, d)), rng.normal(size=(min(10_000, args.batch), k, d))
    w = np.array([vgrad.Value(x) for x in matrices.ravel()]).reshape(k, d, d)
    program = vgrad.compile(lambda x: sum(z**2 for i in range(k) for z in w[i] @ x[i]), [*w.flat])
    theta = program.theta()

    def by_hand() -> float:
        x = np.ascontiguousarray(X.transpose(1, 2, 0))
        z = matrices @ x
        gradient = (2 / len(X)) * (z @ x.swapaxes(1, 2))
        return float(np.vdot(z, z) / len(X) + gradient.sum())

    def ours() -> float:
        value, gradient = program.value_and_grad(theta, X)
        return float(value + gradient.sum())

    title = f"(k) {k} matrices, {d} x {d}, each times its own vectors: {len(X):,} samples"
    compare(title, [Peer("NumPy, @", by_hand), Peer("vgrad", ours)], args)


# --- derivatives ---------------------------------------------------------------------------------


def derivatives(args: argparse.Namespace) -> None:
    """Jacobians, Hessians, and a loss of second derivatives."""
    (jax,) = installed("jax")
    print("(l) derivatives: vgrad's time, and divided by that of JAX's best way;")
    print("    first calls, which record and compile, are apart")
    head = f"{'vgrad':>14}{'JAX, best':>14}{'ratio':>8}{'vgrad, first':>16}{'JAX, first':>14}"
    print(f"  {'':<12}{'samples':>9}{head}  ways")
    for name, derivative in DERIVATIVES.items():
        for samples in sorted({min(n, args.batch) for n in derivative.samples}):
            arrays = derivative.arrays(samples)
            program = derivative.program()
            theta = program.theta()
            runs = {"vgrad": partial(derivative.call, program, theta, *arrays)}
            if jax is not None:
                runs |= derivative_peers.jax_derivatives(jax, name, theta, arrays)
            medians, first = measured_gradients(runs, args, every_time=False)
            ours = medians.pop("vgrad")
            row = f"  {name:<12}{samples:>9,}{1e3 * ours:11.3f} ms"
            if medians:
                best = min(medians, key=lambda way: medians[way])
                row += f"{1e3 * medians[best]:11.3f} ms{ours / medians[best]:8.2f}"
                row += f"{first['vgrad']:14.2f} s{first[best]:12.2f} s  "
                row += ", ".join(f"{way[5:]} {ours / x:.2f}" for way, x in medians.items())
            print(row, flush=True)
    print(flush=True)
    compiling_outputs(args)


def compiling_outputs(args: argparse.Namespace) -> None:
    """How the first Jacobian of a network grows with its outputs."""
    print("(l) recording, compiling and running the first Jacobian, to two inputs")
    for outputs in (5, 10, 20, 40, 80):
        times = []
        for _ in range(min(5, args.repeats)):
            model = network(outputs)
            program = vgrad.compile(lambda x, model=model: vgrad.array(model(x)), model)
            theta, x = program.theta(), np.ones((100, 2))
            program(theta, x)
            start = time.perf_counter()
            program.input_jacobian(theta, x)
            times.append(time.perf_counter() - start)
        print(f"  {outputs:>4} outputs {1e3 * statistics.median(times):10.1f} ms", flush=True)
    print(flush=True)


# --- scale ---------------------------------------------------------------------------------------


def scale(args: argparse.Namespace) -> None:
    """Large programs, and the moons in more than one process."""
    by_the_array(args)
    print("(m) moons: value and gradient by two workers, each with one thread of BLAS")
    with ExitStack() as stack:
        executors = {
            "processes": stack.enter_context(ProcessPoolExecutor(2, get_context("spawn"))),
            "threads": stack.enter_context(ThreadPoolExecutor(2)),
        }
        (distributed,) = installed("distributed")
        if distributed is not None:
            executors["cluster"] = stack.enter_context(local_cluster(distributed))
        for power in range(4, 3 + round(math.log10(args.batch))):
            compare_executors(10**power, executors, args)


def local_cluster(distributed: Any) -> Any:
    """A client of two processes, with dask's own words left out."""
    options = dict(processes=True, n_workers=2, threads_per_worker=1, dashboard_address=":0")
    return distributed.Client(distributed.LocalCluster(**options, silence_logs=50))


def compare_executors(
    samples: int, executors: dict[str, Any], args: argparse.Namespace
) -> dict[str, float]:
    moons, peers = Moons(samples), []
    model = vgrad.nn.MLP(2, [*SIZES, 1], rng=random.Random(1337))
    for name, executor in {"one process": None, **executors}.items():
        program = vgrad.compile(lambda x, y: vgrad.relu(1 - y * model(x)), model, executor=executor)
        theta = program.theta()

        def run(program: Any = program, theta: Any = theta, data: Any = None) -> float:
            value, gradient = program.value_and_grad(theta, *(data or (moons.X, moons.y)))
            return float(value + gradient.sum())

        peers.append(Peer(name, run, slow=samples > args.batch))
        if name in ("processes", "cluster"):
            data = (program.place(moons.X, moons.y),)
            peers.append(
                Peer(f"{name}, placed", partial(run, data=data), slow=samples > args.batch)
            )
    return compare(f"    {samples:,} samples", peers, args)


def by_the_array(args: argparse.Namespace) -> None:
    """The same graph, recorded by loops over numbers and by arrays; and a GPT."""
    print("(m) recording and compiling, per node: by loops over numbers, and by the array")
    head = (
        f"{'nodes':>12}{'recorded by loops':>20}{'by the array':>15}{'compiled':>12}{'memory':>13}"
    )
    print(f"  {'':<16}{head}")
    for width in (16, 64, 256):
        rng = np.random.default_rng(0)
        w = np.array([vgrad.Value(x) for x in rng.normal(size=4 * width * width)])
        weights = w.reshape(4, width, width)

        def loops(x: Any, weights: Any = weights) -> Any:
            for matrix in weights:
                x = [vgrad.tanh(sum(a * b for a, b in zip(row, x))) for row in matrix]
            return sum(x)

        def arrays(x: Any, weights: Any = weights) -> Any:
            for matrix in weights:
                x = np.tanh(matrix @ x)
            return x.sum()

        records = [partial(vgrad.trace, f, (width,), parameters=[*w]) for f in (loops, arrays)]
        print_recording(f"4 x {width} x {width}", records, args)
    for sizes in (gpt.Sizes(28), gpt.Sizes(28, 32, 2, 4, 16)):
        values = [vgrad.Value(0.0) for _ in range(sizes.parameters())]
        n, model = sizes.block_size, gpt.build(sizes, values)
        record = partial(vgrad.trace, partial(gpt.loss, model), (n + 1,), (n,), parameters=values)
        print_recording(f"GPT of {sizes.n_embd} x {sizes.n_layer}", [record], args)
    print(flush=True)


def print_recording(
    name: str, records: list[Callable[[], vgrad.Graph]], args: argparse.Namespace
) -> None:
    """A line: microseconds a node, by each way in turn, and bytes a node at the peak."""
    times: list[list[float]] = [[] for _ in (*records, compile)]
    for _ in range(args.slow_repeats):
        for column, step in zip(times, records):
            start = time.perf_counter()
            graph = step()
            column.append(time.perf_counter() - start)
        start = time.perf_counter()
        plan(graph)
        times[-1].append(time.perf_counter() - start)
    *recorded, compiled = (f"{1e6 * statistics.median(x) / len(graph):.2f} µs" for x in times)
    most = 1e6 * peak(lambda: plan(records[-1]())) / len(graph)
    loops, arrays = recorded if len(recorded) == 2 else ("", *recorded)
    print(
        f"  {name:<16}{len(graph):>12,}{loops:>20}{arrays:>15}{compiled:>12}{most:>11.0f} B",
        flush=True,
    )


def plan(graph: vgrad.Graph) -> None:
    vgrad.compile(graph).explain(*[np.zeros((1, *shape)) for shape in graph.input_shapes])


CASES = {
    "a": training,
    "b": large_batch,
    "c": captured,
    "d": recording,
    "e": memory,
    "f": chain,
    "g": options,
    "h": language,
    "i": options_with_greeks,
    "j": branches,
    "k": formulas,
    "l": derivatives,
    "m": scale,
    "s": sequences,
}


# --- the picture ---------------------------------------------------------------------------------


def plot(args: argparse.Namespace) -> None:
    """How time and memory grow, as benchmark.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    curves: dict[str, list[tuple[int, float]]] = {}
    for batch in [10**k for k in range(1, round(math.log10(args.batch)) + 1)]:
        medians = compare_batches(f"    {batch:,} samples", batch, args)
        for name, median in medians.items():
            curves.setdefault(name, []).append((batch, 1e6 * median / batch))
    for name, points in curves.items():
        left.plot(*zip(*points), marker="o", label=name)
    left.set(title="moons: value and gradient", xlabel="samples", ylabel="µs a sample")
    nodes, traced, compiled = zip(*recording_times(args))
    middle.plot(nodes, traced, marker="o", label="trace")
    middle.plot(nodes, compiled, marker="o", label="compile")
    middle.set(title="recording and compiling", xlabel="nodes", ylabel="µs a node", ylim=0)
    batches, ours, by_numpy = zip(*memory_peaks(args))
    right.plot(batches, ours, marker="o", label="vgrad")
    right.plot(batches, by_numpy, marker="o", label="NumPy by hand")
    right.set(title="peak memory beyond the data", xlabel="samples", ylabel="MB", yscale="log")
    left.set_yscale("log")
    for ax in (left, middle, right):
        ax.set_xscale("log")
        ax.grid(alpha=0.3)
        ax.legend(loc="upper right" if ax is left else "best", fontsize=8)
    write(args.out / "benchmark.png", partial(figure.savefig, dpi=100))


class HelpWithCases(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Tells defaults, and leaves the lines of the cases as they are."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpWithCases)
    parser.epilog = "\n".join(["cases:", *(f"  {k}  {case.__doc__}" for k, case in CASES.items())])
    add = parser.add_argument
    add("--cases", nargs="+", choices=CASES, default=list(CASES), help="which to measure")
    add("--steps", type=positive, default=100, help="of training, in a and c")
    add(
        "--batch",
        type=positive,
        default=100_000,
        help="samples in b, e (there ten times as well), i, j, k and, at most, l; up to 1,000, s; "
        "up to a hundred times as many, m",
    )
    add("--captured", type=positive, default=100, help="samples in the captured graph of c")
    add("--nodes", type=positive, default=6, help="d goes up to ten to this power")
    add("--depth", type=positive, default=1000, help="of the chain in f")
    add("--length", type=positive, help="steps in s; what suits each sequence when left out")
    add("--formulas", nargs="+", choices=FORMULAS, default=list(FORMULAS), help="those in k")
    add("--sequences", nargs="+", choices=SEQUENCES, default=list(SEQUENCES), help="those in s")
    add("--repeats", type=positive, default=21, help="how often each peer runs")
    add("--slow-repeats", type=positive, default=3, help="how often those that take seconds do")
    add("--threads", choices=["one", "all"], help="for each peer; both when left out")
    add("--here", action="store_true", help="in this process, with the threads it has")
    add("--plot", action="store_true", help="draw the scaling curves, benchmark.png")
    add("--out", type=Path, default=Path("."), help="folder for the picture")
    args = parser.parse_args(argv)
    if args.here and args.threads is None:
        parser.error("--here must come with --threads, to say how many there are")
    return args


if __name__ == "__main__":
    run_main(main)
