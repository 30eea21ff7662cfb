"""Recording by the array: the same graph, node for node, as a loop over single numbers gives."""

import math

import numpy as np
import pytest
from helpers import EVERY

import vgrad
from vgrad import ShapeError, TraceError, Value, ops
from vgrad.flat import bulk

ARRAYS = ("op", "parents", "value", "level", "inputs", "parameters", "outputs")


def assert_same(one, other):
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True), name
    assert one.output_shapes == other.output_shapes
    assert (one.labels, one.lines, one.leaves) == (other.labels, other.lines, other.leaves)


def in_both_ways(monkeypatch, fn, *shapes, **options):
    """The graph of a function, recorded in bulk, once that was found the same
    as number by number."""
    graphs = []
    with monkeypatch.context() as patched:
        for few in (bulk.FEW, math.inf):
            patched.setattr(bulk, "FEW", few)
            graphs.append(vgrad.trace(fn, *shapes, **options))
    assert_same(*graphs)
    return graphs[0]


@pytest.fixture
def blocks(monkeypatch):
    """How many blocks of nodes were recorded at once."""
    found = []
    extend = vgrad.flat.tape.Tape.extend
    record = lambda tape, codes, *args: found.append(len(codes)) or extend(tape, codes, *args)  # noqa: E731
    monkeypatch.setattr(vgrad.flat.tape.Tape, "extend", record)
    return found


def values(rng, *shape):
    return np.array([Value(x, f"w{k}") for k, x in enumerate(rng.normal(size=math.prod(shape)))])


WEIGHTS = [Value(x) for x in np.linspace(-1, 1, 12)]
W = np.array(WEIGHTS).reshape(3, 4)
ROW = W[0]
TABLE = np.arange(12.0).reshape(3, 4)

