"""Deep programs: recurrences on floats, turn by turn on arrays, and by every other sweep.

A rolled plan is the same graph in another order, so all bounds are those of `verify`: what the
scalar engine gives, to 1e-12 of the size of what a number is made of. Each program is checked
against central differences too, as every sweep reads the same rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from helpers import COMPUTED, EDGES, central_difference, half, long, random_program, same_bits
from test_parity import batch_of, check_parity

import vgrad
from vgrad import Value
from vgrad.compiler import RolledPlan
from vgrad.compiler.turns import RolledBound
from vgrad.flat import in_pieces, in_turns, origins, program_order
from vgrad.floats import FloatSweep

STEPS, SAMPLES = 70, 60  # more samples than run on floats
W = [Value(x) for x in (0.8, -0.3, 0.55, 0.2)]
rng = np.random.default_rng(17)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    """So that short programs have many pieces, and borders everywhere."""
    monkeypatch.setattr("vgrad.flat.pieces.WEIGHT", 12)
    monkeypatch.setattr("vgrad.flat.pieces.NODES", 50)


def runner_of(program: vgrad.Program) -> Any:
    ((runner,),) = [paths.runners for paths in program.paths.values()]
    return runner


# --- programs ------------------------------------------------------------------------------------


def plain(x: Any) -> Any:
    """A recurrence, as people write it."""
    h = x[0]
    for t in range(STEPS):
        h = vgrad.tanh(W[0] * h + W[1] * x[t]) + W[2] * h * x[t]
    return h * h


def one_constant(x: Any) -> Any:
    """Steps that differ in a constant: one of them, or all."""
    h = x[0]
    for t in range(STEPS):
        h = vgrad.sin(W[0] * h + (2.0 if t == 31 else 0.5)) * (1 + 0.01 * t) + x[t]
    return h


def other_ends(x: Any) -> Any:
    """A first and a last step of another shape."""
    h = vgrad.exp(-x[0] * x[0]) / (W[0] * W[0] + 1)
    for t in range(1, STEPS):
        h = vgrad.tanh(W[1] * h + x[t]) / (1 + h * h)
    return vgrad.log(1 + h * h) - vgrad.sqrt(2 + h)


def one_step_apart(x: Any) -> Any:
    """One step in the middle that does something else."""
    h = x[0]
    for t in range(STEPS):
        h = vgrad.maximum(h, x[t]) * W[0] if t == 40 else vgrad.tanh(W[1] * h * x[t]) + W[2]
    return h


def interleaved(x: Any) -> Any:
    """Two recurrences, of which one takes two steps where the other takes one."""
    a, b = x[0], x[1]
    for t in range(STEPS // 2):
        a = vgrad.tanh(a + W[0] * x[t])
        b = vgrad.cos(b * W[1] + a)
        a = vgrad.sin(a * W[2] + b * 0.1)
    return a * b


def side_by_side(x: Any) -> Any:
    """Two recurrences, one after the other in the text, of which one reads all of the other."""
    states = [x[0]]
    for t in range(STEPS):
        states.append(vgrad.tanh(W[0] * states[-1] + x[t]))
    total = 0.0
    for t in range(STEPS):
        total = vgrad.sqrt(1 + total * total) * W[1] + states[t] * states[-1 - t]
    return total


def one_inside_another(x: Any) -> Any:
    """A fixed-point iteration in every step."""
    h = x[0]
    for t in range(STEPS // 3):
        y = h
        for _ in range(4):
            y = W[0] * vgrad.cos(y) + 0.3 * h
        h = vgrad.tanh(y + x[t])
    return h + y


def two_back(x: Any) -> Any:
    """A step reads the one before the last, and the first state."""
    old, new = x[0], x[1]
    first = vgrad.exp(0.1 * x[2])
    for t in range(STEPS):
        old, new = new, vgrad.tanh(W[0] * new + W[1] * old * first) + 0.1 * x[t]
    return new - old


def several_states(x: Any) -> Any:
    """Five states that mix; every tenth step's state is an output."""
    h, seen = [x[k] for k in range(5)], []
    for t in range(STEPS):
        h = [vgrad.tanh(W[k % 4] * h[k] + 0.2 * h[k - 1] + x[t]) for k in range(5)]
        if t % 10 == 0:
            seen.append(h[t % 5])
    return (sum(h), *seen)


