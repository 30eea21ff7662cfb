"""Parameters as nestings: their names, and the way to theta and back."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import numpy as np
import pytest

from vgrad import ShapeError, Value, nn
from vgrad.trees import as_tree


class Line(NamedTuple):
    w: list[Value]
    b: Value


class Theirs:
    """A copy of micrograd's Module, which knows nothing of vgrad."""

    def zero_grad(self):
        for p in self.parameters():
            p.grad = 0

    def parameters(self):
        return []


def values(*numbers):
    return [Value(float(x)) for x in numbers]


a, b, c, d, e = values(1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "nesting, names",
    [
        ([a, b], ["theta[0]", "theta[1]"]),
        ([Value(0.0, "slope"), a], ["slope", "theta[1]"]),
        (np.array([[a], [b]]), ["theta[0]", "theta[1]"]),
        ((x for x in (a, b)), ["theta[0]", "theta[1]"]),
        (a, ["theta[0]"]),
        ({"W": [[a, b], [c, d]], "b": e}, ["W[0, 0]", "W[0, 1]", "W[1, 0]", "W[1, 1]", "b"]),
        ({"W": [[a, b], [c]]}, ["W[0][0]", "W[0][1]", "W[1][0]"]),
        ([{"w": [a]}, (b, [c])], ["[0].w[0]", "[1][0]", "[1][1][0]"]),
        ({"line": Line([a, b], c)}, ["line.w[0]", "line.w[1]", "line.b"]),
        ({1: a, "none": [], "rows": [[]], "also": {}}, ["1"]),
        ({"head": nn.Neuron(1)}, ["head.w[0]", "head.b"]),
        ([nn.Layer(1, 1), nn.Neuron(1)], ["[0].w[0, 0]", "[0].b[0]", "[1].w[0]", "[1].b"]),
    ],
)  # fmt: skip
def test_names_and_the_way_there_and_back(nesting, names):
    tree = as_tree(nesting)
    assert list(tree.names) == names and as_tree(tree) is tree
    numbers = np.arange(1.0, 1 + len(names))
    assert tree.flatten(tree.unflatten(numbers)).tolist() == numbers.tolist()
    assert tree.flatten(7.0).tolist() == [7.0] * len(names)


def test_unflatten_keeps_the_kinds_of_the_nesting():
    got = as_tree({"line": Line([a, b], c), "pair": (d, [e])}).unflatten(np.arange(5.0))
    assert isinstance(got["line"], Line) and got["line"].w.tolist() == [0.0, 1.0]
    assert got["line"].b == 2.0 and got["pair"][0] == 3.0 and got["pair"][1].tolist() == [4.0]
    assert type(got["pair"]) is tuple and type(got["line"].b) is float


def test_unflatten_takes_gradients_of_every_sample():
    per_sample = np.arange(6.0).reshape(2, 3)
    got = as_tree({"w": [a, b], "b": c}).unflatten(per_sample)
    assert got["w"].tolist() == [[0.0, 1.0], [3.0, 4.0]] and got["b"].tolist() == [2.0, 5.0]


def test_what_is_not_trainable_keeps_its_number():
    frozen, alone = Value(9.0, trainable=False), Value(8.0, trainable=False)
    tree = as_tree({"w": [a, frozen], "b": alone, "c": c})
    assert tree.values == (a, c) and tree.names == ("w[0]", "c")
    got = tree.unflatten([5.0, 6.0])
    assert got["w"].tolist() == [5.0, 9.0] and got["b"] == 8.0
    assert tree.flatten({"w": [1.0, 7.0], "b": 7.0, "c": 2.0}).tolist() == [1.0, 2.0]


def test_a_single_number_stands_for_a_whole_branch():
    tree = as_tree({"layers": [{"w": [a, b], "b": c}, {"w": [d], "b": e}]})
    assert tree.flatten({"layers": [0.1, {"w": 0.2, "b": 0.3}]}).tolist() == [
        0.1,
        0.1,
        0.1,
        0.2,
        0.3,
    ]


@pytest.mark.parametrize(
    "tree, kind, message",
    [
        ({"w": 1.0}, ShapeError, r"must have the keys \['w', 'b'\] \(got \['w'\]\)"),
        ([1.0, 2.0], ShapeError, r"the tree must have the keys"),
        ({"w": [1.0], "b": 0.0}, ShapeError, r"w must have the shape \(2,\) .* \(got \(1,\)\)"),
        ({"w": [1.0, 2.0], "b": "x"}, TypeError, "b must hold real numbers"),
        ({"w": [1.0, a], "b": 0.0}, TypeError, "w must hold plain numbers"),
    ],
)
def test_a_tree_that_does_not_fit(tree, kind, message):
    with pytest.raises(kind, match=message):
        as_tree({"w": [a, b], "b": c}).flatten(tree)


