"""Properties that hold for every op, every graph and every batch; `-m long` tries many more.

Each op against the scalar engine over random and awkward numbers; and what must not change a
result: the order of samples, the tile, the executor, dead code, another call, a file.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    COMPUTED,
    EDGES,
    RandomProgram,
    assert_gradients_match,
    assert_values_match,
    backward_with_scale,
    deep_program,
    long,
    mostly_fused,
    random_program,
    same_bits,
    with_dead_lines,
)

import vgrad
from vgrad import Value, ops
from vgrad.checks.parity import error_scales
from vgrad.engine import reachable

both_ways = pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])

# --- every op ------------------------------------------------------------------------------------

# Operands, then a factor of the result, so that what arrives at the rule is not always 1.
FUNCTIONS: dict[str, Any] = {op.name: op for op in COMPUTED}
POWERS = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]  # constants may take short cuts
FUNCTIONS |= {f"power {y}": partial(lambda y, x: ops.pow(x, y), y) for y in POWERS}
FACTORS = [1.0, 1.0, -3.0, 0.25, 1e-3, 0.0, -0.0, 1e200, float("inf"), float("nan")]


def arity_of(name: str) -> int:
    return FUNCTIONS[name].arity if name in vars(ops) else 1


def awkward(rng: random.Random, limits: tuple[float, float]) -> float:
    """In the op's domain, anywhere else, just beside a kink, subnormal, at an edge."""
    if limits[0] == limits[1]:  # whole numbers
        return rng.choice([0.0, 1.0, 2.0, 3.0, 4.0, rng.choice(EDGES)])
    near = rng.choice([0.0, 0.5, 1.0, -1.0, 2.0, *limits])
    return rng.choice(
        [
            rng.uniform(*limits),
            rng.uniform(*limits),
            rng.gauss(0, 1) * 10.0 ** rng.randint(-320, 308),
            rng.gauss(0, 1) * 10.0 ** rng.randint(-3, 3),
            float(np.nextafter(near, rng.choice([-9.0, 9.0]))),
            rng.randint(-5, 5) * 5e-324,
            float(rng.randint(-4, 4)),
            rng.choice(EDGES),
        ]
    )


def awkward_rows(name: str, count: int) -> np.ndarray:
    """(count, operands and a factor); in some rows two operands are equal, or are neighbours."""
    rng = random.Random(name)
    domain = FUNCTIONS[name].domain if name in vars(ops) else ((0.2, 3.0),)
    rows = []
    for _ in range(count):
        row = [awkward(rng, limits) for limits in domain]
        if len(row) > 1 and rng.random() < 0.2:
            row[-1] = rng.choice([row[0], float(np.nextafter(row[0], rng.choice([-9, 9])))])
        rows.append([*row, rng.choice(FACTORS)])
    return np.array(rows)


