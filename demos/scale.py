"""Train the moons and the GPT on a local dask cluster, and look past it: when is a step quickest?

Every worker keeps its samples. Theta goes with each task of a step, and a gradient comes back:
these are the bytes moved, as arrays have them. (All pass dask's scheduler, so they are sent twice,
with some 6 kB of dask's own for each task.) From what is measured here the formulas in
step_times.py say how long a step would take on other numbers of workers, where gradients are added
up in a tree, as by MPI, or taken by one scheduler, as by dask; --simulate checks them by workers
with delays.

The latency's default is that of a message from Python to Python on an Ethernet of 10 Gbit/s, the
default bandwidth: some 50 us in the network, and as many in Python.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gpt
import moons
import numpy as np
from matplotlib.figure import Figure
from step_times import SIMULATED, WAYS, Step, best, quickest, slept_tree
from terminal import Progress, options, positive, run_main, several, write

import vgrad
from vgrad import nn, optim

SHOWN = [2**k for k in range(11)]  # workers, in the table
SLEEPERS = [1, 2, 3, 4, 8]  # workers, as threads
PROBES = 20  # tasks that do nothing
MANY = 50_000  # samples whose time says what one takes


class Job(NamedTuple):
    """What is trained, with its data as one batch."""

    name: str
    alone: vgrad.Program  # in this process
    on: Callable[[Any], vgrad.Program]  # the same with an executor
    theta: np.ndarray
    arrays: tuple[np.ndarray, ...]
    optimiser: optim.Optimiser


class Run(NamedTuple):
    """Steps on a cluster; `seconds` is the median step's."""

    workers: int
    seconds: float
    tasks: int  # in a step


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    jobs = [JOBS[name](args) for name in (JOBS if args.model == "both" else [args.model])]
    cores = several(os.cpu_count() or 1, "core")
    print(f"{cores} here, which workers, dask's scheduler and this process share")
    runs: dict[str, list[Run]] = {job.name: [] for job in jobs}
    steps: dict[str, Step] = {}
    for workers in dict.fromkeys([args.workers, 1]):
        with cluster(workers) as client:
            for job in jobs:
                count = args.steps if workers == args.workers else min(args.steps, 5)
                runs[job.name].append(train(job, client, workers, count))
                steps[job.name] = measured(job, client, args)  # at last with one worker
    for job in jobs:
        report(job, steps[job.name], runs[job.name])
    table(steps)
    if args.simulate:
        for name, step in steps.items():
            check(name, step)
    if not args.no_plot:
        write(args.out / "scale.png", partial(plot, steps, runs))
    return 0


# --- on a local cluster --------------------------------------------------------------------------


def make_moons(args: argparse.Namespace) -> Job:
    own = moons.parse(["--seed", str(args.seed), "--samples", str(args.samples)])
    X, y = vgrad.datasets.make_moons(own.samples, own.noise, own.seed)
    model = nn.MLP(2, [*own.hidden, 1], own.activation, rng=random.Random(own.seed))
    one = moons.Vector(model)
    rate = optim.SGD(rate=lambda k: 1.0 - 0.9 * k / args.steps)
    arrays = X, 2 * y - 1.0
    return Job(
        "moons", one.program, lambda at: moons.Vector(model, at).program, one.theta, arrays, rate
    )


def make_gpt(args: argparse.Namespace) -> Job:
    own = gpt.parse(["--seed", str(args.seed), "--batch", str(args.batch)])
    rng = random.Random(own.seed)
    rng.shuffle(own.documents)
    documents = next(gpt.batches([gpt.encode(x, own) for x in own.documents], own.batch))
    one, theta = gpt.Vector(own.sizes), gpt.draw(own.sizes, rng.gauss)
    adam = optim.Adam(rate=lambda k: gpt.rate(k, args.steps), beta1=gpt.BETA1, beta2=gpt.BETA2)
    arrays = one.padded(documents)
    return Job(
        "GPT", one.program, lambda at: gpt.Vector(own.sizes, at).program, theta, arrays, adam
    )


JOBS = {"moons": make_moons, "gpt": make_gpt}


