"""The scalar engine: what a person who knows micrograd or PyTorch expects of a number."""

from __future__ import annotations

import array
import copy
import gc
import io
import math
import operator
import pickle
import statistics
import sys
from collections import deque

import numpy as np
import pytest
from helpers import COMPUTED

import vgrad
from vgrad import Value, ops
from vgrad.engine import NO_GRADIENT, reachable


def test_fields_of_a_leaf_and_of_a_result():
    a = Value(2, label="a")
    b = a * 3
    assert (a.data, a.grad, a.parents, a.level, a.label, a.trainable) == (
        2.0,
        0.0,
        (),
        0,
        "a",
        True,
    )
    assert (b.data, b.op, b.level, b.label, b.trainable) == (6.0, ops.mul, 1, "", False)
    assert b.parents[0] is a and b.parents[1].op is ops.const and type(a.data) is float
    assert sys.getsizeof(b) <= 112 and not b.__dict__  # attributes of one's own cost others nothing


def test_repr_is_micrograds_with_the_label_where_there_is_one():
    assert repr(Value(2.0)) == "Value(data=2.0, grad=0.0)"
    assert repr(Value(-1.5, label="w")) == "Value(w, data=-1.5, grad=0.0)"


@pytest.mark.parametrize(
    "name", ["add", "sub", "mul", "truediv", "pow", "gt", "lt", "ge", "le", "eq", "ne"]
)
@pytest.mark.parametrize(
    "number",
    [3, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(3), np.bool_(True), np.array(2.5)],
    ids=lambda x: f"{type(x).__name__}",
)
def test_numbers_mix_on_either_side_of_every_operator(name, number):
    f = getattr(operator, name)
    v = Value(1.5)
    for result, want in (
        (f(v, number), f(1.5, float(number))),
        (f(number, v), f(float(number), 1.5)),
    ):
        assert type(result) is Value and type(result.data) is float and result.data == want
        assert v in result.parents


def test_numbers_mix_in_object_arrays():
    v, w = Value(1.0), Value(2.0)
    assert [x.data for x in np.array([v, w]) * 2.0] == [2.0, 4.0]
    assert [x.data for x in 2.0 - np.array([v, w])] == [1.0, 0.0]
    assert [x.data for x in v * np.array([3.0, 4.0])] == [3.0, 4.0]
    assert [x.data for x in np.array([3.0, 4.0]) / w] == [1.5, 2.0]
    assert [x.data for x in np.array([[1.0, 2.0], [3.0, 4.0]]) @ np.array([v, w])] == [5.0, 11.0]
    assert np.dot([1.0, 2.0], np.array([v, w])).data == 5.0
    assert np.array([v, w]).sum().data == 3.0 and np.mean([v, w]).data == 1.5


@pytest.mark.parametrize("op", [op for op in COMPUTED if op.ufunc], ids=lambda op: op.name)
def test_numpys_functions_are_the_ops(op):
    values = [Value(0.5) for _ in range(op.arity)]
    assert op.ufunc(*values).op is op
    if op.arity == 2:
        assert op.ufunc(np.float64(2.0), values[0]).op is op


def test_numpys_other_functions_go_through_the_operators():
    x = Value(3.0)
    np.square(x).backward()
    assert x.grad == 6.0
    with pytest.raises(TypeError, match=r"degrees\(\) of NumPy or SciPy must not be given Values"):
        np.degrees(x)


def test_named_ops_are_methods_and_functions():
    for op in COMPUTED:
        if op.arity == 1 and op.name != "neg":
            assert getattr(Value(0.5), op.name)().op is op
            assert getattr(vgrad, op.name)(Value(0.5)).op is op
    assert abs(Value(-2.0)).op is ops.abs and (-Value(1.0)).op is ops.neg
    x = Value(1.0)
    assert +x is x


def test_reused_values():
    a = Value(3.0)
    b = a + a
    b.backward()
    assert a.grad == 2.0

    a = Value(3.0)
    (a * a).backward()
    assert a.grad == 6.0

    a, b = Value(-2.0), Value(3.0)
    d, e = a * b, a + b
    (d * e).backward()
    assert (a.grad, b.grad) == (-3.0, -8.0)


