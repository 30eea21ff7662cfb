"""clip, softmax, logsumexp and take, on numbers, arrays, `Value`s and traced nodes alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import ShapeError, Value

INF, NAN = math.inf, math.nan

ROWS = [[1.0, -2.0], [0.5, INF], [3.0, 4.0]]
VECTORS = [[0.0], [1.0, 2.0, 3.0], [1000.0, 999.0, -1000.0], [-INF, 0.0], [5.0, 5.0, 5.0, 1.0]]

# One call each of numbers x, by the function and by other means.
CALLS = {
    "clip": (lambda x: vgrad.clip(x[0], -1, 1.5), lambda x: np.clip(x[0], -1, 1.5)),
    "softmax": (lambda x: vgrad.softmax(x)[-1], lambda x: softmax(x)[-1]),
    "logsumexp": (lambda x: vgrad.logsumexp(x), lambda x: np.logaddexp.reduce(x)),
}


def softmax(x):
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_values_on_every_kind_of_number(name, vector):
    """Numbers, `Value`s and both sweeps give the same bits or, fused, the same to 1e-12."""
    function, reference = CALLS[name]
    number = function(vector)
    # sums of at most four exponentials, each within an ulp or two
    assert number == pytest.approx(reference(vector), rel=1e-14, abs=1e-300)
    assert type(number) is float and same_bits(function(list(map(Value, vector))).data, number)
    assert same_bits(function(np.array(vector)), number)
    data = np.array([vector])
    assert same_bits(vgrad.compile(function, parameters=[], fuse=False)([], data), [number])
    assert vgrad.compile(function, parameters=[])([], data)[0] == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize("name", CALLS)
def test_gradients_agree_with_central_differences(name):
    function, _ = CALLS[name]
    for vector in ([0.3], [1.0, 2.0, 3.0], [0.0, 0.0], [30.0, -2.0, 29.0, 30.0]):
        report = vgrad.gradcheck(lambda x: function(x) * 1.5, vector)
        assert report and not report.unsure, report
        program = vgrad.compile(lambda x: function(x) * 1.5, parameters=[])
        assert vgrad.gradcheck(program, [], [vector, vector[::-1]])


def test_softmax_sums_to_one_and_its_gradient_to_zero():
    """As it does not change when all of its arguments grow by the same."""
    for vector in VECTORS[1:3]:
        xs = list(map(Value, vector))
        parts = vgrad.softmax(xs)
        assert sum(parts).data == pytest.approx(1.0, rel=1e-15)
        parts[0].backward()
        assert sum(x.grad for x in xs) == pytest.approx(0.0, abs=1e-15)


def test_logsumexp_of_infinities():
    assert vgrad.logsumexp([-INF, -INF]) == -INF
    assert vgrad.logsumexp([1.0, INF]) == INF
    assert math.isnan(vgrad.logsumexp([1.0, NAN]))
    xs = [Value(-INF), Value(2.0)]
    vgrad.logsumexp(xs).backward()
    assert [x.grad for x in xs] == [0.0, 1.0]


def test_results_come_in_the_form_of_the_arguments():
    assert isinstance(vgrad.softmax([1.0, 2.0]), list)
    assert isinstance(vgrad.softmax(np.array([1.0, 2.0])), np.ndarray)
    assert vgrad.softmax(x for x in (3.0, 3.0)) == [0.5, 0.5]
    assert vgrad.clip(np.array([-3.0, 0.5]), 0, 1).tolist() == [0.0, 0.5]
    assert vgrad.take(ROWS, 2) is ROWS[2] and vgrad.take([5.0, 6.0], np.int64(1)) == 6.0
    picked = vgrad.take(np.array(ROWS), Value(2.0))
    assert isinstance(picked, np.ndarray) and [x.data for x in picked] == [3.0, 4.0]


@pytest.mark.parametrize("fuse", [True, False])
def test_take_picks_the_same_on_every_engine(fuse):
    """Also beside rows with infinities; where there is no such row, nan."""
    program = vgrad.compile(lambda i: vgrad.take(ROWS, i), parameters=[], fuse=fuse)
    index = [2.0, 0.0, 1.0, 3.0, -1.0, 0.5, NAN]
    columns = program([], index)
    for k, i in enumerate(index):
        numbers = [x.data for x in vgrad.take(ROWS, Value(i))]
        assert same_bits([column[k] for column in columns], numbers)
        assert numbers == (
            vgrad.take(ROWS, i) if i in (0, 1, 2) else pytest.approx([NAN] * 2, nan_ok=True)
        )


def test_the_gradient_of_take_goes_to_the_row_alone():
    table = [[Value(a), Value(b)] for a, b in ROWS]

    def f(i):
        x, y = vgrad.take(table, i)
        return 2 * x + x * y

    by_hand = [[0.0, 0.0], [0.0, 0.0], [6.0, 3.0]]  # of 2 x + x y at (3, 4)
    f(Value(2.0)).backward()
    assert [[x.grad for x in row] for row in table] == by_hand
    program = vgrad.compile(f, parameters=[x for row in table for x in row])
    (by_index,) = program.input_grads(program.theta(), [2.0, 0.0])
    assert by_index.tolist() == [0.0, 0.0]
    gradients = program.per_sample_grads(program.theta(), [2.0, 0.0])
    assert gradients[0].tolist() == np.ravel(by_hand).tolist()
    assert gradients[1].tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("number", [INF, -INF, NAN])
def test_a_row_that_is_not_taken_may_hold_anything(number):
    """Though a product with 0 stands for it in the fused plan."""
    table = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
    weights = [x for row in table for x in row]
    program = vgrad.compile(lambda i: sum(vgrad.take(table, i)), weights)
    (kernel,) = [line for line in program.explain([1.0]).splitlines() if "matmul" in line]
    assert "where" not in kernel
    theta = [number, 2.0, 3.0, 4.0]
    assert program(theta, [1.0, 1.0]).tolist() == [7.0, 7.0]
    assert same_bits(program(theta, [0.0, 1.0]), [number, 7.0])
    value, grad = program.value_and_grad(theta, [1.0, 1.0])
    assert value == 7.0 and grad.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert program.per_sample_grads(theta, [1.0])[0].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert program.input_grads(theta, [1.0])[0].tolist() == [0.0]


def test_nothing_hides_what_such_a_product_makes_of_infinity():
    w = [Value(2.0), Value(3.0)]

    def low(x, a):
        total = vgrad.where(x > 1, a, 0.0) + vgrad.where(x > 0, w[1], 0.0)
        return vgrad.where(total < 10, 1.0, 2.0)

    for a, theta in ((w[0], [INF, 3.0]), (INF, [2.0, 3.0])):
        program = vgrad.compile(lambda x, a=a: low(x, a), w)
        assert program(theta, [0.5, 2.0]).tolist() == [1.0, 2.0]


def test_a_coefficient_does_not_ride_along_on_such_a_product():
    """It might overflow, where the condition says 0; nor does a number that float32 cannot hold."""
    w, where = [Value(1.0), Value(1.0)], vgrad.where

    def scaled(x):
        total = 2.0**20 * where(x > 0, w[0], 0.0)
        total += sum(where(x > k, w[1], 0.0) for k in range(1, 6)) + x
        return where(total < 5, x, -7.0)

    def large(x):
        return where(where(x > 0, 1e300, 0.0) + where(x > 1, w[1], 0.0) < 5, w[1] * x, -7.0)

    for dtype, number in ((np.float64, 1e305), (np.float32, 1e35)):
        for fn in (scaled, large):
            for fuse in (True, False):
                program = vgrad.compile(fn, w, dtype=dtype, fuse=fuse)
                assert program([number, 1.0], [-1.0, 2.0]).tolist() == [-1.0, -7.0]


def test_only_a_condition_and_a_leaf_make_a_product():
    """Near misses: a number that is not 0 or 1, another third operand, a computed number."""
    w = [Value(2.0), Value(3.0)]

    def sums(c, a, b, zero):
        return sum(vgrad.where(k, x, zero) for k, x in zip(c, (a, b)))

    for fn, want in (
        (lambda x: sums([x, x], *w, 0.0), [5.0, 0.0]),
        (lambda x: sums([x > 1, x > 0], *w, 1.0), [5.0, 2.0]),
        (lambda x: sums([x > 1, x > 0], 1 / x, w[0], 0.0), [2.5, 0.0]),
        (lambda x: sums([x > 1, x > 0], INF, w[0], 0.0), [INF, 0.0]),
        (lambda x: sums([x > 1, x == 0], *w, -0.0), [2.0, 3.0]),
    ):
        for fuse in (True, False):
            program = vgrad.compile(fn, w, fuse=fuse)
            assert program([2.0, 3.0], [2.0, 0.0]).tolist() == want


def test_what_a_gradient_stops_at():
    x = Value(3.0)
    (x * vgrad.stop_gradient(x) + x.stop_gradient()).backward()
    assert x.grad == 3.0
    program = vgrad.compile(lambda x: x * vgrad.stop_gradient(x), parameters=[])
    assert program.input_grads([], [3.0, 4.0])[0].tolist() == [3.0, 4.0]
    assert np.positive(x).op is not vgrad.ops.stop_gradient


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: vgrad.softmax([]), ShapeError, r"softmax takes a sequence of one .* \(got \[\]"),
        (lambda: vgrad.logsumexp([[1.0], [2.0]]), ShapeError, "logsumexp takes .*number or more"),
        (lambda: vgrad.softmax(np.ones((2, 2))), ShapeError, "softmax takes"),
        (lambda: vgrad.take(ROWS, 3), IndexError, r"from 0 to 2 \(got 3\)"),
        (lambda: vgrad.take(ROWS, -1), IndexError, r"\(got -1\)"),
        (lambda: vgrad.take(ROWS, 0.5), IndexError, r"\(got 0.5\)"),
        (lambda: vgrad.take(ROWS, "1"), TypeError, "must be a real number"),
        (lambda: vgrad.take([[1.0], [1.0, 2.0]], Value(0)), ShapeError, "of one length"),
        (lambda: vgrad.take([], Value(0)), ShapeError, "one row or more"),
    ],
)
def test_bad_arguments(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_a_traced_parameter_is_no_index_of_a_list():
    """Its number is theta's: `take` records the choice, a list would freeze it."""
    w = Value(1.0)
    program = vgrad.compile(lambda x: x * vgrad.take([10.0, 20.0], w), parameters=[w])
    assert program([0.0], [1.0]).tolist() == [10.0] and program([1.0], [1.0]).tolist() == [20.0]
