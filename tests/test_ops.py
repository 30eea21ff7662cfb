"""Each row of the op table against central differences, at its kinks, and on all it takes."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import pydoc
import random
from inspect import signature

import numpy as np
import pytest
from helpers import EDGES, EVERY, central_difference, same_bits

import vgrad
from vgrad import GraphFormatError, Value, ops, special

INF, NAN = math.inf, math.nan

STEP = 1e-5
# The differences err by STEP**2 / 6 times a third derivative (below 1e3 in these domains) plus
# 2**-53 / STEP from rounding: 2e-8 and 1e-11. A wrong rule is off by far more.
TOLERANCE = 1e-6


def gradcheck(op: ops.Op, numbers: list[float]) -> None:
    """Both engines' derivatives of `op` at `numbers` against central differences of floats."""
    want = [
        0.0 if low == high else central_difference(op, numbers, k, STEP)
        for k, (low, high) in enumerate(op.domain)
    ]
    if op is ops.stop_gradient:  # which is there to have none
        want = [0.0]
    scalar = [Value(x) for x in numbers]
    op(*scalar).backward()
    program = vgrad.compile(lambda *xs: op(*xs), parameters=[])
    vector = program.input_grads([], *[[x] for x in numbers])
    for k in range(op.arity):
        assert scalar[k].grad == pytest.approx(want[k], rel=TOLERANCE, abs=TOLERANCE), (op, numbers)
        assert vector[k][0] == pytest.approx(want[k], rel=TOLERANCE, abs=TOLERANCE), (op, numbers)


def sample(op: ops.Op, rng: random.Random) -> list[float]:
    """Operands inside the row's domain, no two of them within reach of a kink."""
    while True:
        numbers = [rng.uniform(low, high) for low, high in op.domain]
        gaps = [abs(x - y) for i, x in enumerate([*numbers, 0.0]) for y in numbers[:i]]
        if min(gaps) > 10 * STEP:
            if op.name == "where":  # takes its third operand only where the first is 0
                numbers[0] = rng.choice([0.0, numbers[0]])
            return numbers


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)
def test_derivatives_agree_with_central_differences(op):
    rng = random.Random(op.code)
    for _ in range(6):
        gradcheck(op, sample(op, rng))


@pytest.mark.parametrize(
    "op, k",
    [(op, k) for op in EVERY for k, rule in enumerate(op.vjp) if rule],
    ids=lambda x: getattr(x, "name", x),
)
def test_gradcheck_catches_a_wrong_rule(op, k):
    """Every rule, planted 1 % off, is found out, be it one operand's alone."""

    def wrong(g, *xs):
        return 1.01 * op.vjp[k](g, *xs)

    wrong = (*op.vjp[:k], wrong, *op.vjp[k + 1 :])
    planted = ops.Op("planted", "?", op.forward, op.ufunc, op.domain, wrong)
    try:
        with pytest.raises(AssertionError):
            for seed in range(20):
                gradcheck(planted, sample(op, random.Random(seed)))
    finally:
        ops.OPS.remove(planted)


