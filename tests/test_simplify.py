"""What is known is not computed, what is equal is computed once, what is dead makes room.

Every pass must be exact: by itself, switched off, and with the others.
"""

from __future__ import annotations

import random
from itertools import pairwise
from operator import neg

import numpy as np
import pytest
from helpers import (
    EDGES,
    assert_gradients_match,
    backward_with_scale,
    half,
    long,
    random_program,
    same_bits,
    sweep,
)

import vgrad
from vgrad import Value, ops, where
from vgrad.compiler import compile_plan, lifetimes
from vgrad.compiler import plan as planning
from vgrad.compiler.layout import undying
from vgrad.program.runner import Runner

PASSES = ["fold_constants", "drop_identities", "use_plain_ops", "merge_equal", "drop_dead"]
PASSES += ["merge_constants", "join_maxima"]
X = np.array([0.3, -1.2, 2.5, 0.0, 1.0])
rng = np.random.default_rng(3)


def without(monkeypatch, *passes):
    for name in passes:
        monkeypatch.setattr(planning, name, lambda fused, *options: fused)


def computed(fn, *shapes, **options):
    """The names of all nodes that a plan computes, sorted; sums of several terms are "sum"."""
    fused = compile_plan(vgrad.trace(fn, *shapes, **options)).fused
    names = [ops.OPS[code].name for code in fused.op.tolist() if code < len(ops.OPS)]
    names += ["sum"] * len(np.unique(fused.terms.node))
    return sorted(name for name in names if name not in ("const", "input", "parameter"))


def gradients(fn, x, parameters=()):
    """Output 0 and its gradients to the inputs and parameters by the scalar engine."""
    leaves = [Value(number) for number in x]
    root = fn(*leaves)
    want, scale = backward_with_scale(root, [*leaves, *parameters])
    return root, want, scale


# --- equal nodes ---------------------------------------------------------------------------------

