"""Derivatives by name, of programs and of operands: against the scalar engine and differences."""

from __future__ import annotations

import cProfile
import pickle
import pstats
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from branching import random_branching
from helpers import (
    assert_gradients_match,
    backward_with_scale,
    central_difference,
    mostly_fused,
    random_program,
    same_bits,
    sweep,
)
from traps import NUMBERS, TRAPS

import vgrad
import vgrad.program.derivatives as derivatives
from vgrad import Value, nn

both_ways = pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])

# --- the scalar engine, output by output ---------------------------------------------------------


def by_values(fn, theta, parameters, sample):
    """The outputs of one sample, and the gradients of each to parameters and inputs, with scales.

    (M,), and (M, P + K) twice.
    """
    for parameter, number in zip(parameters, theta):
        parameter.data = number
    inputs = [Value(x, trainable=False) for x in sample]
    outputs = [
        x if isinstance(x, Value) else Value(x) for x in np.array(fn(*inputs), object).ravel()
    ]
    found = [backward_with_scale(x, [*parameters, *inputs]) for x in outputs]
    return [x.data for x in outputs], *(np.array(part) for part in zip(*found))


def check(fn, parameters, theta, arrays, **options):
    """Compare jacobian, input_jacobian, jvp and vjp of a function with the scalar engine's."""
    program = vgrad.compile(
        lambda *x: vgrad.array(np.array(fn(*x), object).ravel()), parameters, **options
    )
    rng = np.random.default_rng(len(theta))
    v = rng.normal(size=len(theta))
    values, by_theta = program.jacobian(theta, *arrays)
    again, by_input = program.input_jacobian(theta, *arrays)
    cotangent = rng.normal(size=values.shape)
    outputs, changes = program.jvp(theta, v, *arrays)
    _, gradient = program.vjp(theta, cotangent, *arrays)
    assert by_theta.shape == (*values.shape, len(theta))
    total = size = 0.0
    for i in range(len(values)):
        sample = [float(x[i]) for x in arrays]
        want, parts, scales = by_values(fn, theta, parameters, sample)
        for got in (values, again, outputs):
            assert got[i] == pytest.approx(want, rel=1e-9, abs=1e-12, nan_ok=True)
        columns = np.array([x[i] for x in by_input]).T.reshape(len(want), -1)
        got = np.concatenate([by_theta[i], columns], axis=1)
        assert_gradients_match(got, parts, scales, f"sample {i}")
        parts, scales = parts[:, : len(theta)], scales[:, : len(theta)]
        with np.errstate(all="ignore"):
            # What is 0 contributes nothing, also where a number is not finite.
            along = np.where(parts == 0, 0.0, parts * v).sum(axis=1)
            assert_gradients_match(changes[i], along, (scales * abs(v)).sum(axis=1), "jvp")
            total += (cotangent[i] @ parts) if parts.size else 0.0
            size += (abs(cotangent[i]) @ scales) if scales.size else 0.0
    if len(theta) and np.isfinite(total).all():
        assert_gradients_match(gradient, total, size, "vjp")


@mostly_fused
@pytest.mark.parametrize("seed", sweep(24, 12))
def test_random_programs(seed, fuse):
    """Of all ops, with reuse and dead code, at ordinary numbers and at edges."""
    random = random_program(seed, edges=bool(seed % 2))
    theta = [p.data for p in random.parameters]
    arrays = np.random.default_rng(seed).uniform(-2, 2, size=(random.inputs, 4))
    check(random, random.parameters, theta, arrays, fuse=fuse)


@mostly_fused
@pytest.mark.parametrize("seed", sweep(12, 5))
def test_random_branching(seed, fuse):
    """Each sample by its own path."""
    random = random_branching(seed)
    w = [Value(0.0) for _ in range(random.parameters)]
    fn, arrays, theta = random.make(w), random.arrays(12), random.theta(seed)
    check(fn, w, theta, arrays, fuse=fuse)


MODEL = nn.MLP(2, [5, 4, 3], activation="tanh")
X = np.random.default_rng(0).normal(size=(7, 2))


def net(x):
    return vgrad.array(MODEL(x))


def assert_same(got, want):
    """Two ways to compute the same numbers of order 1: sums in other orders."""
    assert got == pytest.approx(want, rel=1e-11, abs=1e-13)


