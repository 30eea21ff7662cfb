"""Which sweep is asked for what: a result that is not finite is redone, and no more than that."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import same_bits

import vgrad
from vgrad import Value, nn
from vgrad.compiler import FusedSweep
from vgrad.flat import PlainSweep

MODEL = nn.MLP(2, [5, 1], activation="tanh", rng=random.Random(0))
PARAMETERS = MODEL.parameters()
rng = np.random.default_rng(0)


def loss(x):
    """Infinite where x[0] is 0, and nan below."""
    return vgrad.log(x[0]) * MODEL(x) + 0.1 * sum(p * p for p in PARAMETERS)


@pytest.fixture
def asked(monkeypatch):
    """The sweeps that were asked, by which method, and for how many samples."""
    calls = []
    for kind in (FusedSweep, PlainSweep):
        for method in ("outputs", "gradient", "input_gradients", "doubtful"):
            if hasattr(kind, method):
                monkeypatch.setattr(kind, method, noting(calls, method, getattr(kind, method)))
    return calls


def noting(calls, method, right):
    def noted(sweep, theta, arrays, batch, *options):
        if isinstance(sweep, PlainSweep):
            name = {"quick": "quick", "careful": "plain", "strict": "strict"}[sweep.zeros]
        else:
            name = ("quick", "careful")[sweep.careful]
        calls.append((name, method, batch))
        return right(sweep, theta, arrays, batch, *options)

    return noted


def with_zeros(batch, places):
    """Samples of which these are not finite."""
    x = rng.uniform(0.5, 2, size=(batch, 2))
    x[places, 0] = 0.0
    return x


def both(asked, fn, parameters, theta, x, call, tile=None, **options):
    """The results of a fused and of a plain program; `asked` keeps what the fused one asked."""
    programs = [vgrad.compile(fn, parameters, fuse=fuse, tile=tile) for fuse in (False, True)]
    want = getattr(programs[0], call)(theta, x, **options)
    asked.clear()
    return getattr(programs[1], call)(theta, x, **options), want


def agree(got, want):
    """To 1e-12, as sums in another order do, and nan and inf in the same places."""
    for a, b in zip(np.atleast_1d(*got), np.atleast_1d(*want)):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_what_is_finite_is_asked_for_once(asked):
    program, x = vgrad.compile(loss, PARAMETERS), with_zeros(7, [])
    theta = program.theta()
    program(theta, x)
    program.value_and_grad(theta, x)
    program.input_grads(theta, x)
    assert asked == [("quick", method, 7) for method in ("outputs", "gradient", "input_gradients")]


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_what_is_finite_is_checked_at_no_cost_and_doubts_by_a_strict_sweep(fuse, asked):
    """Of those samples alone whose gradient was not finite at first."""
    fn = lambda x: vgrad.where(x > 0, vgrad.sqrt(x), 0.0)  # noqa: E731
    program = vgrad.compile(fn, [], fuse=fuse, check_finite=True)
    program.input_grads([], np.ones(50))
    program.value_and_grad([], np.ones(50))
    assert asked == [("quick", "input_gradients", 50), ("quick", "gradient", 50)]
    asked.clear()
    program.input_grads([], with_zeros(50, [3, 41])[:, 0])
    assert [asked[0], asked[-1]] == [
        ("quick", "input_gradients", 50),
        ("strict", "input_gradients", 2),
    ]


def test_without_fusion_the_plain_sweep_alone_is_asked_again(asked):
    """However many samples there are; outputs that are not finite stand."""
    fn = lambda x: vgrad.where(x > 0, vgrad.sqrt(x * w), 0.0)  # noqa: E731
    w = Value(1.0)
    program = vgrad.compile(fn, [w], fuse=False)
    x = with_zeros(2000, range(0, 2000, 2))[:, 0]
    assert np.isfinite(program.value_and_grad([1.0], x)[1])
    assert asked == [("quick", "gradient", 2000), ("plain", "gradient", 2000)]
    asked.clear()
    assert np.isnan(program([np.nan], x)).sum() == 1000
    assert asked == [("quick", "outputs", 2000)]


@pytest.mark.parametrize("call", ["__call__", "input_grads", "per_sample_grads"])
def test_only_the_samples_that_are_not_finite_are_asked_for_again(call, asked):
    """By the plain sweep at once, as the careful one goes forward in the same way."""
    theta, x = vgrad.compile(loss, PARAMETERS).theta(), with_zeros(50, [3, 41])
    got, want = both(asked, loss, PARAMETERS, theta, x, call)
    agree(got, want)
    method = "outputs" if call == "__call__" else "input_gradients"
    assert asked == [("quick", method, 50), ("plain", method, 2)]


@pytest.mark.parametrize("call", ["input_grads", "per_sample_grads"])
def test_a_finite_gradient_stands_beside_a_value_that_is_not(call, asked):
    w = Value(10.0)
    x = np.array([1.0, 1e308, 2.0])
    got, want = both(asked, lambda x: w + 10 * x, [w], [10.0], x, call)
    agree(got, want)
    assert asked == [("quick", "input_gradients", 3)]


def test_samples_whose_gradient_alone_is_lost_go_to_the_careful_sweep_first(asked):
    """At 0 a square root has a number, an infinite derivative, and behind where no gradient."""
    fn = lambda x: vgrad.where(x > 0, vgrad.sqrt(x), 0.0)  # noqa: E731
    x = np.array([0.0, 1.0, 4.0])
    assert vgrad.compile(fn, []).input_grads([], x)[0].tolist() == [0.0, 0.5, 0.25]
    assert asked == [("quick", "input_gradients", 3), ("careful", "input_gradients", 3)]
    asked.clear()
    assert vgrad.compile(fn, [], tile=2).input_grads([], x)[0].tolist() == [0.0, 0.5, 0.25]
    assert asked == [("quick", "input_gradients", 3), ("careful", "input_gradients", 1)]


def test_the_careful_sweep_may_settle_a_gradient(asked):
    w = Value(1.0)
    fn = lambda x: w * vgrad.where(x > 0, vgrad.sqrt(w * x), 0.0)  # noqa: E731
    got, want = both(asked, fn, [w], [1.0], np.array([0.0, 1.0, 4.0]), "value_and_grad")
    agree(got, want)
    assert asked == [("quick", "gradient", 3), ("careful", "gradient", 3)]


def test_a_value_that_is_lost_skips_the_careful_sweep(asked):
    theta, x = vgrad.compile(loss, PARAMETERS).theta(), with_zeros(50, [3])
    (value, grad), want = both(asked, loss, PARAMETERS, theta, x, "value_and_grad")
    agree((value, grad), want)
    assert not np.isfinite(value)
    assert asked == [("quick", "gradient", 50), ("plain", "gradient", 50)]


FIVE = [0, 7, 1500, 1501, 2999]


@pytest.mark.parametrize("tile", [None, 200])
def test_of_a_large_batch_the_plain_sweep_has_those_in_doubt_alone(tile, asked):
    v = Value(0.5)  # whose gradient is finite in all samples
    fn, parameters = lambda x: loss(x) + v * x[1] ** 2, [*PARAMETERS, v]
    theta, x = vgrad.compile(fn, parameters).theta(), with_zeros(3000, FIVE)
    got, want = both(asked, fn, parameters, theta, x, "value_and_grad", tile)
    agree(got, want)
    assert np.isinf(want[0]) and np.isnan(want[1]).any() and 0.25 < want[1][-1] < 4
    assert totals(asked) == [
        ("quick", "gradient", 3000),
        ("careful", "doubtful", 3000),
        ("careful", "gradient", 2995),
        ("plain", "gradient", 5),
    ]


def totals(asked):
    """What was asked, with the shards of one sweep added up."""
    found = []
    for name, method, batch in asked:
        if found and found[-1][:2] == (name, method):
            batch += found.pop()[2]
        found.append((name, method, batch))
    return found


def test_where_gradients_must_meet_the_plain_sweep_has_all(asked):
    """In front of a singularity of what is shared; half of the samples cancel the other half."""
    w = Value(0.0)
    fn = lambda x: x * vgrad.sqrt(w) + 0 * vgrad.log(x + 1)  # noqa: E731
    x = np.repeat([1.0, -0.5], 1500)
    x = np.append(x, [-1.0] * 750)
    x[0], x[-1] = 2.0, -2.0
    assert abs(x.sum()) < 1e-12
    got, want = both(asked, fn, [w], [0.0], x, "value_and_grad")
    assert same_bits(got[1], want[1])
    assert asked == [
        ("quick", "gradient", 3750),
        ("careful", "doubtful", 3750),
        ("careful", "gradient", 3000),
        ("plain", "gradient", 3750),
    ]


@pytest.mark.parametrize("fuse", [True, False])
def test_gradients_of_all_shards_meet_in_one_piece(fuse, asked):
    """They add up to 0 in front of a singularity, though those of each shard do not."""
    w, x = Value(0.0), np.repeat([1.0, -1.0], 20)
    program = vgrad.compile(lambda x: x * vgrad.sqrt(w), [w], tile=5, fuse=fuse)
    value, grad = program.value_and_grad([0.0], x)
    assert value == 0 and grad.tolist() == [0.0]
    assert asked[-1] == ("plain", "gradient", 40)


@pytest.mark.parametrize("batch", [50, 3000])
def test_with_aux_the_outputs_that_are_lost_are_asked_for_again(batch, asked):
    """The value is finite, so the totals are those of the quick sweep."""
    fn = lambda x: (MODEL(x), vgrad.log(x[0]), x[1] * 2)  # noqa: E731
    theta, x = vgrad.compile(loss, PARAMETERS).theta(), with_zeros(batch, [1, batch - 1])
    got, want = both(asked, fn, PARAMETERS, theta, x, "value_and_grad", aux=True)
    for a, b in zip([got[0][0], got[1], *got[0][1]], [want[0][0], want[1], *want[0][1]]):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    assert asked == [("quick", "gradient", batch), ("plain", "outputs", 2)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("batch", [50, 3000])
def test_further_outputs_are_right_where_some_samples_are_lost(dtype, batch):
    fn = lambda x: (loss(x), vgrad.log(x[0]), x[1] * 2)  # noqa: E731
    theta, x = vgrad.compile(loss, PARAMETERS).theta(), with_zeros(batch, [1, batch - 1])
    results = []
    for fuse in (True, False):
        program = vgrad.compile(fn, PARAMETERS, fuse=fuse, dtype=dtype)
        (value, outputs), grad = program.value_and_grad(theta, x, aux=True)
        results.append([value, grad, *outputs])
    for a, b in zip(*results):
        # some thousand roundings, of sums in another order
        tolerance = 1e-12 if dtype is np.float64 else 1e-3
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_executors_give_what_none_gives_where_samples_are_lost(asked):
    theta, x = vgrad.compile(loss, PARAMETERS).theta(), with_zeros(3000, [5, 2000])
    with ThreadPoolExecutor(2) as pool:
        results = []
        for executor in (None, pool):
            asked.clear()
            program = vgrad.compile(loss, PARAMETERS, tile=100, executor=executor)
            (value, outputs), grad = program.value_and_grad(theta, x, aux=True)
            results.append([value, outputs, grad, *program.input_grads(theta, x)])
    assert all(map(same_bits, *results))
    plain = [(method, batch) for name, method, batch in asked if name == "plain"]
    assert plain == [("gradient", 2), ("outputs", 2), ("input_gradients", 2)]


def test_what_overflows_in_another_order_alone_is_finite():
    """As c * (u * v) runs as (c * u) * v in a matrix product; an output besides the first."""
    big = lambda x: sum(2.0**20 * (a * x[1]) for a in [x[0], *[x[1]] * 5])  # noqa: E731
    x = rng.uniform(1, 2, size=(9, 2))
    x[2:4] = 1e308, 1e-10
    want = [big(row) for row in x.tolist()]
    program = vgrad.compile(lambda x: (x[1], big(x), x[0] * x[1]), [])
    (_, (_, got, _)), _ = program.value_and_grad([], x, aux=True)
    np.testing.assert_allclose(got, want, rtol=1e-14)  # six terms, and no more roundings than that
    np.testing.assert_allclose(program([], x)[1], want, rtol=1e-14)


def test_a_gradient_that_is_lost_beside_a_huge_one_does_not_warn():
    w, v = Value(0.0), Value(1.0)
    fn = lambda x: vgrad.where(x > 0, vgrad.sqrt(x * w), 0.0) + 1e200 * v  # noqa: E731
    value, grad = vgrad.compile(fn, [v, w]).value_and_grad([1.0, 0.0], [0.0])
    assert value == 1e200 and grad.tolist() == [1e200, 0.0]
