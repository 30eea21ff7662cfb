"""What a question depends on keeps every bit in a fused plan, and the rest fuses as before.

A sample may lie on the very edge of a branch, where the last digit of a sum, or the sign of a zero,
decides which way it goes. So these tests hold samples against their own results in the plain sweep.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import COMPUTED, EDGES, mostly_double, random_program, same_bits, sweep

import vgrad
from vgrad import Value, nn, ops
from vgrad.compiler import FusedSweep, compile_plan
from vgrad.compiler.fused import asked as asked_nodes
from vgrad.flat import Graph, PlainSweep, Question

B = 20_000
rng = np.random.default_rng(0)
W = [Value(x) for x in rng.normal(size=32)]
ZEROS = np.array([0.0, -0.0, 1.0, -1.0])


def asking(fn: Callable[..., Any], shapes: list[tuple[int, ...]], count: int, **options) -> Graph:
    """The graph of `fn`, whose last `count` outputs are the answers to questions."""
    graph = vgrad.trace(fn, *shapes, **options)
    return replace(graph, questions=(Question("bool", 1.0, "f.py:1", "f"),) * count)


def fused(graph, dtype=np.float64):
    return FusedSweep(compile_plan(graph, dtype=np.dtype(dtype)), None, np.dtype(dtype))


def plain(graph, dtype=np.float64):
    return PlainSweep(graph, None, np.dtype(dtype))


def outputs(run, theta, arrays):
    """Every output for every sample, without another sweep that might take over."""
    rows = [x.reshape(len(x), -1).astype(run.dtype) for x in arrays]
    batch = len(rows[0]) if rows else 1
    with np.errstate(all="ignore"):
        return run.outputs(theta.astype(run.dtype), rows, batch, run.width(batch))


def theta_of(parameters):
    return np.array([p.data for p in parameters])


# --- formulas, held against their own results ----------------------------------------------------


def near(x: np.ndarray) -> np.ndarray:
    """The numbers, or those next to them."""
    moved = np.stack([x, x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf)])
    return moved[rng.integers(4, size=len(x)), np.arange(len(x))]


def numbers(*shape: int) -> np.ndarray:
    return rng.normal(size=(B, *shape)) * 10.0 ** rng.integers(-3, 3, size=(B, *shape))


def ties(*shape: int) -> np.ndarray:
    """Whole numbers, halves and zeros of either sign, whose sums often are 0."""
    return rng.choice([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0], size=(B, *shape))


def tenths(*shape: int) -> np.ndarray:
    """Of which a sum may be 0 or just not, as 0.1 + 0.2 - 0.3 is not."""
    return np.round(rng.uniform(-1, 1, size=(B, *shape)), 1)


def dot(x, w=W):
    total = w[0] * x[0]
    for a, b in zip(w[1:], x[1:]):
        total = total + a * b
    return total


def newton(c):
    x, steps = c, []
    for _ in range(6):
        d = (x * x * x - 2 * x - c) / (3 * x * x - 2)
        x = x - d
        steps.append(abs(d) - 1e-10)
    return steps


def horner(x):
    total = W[0]
    for w in W[1:6]:
        total = total * x + w
    return [total, total * total - W[6]]


def signs(x):
    a, b, c, d = x
    return [
        sum([a * b, c * d]),  # from 0 on
        a * b + c * d,
        sum([a, b, c]),
        sum([a, b]) + c * d,
        a + b + 0.0,
        a + b - 0.0,
        a + b + -0.0,
        0.0 - a - b,
        -0.0 - a - b,
        a * b - 0.0 - c * d,
        a * b + 0.0 - c * d - a,
        -a - b,
        -(a + b),
        -(a - b),
        -(a * b) - c,
        c - (a * b - d),
        c - -(a * b),
        a * 2.0 - b,
        (a - b) * 3.0 + c,
        2.0 * (a * b) - d,
        c * 0.0 + 3.0 * (a * b),
        -3.0 * (a * b) - c,
        a - sum([b * c]),
        d + sum([a * b, c * d]),
    ]


def activations(x):
    a, b = x
    return [
        *map(vgrad.sigmoid, x),
        vgrad.softplus(a),
        vgrad.silu(a),
        vgrad.gelu(b),
        vgrad.elu(b, 0.7),
        vgrad.leaky_relu(a, 0.2),
        vgrad.leaky_relu(a, -0.2),
        vgrad.relu(a),
        vgrad.relu(a) * vgrad.relu(-b),
        vgrad.logaddexp(a, b),
        vgrad.maximum(a, b),
        vgrad.minimum(a, b),
        vgrad.maximum(a, 0.0),
    ]


def powers(x):
    a, b = x
    c = abs(a)
    constants = [c**k for k in (-0.5, 0.5, 1.5, 3.0, -3.0, -1.0, 0.0, 1.0, 2.0, 4.0)]
    return [*constants, a**3 - a * a * a, a**2 - a * a, c**b, a**3 + 0.0, a**-1.0]


def picks(x):
    k = vgrad.floor(abs(x[0]) * 3)
    row = vgrad.take(W[:6], vgrad.minimum(k, 5.0))
    few = [vgrad.where(x[i] > 0, W[i], 0.0) for i in range(4)]
    negative = vgrad.where(x[0] > 0, -1.0, 0.0) + vgrad.where(x[1] > 0, W[1], 0.0)  # or 0.0
    return [row, row * x[1] - x[2], sum(few), few[0] + few[1] - x[3], negative]


def shared(x):
    norm = sum(w * w for w in W)
    return [norm, W[0] * W[1] - W[2] * W[3], W[0] * W[1] + W[2] * x[0], vgrad.sigmoid(dot(W[16:]))]


def compensated(x):
    """Sums that keep their order anyway, and of which more is asked."""
    s = x[0] + x[1]
    b = s - x[0]
    return [s, (x[0] - (s - b)) + (x[1] - b), (s + 1e16) - 1e16]


# fmt: off
CASES: dict[str, tuple[Callable[..., list[Any]], np.ndarray]] = {
    "tenths":         (lambda x: [x[0] + x[1] - x[2], x[0] - x[1] + x[2] - x[3]], tenths(4)),
    "cancelled":      (lambda x: [x[0] * x[1] - x[2] * x[1] + x[3] - x[3]], tenths(4)),
    "on the right":   (lambda x: [x[0] + (x[1] + x[2]), x[0] - (x[1] - x[2])], tenths(4)),
    "distance":       (lambda x: [sum((a - b) ** 2 for a, b in zip(x[:2], x[2:]))], tenths(4)),
    "squares":        (lambda x: [x[0] * x[0] + x[1] * x[1] - x[2] * x[2]], tenths(3)),
    "determinant":    (lambda x: [x[0] * x[3] - x[1] * x[2], x[1] * x[2] - x[0] * x[3]], tenths(4)),
    "dot of 3":       (lambda x: [dot(x)], numbers(3)),
    "dot of 16":      (lambda x: [dot(x)], numbers(16)),
    "from 0 on":      (lambda x: [sum(w * y for w, y in zip(W, x))], numbers(16)),
    "dots":           (lambda x: [dot(x, W[k:]) for k in range(10)], numbers(16)),
    "unlike dots":    (lambda x: [dot(x[:k], W[k:]) for k in range(2, 12)], numbers(16)),
    "own products":   (lambda x: [dot(x[:8], x[8:]), dot(x[:5], x[5:10])], numbers(16)),
    "batched W @ x":  (lambda x: [dot(x[k : k + 4], x[16:]) for k in range(0, 16, 4)], numbers(20)),
    "40 terms":       (lambda x: [dot([*x, *x, *x], [*W, *W])], numbers(16)),
    "differences":    (lambda x: [W[0] * x[0] - W[1] * x[1] - x[2] - x[3] * x[4]], numbers(5)),
    "scaled":         (lambda x: [2 * x[0] * x[1] - x[2], 3 * (x[0] * x[1]) - x[2]], tenths(3)),
    "outer products": (lambda x: [3 * (w * y) for w in W[:6] for y in x], numbers(6)),
    "times 3":        (lambda x: [sum(3 * (x[k] * W[k]) for k in range(6))], numbers(6)),
    "weighted":       (lambda x: [sum((k + 0.1) * x[k] * W[k] for k in range(6))], numbers(6)),
    "whole numbers":  (lambda x: [vgrad.floor(x[0] * x[1] * 10), vgrad.rint(x[0] * 10 + x[1] * 5),
                                  vgrad.trunc(x[0] * 10 - x[1] * 20), x[0] // x[1]], tenths(2)),
    "signs":          (signs, ties(4)),
    "activations":    (activations, numbers(2)),
    "at 0":           (activations, ties(2)),
    "powers":         (powers, numbers(2)),
    "powers of ties": (powers, ties(2)),
    "picks":          (picks, numbers(4)),
    "Newton":         (lambda x: newton(x[0]), rng.uniform(2, 9, size=(B, 1))),
    "Horner":         (lambda x: horner(x[0]), numbers(1)),
    "shared":         (shared, numbers(1)),
    "compensated":    (compensated, numbers(2)),
}
# fmt: on


def on_the_edge(fn, x, dtype):
    """A graph that asks, of all numbers that `fn` returns, on which side of given ones they are.

    And the data: half of the given numbers are the plain sweep's own results, the others next to
    them. Of zeros the graph asks the sign.
    """
    graph = vgrad.trace(fn, x.shape[1:], parameters=W)
    found = outputs(plain(graph, dtype), theta_of(W), [x]).T
    count = found.shape[1]

    def conditions(x, edges):
        own = fn(x)
        asked = [[y == t, y > t, vgrad.arctan2(y, -1.0) > 0] for y, t in zip(own, edges)]
        return sum(vgrad.tanh(y) for y in own), vgrad.array(asked)

    asks = asking(conditions, [x.shape[1:], (count,)], 3 * count, parameters=W)
    return asks, found, np.apply_along_axis(near, 0, found)


@mostly_double
@pytest.mark.parametrize("name", CASES)
def test_samples_on_the_edge_go_the_same_way(name, dtype):
    fn, x = CASES[name]
    graph, found, edges = on_the_edge(fn, x.astype(dtype), dtype)
    theta, run = theta_of(W), fused(graph, dtype)
    got = outputs(run, theta, [x, edges])[1:]
    assert same_bits(got, outputs(plain(graph, dtype), theta, [x, edges])[1:])
    own = outputs(run, theta, [x, found])[1::3]
    assert ((own == 1) | np.isnan(found.T)).all()  # every number equals that of the plain sweep
    for part in (slice(0, 1), slice(5, 7), slice(7, 40)):  # batches of one have no axis
        assert same_bits(outputs(run, theta, [x[part], edges[part]])[1:], got[:, part])


def test_signs_of_zeros_are_those_of_the_formula():
    """The test above is blind if no sum is -0.0 or 0.0, or if all formulas agree."""
    fn, x = CASES["signs"]
    found = outputs(fused(asking(fn, [(4,)], 24)), np.empty(0), [x])
    zero = found == 0
    assert zero.any(axis=1).all() and (np.signbit(found) & zero).any(axis=1).sum() > 8
    assert (np.signbit(found[0]) != np.signbit(found[1])).any()  # sum() begins with 0


def test_of_equal_zeros_the_formula_says_which_is_larger(monkeypatch):
    """np.maximum may return either, and does not everywhere return the same one."""

    def first(x, y, out=None):
        if out is None:
            return np.where(x >= y, x, y)
        np.copyto(out, np.where(x >= y, x, y))

    graph = asking(lambda x: [vgrad.maximum(*x), vgrad.relu(x[0])], [(2,)], 2)
    runs = [fused(g) for g in (graph, replace(graph, questions=()))]
    monkeypatch.setitem(vars(ops.maximum), "ufunc", first)
    monkeypatch.setattr(np, "maximum", first)
    zeros = np.array([[0.0, -0.0], [-0.0, 0.0]])
    exact, quick = (outputs(run, np.empty(0), [zeros]) for run in runs)
    assert same_bits(exact, [[-0.0, 0.0], [0.0, 0.0]])
    assert same_bits(quick, [[0.0, -0.0], [0.0, -0.0]])


# --- random graphs -------------------------------------------------------------------------------

CONDITIONS = [op for op in COMPUTED if op.is_condition]


def random_sums(seed: int) -> tuple[Callable[..., Any], int, int]:
    """A function of so many numbers with so many conditions, which is mostly sums of products."""
    rng = random.Random(seed)
    inputs, lines = rng.randint(2, 6), rng.randint(5, 40)
    kinds = [ops.add] * 5 + [ops.sub] * 4 + [ops.mul] * 5 + [ops.neg, ops.abs, ops.maximum]
    chosen, count = [], inputs + 4  # four are parameters
    for _ in range(lines):
        op, recent = rng.choice(kinds), range(max(0, count - 4), count)
        places = [rng.choice(recent) if rng.random() < 0.6 else rng.randrange(count) for _ in "xy"]
        number = rng.choice([None] * 6 + [0.0, -0.0, 1.0, 2.0, -3.0, 0.1])
        chosen.append((op, places[: op.arity], number, rng.random() < 0.5))
        count += 1
    asked = [(rng.choice(CONDITIONS), rng.randrange(inputs, count), rng.randrange(count))
             for _ in range(rng.randint(1, 4))]  # fmt: skip

    def fn(x):
        numbers = [*x, *W[:4]]
        for op, places, number, first in chosen:
            operands = [numbers[k] for k in places]
            if number is not None and op.arity == 2:
                operands[0 if first else 1] = number
            numbers.append(op(*operands))
        conditions = [op(numbers[i], numbers[k]) for op, i, k in asked]
        angles = [vgrad.arctan2(numbers[i], -1.0) > 0 for _, i, _ in asked]
        return vgrad.tanh(numbers[-1]), *conditions, *angles

    return fn, inputs, 2 * len(asked)


@pytest.mark.parametrize("seed", sweep(200, 25))
def test_random_sums_that_are_asked_about_keep_every_bit(seed):
    fn, inputs, count = random_sums(seed)
    graph = asking(fn, [(inputs,)], count, parameters=W[:4])
    draw = np.random.default_rng(seed)
    values = draw.choice([0.0, -0.0, 0.1, 0.2, 0.3, -0.3, 1.0, -1.0, 1 / 3], size=(100, inputs))
    for theta in (theta_of(W[:4]), draw.choice(ZEROS, 4)):
        got, want = (outputs(run(graph), theta, [values]) for run in (fused, plain))
        assert same_bits(got[1:], want[1:])


@pytest.mark.parametrize("edges", [False, True], ids=["tame", "edges"])
@pytest.mark.parametrize("seed", sweep(200, 25))
def test_random_programs_that_are_asked_keep_every_bit(seed, edges):
    """Over the whole table: conditions and whole numbers of any of a program's numbers."""
    draw, choice = np.random.default_rng(seed), random.Random(seed)
    program = random_program(seed, edges)
    total = program.inputs + len(program.parameters) + len(program.lines)
    answers = []
    for _ in range(choice.randint(1, 4)):
        i, k = choice.randrange(total), choice.randrange(total)
        large = program.emit(ops.mul, [i, 1e15])  # so that its last digits are whole
        answers += [
            program.emit(ops.rint, [large]),
            program.emit(choice.choice(CONDITIONS), [i, k]),
        ]
    program.outputs = [program.outputs[0], *answers]
    graph = asking(program, [()] * program.inputs, len(answers), parameters=program.parameters)
    few = EDGES if edges else ZEROS
    arrays = [np.append(draw.normal(size=60), draw.choice(few, 40)) for _ in range(program.inputs)]
    got, want = (
        outputs(run(graph), theta_of(program.parameters), arrays) for run in (fused, plain)
    )
    lost = np.isnan(got).all(axis=0)  # another sum may have overflowed: the plain sweep takes over
    assert same_bits(got[1:, ~lost], want[1:, ~lost])