@pytest.fixture(scope="module")
def program():
    return vgrad.compile(net, MODEL)


def test_every_derivative_of_a_network_by_central_differences(program):
    """Second ones as well: step**2 times a third, and 2**-53 / step, for numbers below 10."""
    theta, step = program.theta(), 1e-5
    outputs, jacobian = program.jacobian(theta, X)
    assert same_bits(outputs, program(theta, X)) and jacobian.shape == (7, 3, len(theta))
    for k, e in enumerate(np.eye(len(theta))):
        difference = (program(theta + step * e, X) - program(theta - step * e, X)) / (2 * step)
        assert jacobian[..., k] == pytest.approx(difference, rel=1e-6, abs=1e-8)
    _, (by_x,) = program.input_jacobian(theta, X)
    for k, e in enumerate(np.eye(2)):
        difference = (program(theta, X + step * e) - program(theta, X - step * e)) / (2 * step)
        assert by_x[..., k] == pytest.approx(difference, rel=1e-6, abs=1e-8)
    loss = vgrad.compile(lambda x: (net(x) ** 2).sum(), MODEL)
    hessian, columns = loss.hessian(theta, X), loss.input_hessian(theta, X)
    for k, e in enumerate(np.eye(len(theta))):
        up, down = (loss.value_and_grad(theta + h * e, X)[1] for h in (step, -step))
        assert hessian[:, k] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-7)
    for k, e in enumerate(np.eye(2)):
        up, down = (loss.input_grads(theta, X + h * e)[0] for h in (step, -step))
        assert columns[..., k] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-7)


def test_all_ways_to_run_it_agree(program, tmp_path, monkeypatch):
    """Saved, captured, in threads, in tiles, of float32, few and many, at once and one by one."""
    theta, rng = program.theta(), np.random.default_rng(1)
    v, cotangent = rng.normal(size=len(theta)), rng.normal(size=(7, 3))
    loss = vgrad.compile(lambda x: (net(x) ** 2).sum(), MODEL)

    def everything(program, loss, x=X, weights=cotangent):
        return (*program.jacobian(theta, x), *program.input_jacobian(theta, x)[1],
                *program.jvp(theta, v, x), program.vjp(theta, weights, x)[1],
                loss.hessian(theta, x), loss.input_hessian(theta, x))  # fmt: skip

    want = everything(program, loss)
    program.save(tmp_path / "a.npz"), loss.save(tmp_path / "b.npz")
    loaded = [vgrad.Program.load(tmp_path / f"{name}.npz") for name in "ab"]
    for twins in (loaded, [pickle.loads(pickle.dumps(x)) for x in (program, loss)]):
        assert all(same_bits(a, b) for a, b in zip(everything(*twins), want))
    for options in ({"tile": 2}, {"fuse": False}, {"check_finite": True}):
        twins = [vgrad.compile(fn, MODEL, **options) for fn in (net, lambda x: (net(x) ** 2).sum())]
        for a, b in zip(everything(*twins), want):
            assert_same(a, b)
    with ThreadPoolExecutor(2) as pool:
        twins = [vgrad.compile(fn, MODEL, tile=1, executor=pool)
                 for fn in (net, lambda x: (net(x) ** 2).sum())]  # fmt: skip
        for a, b in zip(everything(*twins), want):
            assert_same(a, b)
    single = [vgrad.compile(fn, MODEL, dtype=np.float32)
              for fn in (net, lambda x: (net(x) ** 2).sum())]  # fmt: skip
    for a, b in zip(everything(*single), want):
        assert a.dtype == np.float32 and a == pytest.approx(b, rel=1e-3, abs=1e-4)
    monkeypatch.setattr(derivatives, "LARGE", 0)  # one by one
    for a, b in zip(everything(program, loss), want):
        assert_same(a, b)