def shared(x: Any) -> Any:
    """Gains that no input reaches, as of a Kalman filter, beside states that read them."""
    p, m, total = W[3] * W[3] + 1, x[0], 0.0
    for t in range(STEPS):
        gain = p / (p + W[0] * W[0])
        p = p * (1 - gain) + W[2] * W[2]
        m = m + gain * (x[t] - m)
        total = total + (x[t] - m) ** 2 / (p + 1)
    return total


def accumulating(x: Any) -> Any:
    """A likelihood, which adds up beside the state."""
    h, total = 1.0, 0.0
    for t in range(STEPS):
        total = total + vgrad.log(h) + x[t] * x[t] / h
        h = 0.1 + W[3] * W[3] * x[t] * x[t] + W[2] * W[2] * h
    return total


def layers(x: Any) -> Any:
    """A deep network with other weights in every layer."""
    h = list(x[:6])
    for k in range(STEPS):
        h = [vgrad.tanh(sum(w * v for w, v in zip(row, h))) + 0.1 * h[0] for row in DEEP[k]]
    return sum(h)


def masked(x: Any) -> Any:
    """Where and comparisons in every step; maxima, and what has no function in Python's math."""
    h = x[0]
    for t in range(STEPS):
        up = vgrad.where(h > x[t], h * W[0], vgrad.erf(h) - x[t])
        h = vgrad.maximum(up, -1.5) + 0.1 * vgrad.relu(h) * vgrad.floor(2 * x[t])
    return h


DEEP = [[[Value(x) for x in row] for row in layer] for layer in rng.normal(size=(STEPS, 6, 6)) / 2]
PROGRAMS = [
    plain, one_constant, other_ends, one_step_apart, interleaved, side_by_side, one_inside_another,
    two_back, several_states, shared, accumulating, layers, masked,
]  # fmt: skip
named = pytest.mark.parametrize("fn", half(PROGRAMS), ids=lambda fn: fn.__name__)


def parameters_of(fn: Callable[..., Any]) -> list[Value]:
    return [x for layer in DEEP for row in layer for x in row] if fn is layers else W


def compiled(fn: Callable[..., Any], **options: Any) -> tuple[vgrad.Program, np.ndarray, Any]:
    program = vgrad.compile(fn, parameters=parameters_of(fn), **options)
    data = np.random.default_rng(3).uniform(-1, 1, size=(SAMPLES, STEPS))
    return program, program.theta(), data


# --- all sweeps ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kept", [0, pytest.param(1 << 30, marks=long)], ids=["computed again", "kept"]
)
@named
def test_on_arrays_turn_by_turn(fn, kept, monkeypatch):
    monkeypatch.setattr("vgrad.compiler.turns.KEPT_BYTES", kept)
    monkeypatch.setattr("vgrad.program.runner.few", lambda graph: 0)
    program, theta, data = compiled(fn)
    program.verify(theta, data, samples=2)
    runner = runner_of(program)
    assert isinstance(runner.plan, RolledPlan) and "floats" not in vars(runner)
    assert len(runner.plan.turns) < len(runner.plan.order) / 2


@named
def test_on_floats(fn, monkeypatch):
    """All calls, and nothing is planned for arrays."""
    monkeypatch.setattr("vgrad.program.runner.few", lambda graph: 10)
    program, theta, data = compiled(fn)
    program(theta, data[:2])
    runner = runner_of(program)
    program.verify(theta, data[:2])
    program.value_and_grad(theta, data[:2], aux=True)
    for one in (runner, runner.per_sample):
        assert not {"plan", "quick", "careful", "plain"} & vars(one).keys()


@pytest.mark.parametrize("fn", half(PROGRAMS), ids=lambda fn: fn.__name__)
def test_all_sweeps_agree(fn):
    """At one sample, few, one more than few, at the edges of tiles and in float32.

    To 1e-10 of the largest number, as errors grow along a chain; to 1e-3 in float32.
    """
    program, theta, data = compiled(fn)
    exact = compiled(fn, fuse=False)[0]
    program(theta, data)
    few = runner_of(program).few
    tiled = compiled(fn, tile=16)[0]
    single = compiled(fn, dtype=np.float32)[0]
    for batch in (1, few, few + 1, 17, SAMPLES):
        some = data[: max(1, batch)]
        want = results(exact, theta, some)
        others = [(program, 1e-10), (tiled, 1e-10)] + [(single, 1e-3)] * (batch == 17)
        for other, bound in others:
            for got, number in zip(results(other, theta, some), want):
                assert abs(got - number).max() <= bound * max(1, abs(number).max())


