"""The calls of a compiled program: what they return, what they refuse, and that they are pure."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import pickle
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import central_difference, same_bits, sweep

import vgrad
from vgrad import ShapeError, TraceError, Value, nn, ops

rng = np.random.default_rng(0)
W, V = Value(0.5), Value(-1.5)
MODEL = nn.MLP(2, [5, 1], activation="tanh", rng=random.Random(0))
X, Y = rng.normal(size=(40, 2)), rng.choice([-1.0, 1.0], size=40)


def loss(x, y):
    score = MODEL(x)
    return (score - y) ** 2 + 0.1 * sum(p * p for p in MODEL.parameters()), score


@pytest.fixture
def program():
    return vgrad.compile(loss, parameters=MODEL.parameters())


def test_calls_and_shapes(program):
    theta = program.theta()
    P = len(MODEL.parameters())
    assert theta.shape == (P,) and theta.dtype == np.float64
    objective, score = program(theta, X, Y)
    assert objective.shape == score.shape == (40,)
    value, grad = program.value_and_grad(theta, X, Y)
    assert type(value) is float and grad.shape == (P,)
    (same, outputs), _ = program.value_and_grad(theta, X, Y, aux=True)
    assert same == value and all(same_bits(a, b) for a, b in zip(outputs, (objective, score)))
    by_x, by_y = program.input_grads(theta, X, Y)
    assert by_x.shape == X.shape and by_y.shape == Y.shape
    assert program.per_sample_grads(theta, X, Y).shape == (40, P)


def test_the_mean_and_the_sum(program):
    """Both reductions, of the value and of the gradient, from the unreduced calls.

    A sum of 40 numbers in another order: 40 roundings of 1e-16, relative to the largest.
    """
    theta = program.theta()
    total = vgrad.compile(loss, parameters=MODEL.parameters(), reduce="sum")
    objective, per_sample = program(theta, X, Y)[0], program.per_sample_grads(theta, X, Y)
    for compiled, reduce in ((program, np.mean), (total, np.sum)):
        value, grad = compiled.value_and_grad(theta, X, Y)
        assert value == pytest.approx(reduce(objective), rel=1e-14)
        assert grad == pytest.approx(reduce(per_sample, axis=0), rel=1e-12, abs=1e-13)


def test_gradients_agree_with_central_differences(program):
    """Of the whole loss, to every parameter and to some inputs; tolerances as in test_ops."""
    theta = program.theta()
    grad = program.value_and_grad(theta, X, Y)[1]
    for k in range(len(theta)):
        value = lambda *t: program.value_and_grad(t, X, Y)[0]  # noqa: E731
        assert grad[k] == pytest.approx(
            central_difference(value, theta.tolist(), k, 1e-5), abs=1e-6
        )
    by_x = program.input_grads(theta, X, Y)[0]
    for i, j in ((0, 0), (7, 1), (39, 0)):
        of_x = lambda *x, i=i: program(theta, [x], Y[[i]])[0][0]  # noqa: E731
        assert by_x[i, j] == pytest.approx(
            central_difference(of_x, X[i].tolist(), j, 1e-5), abs=1e-6
        )


def test_calls_are_pure(program):
    """Same bits twice, nothing written to the arguments, the model or the recorded graph."""
    theta, before = program.theta(), [p.data for p in MODEL.parameters()]
    arguments = theta.copy(), X.copy(), Y.copy()
    for array in arguments:
        array.flags.writeable = False
    first = program.value_and_grad(*arguments)
    program(theta + 1, X, Y)
    program.per_sample_grads(theta - 1, X[:3], Y[:3])
    again = program.value_and_grad(*arguments)
    assert first[0] == again[0] and same_bits(first[1], again[1])
    assert [p.data for p in MODEL.parameters()] == before
    assert all(p.grad == 0.0 for p in MODEL.parameters())


def test_theta_and_assign(program):
    theta = program.theta()
    program.assign(theta + 1)
    try:
        assert [p.data for p in MODEL.parameters()] == (theta + 1).tolist()
        assert all(type(p.data) is float for p in MODEL.parameters())
        assert same_bits(program.theta(), theta + 1)
    finally:
        program.assign(theta)


def test_a_function_is_traced_once_for_each_shape():
    calls = []

    def f(x):
        calls.append(np.shape(x))
        return np.sum(x) * 2

    program = vgrad.compile(f)
    for array in (
        np.ones(3),
        np.zeros(8),
        np.ones((3, 2)),
        np.ones((1, 2)),
        [[1, 2]],
        np.ones((2, 2, 2)),
    ):
        want = 2 * np.reshape(array, (len(array), -1)).sum(axis=1)
        assert program([], array).tolist() == want.tolist()
    assert calls == [(), (2,), (2, 2)]


@pytest.mark.parametrize("fuse", [False, True])
def test_results_do_not_depend_on_the_tile(fuse):
    """At batch 1, tile - 1, tile, tile + 1 and more tiles than a shard has.

    To the bit without fusion, save for sums over the batch, where 333 roundings of 1e-16 come to
    4e-14 at worst. BLAS may add up in another order where a matrix has another width, which is
    1e-16 for each of at most 21 terms, and these are of size 1 to 10.
    """
    tight = dict(rel=1e-14, abs=0) if not fuse else dict(rel=1e-12, abs=1e-13)
    whole = vgrad.compile(loss, MODEL.parameters(), fuse=fuse, tile=10_000)
    theta, big = whole.theta(), rng.normal(size=(333, 2))
    for batch, tile in (
        (1, 16),
        (15, 16),
        (16, 16),
        (17, 16),
        (333, 1),
        (333, 7),
        (333, 16),
        (333, 332),
    ):
        tiled = vgrad.compile(loss, MODEL.parameters(), fuse=fuse, tile=tile)
        data, targets = big[:batch], np.ones(batch)
        for call in ("__call__", "per_sample_grads", "input_grads"):
            got, want = (getattr(p, call)(theta, data, targets) for p in (tiled, whole))
            for a, b in zip(got, want):
                assert same_bits(a, b) if not fuse else a == pytest.approx(b, **tight)
        assert str(tiled.value_and_grad(theta, data, targets)[1]) == str(
            tiled.value_and_grad(theta, data, targets, aux=True)[1]
        )
        value, grad = tiled.value_and_grad(theta, data, targets)
        assert value == pytest.approx(whole.value_and_grad(theta, data, targets)[0], rel=1e-13)
        want = whole.value_and_grad(theta, data, targets)[1]
        assert grad == pytest.approx(want, rel=1e-12, abs=1e-14)


def test_memory_does_not_grow_with_the_batch(program):
    """Beyond its arrays, a call at 400,000 samples takes what one at 200,000 takes."""
    import tracemalloc

    theta = program.theta()

    def peak(batch):
        data, targets = np.zeros((batch, 2)), np.zeros(batch)
        tracemalloc.start()
        program.value_and_grad(theta, data, targets)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(200_000)  # records, and binds a first tile
    before = peak(100_000)
    assert peak(400_000) < 1.2 * before + 10_000


def test_shared_nodes_are_computed_once_not_once_per_sample():
    """What no input reaches has one column, whatever the batch; the op's rule is called on that."""
    sizes = []

    def spy(x):
        if not isinstance(x, Value):
            sizes.append(np.size(x))
        return x * x

    square = ops.Op("spy", "spy", spy, vjp=(lambda g, out, x: 2 * g * x,))
    try:
        w = Value(3.0)
        program = vgrad.compile(lambda x: x * square(w) + square(x), parameters=[w])
        program.theta(np.arange(50.0))
        sizes.clear()
        assert program([3.0], np.arange(50.0))[2] == 22.0
        assert sorted(sizes) == [1, 50]
        value, grad = program.value_and_grad([3.0], np.arange(4.0))
        assert (value, grad.tolist()) == (17.0, [9.0])
    finally:
        ops.OPS.remove(square)