# What each rule does at its kink or at the edge of its domain: operands, then derivatives.
KINKS = [
    ("relu", [0.0], [0.0]),
    ("relu", [-0.0], [0.0]),
    ("relu", [INF], [1.0]),
    ("relu", [-INF], [0.0]),
    ("abs", [0.0], [0.0]),
    ("abs", [-INF], [-1.0]),
    ("maximum", [1.0, 1.0], [0.5, 0.5]),
    ("maximum", [0.0, -0.0], [0.5, 0.5]),
    ("maximum", [INF, INF], [0.5, 0.5]),
    ("maximum", [-INF, INF], [0.0, 1.0]),
    ("minimum", [1.0, 1.0], [0.5, 0.5]),
    ("minimum", [INF, -INF], [0.0, 1.0]),
    ("sqrt", [0.0], [INF]),
    ("sqrt", [-1.0], [NAN]),
    ("log", [0.0], [INF]),
    ("log", [-0.0], [-INF]),
    ("exp", [1000.0], [INF]),
    ("exp", [-INF], [0.0]),
    ("tanh", [1000.0], [0.0]),
    ("tanh", [-1000.0], [0.0]),
    ("sigmoid", [1000.0], [0.0]),
    ("sigmoid", [-1000.0], [0.0]),
    ("div", [1.0, 0.0], [INF, -INF]),
    ("div", [0.0, 0.0], [INF, NAN]),
    ("div", [1.0, INF], [0.0, -0.0]),
    ("pow", [0.0, 0.0], [0.0, 0.0]),
    ("pow", [0.0, 1.0], [1.0, 0.0]),
    ("pow", [0.0, 2.0], [0.0, 0.0]),
    ("pow", [0.0, 0.5], [INF, 0.0]),
    ("pow", [0.0, -1.0], [-INF, -INF]),
    ("pow", [-2.0, 2.0], [-4.0, NAN]),
    ("pow", [-2.0, 3.0], [12.0, NAN]),
    ("pow", [1.0, INF], [INF, 0.0]),
    ("where", [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]),
    ("where", [-0.0, 1.0, 2.0], [0.0, 0.0, 1.0]),
    ("where", [NAN, 1.0, 2.0], [0.0, 1.0, 0.0]),
    ("where", [1.0, INF, NAN], [0.0, 1.0, 0.0]),
    ("guard", [0.0, 1.0, 2.0], [0.0, 0.0, 1.0]),
    ("guard", [0.0, NAN, NAN], [0.0, 0.0, 0.0]),
    ("guard", [1.0, NAN, NAN], [0.0, 0.0, 1.0]),
    ("guard", [NAN, 2.0, 3.0], [0.0, 0.0, 1.0]),
    ("stop_gradient", [INF], [0.0]),
    ("exp2", [2000.0], [INF]),
    ("exp2", [-INF], [0.0]),
    ("expm1", [1000.0], [INF]),
    ("expm1", [-1000.0], [0.0]),
    ("log2", [0.0], [INF]),
    ("log10", [0.0], [INF]),
    ("log1p", [-1.0], [INF]),
    ("cbrt", [0.0], [INF]),
    ("cbrt", [-0.0], [INF]),
    ("logaddexp", [0.0, 0.0], [0.5, 0.5]),
    ("logaddexp", [INF, 0.0], [1.0, 0.0]),
    ("logaddexp", [-INF, 0.0], [0.0, 1.0]),
    ("logaddexp", [-INF, -INF], [NAN, NAN]),
    ("arcsin", [1.0], [INF]),
    ("arcsin", [-1.0], [INF]),
    ("arcsin", [2.0], [NAN]),
    ("arccos", [1.0], [-INF]),
    ("arccos", [-1.0], [-INF]),
    ("arctan", [INF], [0.0]),
    ("arctan2", [0.0, 0.0], [0.0, 0.0]),
    ("arctan2", [-0.0, -1.0], [-1.0, 0.0]),
    ("arctan2", [1.0, INF], [NAN, -0.0]),
    ("hypot", [0.0, 0.0], [0.0, 0.0]),
    ("hypot", [0.0, -2.0], [0.0, -1.0]),
    ("hypot", [INF, 1.0], [NAN, 0.0]),
    ("arcsinh", [-INF], [0.0]),
    ("arccosh", [1.0], [INF]),
    ("arccosh", [0.5], [NAN]),
    ("arctanh", [1.0], [INF]),
    ("arctanh", [-1.0], [INF]),
    ("sign", [0.0], [0.0]),
    ("floor", [1.0], [0.0]),
    ("ceil", [1.0], [0.0]),
    ("trunc", [1.0], [0.0]),
    ("rint", [0.5], [0.0]),
    ("floor_divide", [6.0, 3.0], [0.0, 0.0]),
    ("floor_divide", [1.0, 0.0], [0.0, 0.0]),
    ("remainder", [6.0, 3.0], [1.0, -2.0]),
    ("remainder", [-1.0, 3.0], [1.0, 1.0]),
    ("remainder", [1.0, 0.0], [1.0, NAN]),
    ("fmod", [6.0, 3.0], [1.0, -2.0]),
    ("fmod", [-7.0, 3.0], [1.0, 2.0]),
    ("erf", [INF], [0.0]),
    ("erfc", [-INF], [-0.0]),
    ("erfcx", [-30.0], [-INF]),
    ("erfcx", [INF], [0.0]),
    ("ierfcx", [1.0, INF], [0.0, 0.0]),
    ("ierfcx", [0.5, 1.0], [0.0, NAN]),
    ("ndtr", [-INF], [0.0]),
    ("log_ndtr", [INF], [0.0]),
    ("log_ndtr", [-INF], [INF]),
    ("lgamma", [0.0], [-INF]),
    ("lgamma", [-0.0], [INF]),
    ("lgamma", [-1.0], [NAN]),
    ("digamma", [0.0], [INF]),
    ("digamma", [-1.0], [INF]),
    ("polygamma", [1.0, 0.0], [0.0, -INF]),
    ("polygamma", [0.5, 1.0], [0.0, NAN]),
    ("leaky_relu", [0.0, 0.25], [0.25, 0.0]),
    ("leaky_relu", [-2.0, 0.25], [0.25, -2.0]),
    ("elu", [0.0, 2.0], [2.0, 0.0]),
    ("elu", [-INF, 2.0], [0.0, -1.0]),
    ("softplus", [1000.0], [1.0]),
    ("softplus", [-1000.0], [0.0]),
    ("silu", [1000.0], [1.0]),
    ("silu", [-1000.0], [0.0]),
    ("gelu", [100.0], [1.0]),
    ("gelu", [-100.0], [0.0]),
    *((name, [1.0, 1.0], [0.0, 0.0]) for name in ("gt", "lt", "ge", "le", "eq", "ne")),
]