# --- the rest of the plan ------------------------------------------------------------------------


def kernels(graph):
    return compile_plan(graph).summary().kernels


def test_what_no_question_depends_on_fuses_as_before():
    model = nn.MLP(2, [16, 16, 1], rng=random.Random(0))

    def loss(x, y):
        small = x[0] * x[0] + x[1] * x[1] < 1.0
        return vgrad.where(small, vgrad.relu(1 - y * model(x)), y * y), small

    graph = asking(loss, [(2,), ()], 1, parameters=model.parameters())
    free = replace(graph, questions=())
    names = [kernel.name for kernel in kernels(graph)]
    assert names == [kernel.name for kernel in kernels(free)]
    assert names.count("matmul") == 3


def test_a_sum_behind_a_question_is_no_matrix_product_and_says_so():
    def fn(x):
        sums = [dot(x, W[16 * k :]) for k in range(2)]
        return sum(map(vgrad.tanh, sums)), *(s > 0 for s in sums)

    graph = asking(fn, [(16,)], 2, parameters=W)
    assert [(k.name, k.exact) for k in kernels(graph) if k.level == 1] == [("sum", True)]
    of_one = replace(graph, questions=graph.questions[:1])  # the last output: the second sum
    made = {(k.name, k.exact) for k in kernels(of_one) if k.level == 1}
    assert made == {("sum", True), ("matmul", False)}
    free = kernels(replace(graph, questions=()))
    assert [(k.name, k.exact) for k in free if k.level == 1] == [("matmul", False)]


