"""verify and gradcheck find what is wrong; float32 keeps its bounds."""

from __future__ import annotations

import random

import numpy as np
import pytest
from helpers import mostly_fused, random_program, sweep

import vgrad
from vgrad import ParityError, Value, nn, ops
from vgrad.checks import parity

MODEL = nn.MLP(2, [6, 3, 1], activation="tanh", rng=random.Random(5))
X = np.random.default_rng(0).normal(size=(50, 2))
Y = np.random.default_rng(1).normal(size=50)


def loss(x, y):
    score = MODEL(x)
    return (score - y) ** 2 + 0.01 * sum(p * p for p in MODEL.parameters()), score


@pytest.fixture
def wrong_rule(monkeypatch):
    """Plants a rule in a row of the table, for as long as a test runs."""

    def plant(op: ops.Op, k: int, rule) -> None:
        before = op.vjp
        vgrad.flat.recording.recorded.cache_clear()
        object.__setattr__(op, "vjp", (*before[:k], rule, *before[k + 1 :]))
        undo.append((op, before))

    undo: list = []
    yield plant
    for op, before in reversed(undo):
        object.__setattr__(op, "vjp", before)
    vgrad.flat.recording.recorded.cache_clear()


# --- verify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@mostly_fused
def test_what_is_right_is_verified(fuse, dtype):
    program = vgrad.compile(loss, MODEL.parameters(), fuse=fuse, dtype=dtype)
    theta = program.theta()
    report = program.verify(theta, X, Y)
    assert report.samples == 16 and report.numbers == 16 * (2 + 3 + len(theta)) + len(theta)
    assert 0 < report.worst.share < 1 and 0 < report.worst.ulps < np.inf
    assert "16 samples, 811 numbers agree with the scalar engine's: worst gap" in str(report)
    assert f"ulp, relative error {report.worst.relative:.2g}, " in str(report)
    assert program.verify(theta, X, Y, samples=100, seed=3).samples == 50


@pytest.mark.parametrize("seed", sweep(20, 7))
@pytest.mark.parametrize("edges", [False, True], ids=["numbers", "edges"])
def test_random_graphs_are_verified(seed, edges):
    program = random_program(seed, edges)
    compiled = vgrad.compile(program, parameters=program.parameters)
    data = np.random.default_rng(seed).uniform(-2, 2, size=(program.inputs, 4))
    report = compiled.verify(compiled.theta(), *data)
    assert report.worst.share <= 1


def test_a_fault_in_a_kernel_is_found(monkeypatch):
    """A matrix product that is off in the 10th digit, forward; then one backward."""
    products = vgrad.compiler.products
    dot = products._dot

    def off(calls, a, b, out, constant):
        dot(calls, a, b, out, constant)
        calls.call(lambda: np.multiply(out, 1 + 1e-10, out), constant)

    program = vgrad.compile(loss, MODEL.parameters())
    theta = program.theta()
    monkeypatch.setattr(products, "_dot", off)
    with pytest.raises(
        ParityError, match=r"must agree with the scalar engine's to 1e-12 .*got .*at"
    ):
        program.verify(theta, X, Y)


def test_a_fault_in_the_gradient_to_shared_weights_is_found(monkeypatch):
    """Which gradients per sample do not come to, as there the weights are inputs."""
    grad_u = vgrad.compiler.products.Grid._grad_u

    def off(self, calls, shape, out):
        result = grad_u(self, calls, shape, out)
        calls.call(lambda: np.multiply(result.array, 3.0, result.array), result.constant)
        return result

    monkeypatch.setattr(vgrad.compiler.products.Grid, "_grad_u", off)
    program = vgrad.compile(loss, MODEL.parameters())
    with pytest.raises(ParityError, match=r"at (mean )?gradient to parameter"):
        program.verify(program.theta(), X, Y)


def test_a_nan_in_the_wrong_place_is_found(monkeypatch):
    """Where the fused sweep forgets to keep a gradient of 0, and nothing falls back."""
    program = vgrad.compile(lambda x: vgrad.where(x > 0, vgrad.sqrt(x), 0.0), [])
    program.verify([], [1.0, 0.0])
    monkeypatch.setattr(
        vgrad.compiler.FusedSweep, "input_gradients", lambda *call: np.zeros((2, 2))
    )
    with pytest.raises(ParityError, match=r"got 0.0 for 0.5, .* at gradient to input 0, sample 0"):
        program.verify([], [1.0, 0.0])