def results(program: vgrad.Program, theta: np.ndarray, data: np.ndarray) -> list[np.ndarray]:
    """What every call gives."""
    outputs = program(theta, data)
    (value, again), gradient = program.value_and_grad(theta, data, aux=True)
    found = [*np.atleast_2d(outputs), *np.atleast_2d(again), np.array(value), gradient]
    return [*found, program.input_grads(theta, data)[0], program.per_sample_grads(theta, data)]


@named
def test_against_central_differences(fn):
    """Of four leaves; 1e-6 of the gradient's size, which differences of step 1e-5 reach."""
    program, theta, data = compiled(fn)
    for batch in (SAMPLES, 1):

        def loss(*numbers, some=data[:batch]):
            return program.value_and_grad(np.array(numbers), some)[0]

        _, gradient = program.value_and_grad(theta, data[:batch])
        for k in random.Random(1).sample(range(len(theta)), 4):
            number = central_difference(loss, theta.tolist(), k, 1e-5)
            assert number == pytest.approx(gradient[k], rel=1e-6, abs=1e-6 * abs(gradient).max())


def test_samples_that_are_not_finite_are_computed_another_way():
    """In a deep program: the root's derivative at 0 is inf, and 0 times inf is to be 0."""

    def fn(x):
        h = x[0]
        for t in range(STEPS):
            h = vgrad.where(x[t] > 0, vgrad.sqrt(x[t]) * W[0], h) + W[1] * vgrad.tanh(h)
        return h

    program, theta, data = compiled(fn)
    data = np.tile(data, (20, 1))
    data[5, 7] = data[1100, :3] = 0.0
    exact = compiled(fn, fuse=False)[0]
    for got, want in zip(results(program, theta, data), results(exact, theta, data)):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def test_a_constant_that_is_not_finite_is_no_parameter():
    """where(c, w, 0) may be c * w of a parameter that is finite; nan would hide in a comparison."""

    def fn(x):
        h = x[0]
        for t in range(STEPS):
            y = vgrad.where(x[t] > 0, np.inf if t % 9 == 4 else 0.2 + t, 0.0) + W[0] * x[1]
            h = vgrad.tanh(W[1] * h + x[t] * vgrad.where(y < 1.0, 0.3, 0.01 * t) + 0.1)
        return h

    program, theta, data = compiled(fn)
    for got, want in zip(
        results(program, theta, data), results(compiled(fn, fuse=False)[0], theta, data)
    ):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("fn", half(PROGRAMS), ids=lambda fn: fn.__name__)
def test_results_do_not_depend_on_what_ran_before(fn):
    """Buffers are used again by all pieces, calls and sizes."""
    program, theta, data = compiled(fn)
    first = [results(program, theta, data[:n]) for n in (SAMPLES, 30, 3)]
    program.value_and_grad(2 * theta, data[::-1].copy())
    for n, want in zip((SAMPLES, 30, 3), first):
        assert all(same_bits(x, y) for x, y in zip(results(program, theta, data[:n]), want))


# --- pieces --------------------------------------------------------------------------------------


@named
def test_pieces_have_every_node_once_and_run_in_order(fn):
    graph = vgrad.trace(fn, (STEPS,), parameters=parameters_of(fn))
    order = program_order(graph)
    batched = order[origins(graph)[order] & 1 > 0]
    turns = in_turns(graph, batched, origins(graph), np.ones(len(graph)))
    for pieces, nodes_in_order in ((in_pieces(graph, order), order), (turns, batched)):
        nodes = [pieces.forms[k].nodes[piece] for k, piece in pieces.running_order()]
        assert np.array_equal(np.concatenate(nodes), nodes_in_order)
        done = ~np.isin(np.arange(len(graph)), nodes_in_order)
        for k, piece in pieces.running_order():
            form = pieces.forms[k]
            assert done[form.outside[piece]].all()
            done[form.nodes[piece]] = True
            left = form.nodes[piece][form.leaving]
            assert np.isin(left, pieces.leaving).all()
        inside = graph.outputs[np.isin(graph.outputs, nodes_in_order)]
        assert np.isin(inside, pieces.leaving).all()


