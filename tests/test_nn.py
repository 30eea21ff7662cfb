"""Layers as micrograd has them, on every kind of number."""

from __future__ import annotations

import random

import numpy as np
import pytest

import vgrad
from vgrad import ShapeError, Value, nn, optim
from vgrad.trees import as_tree


def test_weights_are_drawn_as_micrograd_draws_them():
    """Neuron by neuron from random.uniform(-1, 1), biases 0, from the module or from an rng."""
    random.seed(1337)
    model = nn.MLP(2, [16, 16, 1])
    again = random.Random(1337)
    for layer in model.layers:
        for neuron in layer.neurons:
            assert [w.data for w in neuron.w] == [again.uniform(-1, 1) for _ in neuron.w]
            assert neuron.b.data == 0.0
    given = nn.MLP(2, [16, 16, 1], rng=random.Random(1337))
    assert [p.data for p in given.parameters()] == [p.data for p in model.parameters()]
    # the first weight of micrograd's notebook after random.seed(1337)
    assert model.layers[0].neurons[0].w[0].data == 0.23550571390294128


def test_parameters_in_order_and_zero_grad():
    model = nn.MLP(3, [4, 4, 1])
    parameters = model.parameters()
    first = model.layers[0].neurons[0]
    assert len(parameters) == 41 and parameters[:4] == [*first.w, first.b]
    model([1.0, 2.0, 3.0]).backward()
    assert any(p.grad for p in parameters)
    model.zero_grad()
    assert not any(p.grad for p in parameters)
    assert nn.Module().parameters() == []


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("last", ["linear", "relu", "tanh"])
def test_activations_by_hand(activation, last):
    """Against plain NumPy on the same weights; sums of 3 terms differ by a few roundings."""
    model = nn.MLP(3, [4, 2], activation, last, rng=random.Random(0))
    act = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "linear": lambda z: z}
    x = np.array([0.5, -1.0, 2.0])
    for layer, kind in zip(model.layers, (activation, last)):
        W = np.array([[w.data for w in n.w] for n in layer.neurons])
        x = act[kind](W @ x + [n.b.data for n in layer.neurons])
    assert [v.data for v in model([0.5, -1.0, 2.0])] == pytest.approx(x.tolist(), rel=1e-14)


def test_a_model_works_on_floats_values_arrays_and_nodes():
    model = nn.MLP(2, [3, 1], rng=random.Random(0))
    want = model([1.0, -2.0]).data
    assert model([Value(1.0), Value(-2.0)]).data == want
    assert model(map(float, (1, -2))).data == model(Value(x) for x in (1.0, -2.0)).data == want
    assert model((1.0, -2.0)).data == model(np.array([1.0, -2.0])).data == want
    program = vgrad.compile(model, parameters=model.parameters())
    assert program(program.theta(), [[1.0, -2.0]]).tolist() == [want]


def test_one_neuron_gives_its_number_and_takes_one():
    assert isinstance(nn.Layer(2, 1)([1.0, 2.0]), Value)
    assert len(nn.Layer(2, 3)([1.0, 2.0])) == 3
    assert isinstance(nn.MLP(2, [1, 1, 1])([1.0, 2.0]), Value)
    program = vgrad.compile(nn.MLP(1, [1, 1]))
    assert program.theta([0.5]).shape == (4,) and program.theta([[0.5]]).shape == (4,)


def test_micrograds_own_arguments_work():
    neuron = nn.Neuron(2, False)
    assert neuron([1.0, 1.0]).data == pytest.approx(sum(w.data for w in neuron.w), rel=1e-15)
    assert not nn.Layer(2, 2, nonlin=False).neurons[1].nonlin


def leaky(x):
    return x if x > 0 else 0.1 * x


class Line(nn.Module):
    def __init__(self):
        self.w, self.b = Value(2.0), Value(1.0)


@pytest.mark.parametrize(
    "model, text",
    [
        (nn.Neuron(0), "Neuron(0, relu): 1 parameter"),
        (nn.Neuron(2, nonlin=False), "Neuron(2, linear): 3 parameters"),
        (nn.Layer(2, 3, activation=vgrad.gelu), "Layer(2, 3, gelu): 9 parameters"),
        (nn.Layer(2, 0), "Layer(2, 0, relu): 0 parameters"),
        (nn.MLP(2, [16, 16, 1]), "MLP(2, [16, 16, 1], relu): 337 parameters"),
        (nn.MLP(2, (4, 3), leaky, "tanh"), "MLP(2, [4, 3], leaky, last=tanh): 27 parameters"),
        (Line(), "Line: 2 parameters"),
    ],
)
def test_a_model_prints_as_one_line(model, text):
    assert repr(model) == text