def test_a_fault_in_the_mean_gradient_alone_is_found(monkeypatch):
    program = vgrad.compile(loss, MODEL.parameters())
    theta = program.theta(X, Y)
    right = vgrad.program.Call.gradient

    def off(*call, **options):
        value, gradient, outputs = right(*call, **options)
        gradient[7] *= 1 + 1e-9
        return value, gradient, outputs

    monkeypatch.setattr(vgrad.program.Call, "gradient", off)
    with pytest.raises(ParityError, match="at mean gradient to parameter 7"):
        program.verify(theta, X, Y)


@pytest.mark.parametrize("samples", [0, -1, 1.5, True, "2"])
def test_a_number_of_samples_must_be_one(samples):
    program = vgrad.compile(loss, MODEL.parameters())
    with pytest.raises(ValueError, match="samples must be how many to compare, 1 or more .got"):
        program.verify(program.theta(X, Y), X, Y, samples=samples)


def test_the_bounds_are_what_is_documented():
    assert parity.BOUNDS == {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 5e-4}


# --- gradcheck -----------------------------------------------------------------------------------


def test_gradcheck_of_a_function_on_the_scalar_engine():
    before = [p.data for p in MODEL.parameters()]
    report = vgrad.gradcheck(loss, [0.3, -0.2], 1.5)
    assert report and len(report.derivatives) == 3 + len(before)
    assert "50 of 50" not in str(report) and "agree with central differences" in str(report)
    assert [p.data for p in MODEL.parameters()] == before
    assert all(p.grad == 0 for p in MODEL.parameters())


def test_gradcheck_changes_neither_numbers_nor_gradients():
    """Also not those of a leaf that is no parameter."""
    w, fixed = Value(3.0), Value(2.0, trainable=False)
    (w * fixed).backward()
    assert vgrad.gradcheck(lambda x: w * fixed * x, 0.5)
    assert [(x.data, x.grad) for x in (w, fixed)] == [(3.0, 2.0), (2.0, 3.0)]


def test_gradcheck_of_a_program_and_of_a_graph():
    program = vgrad.compile(loss, MODEL.parameters())
    theta = program.theta()
    graph = vgrad.trace(loss, (2,), (), parameters=MODEL.parameters())
    for checked in (program, graph):
        report = vgrad.gradcheck(checked, theta, X[:3], Y[:3])
        assert report and len(report.derivatives) == len(theta) + 9


@pytest.mark.parametrize("op", [op for op in ops.OPS if any(op.vjp)], ids=lambda op: op.name)
def test_gradcheck_names_the_op_whose_rule_is_off(op, wrong_rule):
    """On both engines, whichever row it is, even by a thousandth."""
    for k, right in enumerate(op.vjp):
        if right:
            wrong_rule(op, k, lambda g, *xs, right=right: 1.001 * right(g, *xs))
    shares = (0.675, 0.825, 0.4)  # of the domain; away from ties and from 0
    operands = [low + share * (high - low) for share, (low, high) in zip(shares, op.domain)]

    def fn(*xs):
        xs = [low if low == high else x for x, (low, high) in zip(xs, op.domain)]
        return vgrad.sin(op(*xs)) if op is not ops.sin else op(*xs) * 2

    # fused, sums of products and guards do not come to their rows' rules
    plain = vgrad.compile(fn, [], fuse=False)
    for report in (
        vgrad.gradcheck(fn, *operands),
        vgrad.gradcheck(plain, [], *[[x] for x in operands]),
    ):
        assert not report and f"the rule of {op.name} for operand" in str(report)
        assert all(f"the rule of {op.name} for" in text for text in report.rules)


def test_gradcheck_names_the_worst_parameter_and_input(wrong_rule):
    u, v = Value(2.0, label="u"), Value(3.0, label="v")
    wrong_rule(ops.mul, 1, lambda g, out, x, y: 1.5 * x * g)
    report = vgrad.gradcheck(lambda x: x * v + u, 0.5)
    assert "1 of 3 derivatives disagree" in str(report)
    assert "that to parameter 'v': 0.75, where differences give 0.5" in str(report)
    report = vgrad.gradcheck(
        vgrad.compile(lambda x, y: u * x[1] + v * y, [u, v], fuse=False),
        [2.0, 3.0],
        [[1.0, 5.0]],
        [7.0],
    )
    assert "2 of 5" in str(report) and [x.got for x in report.wrong] == [4.5, 3.0]
    assert "that to input 1 of sample 0: 4.5, where differences give 3" in str(report)


