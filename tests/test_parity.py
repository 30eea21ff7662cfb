"""The vector engine gives what the scalar engine gives.

Plain, values agree to the bit and gradients to 1e-12 of the sum of |contributions|; fused, where
sums are added in another order, values agree to 1e-12 of what they would be if nothing cancelled.
"""

from __future__ import annotations

import math
import random
from functools import partial

import numpy as np
import pytest
from helpers import (
    COMPUTED,
    EDGES,
    RandomProgram,
    assert_gradients_match,
    assert_values_match,
    backward_with_scale,
    long,
    mostly_fused,
    random_program,
    same_bits,
    sweep,
)

import vgrad
from vgrad import Value


def batch_of(program: RandomProgram, seed: int, size: int, edges: bool) -> np.ndarray:
    rng = random.Random(seed)
    numbers = [draw(rng, edges) for _ in range(size * program.inputs)]
    return np.reshape(numbers, (size, program.inputs))


def draw(rng: random.Random, edges: bool) -> float:
    return rng.choice(EDGES) if edges else rng.uniform(-2, 2)


def as_inputs(row: np.ndarray) -> list[Value]:
    return [Value(x, trainable=False) for x in row]


def check_parity(program: RandomProgram, X: np.ndarray, context: str, fuse: bool) -> list[float]:
    """Every call of a compiled program against the scalar engine, sample by sample.

    Returns the gradients of the last sample, so that a test can tell whether there were any.
    """
    compiled = vgrad.compile(program, parameters=program.parameters, fuse=fuse)
    theta, arrays = compiled.theta(), list(X.T)
    batch = len(X) if program.inputs else 1
    rows = X if program.inputs else np.empty((1, 0))

    outputs = compiled(theta, *arrays)
    by_parameter = compiled.per_sample_grads(theta, *arrays)
    by_input = compiled.input_grads(theta, *arrays)
    for i, row in enumerate(rows):
        where = f"{context}, sample {i}"
        inputs = as_inputs(row)
        roots = program(*inputs)
        if fuse:
            assert_values_match([out[i] for out in outputs], roots, where)
        else:
            assert same_bits([out[i] for out in outputs], [r.data for r in roots]), where
        leaves = [*inputs, *program.parameters]
        want, scale = backward_with_scale(roots[0], leaves)
        got = [*(g[i] for g in by_input), *by_parameter[i]]
        assert_gradients_match(got, want, scale, where)

    root, total = whole_batch(program, rows)
    want, scale = backward_with_scale(root, program.parameters)
    value, grad = compiled.value_and_grad(theta, *arrays)
    assert_gradients_match(grad, want, scale, f"{context}, batch of {batch}")
    assert_gradients_match(value, root.data, total, f"{context}, mean")
    return got


def whole_batch(program: RandomProgram, rows: np.ndarray) -> tuple[Value, float]:
    """The mean objective as one DAG of `Value`s in which shared numbers are computed once."""
    shared = program.is_shared()
    first: list[Value] = []
    objectives = []
    for row in rows:
        numbers = [*as_inputs(row), *program.parameters]
        for op, operands in program.lines:
            k = len(numbers)
            if first and shared[k]:
                numbers.append(first[k])
            else:
                numbers.append(op(*[numbers[x] if isinstance(x, int) else x for x in operands]))
        first = first or numbers
        objectives.append(numbers[program.outputs[0]])
    with np.errstate(all="ignore"):
        total = float(np.mean([abs(x.data) for x in objectives]))
    return sum(x * (1.0 / len(rows)) for x in objectives), total


both_ways = pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])


@both_ways
@pytest.mark.parametrize("block", sweep(20, 1))
def test_random_graphs(block, fuse):
    """500 graphs of ordinary numbers: 25 in each block."""
    telling = 0
    for seed in range(25 * block, 25 * block + 25):
        program = random_program(seed)
        got = check_parity(program, batch_of(program, seed, 5, edges=False), f"seed {seed}", fuse)
        telling += any(g not in (0.0, 1.0) for g in got)
    assert telling >= 20, "gradients of 0 and 1 tell nothing"