def test_captured_programs(program):
    """Of `Value`s that were there already: the same numbers as of the traced function."""
    x = [Value(0.3), Value(-0.7)]
    captured = vgrad.compile(
        vgrad.capture(*MODEL(x), inputs=[np.array(x)], parameters=MODEL.parameters())
    )
    theta = program.theta()
    outputs, jacobian = captured.jacobian(theta, X)
    want, by_theta = program.jacobian(theta, X)
    assert_same(np.array(outputs).T, want)
    assert_same(np.array(jacobian).swapaxes(0, 1), by_theta)
    _, by_x = captured.input_jacobian(theta, X)
    assert_same(np.array(by_x)[:, 0].swapaxes(0, 1), program.input_jacobian(theta, X)[1][0])
    change = captured.jvp(theta, theta, X)[1]
    assert_same(np.array(change).T, program.jvp(theta, theta, X)[1])


def test_deep_programs_go_one_by_one():
    """Their plan has loops."""
    a = Value(0.9)

    def series(x):
        level, scale = x[0], 0.0
        for number in x[1:]:
            level = vgrad.tanh(a * level + number)
            scale = scale * 0.5 + level * level
        return vgrad.array([level, scale])

    program = vgrad.compile(series, [a])
    x = np.random.default_rng(2).normal(size=(40, 150))
    outputs, (by_x,) = program.input_jacobian([0.9], x)
    assert outputs.shape == (40, 2) and by_x.shape == (40, 2, 150)
    step = 1e-6 * np.eye(150)[149]
    difference = (program([0.9], x + step) - program([0.9], x - step)) / 2e-6
    assert by_x[..., 149] == pytest.approx(difference, rel=1e-6, abs=1e-8)
    _, by_a = program.jacobian([0.9], x)
    difference = (program([0.9 + 1e-6], x) - program([0.9 - 1e-6], x)) / 2e-6
    assert by_a[..., 0] == pytest.approx(difference, rel=1e-5, abs=1e-7)


def test_structures():
    """Several outputs are tuples, arrays keep their shapes, and so do arguments."""
    a = Value(2.0)
    program = vgrad.compile(
        lambda x, y: (a * x[0, 1], vgrad.array([[y, a], [x[1, 0], Value(3.0, trainable=False)]])),
        [a],
    )
    x, y = np.arange(8.0).reshape(2, 2, 2), np.array([1.0, 2.0])
    (first, second), (by_first, by_second) = program.jacobian([2.0], x, y)
    assert first.shape == (2,) and second.shape == (2, 2, 2)
    assert by_first.tolist() == [[1.0], [5.0]]
    assert by_second.tolist() == [[[[0.0], [1.0]], [[0.0], [0.0]]]] * 2
    _, ((x1, y1), (x2, y2)) = program.input_jacobian([2.0], x, y)
    assert x1.tolist() == [[[0.0, 2.0], [0.0, 0.0]]] * 2 and y1.tolist() == [0.0, 0.0]
    assert x2.shape == (2, 2, 2, 2, 2) and y2.shape == (2, 2, 2)
    assert x2[0, 1, 0].tolist() == [[0.0, 0.0], [1.0, 0.0]] and y2[0, 0, 0] == 1.0
    _, gradient = program.vjp([2.0], (y, np.ones((2, 2, 2))), x, y)
    assert gradient.tolist() == [1.0 * 1 + 2.0 * 5 + 2]
    (change, _), none = program.jvp([2.0], [3.0], x, y)[1], vgrad.compile(lambda x: x, [])
    assert change.tolist() == [3.0, 15.0]
    assert none.jacobian([], [1.0, 2.0])[1].shape == (2, 0)
    assert none.hessian([], [1.0]).shape == (0, 0)
    assert none.jvp([], [], [1.0])[1].tolist() == [0.0]