def test_integers_beyond_the_floats_are_infinite():
    assert Value(10**400).data == math.inf and (Value(1.0) * -(10**400)).data == -math.inf


def test_learn_refuses_a_rate_that_is_no_number():
    x = Value(3.0)
    with pytest.raises(TypeError, match="must be a real number .got 'x'"):
        (x * x).learn("x")
    assert (x.data, x.grad) == (3.0, 0.0)


def test_adding_in_place_leaves_the_old_value_alone():
    a = Value(2.0)
    b = a
    a += 1
    assert (a.data, b.data) == (3.0, 2.0) and a is not b


def test_backward_twice_doubles_the_leaves_and_nothing_else():
    a, b = Value(2.0), Value(3.0)
    c = a * b
    d = c * c
    d.backward()
    once = (a.grad, b.grad, c.grad, d.grad)
    d.backward()
    assert (a.grad, b.grad, c.grad, d.grad) == (2 * once[0], 2 * once[1], once[2], once[3])


def test_backward_of_a_leaf_adds_one():
    a = Value(2.0)
    a.backward()
    a.backward()
    assert a.grad == 2.0


def test_leaves_accumulate_over_several_roots():
    a = Value(2.0)
    (3 * a).backward()
    (a * a).backward()
    assert a.grad == 7.0


def test_constants_get_no_gradient():
    a = Value(-2.0)
    b = a**3
    b.backward()
    assert a.grad == 12.0 and b.parents[1].grad == 0.0


def test_a_leaf_that_is_not_trainable_gets_a_gradient_and_stays():
    x, w = Value(2.0, trainable=False), Value(3.0)
    (x * w).learn(0.1)
    assert (x.grad, x.data) == (3.0, 2.0) and (w.grad, w.data) == (2.0, 2.8)


def test_learn_descends():
    w = Value(5.0)
    for _ in range(100):
        loss = (w - 2.0) ** 2
        loss.zero_grad()
        loss.learn(0.1)
    assert w.data == pytest.approx(2.0, abs=1e-8)  # the error shrinks by 0.8 a step: 3 * 0.8**100


def test_zero_grad_reaches_everything_behind_a_value():
    a = Value(2.0)
    b = a * 3
    c = b + a
    c.backward()
    c.zero_grad()
    assert (a.grad, b.grad, c.grad) == (0.0, 0.0, 0.0)


def test_truth_and_numbers_of_a_value():
    assert bool(Value(-0.5)) and not bool(Value(0.0, trainable=False)) and bool(Value(math.nan))
    assert not Value(1.0) - 1 and Value(0.0) + 1
    assert max(Value(1.0), Value(3.0)).data == 3.0
    assert sorted([Value(2.0), Value(1.0)])[0].data == 1.0


def test_values_are_told_apart_by_identity_in_sets_and_compared_by_number():
    a, b = Value(1.0), Value(1.0)
    assert len({a, b}) == 2 and (a == b).data == 1.0 and (a != b).data == 0.0
    assert (a == None) is False and (a == "1") is False  # noqa: E711


def test_a_parameter_is_told_apart_by_identity_where_a_truth_is_asked_for():
    """As code for micrograd does: lists of parameters, whose numbers may well be the same."""
    parameters = [Value(0.0) for _ in range(4)]
    frozen = parameters[1:3]
    frozen[0].trainable = False
    rest = [p for p in parameters if p not in frozen]
    assert list(map(id, rest)) == [id(parameters[0]), id(parameters[3])]
    assert [parameters.index(p) for p in parameters] == [0, 1, 2, 3]
    assert parameters.count(parameters[3]) == 1 and parameters != parameters[::-1]
    assert parameters == list(parameters) and not any(p is q for p in rest for q in frozen)
    parameters.remove(parameters[3])
    assert len(parameters) == 3 and parameters[0] != parameters[2]
    assert len({*parameters, *parameters}) == 3 and {parameters[2]: "c"}[parameters[2]] == "c"
    assert [p.data for p in sorted([Value(2.0), Value(1.0)])] == [1.0, 2.0]