@pytest.mark.parametrize(
    "model, names",
    [
        (nn.Neuron(2), ["w[0]", "w[1]", "b"]),
        (nn.Layer(1, 2), ["w[0, 0]", "b[0]", "w[1, 0]", "b[1]"]),
        (
            nn.MLP(1, [2, 1]),
            [
                *(f"layers[0].{p}" for p in ("w[0, 0]", "b[0]", "w[1, 0]", "b[1]")),
                *(f"layers[1].{p}" for p in ("w[0, 0]", "w[0, 1]", "b[0]")),
            ],
        ),
    ],
)
def test_parameters_have_names(model, names):
    """The labels of the `Value`s, and the names in theta's order."""
    assert [p.label for p in model.parameters()] == names == list(as_tree(model).names)
    assert as_tree(model.parameters()).names == tuple(names)


def test_names_are_in_pictures_but_not_in_numpy_source():
    model = nn.MLP(2, [3, 1], rng=random.Random(0))
    assert "layers[0].w[2, 1]" in vgrad.to_dot(model([1.0, 2.0]))
    source = vgrad.trace(model, (2,), parameters=model.parameters()).to_numpy_source()
    assert "W1 = theta[:9]" in source and "layers" not in source


def test_a_module_finds_its_parameters():
    class Model(nn.Module):
        def __init__(self):
            self.w = [Value(1.0), Value(2.0, trainable=False)]
            self.parts = {"head": nn.Neuron(1), "rows": np.array([[Value(3.0)]])}
            self.again, self.mean = self.w, self.w[0] * 2.0
            self.data, self.name = [1.0] * 10, "model"

    model = Model()
    head, ((row,),) = model.parts.values()
    assert model.parameters() == [model.w[0], *head.w, head.b, row]
    head.b.grad = 1.0
    model.zero_grad()
    assert head.b.grad == 0.0


# --- activations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", nn.ACTIVATIONS)
def test_every_activation_by_name_and_as_op(name):
    neuron = nn.Neuron(1, activation=name)
    neuron.w[0].data, neuron.b.data = 0.5, 1.0
    neuron(0.5).backward()
    op = getattr(vgrad, name, None) or nn.ACTIVATIONS[name]
    assert neuron(0.5).data == pytest.approx(op(1.25), rel=1e-15, nan_ok=True)
    assert neuron.b.grad or np.isnan(op(1.25))  # arcsin and the like know no 1.25
    neuron.activation = op
    assert neuron(0.5).data == pytest.approx(op(1.25), rel=1e-15, nan_ok=True)