def test_outputs_come_back_in_the_form_they_were_returned():
    w = Value(2.0)

    def f(x):
        return x[0], [x[1] * 2, (w,)], np.array([[x[0], x[1]], [w, x[0] + x[1]]])

    data = np.arange(6.0).reshape(3, 2)
    a, (b, (c,)), d = vgrad.compile(f)([5.0], data)
    assert a.tolist() == [0, 2, 4] and b.tolist() == [2, 6, 10] and c.tolist() == [5, 5, 5]
    assert d.shape == (3, 2, 2) and d[2].tolist() == [[4, 5], [5, 9]]
    a += 1  # results are the caller's own
    assert vgrad.compile(lambda x: x)([], data[:, 0]).tolist() == [0, 2, 4]


@pytest.mark.parametrize("fuse", [False, True])
def test_an_objective_that_is_shared_or_a_leaf(fuse):
    w = Value(3.0)
    program = vgrad.compile(lambda x: (w * w, x), fuse=fuse)
    assert program.value_and_grad([3.0], np.ones(5)) == (9.0, pytest.approx([6.0]))
    assert program.per_sample_grads([3.0], np.ones(5)).tolist() == [[6.0]] * 5
    assert program.input_grads([3.0], np.ones(5))[0].tolist() == [0.0] * 5
    total = vgrad.compile(lambda x: w, reduce="sum", fuse=fuse)
    assert total.value_and_grad([3.0], np.ones(5)) == (15.0, pytest.approx([5.0]))
    identity = vgrad.compile(lambda x: x, fuse=fuse)
    assert identity.input_grads([], np.ones(2))[0].tolist() == [1.0, 1.0]
    value, grad = identity.value_and_grad([], [1.0, 3.0])
    assert value == 2.0 and grad.shape == (0,)