def test_what_is_not_between_two_leaves_is_compared_by_number():
    x, y, w = Value(2.0, trainable=False), Value(2.0, trainable=False), Value(2.0)
    assert x == y and w == 2 and w * 1 == w and w == w and w * 1 == x * 1 and w != 3
    assert not (bool(w != 2) or bool(x != y) or bool(x * 1 != w))
    assert vgrad.where(w == Value(2.0), 3.0, 4.0).data == 3.0
    nan = Value(math.nan)
    assert bool(nan != nan) and not bool(nan == nan)


@pytest.mark.parametrize("ask", [bool, lambda b: b or 1.0, lambda b: not b, lambda b: any([b])])
def test_the_truth_of_a_parameter_of_zero_is_refused(ask):
    """It might be asked for the number, or whether there is a bias at all."""
    b = Value(0.0, label="b")
    with pytest.raises(TypeError, match=r"where it is 0 .got Value\(b, .*b != 0 or b is not None"):
        ask(b)
    ask(Value(0.5)), ask(b * 1)
    assert b == 0 and b is not None


FLOATS = [
    *(math.exp, math.log, math.sqrt, math.tanh, math.atan, math.gamma, math.fabs, math.isnan),
    float,
    complex,
    lambda x: math.pow(x, 2),
    lambda x: math.hypot(1.0, x),
    lambda x: math.fsum([x, x]),
    lambda x: np.interp(x, [0.0, 1.0], [0.0, 1.0]),
    lambda x: np.ma.zeros(2).__setitem__(0, x),
    lambda x: np.array([x, 1.0], float),
    lambda x: np.asarray(x, float),
    lambda x: np.array([x]).astype(float),
    lambda x: np.zeros(3).__setitem__(0, x),
    lambda x: np.float64(x),
    lambda x: statistics.fmean([x, 1.0]),
    lambda x: array.array("d", [x]),
    lambda x: "%.3f" % x,  # noqa: UP031
]


@pytest.mark.parametrize("look", FLOATS)
def test_a_float_that_would_lose_a_gradient_is_refused(look):
    """Of a leaf, of what is computed from one, and however NumPy and math come by it."""
    x = Value(0.5)
    for value in (x, x * 2, Value(0.5, trainable=False), vgrad.where(x > 0, 1.0, x)):
        with pytest.raises(TypeError, match=r"gradient they would lose .got Value.*vgrad.exp.x.*"):
            look(value)


def test_a_float_that_loses_no_gradient_is_one():
    x = Value(2.5)
    one = (x > 0) * 1.0
    constant = one.parents[1]
    for value in (x > 0, x.stop_gradient(), constant, one + constant, vgrad.where(x, 1.0, 2.0)):
        assert float(value) == value.data and type(float(value)) is float
    assert math.exp(x.stop_gradient()) == math.exp(2.5) and f"{x.data:.1f}" == "2.5"
    assert np.array([x > 1, x < 1], float).tolist() == [1.0, 0.0]


def test_whether_a_gradient_is_lost_is_found_without_recursion_and_once_per_node():
    """A deep chain, and a graph of few nodes with more paths than could ever be walked."""
    deep = wide = (Value(2.0) > 0) * 1.0
    for _ in range(5000):
        deep = deep + 1.0
    for _ in range(100):
        wide = wide + wide
    assert float(deep) == 5001.0 and float(wide) == 2.0**100


def test_steps_of_a_value_are_plain_numbers():
    x = Value(-2.5)
    steps = [int(x), math.trunc(x), math.floor(x), math.ceil(x), round(x), round(Value(3.5))]
    assert steps == [-2, -2, -3, -2, -2, 4] and {type(k) for k in steps} == {int}
    assert round(Value(2.345), 2) == round(2.345, 2) and type(round(x, 1)) is float
    with pytest.raises(OverflowError, match="infinity"):
        math.floor(Value(math.inf))


def test_a_whole_number_serves_as_an_index():
    two = Value(2.0)
    assert [5, 6, 7][two] == 7 and list(range(two)) == [0, 1] and "abcd"[two:] == "cd"
    assert np.arange(4)[two] == 2 and operator.index(two * 2) == 4
    for bad in (1.5, math.inf, math.nan):
        with pytest.raises(TypeError, match=rf"must be a whole number .got {bad}.; use round"):
            [5, 6, 7][Value(bad)]
    with pytest.raises(ValueError, match="a whole number, 1 or more"):
        vgrad.draw(two, digits=two)