def test_what_differences_cannot_judge_is_said():
    for fn in (vgrad.relu, vgrad.abs, lambda x: vgrad.maximum(x, 0.0)):
        report = vgrad.gradcheck(fn, 0.0)
        assert not report and not report.wrong and len(report.unsure) == 1
        assert "0 of 1 derivatives agree" in str(report) and "1 cannot be judged" in str(report)
        for near in (0.5, -1e-2, 2e-4, -2.5e-4, 3e-6, 1e-3):
            assert vgrad.gradcheck(fn, near) and not vgrad.gradcheck(fn, near).unsure
    assert vgrad.gradcheck(vgrad.log, 1e-5) and not vgrad.gradcheck(vgrad.log, 1e-5).unsure
    assert len(vgrad.gradcheck(vgrad.sqrt, 0.0).unsure) == 1


def test_a_steep_function_takes_smaller_steps(wrong_rule):
    steep = {"sine of much": lambda x: vgrad.sin(1000 * x), "far out": lambda x: vgrad.sin(x) * x}
    points = {"sine of much": 1.0, "far out": 1000.0}
    for name, fn in steep.items():
        report = vgrad.gradcheck(fn, points[name])
        assert report and not report.unsure, report
    wrong_rule(ops.sin, 0, lambda g, out, x: 1.05 * g * ops.cos(x))
    for name, fn in steep.items():
        assert not vgrad.gradcheck(fn, points[name]), name


def test_what_no_step_can_judge_is_not_right():
    report = vgrad.gradcheck(lambda x: vgrad.sin(1e9 * x), 1.0)
    assert not report and not report.wrong


def test_the_op_is_looked_for_in_every_sample(wrong_rule):
    w = Value(1.0)
    program = vgrad.compile(lambda x: vgrad.relu(w * x), [w], fuse=False)
    wrong_rule(ops.relu, 0, lambda g, out, x: 3 * ops.where(x > 0, g, 0.0))
    report = vgrad.gradcheck(program, [1.0], [-1.0, 2.0, 3.0])
    assert len(report.wrong) == 3 and "the rule of relu for operand 0 is off" in str(report)


def test_gradcheck_takes_no_offence_at_its_own_steps():
    w = Value(1.0)
    program = vgrad.compile(lambda x: vgrad.log(w * x), [w], check_finite=True)
    assert vgrad.gradcheck(program, [1.0], [1e-4, 1.0])
    assert vgrad.gradcheck(vgrad.capture(w * w))  # at the numbers it was recorded with
    assert vgrad.gradcheck(vgrad.compile(lambda x: np.sum(x**2), []), [], np.ones((2, 2, 3, 2)))


def test_verify_allows_what_rounding_explains():
    """Near an optimum, and for steep functions, gradients are differences of large numbers."""
    draw = np.random.default_rng(0)
    weights = [Value(v) for v in draw.normal(size=8)]
    theta = np.array([v.data for v in weights])
    data = draw.normal(size=(200, 8))
    target = data @ theta + 1e-6 * draw.normal(size=200)

    def dot(x):
        return np.array(weights) @ x

    for dtype in (np.float64, np.float32):
        for fn in (
            lambda x, t: (dot(x) - t) ** 2,
            lambda x, t: vgrad.sin(1e3 * dot(x)) * t,
            lambda x, t: 1 / dot(x) + t,
            lambda x, t: dot(x) ** 3 * vgrad.exp(t),
        ):
            vgrad.compile(fn, weights, dtype=dtype).verify(theta, data, target, samples=40)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", [lambda r: r**2, lambda r: r * r, vgrad.abs, vgrad.relu])
def test_verify_allows_a_perfect_fit(loss, dtype):
    """Where a residual is 0 or a rounding error, so is its square's or a relu's derivative."""
    model = nn.MLP(6, [4, 1], activation="tanh", rng=random.Random(1))
    data = np.random.default_rng(0).normal(size=(40, 6))
    targets = [model(x).data for x in data]
    fit = lambda x, y: loss(model(x) - y)  # noqa: E731
    program = vgrad.compile(fit, model.parameters(), dtype=dtype)
    program.verify(program.theta(), data, targets, samples=40)


def test_verify_allows_large_numbers_that_cancel():
    program = vgrad.compile(lambda a, b, c, d: (a * b + c * d) - (c * d + a * b), [])
    program.verify([], *np.random.default_rng(0).normal(size=(4, 50)) * 1e150, samples=50)


@pytest.mark.parametrize("large", [1e4, 1e5, 1e6, 1e8])
def test_gradcheck_knows_rounding_inside_of_a_function(large):
    for seed in range(10):
        x = random.Random(seed).uniform(-2, 2)
        assert not vgrad.gradcheck(lambda x: (vgrad.sin(x) + large) - large, x).wrong
    numbers = np.array([0.1, 0.2, 0.3])
    assert not vgrad.gradcheck(lambda x: vgrad.logsumexp(x + large) - large, numbers).wrong


