"""check_finite: the error leads to the op, the node, the line, the sample and its inputs."""

from __future__ import annotations

import math
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import EDGES, random_program, sweep

import vgrad
from vgrad import NonFiniteError, Value, nn

INF, NAN = math.inf, math.nan


def caught(call) -> NonFiniteError:
    with pytest.raises(NonFiniteError) as error:
        call()
    return error.value


def line_of(function, below: int = 1) -> str:
    return f"test_finite.py:{function.__code__.co_firstlineno + below}"


def price(x):
    vol = vgrad.log(x[0])
    vol.label = "vol"
    return vol * 2 + x[1]


def steep(x):
    root = vgrad.sqrt(x[0])
    root.label = "root"
    return 3 * root + x[1]


BATCH = np.ones((1000, 2))
BATCH[417] = [0.0, -0.2]
CALLS = {
    "outputs": lambda program: program([], BATCH),
    "value_and_grad": lambda program: program.value_and_grad([], BATCH),
    "aux": lambda program: program.value_and_grad([], BATCH, aux=True),
    "input_grads": lambda program: program.input_grads([], BATCH),
    "per_sample_grads": lambda program: program.per_sample_grads([], BATCH),
}


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("call", CALLS)
def test_a_forward_sweep_is_watched_by_every_call(call, fuse):
    program = vgrad.compile(price, [], check_finite=True, fuse=fuse, tile=100)
    error = caught(lambda: CALLS[call](program))
    line = line_of(price)
    assert str(error) == (
        f"log of 0.0 gave -inf at sample 417, node {error.node} 'vol' ({line}), forward sweep; "
        "inputs there: x = [0.0, -0.2]"
    )
    assert (error.op, error.operands, error.got) == ("log", (0.0,), -INF)
    assert (error.sweep, error.label, error.line, error.sample) == ("forward", "vol", line, 417)
    assert error.inputs == {"x": [0.0, -0.2]}
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.sample == 417


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("by", ["input", "parameter"])
def test_a_backward_sweep_is_watched(by, fuse):
    """The value at sample 417 is finite, its gradient is not."""
    w = Value(1.0, label="w")
    fn = {"input": steep, "parameter": lambda x: steep(x * w)}[by]
    program = vgrad.compile(fn, [w], check_finite=True, fuse=fuse, tile=100)
    assert np.isfinite(program([1.0], BATCH)).all()
    call = program.input_grads if by == "input" else program.per_sample_grads
    error = caught(lambda: call([1.0], BATCH))
    assert (
        f"sqrt of 0.0 made inf of a gradient of 3.0 at sample 417, node {error.node} 'root' ("
        in (str(error))
    )
    assert f"({line_of(steep)}), backward sweep; inputs there: x = [0.0, -0.2]" in str(error)
    assert (error.op, error.got, error.sweep, error.sample) == ("sqrt", INF, "backward", 417)
    if by == "parameter":
        error = caught(lambda: program.value_and_grad([1.0], BATCH))
        assert (error.op, error.sample) == ("sqrt", 417)


def test_nothing_is_raised_where_results_are_finite():
    """Whatever happens in a branch that is not taken, or vanishes."""

    def safe(x):
        guarded = vgrad.where(x[0] > 0, vgrad.log(x[0]), 0.0)
        return guarded + 1 / (1 + vgrad.exp(-800 * x[1])) + vgrad.minimum(vgrad.exp(900 * x[1]), 3)

    program = vgrad.compile(safe, [], check_finite=True)
    for call in CALLS.values():
        call(program)
    assert np.isnan(vgrad.compile(price, [])([], -BATCH)).any()  # and nothing where nobody watches


def test_large_gradients_are_finite_and_do_not_warn():
    """Their squares are not."""
    w = Value(1.0)
    for dtype, large in ((np.float64, 1e300), (np.float32, 1e30)):
        program = vgrad.compile(lambda x: w * x, [w], check_finite=True, dtype=dtype)
        assert program.value_and_grad([1.0], [large, large])[1] == pytest.approx([large])


def test_the_objective_itself_is_watched():
    """Its gradients are finite, or are not asked for."""
    zero = Value(0.0)
    program = vgrad.compile(lambda x: x + zero * vgrad.log(x), [zero], check_finite=True)
    error = caught(lambda: program.input_grads([0.0], [1.0, 0.0]))
    assert (error.op, error.got, error.sample) == ("log", -INF, 1)