@both_ways
@pytest.mark.parametrize("block", sweep(20, 1))
def test_random_graphs_at_the_edges(block, fuse):
    """500 graphs of zeros, infinities, nan, subnormals and domain edges."""
    for seed in range(1000 + 25 * block, 1000 + 25 * block + 25):
        program = random_program(seed, edges=True)
        check_parity(program, batch_of(program, seed, 5, edges=True), f"seed {seed}", fuse)


@both_ways
@pytest.mark.parametrize("seed", sweep(5, 2))
def test_large_random_graphs(seed, fuse):
    program = random_program(seed, size=1000)
    check_parity(program, batch_of(program, seed, 3, edges=False), f"seed {seed}", fuse)


@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
@pytest.mark.parametrize("width", [1, pytest.param(2, marks=long), 7, pytest.param(64, marks=long)])
def test_every_op_at_every_edge(op, width):
    """All combinations of edge values, in groups of several widths, one node to a row."""
    grid = np.stack(np.meshgrid(*[EDGES] * op.arity), axis=-1).reshape(-1, op.arity)
    if op.arity == 3:
        grid = grid[::7]
    compiled = vgrad.compile(
        lambda x: np.array([op(*row) for row in x]) if width > 1 else op(*x[0]),
        parameters=[],
        fuse=False,
    )
    samples = np.resize(grid, (-(-len(grid) // width), width, op.arity))
    got = compiled([], samples).reshape(len(samples), width)
    for i, sample in enumerate(samples):
        assert same_bits(got[i], [op(*map(Value, row)).data for row in sample])


@mostly_fused
@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
@pytest.mark.parametrize("block", sweep(12, 1))
def test_every_op_with_shared_and_batched_operands(block, op, fuse):
    """Each operand an input, a parameter or a constant, at edges and at ordinary numbers."""
    rng = random.Random(100 * op.code + block)
    for trial in range(4):
        kinds = [rng.choice("xpc") for _ in range(op.arity)]
        kinds[rng.randrange(op.arity)] = rng.choice("xp")
        edges = bool(trial % 2)
        inputs = kinds.count("x")
        parameters = [Value(draw(rng, edges)) for _ in range(kinds.count("p"))]
        operands: list[int | float] = []
        for i, kind in enumerate(kinds):
            if kind == "c":
                operands.append(draw(rng, edges))
            else:
                operands.append(kinds[:i].count(kind) + (inputs if kind == "p" else 0))
        line = inputs + len(parameters)
        program = RandomProgram(inputs, parameters, [(op, operands)], [line])
        X = batch_of(program, trial, 6, edges)
        check_parity(program, X, f"{op.name} of {kinds}, trial {trial}", fuse)


def test_the_published_expression():
    """micrograd's README: 24.7041, 138.8338 and 645.5773, on both engines."""

    def f(a, b):
        c = a + b
        d = a * b + b**3
        c += c + 1
        c += 1 + c + (-a)
        d += d * 2 + (b + a).relu()
        d += 3 * d + (b - a).relu()
        e = c - d
        f = e**2
        g = f / 2.0
        g += 10.0 / f
        return g

    a, b = Value(-4.0), Value(2.0)
    g = f(a, b)
    g.backward()
    assert [f"{x:.4f}" for x in (g.data, a.grad, b.grad)] == ["24.7041", "138.8338", "645.5773"]

    program = vgrad.compile(f, parameters=[])
    by_a, by_b = program.input_grads([], [-4.0], [2.0])
    assert program([], [-4.0], [2.0]) == g.data
    assert [f"{x[0]:.4f}" for x in (by_a, by_b)] == ["138.8338", "645.5773"]


# --- what went wrong elsewhere -------------------------------------------------------------------


def in_place(x, y):
    """`+=` on a number that is in use makes another, and leaves the first one alone."""
    total = x
    product = total * y
    total += y
    return product * total


def reused(x, y):
    shared = x * y
    return shared * shared + (shared + shared) + vgrad.exp(shared) * 0.0 + x


# Faults that ports of micrograd had: a function, x and y, and by hand the value, d/dx and d/dy.
FAULTS = {
    "relu lost what arrives": (lambda x, y: 3 * vgrad.relu(x), (2.0, 1.0), 6.0, (3.0, 0.0)),
    "relu of what is negative": (lambda x, y: 3 * vgrad.relu(x), (-2.0, 1.0), 0.0, (0.0, 0.0)),
    "log's derivative is 1/x": (lambda x, y: vgrad.log(x) * y, (0.25, 2.0), math.log(0.0625),
                                (8.0, math.log(0.25))),
    "both operands are one": (lambda x, y: x * x, (3.0, 1.0), 9.0, (6.0, 0.0)),
    "a sum with itself": (lambda x, y: x + x, (3.0, 1.0), 6.0, (2.0, 0.0)),
    "a quotient by itself": (lambda x, y: x / x * y, (3.0, 2.0), 2.0, (0.0, 1.0)),
    "a power of itself": (lambda x, y: x**x, (2.0, 1.0), 4.0, (4.0 + 4.0 * math.log(2), 0.0)),
    "tanh far out": (lambda x, y: y * vgrad.tanh(x), (1000.0, 2.0), 2.0, (0.0, 1.0)),
    "tanh far out below": (lambda x, y: y * vgrad.tanh(x), (-1000.0, 2.0), -2.0, (0.0, -1.0)),
    "sigmoid far out": (lambda x, y: y * vgrad.sigmoid(x), (-1000.0, 2.0), 0.0, (0.0, 0.0)),
    "a node used again": (reused, (2.0, 3.0), 50.0, (43.0, 28.0)),
    "a diamond": (lambda x, y: (x * y) * (x + y), (-2.0, 3.0), -6.0, (-3.0, -8.0)),
    "in place": (in_place, (2.0, 3.0), 30.0, (21.0, 16.0)),
    "a number before an operator": (lambda x, y: 1 / x - 2 * (3 - y), (2.0, 1.0), -3.5,
                                    (-0.25, 2.0)),
    "a sign before a power": (lambda x, y: -(x**2) * y, (3.0, 2.0), -18.0, (-12.0, -9.0)),
}  # fmt: skip


def by_backward(fn, numbers):
    """Twice: the leaves' gradients double and nothing else's does."""
    leaves = [*map(Value, numbers)]
    root = fn(*leaves)
    root.backward()
    once = {node: node.grad for node in vgrad.engine.reachable(root)}
    root.backward()
    for node, grad in once.items():
        assert node.grad == (grad if node.parents else 2 * grad)
    return root.data, [once.get(leaf, 0.0) for leaf in leaves]


def by_program(fuse, fn, numbers):
    """Twice; of inputs, and of parameters."""
    program = vgrad.compile(fn, parameters=[], fuse=fuse)
    leaves = [*map(Value, numbers)]
    trained = vgrad.compile(lambda z: (fn(*leaves), sum(leaves)), leaves, fuse=fuse)
    for _ in range(2):
        grads = [g[0] for g in program.input_grads([], *([x] for x in numbers))]
        value, grad = trained.value_and_grad(numbers, [1.0])
        assert grad == pytest.approx(grads, rel=1e-15, abs=0)
        assert value == program([], *([x] for x in numbers))[0]
    return value, grads


ENGINES = {
    "scalar": by_backward,
    "fused": partial(by_program, True),
    "plain": partial(by_program, False),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_other_engines(name, engine):
    """1e-15 is the rounding of a logarithm and a few products; the rest is exact."""
    fn, numbers, value, grads = FAULTS[name]
    got = ENGINES[engine](fn, numbers)
    assert got[0] == pytest.approx(value, rel=1e-15, abs=0)
    assert got[1] == pytest.approx(grads, rel=1e-15, abs=0)