def test_gradcheck_of_float32_programs():
    draw = np.random.default_rng(0)
    for seed in range(20):
        w = Value(random.Random(seed).uniform(-2, 2))
        program = vgrad.compile(lambda x, y, w=w: (w * x - y) ** 2, [w], dtype=np.float32)
        report = vgrad.gradcheck(program, program.theta(), *draw.normal(size=(2, 8)))
        assert not report.wrong, report


def test_verify_allows_what_float32_cannot_hold():
    w = Value(1.0)
    program = vgrad.compile(lambda x: vgrad.exp(w * x), [w], dtype=np.float32)
    program.verify([1.0], [1.0, 88.0, 89.0, 200.0])


def test_a_gradient_of_nan_is_wrong():
    report = vgrad.gradcheck(lambda x: x + 0 * vgrad.sqrt(x - 1) ** 2 * x, 1.0)
    assert report.derivatives[0].got == report.derivatives[0].got or not report


def test_gradcheck_refuses_what_it_cannot_check():
    with pytest.raises(TypeError, match="takes a function, a Program or a Graph .got 3"):
        vgrad.gradcheck(3, 1.0)
    with pytest.raises(TypeError, match="must return a Value"):
        vgrad.gradcheck(lambda x: 3.0, 1.0)
    with pytest.raises(ValueError, match="step must be positive"):
        vgrad.gradcheck(vgrad.sin, 1.0, step=0)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        vgrad.gradcheck(vgrad.sin, 1.0, tolerance=-1)


# --- float32 -------------------------------------------------------------------------------------


def test_results_are_of_the_dtype_that_was_asked_for():
    for dtype in (np.float32, "float32", np.dtype(np.float32)):
        program = vgrad.compile(loss, MODEL.parameters(), dtype=dtype)
        theta = program.theta()
        assert theta.dtype == np.float64
        for x, y in ((X, Y), (X.astype(np.float32), Y.astype(np.float32))):
            (value, outputs), grad = program.value_and_grad(theta, x, y, aux=True)
            assert type(value) is float and grad.dtype == np.float32
            arrays = [*outputs, *program.input_grads(theta, x, y), *program(theta, x, y)]
            arrays += [program.per_sample_grads(theta, x, y)]
            arrays += [program.hessian_vector_product(theta, theta, x, y)]
            assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize("seed", sweep(40, 12))
def test_float32_keeps_its_bounds_on_random_graphs(seed):
    """Fused and plain; 4,500 roundings of what would be if nothing cancelled, as in float64."""
    program = random_program(seed)
    data = np.random.default_rng(seed).uniform(-2, 2, size=(program.inputs, 5))
    for fuse in (True, False):
        compiled = vgrad.compile(program, parameters=program.parameters, fuse=fuse, dtype="float32")
        compiled.verify(compiled.theta(), *data)


def test_nothing_inside_is_computed_in_float64():
    """Not even where a constant or a mask is at work: NumPy would widen it without a word."""
    program = vgrad.compile(
        lambda x, y: (
            (loss(x, y)[0] * 3 + vgrad.relu(x[0] - 0.5) + vgrad.maximum(x[1], 0.2) ** 3)
            / (1 + vgrad.sigmoid(y))
            + vgrad.where(y > 0, x[0] ** 0.5, -2.5)
        ),
        MODEL.parameters(),
        dtype=np.float32,
    )
    program.value_and_grad(program.theta(), abs(X), Y)
    (runner,) = program.runners.values()
    (bound,) = [x for kept in runner.quick._free.values() for x in kept]
    kinds = {
        array.dtype
        for call in [*bound._start, *bound._forward, *bound._backward, *bound._finish]
        for array in (*getattr(call, "args", ()), *getattr(call, "keywords", {}).values())
        if isinstance(array, np.ndarray) and array.dtype.kind == "f"
    }
    assert kinds == {np.dtype(np.float32)}


def test_float32_takes_half_of_the_memory():
    programs = [vgrad.compile(loss, MODEL.parameters(), dtype=d) for d in (np.float64, np.float32)]
    sizes = []
    for program in programs:
        program.value_and_grad(program.theta(), X, Y)
        (runner,) = program.runners.values()
        sizes.append(runner.quick.memory(50))
    assert sizes[1] <= 0.55 * sizes[0]


@pytest.mark.parametrize("dtype", [int, "float16", complex, "nonsense", object, 3])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be np.float64 or np.float32 .got"):
        vgrad.compile(loss, dtype=dtype)