W = [Value(0.7, label="a"), Value(0.7, label="b")]
MERGED = {
    "a product, either way": (lambda x, y: vgrad.sin(x * y) * vgrad.cos(y * x), 4),
    "a sum, either way": (lambda x, y: vgrad.sin(x + y) * vgrad.cos(y + x), 4),
    "an output": (lambda x, y: [vgrad.exp(x) * y, vgrad.exp(x)], 2),
    "by what is merged": (lambda x, y: vgrad.exp(x / y) / vgrad.log(vgrad.exp(x / y)), 4),
    "nan": (lambda x, y: vgrad.maximum(x, np.nan) * vgrad.maximum(x, float("nan")), 2),
    "a condition": (lambda x, y: where(x > 0, x, y) * where(x > 0, y, x), 4),
    "stop_gradient": (lambda x, y: vgrad.stop_gradient(x) / vgrad.stop_gradient(x), 2),
    "a square": (lambda x, y: vgrad.sin(x**2) + vgrad.cos(x * x), 4),
}
APART = {
    "a difference, either way": (lambda x, y: vgrad.sin(x - y) * vgrad.cos(y - x), 5),
    "a quotient, either way": (lambda x, y: vgrad.sin(x / y) * vgrad.cos(y / x), 5),
    "0 and -0": (lambda x, y: vgrad.arctan2(0.0, x) * vgrad.arctan2(-0.0, x), 3),
    "parameters of one number": (lambda x, y: vgrad.sin(W[0] * x) * vgrad.sin(W[1] * x), 5),
    "with and without a gradient": (
        lambda x, y: vgrad.sin(x) / vgrad.sin(vgrad.stop_gradient(x)), 4),
    "other ops": (lambda x, y: vgrad.exp2(x) / vgrad.exp(x), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", [*MERGED, *APART])
def test_equal_nodes_are_computed_once(name):
    fn, count = {**MERGED, **APART}[name]
    assert len(computed(fn, (), (), parameters=W)) == count
    first = lambda *x: fn(*x)[0] if isinstance(fn(*x), list) else fn(*x)  # noqa: E731
    program = vgrad.compile(first, W)
    for sample in ([0.3, 1.1], [-2.0, 0.4], [0.7, 0.7]):
        root, want, scale = gradients(first, sample, W)
        arrays = [np.full(3, number) for number in sample]
        assert program(program.theta(), *arrays)[0] == pytest.approx(root.data, 1e-14, nan_ok=True)
        got = [x[0] for x in program.input_grads(program.theta(), *arrays)]
        got += [*program.per_sample_grads(program.theta(), *arrays)[0]]
        assert_gradients_match(got, want, scale, name)


def test_gradients_of_equal_nodes_add_up_one_by_one_where_one_is_infinite():
    """1 / 0 - 1 / 0 is nan in the scalar engine; the sum of what arrives, 1 - 1, would hide it."""
    fn = lambda x: vgrad.sqrt(x) - vgrad.sqrt(x)  # noqa: E731
    assert computed(fn, ()) == ["sqrt", "sum"] or computed(fn, ()) == ["sqrt", "sub"]
    program = vgrad.compile(fn, [])
    (got,) = program.input_grads([], [0.0, 4.0])
    (_, want, _), (_, other, _) = gradients(fn, [0.0]), gradients(fn, [4.0])
    assert np.isnan(want[0]) and same_bits(got, [want[0], other[0]])
    both = lambda x: (lambda root: root - root)(vgrad.sqrt(x))  # noqa: E731
    assert gradients(both, [0.0])[1] == [0.0]  # of one node it is 0
    assert vgrad.compile(both, []).input_grads([], [0.0, 4.0])[0].tolist() == [0.0, 0.0]


def test_products_in_long_sums_and_running_sums_stay_apart():
    """So that layers stay matrix products, and sums that go on from each other one kernel."""
    w = [Value(0.1 * k) for k in range(12)]

    def layers(x):
        sums = [sum(w[6 * i + j] * x[j] for j in range(6)) for i in (0, 1)]
        return sum(map(vgrad.tanh, sums)) + w[0] * x[0] * sum(w[j] * x[j] for j in range(6))

    assert "matmul" in vgrad.compile(layers, w).explain(np.ones((2, 6)))
    running = vgrad.compile(lambda x: sum(vgrad.exp(sum(x[: 5 + n])) for n in range(6)), [])
    assert "6 x B = gather 45 x B" in running.explain(np.ones((2, 10)))


# --- exact, or left alone ------------------------------------------------------------------------

IDENTITIES = {
    "x * 1": lambda x: x * 1, "1 * x": lambda x: 1 * x, "x / 1": lambda x: x / 1,
    "x ** 1": lambda x: x**1, "--x": lambda x: neg(neg(x)), "x - 0": lambda x: x - 0.0,
    "x + -0": lambda x: x + -0.0, "-0 + x": lambda x: -0.0 + x,
    "where(1, x, y)": lambda x: where(Value(1.0, trainable=False), x, vgrad.exp(x)),
    "where(0, y, x)": lambda x: where(Value(0.0, trainable=False), vgrad.exp(x), x),
    "where(nan, x, y)": lambda x: where(Value(np.nan, trainable=False), x, vgrad.exp(x)),
    "four in a row": lambda x: neg(neg((x * 1) / 1)),
}  # fmt: skip
NEARLY = {
    "x + 0": lambda x: x + 0.0, "0 - x": lambda x: 0.0 - x, "x * 0": lambda x: x * 0,
    "x - -0": lambda x: x - -0.0, "1 / x": lambda x: 1 / x, "1 ** x": lambda x: 1**x,
    "x * -1": lambda x: x * -1, "x ** 0": lambda x: x**0, "x ** 2": lambda x: x**2,
    "x ** -1": lambda x: x**-1, "x ** 3": lambda x: x**3, "x - x": lambda x: x - x,
    "x / x": lambda x: x / x, "x ** 4": lambda x: x**4, "x ** 0.5": lambda x: x**0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", [*IDENTITIES, *NEARLY])
def test_what_is_dropped_is_the_same_for_every_number(name):
    """To the bit, but for powers that are products: those may be 2 roundings off, of 1e-16 each."""
    fn = {**IDENTITIES, **NEARLY}[name]
    assert (computed(fn, ()) == []) == (name in IDENTITIES)
    for outer in (lambda x: x, vgrad.sign, lambda x: 1 / x):
        whole = lambda x, outer=outer: outer(fn(x))  # noqa: E731
        fused, plain = (vgrad.compile(whole, [], fuse=fuse) for fuse in (True, False))
        got, want = fused([], EDGES), plain([], EDGES)
        if name in ("x ** 3", "x ** 4"):
            np.testing.assert_allclose(got, want, rtol=3e-16)
        else:
            assert same_bits(got, want)
        (got,), (want,) = (program.input_grads([], EDGES) for program in (fused, plain))
        np.testing.assert_allclose(got, want, rtol=1e-15)  # rules add up some roundings


def test_constants_are_computed_in_the_programs_own_arithmetic():
    """In float32 0.1 + 0.2 is another number than 0.1 + 0.2 in float64, rounded."""
    c = [Value(number, trainable=False) for number in (0.1, 0.2, 3.0)]
    fn = lambda x: where(vgrad.sin(c[0] + c[1]) * c[2] > 0.8, x, 2 * x) + (c[0] + c[1]) * c[2]  # noqa: E731
    for dtype in (np.float32, np.float64):
        fused, plain = (vgrad.compile(fn, [], fuse=fuse, dtype=dtype) for fuse in (True, False))
        assert same_bits(fused([], X), plain([], X))
    assert computed(fn, ()) == ["add"]


def test_x_times_1_stays_where_others_are_multiplied_by_other_numbers():
    """Or the samples of a captured loss, with labels of 1 and -1, would be of two kinds."""
    leaves = [Value(0.1 * k) for k in range(6)]
    root = sum(y * vgrad.tanh(w) for y, w in zip((1.0, -1.0, 1.0, 1.0, -1.0, 1.0), leaves))
    kinds = {kernel.name for kernel in compile_plan(vgrad.capture(root)).summary().kernels}
    assert kinds <= {"tanh", "matmul", "mul", "sum"}
    assert computed(lambda x, y: vgrad.sin(x * 1) + vgrad.sin(y * 2), (), ()).count("mul") == 2


def test_what_no_output_needs_is_left_out():
    fn = lambda x: where(Value(1.0, trainable=False), vgrad.sin(x), vgrad.exp(vgrad.cos(x)))  # noqa: E731
    assert computed(fn, ()) == ["sin"]
    table = vgrad.compile(fn, []).explain(X).splitlines()
    assert len(table) == 4 and "for 1 computed nodes" not in table[2]


def test_what_is_chosen_by_a_constant_need_not_differ_between_samples():
    """Though the other choice does: in a sum it lies among what is shared."""
    w, never = [Value(1.0), Value(2.0)], Value(0.0, trainable=False)

    def fn(a):
        chosen = where(never, a, w[0])
        return 1 + a * w[0] + w[1] * w[0] + chosen * w[0] + a * w[0]

    program = vgrad.compile(fn, w)
    assert program([1.0, 2.0], [0.5, 1.0]).tolist() == [5.0, 6.0]
    program.verify([1.0, 2.0], [0.5, 1.0])


def test_equal_outputs_are_as_exact_as_the_one_that_is_computed():
    w = [Value(0.123), Value(0.4567)]
    fn = lambda x: (x + w[0] * w[0] + w[1] * w[1], x + w[0] * w[0] + w[1] * w[1])  # noqa: E731
    x = np.random.default_rng(0).uniform(-1, 1, 40)
    vgrad.compile(fn, w).verify([0.123, 0.4567], x, samples=40)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_minus_of_numbers_that_lie_64_bytes_apart(dtype):
    """np.negative of NumPy 2.4 reads others instead, if its result lies so as well."""
    step = 64 // np.dtype(dtype).itemsize
    w = [Value(0.1 * k) for k in range(1, 2 * step + 1)]
    pair = w[0], w[step]
    fn = lambda x: x * vgrad.reciprocal(pair[0]) + 2 * vgrad.reciprocal(pair[1])  # noqa: E731
    program = vgrad.compile(fn, w, dtype=dtype)
    for batch in (1, 2):
        _, gradient = program.value_and_grad(program.theta(), np.ones(batch))
        want = [-1 / pair[0].data ** 2, -2 / pair[1].data ** 2]
        np.testing.assert_allclose(gradient[[0, step]], want, rtol=1e-6)


def test_what_a_kernel_has_computed_of_numbers_that_are_gone_is_not_taken_for_another():
    """Coefficients in float32 are made for the call, and may lie where others were before."""
    p = [Value(0.0) for _ in range(4)]

    def fn(x):
        b, c = x[1], x[2]
        t = p[2] * p[3] + p[1] * b + p[0] * b + b
        s = 0 - p[1] * p[3] - p[3] * b - p[3] * b - c
        return 0 - t + s - (0 + p[0] * p[3] + p[3] * b + p[2] * b - b)

    program = vgrad.compile(fn, p, dtype=np.float32)
    slopes = program.per_sample_grads([1.0, 2.0, -1.0, 1.0], [[1.0, 2.0, -2.0, 1.0]])
    assert slopes.tolist() == [[-3.0, -3.0, -3.0, -8.0]]


# --- every pass by itself ------------------------------------------------------------------------


def repetitive(seed):
    """A random function of three numbers with parts that are equal, or nearly."""

    def program(x, y, z):
        numbers, again = [x, y, z, *W], random.Random(seed)
        unary = [vgrad.sin, vgrad.tanh, lambda a: -a, lambda a: a**2, lambda a: a * 1, abs]
        unary += [vgrad.stop_gradient, lambda a: 1 - a, lambda a: where(a > 0, a, 0.5 * a)]
        binary = [lambda a, b: a * b, lambda a, b: a + b, lambda a, b: a - b, vgrad.maximum]
        binary += [lambda a, b: a / (2 + b * b), lambda a, b: b * a, lambda a, b: b - a]
        for _ in range(14):
            a, b = (again.choice(numbers[-8:]) for _ in "ab")
            part = again.choice(unary)(a) if again.random() < 0.4 else again.choice(binary)(a, b)
            numbers.append(part)
            if again.random() < 0.3:  # the same once more
                numbers.append(again.choice(binary)(vgrad.tanh(a * b), vgrad.tanh(b * a)))
        total = vgrad.logsumexp(numbers[-4:]) - sum(vgrad.softmax(numbers[-3:])[:2])
        return total + sum(vgrad.tanh(a) for a in numbers[-6:]) + numbers[-1] * numbers[-2]

    return program


@pytest.mark.parametrize("off", [*PASSES, "none", "all"])
@pytest.mark.parametrize("block", sweep(60, 1))
def test_without_a_pass(off, block, monkeypatch):
    """Against the scalar engine, in tiles and again: to 1e-12 of numbers up to some ten."""
    without(monkeypatch, *{"none": [], "all": PASSES}.get(off, [off]))
    program = random_program(block)
    compiled = vgrad.compile(program, program.parameters, tile=3)
    compiled.verify(compiled.theta(), *rng.normal(size=(program.inputs, 7)), samples=7)
    fn, data = repetitive(block), np.random.default_rng(block).normal(size=(3, 7))
    compiled, theta = vgrad.compile(fn, W, tile=3), np.full(2, 0.7)
    for some in (data, data[:, :1]):
        values, slopes = (
            compiled(theta, *some),
            compiled.input_grads(theta, *some),
        )
        for k, sample in enumerate(some.T.tolist()):
            root, want, scale = gradients(fn, sample, W)
            assert values[k] == pytest.approx(root.data, rel=1e-12, abs=1e-12)
            got = [*(x[k] for x in slopes), *compiled.per_sample_grads(theta, *some)[k]]
            assert_gradients_match(got, want, scale, f"seed {block}")


@pytest.mark.parametrize("seed", sweep(60, 8))
def test_the_same_numbers_where_nothing_dies(seed, monkeypatch):
    """To the bit: rows that make room for others change no number."""
    fn = repetitive(seed)
    data = np.random.default_rng(seed).normal(size=(3, 9))

    def numbers():
        program = vgrad.compile(fn, W)
        theta, found = program.theta(), []
        for some in (data, data[:, :2], data[:, 2:]):
            value, gradient = program.value_and_grad(theta, *some)
            found += [[value], gradient, program(theta, *some).ravel()]
            found += [*program.input_grads(theta, *some)]
        return np.concatenate(found)

    here = numbers()
    monkeypatch.setattr(planning.Plan, "_placed", lambda plan, wanted: undying(plan.rows))
    assert same_bits(here, numbers())


# --- buffers die ---------------------------------------------------------------------------------


def network(x):
    numbers = list(x)
    for layer in range(6):
        numbers = [
            vgrad.tanh(sum(LAYERS[layer][i][j] * a for j, a in enumerate(numbers)))
            for i in range(8)
        ]
    return sum(a * a for a in numbers)


LAYERS = [[[Value(random.Random(k).gauss(0, 0.4)) for k in range(i, i + 8)] for i in range(8)]
          for _ in range(6)]  # fmt: skip


def test_a_gradient_takes_a_third_less_memory():
    """Of what values and gradients of all rows would; a forward call takes few rows at a time."""
    parameters = [w for layer in LAYERS for row in layer for w in row]
    plan = compile_plan(vgrad.trace(network, (8,), parameters=parameters))
    assert plan.places(2).size < 2 / 3 * 2 * plan.rows
    assert plan.places(0).size < plan.rows and plan.places(4).size == 2 * plan.rows
    text = vgrad.compile(network, parameters).explain(np.ones((100, 8)))
    size = Runner(plan.graph).quick.memory(100)
    assert f"peak: {size / 1000:.3g} k bytes" in text


def test_what_gets_no_gradient_passes_none_on():
    """Though its rows lie where other numbers were: exp(y) is in one kernel with exp(x)."""

    def fn(x, y):
        z = vgrad.exp(x)
        for _ in range(5):
            z = vgrad.sin(z) + vgrad.cos(z)
        return z, vgrad.exp(y), vgrad.sin(vgrad.exp(y))

    program = vgrad.compile(fn, [])
    for _ in range(2):
        _, slopes = program.input_grads([], X, X + 1)
        assert slopes.tolist() == [0.0] * len(X)


@pytest.mark.parametrize("wanted", [0, 1, 2])
@pytest.mark.parametrize("seed", half(range(20)))
def test_no_two_lives_share_a_place(seed, wanted, monkeypatch):
    """Row by row, for all times at which both are needed."""
    found = []
    places = lifetimes.Lifetimes.places

    def spy(lives):
        found.append((lives, places(lives)))
        return found[-1][1]

    monkeypatch.setattr(lifetimes.Lifetimes, "places", spy)
    program = random_program(seed, size=40)
    graph = vgrad.trace(program, *[()] * program.inputs, parameters=program.parameters)
    compile_plan(graph).places(wanted)
    for lives, where_ in found:
        times = {}
        for which, rows in enumerate((where_.values, where_.gradients)):
            for row, place in enumerate(rows.tolist()):
                block = lives.blocks[which][row]
                birth, death = lives.births[which, block], lives.deaths[which, block]
                if place >= 0:
                    assert place < where_.size
                    times.setdefault(place, []).append((birth, death))
        for spans in times.values():
            spans.sort()
            assert all(a[1] < b[0] for a, b in pairwise(spans))


# --- products of matrices, each with its own vector ----------------------------------------------

K, D = range(4), range(8)
MATRICES = np.array([Value(x) for x in rng.normal(size=4 * 8 * 8)]).reshape(4, 8, 8)
STACKS = {
    "square": lambda x: [sum(MATRICES[k, i] * x[k]) for k in K for i in D],
    "triangular": lambda x: [
        sum(MATRICES[k, i, : i + 1] * x[k, : i + 1]) for k in K for i in D
    ],
    "masked": lambda x: [sum(MATRICES[k, i] * x[k]) for k in K for i in D if (i + 4 * k) % 3],
    "several vectors": lambda x: [
        sum(MATRICES[k, i] * v) for k in K for v in (x[k], np.sin(x[k])) for i in D
    ],
    "weights cut short": lambda x: [  # the same ones for vectors of many lengths
        sum(MATRICES[k, 0, : n + 1] * np.sin(x[k, : n + 1] * n)) for k in K for n in range(2, 8)
    ],
    "of computed matrices": lambda x: [
        sum(vgrad.exp(m) * a for m, a in zip(MATRICES[k, i], x[k] - 1.0)) for k in K for i in D
    ],
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", STACKS)
def test_matrices_each_with_its_own_vector(name, batch):
    fn = lambda x: sum(vgrad.tanh(z) for z in STACKS[name](x))  # noqa: E731
    program = vgrad.compile(fn, [*MATRICES.flat])
    data = np.random.default_rng(5).normal(size=(batch, 4, 8))
    theta = program.theta()
    assert "stack" in program.explain(data)
    got = program.value_and_grad(theta, data)[1], program.input_grads(theta, data)[0]
    wanted = []
    for sample in data:
        leaves = [Value(x) for x in sample.flat]
        root = fn(np.array(leaves).reshape(4, 8))
        want, scale = backward_with_scale(root, [*MATRICES.flat, *leaves])
        assert_gradients_match(got[1][len(wanted)].ravel(), want[256:], scale[256:], name)
        wanted.append(want[:256])
    np.testing.assert_allclose(got[0], np.mean(wanted, axis=0), rtol=0, atol=1e-13)


# --- softmax -------------------------------------------------------------------------------------

SOFT = {
    "logsumexp": lambda x: vgrad.logsumexp(list(x)),
    "softmax": lambda x: sum(k * p for k, p in enumerate(vgrad.softmax(list(x)))),
    "ragged": lambda x: sum(vgrad.logsumexp([a * n for a in x[:n]]) for n in range(1, 7)),
    "masked": lambda x: vgrad.logsumexp([where(a > 0, a, -np.inf) for a in x]),
    "twice": lambda x: vgrad.logsumexp(list(x)) - vgrad.logsumexp(list(x[::-1])) + x[0],
}


@pytest.mark.parametrize("name", SOFT)
def test_maxima_of_softmax_are_one_kernel(name):
    """Also of ties, infinities and nan; each sample against the scalar engine."""
    fn = SOFT[name]
    program = vgrad.compile(fn, [], tile=12)  # on arrays in any case
    data = np.random.default_rng(1).normal(size=(12, 6))
    data[1], data[2, 3], data[3, 1], data[4, 5] = 1.0, np.inf, -np.inf, np.nan
    data[5], data[6] = -np.inf, 800.0 * data[6]
    text = program.explain(data)
    assert "largest" in text and "maximum" not in text and "stop_gradient" not in text
    values, (slopes,) = program([], data), program.input_grads([], data)
    for sample, value, got in zip(data, values, slopes):
        leaves = [Value(x) for x in sample]
        root = fn(np.array(leaves))
        want, scale = backward_with_scale(root, leaves)
        assert value == pytest.approx(root.data, rel=1e-14, abs=1e-14, nan_ok=True)
        assert_gradients_match(got, want, scale, name)


@pytest.mark.parametrize("use", [
    lambda x, top: top, lambda x, top: 3 * top + x[1] * top - x[2] * x[0],
    lambda x, top: vgrad.sin(top), lambda x, top: vgrad.maximum(top, 0.5),
])  # fmt: skip
def test_maxima_that_something_else_reads_are_left_alone(use):
    """Their gradient goes on, be it through an op, a sum of products or an output."""

    def fn(x):
        top = vgrad.maximum(vgrad.maximum(x[0], x[1]), x[2])
        return vgrad.exp(x[0] - vgrad.stop_gradient(top)) * use(x, top), top

    program, sample = vgrad.compile(fn, [], tile=2), [0.3, 0.9, -0.2]
    assert "largest" not in program.explain(np.ones((2, 3)))
    root, want, scale = gradients(lambda *x: fn(x)[0], sample)
    (got,) = program.input_grads([], [sample] * 2)
    assert_gradients_match(got[1], want, scale, "")
    assert program([], [sample])[0][0] == pytest.approx(root.data, rel=1e-15)


# --- a long run ----------------------------------------------------------------------------------


@long
def test_a_newton_iteration_is_left_with_what_is_distinct():
    """The cubic equation of state: 932 recorded nodes, of which less than a third is computed."""

    def fn(t, p):
        b, a, z = 0.1 * p / t, 0.4 * p / t**2, 1.0
        for _ in range(20):
            f = z**3 - (1 - b) * z**2 + (a - 2 * b - 3 * b**2) * z - (a * b - b**2 - b**3)
            slope = 3 * z**2 - 2 * (1 - b) * z + (a - 2 * b - 3 * b**2)
            z = z - f / slope
        return z

    graph = vgrad.trace(fn, (), ())
    assert len(graph) > 900 and len(computed(fn, (), ())) < 160