def test_a_product_with_the_hessian_is_watched():
    """Its own numbers, and the gradient's, which it computes on the way."""
    w = Value(0.0, label="w")
    for power, began in ((0.5, "pow of 0.0 and 0.5 made"), (1.5, "pow of 0.0 and 0.5 made")):
        program = vgrad.compile(lambda x, p=power: (w * x) ** p, [w], check_finite=True)
        error = caught(lambda q=program: q.hessian_vector_product([0.0], [1.0], [4.0, 0.0]))
        assert str(error).startswith(began) and error.sample == 0, error
        assert error.line.startswith("test_finite.py:")
        assert program.hessian_vector_product([4.0], [1.0], [1.0]) == pytest.approx(
            [power * (power - 1) * 4 ** (power - 2)]
        )


def test_a_mean_that_overflows_while_its_parts_do_not():
    total = vgrad.compile(lambda x: x * 1.0, [], reduce="sum", check_finite=True)
    error = caught(lambda: total.value_and_grad([], [1e308, 1e308]))
    assert "the sum of output 0 over the batch is inf, though every sample's part is finite" in str(
        error
    )
    w = Value(1.0, label="w")
    steep = vgrad.compile(lambda x: (w - 1) * x, [w], reduce="sum", check_finite=True)
    error = caught(lambda: steep.value_and_grad([1.0], [1e308, 1e308]))
    assert "the sum of the gradients to parameter 0 'w' over the batch is inf" in str(error)


@pytest.mark.parametrize(
    "theta, x, what",
    [
        ([1.0], [1.0, NAN], "the input was nan at sample 1, node 0 'x'"),
        ([INF], [1.0, 2.0], "the parameter was inf at sample 0, node 1 'w'"),
    ],
)
def test_numbers_that_came_in_so(theta, x, what):
    w = Value(1.0, label="w")
    program = vgrad.compile(lambda x: x * w, [w], check_finite=True)
    assert str(caught(lambda: program(theta, x))).startswith(what)


def test_several_that_are_guilty_together():
    """Neither alone would make the minimum infinite; the first is named."""
    fn = lambda x: vgrad.minimum(1 / x, 2 / x)  # noqa: E731
    error = caught(lambda: vgrad.compile(fn, [], check_finite=True)([], [0.0]))
    assert (error.op, error.operands) == ("div", (1.0, 0.0))
    assert caught(lambda: vgrad.check_finite(fn(Value(0.0)))).op == "div"


def test_only_what_is_guilty_is_named():
    """`where` did not take the first nan, and the second came before the third."""

    def f(x):
        unused = vgrad.where(x > 0, vgrad.log(x - 1), 1.0)
        return vgrad.where(x < 0, vgrad.sqrt(x) + 1, unused) * vgrad.log(x)

    program = vgrad.compile(f, [], check_finite=True)
    assert caught(lambda: program([], [2.0, -1.0])).op == "sqrt"
    assert caught(lambda: program([], [2.0, 0.5])).op == "log"


def test_in_float32_what_float64_would_hold():
    """The op is named that made what does not fit, forward and backward."""
    w = Value(1.0, label="w")
    program = vgrad.compile(lambda x: x * x * w, [w], check_finite=True, dtype=np.float32)
    error = caught(lambda: program([1.0], [1.0, 1e30]))
    assert (error.op, error.sweep, error.sample) == ("mul", "forward", 1)
    assert error.operands == pytest.approx((1e30, 1e30)) and error.inputs["x"] == error.operands[0]
    program = vgrad.compile(
        lambda x: vgrad.sqrt(x) * 1e20 * w, [w], check_finite=True, dtype=np.float32
    )
    error = caught(lambda: program.input_grads([1.0], [1.0, 2e-38]))
    assert (error.op, error.sweep, error.sample) == ("sqrt", "backward", 1)