def test_which_ops_are_activations():
    wanted = {"relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "leaky_relu", "sin"}
    assert wanted <= set(nn.ACTIVATIONS)
    assert not {"floor", "sign", "stop_gradient", "add", "const", "eq"} & set(nn.ACTIVATIONS)


@pytest.mark.parametrize("activation", ["elu", vgrad.gelu, leaky])
def test_activations_in_a_compiled_model(activation):
    model = nn.MLP(2, [3, 2], activation, "sigmoid", rng=random.Random(0))
    program = vgrad.compile(lambda x: tuple(model(x)), parameters=model.parameters())
    X = np.random.default_rng(0).normal(size=(5, 2))
    got = np.transpose(program(program.theta(), X))
    want = [[v.data for v in model(row)] for row in X.tolist()]
    assert got == pytest.approx(np.array(want), rel=1e-12)


# --- cross-entropy -------------------------------------------------------------------------------

# PyTorch 2's cross_entropy in float64, and its gradient.
CASES = [
    (
        *([1.0, 2.0, 4.0], 2, 0.16984601955628567),
        [0.04201006613406605, 0.11419519938459448, -0.15620526551866054],
    ),
    (
        *([1000.0, -1000.0, 999.0], 2, 1.3132616875182228),
        [0.7310585786300049, 0.0, -0.7310585786300049],
    ),
    (
        *([1000.0, -1000.0, 999.0], 0, 0.31326168751822286),
        [-0.2689414213699951, 0.0, 0.2689414213699951],
    ),
    (
        *([-0.5, 0.3, 0.1], [0.2, 0.5, 0.3], 1.0389247158518509),
        [-0.0018883891325029989, -0.05909450160481222, 0.060982890737315],
    ),
]


@pytest.mark.parametrize("logits, target, want, grad", CASES)
def test_cross_entropy_on_every_kind_of_number(logits, target, want, grad):
    """Sums of three terms: a few roundings apart, those of the sums and not of the logits."""
    assert nn.cross_entropy(logits, target) == pytest.approx(want, rel=1e-14)
    assert nn.cross_entropy(np.array(logits), np.array(target)) == pytest.approx(want, rel=1e-14)
    xs = [Value(x) for x in logits]
    given = Value(target) if isinstance(target, int) else [Value(p) for p in target]
    nn.cross_entropy(xs, given).backward()
    assert [x.grad for x in xs] == pytest.approx(grad, rel=1e-13)
    program = vgrad.compile(nn.cross_entropy, parameters=[])
    assert program([], [logits], [target]) == pytest.approx([want], rel=1e-13)
    assert program.input_grads([], [logits], [target])[0][0] == pytest.approx(grad, rel=1e-13)
    assert vgrad.gradcheck(lambda x: nn.cross_entropy(x, target), logits)


def test_cross_entropy_keeps_the_digits_of_a_small_loss():
    """exp(-20) next to 1e6 would be lost in a difference of logits."""
    loss = nn.cross_entropy([1e6, 1e6 - 20], 0)
    assert loss == pytest.approx(2.0611536e-9, rel=1e-6)
    assert (
        nn.cross_entropy([0.0, -np.inf], 0) == 0.0 and nn.cross_entropy([0.0, -np.inf], 1) == np.inf
    )


def test_a_classifier_of_three_classes_learns():
    X = np.random.default_rng(0).normal(size=(60, 2))
    y = (X[:, 0] > 0) + (X[:, 1] > 0.0).astype(int)
    model = nn.MLP(2, [8, 3], "tanh", rng=random.Random(0))

    def loss(x, k):
        logits = model(x)
        return nn.cross_entropy(logits, k), *logits

    program = vgrad.compile(loss, parameters=model.parameters())
    theta, adam = program.theta(), optim.Adam(0.05)
    for _ in range(150):
        adam.step(theta, program.value_and_grad(theta, X, y)[1])
    _, *logits = program(theta, X, y)
    assert (np.argmax(logits, axis=0) == y).mean() > 0.95


@pytest.mark.parametrize(
    "logits, target, kind, message",
    [
        (Value(1.0), 0, ShapeError, "cross_entropy takes a sequence of one number or more"),
        ([], 0, ShapeError, "one number or more"),
        ([[1.0]], 0, ShapeError, "one number or more"),
        ([1.0, 2.0], [1.0], ShapeError, r"or 2 probabilities, one per logit \(got 1\)"),
        ([1.0, 2.0], 2, IndexError, "an integer from 0 to 1"),
        ([1.0, 2.0], 0.5, IndexError, "an integer from 0 to 1"),
        ([1.0, 2.0], "cat", TypeError, "must be a real number"),
    ],
)
def test_bad_logits_and_targets(logits, target, kind, message):
    with pytest.raises(kind, match=message):
        nn.cross_entropy(logits, target)


def test_bad_arguments():
    with pytest.raises(ShapeError, match=r"a Neuron\(2, relu\) takes 2 numbers \(got 3\)"):
        nn.MLP(2, [3, 1])([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"nouts must be the layers' sizes.* .got 16."):
        nn.MLP(2, 16)
    for call in (
        lambda: nn.Neuron(2, activation="floor"),
        lambda: nn.MLP(2, [1], last="softmax"),
        lambda: nn.MLP(2, [2, 1], activation="linear"),
    ):
        with pytest.raises(ValueError, match="must be one of abs, .*, tanh, or a function .got"):
            call()


@pytest.mark.parametrize("wrong", [3.0, -1.0, 0.5])
def test_a_label_that_is_no_class_leaves_no_gradient_to_trust(wrong):
    """Neither compiled nor on the scalar engine."""
    w = [Value(0.1), Value(0.2), Value(0.3)]
    program = vgrad.compile(lambda x, k: nn.cross_entropy([p * x for p in w], k), w)
    value, grad = program.value_and_grad([0.1, 0.2, 0.3], [1.0, 2.0], [0.0, wrong])
    assert np.isnan(value) and np.isnan(grad).all()
    loss = nn.cross_entropy([p * 2.0 for p in w], Value(wrong, trainable=False))
    loss.backward()
    assert all(np.isnan(p.grad) for p in w)
    value, grad = program.value_and_grad([0.1, 0.2, 0.3], [1.0, 2.0], [0.0, 2.0])
    assert np.isfinite([value, *grad]).all()
