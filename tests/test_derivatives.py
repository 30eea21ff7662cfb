"""Graphs of gradients: of first, second and third order, and Hessians times vectors."""

from __future__ import annotations

import random

import numpy as np
import pytest
from helpers import (
    COMPUTED,
    assert_gradients_match,
    backward_with_scale,
    half,
    long,
    mostly_fused,
    random_program,
)
from traps import NUMBERS, TRAPS

import vgrad
from vgrad import ShapeError, Value, nn

rng = random.Random(3)
MODEL = nn.MLP(2, [5, 4, 1], activation="tanh", rng=rng)
X = np.random.default_rng(0).normal(size=(7, 2))


def loss(x):
    score = MODEL(x)
    return (score - x[0] * x[1]) ** 2 + 0.01 * sum(p * p for p in MODEL.parameters()), score


def gradients(graph: vgrad.Graph, times: int) -> list[vgrad.Graph]:
    """The graph, and its first, second ... derivatives to its one input."""
    found = [graph]
    for order in range(times):
        found.append(found[-1].gradient(found[-1].inputs, of=order))
    return found


SMOOTH = {
    "cubic": lambda x: x**3 - 2 * x * x,
    "exp of sin": lambda x: vgrad.exp(vgrad.sin(x)) / (1 + x * x),
    "log and sqrt": lambda x: vgrad.log(x * x + 1) * vgrad.sqrt(x + 3),
    "tanh of sigmoid": lambda x: vgrad.tanh(2 * vgrad.sigmoid(x) - x / 3),
    "powers": lambda x: (x + 3) ** (x / 2) + (x + 3) ** -0.5 + 2.0**x,
    "relu of a square": lambda x: vgrad.relu(x * x - 0.3) * x,
    "where and abs": lambda x: vgrad.where(x > 0.1, x**4, abs(x) ** 3) * vgrad.cos(x),
    "softmax": lambda x: vgrad.softmax([x, x * x, 1.0])[1],
    "logsumexp": lambda x: vgrad.logsumexp([x, 2 * x, vgrad.sin(x)]),
    "maximum": lambda x: vgrad.maximum(x**3, vgrad.minimum(x * x, 4.0)),
}


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", SMOOTH)
def test_to_the_third_order(name, fuse):
    """Each order is the central difference of the order below."""
    graphs = gradients(vgrad.trace(SMOOTH[name], ()), 3)
    program = vgrad.compile(graphs[-1], fuse=fuse)
    points = np.array([-1.3, -0.4, 0.37, 1.1, 1.9])
    step = 1e-4

    def orders(x):
        value, *rest = program([], x)
        return [value, *(column[:, 0] for column in rest)]

    up, down = orders(points + step), orders(points - step)
    for below, above, got in zip(up, down, orders(points)[1:]):
        # they err by step**2 / 6 times a derivative two orders up (below 1e4 here), and by 1e-11
        assert got == pytest.approx((below - above) / (2 * step), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("seed", range(30))
def test_a_gradients_graph_computes_what_backward_does(seed):
    """On random graphs of all ops, at ordinary numbers and at edges, in all forms."""
    program = random_program(seed, edges=bool(seed % 2))
    graph = vgrad.trace(program, *[()] * program.inputs, parameters=program.parameters)
    wrt = np.concatenate([graph.inputs, graph.parameters])
    derived = graph.gradient(wrt)
    derived.check()
    numbers = np.random.default_rng(seed).uniform(-2, 2, size=(3, program.inputs))
    theta = [p.data for p in program.parameters]
    batch = [vgrad.compile(derived, fuse=fuse)(theta, *numbers.T)[-1] for fuse in (False, True)]
    for i in range(len(numbers) if program.inputs else 1):
        values = graph.to_values(theta, numbers[i])
        want, scale = backward_with_scale(values[graph.outputs[0]], [values[k] for k in wrt])
        again = derived.to_values(theta, numbers[i])
        scalar = [again[k].data for k in derived.outputs[-len(wrt) :]]
        for got in (scalar, batch[0][i], batch[1][i]):
            assert_gradients_match(got, want, scale, f"seed {seed}, sample {i}")


@pytest.mark.parametrize("name", TRAPS)
def test_a_zero_gradient_stays_zero_in_a_graph_of_it(name):
    """The same gradients by hand as for `backward`."""
    fn, cases = TRAPS[name]
    w = [Value(x) for x in NUMBERS]
    graph = vgrad.trace(lambda x, y: (fn(x, y, w), w[0]), (), (), parameters=w)
    wrt = np.concatenate([graph.inputs, graph.parameters])
    x, y = np.array([case[0] for case in cases]).T
    want = [[*by_input, *by_w, *[0.0] * (4 - len(by_w))] for _, _, by_input, by_w in cases]
    for fuse in (True, False):
        program = vgrad.compile(graph.gradient(wrt), fuse=fuse)
        got = program(NUMBERS, x, y)[-1]
        # as in the traps' own tests
        assert got == pytest.approx(np.array(want), rel=1e-14, abs=0, nan_ok=True)


def test_the_derived_graph_keeps_labels_lines_and_leaves():
    w = Value(2.0, label="w")
    graph = vgrad.trace(lambda x: vgrad.sqrt(w * x), (), lines=True).gradient()
    assert "w" in graph.labels.values() and graph.leaves == (w,)
    assert set(graph.level.nonzero()[0]) <= set(graph.lines)
    assert graph.output_shapes == [(), (1,)]


def test_gradients_to_what_is_not_reached_are_zero():
    graph = vgrad.trace(lambda x, y: x * 2, (), ())
    assert vgrad.compile(graph.gradient(graph.inputs))([], [1.0], [1.0])[1].tolist() == [[2.0, 0.0]]
    constant = vgrad.trace(lambda x: x > 0, ()).gradient([0])
    assert vgrad.compile(constant)([], [3.0])[1].tolist() == [[0.0]]


@pytest.mark.parametrize(
    "wrt, of, message",
    [
        ([99], 0, "wrt must be nodes of the graph, 0 to 2"),
        ([-1], 0, "wrt must be nodes of the graph"),
        (["x"], 0, "wrt must be node numbers"),
        ([0.5], 0, "wrt must be node numbers"),
        (None, 0, "a graph without parameters has its graph.inputs"),
        ([0], 1, r"of must be an output, 0 to 0 \(got 1\)"),
        ([0], True, "of must be an output"),
    ],
)
def test_bad_arguments(wrt, of, message):
    graph = vgrad.trace(lambda x: x * 2, ())
    with pytest.raises(ValueError, match=message):
        graph.gradient(wrt, of)


def test_a_graph_of_a_gradient_may_be_captured_again():
    graph = vgrad.trace(lambda x, y: x * x * y, (), ())
    derived = graph.gradient(graph.inputs)
    values = derived.to_values(sample=(3.0, 5.0))
    x, y = (values[k] for k in derived.inputs)
    total = values[derived.outputs[1]] * values[derived.outputs[2]]  # 2 x y * x x
    again = vgrad.capture(total, inputs=(x, y), parameters=[])
    assert vgrad.compile(again).input_grads([], [3.0], [5.0])[0].tolist() == [6 * 9.0 * 5]


# --- Hessians ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["mean", "sum"])
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_hessian_vector_products(reduce, fuse):
    """Against central differences of the gradient along v, and symmetric."""
    program = vgrad.compile(loss, MODEL.parameters(), reduce=reduce, fuse=fuse)
    theta = program.theta()
    draw = np.random.default_rng(1)
    v, u = draw.normal(size=(2, len(theta)))
    step = 1e-5
    up, down = (program.value_and_grad(theta + h * v, X)[1] for h in (step, -step))
    got = program.hessian_vector_product(theta, v, X)
    assert got.shape == theta.shape
    # step**2 times a third derivative, and 2**-53 / step
    assert got == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-7)
    assert u @ got == pytest.approx(v @ program.hessian_vector_product(theta, u, X), rel=1e-9)