def test_what_only_the_batch_makes_infinite_has_its_sample_too():
    """Numbers so small that float32 has none for them."""
    program = vgrad.compile(lambda x: 1 / (x * x), [], check_finite=True, dtype=np.float32)
    error = caught(lambda: program([], [1.0, 1e-30]))
    assert error.sample == 1 and error.op == "div"
    program = vgrad.compile(lambda x: (x * x) / (x * x), [], check_finite=True, dtype=np.float32)
    error = caught(lambda: program([], [1.0, 1e-30]))
    assert "output 0 is nan at sample 1, but finite when" in str(error)
    assert error.sample == 1 and list(error.inputs) == ["x"]


def test_a_graph_has_its_lines_where_they_were_recorded():
    for lines in (True, False):
        graph = vgrad.trace(price, (2,), lines=lines)
        program = vgrad.compile(graph, check_finite=True)
        error = caught(lambda p=program: p([], BATCH))
        assert error.line == (line_of(price) if lines else "") and error.label == "vol"


def test_a_first_bad_sample_among_many_and_long_inputs():
    program = vgrad.compile(lambda x: vgrad.log(np.sum(x)), [], check_finite=True, tile=7)
    data = np.ones((5000, 20))
    data[4321:] = 0.0
    error = caught(lambda: program.value_and_grad([], data))
    assert error.sample == 4321
    assert "x = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ... 20 numbers]" in str(error)


def test_a_bad_gradient_far_down_the_batch():
    """Value and gradient look for it part by part."""
    w = Value(1.0)
    program = vgrad.compile(lambda x: vgrad.sqrt(x * w), [w], check_finite=True)
    data = np.ones(3000)
    data[2500] = 0.0
    program.per_sample_grads([1.0], data[:2500])
    error = caught(lambda: program.value_and_grad([0.0], data))
    assert error.sample == 0
    steep = vgrad.compile(lambda x, k: vgrad.sqrt(x * w - k), [w], check_finite=True)
    error = caught(lambda: steep.value_and_grad([1.0], np.ones(3000), 1 - data))
    assert error.sample == 2500 and error.inputs == {"x": 1.0, "k": 1.0}


# --- where a gradient of 0 meets an infinite derivative -------------------------------------------


def square_of_root(x):
    r = vgrad.sqrt(x)
    r.label = "r"
    return r**2


CHOICE = (
    "; that gives 0, but the limit may be another; keep the operand off this point with where, or "
    "add a small number to it"
)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("by", ["input", "parameter"])
@pytest.mark.parametrize("spread", [{}, {"tile": 2}], ids=["whole", "tiles"])
def test_a_zero_that_met_an_infinity_is_named_by_every_call(by, fuse, spread):
    """Its place, its fields, and what to do; without the option 0 is 0."""
    w = Value(1.0, label="w")
    fn = {"input": lambda x: square_of_root(x) * w, "parameter": lambda x: square_of_root(x * w)}
    x = [1.0, 4.0, 9.0, 0.0, 1.0]
    loose = vgrad.compile(fn[by], [w], fuse=fuse, **spread)
    program = vgrad.compile(fn[by], [w], fuse=fuse, check_finite=True, **spread)
    calls = ["input_grads"] if by == "input" else ["per_sample_grads", "value_and_grad"]
    for name in calls:
        getattr(loose, name)([1.0], x)
        error = caught(lambda q=name: getattr(program, q)([1.0], x))
        line = line_of(square_of_root)
        assert str(error) == (
            "sqrt of 0.0 has the derivative inf, which met a gradient of 0 at sample 3, node "
            f"{error.node} 'r' ({line}), backward sweep; inputs there: x = 0.0{CHOICE}"
        )
        assert (error.op, error.operands, error.got) == ("sqrt", (0.0,), INF)
        assert (error.sweep, error.label, error.line) == ("backward", "r", line)
        assert (error.sample, error.inputs) == (3, {"x": 0.0})
    if by == "parameter":
        error = caught(lambda: program.hessian_vector_product([1.0], [1.0], x))
        assert (error.op, error.label, error.sample) == ("sqrt", "r", 3)
    else:  # nothing on the way to w
        program.value_and_grad([1.0], x)
        program.per_sample_grads([1.0], x)


def test_a_zero_that_met_an_infinity_on_the_scalar_engine():
    """Leaves keep the gradients they had."""
    x = Value(0.0, label="x")
    x.grad = 5.0
    error = caught(lambda: square_of_root(x).backward(check_finite=True))
    what = "sqrt of 0.0 has the derivative inf, which met a gradient of 0"
    assert str(error) == f"{what}, 'r', backward sweep{CHOICE}"
    assert (error.op, error.operands, error.got, error.sweep) == ("sqrt", (0.0,), INF, "backward")
    assert x.grad == 5.0
    square_of_root(x).backward()
    assert x.grad == 5.0


