"""Layers as micrograd has them, on every kind of number."""

from __future__ import annotations

import random

import numpy as np
import pytest

import vgrad
from vgrad import ShapeError, Value, nn


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
    assert repr(nn.Neuron(2)) == "ReLUNeuron(2)"
    assert repr(nn.Neuron(2, nonlin=False)) == "LinearNeuron(2)"
    assert repr(nn.Layer(2, 2, nonlin=False)) == "Layer of [LinearNeuron(2), LinearNeuron(2)]"
    assert repr(nn.MLP(2, [1, 1], "tanh")) == (
        "MLP of [Layer of [TanhNeuron(2)], Layer of [LinearNeuron(1)]]"
    )
    neuron = nn.Neuron(2, False)
    assert neuron([1.0, 1.0]).data == pytest.approx(sum(w.data for w in neuron.w), rel=1e-15)


def test_bad_arguments():
    with pytest.raises(ShapeError, match=r"a ReLUNeuron\(2\) takes 2 numbers \(got 3\)"):
        nn.MLP(2, [3, 1])([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"nouts must be the layers' sizes.* .got 16."):
        nn.MLP(2, 16)
    for call in (
        lambda: nn.Neuron(2, activation="gelu"),
        lambda: nn.MLP(2, [1], last="softmax"),
        lambda: nn.MLP(2, [2, 1], activation="linear"),
    ):
        with pytest.raises(ValueError, match="must be one of"):
            call()