@pytest.mark.parametrize("name", TRAPS)
@mostly_fused
def test_a_zero_gradient_stays_zero(name, fuse):
    """The same gradients by hand as for `backward`, forward and backward, and inside a function."""
    fn, cases = TRAPS[name]
    w = [Value(x) for x in NUMBERS]
    x, y = np.array([case[0] for case in cases]).T
    by_x = np.array([case[2] for case in cases])
    by_w = np.array([[*case[3], *[0.0] * (4 - len(case[3]))] for case in cases])
    exact = {"rel": 1e-14, "abs": 0, "nan_ok": True}  # as in the traps' own tests
    several = lambda x, y: vgrad.array([fn(x, y, w), w[0], x, y, w[1]])  # noqa: E731
    program = vgrad.compile(several, w, fuse=fuse)
    _, jacobian = program.jacobian(NUMBERS, x, y)
    assert jacobian[:, 0] == pytest.approx(by_w, **exact)
    _, columns = program.input_jacobian(NUMBERS, x, y)
    assert np.array(columns)[:, :, 0].T == pytest.approx(by_x, **exact)
    inside = vgrad.compile(
        lambda x, y: vgrad.array(vgrad.gradient(fn(x, y, w), [x, y, *w])), w, fuse=fuse
    )
    assert inside(NUMBERS, x, y) == pytest.approx(np.hstack([by_x, by_w]), **exact)
    for i in range(len(x)):
        u, v = Value(x[i]), Value(y[i])
        got = [part.data for part in vgrad.gradient(fn(u, v, w), [u, v, *w])]
        assert got == pytest.approx([*by_x[i], *by_w[i]], **exact)


@pytest.mark.parametrize("name", TRAPS)
def test_second_derivatives_where_a_gradient_of_0_meets_inf(name):
    """As gradients of gradients on the scalar engine; nan in the same places."""
    fn, cases = TRAPS[name]
    w = [Value(x) for x in NUMBERS]
    x, y = np.array([case[0] for case in cases]).T
    got = vgrad.compile(lambda x, y: fn(x, y, w), w).input_hessian(NUMBERS, x, y)
    for i in range(len(x)):
        inputs = [Value(x[i]), Value(y[i])]
        firsts = vgrad.gradient(fn(*inputs, w), inputs)
        want = [[part.data for part in vgrad.gradient(g, inputs)] for g in firsts]
        # the same terms, of order 1, in sums of other orders
        assert got[i] == pytest.approx(np.array(want), rel=1e-13, abs=1e-15, nan_ok=True)


# --- inside functions ----------------------------------------------------------------------------

SMOOTH = {
    "cubic": lambda x, y: x**3 * y - 2 * x * x,
    "exp of sin": lambda x, y: vgrad.exp(vgrad.sin(x * y)) / (1 + x * x),
    "norm": lambda x, y: vgrad.sqrt(x * x + y * y + 1),
    "tanh": lambda x, y: vgrad.tanh(2 * vgrad.sigmoid(x) - y / 3),
    "where": lambda x, y: vgrad.where(x > 0.1, x**4, x * x) * vgrad.cos(y),
}


def third(f, x, y):
    """A value, and derivatives of orders 1 to 3, each of the one before."""
    u = f(x, y)
    u_x, _ = vgrad.gradient(u, [x, y])
    u_xy = vgrad.gradient(u_x, y)
    return [u, u_x, u_xy, vgrad.gradient(u_xy, {"x": x})["x"]]


@pytest.mark.parametrize("name", SMOOTH)
def test_to_the_third_order_inside_a_function_and_on_values(name):
    f = SMOOTH[name]
    program = vgrad.compile(lambda x, y: vgrad.array(third(f, x, y)), [])
    x, y = np.array([-1.3, -0.4, 0.37, 1.1]), np.array([0.3, 1.2, -0.7, 0.5])
    got = program([], x, y)
    for k, along in ((0, "x"), (1, "y"), (2, "x")):
        step = 1e-4
        up, down = (
            program([], x + h * (along == "x"), y + h * (along == "y"))[:, k] for h in (step, -step)
        )
        # step**2 / 6 times a derivative two orders up (below 1e4 here), and 2**-53 / step
        assert got[:, k + 1] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-5)
    for i in range(len(x)):
        values = third(f, Value(x[i]), Value(y[i]))
        assert [value.data for value in values] == pytest.approx(got[i], rel=1e-12, abs=1e-12)
    # and once more, from the outside
    _, by_x = program.input_jacobian([], x, y)[1]
    assert by_x[:, 1] == pytest.approx(got[:, 2], rel=1e-11, abs=1e-12)