@both_ways
@pytest.mark.parametrize("count", [120, pytest.param(10_000, marks=long)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_op_is_what_the_scalar_engine_says(name, count, fuse):
    """Plain to the bit, fused as in `assert_values_match`; gradients to 1e-12 of their scale, for
    the order of sums; nan and inf in the same places throughout."""
    fn = FUNCTIONS[name]

    def scaled(*numbers: Any) -> Any:
        *operands, factor = numbers
        result = fn(*operands)
        return result * factor, result

    rows = awkward_rows(name, count)
    program = vgrad.compile(scaled, parameters=[], fuse=fuse)
    outputs, grads = program([], *rows.T), program.input_grads([], *rows.T)
    wanted, scales, ordinary = [], [], 0
    for i, row in enumerate(rows.tolist()):
        leaves = [*map(Value, row)]
        roots = scaled(*leaves)
        got = [out[i] for out in outputs]
        if fuse:
            assert_values_match(got, roots, f"{name} of {row}")
        else:
            assert same_bits(got, [root.data for root in roots]), f"{name} of {row}"
        want, scale = backward_with_scale(roots[0], leaves)
        wanted.append(want)
        scales.append(scale)
        ordinary += np.isfinite(roots[1].data) and np.isfinite(want).all()
    assert_gradients_match(np.transpose(grads), wanted, scales, name)
    assert ordinary > count / 4, "inf and nan alone tell little"


# --- every graph ---------------------------------------------------------------------------------

BATCH, TILE = 7, 2  # four tiles, the last one short, and two shards, of two tiles each
BLOCK = 6


def graph_of(seed: int) -> RandomProgram:
    """Mostly small; one in 40 is deep, with 1,000 nodes on 150 levels or more."""
    if seed % 40 == 5:
        return deep_program(seed, steps=150)
    if seed % 10 == 3:
        return random_program(seed, size=random.Random(seed).randint(60, 300))
    return random_program(seed)


def batch_of(program: RandomProgram, seed: int) -> list[np.ndarray]:
    batch = BATCH if len(program.lines) < 1000 else BATCH - 1  # which needs no plan of its own
    return list(np.random.default_rng(seed).uniform(-2, 2, (program.inputs, batch)))


def compiled(program: RandomProgram, **options: Any) -> vgrad.Program:
    return vgrad.compile(program, parameters=program.parameters, **options)


@dataclass
class Results:
    """What all calls of a program return."""

    outputs: list[np.ndarray]  # (B,) each
    by_leaf: list[np.ndarray]  # (B,) each: gradients to the inputs, then to the parameters
    value: float
    grad: np.ndarray

    def arrays(self) -> list[Any]:
        return [*self.outputs, *self.by_leaf, self.value, self.grad]


def run(program: vgrad.Program, theta: np.ndarray, arrays: list[np.ndarray]) -> Results:
    value, grad = program.value_and_grad(theta, *arrays)
    outputs = program(theta, *arrays)
    by_input = program.input_grads(theta, *arrays)
    by_parameter = program.per_sample_grads(theta, *arrays)
    return Results([*outputs], [*by_input, *by_parameter.T], value, grad)


def run_at_once(program: vgrad.Program, theta: np.ndarray, arrays: list[np.ndarray]) -> Results:
    """Two calls in one, and no other."""
    (value, outputs), grad = program.value_and_grad(theta, *arrays, aux=True)
    return Results([*outputs], [], value, grad)


def assert_same_bits(got: Results, want: Results, context: str) -> None:
    pairs = zip(got.arrays(), want.arrays(), strict=True)
    assert all(same_bits(a, b) for a, b in pairs), context


@dataclass
class Scales:
    """What values and gradients would be if nothing cancelled: rounding errors are of their size.

    Of the scalar engine, whose results these are not compared with here.
    """

    outputs: np.ndarray  # (M, B)
    by_leaf: np.ndarray  # (K + P, B)

    @classmethod
    def of(cls, program: RandomProgram, arrays: list[np.ndarray]) -> Scales:
        outputs, by_leaf = [], []
        for row in zip(*arrays) if arrays else [()]:
            leaves = [*map(Value, row)]
            roots = program(*leaves)
            nodes = reachable(*roots)[::-1]
            scale = dict(zip(nodes, error_scales(nodes)))
            outputs.append([scale[root] for root in roots])
            by_leaf.append(backward_with_scale(roots[0], [*leaves, *program.parameters])[1])
        return cls(np.transpose(outputs), np.transpose(by_leaf))

    def assert_match(self, got: Results, want: Results, context: str) -> None:
        """Within 1e-12 of the scales, as between the engines: sums in another order, no more."""
        assert_gradients_match(got.outputs, want.outputs, self.outputs, context)
        assert_gradients_match(got.by_leaf, want.by_leaf, self.by_leaf, context)
        parameters = self.by_leaf[len(self.by_leaf) - len(want.grad) :]
        with np.errstate(over="ignore"):
            means = parameters.mean(axis=1), self.outputs[0].mean()
        assert_gradients_match(got.grad, want.grad, means[0], context)
        assert_gradients_match(got.value, want.value, means[1], context)


def is_finite(results: Results) -> bool:
    return all(np.isfinite(x).all() for x in results.arrays())


def check_graph(seed: int, fuse: bool, threads: Executor) -> bool:
    """Returns whether it told anything: finite numbers, and a gradient not just 0 or 1."""
    program = graph_of(seed)
    arrays, context = batch_of(program, seed), f"seed {seed}"
    make = partial(compiled, program, fuse=fuse)
    first = make()
    theta = first.theta()
    want = run(first, theta, arrays)
    assert_same_bits(run(first, theta, arrays), want, f"{context}, again")
    at_once = run_at_once(first, theta, arrays)
    if is_finite(want):  # else either call may have taken the plain sweep for more than the other
        assert_same_bits(at_once, replace(want, by_leaf=[]), f"{context}, aux")
    twin = pickle.loads(pickle.dumps(first))
    assert_same_bits(run_at_once(twin, theta, arrays), at_once, f"{context}, pickled")

    scales = Scales.of(program, arrays)
    tiled = make(tile=TILE)
    by_tiles = run(tiled, theta, arrays)
    scales.assert_match(by_tiles, want, f"{context}, tiles of {TILE}")
    longer = compiled(with_dead_lines(program, seed), fuse=fuse, tile=TILE, executor=threads)
    assert_same_bits(
        run_at_once(longer, theta, arrays),
        run_at_once(tiled, theta, arrays),
        f"{context}, on threads and with dead lines",
    )
    if arrays:
        order = np.random.default_rng(seed).permutation(len(arrays[0]))
        permuted = [array[order] for array in arrays]
        for which, before in ((first, want), (tiled, by_tiles)):
            after = run(which, theta, permuted)
            back = [[x[np.argsort(order)] for x in y] for y in (after.outputs, after.by_leaf)]
            after = Results(*back, after.value, after.grad)
            scales.assert_match(after, before, f"{context}, permuted")
            if not fuse:  # one number at a time: nothing may depend on its neighbours
                assert all(map(same_bits, after.outputs, before.outputs)), context
    gradients = np.array(want.by_leaf)
    return is_finite(want) and bool(np.isin(gradients, [0.0, 1.0, -1.0], invert=True).any())


@mostly_fused
@pytest.mark.parametrize(
    "block",
    [0, *(pytest.param(k, marks=long) for k in range(1, 333))],
    ids=lambda k: f"{BLOCK * k}",
)
def test_what_must_not_change_the_results_of_a_graph(block, fuse):
    """Another call, a pickle, threads, dead lines: to the bit. Permuting the samples permutes the
    results, and tiles change nothing, both beyond rounding."""
    with ThreadPoolExecutor(2) as threads:
        seeds = range(BLOCK * block, BLOCK * (block + 1))
        telling = sum(check_graph(seed, fuse, threads) for seed in seeds)
    assert telling >= BLOCK / 2  # about nine in ten are, but a block has few


def test_big_graphs_are_big():
    """Among those of the first block, so that the test above is of what it says."""
    sizes = []
    for seed in range(BLOCK):
        program = graph_of(seed)
        shapes = [()] * program.inputs
        graph = vgrad.trace(program, *shapes, parameters=program.parameters)
        sizes.append((int(graph.level.max()), len(graph)))
    depth, nodes = max(sizes)
    assert depth >= 150 and 750 < nodes <= 1500
    assert sum(nodes > 100 for _, nodes in sizes) >= 2


def test_a_check_of_graphs_can_fail():
    """One number, in any place, is found where it is 1e-9 of the scale off."""
    program = deep_program(2, steps=5)
    arrays = batch_of(program, 2)
    first = compiled(program)
    theta, scales = first.theta(), Scales.of(program, arrays)
    want = run(first, theta, arrays)
    wrong = [replace(want, value=want.value + 1e-9 * scales.outputs[0].mean())]
    for name, scale in (("outputs", scales.outputs), ("by_leaf", scales.by_leaf)):
        for k, i in np.ndindex(scale.shape):
            planted = deepcopy(want)
            getattr(planted, name)[k][i] += 1e-9 * scale[k, i]
            wrong.append(planted)
    for planted in wrong:
        for check in (scales.assert_match, assert_same_bits):
            with pytest.raises(AssertionError):
                check(planted, want, "planted")


@pytest.mark.parametrize("count", [5, pytest.param(2000, marks=long)])
def test_processes_give_the_same_bits(count):
    """Spawned, so that nothing is inherited and everything is sent."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        for seed in range(count):
            program = graph_of(seed)
            arrays = batch_of(program, seed)
            local, remote = (compiled(program, tile=TILE, executor=x) for x in (None, executor))
            theta = local.theta()
            want = run_at_once(local, theta, arrays)
            assert_same_bits(run_at_once(remote, theta, arrays), want, f"seed {seed}")


# --- files ---------------------------------------------------------------------------------------


def through_a_pickle(graph: vgrad.Graph, path: Path) -> vgrad.Graph:
    path.write_bytes(pickle.dumps(graph))
    return pickle.loads(path.read_bytes())


def through_a_file(graph: vgrad.Graph, path: Path) -> vgrad.Graph:
    graph.save(path)
    return vgrad.Graph.load(path)


@pytest.mark.parametrize("count", [5, pytest.param(2000, marks=long)])
@pytest.mark.parametrize("through", [through_a_pickle, through_a_file])
def test_a_graph_that_was_stored_gives_the_same_bits(through, count, tmp_path):
    """Every array to the bit, and so every result, of small graphs, big ones and those with
    constants that are inf, nan and subnormal."""
    check_storing = partial(check_stored, through, tmp_path / "graph.npz")
    sums = [(ops.add, [0, edge]) for edge in EDGES]
    check_storing(RandomProgram(1, [], sums, [*range(1, 1 + len(sums))]), 0)
    for seed in range(count):
        check_storing(graph_of(seed), seed)
        check_storing(random_program(seed, edges=True), seed)


def check_stored(
    through: Callable[[vgrad.Graph, Path], vgrad.Graph],
    path: Path,
    program: RandomProgram,
    seed: int,
) -> None:
    for k, parameter in enumerate(program.parameters):
        parameter.label = f"w{k}"
    shapes = [()] * program.inputs
    graph = vgrad.trace(program, *shapes, parameters=program.parameters, lines=True)
    twin = through(graph, path)
    twin.check()
    for name in ("op", "parents", "level", "inputs", "parameters", "outputs"):
        array, again = getattr(graph, name), getattr(twin, name)
        assert array.dtype == again.dtype and np.array_equal(array, again), name
    assert graph.value.tobytes() == twin.value.tobytes()
    for name in ("input_shapes", "output_shapes", "labels", "lines"):
        assert getattr(graph, name) == getattr(twin, name), name
    arrays = batch_of(program, seed)
    for fuse in (False, True):
        theta = vgrad.compile(graph).theta()
        assert same_bits(vgrad.compile(twin).theta(), theta)
        got, want = (run_at_once(vgrad.compile(x, fuse=fuse), theta, arrays) for x in (twin, graph))
        assert_same_bits(got, want, f"seed {seed}")