@pytest.mark.parametrize(
    "nesting, kind, message",
    [
        (3.0, TypeError, "must be a list of Values, a module, or a nesting"),
        ({"w": [a, 2.0]}, TypeError, r"must be Values \(got 2.0, a float\)"),
        ({"w": [a], "v": [a]}, ValueError, "must be distinct"),
        ([a, b * 2.0], ValueError, "must be leaves"),
        ("ab", TypeError, "must be Values"),
    ],
)
def test_what_is_no_nesting_of_parameters(nesting, kind, message):
    with pytest.raises(kind, match=message):
        as_tree(nesting)


def test_theta_of_another_size():
    with pytest.raises(ShapeError, match=r"theta must have 1 numbers.* \(got shape \(2,\)\)"):
        as_tree([a]).unflatten([1.0, 2.0])


# --- modules -------------------------------------------------------------------------------------


def test_a_modules_order_is_that_of_its_parameters():
    model = nn.MLP(2, [3, 1])
    tree = as_tree(model)
    assert list(tree.values) == model.parameters()
    assert tree.names[:3] == ("layers[0].w[0, 0]", "layers[0].w[0, 1]", "layers[0].b[0]")
    assert tree.places["layers"][0]["w"].tolist() == [[0, 1], [3, 4], [6, 7]]


def test_a_module_that_knows_nothing_of_names():
    class Model(Theirs):
        def __init__(self):
            self.rows = range(10)
            self.data = [[1.0, 2.0]] * 1000
            self.pixels = np.zeros((10, 10))
            self.endless = count()
            self.w = values(1, 2)
            self.scale = {"in": Value(3.0)}
            self.last = self.w[0] * 2.0

        def parameters(self):
            return [*self.scale.values(), *self.w]

    model = Model()
    assert as_tree(model).names == ("scale.in", "w[0]", "w[1]")
    assert next(model.endless) == 0  # what it keeps is not used up
    assert as_tree(model).unflatten([1.0, 2.0, 3.0])["w"].tolist() == [2.0, 3.0]


def test_what_a_module_keeps_elsewhere_is_there_too():
    class Model(Theirs):
        __slots__ = ("w",)

        def parameters(self):
            return [a, b]

    assert as_tree(Model()).names == ("parameters[0]", "parameters[1]")


def test_modules_in_a_circle():
    class Node(nn.Module):
        def __init__(self, *children):
            self.x, self.near = Value(1.0), [self, *children]
            for child in children:
                child.parent = self

    class Owner(Node):
        def parameters(self):
            return [self.x, *(p for child in self.near[1:] for p in child.parameters())]

    names = ("x", "near[1].x", "near[1].near[1].x", "near[2].x")
    for kind in (Node, Owner):
        root = kind(kind(kind()), kind())
        tree = as_tree(root)
        assert list(tree.values) == root.parameters() and len(tree.values) == 4
        assert tree.flatten(tree.unflatten(np.arange(4.0))).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert tree.names == names  # of the second, where no child gives what its parent has


def test_a_tied_weight_has_one_name_and_several_places():
    class Tied(nn.Module):
        def __init__(self):
            self.embed = values(1, 2)
            self.head = {"w": self.embed, "b": Value(3.0)}

    tree = as_tree(Tied())
    assert tree.names == ("embed[0]", "embed[1]", "head.b")
    full = tree.unflatten([5.0, 6.0, 7.0])
    assert full["head"]["w"].tolist() == full["embed"].tolist() == [5.0, 6.0]
    assert tree.flatten(full).tolist() == [5.0, 6.0, 7.0]
    full["head"]["w"] = [5.0, 9.0]
    with pytest.raises(ValueError, match="embed must have the same numbers as other places"):
        tree.flatten(full)


def test_a_frozen_value_in_an_attribute():
    class Part(nn.Module):
        def __init__(self):
            self.w = [Value(1.0), Value(9.0, trainable=False)]

    tree = as_tree(Part())
    assert tree.names == ("w[0]",) and tree.unflatten([2.0])["w"].tolist() == [2.0, 9.0]


def test_a_subclass_adds_to_what_is_named():
    class Scaled(nn.Layer):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            self.scale = Value(1.0)

        def parameters(self):
            return [*super().parameters(), self.scale]

    assert as_tree(Scaled(1, 1)).names == ("w[0, 0]", "b[0]", "scale")


def test_the_values_of_another_model():
    model, twin = nn.MLP(2, [3, 1]), nn.MLP(2, [3, 1])
    assert as_tree(model).of(twin) == twin.parameters()
    with pytest.raises(
        ShapeError, match=r"layers\[0\].w must be like .*\(3, 2\).*\(got \(4, 2\)\)"
    ):
        as_tree(model).of(nn.MLP(2, [4, 1]))
    twin.layers[0].neurons[0].b.trainable = False
    with pytest.raises(ShapeError, match=r"trainable where that"):
        as_tree(model).of(twin)
    assert as_tree([a, b]).of({"w": c, "v": d}) == [c, d]
