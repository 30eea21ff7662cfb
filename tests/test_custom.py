"""Ops of one's own: `vgrad.op` in every place where an op of the table works, and its refusals."""

from __future__ import annotations

import copy
import importlib
import math
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from inspect import signature
from multiprocessing import get_context

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import GraphFormatError, TraceError, Value, ops


@pytest.fixture(autouse=True)
def table():
    """The op table is as it was after each test."""
    before = len(ops.OPS)
    yield
    del ops.OPS[before:]


def my_tanh():
    @vgrad.op(vjp=lambda g, out, x: g * (1 - out * out))
    def my_tanh(x):
        """The hyperbolic tangent, once more."""
        return np.tanh(x)

    return my_tanh


def weighted():
    """Two operands with a rule, and one without."""

    @vgrad.op(vjp=(lambda g, out, x, y, w: g * w, lambda g, out, x, y, w: -g * w, None))
    def weighted(x, y, w=2.0):
        return (x - y) * w

    return weighted


both_ways = pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
NUMBERS = [-2.0, -0.0, 0.3, 1e-300, 5.0, math.inf, math.nan]


def test_on_numbers_arrays_and_values():
    op = my_tanh()
    want = [vgrad.tanh(x) for x in NUMBERS]
    assert same_bits([op(x) for x in NUMBERS], want) and type(op(1)) is float
    assert same_bits(op(np.array(NUMBERS)), want) and op(np.ones((2, 3), int)).shape == (2, 3)
    assert same_bits([v.data for v in op(np.array([*map(Value, NUMBERS)]))], want)
    x = Value(0.3)
    op(x).backward()
    assert x.grad == 1 - math.tanh(0.3) ** 2 and op(x).op is op


@both_ways
def test_traced_and_captured(fuse):
    op, w = my_tanh(), Value(0.7)
    program = vgrad.compile(lambda x: op(w * x) + op(x), [w], fuse=fuse)
    twin = vgrad.compile(lambda x: vgrad.tanh(w * x) + vgrad.tanh(x), [w], fuse=fuse)
    batch = np.linspace(-2, 2, 9)
    assert same_bits(program([0.7], batch), twin([0.7], batch))
    assert same_bits(program.input_grads([0.7], batch), twin.input_grads([0.7], batch))
    assert same_bits(*(p.value_and_grad([0.7], batch)[1] for p in (program, twin)))
    x = Value(0.5)
    captured = vgrad.compile(vgrad.capture(op(w * x), parameters=[w], inputs=[x]), fuse=fuse)
    assert captured([0.7], [0.5]) == math.tanh(0.35)
    assert program.verify([0.7], batch) and vgrad.gradcheck(program, [0.7], batch)


@both_ways
def test_several_operands_one_without_a_gradient_and_one_with_a_default(fuse):
    op = weighted()
    program = vgrad.compile(lambda x, y, w: op(x, y, w), [], fuse=fuse)
    assert program([], [3.0], [1.0], [4.0]) == [8.0]
    assert [g[0] for g in program.input_grads([], [3.0], [1.0], [4.0])] == [4.0, -4.0, 0.0]
    assert op(3, 1) == 4.0 and op(y=1, x=3, w=5) == 10.0
    assert list(signature(op).parameters) == ["x", "y", "w"] and op.__name__ == "weighted"
    assert float(op(Value(1.0).stop_gradient(), 1.0, Value(2.0))) == 0.0  # no gradient is lost


def test_higher_derivatives_are_those_of_the_rules():
    op = my_tanh()
    graphs = [vgrad.trace(f, ()) for f in (op, vgrad.tanh)]
    for _ in range(3):
        graphs = [g.gradient(g.inputs, of=len(g.outputs) - 1) for g in graphs]
    got, want = (vgrad.compile(g)([], [0.3, -1.0])[-1] for g in graphs)
    assert got == pytest.approx(want, rel=1e-14)  # the same rules, in another order of sums


def test_gradcheck_tells_whether_a_rule_is_right():
    assert vgrad.gradcheck(my_tanh(), 0.3)
    wrong = vgrad.op(vjp=lambda g, out, x: g * (1 - out), name="wrong")(lambda x: np.tanh(x))
    report = vgrad.gradcheck(lambda x: wrong(x) * 2, 0.3)
    assert not report and "the rule of wrong for operand 0 is off" in str(report)