def test_a_period_is_found_wherever_it_begins():
    """Of a loop 300 times over, between two stretches of random ops."""
    before, after = (rng.integers(3, 20, n) for n in (777, 1234))
    symbols = np.concatenate([before, np.tile(rng.integers(3, 20, 37), 300), after])
    stretches = vgrad.flat.repeats.cut(
        symbols, np.ones(len(symbols)), np.ones(len(symbols) + 1, int), 256, 512
    )
    covered = np.zeros(len(symbols), int)
    for stretch in stretches:
        for start in stretch.starts.tolist():
            covered[start : start + stretch.size] += 1
    assert (covered == 1).all()
    longest = max(stretches, key=lambda x: x.repeats * x.size)
    assert longest.size % 37 == 0 and longest.repeats * longest.size > 0.9 * 37 * 300


# --- floats --------------------------------------------------------------------------------------


@pytest.fixture
def floats_first(monkeypatch):
    """Every graph runs on floats first, however small; returns the calls that did."""
    asked: list[str] = []
    monkeypatch.setattr("vgrad.program.runner.few", lambda graph: 10**9)
    for method in ("outputs", "gradient", "input_gradients"):
        right = getattr(FloatSweep, method)

        def noted(*args, method=method, right=right):
            asked.append(method)
            return right(*args)

        monkeypatch.setattr(FloatSweep, method, noted)
    return asked


@pytest.mark.parametrize("seed", half(range(40)))
def test_random_graphs(seed, floats_first):
    program = random_program(seed)
    check_parity(program, batch_of(program, seed, 3, edges=False), f"seed {seed}", fuse=True)
    assert {"outputs", "gradient", "input_gradients"} <= {*floats_first}


@pytest.mark.parametrize("seed", half(range(1000, 1040)))
def test_random_graphs_at_the_edges(seed, floats_first):
    """Zeros, infinities, nan, subnormals: what Python refuses another sweep computes."""
    program = random_program(seed, edges=True)
    check_parity(program, batch_of(program, seed, 3, edges=True), f"seed {seed}", fuse=True)
    assert floats_first


@pytest.mark.parametrize("op", COMPUTED, ids=lambda op: op.name)
def test_every_op_at_every_edge(op, floats_first):
    """Values to an ulp of the scalar engine's where its own function is Python's, else its bits."""
    grid = np.stack(np.meshgrid(*[EDGES] * op.arity), axis=-1).reshape(-1, op.arity)[:: op.arity**2]
    program = vgrad.compile(lambda x: op(*x), parameters=[])
    got = np.concatenate([program([], row[None]) for row in grid])
    want = np.array([op(*map(Value, row)).data for row in grid.tolist()])
    np.testing.assert_allclose(got, want, rtol=4.5e-16, atol=0)
    assert floats_first