@pytest.mark.parametrize("name, numbers, want", KINKS)
def test_derivatives_at_kinks_and_edges(name, numbers, want):
    op = getattr(ops, name)
    scalar = [Value(x) for x in numbers]
    op(*scalar).backward()
    vector = vgrad.compile(op, parameters=[]).input_grads([], *[[x] for x in numbers])
    assert [v.grad for v in scalar] == pytest.approx(want, rel=0, nan_ok=True)
    assert [g[0] for g in vector] == pytest.approx(want, rel=0, nan_ok=True)


def test_every_rule_with_a_kink_is_in_the_list():
    """A row whose rule branches or can divide by zero states what it does there."""
    smooth = {"add", "sub", "mul", "neg", "sin", "cos", "tan", "sinh", "cosh"}
    assert {name for name, _, _ in KINKS} == {op.name for op in EVERY} - smooth


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)
def test_numbers_arrays_and_values_agree_to_the_bit(op):
    """An array of any layout gives each element what a float and what a Value give."""
    rng = random.Random(op.code)
    rows = [[rng.choice(EDGES) for _ in range(op.arity)] for _ in range(99)]
    rows += [[rng.uniform(low, high) for low, high in op.domain] for _ in range(400)]
    floats = [op(*row) for row in rows]
    assert all(type(x) is float for x in floats)
    assert same_bits([op(*map(Value, row)).data for row in rows], floats)
    columns = np.array(rows).T
    for layout in (columns, columns.copy("F"), np.repeat(columns, 3, axis=1)[:, ::3]):
        assert same_bits(op(*layout), floats)
    assert same_bits([x.data for x in op(*np.vectorize(Value, otypes=[object])(columns))], floats)


def sigmoid(x: float) -> float:
    return 0.0 if x < -700 else 1 / (1 + math.exp(-x))