def bytes_of(x: Any) -> int:
    """Those of the arrays in a task's arguments; what already lies with workers has none."""
    if isinstance(x, list | tuple):
        return sum(map(bytes_of, x))
    return x.nbytes if isinstance(x, np.ndarray) else 0


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """A client of a new local cluster, which counts its tasks, and the bytes of their arrays."""
    distributed = import_module("distributed")

    class Client(distributed.Client):  # type: ignore[name-defined, misc]
        tasks = sent = 0

        def submit(self, fn: Any, *args: Any, **options: Any) -> Any:
            self.tasks += 1
            self.sent += bytes_of(args)
            return super().submit(fn, *args, **options)

    # None for the dashboard's address would be dask's usual port, which warns where it is taken.
    sizes = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(processes=True, **sizes) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def train(job: Job, client: Any, workers: int, steps: int) -> Run:
    """Steps from theta, whose first gradient is compared with that of one process."""
    program, theta = job.on(client), job.theta.copy()
    state, seconds, batch = job.optimiser.state(), [], len(job.arrays[0])
    print(f"\n{job.name}: {several(batch, 'sample')}, {several(workers, 'worker')}")
    with program.place(*job.arrays) as data, Progress() as progress:
        want = job.alone.value_and_grad(theta, *job.arrays)[1]
        got = program.value_and_grad(theta, data)[1]
        print(f"largest difference to the gradient of one process: {np.abs(got - want).max():.1e}")
        client.tasks = client.sent = 0
        for k in range(steps):
            start = time.perf_counter()
            loss, gradient = program.value_and_grad(theta, data)
            job.optimiser.step(theta, gradient)
            seconds.append(time.perf_counter() - start)
            moved = (client.sent + client.tasks * gradient.nbytes) / (k + 1)
            rate = (
                f"{batch / seconds[-1]:,.0f} samples a second, {moved / 1e3:,.1f} kB moved a step"
            )
            progress(f"step {k} loss {loss:.6f}, {rate}")
    job.optimiser.restore(state)
    return Run(workers, float(np.median(seconds)), client.tasks // steps)


def overhead_of(client: Any, theta: np.ndarray) -> float:
    """Seconds for a task that takes theta, does nothing and gives as many numbers back."""
    times = []
    for _ in range(4):  # the quickest counts
        start = time.perf_counter()
        for future in [client.submit(np.positive, theta, pure=False) for _ in range(PROBES)]:
            future.result()
        times.append(time.perf_counter() - start)
    return min(times) / PROBES


# --- past these machines -------------------------------------------------------------------------


def measured(job: Job, client: Any, args: argparse.Namespace) -> Step:
    """What a worker takes for one sample and for many, and dask for a task."""

    def seconds(samples: int) -> float:
        rows = [x[:samples] for x in job.arrays]
        return float(client.submit(quickest, job.alone, job.theta, rows, pure=False).result())

    batch, many, one = len(job.arrays[0]), min(len(job.arrays[0]), MANY), seconds(1)
    sample = max(seconds(many) - one, 0.0) / max(many - 1, 1)
    size, overhead = job.theta.nbytes, overhead_of(client, job.theta)
    return Step(batch, max(one - sample, 0.0), sample, size, overhead, args.latency, args.bandwidth)


def check(name: str, step: Step) -> None:
    """Print how far simulated steps are from predicted ones, and where each is quickest."""
    for way, simulate in SIMULATED.items():
        found = [simulate(step, n) for n in range(1, min(step.batch, SHOWN[-1]) + 1)]
        wanted = WAYS[way](step, np.arange(1, len(found) + 1))
        gap = np.abs(found / wanted - 1).max()
        at = f"{1 + int(np.argmin(found)):,} workers, predicted {1 + int(np.argmin(wanted)):,}"
        print(f"{name}, {way}, simulated: quickest with {at}; times within {gap:.1e} of predicted")
    slept = [f"{n}: {1e3 * slept_tree(step, n):.1f} ({1e3 * step.tree(n):.1f})" for n in SLEEPERS]
    print(f"{name}, threads that sleep, ms by workers (and predicted): {', '.join(slept)}")


# --- what is shown -------------------------------------------------------------------------------


def local(step: Step, run: Run) -> float:
    """Seconds predicted for a run here: what a task costs dask has latency and bytes in it."""
    return float(
        step._replace(latency=0, bandwidth=math.inf).star(run.workers, run.tasks / run.workers)
    )


def report(job: Job, step: Step, runs: list[Run]) -> None:
    """What was measured, with what the formula says of it."""
    print(f"\n{job.name}: {1e6 * step.sample:.3g} us a sample, {1e6 * step.task:.3g} us a task")
    print(f"{step.bytes / 1e3:.1f} kB of theta, dask takes {1e3 * step.overhead:.2g} ms for a task")
    print(f"no dask, 1 task: {1e3 * step.compute(1):.1f} ms a step, from the times of a sample")
    for run in sorted(runs):
        tasks, seconds = several(run.tasks, "task"), f"{1e3 * run.seconds:.1f} ms a step"
        who = several(run.workers, "worker")
        print(f"{who}, {tasks}: {seconds}, by the formula {1e3 * local(step, run):.1f}")


def table(steps: dict[str, Step]) -> None:
    """Predicted times for numbers of workers, and the best numbers."""
    step = next(iter(steps.values()))
    network = f"{1e6 * step.latency:g} us latency, {step.bandwidth / 1e9:g} GB/s"
    print(f"\nms a step by the formulas at {network}, one task a worker")
    columns = [(name, way) for name in steps for way in WAYS]
    heads = [f"{name}, {way}" for name, way in columns]
    print("workers", *(f"{head:>20}" for head in heads))
    for n in SHOWN:
        times = [1e3 * float(WAYS[way](steps[name], n)) for name, way in columns]
        print(f"{n:>7,}", *(f"{x:>20.3f}" for x in times))
    most = [f"{best(WAYS[way], steps[name]):,}" for name, way in columns]
    print("best   ", *(f"{x:>20}" for x in most))


def plot(steps: dict[str, Step], runs: dict[str, list[Run]], path: Path) -> None:
    """Times against workers, one panel for each model: predicted, measured, and the least."""
    figure = Figure(figsize=(6 * len(steps), 4.8), layout="constrained")
    panels = figure.subplots(1, len(steps), squeeze=False)[0]
    for axes, (name, step) in zip(panels, steps.items()):
        most = max(SHOWN[-1], *(best(times, step) for times in WAYS.values()))
        n = np.unique(np.geomspace(1, most, 400).round())
        for (way, times), colour in zip(WAYS.items(), ("tab:blue", "tab:orange")):
            axes.plot(n, 1e3 * times(step, n), color=colour, label=f"{way}, predicted")
            least = best(times, step)
            label = f"quickest: {several(least, 'worker')}"
            axes.plot(least, 1e3 * times(step, least), "v", color=colour, markersize=9, label=label)
        axes.plot(n, 1e3 * step.compute(n), ":", color="grey", label="computing alone")
        found = [(run.workers, 1e3 * run.seconds, 1e3 * local(step, run)) for run in runs[name]]
        here, real, formula = zip(*found)
        axes.plot(here, real, "ko", label="measured here, with dask")
        axes.plot(here, formula, "kx", markersize=8, label="the same by the formula")
        axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="ms a step")
        axes.set_title(f"{name}, {several(step.batch, 'sample')} a step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, "scale.png")
    add = parser.add_argument
    add("--model", choices=[*JOBS, "both"], default="both", help="what is trained")
    add("--workers", type=positive, default=2, help="processes of the local cluster")
    add("--samples", type=positive, default=200_000, help="moons: points, all in each step")
    add("--batch", type=positive, default=1024, help="GPT: documents, the same in each step")
    add("--steps", type=positive, default=20, help="gradient steps")
    add("--latency", type=float, default=1e-4, help="of the network looked at, s")
    add("--bandwidth", type=float, default=1.25e9, help="of that network, bytes / s")
    add("--simulate", action="store_true", help="check predictions with simulated workers")
    add("--seed", type=int, default=1337, help="of the data and the weights")
    args = parser.parse_args(argv)
    if not 0 <= args.latency < math.inf:
        parser.error(f"argument --latency: must be finite, 0 or more (got {args.latency})")
    if not 0 < args.bandwidth < math.inf:
        parser.error(f"argument --bandwidth: must be above 0, finite (got {args.bandwidth})")
    if not 0 <= args.seed < 2**32:
        parser.error(f"argument --seed: must be from 0 to {2**32 - 1} (got {args.seed})")
    try:
        import_module("distributed")
    except ImportError:
        parser.error("dask must be installed: python -m pip install distributed")
    return args


if __name__ == "__main__":
    run_main(main)