def test_the_hessian_of_a_squared_norm_is_named():
    """It is 0 at 0, where it should be 2 on the diagonal."""
    w = [Value(0.0), Value(0.0)]
    for fuse in (True, False):
        norm = lambda x: vgrad.sqrt(w[0] * w[0] + w[1] * w[1]) ** 2 * x  # noqa: E731
        program = vgrad.compile(norm, w, fuse=fuse, check_finite=True)
        error = caught(lambda q=program: q.hessian_vector_product([0.0, 0.0], [1.0, 2.0], [1.0]))
        assert (error.op, error.operands, error.got, error.sample) == ("sqrt", (0.0,), INF, 0)
        assert program.hessian_vector_product([3.0, 4.0], [1.0, 2.0], [1.0]) == pytest.approx(
            [2.0, 4.0]
        )


ARITHMETIC = {
    "a saturated function": (lambda x: vgrad.sigmoid(vgrad.log(x)), 0.0, "log", INF),
    "an overflow": (lambda x: 1 / (1 + vgrad.exp(-x)), -710.0, "exp", INF),
    "a factor of 0": (lambda x: 0.0 * vgrad.sqrt(x), 0.0, "sqrt", INF),
    "a residual of 0": (lambda x: (vgrad.sqrt(x) - 0.0) ** 2 + x, 0.0, "sqrt", INF),
    "gradients that cancel": (
        lambda x: (lambda r: 2 * r - r - r)(vgrad.sqrt(x)),
        *(0.0, "sqrt", INF),
    ),
    "a power": (lambda x: (x**0.5) ** 2, 0.0, "pow", INF),
    "a branch that was taken": (lambda x: vgrad.where(x > -1, x**0.5, 7.0) ** 2, 0.0, "pow", INF),
    "one use of two": (
        lambda x: (lambda r: vgrad.where(x > 0, r, 0.0) + 0.0 * r)(vgrad.sqrt(x)),
        *(0.0, "sqrt", INF),
    ),
}


SELECTED = {
    "where": (lambda x: vgrad.where(x > 0, vgrad.log(x), 0.0), 0.0),
    "where, used twice": (
        lambda x: (lambda r: vgrad.where(x > 0, r, 0.0) * 2 + vgrad.where(x > 1, r * r, x))(
            vgrad.log(x)
        ),
        0.0,
    ),
    "where, squared": (lambda x: vgrad.where(x > 0, vgrad.sqrt(x), 0.0) ** 2, 0.0),
    "where behind a factor of 0": (lambda x: 0.0 * vgrad.where(x > 0, 1 / x, x), 0.0),
    "where around a quotient": (lambda x: vgrad.where(x == 0, 1.0, vgrad.sin(x) / x), 0.0),
    "where on the operand": (lambda x: vgrad.sqrt(vgrad.where(x > 0, x, 1.0)) ** 2, 0.0),
    "a dead relu": (lambda x: vgrad.relu(-1 - vgrad.sqrt(x)) + x, 0.0),
    "a dead relu behind a root": (lambda x: 0.0 * vgrad.sqrt(vgrad.relu(x)) + x, -1.0),
    "the smaller one": (lambda x: vgrad.maximum(vgrad.sqrt(x), 1.0), 0.0),
    "a minimum that caps": (lambda x: vgrad.minimum(vgrad.exp(900 * x), 3.0), 1.0),
    "a tie": (lambda x: vgrad.maximum(x * x, x) * vgrad.minimum(x, x**3), 0.0),
    "abs at 0": (lambda x: abs(x * vgrad.exp(x)), 0.0),
    "stop_gradient": (lambda x: 0.0 * vgrad.stop_gradient(vgrad.sqrt(x)) + x, 0.0),
    "a comparison": (lambda x: (vgrad.sqrt(x) > 1) * x, 0.0),
    "a power of 0": (lambda x: (x**0.0) * x + x**1.0 + x**2.0, 0.0),
    "an exponent at base 0": (lambda x: 0.0 ** (x + 1), 0.0),
    "a derivative that overflows": (lambda x: 0.0 * vgrad.log(x) + 0.0 / x, 1e-310),
    "tanh at its end": (lambda x: vgrad.tanh(1e4 * x) * vgrad.sigmoid(1e4 * x), 1.0),
    "a softmax with a mask": (
        lambda x: vgrad.softmax([x, vgrad.where(x > 5, x, -INF), 2 * x])[0],
        0.0,
    ),
}