@pytest.mark.parametrize("sequence", [[1.0], (1.0,), "a", b"a", deque([1.0]), array.array("d")])
def test_a_list_is_not_repeated_as_often_as_a_value_says(sequence):
    for times in (lambda v: sequence * v, lambda v: v * sequence, lambda v: ops.mul(v, sequence)):
        with pytest.raises(TypeError, match=r"must not be multiplied by a Value .*x \* v for x in"):
            times(Value(2.0))


def test_a_users_own_sequence_still_says_what_times_means():
    class Vector(list):
        def __rmul__(self, v):
            return Vector(v * x for x in self)

    assert [x.data for x in Value(2.0) * Vector([1.0, 3.0])] == [2.0, 6.0]


def test_values_are_printed_in_any_format():
    x = Value(2.34567, label="x")
    assert f"{x:.2f} {x:>8.1e}" == "2.35  2.3e+00" and "{:.3g}".format(x) == "2.35"  # noqa: UP032
    assert f"{x}" == "%s" % x == str(x) == repr(x)  # noqa: UP031


def test_values_take_attributes_of_their_users():
    """As micrograd's do, which optimisers use; copies and pickles keep them, interior ones too."""
    p = Value(0.5, label="p")
    p.momentum, p.name = 0.9, "weight"
    y = p * p
    y.note = [p]
    for twin in (copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert (twin.momentum, twin.name, twin.label, twin.trainable) == (0.9, "weight", "p", True)
    again = pickle.loads(pickle.dumps(y))
    assert again.note[0] is again.parents[0] and again.parents[0].name == "weight"
    with pytest.raises(AttributeError, match="velocity"):
        print(p.velocity)


def test_a_subclass_takes_attributes_and_computes_as_values_do():
    class Parameter(Value):
        pass

    w, x = Parameter(3.0), Value(2.0)
    w.m = 0.5
    y = w * x + w**2
    y.backward()
    assert (y.data, w.grad, x.grad, w.m) == (15.0, 8.0, 3.0, 0.5)
    twin = copy.deepcopy(w)
    assert (type(twin), twin.m, pickle.loads(pickle.dumps(x)).data) == (Parameter, 0.5, 2.0)
    program = vgrad.compile(lambda x: w * x + w, parameters=[w])
    assert program.value_and_grad([3.0], [2.0])[1].tolist() == [3.0]
    program.assign([4.0])
    assert w.data == 4.0 and vgrad.compile(lambda x: x * w).theta([1.0]).tolist() == [4.0]


@pytest.mark.parametrize(
    "bad",
    ["3", None, 1j, [1.0], np.array([1.0]), object(), Value(1.0), np.timedelta64(5, "s")],
)
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match="label must be a string"):
        Value(1.0, (Value(2.0),), "+")
    with pytest.raises(TypeError, match="must be a"):
        Value(bad)


@pytest.mark.parametrize("bad", ["3", None, 1j, object()])
def test_operators_refuse_what_is_no_number_and_change_nothing(bad):
    v = Value(1.0)
    for f in (operator.add, operator.mul, operator.truediv, operator.pow, operator.gt):
        with pytest.raises(TypeError, match="Value"):
            f(v, bad)
        with pytest.raises(TypeError, match="Value"):
            f(bad, v)
    assert (v.data, v.grad, v.parents) == (1.0, 0.0, ())


@pytest.mark.parametrize("number", [3, np.float32(0.1), np.float64(1e300), np.int8(100), True])
def test_data_set_by_hand_counts_as_a_float(number):
    """No other kind of number gets in, with its own precision, overflow and warnings."""
    a = Value(0.0)
    a.data = number
    assert type(a.data) is float and a.data == float(number)
    assert (a * a).data == float(number) * float(number) and (a / 0.0).data == math.inf