@both_ways
def test_a_rounding_that_lets_gradients_through(fuse):
    """The straight-through estimator; its results are not rounded, so sums keep their order."""
    op = vgrad.op(vjp=lambda g, out, x: g, name="through")(lambda x: np.rint(x))
    program = vgrad.compile(lambda x, y: (x - op(x)) + (y - op(y)), [], fuse=fuse)
    x, y = np.array([1e15 + 0.25, 2.4]), np.array([-3e15 - 0.375, 0.1])
    assert same_bits(program([], x, y), (x - np.rint(x)) + (y - np.rint(y)))
    squared = vgrad.compile(lambda x: op(3 * x) ** 2, [], fuse=fuse)
    assert squared.input_grads([], [0.9])[0] == [18.0]


def test_a_gradient_of_ones_own_around_a_composite_function():
    """log(1 + exp(x)) overflows, and so would its gradient: exp(x) / (1 + exp(x))."""

    @vgrad.op(vjp=lambda g, out, x: g * vgrad.sigmoid(x))
    def soft(x):
        return vgrad.where(x > 30, x, vgrad.log(1 + vgrad.exp(x)))

    program = vgrad.compile(soft, [])
    assert program([], [1000.0, 0.0]).tolist() == [1000.0, math.log(2)]
    assert program.input_grads([], [1000.0, 0.0])[0].tolist() == [1.0, 0.5]
    assert "np.where(x > 30.0" in vgrad.trace(soft, ()).to_numpy_source()


def test_what_is_no_operand_has_its_default_and_no_other_number():
    """There would be no gradient to it."""
    op = vgrad.op(vjp=RULE, name="kept")(keeping)
    assert op(3.0) == 6.0
    with pytest.raises(TypeError, match=r"kept\(\) takes 1 operand \(got 1, factor\)"):
        op(3.0, factor=5.0)


def test_results_are_nobody_elses():
    cache = np.empty(2)

    def cached(x):
        return np.multiply(x, 2.0, out=cache if x.shape == (2,) else None)

    op = vgrad.op(vjp=RULE, name="cached")(cached)
    first, second = op(np.array([1.0, 2.0])), op(np.array([3.0, 4.0]))
    assert first.tolist() == [2.0, 4.0] and second.tolist() == [6.0, 8.0]


def test_a_function_of_single_numbers_by_vectorize():
    @vgrad.op(vjp=lambda g, out, x: g * out * vgrad.digamma(x), domain=[(0.5, 3.0)])
    @np.vectorize
    def gamma(x):
        return math.gamma(x)

    assert gamma(5.0) == 24.0 and vgrad.gradcheck(gamma, 2.5)
    assert vgrad.compile(gamma, [])([], [1.0, 4.0]).tolist() == [1.0, 6.0]


def test_rules_may_name_ops_that_follow():
    up = vgrad.op(vjp=lambda g, out, x: g * down(x), name="up")(lambda x: np.sin(x))
    down = vgrad.op(vjp=lambda g, out, x: -g * up(x), name="down")(lambda x: np.cos(x))
    graph = vgrad.trace(up, ())
    first = graph.gradient(graph.inputs)
    second = first.gradient(first.inputs, of=1)
    assert vgrad.compile(second)([], [0.5])[2] == [-math.sin(0.5)]


def test_warnings_of_numpy_do_not_get_out():
    """The suite makes errors of warnings."""
    op = vgrad.op(vjp=lambda g, out, x: g / np.log(x), name="noisy")(lambda x: 1 / np.sqrt(x))
    x = Value(0.0)
    op(x).backward()
    assert op(x).data == math.inf and x.grad == 0.0
    assert math.isnan(op(-1.0)) and vgrad.compile(op)([], [0.0, 4.0]).tolist() == [math.inf, 0.5]


def test_executors_float32_and_check_finite():
    op = my_tanh()
    with ThreadPoolExecutor(2) as pool:
        program = vgrad.compile(op, [], executor=pool, tile=2)
        assert same_bits(program([], np.arange(9.0)), np.tanh(np.arange(9.0)))
    narrow = vgrad.compile(op, [], dtype=np.float32)
    assert narrow([], [0.5]).dtype == np.float32
    inverse = vgrad.op(vjp=lambda g, out, x: -g * out * out, name="inverse")(lambda x: 1 / x)
    with pytest.raises(vgrad.NonFiniteError, match=r"inverse of 0.0 gave inf at sample 1"):
        vgrad.compile(lambda x: inverse(x) ** 2, [], check_finite=True)([], [1.0, 0.0])


