"""The optimisers against their published formulas, on theta and on Values alike."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

import vgrad
from vgrad import NonFiniteError, ShapeError, Value, nn, optim
from vgrad.trees import as_tree

MAKERS = {
    "sgd": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.1, momentum=0.9),
    "adam": lambda: optim.Adam(0.1),
    "adam, other settings": lambda: optim.Adam(0.01, beta1=0.85, beta2=0.99, eps=1e-4),
    "falling rate": lambda: optim.SGD(lambda k: 1.0 - 0.09 * k),
    "decay": lambda: optim.SGD(0.1, momentum=0.9, weight_decay=0.1),
    "adam, decay": lambda: optim.Adam(0.1, weight_decay=0.1),
    "adamw": lambda: optim.AdamW(0.1),
    "clipped": lambda: optim.SGD(0.1, momentum=0.5, clip_norm=1.0),
    "rates": lambda: optim.AdamW(np.array([0.1, 0.2]), weight_decay=np.array([0.3, 0.0])),
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
        (np.zeros(2), None, TypeError, "grad must be given with theta"),
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
    with pytest.raises(TypeError, match="rate must be a real number .got 'fast'"):
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


# --- weight decay --------------------------------------------------------------------------------

# PyTorch 2, in float64, 50 steps from (3, 1, -2) of the gradient below.
TORCH = {
    "SGD(lr=0.1)": (
        lambda: optim.SGD(0.1),
        [3.755317856965677e-06, 3.121148415018168, -1.193937845123775],
    ),
    "SGD(lr=0.1, momentum=0.9, weight_decay=0.05)": (
        lambda: optim.SGD(0.1, 0.9, 0.05),
        [0.1313814117148715, 3.111008153983981, -0.008068882216255941],
    ),
    "Adam(lr=0.1)": (
        lambda: optim.Adam(0.1),
        [-0.06436382714019205, 3.11504462979808, 0.0512364865853788],
    ),
    "Adam(lr=0.1, weight_decay=0.05)": (
        lambda: optim.Adam(0.1, weight_decay=0.05),
        [-0.06679613032490164, 2.909834911976963, 0.07060369951679347],
    ),
    "AdamW(lr=0.1)": (
        lambda: optim.AdamW(0.1),
        [-0.07815327616432159, 3.103048380882432, 0.05438984741647842],
    ),
    "AdamW(lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)": (
        lambda: optim.AdamW(0.1, 0.8, 0.95, 1e-6, 0.3),
        [-0.01088857358777929, 2.561823687314538, -0.0801058564907946],
    ),
}


def slope(theta):
    """Of x**2 + cos(y) + (x * z)**2 / 8."""
    x, y, z = theta
    return np.array([2 * x + x * z * z / 4, -np.sin(y), x * x * z / 4])


@pytest.mark.parametrize("name", TORCH)
def test_fifty_steps_are_those_of_pytorch(name):
    """Formulas are evaluated in another order, so 50 steps are a few roundings of 1 apart."""
    make, want = TORCH[name]
    theta, optimiser = np.array([3.0, 1.0, -2.0]), make()
    for _ in range(50):
        optimiser.step(theta, slope(theta))
    assert theta == pytest.approx(want, rel=0, abs=1e-13)


def test_clipping_comes_before_weight_decay_as_in_pytorch():
    """Which divides by the norm plus 1e-6, so that numbers are the same to 1e-6 only."""
    theta, sgd = np.array([3.0, 1.0, -2.0]), optim.SGD(0.1, 0.5, 0.05, clip_norm=1.0)
    for _ in range(50):
        sgd.step(theta, slope(theta))
    want = [-1.1564939068885623e-06, 2.9914770136368727, -0.747645046909961]
    assert theta == pytest.approx(want, rel=0, abs=1e-6)


def test_the_decay_of_adamw_is_decoupled():
    """A gradient of 0 leaves Adam's state alone: theta shrinks by rate * decay and no more."""
    theta = np.array([2.0, 4.0])
    adamw = optim.AdamW(0.1, weight_decay=0.5)
    adamw.step(theta, [0.0, 0.0])
    assert theta.tolist() == [2.0 * 0.95, 4.0 * 0.95]
    assert not np.any(adamw.state()["arrays"])
    assert optim.AdamW().weight_decay == 0.01


