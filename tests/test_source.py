"""The fused plan as NumPy text: what it computes, on its own, and how it reads."""

from __future__ import annotations

import ast
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import (
    COMPUTED,
    EDGES,
    assert_values_match,
    half,
    long,
    random_program,
    same_bits,
    sweep,
)
from test_fuse import FUSED, NEAR_MISSES, WEIGHTS, B, W, random_sums

import vgrad
from vgrad import Value, nn, ops

rng = np.random.default_rng(0)


def function(source, name="f"):
    """What the text defines, in a namespace of its own; the text is fit to be read."""
    assert max(map(len, source.splitlines())) <= 100
    assert source.endswith("\n") and not re.search(r"[ \t]$", source, re.MULTILINE)
    tree = ast.parse(source, feature_version=(3, 10))
    assert [x.names[0].name for x in ast.walk(tree) if isinstance(x, ast.Import)] == ["numpy"]
    namespace = {}
    exec(compile(source, "<source>", "exec"), namespace)
    return namespace[name]


def number(x):
    return Value(x, trainable=False)


def flat(results):
    """The arrays in a nested tuple."""
    return [x for part in results for x in flat(part)] if type(results) is tuple else [results]


def assert_close(got, want, context):
    """The same structure, within 1e-12, and nan and inf in the same places.

    Where sums do not cancel, 1e-12 is some 4,500 roundings: only their order differs.
    """
    assert type(got) is type(want), context
    if type(want) is tuple:
        assert len(got) == len(want), context
        for a, b in zip(got, want):
            assert_close(a, b, context)
    else:
        assert got.dtype == np.float64 and got.shape == want.shape, (context, got, want)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=str(context))


def check(fn, parameters, *arrays):
    """The text against the compiled program."""
    graph = vgrad.trace(fn, *[np.shape(x)[1:] for x in arrays], parameters=parameters)
    return check_graph(graph, *arrays)


def check_graph(graph, *arrays):
    source, program = graph.to_numpy_source(), vgrad.compile(graph)
    assert source == graph.to_numpy_source(), "deterministic"
    want = program(program.theta(), *arrays)
    assert_close(function(source)(program.theta(), *arrays), want, source)
    return source


def kernels(source):
    """The assignments under np.errstate, without comments."""
    lines = source.split('with np.errstate(all="ignore"):\n')[1].splitlines()[:-1]
    return [line.split("  # ")[0].strip() for line in lines if not line.strip().startswith("#")]


# --- how it reads --------------------------------------------------------------------------------


def test_the_moons_loss_reads_as_a_person_would_write_it():
    model = nn.MLP(2, [16, 16, 1], rng=random.Random(0))

    def loss(x, y):
        score = model(x)
        penalty = 1e-4 * sum(p * p for p in model.parameters())
        return (1 - y * score).relu() + penalty, score

    source = check(loss, model.parameters(), rng.normal(size=(7, 2)), rng.choice([-1.0, 1.0], 7))
    assert kernels(source) == [
        "sum1 = theta @ theta",
        "sum2 = 0.0001 * sum1",
        "h1 = W1 @ x + b1[:, None]",
        "relu1 = np.maximum(h1, 0.0)",
        "h2 = W2 @ relu1 + b2[:, None]",
        "relu2 = np.maximum(h2, 0.0)",
        "h3 = W3 @ relu2 + b3",
        "sum3 = 1.0 - y * h3",
        "relu3 = np.maximum(sum3, 0.0)",
        "sum4 = relu3 + sum2",
    ]
    for line in (
        "W1 = theta[:48].reshape(16, 3)[:, :2]",
        "b2 = theta[64:320:17]",
        "b3 = theta[336]",
        "x = np.array(x, float).T  # (2, B)",
        '"""theta (337,), x (B, 2), y (B,) -> ((B,), (B,))"""',
        "return sum4, h3",
    ):
        assert f"    {line}\n" in source