def test_parameters_found_by_the_first_trace():
    a, b, frozen = Value(2.0), Value(3.0), Value(5.0, trainable=False)
    program = vgrad.compile(lambda x: np.sum(b * x + a * frozen))
    with pytest.raises(ValueError, match="parameters must be known"):
        program.theta()
    assert program.theta([1.0]).tolist() == program.theta().tolist() == [3.0, 2.0]
    _, grad = program.value_and_grad([3.0, 2.0], [1.0, 2.0])
    assert grad.tolist() == [1.5, 5.0]
    program.assign([7.0, 8.0])
    assert (b.data, a.data) == (7.0, 8.0)


def test_parameters_found_later_are_refused():
    a, b = Value(2.0), Value(3.0)
    program = vgrad.compile(lambda x: a * x if np.shape(x) == () else (a * b * x).sum())
    assert program([2.0], [1.0]).tolist() == [2.0]
    with pytest.raises(
        TraceError, match="no other parameters than in its first call .got Value.data=3.0"
    ):
        program([2.0], [[1.0]])
    assert program([2.0], [1.0]).tolist() == [2.0]


def test_a_dead_parameter_does_not_matter_later_either():
    a, b = Value(2.0), Value(3.0)

    def f(x):
        total = np.sum(x)
        _ = b * total
        return a * total

    program = vgrad.compile(f)
    assert program([2.0], [1.0]).tolist() == [2.0]
    assert program([2.0], [[1.0, 1.0]]).tolist() == [4.0]


def test_a_value_created_inside_the_function_is_found_out():
    program = vgrad.compile(
        lambda x: Value(1.0) * x if np.shape(x) == () else (Value(1.0) * x).sum()
    )
    program([1.0], [1.0])
    with pytest.raises(
        TraceError, match="plain number for a Value that the function itself creates"
    ):
        program([1.0], [[1.0]])