def test_no_decay_is_no_addition():
    theta = np.array([np.inf, 1.0])
    optim.SGD(0.1).step(theta, [1.0, -0.0])
    assert theta[0] == np.inf


# --- one rate per parameter ----------------------------------------------------------------------


def parts():
    nesting = {"w": [[Value(1.0), Value(2.0)]], "b": Value(3.0), "off": Value(4.0, trainable=False)}
    for value in as_tree(nesting).values:
        value.grad = 1.0
    return nesting


RATES = [
    ({"w": [[0.1, 0.2]], "b": 0.3, "off": 9.0}, [0.1, 0.2, 0.3]),
    ({"w": 0.1, "b": 0.3, "off": 0.0}, [0.1, 0.1, 0.3]),
    (np.array([0.1, 0.2, 0.3]), [0.1, 0.2, 0.3]),
    (lambda k: {"w": 0.1 * (k + 1), "b": 0.0, "off": 0.0}, [0.1, 0.1, 0.0]),
    (lambda k: np.array([0.1, 0.0, 0.3]), [0.1, 0.0, 0.3]),
    (np.float32(0.5), [0.5, 0.5, 0.5]),
]


@pytest.mark.parametrize("rate, want", RATES)
def test_a_rate_per_parameter(rate, want):
    nesting, flat = parts(), np.array([1.0, 2.0, 3.0])
    optim.SGD(rate).step(nesting)
    got = [p.data for p in as_tree(nesting).values]
    assert got == pytest.approx(np.subtract([1.0, 2.0, 3.0], want), rel=1e-15)
    assert nesting["off"].data == 4.0
    optim.SGD(want).step(flat, np.ones(3))
    assert flat.tolist() == got


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_a_weight_decay_per_parameter(make):
    """Biases are left out: they move as without decay, and the weights as with it."""
    models = [nn.MLP(2, [3, 1], rng=random.Random(0)) for _ in range(3)]
    layer = {"w": 0.1, "b": 0.0}
    for model, decay in zip(models, ({"layers": [layer, layer]}, 0.1, 0.0)):
        optimiser = make(0.05, weight_decay=decay)
        for _ in range(2):
            for k, p in enumerate(model.parameters()):
                p.grad, p.data = 0.5, p.data or 1.0 + k  # biases that could decay
            optimiser.step(model)
    for some, every, none in zip(*(model.parameters() for model in models)):
        assert some.data == (none if ".b" in some.label else every).data != 0.0
        assert every.data != none.data


def test_what_holds_values_may_be_anything():
    for make in (lambda p: [p], lambda p: (p,), lambda p: {"a": [{"b": p}]}, lambda p: p, np.array):
        value = Value(1.0)
        value.grad = 1.0
        optim.SGD(0.5).step(make([value]) if make is np.array else make(value))
        assert value.data == 0.5
    neuron = nn.Neuron(1)
    before = neuron.b.data
    neuron([1.0]).backward()
    neuron.b.grad = 2.0
    optim.SGD(0.5).step(neuron)
    assert neuron.b.data == before - 1.0


@pytest.mark.parametrize(
    "settings, kind, message",
    [
        ({"rate": {"w": 0.1}}, TypeError, r"rate must be .* array \(2,\).*program.flatten\(tree\)"),
        ({"rate": [[0.1], 0.2]}, TypeError, r"program.flatten"),
        ({"rate": lambda k: {"w": 0.1}}, TypeError, r"program.flatten"),
        ({"rate": np.ones(3)}, ShapeError, r"rate must be a number or an array \(2,\)"),
        ({"rate": np.array(["a", "b"])}, TypeError, "rate must hold real numbers"),
        ({"rate": 0.1, "weight_decay": {"w": 0.1}}, TypeError, r"weight_decay must be a number or"),
        ({"rate": 0.1, "clip_norm": 0.0}, ValueError, r"norm must be above 0 \(got 0.0\)"),
        ({"rate": 0.1, "clip_norm": math.nan}, ValueError, r"norm must be above 0"),
        ({"rate": 0.1, "clip_norm": "1"}, TypeError, r"the largest norm must be a real number"),
    ],
)
@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_settings_that_do_not_fit_theta(make, settings, kind, message):
    theta, optimiser = np.ones(2), make(**settings)
    with pytest.raises(kind, match=message):
        optimiser.step(theta, [1.0, 1.0])
    assert theta.tolist() == [1.0, 1.0] and optimiser.state()["steps"] == 0
    assert not optimiser.state()["arrays"]


