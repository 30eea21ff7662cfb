"""What fuses and what must not: by the plan that `explain` shows, and by values and gradients."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from helpers import (
    assert_gradients_match,
    assert_values_match,
    backward_with_scale,
    random_program,
    same_bits,
    sweep,
)
from traps import NUMBERS, TRAPS

import vgrad
from vgrad import Value, nn, ops, where
from vgrad.compiler.bound import Bound
from vgrad.program.runner import Runner

rng = np.random.default_rng(0)


def values(n, seed=0):
    return [Value(x) for x in np.random.default_rng(seed).normal(size=n)]


def matrix(rows, columns, seed=0):
    return np.array(values(rows * columns, seed)).reshape(rows, columns)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def plan(fn, *arrays, parameters=None):
    """The kernels of the plan: ["matmul 16 x B = view 16 x 3, view 3 x B", ...]."""
    program = vgrad.compile(fn, parameters)
    program.theta(*arrays)
    return lines_of(program)


def lines_of(program):
    (runner,) = program.runners.values()
    return [f"{kernel.name} {kernel.formula}" for kernel in runner.unrolled().kernels]


def kernels(fn, *arrays, parameters=None):
    """Their names alone."""
    return [line.split()[0] for line in plan(fn, *arrays, parameters=parameters)]


def check(fn, parameters, *arrays, **options):
    """Every call against the scalar engine, twice, as buffers are used again."""
    program = vgrad.compile(fn, parameters, **options)
    theta = program.theta()
    for _ in range(2):
        outputs = program(theta, *arrays)
        by_parameter = program.per_sample_grads(theta, *arrays)
        by_input = program.input_grads(theta, *arrays)
        value, grad = program.value_and_grad(theta, *arrays)
        scales, wanted, objectives = [], [], []
        for i in range(len(arrays[0])):
            inputs = [np.vectorize(Value, otypes=[object])(array[i]) for array in arrays]
            inputs = [x[()] for x in inputs]
            leaves = [x for array in inputs for x in np.ravel(array)]
            root = fn(*inputs)
            assert_values_match([outputs[i]], [root], f"sample {i}")
            want, scale = backward_with_scale(root, [*leaves, *parameters])
            got = [*(x for array in by_input for x in np.ravel(array[i])), *by_parameter[i]]
            assert_gradients_match(got, want, scale, f"sample {i}")
            objectives.append(root.data)
            wanted.append(want[len(leaves) :])
            scales.append(scale[len(leaves) :])
        assert_gradients_match(grad, np.mean(wanted, 0), np.mean(scales, 0), "mean")
        assert value == pytest.approx(np.mean(objectives), rel=1e-12, nan_ok=True)


# --- what fuses ----------------------------------------------------------------------------------


def test_the_moons_loss_is_three_matrix_products_and_a_handful_of_maps():
    model = nn.MLP(2, [16, 16, 1], rng=random.Random(0))

    def loss(x, y):
        return (1 - y * model(x)).relu() + 1e-4 * sum(p * p for p in model.parameters())

    assert plan(loss, np.ones((7, 2)), np.ones(7), parameters=model.parameters()) == [
        "matmul 1 = view 337, view 337",
        "chain 1 = view 1, view 1",
        "matmul 16 x B = view 16 x 3, view 3 x B",
        "relu 16 x B = view 16 x B",
        "matmul 16 x B = view 16 x 17, view 17 x B",
        "relu 16 x B = view 16 x B",
        "matmul 1 x B = view 17, view 17 x B",
        "chain 1 x B = view 1 x B, view 1 x B",
        "relu 1 x B = view 1 x B",
        "chain 1 x B = view 1 x B, view 1",
    ]
    check(loss, model.parameters(), rng.normal(size=(7, 2)), rng.choice([-1.0, 1.0], 7))


def test_a_captured_training_loss_is_one_matrix_product_per_layer():
    model = nn.MLP(2, [16, 16, 1], rng=random.Random(0))
    data, targets = rng.normal(size=(30, 2)).tolist(), rng.choice([-1.0, 1.0], 30).tolist()
    total = sum((1 - t * model(x)).relu() for x, t in zip(data, targets))
    graph = vgrad.capture(total * (1 / 30), parameters=model.parameters())
    program = vgrad.compile(graph)
    assert [line for line in lines_of(program) if line.startswith("matmul")] == [
        "matmul 30 x 16 = view 16 x 3, gather 30 x 3",
        "matmul 30 x 16 = view 16 x 17, view 30 x 17",
        "matmul 30 = view 17, view 30 x 17",
        "matmul 1 = view 30, view 30",
    ]
    value, grad = program.value_and_grad(program.theta())
    mean = total * (1 / 30)
    want, scale = backward_with_scale(mean, model.parameters())
    assert_values_match([value], [mean], "captured")
    assert_gradients_match(grad, want, scale, "captured")


W, V, B = matrix(4, 3, 1), matrix(4, 3, 2), values(4, 3)
P, Q, R = values(5, 4), matrix(5, 5, 5), matrix(4, 5, 6)


def missing_pair(x):
    pairs = [(a, b) for a in range(4) for b in range(4) if (a, b) != (2, 1)]
    return sum(vgrad.tanh(dot(x[a], x[4 + b])) for a, b in pairs)


FUSED = {
    "layer": (
        lambda x: sum(vgrad.sin(W @ x + B)),
        [*W.flat, *B],
        (3,),
        "matmul 4 x B = view 4 x 4, view 4 x B",
    ),
    "layer by loops": (
        lambda x: sum(vgrad.tanh(dot(w, x) + b) for w, b in zip(W, B)),
        [*W.flat, *B],
        (3,),
        "matmul 4 x B = view 4 x 4, view 4 x B",
    ),
    "the layer at five positions": (
        lambda x: sum(vgrad.tanh(dot(w, x[t])) for t in range(5) for w in W),
        [*W.flat],
        (5, 3),
        "matmul 5 x 4 x B = view 4 x 3, view 5 x 3 x B",
    ),
    "a bias for each row and one for each position": (
        lambda x: sum(
            vgrad.tanh(dot(Q[i], x[t]) + P[i] + R[t, i]) for t in range(4) for i in range(5)
        ),
        [*Q.flat, *P, *R.flat],
        (4, 5),
        "matmul 4 x 5 x B = view 5 x 5, view 4 x 5 x B",
    ),
    "two layers with biases at five positions": (
        lambda x: sum(
            sum(vgrad.tanh(V[:3, :3] @ vgrad.sin(W[:3] @ x[t] + B[:3]) + B[1:])) for t in range(5)
        ),
        [*W.flat, *V.flat, *B],
        (5, 3),
        "matmul 5 x 3 x B = gather 3 x 4, view 5 x 4 x B",
    ),
    "overlapping positions, a convolution": (
        lambda x: sum(vgrad.tanh(dot(w, x[t : t + 3])) for t in range(6) for w in W),
        [*W.flat],
        (8,),
        "matmul 6 x 4 x B = view 4 x 3, view 6 x 3 x B",
    ),
    "activations times activations": (
        lambda x: sum(vgrad.exp(0.1 * dot(a, b)) for a in x[:4] for b in x[4:]),
        [],
        (7, 6),
        "einsum 3 x 4 x B = view 4 x 6 x B, view 3 x 6 x B",
    ),
    "parameters times parameters": (
        lambda x: sum(vgrad.tanh(W @ V.T @ x)) + sum(p * p for p in P),
        [*W.flat, *V.flat, *P],
        (4,),
        "matmul 4 x 4 = view 4 x 3, view 4 x 3",
    ),
    "a penalty in the middle of a batched sum": (
        lambda x: sum([x * x, *(p * p for p in P), vgrad.sin(x)]),
        P,
        (),
        "matmul 1 = view 5, view 5",
    ),
    "a layer with a residual": (
        lambda x: sum(vgrad.tanh(x[i] + dot(Q[i], x) + P[i]) for i in range(5)),
        [*Q.flat, *P],
        (5,),
        "matmul 5 x B = view 5 x 6, view 6 x B",
    ),
    "coefficients and signs": (
        lambda x: sum(vgrad.tanh(2 * (w[0] * x[0]) - w[1] * x[1] + x[2] * w[2] * -3) for w in W),
        [*W.flat],
        (3,),
        "matmul 4 x B = view 4 x 3, view 3 x B",
    ),
    "ragged sums": (
        lambda x: sum(vgrad.exp(0.1 * sum(x[: n + 5])) for n in range(6)),
        [],
        (12,),
        "sum 6 x B",
    ),
    "a bias that is another one at each position": (
        lambda x: sum(vgrad.tanh(dot(Q[i], x[t]) + R[t, i]) for t in range(4) for i in range(5)),
        [*Q.flat, *R.flat],
        (4, 5),
        "matmul 4 x 5 x B = view 5 x 5, view 4 x 5 x B",
    ),
    "causal scores of two heads": (
        lambda x: sum(
            vgrad.tanh(dot(x[t, h : h + 4], x[s, h : h + 4]))
            for t in range(6)
            for s in range(t + 1)
            for h in (0, 4)
        ),
        [],
        (6, 8),
        "stack 42 x B = view 2 x 6 x 4 x B, view 2 x 6 x 4 x B",
    ),
    "means of what came before, of two heads": (
        lambda x: sum(
            vgrad.tanh(dot(x[h, : t + 1, 5 + t], x[h, : t + 1, j]))
            for t in range(6)
            for h in (0, 1)
            for j in range(5)
        ),
        [],
        (2, 6, 11),
        "stack 2 x 5 x 6 x B = gather 42 x B, view 2 x 5 x 6 x B",
    ),
    "the same, the means' weights last": (
        lambda x: sum(
            vgrad.tanh(dot(x[h, : t + 1, j], x[h, : t + 1, 5 + t]))
            for t in range(6)
            for h in (0, 1)
            for j in range(5)
        ),
        [],
        (2, 6, 11),
        "stack 2 x 5 x 6 x B = gather 42 x B, view 2 x 5 x 6 x B",
    ),
    "scores with all pairs but one": (
        missing_pair,
        [],
        (8, 6),
        "stack 15 x B = view 4 x 6 x B, view 4 x 6 x B",
    ),
    "norms": (
        lambda x: sum(vgrad.sqrt(sum(a * a for a in row) + 1) for row in x),
        [],
        (6, 5),
        "sum 6 x B = view 6 x 5 x B, view 6 x 5 x B",
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_what_fuses(name):
    fn, parameters, shape, line = FUSED[name]
    found = plan(fn, np.ones((6, *shape)), parameters=parameters)
    assert any(kernel.startswith(line) for kernel in found), found
    check(fn, parameters, rng.normal(size=(6, *shape)))
    check(fn, parameters, rng.normal(size=(1, *shape)))


def test_a_layer_at_several_positions_lies_features_first():
    """So that positions and samples are one axis of one product; rows of ones would be between."""
    deeper = FUSED["two layers with biases at five positions"][0]
    for fn, strides in (
        (lambda x: sum(sum(vgrad.tanh(W @ x[t] + B)) for t in range(5)), (1, 5)),
        (deeper, (3, 1)),
    ):
        program = vgrad.compile(vgrad.trace(fn, (5, 3), parameters=[*W.flat, *V.flat, *B]))
        (runner,) = program.runners.values()
        assert runner.plan.kernels[0].out.strides == strides


def test_a_map_that_reads_two_kernels_is_cut_in_two():
    """Where that is much; each part is a view."""

    def fn(n):
        return lambda x: sum(
            vgrad.tanh(y) for y in [*map(vgrad.exp, x[:n]), *map(vgrad.sin, x[n:])]
        )

    found = plan(fn(200), np.ones((2, 400)))
    assert found.count("tanh 200 x B = view 200 x B") == 2
    assert "tanh 4 x B = view 4 x B" in plan(fn(2), np.ones((2, 4)))
    check(fn(200), [], rng.normal(size=(2, 400)))


# --- what almost does ----------------------------------------------------------------------------


def twice_used(x):
    product = W[0, 0] * x[0]
    return vgrad.tanh(product + W[0, 1] * x[1] + W[0, 2] * x[2]) + product * product


def scaled(x, factor, times):
    for _ in range(times):
        x = x * factor
    return x


def causal(x):
    return sum(vgrad.tanh(dot(x[a], x[b])) for a in range(6) for b in range(a + 1))


def one_odd_term(x):
    rows = [[*w] for w in W]
    rows[2][1] = W[0, 0]
    return sum(vgrad.tanh(dot(w, x)) for w in rows)


NEAR_MISSES = {
    "a product used twice": (twice_used, [*W.flat], (3,)),
    "a missing pair": (missing_pair, [], (8, 6)),
    "a triangle": (causal, [], (6, 6)),
    "the same weight in two places": (one_odd_term, [*W.flat], (3,)),
    "one weight everywhere": (lambda x: dot([W[0, 0]] * 6, x), [W[0, 0]], (6,)),
    "squares": (lambda x: sum(a * a for a in x) + x[0] * x[0], [], (6,)),
    "a sum with itself": (lambda x: (x[0] + x[1]) + (x[0] + x[1]), [], (2,)),
    "x - x": (lambda x: x[0] * x[1] - x[0] * x[1] + (x[0] - x[0]), [], (2,)),
    "zero coefficients": (lambda x: 0 * (x[0] * x[1]) + 0.0 * x[2] + x[0] - 0, [], (3,)),
    "constants only": (lambda x: x * 0 + (2 * Value(3.0, trainable=False) + 1), [], ()),
    "ones": (lambda x: 1 * x[0] + x[1] * 1.0 + 1 - (1 - x[2]) + 1.0 * 1, [], (3,)),
    "minus a sum of products": (lambda x: -(x[0] * x[1] + x[2] * x[0]) - -x[1], [], (3,)),
    "scaled sums": (lambda x: 3 * (x[0] + 2 * (x[1] - 4 * (x[2] * x[0]))), [], (3,)),
    "tiny and huge": (lambda x: 1e-200 * (1e200 * (x[0] * x[1])) + 1e60 * (x[2] * x[0]), [], (3,)),
    "several biases": (lambda x: W[0] @ x + B[0] + B[1] - 2 * B[2] + 1, [*W[0], *B], (3,)),
    "a computed bias": (lambda x: W[0] @ x + vgrad.exp(B[0]), [*W[0], *B], (3,)),
    "minus biases": (lambda x: sum(vgrad.tanh(W @ x - B)), [*W.flat, *B], (3,)),
    "two layers of one weight": (
        lambda x: sum(vgrad.tanh(W[:3] @ vgrad.tanh(W[:3] @ x))),
        [*W.flat],
        (3,),
    ),
    "a duplicate": (lambda x: sum(vgrad.tanh(dot(w, x)) for w in [*W, W[1]]), [*W.flat], (3,)),
    "short sums of two kinds": (
        lambda x: sum(vgrad.tanh(w * x[0] + x[1] * x[2]) for w in W[0]), [*W[0]], (3,)),
    "a constant first": (lambda x: 0.5 * x**0 + 2.5 * x**1 - 3.0 * x**2, [], ()),
    "constants first": (lambda x: x**0 + x**0 + vgrad.sin(x), [], ()),
    "a ring of pairs": (
        lambda x: sum(vgrad.tanh(dot(x[a], x[3 + (a + b) % 3])) for a in range(3) for b in (0, 1)),
        [], (6, 6)),
    "rows that begin alike": (
        lambda x: sum(
            vgrad.tanh(dot(x[a], [*x[b, :1], *(x[b, 1:] if a % 2 else x[b, :0:-1])]))
            for a in range(4) for b in range(4, 8) if a + b > 4), [], (8, 6)),
    "a pair twice": (
        lambda x: sum(
            vgrad.tanh(dot(x[a], x[b])) for a, b in [(0, 4), *np.ndindex(4, 5)] if b), [], (5, 6)),
    "one sum written twice": (
        lambda x: dot(*[[vgrad.tanh(sum(x[j] for j in (0, 3, 1, 7, 2, 5)))] for _ in "ab"]),
        [], (8,)),
    "one weight to a sum, inputs in disorder": (
        lambda x: sum(
            vgrad.tanh(sum(w * x[j] for j in rng.permutation(12)[:5]))
            for rng, w in zip(map(np.random.default_rng, range(3)), P)
        ), P[:3], (12,)),
    "powers of 0 in disorder": (
        lambda x: sum((x[j] ** 0.0) * x[0] for j in (0, 3, 1, 2, 7)), [], (8,)),
    "scale upon scale": (
        lambda x: sum([scaled(x[0] * x[1] * 2.0**-600, 2.0**29, 20), x[2]]), [], (3,)),
    "dead parameters": (lambda x: x * W[0, 0], [*W.flat], ()),
    "powers": (lambda x: x**2 + x**3 + x**-1 + abs(x) ** 0.5 + x**0 + x**1 + abs(x) ** 1.5, [], ()),
    "mixed kinds": (
        lambda x: dot(W[0], x[:3]) + dot(x[:3], x[3:]) + B[0] + sum(x),
        [*W[0], B[0]],
        (6,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses(name):
    fn, parameters, shape = NEAR_MISSES[name]
    for batch in (5, 1):
        check(fn, parameters, rng.normal(size=(batch, *shape)))


@pytest.mark.parametrize("block", sweep(10, 3))
def test_random_sums(block):
    """120 programs of sums in rows and columns, whose factors follow either or neither.

    Weights, inputs, what is computed of either, constants and 1, so that grids are complete, almost
    complete, or none; a cell may be missing.
    """
    for seed in range(12 * block, 12 * block + 12):
        check(random_sums(seed), WEIGHTS, rng.normal(size=(random.Random(seed).choice([1, 4]), 6)))


WEIGHTS = values(8, 9)


@pytest.mark.parametrize("block", sweep(10, 2))
def test_random_stacks(block):
    """60 programs of sums that are ragged, or not wanted for all pairs; and some that only seem so.

    With weights of one sample and a batch, and a number here and there that is not finite.
    """
    for seed in range(6 * block, 6 * block + 6):
        draw = random.Random(seed)
        shape = (4, 5, draw.choice([3, 6]))
        data = np.random.default_rng(seed).normal(size=(draw.choice([1, 3]), *shape))
        for _ in range(draw.choice([0, 0, 1])):
            data[0].flat[draw.randrange(data[0].size)] = draw.choice([np.inf, np.nan, 1e200])
        check(random_stack(seed), [], data)
        leaves = [Value(number) for number in data[0].flat]
        root = random_stack(seed)(np.array(leaves).reshape(shape))
        program = vgrad.compile(vgrad.capture(root, parameters=leaves))
        value, grad = program.value_and_grad(program.theta())
        assert_values_match([value], [root], f"seed {seed}, captured")
        want, scale = backward_with_scale(root, leaves)
        assert_gradients_match(grad, want, scale, f"seed {seed}, captured")


def random_stack(seed):
    draw = random.Random(seed)
    wanted = draw.choice([
        lambda a, b: a >= b, lambda a, b: a <= b, lambda a, b: a != b, lambda a, b: True,
    ])  # fmt: skip
    ragged, beginning = draw.random() < 0.6, draw.random() < 0.8
    heads, swapped, twice = draw.randint(1, 3), draw.random() < 0.3, draw.random() < 0.1
    squash = draw.choice([vgrad.tanh, lambda z: vgrad.where(z > 0, 2.0, 3.0) * z])
    coefficient = draw.choice([None, None, None, 2.0, -1.0])
    strange = draw.random() < 0.3  # some rows begin as the others do, and go on in another way

    def program(x):
        sums = []
        for h in range(heads):
            for a, b in np.ndindex(5, 5):
                if not wanted(a, b):
                    continue
                n = a + 1 if ragged else x.shape[2]
                part = slice(0, n) if beginning else slice(x.shape[2] - n, None)
                u, v = x[h, a, part], vgrad.sin(x[h + 1, b, part])
                if strange and a % 2:
                    v = [*v[:1], *v[:0:-1]]
                if coefficient:
                    u = [*u[:-1], u[-1]]
                    sums.append(sum(coefficient * (p * q) for p, q in zip(u, v)))
                    continue
                sums.append(dot(v, u) if swapped else dot(u, v))
                if twice and a == b == 2:
                    sums.append(dot(u, v))
        return sum(squash(z) for z in sums) + x[0, 0, 0]

    return program


def test_a_stack_hides_no_nan():
    """Where products overflow: inf - inf, which BLAS may take for inf, and tanh for 1."""
    x = np.ones((1, 12, 6))
    x[0, 0], x[0, 6] = 1e200, [1e200, -1e200] * 3
    fn = lambda x: sum(vgrad.tanh(dot(x[a], x[6 + b])) for a in range(6) for b in range(a + 1))  # noqa: E731
    for batch in (1, 3):
        data = np.repeat(x, batch, axis=0)
        assert "stack" in kernels(fn, data)
        assert np.isnan(vgrad.compile(fn, [])([], data)).all()
    program = vgrad.compile(lambda x: vgrad.where(fn(x) > 0, np.inf, -np.inf), check_finite=True)
    with pytest.raises(vgrad.NonFiniteError):
        program.input_grads([], x)


def spy(monkeypatch, kind):
    """The names of the methods of this class that are called from now on."""
    called = []
    for name in ("outputs", "gradient", "input_gradients"):
        monkeypatch.setattr(kind, name, noting(called, name, getattr(kind, name)))
    return called


def noting(called, name, method):
    def noted(*arguments):
        called.append(name)
        return method(*arguments)

    return noted


def test_what_a_stack_leaves_out_may_be_infinite(monkeypatch):
    """A mean over the first positions knows nothing of the last, also where it is compared."""

    def first(x):
        return vgrad.where(means(x)[0] > 0, 1.0, 0.0) + sum(vgrad.tanh(m) for m in means(x)[:4])

    def every(x):
        return sum(vgrad.where(m > 0, 1.0, -1.0) for m in means(x)) + x[0, 0]

    def means(x):
        return [dot(x[: t + 1, t], x[: t + 1, j]) for t in range(6) for j in range(6, 10)]

    x = np.abs(rng.normal(size=(3, 6, 10)))
    x[1, 5, 6], x[2, 4, 8] = np.inf, np.nan

    def by_first(x):
        return sum(vgrad.where(m > 0, x[0, 0], 3 * x[0, 0]) for m in means(x))

    for fn in (first, every, by_first):
        check(fn, [], x)
        check(fn, [], x, tile=1)
        check(fn, [], x[1:2])
    assert "stack" in kernels(every, x)
    plain = spy(monkeypatch, vgrad.flat.sweep.PlainSweep)
    program = vgrad.compile(every)
    for samples, swept in ((x[1:], ["outputs"]), (x[:1], []), (x[2:], ["outputs"]), (x[:1], [])):
        plain.clear()
        program([], samples)
        assert plain == swept  # what was infinite once is forgotten
    for samples, swept in ((x[1:2], ["gradient"]), (x[:1], [])):
        plain.clear()
        program.value_and_grad([], samples)
        assert plain == swept
    monkeypatch.undo()
    captured = [Value(number) for number in x[1].flat]
    root = every(np.array(captured).reshape(6, 10))
    program = vgrad.compile(vgrad.capture(root, parameters=captured))
    assert program(program.theta()).tolist() == [root.data]
    root.backward()
    assert program.value_and_grad(program.theta())[1].tolist() == [p.grad for p in captured]


def random_sums(seed):
    draw = random.Random(seed)
    factors = [
        (draw.choice("wxWXc1"), draw.choice(["row", "column", "neither"]), draw.randrange(4))
        for _ in range(2 * draw.randint(1, 8))
    ]
    coefficients = [draw.choice([1, 1, 1, -1, 2.0, 0.5]) for _ in factors]
    rows, columns, missing = draw.randint(1, 4), draw.randint(1, 3), draw.choice([None, (0, 0)])

    def program(x):
        source = {"w": WEIGHTS, "x": x, "c": [0.3, 1.7, -2.0]}
        source |= {"W": [vgrad.sin(w) for w in WEIGHTS], "X": [vgrad.cos(a) for a in x], "1": [1.0]}

        def factor(kind, along, first, cell):
            numbers = source[kind]
            step = {"row": cell[0], "column": cell[1], "neither": 0}[along]
            return numbers[(first + step) % len(numbers)]

        total = x[0] * WEIGHTS[0]
        for cell in np.ndindex(rows, columns):
            if cell != missing:
                both = zip(factors[::2], factors[1::2], coefficients)
                terms = [c * (factor(*u, cell) * factor(*v, cell)) for u, v, c in both]
                total = total + vgrad.tanh(sum(terms)) * (1 + cell[0] + cell[1])
        return total

    return program


def test_sums_of_lone_numbers_are_no_stack():
    """Though all of a captured graph is in one buffer, the 1 that they are multiplied with too."""
    leaves = values(20, 1)
    root = sum(vgrad.exp(0.1 * sum(leaves[h : h + n])) for h in (0, 8) for n in range(5, 12))
    program = vgrad.compile(vgrad.capture(root, parameters=leaves))
    assert "stack" not in program.explain() and "sum" in program.explain()
    value, grad = program.value_and_grad(program.theta())
    assert_values_match([value], [root], "captured")
    want, scale = backward_with_scale(root, leaves)
    assert_gradients_match(grad, want, scale, "captured")


def test_what_is_no_grid_is_no_matrix_product():
    found = kernels(one_odd_term, np.ones((2, 3)), parameters=[*W.flat])
    assert found[:2] == ["matmul", "tanh"]
    found = kernels(NEAR_MISSES["a ring of pairs"][0], np.ones((2, 6, 6)))
    assert found[0] == "sum" and "einsum" not in found
    fn, parameters, shape = NEAR_MISSES["short sums of two kinds"]
    assert kernels(fn, np.ones((2, *shape)), parameters=parameters)[:2] == ["mul", "matmul"]


def test_what_is_shared_in_a_batched_sum_is_added_up_once():
    """Two biases and a constant become one, in a kernel without a batch."""
    found = plan(lambda x: W[0] @ x + B[0] - B[1] + 1, np.ones((2, 3)), parameters=[*W[0], *B])
    assert found == [
        "chain 1 = view 1, view 1",
        "chain 1 x B = view 1, view 1 x B, view 1, view 1 x B, view 1, view 1 x B, view 1",
    ]


def test_a_duplicate_is_computed_once():
    fn, parameters, shape = NEAR_MISSES["a duplicate"]
    found = plan(fn, np.ones((2, *shape)), parameters=parameters)
    assert found[:2] == ["matmul 4 x B = view 4 x 3, view 3 x B", "tanh 4 x B = view 4 x B"]


def test_nodes_a_level_apart_share_a_kernel():
    """The first position has no mean to take, so it could run ahead; it waits for the others."""

    def f(x):
        means = [x[0], *((x[t - 1] + x[t]) * vgrad.exp(x[t]) for t in range(1, 6))]
        return sum(vgrad.tanh(vgrad.sin(mean)) for mean in means)

    found = plan(f, np.ones((2, 6)))
    assert [line for line in found if "tanh" in line] == ["tanh 6 x B = view 6 x B"]
    assert [line[:9] for line in found if "sin" in line] == ["sin 1 x B", "sin 5 x B"]  # as slices
    check(f, [], rng.normal(size=(3, 6)))


@pytest.mark.parametrize("seed", range(20))
def test_every_random_graph_can_be_explained(seed):
    program = random_program(seed)
    arrays = [np.ones(3)] * program.inputs
    for fuse in (True, False):
        compiled = vgrad.compile(program, program.parameters, fuse=fuse, tile=3)
        graph = vgrad.trace(program, *[()] * program.inputs, parameters=program.parameters)
        table = compiled.explain(*arrays).splitlines()
        (runner,) = compiled.runners.values()
        kernels = runner.unrolled().kernels
        computed = graph.level > 0
        if fuse and runner.plan.fused.unguarded:  # no kernel stands for a guard of a leaf
            computed &= (graph.op != ops.guard.code) | (graph.level[graph.parents[:, 1]] > 0)
        assert sum(kernel.sources for kernel in kernels) == computed.sum()
        assert len(table) == len(kernels) + 3


# --- exactness -----------------------------------------------------------------------------------

# Those of the table, worked out by hand there, and some into which only this engine could fall.
GUARDS = {name: trap.fn for name, trap in TRAPS.items()} | {
    "a mask that is looked at": lambda x, y, w: where(
        where(x > 0, vgrad.log(x), 0.0) >= 0, x * 2, x * 3
    ),
    "roots of -0.0 and -inf": lambda x, y, w: (1 / x**0.5).tanh() + where(x**0.5 > 3, 1.0, 0.0),
    "a small coefficient": lambda x, y, w: vgrad.tanh(sum(1e-6 * (x * 1e308 * u) for u in w * 3)),
    "relu of inf": lambda x, y, w: (x * 1e308 * 10).relu() + w[0] * x,
}
U = [*map(Value, NUMBERS)]


def guarded(name):
    """The function, and U[0] beside it, so that it uses a parameter."""
    return lambda x, y: (GUARDS[name](x, y, U), U[0])


@pytest.mark.parametrize("name", GUARDS)
def test_a_zero_gradient_stays_zero_where_inf_and_nan_are_about(name):
    """At every edge, as in the scalar engine; and in batches, as in the plain sweep."""
    fn = guarded(name)
    X = np.array([-1.0, 0.0, -0.0, 2.0, 1e-320, np.inf, -np.inf, np.nan, 0.5])
    Y = np.array([0.0, -0.0, 3.0, 2.0, -np.inf, -1.0, np.inf, 1.0, 1e-320])
    program = vgrad.compile(fn, U)
    theta = program.theta()
    outputs = program(theta, X, Y)[0]
    by_x, by_y = program.input_grads(theta, X, Y)
    by_parameter = program.per_sample_grads(theta, X, Y)
    for i, point in enumerate(zip(X, Y)):
        leaves = [*map(Value, point)]
        root = fn(*leaves)[0]
        want, scale = backward_with_scale(root, [*leaves, *U])
        assert_values_match([outputs[i]], [root], f"at {point}")
        got = [by_x[i], by_y[i], *by_parameter[i]]
        assert_gradients_match(got, want, scale, f"at {point}")
    for part in (slice(3, 4), slice(0, 4), slice(3, 6)):  # each with other traps in it
        value, grad = program.value_and_grad(theta, X[part], Y[part])
        plain = vgrad.compile(fn, U, fuse=False).value_and_grad(theta, X[part], Y[part])
        # some roundings of 1e-16, and nan and inf in the same places
        assert np.allclose(value, plain[0], rtol=1e-14, atol=0, equal_nan=True)
        assert np.allclose(grad, plain[1], rtol=1e-14, atol=1e-320, equal_nan=True)


@pytest.mark.parametrize(
    "name",
    [
        "a root behind where",
        "a logarithm behind where",
        "a quotient behind where",
        "a neuron",
        "a matrix product",
        "a parameter behind where",
    ],
)
def test_a_guard_does_not_need_the_plain_sweep(name):
    """These are what people write, and should not cost them the speed of fusion."""
    program = vgrad.compile(guarded(name), U)
    theta, data = program.theta(), np.array([-1.0, 0.0, 2.0])
    program(theta, data, data)
    program.value_and_grad(theta, data, data)
    program.input_grads(theta, data, data)
    (runner,) = program.runners.values()
    assert "quick" in vars(runner) and "plain" not in vars(runner)


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize(
    "fn, fuse, sweeps",
    [
        (vgrad.sqrt, True, ["fused", "fused", "plain"]),  # the gradient is infinite at 0
        (vgrad.log, True, ["fused", "plain"]),  # the value is, which no other adjoint changes
        (vgrad.sqrt, False, ["plain", "plain"]),  # quick, and then careful about zeros
        (vgrad.log, False, ["plain", "plain"]),
    ],
)
def test_no_sweep_runs_twice_where_a_result_is_not_finite(fn, fuse, sweeps, aux, monkeypatch):
    """The quick one, the one that keeps zeros if that may help, and the plain one: each once."""
    swept = []
    for kind, name in (
        (vgrad.compiler.FusedSweep, "fused"),
        (vgrad.flat.sweep.PlainSweep, "plain"),
    ):
        monkeypatch.setattr(kind, "gradient", noting(swept, name, kind.gradient))
    program = vgrad.compile(lambda x: fn(x * W[0, 0]), [W[0, 0]], fuse=fuse)
    program.value_and_grad([1.0], [0.0, 1.0], aux=aux)
    assert swept == sweeps


def test_the_fused_sweep_alone_would_give_nan():
    """So the test above shows the fall-back at work, and not that there is nothing to fall for."""
    program = vgrad.compile(guarded("a neuron"), U)
    theta, data = program.theta(), np.array([-1.0, 2.0])
    assert np.isfinite(program.value_and_grad(theta, data, data)[1]).all()
    (runner,) = program.runners.values()
    with np.errstate(all="ignore"):
        fused = runner.quick.input_gradients(theta, [data, data], 2, 2)
    assert np.isnan(fused[1, 0])
    assert program.input_grads(theta, data, data)[0][0] == 0.0


# --- buffers -------------------------------------------------------------------------------------


def test_a_call_allocates_nothing_that_grows_with_the_batch():
    """The second call of a batch that is one tile: its result, and no array of a row's length."""
    model = nn.MLP(3, [8, 8, 1], activation="tanh", rng=random.Random(0))
    program = vgrad.compile(lambda x: model(x) ** 2, model.parameters())
    theta, data = program.theta(), rng.normal(size=(5000, 3))
    program.value_and_grad(theta, data)
    tracemalloc.start()
    program.value_and_grad(theta, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 5000


def test_calls_of_all_kinds_in_any_order_agree():
    """Buffers are kept between calls; what one leaves behind must not show in another."""
    model = nn.MLP(3, [5, 1], activation="tanh", rng=random.Random(0))

    def loss(x):
        return (model(x) - x[0]) ** 2 + 0.1 * sum(p * p for p in model.parameters())

    data = rng.normal(size=(50, 3))
    thetas = [rng.normal(size=26) for _ in range(3)]
    calls = [
        (call, theta, batch)
        for call in ("__call__", "value_and_grad", "input_grads", "per_sample_grads")
        for theta in thetas
        for batch in (1, 7, 16, 50)
    ]

    def run(program, call, theta, batch):
        result = getattr(program, call)(theta, data[:batch])
        return np.concatenate(
            [np.ravel(x) for x in (result if type(result) is tuple else [result])]
        )

    want = [run(vgrad.compile(loss, model.parameters(), tile=16), *call) for call in calls]
    program = vgrad.compile(loss, model.parameters(), tile=16)
    for k in np.random.default_rng(1).permutation(np.repeat(np.arange(len(calls)), 3)):
        assert same_bits(run(program, *calls[k]), want[k]), calls[k]


def test_buffers_of_a_few_widths_are_kept():
    """A batch of another size in every call takes no more memory than a few do."""
    program = vgrad.compile(lambda x: dot(W[0], x) ** 2, [*W[0]])
    for batch in [*range(1, 30), *range(1, 30)]:
        value, _ = program.value_and_grad(np.ones(3), np.ones((batch, 3)))
        assert value == 9.0
    (runner,) = program.runners.values()
    assert len(runner.quick._free) <= 1 + vgrad.compiler.sweep.KEPT_WIDTHS


def test_gradients_of_inputs_are_computed_only_where_asked_for():
    graph = vgrad.trace(lambda x: dot(W[0], x) * vgrad.sin(x[0]), (3,), parameters=[*W[0]])
    sweep = Runner(graph, True, None).quick
    sweep.gradient(np.ones(3), [np.ones((4, 3))], 4, 4, 1.0)
    (bound,) = sweep._free[4, vgrad.flat.graph.FROM_PARAMETERS, Bound]
    rows = sweep.plan.layout.row[graph.inputs]
    assert (bound._gradient_rows[rows] == -1).all()  # there is no place for them


SHARED_TWICE = {
    "a constant and a kink": lambda w, x: abs(x - w) - w,
    "the larger": lambda w, x: vgrad.maximum(x, w) - w,
    "a choice": lambda w, x: vgrad.where(x > w, w, x) - w,
    "a square": lambda w, x: (x - w) ** 2 - w,
    "a quotient": lambda w, x: x / w - w,
    "three times": lambda w, x: vgrad.exp(w * x) + vgrad.sin(w + x) - w * w,
}


@pytest.mark.parametrize("tile", [None, 10])
@pytest.mark.parametrize("name", SHARED_TWICE)
def test_a_gradient_from_several_kernels_starts_anew_in_every_tile_and_call(name, tile):
    """To 1e-14, as sums over 40 samples go in another order."""
    w, x = Value(0.7), np.linspace(-1, 1, 40)
    program = vgrad.compile(lambda x: SHARED_TWICE[name](w, x), parameters=[w], tile=tile)
    for number in x.tolist():
        (SHARED_TWICE[name](w, number) * (1 / 40)).backward()
    for _ in range(3):
        assert program.value_and_grad([0.7], x)[1][0] == pytest.approx(w.grad, rel=1e-14)