# Of x (4,), y (3, 4) and s ().
FUNCTIONS = {
    "matrix times vector": lambda x, y, s: W @ x + np.arange(3.0),
    "vector times matrix": lambda x, y, s: x @ W.T,
    "matrices": lambda x, y, s: y @ W.T + W @ y.T,
    "numbers on the left": lambda x, y, s: TABLE @ x,
    "numbers on the right": lambda x, y, s: y @ TABLE.T,
    "vectors": lambda x, y, s: y.reshape(12) @ y.T.reshape(12),
    "stacks": lambda x, y, s: y.reshape(3, 2, 2) @ y.reshape(3, 2, 2),
    "one stack": lambda x, y, s: y.reshape(3, 2, 2) @ x.reshape(2, 2),
    "np.dot": lambda x, y, s: [np.dot(y, x), y.dot(x), np.dot(y[0], x)],
    "elements": lambda x, y, s: np.tanh(y) * y - y / (1.5 + y * y),
    "one number": lambda x, y, s: (2 * y + s) ** 2 - y**s,
    "NumPy's number": lambda x, y, s: np.float64(2) * y + np.int64(1) - np.True_ * y,
    "a parameter": lambda x, y, s: y * WEIGHTS[5] + WEIGHTS[0],
    "broadcast": lambda x, y, s: x * y + y[:, :1] - x[None, :],
    "Values on the left": lambda x, y, s: W * y - W,
    "integers": lambda x, y, s: y * np.arange(4) + np.arange(3)[:, None],
    "booleans": lambda x, y, s: y * np.array([True, False, True, True]),
    "single precision": lambda x, y, s: y * np.float32([0.1, 0.2, 0.3, 0.4]),
    "numbers as objects": lambda x, y, s: y * np.array([1, 2.5, True, np.float32(3)], dtype=object),
    "sum": lambda x, y, s: y.sum(),
    "sum along 0": lambda x, y, s: y.sum(axis=0) * np.sum(y, axis=-1)[0],
    "sum that keeps": lambda x, y, s: y.sum(axis=1, keepdims=True) + y.sum(keepdims=True),
    "sum of a transpose": lambda x, y, s: y.T.sum() + y.T.sum(axis=0),
    "sum backwards": lambda x, y, s: y[::-1].sum(axis=0) + y[:, ::-1].sum(axis=1)[0],
    "sum of every other": lambda x, y, s: y[:, ::2].sum(axis=1) + y[::2].sum(axis=0)[0],
    "sum from": lambda x, y, s: np.add.reduce(y, axis=0, initial=2.0) + y.sum(initial=1),
    "sum from a number that counts": lambda x, y, s: y.sum(initial=s) + np.max(y, initial=True),
    "sum of some": lambda x, y, s: y.sum(where=TABLE > 5, initial=1.0),
    "Values backwards": lambda x, y, s: W[::-1, ::-1] * y[::-1, ::-1],
    "mean and variance": lambda x, y, s: [y.mean(axis=1), y.var(), y.std(axis=0)],
    "product": lambda x, y, s: [np.prod(y), y.prod(axis=0)],
    "running": lambda x, y, s: [np.cumsum(y), np.cumsum(y, axis=0), np.cumprod(y, axis=1)],
    "extremes": lambda x, y, s: [y.max(), y.min(axis=1), np.max(y, axis=0), np.maximum(y, 0)],
    "differences": lambda x, y, s: y[1:] - y[:-1],
    "conditions": lambda x, y, s: np.where(y > 0, y, 0.1 * y) + np.where((y < 1) & (y > s), 1, y),
    "all and any": lambda x, y, s: np.where((y > 0).all(axis=0), 1.0, (y > 1).any()) * x,
    "clip": lambda x, y, s: np.clip(y, -1.0, x),
    "square": lambda x, y, s: np.square(y) + np.reciprocal(y),
    "moved about": lambda x, y, s: np.concatenate([y.ravel(), np.stack([x, 2 * x]).ravel()]) * 3,
    "mixed": lambda x, y, s: np.array([y[0, 0], 2.0, *WEIGHTS[:8]]) * y.ravel()[:10],
    "half of them Values": lambda x, y, s: vgrad.array([*x, *WEIGHTS]) * 2.0,
    "an outer product": lambda x, y, s: np.multiply.outer(x, x),
    "einsum": lambda x, y, s: np.einsum("ij,j->i", y, x),
    "softmax": lambda x, y, s: vgrad.softmax(y.ravel()),
    "logsumexp": lambda x, y, s: vgrad.logsumexp([*y.ravel(), s]),
    "take": lambda x, y, s: [vgrad.take(TABLE, s), vgrad.take([*y.ravel()], s + 1)],
    "take of Values": lambda x, y, s: vgrad.take(W, s),
    "cross entropy": lambda x, y, s: [
        vgrad.nn.cross_entropy([*y.ravel()], s),
        vgrad.nn.cross_entropy(y[0], x),
    ],
    "dot": lambda x, y, s: vgrad.dot(y.ravel(), WEIGHTS, s),
    "dot from a Value": lambda x, y, s: vgrad.dot(WEIGHTS, y.ravel(), WEIGHTS[3]),
    "dot of rows": lambda x, y, s: vgrad.dot(W, x, WEIGHTS[:3]),
    "dot of columns": lambda x, y, s: vgrad.dot(x[:3], W) + vgrad.dot(WEIGHTS[:3], y, s),
    "dot of numbers": lambda x, y, s: vgrad.dot(TABLE, x) + vgrad.dot(y, [1, 2.0, 3, 4.0], 0),
    "dot with itself": lambda x, y, s: vgrad.dot(y.ravel(), y.ravel()),
    "vgrad.sum": lambda x, y, s: vgrad.sum(y.ravel()) + vgrad.sum([y[0, 0], *WEIGHTS, 2.0]),
    "a constant": lambda x, y, s: y * Value(2.0, trainable=False) + 1,
    "what is computed once": lambda x, y, s: y * np.array([w * 2 for w in ROW]) + ROW[0] * 2,
}