# The forward rules again, from other sources: NumPy's function, or plain Python by hand.
# This is the one list to which a row is added that is no function of NumPy's; `test_special` has
# those of `vgrad.special`, and gelu, which is computed with one.
SPECIAL = {"gelu", *(op.name for op in EVERY if op.definition is getattr(special, op.name, 0))}
BY_HAND = {
    "where": lambda c, x, y: x if c != 0 else y,
    "relu": lambda x: x if x > 0 or math.isnan(x) else 0.0,
    "sigmoid": sigmoid,
    "guard": lambda x, y, z: 0.0 if math.isnan(y) and x == 0 else z,
    "stop_gradient": lambda x: x,
    "leaky_relu": lambda x, slope: x if x > 0 else slope * x,
    "elu": lambda x, alpha: x if x > 0 else alpha * math.expm1(x),
    "softplus": lambda x: x if x > 700 else math.log1p(math.exp(x)),
    "silu": lambda x: x * sigmoid(x) if math.isfinite(x) else x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize(
    "op", [op for op in EVERY if op.name not in SPECIAL], ids=lambda op: op.name
)
def test_forward_rules_agree_with_numpy_or_with_python(op):
    """Within 2 roundings, for the functions that are not correctly rounded, and in nan and inf."""
    reference = op.ufunc or BY_HAND[op.name]
    rng = random.Random(op.code)
    rows = list(itertools.product(EDGES, repeat=op.arity))
    rows = rng.sample(rows, min(len(rows), 1000))
    rows += [tuple(rng.uniform(-3, 3) for _ in range(op.arity)) for _ in range(500)]
    for row in rows:
        if op.name == "pow" and (row[0] in (-INF, -0.0) and row[1] == 0.5):
            continue  # np.power of one number may take a root here; see the next test
        with np.errstate(all="ignore"):
            want = float(reference(*map(np.float64, row)))
        near_zero = 3e-16 if op is ops.logaddexp else 0  # where its two terms cancel
        assert op(*row) == pytest.approx(want, rel=5e-16, abs=near_zero, nan_ok=True), row


def test_powers_do_not_depend_on_the_layout_of_the_exponent():
    """NumPy takes short cuts for some exponents in some layouts; the op must not."""
    x = np.array([-INF, -0.0, 0.3, 1 / 3, 7.7, 1e-160, NAN])
    for y in (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, -2.0, -0.5):
        full, single = np.full(len(x), y), np.full(1, y)
        want = [ops.pow(float(v), y) for v in x]
        for v, w in zip(
            x.tolist(), want
        ):  # as C's pow, which Python's ** is, where it does not raise
            if not (-INF < v < 0 and y % 1) and not (v < 1e-100 and y < 0):
                assert w == pytest.approx(v**y, rel=5e-16, abs=0, nan_ok=True), (v, y)
                assert math.copysign(1, w) == math.copysign(1, v**y)
        assert same_bits(ops.pow(x, full), want)
        assert same_bits(ops.pow(x, single), want)
        assert same_bits(ops.pow(x, y), want)


def test_nothing_warns_and_nothing_raises():
    """IEEE 754 results for plain numbers too: inf and nan, where Python's own floats raise."""
    assert vgrad.exp(1000) == INF and vgrad.log(0) == -INF
    assert ops.div(1, 0) == INF and math.isnan(ops.div(0, 0)) and ops.div(-1, 0) == -INF
    assert math.isnan(ops.pow(-8.0, 1 / 3)) and ops.pow(0.0, -1.0) == INF
    assert math.isnan(vgrad.sqrt(-1)) and vgrad.sqrt(-0.0) == 0.0
    assert ops.pow(1e200, 2) == INF


def test_arrays_of_integers_count_as_floats_and_complex_ones_do_not():
    assert ops.pow(np.array([2, 4]), -1).tolist() == [0.5, 0.25]
    assert ops.pow(0.0, np.array([-1.0, 2.0])).tolist() == [INF, 0.0]
    assert ops.pow(3, np.array([0, 1])).tolist() == [1.0, 3.0]
    assert vgrad.abs(np.array([-128], np.int8)).tolist() == [128.0]
    assert vgrad.exp(10**400) == INF and vgrad.exp(-(10**400)) == 0.0
    assert vgrad.where(1, np.array([1, 2]), 0.0).tolist() == [1.0, 2.0]
    mask = np.array([True, False])
    assert vgrad.exp(mask).dtype == np.float64 and vgrad.abs(mask).tolist() == [1.0, 0.0]
    assert vgrad.where(mask, mask, 2.0).tolist() == [1.0, 2.0]
    for bad in (np.array([1j]), np.array(["a"])):
        with pytest.raises(TypeError, match="must hold real numbers"):
            vgrad.exp(bad)


def test_functions_take_object_arrays_element_by_element():
    values = np.array([Value(-1.0), Value(2.0)])
    assert [v.data for v in vgrad.relu(values)] == [0.0, 2.0]
    assert [v.data for v in vgrad.maximum(values, 1.0)] == [1.0, 2.0]
    assert [v.data for v in vgrad.maximum(Value(0.0), np.array([-1.0, 3.0]))] == [0.0, 3.0]
    assert vgrad.where(np.array([1.0, 0.0]), 5.0, np.array([6.0, 7.0])).tolist() == [5.0, 7.0]


def cube(x):
    """x to the power of 3.

    >>> cube(2.0)
    8.0
    """
    return x * x * x


def test_a_new_op_is_one_row(tmp_path):
    """A row that nothing else mentions works on numbers, on both engines and everywhere else."""
    row = ops.row(cube, ops.ONE, (lambda g, out, x: 3 * g * x * x,))
    try:
        x = Value(2.0, label="x")
        y = row(x)
        y.backward()
        assert row(2) == row(x=2) == 8.0 and x.grad == 12.0 and row.__doc__.startswith("cube(x)\n")
        assert [v.data for v in row(np.array([x, x]))] == row(np.array([2.0, 2.0])).tolist()
        for fuse in (True, False):
            program = vgrad.compile(row, parameters=[], fuse=fuse)
            assert program([], [2.0, 3.0]).tolist() == [8.0, 27.0]
            assert program.input_grads([], [2.0, 3.0])[0].tolist() == [12.0, 27.0]
            assert program.verify([], [2.0, 3.0])
        graph = vgrad.trace(row, ())
        slope = graph.gradient(graph.inputs)
        second = vgrad.compile(slope.gradient(slope.inputs, of=1))
        assert np.ravel(second([], [2.0])[-1]) == [12.0] and vgrad.gradcheck(row, 2.0)
        graph.save(tmp_path / "graph.npz")
        assert vgrad.compile(vgrad.Graph.load(tmp_path / "graph.npz"))([], [2.0]) == [8.0]
        assert "x * x * x" in graph.to_numpy_source() and "cube" in vgrad.to_dot(y)
    finally:
        ops.OPS.remove(row)


@pytest.mark.parametrize(
    "name, arity, message",
    [
        ("exp", 1, r"name must be an identifier and not in the table yet \(got 'exp'\); use"),
        ("my op", 1, r"name must be an identifier .* \(got 'my op'\)"),
        ("", 1, r"name must be an identifier"),
        (
            "fma4",
            4,
            r"op 'fma4' must have at most 3 vjp rules, one per operand \(got 4\); write it",
        ),
    ],
)
def test_a_row_that_cannot_work_is_refused(name, arity, message):
    """A `Value` has three slots for parents, and files name ops: nothing is lost in silence."""
    before = list(ops.OPS)
    with pytest.raises(ValueError, match=message):
        ops.Op(name, "?", lambda *xs: sum(xs), vjp=(lambda g, *xs: g,) * arity)
    assert before == ops.OPS


def test_op_codes_fit_a_byte_and_are_places_in_the_table():
    assert [op.code for op in ops.OPS] == list(range(len(ops.OPS))) and len(ops.OPS) < 256


@pytest.mark.parametrize("op", ops.OPS, ids=lambda op: op.name)
def test_copies_and_pickles_of_a_row_are_the_row(op):
    assert copy.deepcopy(op) is op and pickle.loads(pickle.dumps(op)) is op


def test_values_of_an_op_from_outside_are_pickled(monkeypatch):
    monkeypatch.setattr(ops, "OPS", list(ops.OPS))
    cube = ops.Op("cube", "³", lambda x: x * x * x, vjp=(lambda g, out, x: 3 * g * x * x,))
    pickled = pickle.dumps(cube(Value(2.0)))
    twin = pickle.loads(pickled)
    twin.backward()
    assert twin.op is cube and copy.copy(twin).op is cube and twin.parents[0].grad == 12.0
    ops.OPS.remove(cube)
    with pytest.raises(GraphFormatError, match=r"every op must be known \(got 'cube', which must"):
        pickle.loads(pickled)


def test_bad_operands_are_refused_by_name():
    with pytest.raises(TypeError, match=r"maximum\(\) takes 2 operands \(got 1\)"):
        vgrad.maximum(1.0)
    with pytest.raises(TypeError, match=r"must be a real number \(got '3', a str\)"):
        vgrad.exp("3")
    with pytest.raises(TypeError, match=r"got 1j, a complex"):
        vgrad.exp(1j)
    with pytest.raises(TypeError, match=r"maximum\(\) takes numbers.* \(got Value, str\)"):
        vgrad.maximum(Value(1.0), "2")


def test_every_op_has_a_docstring_and_named_operands():
    for op in EVERY:
        names = list(signature(op).parameters)
        assert len(names) == op.arity and op.__name__ == op.name
        heading, blank, text = op.__doc__.split("\n", 2)
        assert heading.startswith(f"{op.name}({names[0]}") and not blank
        assert len(text.strip()) > 2 and "row of the table" not in text
        assert heading in pydoc.render_doc(op)


def test_every_public_op_has_an_example_its_derivative_and_operands_by_name():
    for op in [op for op in EVERY if op.name in vgrad.__all__]:
        assert ">>> import vgrad" in op.__doc__ and f"vgrad.{op.name}(" in op.__doc__
        assert any(word in op.__doc__ for word in ("derivative", "gradient")), op
        operands = [0.5 * (low + high) for low, high in op.domain]
        named = dict(zip(signature(op).parameters, operands))
        assert same_bits(op(**named), op(*operands))
        assert op(**{k: Value(x) for k, x in named.items()}).op is op
        with pytest.raises(TypeError, match=rf"{op.name}\(\) takes {op.arity} operand"):
            op(*operands, nonsense=1.0)


def test_numbers_read_backwards_are_the_same_to_the_bit():
    """NumPy's loops for what is not contiguous compute some functions to other bits."""
    x = np.random.default_rng(0).normal(size=(1, 16)) * 3
    for op in (ops.arctan2, ops.pow, ops.hypot):
        fn = lambda x, op=op: (x[0], *(op(x[i], x[15 - i]) for i in range(16)))  # noqa: E731
        program = vgrad.compile(fn, [])
        want = [x[0, 0], *(op(x[0, i], x[0, 15 - i]) for i in range(16))]
        assert same_bits(np.ravel(program([], x)), want) and program.verify([], x)
    for op in (ops.exp, ops.sinh, ops.cbrt, ops.log1p):
        assert same_bits(op(x[0, ::-1]), [op(v) for v in x[0, ::-1].tolist()])


def test_booleans_count_as_numbers():
    mask = np.array([True, False])
    for op in (ops.sign, ops.floor, ops.trunc, ops.rint):
        assert op(mask).dtype == np.float64 and op(mask).tolist() == [1.0, 0.0]
    assert ops.floor_divide(mask, np.array([True, True])).dtype == np.float64


def test_a_slope_of_minus_zero_is_another_than_zero():
    """Constants are told apart by their bits, in whatever order they come."""
    for slope in (-0.0, 0.0, -0.0):
        program = vgrad.compile(lambda x, s=slope: 1 / vgrad.leaky_relu(x, s), [])
        assert program([], [-1.0])[0] == -math.copysign(INF, slope)


def test_methods_are_of_the_first_operand():
    assert Value(-1.0).leaky_relu().data == -0.01 and Value(1.0).arctan2(0.0).data == math.pi / 2
    assert not hasattr(Value(1.0), "polygamma")  # whose first operand is the order


def test_operands_may_have_defaults():
    assert vgrad.elu(-1.0) == vgrad.elu(-1.0, alpha=1.0) == math.expm1(-1.0)
    assert vgrad.leaky_relu(Value(-1.0)).data == -0.01
    assert vgrad.compile(vgrad.leaky_relu, [])([], [-1.0, 2.0]).tolist() == [-0.01, 2.0]


def test_every_row_with_a_public_name_is_one_of_vgrads():
    """What a new row needs besides is its name in `vgrad.__all__`."""
    internal = {op for op in EVERY if not op.symbol.isidentifier()} | {ops.guard, ops.ierfcx}
    assert {op.name for op in set(EVERY) - internal} <= set(vgrad.__all__)


SMOOTH = [op for op in EVERY if any(op.vjp) and op not in (ops.guard, ops.mul)]


@pytest.mark.parametrize("op", SMOOTH, ids=lambda op: op.name)
def test_third_derivatives_agree_with_differences_of_the_second(op):
    """Along the line on which all operands change by one number. Central differences err by
    STEP**2 / 6 times a fifth derivative, below 1e6 in these domains, and by some 2**-50 / STEP."""
    rng = random.Random(op.code)
    operands = sample(op, rng)
    slopes = [0.0 if low == high else 1.0 for low, high in op.domain]

    def along(t):
        return op(*[x + slope * t for x, slope in zip(operands, slopes)])

    graph = vgrad.trace(along, ())
    for _ in range(3):
        graph = graph.gradient(graph.inputs, of=len(graph.outputs) - 1)
    second, third = vgrad.compile(graph)([], [-STEP, 0.0, STEP])[2:]
    want = (second[2] - second[0]) / (2 * STEP)
    assert third[1] == pytest.approx(want, rel=1e-5, abs=1e-4), operands