def test_a_captured_training_loss_has_matrix_products_and_no_batch():
    model = nn.MLP(2, [16, 16, 1], rng=random.Random(0))
    data, targets = rng.normal(size=(30, 2)).tolist(), rng.choice([-1.0, 1.0], 30).tolist()
    total = sum((1 - t * model(x)).relu() for x, t in zip(data, targets))
    source = check_graph(vgrad.capture(total * (1 / 30), parameters=model.parameters()))
    assert [line for line in kernels(source) if "@" in line][:3] == [
        "h1 = (C1 @ W1.T + b1).ravel()",
        "h2 = (relu1.reshape(30, 16) @ W2.T + b2).ravel()",
        "h3 = relu2.reshape(30, 16) @ W3 + b3",
    ]
    assert "B" not in re.findall(r"\w+", source)


def test_a_softmax_over_ragged_rows_is_a_sum_over_segments():
    def attention(x):
        exps = [[vgrad.exp(x[t] * x[s]) for s in range(t + 1)] for t in range(7)]
        return sum(e[0] / sum(e) for e in exps)

    source = check(attention, [], rng.normal(size=(5, 7)))
    assert "np.add.reduceat(" in source


def test_an_option_pricer_keeps_its_names():
    def price(spot, strike, years):
        rate, vol = 0.03, 0.2
        spread = vol * years.sqrt()
        d1 = ((spot / strike).log() + (rate + vol * vol / 2) * years) / spread
        d1.label = "d1"
        discount = (-rate * years).exp()
        discount.label = "discount"
        weight = (1.702 * d1).sigmoid()
        return spot * weight - strike * discount * (1.702 * (d1 - spread)).sigmoid()

    arrays = rng.uniform(50, 150, 9), rng.uniform(50, 150, 9), rng.uniform(0.1, 2, 9)
    source = check(price, [], *arrays)
    assert "def f(theta, spot, strike, years):" in source
    found = kernels(source)
    assert "div1 = spot / strike" in found and "log1 = np.log(div1)" in found
    assert any(line.startswith("d1 = ") for line in found)


def test_comments_say_what_a_kernel_stands_for():
    def f(x):
        parts = [vgrad.tanh(a) for a in x]
        for k, part in enumerate(parts):
            part.label = f"gate\n{k}"
        return sum(parts)

    source = check(f, [], rng.normal(size=(3, 5)))
    comment = r"# level 1: (5, B), for 5 nodes: gate\n0, gate\n1, gate\n2, and 2 more"
    assert f"tanh1 = np.tanh(x)  {comment}\n" in source


# --- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op",
    half(COMPUTED),
    ids=lambda op: op.name,
)
def test_every_op_gives_the_numbers_of_the_program(op):
    """On edges too, of inputs, of parameters and of constants, alone and several at a time."""
    grid = np.array(np.meshgrid(*[EDGES] * op.arity)).reshape(op.arity, -1)
    grid = grid[:, rng.permutation(grid.shape[1])[:400]]
    program = vgrad.compile(lambda x: op(*x))
    compare_edges(lambda x: op(*x), [], grid.T, program.theta(grid.T))
    twice = grid.T.repeat(2, axis=1)
    compare_edges(lambda x: np.array([op(*x[::2]), op(*x[1::2])]), [], twice, np.empty(0))
    parameters = [Value(x) for x in (0.5, -1.0, 2.0)[: op.arity]]
    compare_edges(lambda x: (op(*parameters) + 0 * x[0], op(*parameters)), parameters, grid.T)


def compare_edges(fn, parameters, data, theta=None):
    graph = vgrad.trace(fn, data.shape[1:], parameters=parameters)
    program = vgrad.compile(graph)
    want = flat(program(program.theta(), data))
    got = flat(function(graph.to_numpy_source())(program.theta(), data))
    for a, b in zip(got, want):
        finite = np.isfinite(b)
        assert same_bits(a[~finite], b[~finite])
        np.testing.assert_allclose(a[finite], b[finite], rtol=1e-15)  # SIMD rounds as it lies


@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
@pytest.mark.parametrize("x", [x if x == 5e-324 else pytest.param(x, marks=long) for x in EDGES])
def test_constants_are_written_to_the_last_bit(op, x):
    """In every place of an op, next to an input, a parameter or more constants."""
    w = Value(0.7)
    for k in range(op.arity):

        def fn(y, k=k):
            constant, other = number(x), number(1.5)
            return [
                op(*[constant if i == k else z for i in range(op.arity)]) for z in (y, w, other)
            ]

        compare_edges(fn, [w], np.array([0.5, -0.0, np.inf, -np.inf, np.nan]))


