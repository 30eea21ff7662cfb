"""Parameters with structure: theta and back, names in messages, other models, frozen ones."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import vgrad
from vgrad import ShapeError, Value, nn, optim

X = np.random.default_rng(0).normal(size=(9, 2))


def made(kind="dict"):
    W = np.array([[Value(0.1 * i + j) for i in range(2)] for j in range(3)])
    b = [Value(0.5), Value(-0.5), Value(0.0)]
    return {"W": W, "b": b} if kind == "dict" else (W, b)


def predict(model, x):
    return vgrad.tanh(model["W"] @ x + model["b"]).sum()


def test_theta_and_back():
    model = made()
    program = vgrad.compile(lambda x: predict(model, x), model)
    assert program.names == (
        "W[0, 0]", "W[0, 1]", "W[1, 0]", "W[1, 1]", "W[2, 0]", "W[2, 1]", "b[0]", "b[1]", "b[2]",
    )  # fmt: skip
    tree = program.unflatten(program.theta())
    assert tree["W"].shape == (3, 2) and tree["b"].tolist() == [0.5, -0.5, 0.0]
    assert program.flatten(tree).tolist() == program.theta().tolist()
    _, grad = program.value_and_grad(program.theta(), X)
    assert program.unflatten(grad)["b"].tolist() == grad[6:].tolist()
    each = program.unflatten(program.per_sample_grads(program.theta(), X))
    assert each["W"].shape == (9, 3, 2) and each["b"].shape == (9, 3)


def test_another_model_of_the_same_structure():
    mine, other = made(), made()
    program = vgrad.compile(lambda x: predict(mine, x), mine)
    program.assign(np.arange(9.0), other)
    assert other["W"][2, 1].data == 5.0 and mine["W"][2, 1].data == 2.1
    assert program.theta(other).tolist() == list(range(9))
    assert program.theta().tolist() != list(range(9))
    models = [nn.MLP(2, [3, 1]) for _ in range(2)]
    for parameters in (models[0], models[0].parameters()):  # a module, or its flat list
        twin = vgrad.compile(lambda x: models[0](x), parameters)
        assert twin.theta(models[1]).tolist() == [p.data for p in models[1].parameters()]
        twin.assign(np.zeros(13), models[1])
        assert not any(p.data for p in models[1].parameters())
    for wrong in (made("tuple"), {"W": mine["W"]}, {**made(), "b": [Value(0.0)] * 1}):
        with pytest.raises(ShapeError, match="must have|must be like"):
            program.theta(wrong)
        with pytest.raises(ShapeError, match="must have|must be like"):
            program.assign(np.zeros(9), wrong)


def test_another_model_of_a_program_without_values():
    """It goes by the names, which a file keeps."""
    models = [nn.MLP(2, [3, 1]) for _ in range(2)]
    program = vgrad.compile(lambda x: models[0](x), models[0])
    program(program.theta(), X)
    loaded = pickle.loads(pickle.dumps(program))
    assert loaded.theta(models[1]).tolist() == [p.data for p in models[1].parameters()]
    loaded.assign(np.ones(13), models[1])
    assert {p.data for p in models[1].parameters()} == {1.0}
    with pytest.raises(ShapeError, match="the program's 13 parameters, by the same names, layers"):
        loaded.theta(nn.MLP(2, [2, 1]))
    with pytest.raises(ShapeError, match="by the same names"):
        loaded.theta({"layers": [Value(0.0) for _ in range(13)]})
    with pytest.raises(ValueError, match="give assign a model"):
        loaded.assign(np.ones(13))


def test_a_program_of_a_graph_has_its_names():
    """A flat theta, whose numbers are called as they were recorded."""
    w = {"a": Value(1.0), "b": [Value(2.0)]}
    program = vgrad.compile(vgrad.trace(lambda x: w["a"] * x + w["b"][0], (), parameters=w))
    assert program.names == ("a", "b[0]") and program.unflatten([5.0, 6.0]).tolist() == [5.0, 6.0]
    assert program.flatten(0.1).tolist() == [0.1, 0.1]
    assert program.theta({"a": Value(3.0), "b": [Value(4.0)]}).tolist() == [3.0, 4.0]
    program.assign([7.0, 8.0])
    assert w["b"][0].data == 8.0


def test_nothing_is_trainable():
    w = {"a": Value(1.0, trainable=False), "b": [Value(2.0, trainable=False)]}
    program = vgrad.compile(lambda x: w["a"] * x + w["b"][0], w)
    value, grad = program.value_and_grad([], [1.0, 3.0])
    assert value == 4.0 and grad.shape == (0,) and program.names == ()
    assert program.unflatten([])["b"].tolist() == [2.0]
    assert program.flatten({"a": 5.0, "b": 6.0}).shape == (0,)


@pytest.mark.parametrize(
    "parameters, kind, message",
    [
        ({"a": (w := Value(1.0)), "b": [w]}, ValueError, r"got 2, 1 distinct., at a and b\[0\]"),
        ({"a": [None], "b": w}, TypeError, r"must be Values .got None.*, at a\[0\]"),
        ([[w * 2, w]], ValueError, r"must be leaves .*, at \[0, 0\]"),
    ],
)
def test_wrong_parameters_are_found_where_they_are(parameters, kind, message):
    with pytest.raises(kind, match=message):
        vgrad.compile(lambda x: x, parameters)


def test_another_model_by_its_keys():
    """In any order; and trainable where the first is."""
    w = {"a": Value(1.0), "b": Value(2.0)}
    program = vgrad.compile(lambda x: w["a"] * x + w["b"], w)
    other = {"b": Value(7.0), "a": Value(8.0)}
    assert program.theta(other).tolist() == [8.0, 7.0]
    program.assign([1.0, 2.0], other)
    assert other["b"].data == 2.0
    other["a"].trainable = False
    with pytest.raises(ShapeError, match="a must be trainable where that of the program's"):
        program.theta(other)


def test_gradients_of_what_is_frozen():
    w = {"a": Value(7.0, trainable=False), "b": Value(2.0)}
    program = vgrad.compile(lambda x: w["a"] * x * w["b"], w)
    _, grad = program.value_and_grad([2.0], [1.0])
    assert program.unflatten(grad, frozen=0.0) == {"a": 0.0, "b": 7.0}
    assert program.unflatten([3.0]) == {"a": 7.0, "b": 3.0}


def test_what_is_not_trainable_has_no_place_in_theta():
    model = made()
    model["b"][1].trainable = False
    program = vgrad.compile(lambda x: predict(model, x), model)
    assert len(program.theta()) == 8 and "b[1]" not in program.names
    _, grad = program.value_and_grad(program.theta(), X)
    assert grad.shape == (8,) and program.unflatten(program.theta())["b"].tolist() == [0.5, -0.5, 0]
    total = sum(predict(model, row) for row in X) / len(X)
    total.backward()
    leaves = [*model["W"].ravel(), model["b"][0], model["b"][2]]
    assert [p.grad for p in leaves] == pytest.approx(grad, rel=1e-12)
    flat = vgrad.compile(lambda x: predict(model, x), [*model["W"].ravel(), *model["b"]])
    assert len(flat.theta()) == 8  # of a list too
    graph = vgrad.trace(lambda x: predict(model, x), (2,), parameters=model)
    assert len(graph.parameters) == 8
    program.assign(np.zeros(8))
    assert model["b"][1].data == -0.5


def test_a_tree_trains():
    """By rates that are a tree, made flat."""
    model = made()
    program = vgrad.compile(lambda x: (predict(model, x) - x[0]) ** 2, model)
    theta = program.theta()
    sgd = optim.SGD(rate=program.flatten({"W": 0.05, "b": 0.0}))
    before, _ = program.value_and_grad(theta, X)
    for _ in range(100):
        _, grad = program.value_and_grad(theta, X)
        sgd.step(theta, grad)
    after, _ = program.value_and_grad(theta, X)
    assert after < before / 2 and program.unflatten(theta)["b"].tolist() == [0.5, -0.5, 0.0]


def test_messages_and_pictures_have_the_names():
    model = nn.MLP(2, [2, 1])
    program = vgrad.compile(lambda x: vgrad.log(model(x) - 1e9), {"net": model}, check_finite=True)
    with pytest.raises(vgrad.NonFiniteError):
        program.value_and_grad(program.theta(), X)
    graph = vgrad.trace(lambda x: model(x), (2,), parameters={"net": model})
    assert "net.layers[0].w[1, 0]" in graph.labels.values()
    assert "net.layers[1].b[0]" in vgrad.to_dot(graph)
    tree = {"a": Value(2.0), "b": [Value(1.0)]}
    crooked = vgrad.compile(lambda x: falsely_squared(tree["b"][0]) * tree["a"] * x, tree)
    report = vgrad.gradcheck(crooked, None, np.array([1.0, 3.0]))
    assert not report and "b[0]" in str(report)
    own = vgrad.compile(lambda x: model(x))  # found by itself: by the labels that nn gives
    own.theta(X)
    assert own.names[0] == "layers[0].w[0, 0]"
    plain = vgrad.compile(lambda x: x * w, [w := Value(1.0)])
    assert plain.names == ("theta[0]",)


@vgrad.op(vjp=lambda g, out, x: g)
def falsely_squared(x):
    return x * x


@pytest.mark.parametrize(
    "tree, message",
    [
        ({"W": 1.0}, r"the tree must have the keys \['W', 'b'\] .got \['W'\]"),
        ({"W": 1.0, "b": [1.0]}, r"b must have the shape \(3,\) of the parameters .got \(1,\)"),
        ([1.0, 2.0], r"the tree must have the keys \['W', 'b'\]"),
    ],
)
def test_trees_that_differ(tree, message):
    model = made()
    program = vgrad.compile(lambda x: predict(model, x), model)
    with pytest.raises(ShapeError, match=message):
        program.flatten(tree)
    with pytest.raises(ShapeError, match="theta must have 9 numbers, one per parameter, in its"):
        program.unflatten(np.zeros(8))
