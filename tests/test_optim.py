"""The optimisers against their published formulas, on theta and on Values alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vgrad import ShapeError, Value, optim

MAKERS = {
    "sgd": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.1, momentum=0.9),
    "adam": lambda: optim.Adam(0.1),
    "adam, other settings": lambda: optim.Adam(0.01, beta1=0.85, beta2=0.99, eps=1e-4),
    "falling rate": lambda: optim.SGD(lambda k: 1.0 - 0.09 * k),
}


def gradient(theta):
    return [2 * theta[0], -math.sin(theta[1])]


def test_sgd_by_hand():
    theta = np.array([1.0, 2.0])
    sgd = optim.SGD(0.5, momentum=0.5)
    sgd.step(theta, [1.0, -2.0])
    sgd.step(theta, np.array([1.0, 0.0]))
    # v = 1, then 1.5; and -2, then -1
    assert theta.tolist() == [1.0 - 0.5 - 0.75, 2.0 + 1.0 + 0.5] and sgd.steps == 2


def test_adam_by_hand():
    """Kingma and Ba's algorithm 1, written out again in plain floats; a few roundings apart."""
    theta, adam = np.array([1.0]), optim.Adam(0.1, beta1=0.8, beta2=0.9, eps=1e-3)
    x = m = v = 0.0
    x = 1.0
    for t in range(1, 6):
        g = 3 * x - t
        adam.step(theta, [g])
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        x -= 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 1e-3)
        assert theta[0] == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize("name", MAKERS)
def test_theta_and_values_take_the_same_steps(name):
    on_theta, on_values = MAKERS[name](), MAKERS[name]()
    theta, values = np.array([3.0, 1.0]), [Value(3.0), Value(1.0)]
    same = theta
    for _ in range(10):
        on_theta.step(theta, gradient(theta))
        for v, g in zip(values, gradient([v.data for v in values])):
            v.grad = g
        on_values.step(values)
        assert [v.data for v in values] == theta.tolist()
        assert all(type(v.data) is float for v in values)
    assert theta is same and theta[0] < 3.0


def test_the_rate_is_a_number_or_a_function_of_the_step():
    seen = []
    sgd = optim.SGD(lambda k: seen.append(k) or 1.0)
    theta = np.zeros(1)
    for _ in range(3):
        sgd.step(theta, [1.0])
    assert seen == [0, 1, 2] and theta.tolist() == [-3.0]


def test_a_value_that_is_not_trainable_stays():
    a, b = Value(1.0), Value(1.0, trainable=False)
    a.grad = b.grad = 1.0
    optim.Adam(0.1).step([a, b])
    assert a.data < 1.0 and b.data == 1.0


@pytest.mark.parametrize(
    "theta, grad, kind, message",
    [
        (np.zeros(2), [1.0], ShapeError, r"grad must have theta's shape \(2,\) \(got \(1,\)\)"),
        (np.zeros(2, np.float32), [1.0, 1.0], TypeError, r"must be float64 \(P,\) \(got float32"),
        (np.zeros((2, 1)), np.ones((2, 1)), TypeError, r"got float64 \(2, 1\)"),
        (np.zeros(2), None, TypeError, "grad must hold real numbers"),
        ([Value(1.0)] * 2, [1.0, 1.0], TypeError, "left out for Values"),
        ([1.0, 2.0], None, TypeError, "a float64 array or a list of Values"),
    ],
)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_bad_steps_are_refused_and_change_nothing(make, theta, grad, kind, message):
    optimiser = make()
    optimiser.step(np.zeros(2), [1.0, 1.0])
    numbers = [x.data if isinstance(x, Value) else x for x in np.ravel(theta)]
    with pytest.raises(kind, match=message):
        optimiser.step(theta, grad)
    assert numbers == [x.data if isinstance(x, Value) else x for x in np.ravel(theta)]
    assert optimiser.steps == 1


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_theta_must_fit_the_state_of_earlier_steps(name):
    optimiser = MAKERS[name]()
    optimiser.step(np.zeros(2), [1.0, 1.0])
    with pytest.raises(ShapeError, match=r"keep its shape \(2,\) .* \(got \(3,\)\)"):
        optimiser.step(np.zeros(3), np.ones(3))
    assert optimiser.steps == 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_that_fails_leaves_the_state_alone(name):
    """The step after it is the one that would have come without it."""
    failed, plain = MAKERS[name](), MAKERS[name]()
    frozen = np.zeros(2)
    frozen.flags.writeable = False
    with pytest.raises(TypeError, match="must be writeable"):
        failed.step(frozen, [1.0, 1.0])
    rate, failed.rate = failed.rate, "fast"
    with pytest.raises(TypeError, match="must be a real number .got 'fast'"):
        failed.step(np.zeros(2), [1.0, 1.0])
    failed.rate = rate
    a, b = np.zeros(2), np.zeros(2)
    failed.step(a, [1.0, -2.0])
    plain.step(b, [1.0, -2.0])
    assert a.tolist() == b.tolist() and failed.steps == 1


def test_plain_descent_keeps_no_state():
    sgd = optim.SGD(0.5)
    for grad, want in (([math.inf], -math.inf), ([1.0], -0.5), ([1.0, 2.0], -0.5)):
        theta = np.zeros(len(grad))
        sgd.step(theta, grad)
        assert theta[0] == want


def test_values_may_come_from_a_generator():
    w = Value(2.0)
    w.grad = 1.0
    optim.SGD(0.5).step(p for p in [w])
    assert w.data == 1.5