@pytest.mark.parametrize("block", sweep(12, 6))
def test_random_graphs_match_the_scalar_engine(block):
    for seed in range(5 * block, 5 * block + 5):
        program = random_program(seed)
        shapes = [()] * program.inputs
        graph = vgrad.trace(program, *shapes, parameters=program.parameters)
        source = graph.to_numpy_source()
        batch = 4 if program.inputs else 1
        arrays = rng.uniform(-2, 2, size=(program.inputs, batch))
        theta = graph.value[graph.parameters]
        results = flat(function(source)(theta, *arrays))
        for i in range(batch):
            roots = program(*map(Value, arrays[:, i]))
            roots = [x if isinstance(x, Value) else Value(x) for x in roots]
            assert_values_match([x[i] for x in results], roots, f"seed {seed}\n{source}")


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_of_edges_have_nan_and_inf_where_the_program_has(seed, monkeypatch):
    """Numbers near the greatest are left out: whether sums of them overflow is for their order."""
    small = [x for x in EDGES if not 700 < abs(x) < np.inf]
    monkeypatch.setattr("helpers.EDGES", small)
    program = random_program(seed, edges=True)
    graph = vgrad.trace(program, *[()] * program.inputs, parameters=program.parameters)
    arrays = rng.choice(small, size=(program.inputs, 20))
    compiled = vgrad.compile(graph)
    theta = compiled.theta()
    got = flat(function(graph.to_numpy_source())(theta, *arrays))
    for a, b in zip(got, flat(compiled(theta, *arrays))):
        finite = np.isfinite(b)
        assert same_bits(a[~finite], b[~finite])
        assert np.isfinite(a[finite]).all()


@pytest.mark.parametrize(
    "name", [*FUSED, *(pytest.param(x, marks=pytest.mark.long) for x in NEAR_MISSES)]
)
def test_what_fuses_and_what_does_not(name):
    fn, parameters, shape = (FUSED.get(name) or NEAR_MISSES[name])[:3]
    for batch in (5, 1):
        check(fn, parameters, 0.5 * rng.normal(size=(batch, *shape)))
    # The same without a batch: the inputs are parameters.
    leaves = np.vectorize(Value, otypes=[object])(0.5 * rng.normal(size=shape))[()]
    check(lambda: fn(leaves), [*np.ravel(leaves), *parameters])


@pytest.mark.parametrize("block", sweep(10, 2))
def test_random_sums(block):
    for seed in range(12 * block, 12 * block + 12):
        fn = random_sums(seed)
        check(fn, WEIGHTS, rng.normal(size=(random.Random(seed).choice([1, 4]), 6)))
        leaves = [Value(x) for x in rng.normal(size=6)]
        check(lambda leaves=leaves, fn=fn: fn(leaves), [*leaves, *WEIGHTS])


OUTPUTS = {
    "an input": lambda x, y: x[0],
    "a parameter": lambda x, y: W[0, 0],
    "a constant": lambda x, y: (y, number(2.5), number(float("nan"))),
    "the same twice": lambda x, y: (x[0] * y, x[0] * y, y, y),
    "one node twice": lambda x, y: (lambda z: (z, z, np.array([z, z])))(x[0] * y),
    "nested": lambda x, y: (y, (x, [W, (y + 1,)]), np.array([[x[0], W[0, 0]], [y, x[1] * y]])),
    "arrays": lambda x, y: (y, W @ x, x[:1], np.array([W[0, 0]]), np.array([[[y]]]), x[::-1]),
    "all shared": lambda x, y: (W[0, 0] * B[0], W, np.tanh(B), (B[1],)),
    "one of many": lambda x, y: (np.tanh(x)[1], np.tanh(x)),
    "backwards": lambda x, y: (lambda t: (t[::-1], t[2:0:-1], t[1::-1]))(np.tanh(x)),
    "a part of each": lambda x, y: np.concatenate([x, np.tanh(x), [y], np.exp(x), [W[0, 0]], x]),
    "all in turns": lambda x, y: np.array(
        [z for a in x for z in (a, y, a.tanh(), W[0, 0], number(1.0))]
    ),
}


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("batch", [1, 6])
def test_outputs_of_every_kind(name, batch):
    arrays = rng.normal(size=(batch, 3)), rng.normal(size=batch)
    graph = vgrad.trace(OUTPUTS[name], (3,), (), parameters=[*W.flat, *B])
    check_graph(graph, *arrays)
    before = [x.copy() for x in arrays]
    for result in flat(function(graph.to_numpy_source())(np.arange(16.0), *arrays)):
        result += 1  # it is the caller's own
    assert all(map(same_bits, arrays, before))