@pytest.mark.parametrize("bad", ["3", None, 1j, [1.0], Value(2.0)])
def test_data_set_by_hand_must_be_a_number(bad):
    a = Value(1.0)
    with pytest.raises(TypeError, match="must be a"):
        a.data = bad
    assert a.data == 1.0


def test_values_copy_and_pickle():
    a = Value(2.0, label="a")
    b = a * a + 1
    for twin in (copy.deepcopy(b), pickle.loads(pickle.dumps(b))):
        twin.backward()
        leaf = twin.parents[0].parents[0]
        assert (leaf.label, leaf.grad, a.grad) == ("a", 4.0, 0.0) and twin.op is ops.add


def through_pickle(protocol):
    return lambda x: pickle.loads(pickle.dumps(x, protocol))


def in_python(x):
    """By the pickler that is written in Python, which others are derived from."""
    file = io.BytesIO()
    pickle._Pickler(file).dump(x)
    return pickle.loads(file.getvalue())


COPIES = {"deepcopy": copy.deepcopy, "python": in_python} | {
    f"protocol {k}": through_pickle(k) for k in range(pickle.HIGHEST_PROTOCOL + 1)
}
copies = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


def attributes(root: Value) -> list[tuple]:
    """Of all values below, from the root on, with the places of the parents."""
    nodes = reachable(root)
    place = {x: k for k, x in enumerate(nodes)}
    return [
        (x.op, x.data, x.grad, x.grad is NO_GRADIENT, x.level, x.label, x.trainable, line, parents)
        for x in nodes
        for line, parents in [(getattr(x, "line", None), [place[p] for p in x.parents])]
    ]


def some_graph() -> tuple[Value, list[Value]]:
    with vgrad.source_lines():
        a, b = Value(2.0, "a"), Value(-0.5, trainable=False)
        hidden = vgrad.where(a > b, (a * b).tanh(), a) ** 2
        loss = (hidden + hidden * a - 3) * a
    hidden.label = "hidden"
    hidden.backward()
    return loss, [a, b, hidden]


@copies
def test_a_copy_has_every_attribute(copied):
    """Also which gradients no backward pass has computed, and the lines that made the values."""
    loss, _ = some_graph()
    assert any(x[3] for x in attributes(loss)) and not all(x[3] for x in attributes(loss))
    assert attributes(copied(loss)) == attributes(loss)
    loss.backward()
    twin = copied(loss)
    twin.zero_grad()
    assert attributes(loss) != attributes(twin) and loss.parents[0].grad == 2.0


@copies
@pytest.mark.parametrize("order", [1, -1], ids=["the root first", "the root last"])
def test_what_is_copied_together_stays_together(copied, order):
    """Leaves, constants, inner values and several roots: each is one object in all places."""
    loss, others = some_graph()
    other = loss.parents[0] * others[0] + 1
    together = [loss, other, *others, *reachable(loss), others[0]][::order]
    twins = copied({"all": together, "again": together[::-1]})
    assert [*map(id, twins["again"])] == [*map(id, twins["all"][::-1])]
    nodes, same = reachable(loss, other), reachable(*twins["all"])
    assert len(same) == len(nodes) and not set(nodes) & set(same)
    twin = dict(zip(together, twins["all"]))
    for x in together:
        assert twin[x].data == x.data and twin[x].op is x.op
        assert all(twin.get(p, q) is q for p, q in zip(x.parents, twin[x].parents))


def test_a_shallow_copy_has_the_very_parents():
    loss, (a, *_) = some_graph()
    for x in (loss, a):
        twin = copy.copy(x)
        assert twin is not x and attributes(twin) == attributes(x)
        assert all(p is q for p, q in zip(twin.parents, x.parents))


class Named(Value):
    """A number to which its users add attributes."""


@copies
def test_attributes_of_ones_own_may_lead_back_to_the_graph(copied):
    leaf = Named(3.0)
    leaf.loss = loss = leaf * leaf + 1
    leaf.note, leaf.nothing = ["kept"], None
    for twin in (copied(leaf), copied(loss).parents[0].parents[0], copied([loss, leaf])[1]):
        assert type(twin) is Named and (twin.note, twin.nothing) == (["kept"], None)
        assert twin.loss.parents[0].parents == (twin, twin) and twin is not leaf