def test_a_loss_of_derivatives_trains():
    """A physics-informed loss: parameters' gradients through second derivatives of the network."""
    model = nn.MLP(2, [4, 1], activation="tanh")

    def residual(t, x):
        u = model([t, x])
        u_t, u_x = vgrad.gradient(u, [t, x])
        return (u_t + u * u_x - 0.1 * vgrad.gradient(u_x, x)) ** 2

    program = vgrad.compile(residual, model)
    t, x = X.T
    theta = program.theta()
    _, grad = program.value_and_grad(theta, t, x)
    f = lambda *numbers: program.value_and_grad(list(numbers), t, x)[0]  # noqa: E731
    for k in range(len(theta)):
        difference = central_difference(f, theta.tolist(), k, 1e-5)
        assert grad[k] == pytest.approx(difference, rel=1e-5, abs=1e-8)
    assert program.verify(theta, t, x).worst.share < 1
    assert "guard" not in program.explain(
        t, x
    )  # nothing that could hide nan: plain sweeps have them
    total = 0.0
    for a, b in zip(t, x):
        loss = residual(Value(a, trainable=False), Value(b, trainable=False))
        model.zero_grad()
        loss.backward()
        total += np.array([p.grad for p in model.parameters()])
    assert total / len(t) == pytest.approx(grad, rel=1e-10, abs=1e-12)


def test_what_the_derivatives_are_taken_to():
    """An operand, or any nesting of them; interior ones too; what is not used has 0."""
    w = nn.Neuron(2, nonlin=False)

    def fn(x, y):
        inner = x * y
        u = inner**2 + w([x, y])
        found = vgrad.gradient(u, {"in": inner, "xs": (x, [y]), "w": w, "none": Value(1.0)})
        assert isinstance(found["xs"], tuple) and len(found["w"]) == 3
        by_array = vgrad.gradient(u, vgrad.array([[x, y]]))
        assert by_array.shape == (1, 2)
        return [found["in"], found["xs"][0], found["xs"][1][0], *found["w"], found["none"],
                *by_array.ravel(), vgrad.gradient(u, u)]  # fmt: skip

    program = vgrad.compile(lambda x, y: vgrad.array(fn(x, y)), w)
    (got,) = program(program.theta(), [2.0], [3.0])
    a, b, _ = program.theta()
    by_x, by_y = 2 * 6 * 3 + a, 2 * 6 * 2 + b
    assert got.tolist() == [12.0, by_x, by_y, 2.0, 3.0, 1.0, 0.0, by_x, by_y, 1.0]
    values = [x.data for x in fn(Value(2.0), Value(3.0))]
    assert values == got.tolist()


def test_gradients_in_a_loop_look_no_further_than_they_must():
    """Descent on an inner loss: as many nodes for each step, and as much time to record one."""

    def descent(x, steps):
        for _ in range(steps):
            x = x - 0.1 * vgrad.gradient(vgrad.sin(x) * x, x)
        return x

    calls = {}
    for steps in (20, 40):
        profile = cProfile.Profile()
        graph = profile.runcall(vgrad.trace, lambda x, n=steps: descent(x, n), ())
        calls[steps] = pstats.Stats(profile).total_calls
        found = descent(Value(1.0), steps)
        want = vgrad.compile(graph)([], [1.0])
        assert want == pytest.approx([found.data], rel=1e-12)
    assert calls[40] < 2.2 * calls[20]


def test_paths_by_a_derivative():
    """A function may ask about a gradient, and each sample goes its own way."""

    def fn(x):
        slope = vgrad.gradient(x**3 - 3 * x, x)
        return x * slope if slope > 0 else -x

    x = np.array([-2.0, 0.5, 3.0])
    assert vgrad.compile(fn, [])([], x).tolist() == [-18.0, -0.5, 72.0]
    assert vgrad.compile(fn, []).input_grads([], x)[0].tolist() == [33.0, -1.0, 78.0]
    with pytest.warns(vgrad.PathsWarning):  # also on the scalar engine, beyond the most paths
        assert vgrad.compile(lambda x: fn(x) + (1 if x > 2 else 0), [], paths=2)(
            [], x
        ).tolist() == [-18.0, -0.5, 73.0]


def test_gradients_of_what_inputs_do_not_reach():
    """Of parameters alone, or on one of two paths: 0 to the input."""
    w = Value(3.0)
    square = vgrad.compile(lambda x: vgrad.gradient(w * w, x), [w])
    assert square([2.0], [1.0, 2.0]).tolist() == [0.0, 0.0]

    def fn(x):
        return vgrad.array(vgrad.gradient(x * w if x > 0 else w * w, [x, w]))

    assert vgrad.compile(fn, [w])([2.0], [1.0, -2.0]).tolist() == [[2.0, 1.0], [0.0, 4.0]]
    alone = vgrad.compile(lambda: w * w, [w])
    assert alone.input_hessian([2.0]).shape == (1, 0, 0) and alone.hessian([2.0]) == [[2.0]]