def test_two_results_are_two_arrays():
    f = function(vgrad.trace(OUTPUTS["one node twice"], (3,), ()).to_numpy_source())
    first, second, both = f([], np.ones((2, 3)), np.ones(2))
    first += 1
    assert second.tolist() == [1.0, 1.0] and (both == 1).all()


def test_hundreds_of_terms_beside_products_are_one_sum():
    w = [Value(k / 300) for k in range(300)]
    source = check(lambda: sum(x * x for x in w) + sum(vgrad.exp(x) for x in w), w)
    _, line = kernels(source)
    assert len(line) < 100


def test_results_that_overlap_are_two_arrays():
    f = function(
        vgrad.trace(lambda x: (lambda t: (t[1], t, t[1:]))(np.tanh(x)), (3,)).to_numpy_source()
    )
    results = f([], np.ones((2, 3)))
    for k, result in enumerate(results):
        assert not any(np.shares_memory(result, other) for other in results[:k])


def test_without_inputs_the_batch_is_one():
    w = [Value(1.5), Value(-2.0)]
    check(lambda: w[0], w)
    check(lambda: (w[0] * w[1], np.array(w), w[0] ** 0, number(3.0)), w)
    check(lambda: (lambda one: 1 / (one - one))(w[0] ** 0), w)
    check(lambda: (number(1.0) / number(0.0), number(2.0)), [])


def test_products_with_coefficients_and_columns_in_disorder():
    """What the cases above leave out, as breaking the writer showed."""
    check(
        lambda x: sum(c * (a * b) for c, a, b in zip([1, 2.0] * 4, x[:8], x[8:])),
        [],
        rng.normal(size=(3, 16)),
    )
    weights = np.array([Value(x) for x in rng.normal(size=24)]).reshape(4, 6)
    order = [3, 4, 5, 0, 1, 2]
    source = check(lambda x: weights[:, order] @ x, [*weights.flat], rng.normal(size=(3, 6)))
    assert "W1 = theta.reshape(4, 6)[:, np.r_[3:6, 0:3]]" in source


def test_arguments_of_every_shape_and_kind():
    shapes = (1,), (2, 3), (1, 1), (2, 1, 2), ()

    def f(*xs):
        return sum(sum(np.tanh(np.ravel(x))) for x in xs) + sum(xs[1] @ xs[1].T @ xs[3][:, 0])[0]

    source = check(f, [], *[rng.normal(size=(4, *shape)) for shape in shapes])
    assert "def f(theta, input0, input1, input2, input3, input4):" in source
    integers = vgrad.trace(lambda x, y: x**-1 + y * 10.0**18, (2,), ())
    got = function(integers.to_numpy_source())([], [[2, 4]], [True])
    assert got.tolist() == [[1e18 + 0.5, 1e18 + 0.25]]


@pytest.mark.parametrize(
    "labels, names",
    [
        (["x", "x"], ["x", "x_1"]),
        (["theta", "np"], ["theta_1", "np_1"]),
        (["lambda", "f"], ["lambda_1", "f_1"]),
        (["2 x", ""], ["_2_x", "input1"]),
        (["\n'; import os #", "B"], ["import_os", "B_1"]),
        (["x" * 200, "ℝ²"], ["input0", "R2"]),
        (["sum1", "len"], ["sum1", "len_1"]),
        (["C1", "ROWS1"], ["C1", "ROWS1"]),
        (['"""', "θ"], ["input0", "θ"]),
    ],
)
def test_names_are_identifiers_and_unique(labels, names):
    x, y = (Value(k, label=label) for k, label in enumerate(labels, 1))
    graph = vgrad.capture(vgrad.tanh(x * y) + y.sin() / x, inputs=(x, y))
    source = check_graph(graph, np.array([0.5, 2.0]), np.array([1.5, 3.0]))
    assert f"def f({', '.join(['theta', *names])}):" in source