def checked(fn, x, **options):
    """The error by each engine and call, or None: backward, input_grads and value_and_grad."""
    w = Value(x)
    by_input = vgrad.compile(fn, [], check_finite=True, **options)
    by_parameter = vgrad.compile(lambda z: fn(w) + 0 * z, [w], check_finite=True, **options)
    return [
        raised(fn(Value(x)).backward, check_finite=True),
        raised(by_input.input_grads, [], [x, 0.3]),
        raised(by_parameter.value_and_grad, [x], [1.0, 2.0]),
    ]


def raised(call, *arguments, **options) -> NonFiniteError | None:
    try:
        call(*arguments, **options)
    except NonFiniteError as error:
        return error
    return None


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", ARITHMETIC)
def test_a_zero_by_arithmetic_is_named(name, fuse):
    fn, x, op, got = ARITHMETIC[name]
    for error in checked(fn, x, fuse=fuse):
        assert (error.op, error.got, error.sweep) == (op, got, "backward")
        assert f"has the derivative {got}, which met a gradient of 0" in str(error)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", SELECTED)
def test_a_zero_by_choice_is_not(name, fuse):
    """Branches that were not taken, and whatever meets no infinity."""
    fn, x = SELECTED[name]
    assert not any(checked(fn, x, fuse=fuse))


def test_gradients_of_samples_that_cancel_at_a_shared_singularity():
    """Their sum is 0, and meets the infinity; alone, each would be infinite."""
    w = Value(0.0, label="w")
    for fuse in (True, False):
        fn = lambda x: vgrad.sqrt(w) * x  # noqa: E731
        assert vgrad.compile(fn, [w], fuse=fuse).value_and_grad([0.0], [1.0, -1.0])[1] == 0
        program = vgrad.compile(fn, [w], fuse=fuse, check_finite=True)
        error = caught(lambda q=program: q.value_and_grad([0.0], [1.0, -1.0]))
        assert str(error).startswith("sqrt of 0.0 made inf of a gradient of 1.0 at sample 0")
        error = caught(lambda q=program: q.value_and_grad([0.0], [0.0, 0.0]))
        assert "has the derivative inf, which met a gradient of 0 at sample 0" in str(error)


def test_one_sample_among_many_that_are_guarded():
    """Half of 5,000 samples are in branches not taken; in tiles, on threads, with outputs too."""
    w = Value(1.0)

    def fn(x, y):
        return vgrad.where(x > 0, vgrad.sqrt(w * x), 0.0) * w + square_of_root(w * y)

    x = np.random.default_rng(0).normal(size=5000)
    x = np.where(x > 0, x, 0.0)
    y = np.ones(5000)
    with ThreadPoolExecutor(2) as pool:
        program = vgrad.compile(fn, [w], check_finite=True, tile=300, executor=pool)
        want = vgrad.compile(fn, [w]).value_and_grad([1.0], x, y)
        assert program.value_and_grad([1.0], x, y)[1] == pytest.approx(want[1])
        program.per_sample_grads([1.0], x, y)
        program.input_grads([1.0], x, y)
        y[4321] = 0.0
        for call in (program.value_and_grad, program.per_sample_grads, program.input_grads):
            error = caught(lambda c=call: c([1.0], x, y))
            assert (error.op, error.label, error.sample) == ("sqrt", "r", 4321)
        error = caught(lambda: program.value_and_grad([1.0], x, y, aux=True))
        assert error.sample == 4321


def test_an_infinity_of_float32_alone_says_so():
    program = vgrad.compile(
        lambda x: 1 / (1 + vgrad.exp(-x)), [], check_finite=True, dtype=np.float32
    )
    error = caught(lambda: program.input_grads([], [1.0, -100.0]))
    assert "a gradient, if 0 times inf were not 0, is nan at sample 1, but finite" in str(error)