ERRORS = {
    "1 / 0": (lambda x: 1 / x, [0.0, 2.0]),
    "log of 0": (vgrad.log, [0.0, -1.0, 2.0]),
    "exp overflows": (vgrad.exp, [800.0, 1.0]),
    "a branch that is not taken": (lambda x: vgrad.where(x > 0, vgrad.log(x), -x), [-1.0, 2.0]),
    "a root at 0": (lambda x: vgrad.sqrt(x * x), [0.0, 3.0]),
    "sin of inf": (lambda x: vgrad.where(x < 9, vgrad.sin(x), 1.0), [np.inf, 1.0]),
    "a power": (lambda x: x**-1.5, [0.0, -2.0, 4.0]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_where_python_raises_numbers_are_ieees(name, floats_first):
    """The sample alone goes on to another sweep; the others keep what floats gave."""
    fn, numbers = ERRORS[name]
    program = vgrad.compile(fn, parameters=[])
    leaves = [Value(x) for x in numbers]
    for leaf in leaves:
        fn(leaf).backward()
    want = [fn(Value(x)).data for x in numbers]
    np.testing.assert_allclose(program([], numbers), want, rtol=4.5e-16)
    gradient = program.input_grads([], numbers)[0]
    np.testing.assert_allclose(gradient, [leaf.grad for leaf in leaves], rtol=1e-15)
    assert floats_first


def test_a_question_about_floats_keeps_every_bit(floats_first):
    """So each sample takes its own path: Newton's, until it stands still."""

    def root(x):
        y = x
        while True:
            new = y - (vgrad.exp(y) - x) / vgrad.exp(y)
            if abs(new - y) < 1e-12:
                return new
            y = new

    data = rng.uniform(1.0, 3.0, size=30)
    got = vgrad.compile(root, parameters=[])([], data)
    assert same_bits(got, [root(Value(x)).data for x in data])
    assert floats_first


def test_graphs_without_inputs_or_nodes(floats_first):
    w = Value(3.0)
    for fn, want in ((lambda: w * w + 1, (10.0, 6.0)), (lambda: w, (3.0, 1.0))):
        value, gradient = vgrad.compile(vgrad.trace(fn, parameters=[w])).value_and_grad([3.0])
        assert (value, *gradient) == want
    program = vgrad.compile(lambda x: (x, x > 0, x * 1.0), parameters=[])
    assert [x.tolist() for x in program([], [-1.5])] == [[-1.5], [0.0], [-1.5]]


# --- which one -----------------------------------------------------------------------------------


def test_few_samples_run_on_floats_and_explain_says_so():
    program, theta, data = compiled(plain)
    program(theta, data)
    few = runner_of(program).few
    assert 1 < few < SAMPLES
    assert "as Python functions of floats" in program.explain(data[:few])
    assert f"arrays are quicker for more than {few}" in program.explain(data[:1])
    table = program.explain(data[: few + 1])
    assert "which run" in table and "ns of calls" in table


def test_networks_run_on_arrays():
    """However few the samples and many the layers: their levels are wide."""
    model = vgrad.nn.MLP(4, [16] * 30 + [1])
    program = vgrad.compile(lambda x: model(x), parameters=model.parameters())
    program(program.theta(np.ones((1, 4))), np.ones((1, 4)))
    assert runner_of(program).few == 0


def test_verify_looks_at_the_sweep_that_the_batch_gets(monkeypatch):
    """However few samples it looks at."""
    program, theta, data = compiled(plain)
    program.verify(theta, data, samples=2)
    right = RolledBound.read
    monkeypatch.setattr(
        RolledBound, "read", lambda self, outputs: right(self, outputs) or outputs.fill(7.0)
    )
    program.verify(theta, data[:2])
    with pytest.raises(vgrad.ParityError):
        program.verify(theta, data, samples=2)


def test_two_threads_may_be_first():
    """Each writes the text of its own functions."""
    for _ in range(5):
        program, theta, data = compiled(masked)
        want = results(program, theta, data[:1])
        program, barrier = compiled(masked)[0], Barrier(8)
        program.theta(data[:1])

        def first(k, program=program, barrier=barrier, arguments=(theta, data[:1])):
            barrier.wait()
            return (program.value_and_grad if k % 2 else program.input_grads)(*arguments)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(first, range(8)))
        assert all(same_bits(x, y) for x, y in zip(results(program, theta, data[:1]), want))


def test_a_tile_of_ones_own_means_arrays():
    program, theta, data = compiled(plain, tile=8)
    program.value_and_grad(theta, data[:1])
    assert runner_of(program).few == 0


def test_a_deep_program_has_wide_tiles():
    """So wide that numbers take longer than calls, where 8 MB would have held few samples."""
    program, theta, data = compiled(side_by_side)
    program(theta, data)
    sweep = runner_of(program).quick
    calls, numbers = sweep.seconds(sweep.tile)
    assert calls < 2 * numbers and sweep.tile > 500


def test_what_a_rolled_plan_takes_does_not_grow_with_its_steps():
    """But for the rows that pieces pass on: one number for each turn."""

    def chain(steps):
        def fn(x):
            h = x
            for _ in range(steps):
                h = vgrad.tanh(W[0] * h + 0.1)
            return h

        program = vgrad.compile(fn, parameters=W)
        program.value_and_grad(program.theta(), np.ones(100))
        return runner_of(program)

    short, long = chain(500), chain(5000)
    assert len(short.plan.turns) <= 3 and len(long.plan.turns) <= 3
    rows = 2 * (len(long.plan.samples) - len(short.plan.samples))  # of values and gradients
    assert rows < 2 * 4500 / 3
    assert long.quick.memory(100) - short.quick.memory(100) <= rows * 100 * 8