@both_ways
def test_guards_whose_operands_differ_between_samples_and_results_do_not(fuse):
    """Second derivatives of parameters' products, which all samples share once guards are gone."""
    a, b = Value(1.1), Value(1.3)
    fn = lambda x, y: vgrad.arccosh(y) + a * vgrad.tanh(x) + b * vgrad.tanh(x)  # noqa: E731
    program = vgrad.compile(fn, [a, b], fuse=fuse)
    got = program.input_hessian([1.1, 1.3], [0.5, 1.3, 0.5], [0.5, -1.0, 2.0])
    t = np.tanh(np.array([0.5, 1.3, 0.5]))
    assert got[:, 0, 0] == pytest.approx(-2 * 2.4 * t * (1 - t * t), rel=1e-13)
    assert got[:, 0, 1].tolist() == [0.0, 0.0, 0.0] and np.isnan(got[0, 1, 1])
    assert got[2, 1, 1] == pytest.approx(-2.0 / 3.0**1.5, rel=1e-13)


def slopes(x, w):
    y = vgrad.arctan(x) - w[0] * x - x * ((x + w[0]) * x)
    g = vgrad.gradient(y, w[0])
    return [y, g, *vgrad.gradient(g, [x, w[0]])]


SECOND = {
    "shared and of samples": slopes,
    "of all parameters": lambda x, w: vgrad.gradient(
        vgrad.gradient(vgrad.erf(w[0] + x * w[1]) + w[1] * w[1] + x * (w[0] + x * w[1]), x), w
    ),
    "twice the same": lambda x, w: [
        vgrad.gradient(vgrad.gradient(w[0] * vgrad.tanh(x) + w[1] * vgrad.tanh(x), x), x)
    ],
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_differentiated_again(name):
    """Without guards much is shared that was not; plans then keep each buffer to itself."""
    w, x = [Value(0.5), Value(0.1)], np.linspace(-1, 1, 50)
    for call in ("jacobian", "input_jacobian"):
        fused, plain = (
            getattr(vgrad.compile(lambda x: vgrad.array(SECOND[name](x, w)), w, fuse=fuse), call)(
                [0.5, 0.1], x
            )
            for fuse in (True, False)
        )
        assert_same(np.array(fused[1]), np.array(plain[1]))


def test_a_hessian_parts_the_samples_once():
    """Those beyond the most paths call the function once each, and not for every parameter."""
    w, calls = [Value(0.1 * k + 0.1) for k in range(6)], []

    def fn(x):
        calls.append(1)
        total = sum(p * p for p in w)
        return total * x if int(x) % 7 == 0 else total * x * (int(x) % 7)

    program, x = vgrad.compile(fn, w, paths=3), np.arange(7.0)
    with pytest.warns(vgrad.PathsWarning):
        program(program.theta(), x)
        calls.clear()
        hessian = program.hessian(program.theta(), x)
    assert len(calls) == 7 - 3
    # 2 sum(x f(x)) / 7, where f is 1 at 0 and k elsewhere: 2 (1 + 4 + 9 + 16 + 25 + 36) / 7
    assert hessian == pytest.approx(26.0 * np.eye(6), rel=1e-13, abs=1e-13)


def test_gradients_of_what_is_no_operand():
    x = Value(1.0)
    with pytest.raises(TypeError, match="y must be one Value or traced value .got 3.0, a float"):
        vgrad.gradient(3.0, x)
    with pytest.raises(TypeError, match="y must be one .* a list"):
        vgrad.gradient([x, x], x)
    for wrt in (1.0, [x, "x"], None):
        with pytest.raises(TypeError, match="wrt must be a Value or traced value, or a list"):
            vgrad.gradient(x * 2, wrt)


def test_several_outputs_of_a_graph_at_once():
    """As one after the other; their number of nodes grows with the outputs."""
    sizes = {}
    for m in (4, 8, 16):
        model = nn.MLP(2, [6, m], activation="tanh")
        graph = vgrad.trace(lambda x, y, model=model: model([x, y]), (), (), parameters=model)
        several = graph.gradient(graph.inputs, of=range(m))
        assert several.output_shapes[-1] == (m, 2)
        sizes[m] = len(several)
        got = vgrad.compile(several)(several.value[several.parameters], *X.T)[-1]
        for k in (0, m - 1):
            one = graph.gradient(graph.inputs, of=k)
            want = vgrad.compile(one)(one.value[one.parameters], *X.T)[-1]
            assert_same(got[:, k], want)
    assert sizes[16] - sizes[8] == pytest.approx(2 * (sizes[8] - sizes[4]), rel=0.01)
    with pytest.raises(ValueError, match="of must be an output, or a list of one or more"):
        graph.gradient(graph.inputs, of=[])
    with pytest.raises(ValueError, match="of must be an output, 0 to 15 .got 16"):
        graph.gradient(graph.inputs, of=[0, 16])


def test_a_graph_inside_a_function():
    w = Value(3.0, label="w")
    graph = vgrad.trace(lambda x, y: (w * x[0] + y, vgrad.array([x[1], y])), (2,), ())

    def fn(a):
        first, pair = graph([a, 2.0], a * a)
        return first * pair[0] * pair[1]

    program = vgrad.compile(fn, [w])
    value, grad = program.value_and_grad([3.0], [2.0])
    assert value == (3 * 2 + 4) * 2 * 4 and grad.tolist() == [2.0 * 2 * 4]
    root = fn(Value(2.0))
    root.backward()
    assert root.data == value and w.grad == 16.0
    first, pair = graph([1.0, 2.0], 5.0, theta=[10.0])
    assert (first, pair.tolist()) == (15.0, [2.0, 5.0])
    with pytest.raises(vgrad.ShapeError, match=r"arguments must have the graph's shapes \(\(2,\),"):
        graph(1.0, 2.0)
    with pytest.raises(vgrad.ShapeError, match=r"theta must have shape \(1,\)"):
        graph([1.0, 2.0], 5.0, theta=[])
    derived = pickle.loads(pickle.dumps(graph))  # with its Values; a file is without
    assert derived([1.0, 2.0], 5.0)[0].data == 8.0


def test_a_graph_without_values_wants_theta(tmp_path):
    graph = vgrad.trace(lambda x: Value(3.0) * x, ())
    graph.save(tmp_path / "graph")
    with pytest.raises(
        ValueError, match="theta must be given, 1 operands or numbers, as the graph"
    ):
        vgrad.Graph.load(tmp_path / "graph")(1.0)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p, t: p.jvp(t, t[1:], X), r"tangent must have shape \(54,\)"),
        (lambda p, t: p.vjp(t, np.ones(7), X), r"cotangent must have the output's shape \(7, 3\)"),
        (lambda p, t: p.hessian(t, X), "output 0, the objective, must be one number per sample"),
        (lambda p, t: p.input_hessian(t, X), "output 0, the objective, must be one number"),
        (lambda p, t: p.jacobian(t[1:], X), r"theta must have shape \(54,\)"),
    ],
)
def test_wrong_shapes(program, call, message):
    theta = program.theta()
    want = program.jacobian(theta, X)
    with pytest.raises(vgrad.ShapeError, match=message):
        call(program, theta)
    assert all(same_bits(a, b) for a, b in zip(program.jacobian(theta, X), want))


def test_a_cotangent_of_several_outputs():
    program = vgrad.compile(lambda x: (x, x * x), [])
    with pytest.raises(vgrad.ShapeError, match="cotangent must be a tuple of 2, one per output"):
        program.vjp([], np.ones(3), np.ones(3))
    with pytest.raises(vgrad.ShapeError, match=r"cotangent\[1\] must have the output's shape"):
        program.vjp([], (np.ones(3), np.ones(2)), np.ones(3))


def test_check_finite_names_where_a_derivative_began_to_be_infinite():
    program = vgrad.compile(lambda x: [vgrad.sqrt(x), x], [], check_finite=True)
    with pytest.raises(vgrad.NonFiniteError, match=r"sample 1"):
        program.input_jacobian([], [1.0, 0.0])