@pytest.mark.parametrize("copied", [COPIES[k] for k in ("deepcopy", "python", "protocol 5")])
def test_a_chain_is_copied_whatever_its_length(copied):
    root = x = Value(0.5)
    chain = [root]
    for _ in range(3_000):
        root = -root
        chain.append(root)
    for twins in (copied([root, x]), copied([x, root])[::-1], copied(chain)[::-1]):
        assert (twins[0].data, twins[0].level) == (0.5, 3_000) and len(reachable(twins[0])) == 3_001
        twins[0].backward()
        assert (twins[-1].grad, x.grad) == (1.0, 0.0)


def test_a_graph_is_pickled_once():
    """However many of its values go: twice the values take no more than a reference each."""
    loss = sum((Value(float(k)) * 2).tanh() for k in range(100))
    nodes = [x for x in reachable(loss) if x.level]
    one, all_ = len(pickle.dumps(loss)), len(pickle.dumps([loss, *nodes]))
    assert all_ < one + 20 * len(nodes)
    assert len(pickle.dumps(Value(2.0))) < 110


def test_pickles_at_once_and_pickles_that_fail():
    """One in another, one that fails half-way, one that is thrown away, two by one pickler."""

    class Inside:
        def __reduce__(self):
            return pickle.loads, (pickle.dumps(loss),)

    class Broken:
        def __reduce__(self):
            raise ZeroDivisionError

    loss, _ = some_graph()
    first, second = pickle.loads(pickle.dumps([loss, Inside()]))
    assert attributes(first) == attributes(second) == attributes(loss) and first is not second
    with pytest.raises(ZeroDivisionError):
        pickle.dumps([loss, Broken()])
    assert attributes(pickle.loads(pickle.dumps(loss))) == attributes(loss)
    kept, other = loss.__reduce_ex__(4), Value(1.0) + 1
    other.__reduce_ex__(4)  # and what it gave is gone, while that of loss is not
    assert attributes(pickle.loads(pickle.dumps(other))) == attributes(other) and kept
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.dump(loss.parents[0])
    pickler.dump(loss)
    unpickler = pickle.Unpickler(io.BytesIO(file.getvalue()))
    inner, outer = unpickler.load(), unpickler.load()
    assert outer.parents[0] is inner and attributes(outer) == attributes(loss)


def test_copies_keep_nothing_alive():
    """Neither those that are made, nor what they are made of: all goes without the collector."""
    gc.collect()
    gc.disable()
    try:
        before = living_values()
        loss, others = some_graph()
        others += [copy.copy(loss), copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))]
        assert living_values() > before + 20
        del loss, others
        assert living_values() == before
    finally:
        gc.enable()


def living_values() -> int:
    return sum(type(x) is Value for x in gc.get_objects())


def test_a_graph_goes_when_its_root_goes():
    """No closures and no cycles keep it: reference counts free it, without the collector."""
    gc.collect()
    gc.disable()
    try:
        before = living_values()
        loss = sum((Value(float(i)) * 2).tanh() for i in range(50))
        loss.backward()
        assert living_values() > before + 100
        del loss
        assert living_values() == before
    finally:
        gc.enable()


def test_a_chain_of_a_million(chain_of_a_million):
    """It builds, runs backward, is pickled, captured and freed; see chain_of_a_million.py."""
    chain_of_a_million.result()


@pytest.mark.parametrize("name", [x for x in vars(math) if not x.startswith("_")])
def test_a_function_of_math_is_there_or_an_error_says_what_to_write(name):
    if not callable(getattr(math, name)) or hasattr(vgrad, name):
        return
    with pytest.raises(AttributeError, match=f"no '{name}'") as caught:
        getattr(vgrad, name)
    integers = {"comb", "perm", "gcd", "lcm", "isqrt", "frexp", "ldexp", "nextafter", "ulp"}
    others = integers | {"sumprod", "fma", "erfinv"}
    assert name in others or "; use " in str(caught.value)


def test_statistics_are_refused():
    with pytest.raises(TypeError, match=r"use arithmetic, as in vgrad.sum\(xs\) / len\(xs\)"):
        statistics.mean([Value(1.0), Value(2.0)])