# --- graphs as programs --------------------------------------------------------------------------


def test_a_captured_training_loss_replays():
    """The whole loss of a batch built from Values, captured once, trains as a rebuilt one does."""
    model = nn.MLP(2, [3, 1], rng=random.Random(3))

    def total():
        errors = [(model(x) - y) ** 2 for x, y in zip(X[:10].tolist(), Y[:10].tolist())]
        return sum(errors) * 0.1

    program = vgrad.compile(vgrad.capture(total(), parameters=model.parameters()))
    theta = program.theta()
    for _ in range(5):
        value, grad = program.value_and_grad(theta)
        program.assign(theta)
        model.zero_grad()
        root = total()
        root.backward()
        # ten squares, all positive: 100 roundings of 1e-16 at most
        assert value == pytest.approx(root.data, rel=1e-13)
        # the same sums in another order; see test_parity
        assert grad == pytest.approx([p.grad for p in model.parameters()], rel=1e-12, abs=1e-14)
        theta -= 0.1 * grad


def test_a_captured_graph_with_inputs_runs_over_a_batch():
    x, y, w = Value(1.0), Value(2.0), Value(3.0)
    program = vgrad.compile(vgrad.capture(w * x - y, inputs=(x, y)))
    assert program([2.0], [1.0, 2.0], [5.0, 6.0]).tolist() == [-3.0, -2.0]
    pair = np.array([x, y])
    program = vgrad.compile(vgrad.capture(w * x - y, w, inputs=(pair,)))
    assert program([2.0], [[1.0, 5.0], [2.0, 6.0]])[0].tolist() == [-3.0, -2.0]
    with pytest.raises(ShapeError, match="the graph's per-sample shapes"):
        program([2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="left out for a graph"):
        vgrad.compile(vgrad.capture(w * x), parameters=[w])


def test_a_graph_without_values_still_has_a_theta():
    import dataclasses

    w = Value(3.0)
    graph = dataclasses.replace(vgrad.capture(w * w), leaves=())
    program = vgrad.compile(graph)
    assert program.theta().tolist() == [3.0]
    program.theta()[0] = 7.0
    assert program.value_and_grad(program.theta()) == (9.0, pytest.approx([6.0]))
    with pytest.raises(ValueError, match="must have Values to assign to"):
        program.assign([1.0])


# --- what is refused -----------------------------------------------------------------------------

BAD_ARRAYS = [
    (([[1, 2], [3]], [1, 2]), ShapeError, "array 0 must be an array, its rows of one length"),
    ((["a", "b"], [1, 2]), TypeError, "array 0 must hold real numbers .got an array of <U1"),
    (
        (np.ones((3, 2)), [None] * 3),
        TypeError,
        "array 1 must hold real numbers .got an array of object",
    ),
    ((np.ones((3, 2)), np.ones(3) * 1j), TypeError, "array of complex128"),
    ((np.ones((3, 2)), np.ones(4)), ShapeError, "one batch size, their first axis .got 3, 4"),
    ((np.ones((0, 2)), np.ones(0)), ShapeError, "at least one sample .got none"),
    ((np.ones((3, 4)), np.ones(3)), ShapeError, r"takes 2 numbers .got 4."),
    (
        (np.ones((3, 2)),),
        TypeError,
        r"of loss\(x, y\) .got 1 after theta: missing .* 'y'.; was theta left out",
    ),
    (
        (np.ones((3, 2)), np.ones(3), np.ones(3)),
        TypeError,
        "got 3 after theta: too many positional arguments.$",
    ),
]


@pytest.mark.parametrize("arrays, kind, message", BAD_ARRAYS)
def test_bad_arrays_are_refused_and_nothing_changes(program, arrays, kind, message):
    theta = program.theta()
    want = program.value_and_grad(theta, X, Y)
    for call in (program, program.value_and_grad, program.input_grads, program.per_sample_grads):
        with pytest.raises(kind, match=message):
            call(theta, *arrays)
    got = program.value_and_grad(theta, X, Y)
    assert got[0] == want[0] and same_bits(got[1], want[1]) and len(program.runners) == 1


@pytest.mark.parametrize(
    "theta, kind, message",
    [
        (
            [1.0],
            ShapeError,
            r"theta must have shape \(21,\), one number per parameter \(got \(1,\)\)",
        ),
        (np.ones((21, 1)), ShapeError, r"got \(21, 1\)"),
        (1.0, ShapeError, r"got \(\)"),
        (["x"] * 21, TypeError, "theta must hold real numbers"),
        ([1.0, [2.0]], ShapeError, "theta must be an array, its rows of one length"),
        (None, TypeError, "theta must hold real numbers"),
    ],
)
def test_a_bad_theta_is_refused_and_nothing_changes(program, theta, kind, message):
    before = program.theta()
    for call in (lambda: program(theta, X, Y), lambda: program.assign(theta)):
        with pytest.raises(kind, match=message):
            call()
    assert same_bits(program.theta(), before)


def test_an_objective_that_is_an_array_is_refused_with_the_usual_cause():
    program = vgrad.compile(lambda x, y: (x - y) ** 2)
    column = np.ones((4, 1))
    assert program([], np.ones((4, 1)), column).shape == (4, 1)
    for call in (program.value_and_grad, program.input_grads, program.per_sample_grads):
        with pytest.raises(
            ShapeError, match=r"one number per sample \(got shape \(1,\)\).*pass \(B,\)"
        ):
            call([], column, column)


def test_compile_refuses_what_it_cannot_compile():
    for bad, kind, message in (
        (3.0, TypeError, "takes a function or a Graph .got 3.0, a float"),
        (Value(1.0), TypeError, "takes a function or a Graph"),
    ):
        with pytest.raises(kind, match=message):
            vgrad.compile(bad)
    with pytest.raises(ValueError, match="reduce must be .* .got 'max'"):
        vgrad.compile(loss, reduce="max")


def test_an_interrupted_or_failing_trace_leaves_the_program_usable(program):
    fail = [True]

    def f(x):
        if fail:
            raise KeyboardInterrupt
        return x * 2

    compiled = vgrad.compile(f)
    with pytest.raises(KeyboardInterrupt):
        compiled([], [1.0])
    fail.clear()
    assert compiled([], [1.0]).tolist() == [2.0]


def test_infinities_in_the_data_do_not_warn():
    program = vgrad.compile(lambda x: vgrad.log(x) * vgrad.exp(x), parameters=[])
    data = [0.0, -1.0, 1e5, math.inf, -math.inf, math.nan]
    assert np.isnan(program([], data)).tolist() == [False, True, False, False, True, True]
    program.value_and_grad([], data)
    program.input_grads([], data)


def test_it_fits_scipys_minimize():
    """The shape of the call, without SciPy: f(theta, *args) -> (float, gradient)."""
    w, b = Value(0.0), Value(0.0)
    program = vgrad.compile(lambda x, y: (w * x + b - y) ** 2, parameters=[w, b])
    x = np.linspace(-1, 1, 20)
    theta = program.theta()
    for _ in range(300):
        value, grad = program.value_and_grad(theta, *(x, 3 * x + 1))
        theta = theta - 0.5 * grad
    # the slope's error shrinks by 1 - 0.5 * 2 * mean(x**2), about 0.63, a step
    assert value < 1e-20 and theta == pytest.approx([3.0, 1.0], abs=1e-10)


def test_a_program_that_is_copied_stays_bound_to_its_values():
    w = Value(2.0)
    program = vgrad.compile(lambda x: w * x, parameters=[w])
    twin = copy.deepcopy(program)
    assert twin.value_and_grad([3.0], [1.0, 3.0]) == (6.0, pytest.approx([2.0]))


def test_parameters_that_are_no_longer_used_are_an_error():
    """A parameter replaced after compile would otherwise have gradient 0 in silence."""
    neuron = nn.Neuron(1)
    program = vgrad.compile(neuron, parameters=neuron.parameters())
    neuron.w, neuron.b = [Value(0.0)], Value(0.0)
    with pytest.raises(
        TraceError, match="what Neuron returns must use one of the parameters given"
    ):
        program.value_and_grad([0.0, 0.0], [[1.0]])
    assert vgrad.compile(neuron, parameters=[])([], [[1.0]]).tolist() == [0.0]
    assert vgrad.compile(lambda x: (W, x * V), parameters=[W])([2.0], [1.0])[0].tolist() == [2.0]


def test_first_calls_from_several_threads_agree_on_the_parameters():
    """Whichever shape is recorded first decides; none is recorded with another's order."""
    a, b = Value(1.0, "a"), Value(10.0, "b")
    meeting = threading.Barrier(2, timeout=0.2)

    def f(x):
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait()  # both threads in here at once, if they can be
        return (x * b + a) if np.shape(x) == () else (x * a).sum() + b

    program = vgrad.compile(f)
    with ThreadPoolExecutor(2) as pool:
        thetas = list(pool.map(program.theta, [[1.0], [[1.0]]]))
    assert thetas[0].tolist() == thetas[1].tolist() == program.theta().tolist()
    theta = program.theta()
    assert program(theta, [2.0]).tolist() == [21.0] and program(theta, [[2.0]]).tolist() == [12.0]


@pytest.mark.parametrize("place", ["theta", "array"])
def test_a_program_of_values_or_of_what_is_traced_says_what_to_write(place):
    """In another function or by itself: the gradient would be lost, so it takes no such numbers."""
    inner = vgrad.compile(lambda x: W * x, parameters=[W])
    inner([0.5], [1.0])
    arguments = {"theta": lambda x: ([x], [1.0]), "array": lambda x: ([0.5], [x, 1.0])}[place]
    calls = [inner, inner.value_and_grad, inner.input_grads, inner.per_sample_grads]
    for call, name in itertools.product(calls, ("Node", "Value")):
        wanted = (
            f"{place}.* must hold plain numbers .got a {name}.*call the function that was compiled"
        )
        with pytest.raises(TypeError, match=wanted):
            if name == "Value":
                call(*arguments(V))
            else:
                vgrad.compile(lambda x, call=call: call(*arguments(x)))([], [1.0])
    with pytest.raises(TypeError, match="got a Value.*; where"):
        inner.theta(V)
    with pytest.raises(TypeError, match="v must hold plain numbers .got a Value"):
        inner.hessian_vector_product([0.5], [V], [1.0])
    assert vgrad.compile(lambda x: x * inner([0.5], [4.0])[0])([], [1.0]).tolist() == [2.0]


class Recording:
    """A name of a node: whoever reads it makes another thread record a new shape meanwhile."""

    def __init__(self, program):
        self.program, self.sizes = program, itertools.count(1)

    def __str__(self):
        data = np.ones((1, next(self.sizes)))
        thread = threading.Thread(target=self.program, args=([2.0], data))
        thread.start()
        thread.join(10)
        assert not thread.is_alive() and data.shape[1:] in sum(self.program.runners, ())
        return "name"

    def __reduce__(self):
        return str, (str(self),)


def test_saving_and_pickling_while_another_thread_records(tmp_path):
    """They take what was recorded when they began, whatever is added in the middle."""

    def f(x):
        result = np.sum(x) * w
        if np.shape(x) == ():
            result.label = Recording(program)
        return result

    w = Value(2.0)
    program = vgrad.compile(f)
    path = tmp_path / "program.npz"
    assert program.theta([1.0]).tolist() == [2.0]
    program.save(path)
    assert [*vgrad.Program.load(path).runners] == [((),)]
    assert [*pickle.loads(pickle.dumps(program)).runners] == [((),), ((1,),)]
    assert [*program.runners] == [((),), ((1,),), ((2,),)]


def mixed(x, y):
    """A loss that takes one point, or an array of points with one y."""
    points = x if np.ndim(x) == 2 else [x]
    score = sum(MODEL(point) for point in points)
    # a guard that needs the careful sweep where x is not positive
    guard = sum(vgrad.where(point[0] > 0, vgrad.log(point[0]), 0.0) for point in points)
    return (score - y) ** 2 + 0.1 * guard * MODEL.parameters()[0], score


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("trial", sweep(5, 1))
def test_eight_threads_on_one_program(trial, fuse):
    """Every call on two shapes, several widths and thetas, by eight threads that start at once: the
    first calls of all trace together, and each result is that of a program of its own, to the bit.
    """
    theta = vgrad.compile(mixed, MODEL.parameters()).theta()
    arrays = [(X[:n], Y[:n]) for n in (1, 5, 16, 40)] + [(X[:18].reshape(6, 3, 2), Y[:6])]
    names = ("__call__", "value_and_grad", "input_grads", "per_sample_grads")
    calls = [(name, theta + i, data) for i in range(2) for name in names for data in arrays]
    options = {"parameters": MODEL.parameters(), "fuse": fuse, "tile": 16}

    def run(program, call):
        name, theta, data = call
        result = getattr(program, name)(theta, *data)
        return [*result] if isinstance(result, tuple) else [result]

    want = [run(vgrad.compile(mixed, **options), call) for call in calls]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that threads take turns within a call
    try:
        program = vgrad.compile(mixed, **options)
        meeting = threading.Barrier(8)

        def work(k):
            order = np.random.default_rng([trial, k]).permutation(len(calls))
            meeting.wait()
            return [(i, run(program, calls[i])) for i in order]

        with ThreadPoolExecutor(8) as pool:
            for i, result in itertools.chain(*pool.map(work, range(8))):
                pairs = zip(result, want[i], strict=True)
                assert all(same_bits(a, b) for a, b in pairs), calls[i][0]
        assert len(program.runners) == 2
    finally:
        sys.setswitchinterval(before)


def test_a_shared_gradient_of_zero_stays_zero_over_many_tiles():
    """The tiles' gradients are added up before they meet an infinite derivative, not after."""
    w = Value(0.0)
    program = vgrad.compile(lambda x: x * vgrad.sqrt(w), parameters=[w], tile=16)
    assert program.value_and_grad([0.0], np.repeat([1.0, -1.0], 64))[1].tolist() == [0.0]


def test_unusual_arrays():
    w = Value(2.0)
    program = vgrad.compile(lambda x, y: y * w + sum(x), parameters=[w])
    empty, by_y = program.input_grads([2.0], np.zeros((2, 0)), [1.0, 2.0])
    assert empty.shape == (2, 0) and by_y.tolist() == [2.0, 2.0]
    twice = vgrad.compile(lambda x: x * w, parameters=[w])
    assert twice([2.0], [10**30, 1]).tolist() == [2e30, 2.0]
    assert twice([2.0], np.array([True, False])).tolist() == [2.0, 0.0]
    big = np.arange(12.0).reshape(3, 4)
    for view in (big.T[::2, 1], big[::-1, 0], np.asfortranarray(big)[:, 1]):
        assert twice([2.0], view).tolist() == (2 * view).tolist()
    with pytest.raises(TypeError, match="without a mask"):
        twice([2.0], np.ma.array([1.0, 99.0], mask=[0, 1]))


def test_the_mean_of_ones_is_one_and_does_not_overflow():
    identity = vgrad.compile(lambda x: x)
    assert identity.value_and_grad([], np.ones(49))[0] == 1.0
    assert identity.value_and_grad([], np.full(49, 1e308))[0] == pytest.approx(1e308, rel=1e-14)