@pytest.mark.parametrize("seed", sweep(400, 20))
def test_both_engines_raise_for_the_same_numbers(seed):
    """On random graphs of all ops, at edges: forward, backward, and where 0 met an infinity."""
    source = random_program(seed, edges=True, size=6 + seed % 25)
    graph = vgrad.trace(source, *[()] * source.inputs, parameters=source.parameters)
    theta = [p.data for p in source.parameters]
    draw = np.random.default_rng(seed)
    points = draw.choice([*EDGES[:13], *draw.uniform(-2, 2, 13)], size=(3, source.inputs))
    for fuse in (True, False):
        program = vgrad.compile(graph, fuse=fuse, check_finite=True)
        for point in points if source.inputs else points[:1]:
            root = graph.to_values(theta, point)[graph.outputs[0]]
            arrays = point[:, None]
            by_values = raised(root.backward, check_finite=True)
            by_arrays = raised(program.per_sample_grads, theta, *arrays)
            if source.inputs:
                by_arrays = by_arrays or raised(program.input_grads, theta, *arrays)
            assert bool(by_values) == bool(by_arrays), (seed, point)


def test_the_state_is_as_before():
    model = nn.MLP(2, [3, 1], rng=random.Random(0))
    program = vgrad.compile(lambda x: vgrad.log(model(x)), model.parameters(), check_finite=True)
    theta = program.theta()
    before = theta.copy()
    with pytest.raises(NonFiniteError):
        program.value_and_grad(theta, np.zeros((4, 2)))
    assert (theta == before).all() and (program.theta() == before).all()


# --- the scalar engine ----------------------------------------------------------------------------


def test_a_value_that_is_not_finite():
    x, w = Value(0.0, label="x"), Value(2.0)
    with vgrad.source_lines():
        y = w * vgrad.log(x) + 1
    line = f"test_finite.py:{test_a_value_that_is_not_finite.__code__.co_firstlineno + 3}"
    for call in (lambda: vgrad.check_finite(w, y), lambda: y.backward(check_finite=True)):
        error = caught(call)
        assert str(error) == f"log of 0.0 gave -inf, a node ({line}), forward sweep"
        assert (error.op, error.operands, error.line) == ("log", (0.0,), line)
    assert (x.grad, w.grad) == (0.0, 0.0)
    vgrad.check_finite(x, w)


def test_a_gradient_that_is_not_finite_leaves_the_leaves_as_they_were():
    x, w = Value(0.0, label="x"), Value(2.0)
    x.grad, w.grad = 5.0, 7.0
    root = vgrad.sqrt(x)
    root.label = "root"
    error = caught(lambda: (w * root).backward(check_finite=True))
    assert str(error) == "sqrt of 0.0 made inf of a gradient of 2.0, 'root', backward sweep"
    assert (x.grad, w.grad) == (5.0, 7.0)
    (w * x).backward(check_finite=True)
    assert (x.grad, w.grad) == (7.0, 7.0)


def test_an_old_infinity_in_a_leafs_gradient_is_none_of_this_pass():
    x, w = Value(3.0), Value(2.0)
    x.grad = INF
    (w * x).backward(check_finite=True)
    assert (x.grad, w.grad) == (INF, 3.0)


def test_gradients_that_overflow_where_they_meet():
    x = Value(0.1, label="x")
    error = caught(lambda: (x * 1e308 - x * -1e308).backward(check_finite=True))
    assert (
        str(error) == "the gradients that meet at the parameter add up to inf, 'x', backward sweep"
    )


def test_only_values_are_checked():
    with pytest.raises(TypeError, match="check_finite takes Values .got 3.0, a float"):
        vgrad.check_finite(3.0)


def test_a_branch_that_is_not_taken_is_none_of_its_business():
    x = Value(0.0)
    vgrad.where(x > 0, vgrad.sqrt(x), x * 3).backward(check_finite=True)
    assert x.grad == 3.0


def test_source_lines_end_with_the_block_and_travel_into_a_graph():
    x = Value(2.0)
    with vgrad.source_lines():
        inside = x * 3
    after = x * 4
    assert inside.line.startswith("test_finite.py:") and not hasattr(after, "line")
    graph = vgrad.capture(inside)
    assert list(graph.lines.values()) == [inside.line]
    assert not vgrad.capture(after).lines