def test_pictures(tmp_path):
    op = my_tanh()
    y = op(Value(0.5, label="x"))
    y.backward()
    assert "my_tanh" in vgrad.to_dot(y)
    vgrad.draw(y, tmp_path / "graph.svg")
    vgrad.animate(y).save(tmp_path / "steps.html")
    assert "my_tanh" in (tmp_path / "graph.svg").read_text()
    assert "my_tanh" in (tmp_path / "steps.html").read_text()


def test_copies_pickles_and_files(tmp_path):
    op = my_tanh()
    assert copy.deepcopy(op) is op and pickle.loads(pickle.dumps(op)) is op
    assert pickle.loads(pickle.dumps(op(Value(0.5)))).op is op
    program = vgrad.compile(op, [])
    want = program([], [0.5])
    assert pickle.loads(pickle.dumps(program))([], [0.5]) == want
    vgrad.trace(op, ()).save(tmp_path / "graph.npz")
    loaded = vgrad.Graph.load(tmp_path / "graph.npz")
    assert vgrad.compile(loaded)([], [0.5]) == want


def test_a_file_or_pickle_without_its_op_says_which_and_where_it_was_defined(tmp_path):
    op = my_tanh()
    line = my_tanh.__code__.co_firstlineno + 1
    graph = vgrad.trace(op, ())
    graph.save(tmp_path / "graph.npz")
    pickled = [pickle.dumps(x) for x in (graph, op, op(Value(0.5)))]
    ops.OPS.remove(op)
    message = rf"'my_tanh', which must be defined first, as in test_custom.py:{line} of test_custom"
    with pytest.raises(GraphFormatError, match=message):
        vgrad.Graph.load(tmp_path / "graph.npz")
    for x in pickled:
        with pytest.raises(GraphFormatError, match=message):
            pickle.loads(x)


MODULE = """
import numpy as np, vgrad

@vgrad.op(vjp=lambda g, out, x: 3 * g * x * x)
def cubed(x):
    return x * x * x
"""
READ = """
import pickle, sys, vgrad
try:
    vgrad.Graph.load(sys.argv[1])  # files run nothing, so they import nothing
except vgrad.GraphFormatError as error:
    assert "'cubed', which must be defined first, as in ours.py:4 of ours" in str(error), error
else:
    raise AssertionError
program = pickle.load(open(sys.argv[2], "rb"))
assert program([], [2.0]) == [8.0] and program.input_grads([], [2.0])[0] == [12.0]
assert vgrad.compile(vgrad.Graph.load(sys.argv[1]))([], [3.0]) == [27.0]
"""


def test_a_pickle_imports_the_module_of_its_ops(tmp_path, monkeypatch):
    """As that of a function does, so that another machine knows them; a file does not."""
    (tmp_path / "ours.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import ours

    program = vgrad.compile(ours.cubed, [])
    program([], [1.0])
    (tmp_path / "program").write_bytes(pickle.dumps(program))
    vgrad.trace(ours.cubed, ()).save(tmp_path / "graph.npz")
    command = [sys.executable, "-c", READ, tmp_path / "graph.npz", tmp_path / "program"]
    path = os.pathsep.join([str(tmp_path), *map(os.path.abspath, sys.path)])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})
    del sys.modules["ours"]


NOTEBOOK = """
import numpy as np, pickle, vgrad

def cell(factor):
    exec(f'''
@vgrad.op(vjp=lambda g, out, x: {factor} * g)
def scaled(x):
    return {factor} * x
''', globals())

cell(2.0)
old, program = scaled, vgrad.compile(scaled, [])
assert program([], [1.0]) == [2.0]
cell(2.0)  # the cell runs again
assert scaled is old
cell(3.0)  # and again, changed
assert scaled is not old and scaled(1.0) == 3.0 and vgrad.ops.named("scaled") is scaled
assert program([], [1.0]) == [2.0] and program.input_grads([], [1.0])[0] == [2.0]
assert pickle.loads(pickle.dumps(scaled)) is scaled
assert pickle.loads(pickle.dumps(program))([], [1.0]) == [2.0]
try:
    program.save("nowhere", [])  # no other process could have its op
except vgrad.GraphFormatError as error:
    assert "op 'scaled' must not have been defined anew since it was recorded" in str(error)
else:
    raise AssertionError
before = pickle.dumps(scaled)
cell(4.0)
try:
    pickle.loads(before)
except vgrad.GraphFormatError as error:
    assert "op 'scaled' must be as it was when it was pickled" in str(error)
else:
    raise AssertionError

def factory(factor):
    @vgrad.op(vjp=lambda g, out, x: factor * g)
    def made(x):
        return factor * x

factory(1.0)
try:
    factory(2.0)
except ValueError as error:
    assert "got 'made', which is in" in str(error)
else:
    raise AssertionError
"""