def test_a_whole_hessian_by_hand():
    """Of (a x + b)**2 a: 6 a x**2 + 4 b x, 4 a x + 2 b, 2 a."""
    a, b = Value(0.0), Value(0.0)
    program = vgrad.compile(lambda x: (a * x + b) ** 2 * a, [a, b])
    columns = [program.hessian_vector_product([2.0, 3.0], e, [5.0]) for e in np.eye(2)]
    assert np.array(columns).tolist() == [
        [6 * 2.0 * 25 + 4 * 3 * 5, 4 * 2.0 * 5 + 2 * 3],
        [4 * 2.0 * 5 + 2 * 3, 2 * 2.0],
    ]


def test_a_hessian_over_many_tiles_and_in_a_captured_graph():
    program = vgrad.compile(loss, MODEL.parameters())
    theta = program.theta()
    tiled = vgrad.compile(loss, MODEL.parameters(), tile=2)
    want = program.hessian_vector_product(theta, theta, X)
    assert tiled.hessian_vector_product(theta, theta, X) == pytest.approx(want, rel=1e-12)
    total = sum(loss(row)[0] for row in X) / len(X)
    captured = vgrad.compile(vgrad.capture(total, parameters=MODEL.parameters()))
    assert captured.hessian_vector_product(theta, theta) == pytest.approx(want, rel=1e-10)
    with pytest.raises(ShapeError, match=r"v must have shape \(.*\), one number per parameter"):
        program.hessian_vector_product(theta, [1.0], X)