def test_parameters_have_their_labels():
    w = [Value(k, label=f"w[{k}]") for k in range(4)]
    bias = Value(1.0, label="the bias")
    source = check(
        lambda x: vgrad.tanh(np.array(w) @ x + bias), [*w, bias], rng.normal(size=(3, 4))
    )
    assert "    w = theta[:4]\n" in source and "    the_bias = theta[4]\n" in source
    assert "h1 = w @ x + the_bias" in kernels(source)


def test_long_names_make_no_long_lines_and_no_wrong_ones():
    long_name = "a" * 40
    x = np.array([Value(k, label=f"{long_name}[{k}]") for k in range(6)]).reshape(2, 3)
    y = [Value(k, label=f"{'b' * 40}[{k}]") for k in range(2)]
    graph = vgrad.capture(sum(np.tanh(x).ravel()) * y[0] / y[1], inputs=(x, y))
    source = check_graph(graph, rng.normal(size=(4, 2, 3)), rng.uniform(1, 2, (4, 2)))
    assert long_name in source
    name = "f" * 98
    ast.parse(graph.to_numpy_source(name))


@pytest.mark.parametrize("name", ["", "1f", "a b", "def", "None", "np", "f()", 3, None, "theta"])
def test_bad_names(name):
    graph = vgrad.trace(lambda x: x, ())
    with pytest.raises(ValueError, match="name must be an identifier .*got "):
        graph.to_numpy_source(name)
    assert "def step(theta, x):" in graph.to_numpy_source(name="step")


def test_it_runs_without_vgrad(tmp_path):
    source = vgrad.trace(lambda x: (W @ x).sum() + vgrad.exp(B[0]), (3,)).to_numpy_source()
    path = tmp_path / "source.py"
    path.write_text(source + "\nimport sys\nassert 'vgrad' not in sys.modules\n"
                    "print(f(np.ones(13), np.ones((2, 3))).shape)\n")  # fmt: skip
    done = subprocess.run([sys.executable, "-I", path], capture_output=True, text=True, check=True)
    assert done.stdout == "(2,)\n" and not done.stderr


def test_long_lists_stand_before_the_function():
    order = np.random.default_rng(0).permutation(200)

    def f(x):
        return sum(c * vgrad.tanh(x[j]) for c, j in zip(order / 7, order[:150]))

    source = check(f, [], rng.normal(size=(3, 200)))
    before = source.split("def f")[0]
    assert "C1 = np.array([\n" in before and "ROWS1 = np.array([\n" in before


def test_the_text_grows_with_the_kernels_and_not_with_the_nodes():
    def size(n):
        model = nn.MLP(n, [n, n, 1], activation="tanh", rng=random.Random(0))
        return len(vgrad.trace(model, (n,)).to_numpy_source())

    assert size(40) < size(8) + 100


# --- ops that are new ----------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch):
    """The op table, as it was after the test."""
    monkeypatch.setattr(ops, "OPS", list(ops.OPS))
    return ops.OPS


def test_a_new_op_is_written_as_its_row_says(table):
    vjp = (lambda g, out, x: g,)
    log1p = ops.Op("log_1p", "log_1p", np.log1p, np.log1p, vjp=vjp)
    softplus = ops.Op("soft", "soft", lambda x: ops.log(1 + ops.exp(x)), vjp=vjp)
    step = ops.Op("step", "step", lambda x: x > 0, vjp=vjp)
    opaque = ops.Op("opaque", "opaque", lambda x: float(x), vjp=vjp)
    itself = ops.Op("itself", "itself", lambda x: itself(x), vjp=vjp)

    def text(op):
        (line,) = kernels(vgrad.trace(lambda x: op(x), ()).to_numpy_source())
        return line.split(" = ")[1]

    assert text(log1p) == "np.log1p(x)"
    assert text(softplus) == "np.log(1.0 + np.exp(x))"
    assert text(step) == "(x > 0.0) * 1.0"
    for op in (opaque, itself):
        with pytest.raises(TypeError, match=f"op '{op.name}' must have a ufunc, or a rule of"):
            text(op)