def test_at_the_prompt_an_op_can_be_defined_again():
    """What has the old one keeps it; what a function defines each time it is called is refused."""
    subprocess.run([sys.executable, "-c", NOTEBOOK], check=True)


# --- refusals ------------------------------------------------------------------------------------


def branching(x):
    return x if x > 0 else -x


def keeping(x, *, factor=2.0):
    return x * factor


def exponential(x):
    return np.exp(x)


def changing(x):
    x += 1.0
    return x


def scaling(g, out, x):
    g *= out
    return g


W = Value(2.0)
RULE = [lambda g, out, x: g]
REFUSED = {
    "a rule too few": (lambda x, y: x * y, RULE, r"one vjp rule for each operand \(x, y\).*got 1"),
    "a rule too many": (lambda x: x * 2.0, RULE * 2, r"each operand \(x\), .*or None .*got 2"),
    "any number of operands": (lambda *xs: xs[0], RULE, r"must name its operands \(got \(\*xs"),
    "four operands": (lambda x, y, z, w: x + 0.0, RULE * 4, r"1 to 3 operands .got x, y, z, w"),
    "no operand": (lambda: np.ones(3), [], r"1 to 3 operands .got none"),
    "a branch": (branching, RULE, r"must take arrays of any shape.*np.where in place of if"),
    "math": (
        lambda x: math.exp(x),
        RULE,
        r"must take arrays of any shape.*decorate it with np.vec",
    ),
    "an operand that is changed": (
        changing,
        RULE,
        r"leave them as they are \(got ValueError: .*rea",
    ),
    "a mean": (lambda x: x - x.mean(), RULE, r"must make of a number in an array what it makes of"),
    "an order": (lambda x: np.sort(x, axis=None).reshape(x.shape), RULE, "in an array what it"),
    "chance": (lambda x: x + np.random.default_rng().random(x.shape), RULE, "in an array what it"),
    "another shape": (lambda x: x.sum(), RULE, r"return an array of float64, of the shape .1,. of"),
    "no array": (lambda x: None, RULE, r"return an array of float64.* \(got None\)"),
    "a narrower dtype": (lambda x: x.astype(np.float32), RULE, r"array of float64.* .got float32"),
    "another dtype": (lambda x: x > 0, RULE, r"return an array of float64.* \(got bool"),
    "whole numbers": (lambda x: x.astype(int), RULE, r"return an array of float64.* \(got int64"),
    "a Value": (lambda x: W * x, RULE, r"\(got object .*with these and plain numbers alone"),
    "a rule of two": (
        exponential,
        [lambda g, x: g],
        r"rule of op 'own' for x.* must take the gradient",
    ),
    "a rule with math": (
        exponential,
        [lambda g, out, x: g * math.exp(x)],
        "operators and functions of",
    ),
    "a rule with if": (
        exponential,
        [lambda g, out, x: g if x > 0 else 0 * g],
        "ambiguous.*operators",
    ),
    "a rule with nothing": (
        exponential,
        [lambda g, out, x: None],
        r"must return a number .*got None",
    ),
    "a rule that sums": (
        exponential,
        [lambda g, out, x: np.ones(3)],
        "must return a number for number",
    ),
    "a rule NumPy alone has": (
        exponential,
        [lambda g, out, x: g * np.heaviside(x, 1.0)],
        "must take the gradient",
    ),
    "a rule that changes g": (
        exponential,
        [scaling],
        r"leave them as they are \(got ValueError: .*rea",
    ),
    "a rule that adds up": (
        exponential,
        [lambda g, out, x: g * np.sum(x)],
        "in an array what",
    ),
    "a rule by type": (
        exponential,
        [lambda g, out, x: g * isinstance(x, float)],
        "what it makes of",
    ),
    "a parameter's number": (
        lambda x: x * W.data,
        RULE,
        "with its operands alone",
    ),
    "a rule with one": (exponential, [lambda g, out, x: g * W.data], "with its operands alone"),
    "a rule with a Value": (exponential, [lambda g, out, x: g * W], r"return a number .*got Value"),
    "a number as a rule": (
        exponential,
        [3.0],
        r"must be functions or None .got 3",
    ),
    "a text as rules": (
        exponential,
        "cos",
        r"must be functions or None .got .cos",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_op_is_refused_in_one_sentence(case):
    function, rules, message = REFUSED[case]
    before = list(ops.OPS)
    with pytest.raises(ValueError, match=message) as error:
        vgrad.op(vjp=rules, name="own")(function)
    assert ops.OPS == before and "\n" not in str(error.value)


@pytest.mark.parametrize("domain", [[(1.0, 0.0)], [(0.0, 1.0), (0.0, 1.0)], [(0, math.nan)]])
def test_a_domain_is_one_range_for_each_operand(domain):
    with pytest.raises(
        ValueError, match=r"a domain of one range \(low, high\) for each operand \(x\)"
    ):
        vgrad.op(vjp=RULE, name="own", domain=domain)(exponential)


def test_names_that_clash_are_refused():
    my_tanh()
    with pytest.raises(
        ValueError, match=r"not in the table yet \(got 'my_tanh', which is in test_c"
    ):
        my_tanh()
    for name in ("tanh", "my op", "<lambda>", "lambda"):
        with pytest.raises(ValueError, match=f"name must be an identifier .*got '{name}'"):
            vgrad.op(vjp=RULE, name=name)(lambda x: x * 1.0)
    for thing in (3, np.tanh):
        with pytest.raises(TypeError, match=r"vgrad.op must decorate a function of Python's \(got"):
            vgrad.op(vjp=RULE)(thing)


def test_a_rule_that_cannot_be_recorded_says_so_where_it_stands():
    """A NameError at first, and so tried only when it is used."""
    op = vgrad.op(vjp=lambda g, out, x: g if late(x) else -g, name="late_rule")(lambda x: x * 2.0)
    late = bool
    line = test_a_rule_that_cannot_be_recorded_says_so_where_it_stands.__code__.co_firstlineno + 2
    with pytest.raises(TraceError, match=rf"must not depend on .*test_custom.py:{line}"):
        vgrad.compile(lambda x: op(x) * 2, []).input_grads([], [1.0, 2.0])


def test_a_forward_that_breaks_its_word_later_is_an_error():
    def two_faced(x):
        return x.sum() if lying else x * 2.0

    lying = False
    op = vgrad.op(vjp=RULE, name="two_faced")(two_faced)
    program, before = vgrad.compile(op, []), op(np.ones(3))
    lying = True
    for call in (lambda: op(np.ones(3)), lambda: program([], [1.0, 2.0]), lambda: op(Value(1.0))):
        with pytest.raises(ValueError, match="op 'two_faced' must return an array of float64"):
            call()
    lying = False
    assert same_bits(op(np.ones(3)), before) and program([], [1.0, 2.0]).tolist() == [2.0, 4.0]


RELOADED = """
import vgrad

@vgrad.op(vjp=lambda g, out, x: {0} * g)
def reloaded(x):
    return {0} * x
"""


def test_a_module_that_is_reloaded_has_its_op_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "changing.py"
    path.write_text(RELOADED.format(2.0))
    import changing

    old = changing.reloaded
    assert importlib.reload(changing).reloaded is old
    path.write_text(RELOADED.format(3.0))
    new = importlib.reload(changing).reloaded
    assert new is not old and new(1.0) == 3.0 and old(1.0) == 2.0 and old.name != new.name
    del sys.modules["changing"]


def test_processes_compute_it():
    op = my_tanh()
    batch = np.linspace(-2, 2, 50)
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        program = vgrad.compile(lambda x: op(x) * x, [], executor=pool, tile=5)
        alone = vgrad.compile(lambda x: op(x) * x, [], tile=5)
        assert same_bits(program([], batch), alone([], batch))
        assert same_bits(program.input_grads([], batch), alone.input_grads([], batch))


def test_a_text_that_might_have_no_end_is_refused():
    def squares(x):
        for _ in range(40):
            x = x * x - x / 2
        return x

    op = vgrad.op(vjp=RULE, name="squares")(squares)
    with pytest.raises(TypeError, match="op 'squares' must have a ufunc, or a rule of other ops"):
        vgrad.trace(op, ()).to_numpy_source()


def test_threads_may_make_ops_at_once():
    def make(k):
        return vgrad.op(vjp=RULE, name=f"threaded_{k}")(lambda x: x * float(k))

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(40)))
    assert all(ops.OPS[op.code] is op and op(2.0) == 2.0 * k for k, op in enumerate(made))


def test_the_table_has_an_end():
    with pytest.raises(ValueError, match=r"there must be at most 254 ops \(got one more, 'own_"):
        for k in range(300):
            ops.Op(f"own_{k}", "?", lambda x: x, vjp=(None,))