@pytest.mark.parametrize("found", [False, True], ids=["given", "found"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_record_what_a_loop_records(monkeypatch, name, found):
    parameters = None if found else WEIGHTS
    in_both_ways(monkeypatch, FUNCTIONS[name], (4,), (3, 4), (), parameters=parameters)


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)
def test_every_op_records_arrays_in_blocks(monkeypatch, blocks, op):
    shapes = [(3, 4)] * op.arity
    in_both_ways(monkeypatch, op, *shapes)
    assert blocks == [12]
    number = lambda *xs: op(xs[0], *[0.5] * (op.arity - 1))  # noqa: E731
    in_both_ways(monkeypatch, number, (3, 4))


LINES = [
    lambda x: np.tanh(x) * x,
    lambda x: (x @ x) + x.sum(),
    lambda x: np.array([vgrad.dot(x, x, start=1.0)] * 2),
]


@pytest.mark.parametrize("fn", LINES)
def test_lines_are_those_of_a_loop(monkeypatch, fn):
    graph = in_both_ways(monkeypatch, fn, (9,), lines=True)
    assert {line.split(":")[0] for line in graph.lines.values()} == {"test_bulk.py"}


def random_function(seed):
    """A chain of random steps on arrays."""
    rng = np.random.default_rng(seed)
    weights = values(rng, 24)
    kinds = rng.integers(0, 9, size=6).tolist()
    chosen = rng.integers(0, 24, size=6).tolist()
    numbers = rng.normal(size=(6, 3, 4))

    def f(x, y):
        h = y
        for kind, k, number in zip(kinds, chosen, numbers):
            if kind == 0:
                h = h * weights[:4] + weights[k]
            elif kind == 1:
                h = np.tanh(h) - x
            elif kind == 2:
                h = (h @ weights[:16].reshape(4, 4)) / 2
            elif kind == 3:
                h = h + h.sum(axis=k % 2, keepdims=True)
            elif kind == 4:
                h = np.where(h > number, h, number * weights[k])
            elif kind == 5:
                h = np.cumsum(h, axis=k % 2)[:, ::-1]
            elif kind == 6:
                h = np.maximum(h, h.max(axis=0)) * 0.5
            elif kind == 7:
                h = h.T.reshape(3, 4) * np.exp(-(h**2))
            else:
                h = vgrad.array([vgrad.dot(h, x, weights[:3])] * 4).T
        return h.sum() + h[0, 0], h

    return f


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_of_arrays(monkeypatch, seed):
    graph = in_both_ways(monkeypatch, random_function(seed), (4,), (3, 4), lines=seed % 2)
    assert len(graph) > 50


def test_python_loops_record_the_same():
    """Not only NumPy's loops over objects: written out number by number."""

    def loops(x, y):
        h = [sum((w * z for w, z in zip(row[1:], x)), row[0] * x[0]) for row in W]
        h = [vgrad.tanh(z) * u for z, u in zip(h, y[:, 0])]
        total = h[0]
        for z in h[1:]:
            total = total + z
        return total

    def arrays(x, y):
        h = np.tanh([vgrad.dot(row[1:], x[:3], row[0] * x[0]) for row in W]) * y[:, 0]
        return h.sum()

    assert_same(vgrad.trace(arrays, (4,), (3, 4)), vgrad.trace(loops, (4,), (3, 4)))


def test_dot_and_sum_are_loops_for_numbers_and_values():
    xs, ys = [0.1, 0.2, 0.3, math.inf], [3.0, -1.0, 1e9, 0.5]
    total = 7.0
    for x, y in zip(xs, ys):
        total = total + x * y
    assert vgrad.dot(xs, ys, 7.0) == total
    assert vgrad.dot([xs, ys], ys, [7.0, 0.0])[0] == total
    assert vgrad.sum(xs[:3]) == (0.1 + 0.2) + 0.3
    assert (vgrad.sum([]), vgrad.dot([], []), vgrad.dot([], [], 2.0)) == (0.0, 0.0, 2.0)
    assert vgrad.dot([1.0, 2.0], [[], []]) == []
    assert vgrad.dot([[], []], [], [1.0, 2.0]) == [1.0, 2.0]
    a, b = Value(2.0), Value(3.0)
    vgrad.dot([a, b], [b, 4.0], a).backward()
    assert (a.grad, b.grad) == (3.0 + 1.0, 2.0 + 4.0)
    assert np.isnan(vgrad.dot(np.array([np.inf]), np.array([0.0])))


def test_dot_of_many_is_recorded_at_once(blocks):
    vgrad.trace(lambda x: vgrad.dot(np.array(WEIGHTS * 2), x, 1.0), (24,))
    assert blocks == [48]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: vgrad.dot([1.0], [1.0, 2.0]),
            r"of one length, .* \(got 1 numbers and 2 numbers\)",
        ),
        (
            lambda: vgrad.dot([[1.0], [2.0]], [1.0], [0.0]),
            r"got 2 rows of 1 and 1 numbers, 1 starts for 2 sums",
        ),
        (lambda: vgrad.dot([[1.0], [2.0, 3.0]], [1.0]), r"got 2 rows of 1 or 2 and 1 numbers"),
        (lambda: vgrad.dot([1.0, 2.0], [[1.0], [2.0, 3.0]]), r"2 columns of 1 or 2\)"),
        (lambda: vgrad.dot([[1.0]], [[1.0]]), r"for two matrices use @"),
        (lambda: vgrad.dot([1.0, [2.0]], [1.0, 2.0]), r"no sequences within"),
        (lambda: vgrad.dot(1.0, [1.0]), "dot takes a sequence"),
        (lambda: vgrad.sum([[1.0], [2.0]]), "sum takes a sequence .* no sequences within"),
        (lambda: vgrad.sum(3.0), "sum takes a sequence"),
    ],
)
def test_bad_sequences(call, message):
    with pytest.raises(ShapeError, match=message):
        call()