def test_a_rate_that_does_not_fit_the_nesting():
    nesting = parts()
    for rate, message in (
        ({"w": 0.1}, r"rate must fit the parameters: the tree must have the keys"),
        ({"w": [0.1, 0.2], "b": 0.1, "off": 0.1}, r"w must have the shape \(1, 2\)"),
        (np.ones(2), r"rate must fit the parameters"),
    ):
        with pytest.raises(ShapeError, match=message):
            optim.SGD(rate).step(nesting)
    assert [p.data for p in as_tree(nesting).values] == [1.0, 2.0, 3.0]


# --- clipping ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grad, want",
    [
        ([3.0, -4.0], [0.6, -0.8]),
        ([0.3, -0.4], [0.3, -0.4]),
        ([[3.0], [4.0]], [[0.6], [0.8]]),
        ([3e300, 4e300], [0.6, 0.8]),  # whose squares overflow
        ([3e-320, 4e-320], [3e-320, 4e-320]),  # or vanish
        ([0.0, -0.0], [0.0, 0.0]),
        ([], []),
    ],
)
def test_clipping_by_norm(grad, want):
    given = np.array(grad)
    clipped = optim.clip_by_norm(given, 1.0)
    assert clipped == pytest.approx(np.array(want), rel=1e-15) and clipped is not given
    assert given.tolist() == grad


def test_a_gradient_below_the_norm_is_the_same_to_the_bit():
    grad = np.random.default_rng(0).normal(size=100)
    norm = float(np.sqrt((grad * grad).sum()))
    assert optim.clip_by_norm(grad, norm * (1 + 1e-12)).tobytes() == grad.tobytes()
    assert optim.clip_by_norm(grad, np.inf).tobytes() == grad.tobytes()
    assert np.linalg.norm(optim.clip_by_norm(grad, norm / 3)) == pytest.approx(norm / 3, rel=1e-14)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_gradient_that_cannot_be_clipped_is_refused(bad):
    """And the step is as if it had not been tried, where PyTorch makes zeros and nans of it."""
    theta, adam = np.array([1.0, 2.0]), optim.Adam(0.1, clip_norm=1.0)
    adam.step(theta, [1.0, 1.0])
    before, state = theta.copy(), adam.state()
    message = r"grad must be finite, .*\(got .* at \[1\]; 1 of 2 numbers are not\)"
    with pytest.raises(NonFiniteError, match=message) as caught:
        adam.step(theta, [1.0, bad])
    assert caught.value.got == bad or math.isnan(bad)
    assert theta.tolist() == before.tolist() and adam.steps == 1
    assert all(map(np.array_equal, adam.state()["arrays"], state["arrays"]))


def test_a_gradient_that_cannot_be_clipped_is_named():
    model = nn.MLP(1, [2, 1])
    model.layers[0].neurons[1].b.grad = math.inf
    with pytest.raises(NonFiniteError, match=r"got inf at layers\[0\].b\[1\]; 1 of 7") as caught:
        optim.SGD(0.1, clip_norm=1.0).step(model)
    assert caught.value.label == "layers[0].b[1]"
    with pytest.raises(NonFiniteError, match=r"got nan at \[1, 0\]"):
        optim.clip_by_norm([[1.0], [math.nan]], 1.0)


# --- state ---------------------------------------------------------------------------------------


def test_adamw_goes_on_from_its_state_and_from_a_file(tmp_path):
    w, b = Value(3.0), Value(1.0)
    program = vgrad.compile(lambda x: (w * x + b) ** 2, parameters=[w, b])
    x, theta, adamw = np.array([1.0, 2.0]), program.theta([1.0]), optim.AdamW(0.1)
    for _ in range(3):
        adamw.step(theta, program.value_and_grad(theta, x)[1])
    program.save(tmp_path / "model.npz", theta, adamw)
    again = optim.AdamW(0.1)
    loaded = vgrad.Program.load(tmp_path / "model.npz", again)
    other = loaded.theta()
    for optimiser, numbers in ((adamw, theta), (again, other)):
        optimiser.step(numbers, loaded.value_and_grad(numbers, x)[1])
    assert other.tolist() == theta.tolist() and again.steps == 4
    with pytest.raises(ValueError, match=r"the optimiser's kind, Adam \(got AdamW\)"):
        vgrad.Program.load(tmp_path / "model.npz", optim.Adam())