def test_only_maps_with_another_rule_run_apart():
    """A cube that is asked about is not x * x * x; of any other op all maps run together."""

    def fn(x):
        cubes, tanhs = [y**3 for y in x], [vgrad.tanh(y) for y in x]
        return sum(cubes) + sum(tanhs), cubes[0] > 1.0, tanhs[0] > 0.5

    graph = asking(fn, [(4,)], 2)
    made = [(k.name, len(k.nodes), k.exact) for k in kernels(graph) if k.level == 1]
    assert sorted(made) == [("pow", 1, True), ("pow", 3, False), ("tanh", 4, True)]


def test_a_guard_that_is_asked_about_stays():
    """Where nan would show in the result of a tanh, and floor, but no other sweep may be asked."""

    def fn(x, y):
        asked, other = ops.guard(x, y, y), ops.guard(y, x, x)
        return vgrad.tanh(asked) + vgrad.tanh(other), vgrad.floor(asked)

    plan = compile_plan(asking(fn, [(), ()], 1))
    guards = [kernel for kernel in plan.kernels if kernel.name == "guard"]
    assert [len(kernel.nodes) for kernel in guards] == [1]


@pytest.mark.parametrize("name", ["from 0 on", "dots", "Newton", "activations", "signs"])
def test_gradients_through_what_is_asked_are_the_usual_ones(name):
    """Within 1e-10 of the largest, as Newton's steps multiply roundings."""
    fn, x = CASES[name]
    graph, found, _ = on_the_edge(fn, x[:200], np.float64)
    plan = compile_plan(graph)
    everyone = replace(graph, questions=())  # so that all samples count
    run = FusedSweep(replace(plan, graph=everyone), None, np.dtype(float))
    with np.errstate(all="ignore"):
        got, want = (
            one.input_gradients(theta_of(W), [x[:200], found], 200, 200)
            for one in (run, PlainSweep(everyone, None, np.dtype(float), "careful"))
        )
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-10, atol=1e-10)


def test_a_long_chain_is_asked_about_without_recursion():
    def fn(x):
        for _ in range(20_000):
            x = x * 0.5 + 1.0
        return x, x > 2.0

    graph = asking(fn, [()], 1)
    known = asked_nodes(graph)
    assert known[:-1].all() and not known[-1]
    assert not asked_nodes(replace(graph, questions=())).any()