@pytest.mark.parametrize("step", [lambda x, y: x + y, lambda x, y: x @ y, np.dot, vgrad.tanh])
def test_shapes_that_do_not_fit_are_numpys_errors(step):
    with pytest.raises((ValueError, TypeError)) as known:
        step(np.ones(20), np.ones(21))
    with pytest.raises(known.type):
        vgrad.trace(lambda x, y: step(x, y), (20,), (21,))


def test_what_a_sum_begins_with_counts():
    """Also 1, which equals True, and so the default of another option of NumPy's."""
    x = np.arange(12.0)
    for fn in (np.sum, np.prod, np.min, np.max):
        for first in (1, 1.0, True, 30):
            f = vgrad.compile(lambda x, fn=fn, first=first: fn(x, initial=first), parameters=[])
            assert f([], x[None]) == fn(x, initial=first)


def test_a_mask_is_refused_for_many_numbers_too():
    masked = np.ma.array(np.ones(9), mask=[0] + [1] * 8)
    for step in (
        lambda x: x * masked,
        lambda x: vgrad.maximum(x, masked),
        lambda x: np.dot(x, masked),
    ):
        with pytest.raises(TypeError, match="without a mask"):
            vgrad.trace(step, (9,))


def test_nodes_of_another_call_and_thread_are_refused():
    kept = []
    vgrad.trace(lambda x: kept.append(x) or x[0], (9,))
    for step in (lambda x: x + kept[0], lambda x: vgrad.dot(kept[0], x), lambda x: x @ kept[0]):
        with pytest.raises(TraceError, match="must not leave the call"):
            vgrad.trace(step, (9,))
    with pytest.raises(TraceError, match="must not outlive the call"):
        np.tanh(kept[0])


def test_arrays_of_what_branches(monkeypatch):
    f = vgrad.compile(lambda x: (W @ x).sum() if x.sum() > 0 else np.tanh(W @ x).sum(), WEIGHTS)
    theta, x = f.theta(), np.random.default_rng(0).normal(size=(8, 4))
    means = [(TABLE * 0 + theta.reshape(3, 4)) @ row for row in x]
    wanted = [z.sum() if row.sum() > 0 else np.tanh(z).sum() for z, row in zip(means, x)]
    assert np.allclose(f(theta, x), wanted, rtol=1e-14)  # sums of twelve products


def test_op_names_stay_free():
    assert ops.OPS[ops.add.code] is ops.add and vgrad.sum is not sum


def test_progress_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr("vgrad.progress.PATIENCE", 0.0)
    monkeypatch.setattr("vgrad.progress.PAUSE", 0.0)
    said = []
    program = vgrad.compile(lambda x: (W @ x).sum(), WEIGHTS, progress=said.append)
    program.value_and_grad(program.theta(np.ones((1, 4))), np.ones((1, 4)))
    assert said[0].startswith("recorded ") and said[-1].startswith("compiling ")
    vgrad.trace(lambda x: x @ x, (9,), progress=said.append)
    assert said[-1].startswith("recorded ")
    with pytest.raises(TypeError, match="progress must be a function"):
        vgrad.compile(lambda x: x, progress=3)


def test_nothing_is_said_of_what_is_quick():
    said = []
    program = vgrad.compile(lambda x: W @ x, WEIGHTS, progress=said.append)
    program(program.theta(np.ones((1, 4))), np.ones((1, 4)))
    assert said == []


@pytest.mark.parametrize("k", range(8))
def test_an_interrupt_at_any_stage_leaves_a_program_that_works(monkeypatch, k):
    """As Ctrl-C would interrupt it: by what is told how far recording and compiling are."""
    monkeypatch.setattr("vgrad.progress.PATIENCE", 0.0)
    monkeypatch.setattr("vgrad.progress.PAUSE", 0.0)
    stages = []

    def interrupt(text):
        stages.append(text)
        if len(stages) == k + 1:
            raise KeyboardInterrupt

    def f(x):
        return (np.tanh(W @ x) @ W).sum()

    program, x = vgrad.compile(f, WEIGHTS, progress=interrupt), np.ones((50, 4))
    with pytest.raises(KeyboardInterrupt):
        program.value_and_grad(np.ones(12), x)
    assert len(stages) == k + 1
    wanted = vgrad.compile(f, WEIGHTS).value_and_grad(np.ones(12), x)
    value, gradient = program.value_and_grad(np.ones(12), x)
    assert value == wanted[0] and (gradient == wanted[1]).all()