def test_a_hessian_where_a_branch_is_not_taken():
    w = Value(0.0)
    program = vgrad.compile(lambda x: vgrad.where(x > 0, vgrad.sqrt(x), 0.0) * w * w, [w])
    assert program.hessian_vector_product([1.0], [1.0], [-1.0, 0.0, 4.0]) == pytest.approx([4 / 3])


def assert_hessians_agree(graph, points, fuse):
    """Products with unit vectors are the columns of the gradient's gradient; returns the last."""
    size = len(graph.parameters)
    derived = graph.gradient()
    for k in range(size):
        derived = derived.gradient(derived.parameters, of=1 + k)
    program, columns = vgrad.compile(graph, fuse=fuse), vgrad.compile(derived, fuse=fuse)
    for theta in points:
        products = [program.hessian_vector_product(theta, v, [0.0]) for v in np.eye(size)]
        want = np.concatenate(columns(theta, [0.0])[2:])
        # the same sums of products in other orders, of numbers such as 1 - tanh**2, which cancels
        np.testing.assert_allclose(products, want, rtol=1e-12, atol=0, err_msg=str(theta))
    return want


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_the_norm_at_0(fuse):
    """Infinite for the norm; for its square 0, as a gradient of 0 meets the root's infinity."""
    norm = lambda x, y: vgrad.sqrt(x * x + y * y)  # noqa: E731
    square = lambda x, y: norm(x, y) ** 2  # noqa: E731
    for fn, want in ((norm, [[np.inf, 0.0], [0.0, np.inf]]), (square, [[0.0, 0.0], [0.0, 0.0]])):
        w = [Value(0.0), Value(0.0)]
        graph = vgrad.trace(lambda _, fn=fn, w=w: fn(*w), (), parameters=w)
        assert assert_hessians_agree(graph, [[0.0, 0.0]], fuse).tolist() == want
        derived = (graph := vgrad.trace(fn, (), ())).gradient(graph.inputs)
        for k in (1, 2):
            derived = derived.gradient(derived.inputs, of=k)
        columns = vgrad.compile(derived, fuse=fuse)([], [0.0], [0.0])[2:]
        assert np.concatenate(columns).tolist() == want


AROUND = {
    "squared": lambda f, x: f(*x) ** 2,
    "of squares": lambda f, x: f(*[p * p for p in x]),
    "under a root": lambda f, x: vgrad.sqrt(f(*x)),
    "beside a norm": lambda f, x: vgrad.sqrt(sum(p * p for p in x)) ** 2 + f(*x) * x[0],
    "behind where": lambda f, x: vgrad.where(x[0] > 0, f(*x), 0.0) * x[-1],
}
NAN, INF = np.nan, np.inf
CORNERS = {  # at 0, infinities, nan and ties
    1: [0.0, 1.0, -2.0, 1e200, INF, NAN],
    2: [(0.0, 0.0), (0.0, 1.0), (-2.0, 0.0), (1.0, 1.0), (INF, 0.0), (INF, INF), (NAN, 0.0)],
    3: [(0.0, 0.0, 1.0), (1.0, INF, 0.0), (0.0, NAN, -2.0), (1.0, -2.0, NAN)],
}


@mostly_fused
@pytest.mark.parametrize(
    "around", [x if x == "beside a norm" else pytest.param(x, marks=long) for x in AROUND]
)
@pytest.mark.parametrize(
    "op",
    half(x for x in COMPUTED if any(x.vjp)),
    ids=lambda op: op.name,
)
def test_products_with_the_hessian_at_corners(op, around, fuse):
    """Against the gradient of the gradient: nan in the same places, and otherwise equal."""
    w = [Value(1.0) for _ in op.vjp]
    graph = vgrad.trace(lambda _: AROUND[around](op, w), (), parameters=w)
    assert_hessians_agree(graph, [np.atleast_1d(x) for x in CORNERS[op.arity]], fuse)


def guard(x, y):
    return vgrad.ops.guard(x, y, y)


def test_a_guard_that_something_may_hide_is_kept():
    """A nan goes through in place of a needless guard; here a comparison would swallow it."""
    for fn, want in (
        (lambda g, x: vgrad.where(guard(g, x) > -1, 1.0, 2.0), [1.0, 1.0]),
        (lambda g, x: vgrad.where(guard(g, guard(g * 2, x)), 1.0, 2.0), [2.0, 1.0]),
        (lambda g, x: guard(g, guard(g * 2, x)) * 3, [0.0, 15.0]),
    ):
        for fuse in (True, False):
            program = vgrad.compile(fn, parameters=[], fuse=fuse)
            assert program([], [0.0, 1.0], [np.nan, 5.0]).tolist() == want


def test_guards_of_guards_leave_the_plan():
    """As in a gradient of a gradient; nothing but the product is left."""
    program = vgrad.compile(lambda g, x: guard(g, guard(g, x * g)) * 3, parameters=[])
    plan = program.explain([1.0], [2.0])
    assert "guard" not in plan and "for 4 computed nodes" in plan
