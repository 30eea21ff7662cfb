"""Arguments as people have them: numbers that all samples share, other axes, names, defaults."""

from __future__ import annotations

import inspect
import pickle
import random
import tracemalloc

import numpy as np
import pytest
from helpers import random_program, same_bits

import vgrad
from vgrad import ShapeError, TraceError, Value

W = Value(2.0, label="w")


def price(spot, strike, rate, vol, time=1.0):
    """Of a call, by Black, Scholes and Merton 1973."""
    spread = vol * vgrad.sqrt(time)
    up = (vgrad.log(spot / strike) + rate * time) / spread + spread / 2
    return spot * vgrad.ndtr(up) - strike * vgrad.exp(-rate * time) * vgrad.ndtr(up - spread)


STRIKES = np.array([80.0, 100.0, 120.0])


# --- what all samples share ----------------------------------------------------------------------


def test_a_plain_number_goes_with_every_sample():
    program = vgrad.compile(price, [])
    given = 100.0, STRIKES, np.float32(0.0), np.array(0.2), 1
    full = [np.broadcast_to(x, 3) for x in given]
    want = program([], *full)
    assert program([], *given) == pytest.approx(want, rel=1e-14)
    for got, each in zip(program.input_grads([], *given), program.input_grads([], *full)):
        assert got.shape == (3,) and got == pytest.approx(each, rel=1e-13)
    assert program.input_hessian([], *given) == pytest.approx(
        program.input_hessian([], *full), rel=1e-12
    )
    assert len(program.paths) == 1  # recorded once for both
    assert program([], 100.0, 90.0, 0.0, 0.2, 1.0).shape == (1,)  # one sample


def test_what_all_samples_share_is_computed_once():
    program = vgrad.compile(lambda x, y: x * vgrad.exp(y), [])
    lines = program.explain(np.ones(5), 0.5).splitlines()
    assert any("exp" in line and "1 = view 1" in line for line in lines)
    assert "1 x B = view 1 x B" in program.explain(np.ones(5), np.ones(5))
    value, _ = program.value_and_grad([], np.ones(5), 0.5)
    assert value == pytest.approx(np.exp(0.5), rel=1e-15)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_random_programs_whose_arguments_are_shared(seed, fuse):
    """As when every sample has the number."""
    drawn = random_program(seed + 100)
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    arrays = rng.uniform(-2, 2, size=(drawn.inputs, 5))
    shared = [draw.random() < 0.5 for _ in arrays]
    given = [x[0] if one else x for x, one in zip(arrays, shared)]
    full = [np.broadcast_to(x, 5 if not all(shared) else 1) for x in given]
    program = vgrad.compile(lambda *x: drawn(*x)[0], drawn.parameters, fuse=fuse)
    theta = [p.data for p in drawn.parameters]
    for name in ("value_and_grad", "input_grads", "per_sample_grads", "jacobian", "hessian"):
        call = getattr(program, name)
        for got, want in zip(call(theta, *given), call(theta, *full)):
            # the same ops, in sums of other orders
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


def test_samples_that_part_share_numbers():
    """Also those beyond the most paths, and new paths in later calls."""

    def fn(x, limit, grid):
        if x > limit:
            return W * grid[0] * x
        return grid[1] * x if x > 0 else limit * x

    grid, x = [10.0, 20.0], np.array([3.0, -1.0, 1.0, 5.0])
    want = [60.0, -2.0, 20.0, 100.0]
    for paths in (64, 2):
        program = vgrad.compile(fn, [W], in_axes=(0, 0, None), paths=paths)
        if paths == 2:
            with pytest.warns(vgrad.PathsWarning):
                assert program([2.0], x, 2.0, grid).tolist() == want
        else:
            assert program([2.0], x[:1], 2.0, grid).tolist() == want[:1]
            assert program([2.0], x, 2.0, grid).tolist() == want
            assert program.value_and_grad([2.0], x, 2.0, grid)[1].tolist() == [80.0 / 4]
            assert program.jacobian([2.0], x, 2.0, grid)[1].ravel().tolist() == [30, 0, 0, 50]


def test_other_axes():
    """As `jax.vmap` has them."""
    x, grid = np.arange(6.0).reshape(2, 3), np.array([[1.0, 2.0], [3.0, 4.0]])

    def fn(x, grid):
        return (grid @ x).sum()

    want = [grid.sum(axis=0) @ column for column in x.T]
    for axes in ((1, None), [-1, None]):
        program = vgrad.compile(fn, [], in_axes=axes)
        assert program([], x, grid).tolist() == want
        by_x, by_grid = program.input_grads([], x, grid)
        assert by_x.shape == (3, 2) and by_grid.shape == (3, 2, 2)
        assert same_bits(by_grid[1], np.array([x[:, 1], x[:, 1]]))
        twin = pickle.loads(pickle.dumps(program))
        assert twin([], x, grid).tolist() == want
    everywhere = vgrad.compile(lambda x: x.sum(), [], in_axes=None)
    assert everywhere([], x).tolist() == [15.0]
    assert vgrad.compile(lambda x: x.sum(), [], in_axes=1)([], x).tolist() == [3.0, 5.0, 7.0]


def test_many_samples_share_a_large_array_without_copies():
    """10,000 numbers, which 4,000 samples would copy to 320 MB, also parted by paths."""
    table, x = np.arange(10_000.0), np.tile([1.0, -1.0], 2000)
    for fn in (lambda x, t: x * t[0] + t[-1], lambda x, t: t[0] if x > 0 else t[-1]):
        program = vgrad.compile(fn, [], in_axes=(0, None))
        want = program([], x, table)
        tracemalloc.start()
        got = program([], x, table)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert same_bits(got, want) and got[-1] == 9_999.0
        assert peak < 30e6  # buffers of one tile


# --- names ---------------------------------------------------------------------------------------


def fit(t, y, scale=1.0, *, power=2.0):
    return ((W * t - y) / scale) ** power


def test_arrays_by_name():
    program, t, y = vgrad.compile(fit, [W]), np.array([1.0, 2.0]), np.array([1.0, 5.0])
    want = program([2.0], t, y)
    assert want.tolist() == [1.0, 1.0]
    for named in ({"t": t, "y": y}, {"y": y, "t": t}):
        assert program([2.0], **named).tolist() == [1.0, 1.0]
    assert program([2.0], t, y=y).tolist() == [1.0, 1.0] and len(program.paths) == 1
    assert program([2.0], t, y, scale=2.0).tolist() == program([2.0], t, y, 2.0).tolist()
    assert len(program.paths) == 2  # with a default left out, and given
    assert program([2.0], t, y, power=4.0).tolist() == [1.0, 1.0]  # behind one that is left out
    assert program([3.0], y=y, t=t, power=4.0).tolist() == [16.0, 1.0]
    assert program.value_and_grad([3.0], t, y=y, power=2.0)[0] == 2.5
    assert program.theta(t=t, y=y).tolist() == [2.0]
    assert "kernels: " in program.explain(t, y=y)
    assert program.verify([2.0], t, y=y).samples == 2
    for call in (program.input_grads, program.per_sample_grads, program.jacobian, program.hessian,
                 program.input_jacobian, program.input_hessian):  # fmt: skip
        for a, b in zip(call([2.0], y=y, t=t), call([2.0], t, y)):
            assert str(a) == str(b)


def test_names_of_a_graph_and_of_what_is_loaded(tmp_path):
    graph = vgrad.trace(lambda a, b: a - b, (), ())
    assert vgrad.compile(graph)([], b=1.0, a=[3.0]).tolist() == [2.0]
    program = vgrad.compile(fit, [W])
    program([2.0], [1.0], [1.0])
    program.save(tmp_path / "fit.npz")
    loaded = vgrad.Program.load(tmp_path / "fit.npz")
    assert loaded([2.0], y=[1.0], t=[1.0]).tolist() == [1.0] and loaded.names == ("w",)
    with pytest.raises(TypeError, match=r"one of the arguments of the graph\(t, y\) .got 'scale'"):
        loaded([2.0], [1.0], [1.0], scale=1.0)
    program([2.0], [1.0], [1.0], power=2.0)
    program([2.0], [1.0], [1.0], scale=2.0)
    with pytest.raises(TypeError, match="recorded for arguments of different shapes"):
        program.save(tmp_path / "fit.npz")


@pytest.mark.parametrize(
    "arrays, named, message",
    [
        (([1.0],), {"z": [1.0]}, r"one of the arguments of fit\(t, y, scale, power\) .got 'z'"),
        (([1.0], [1.0]), {"t": [1.0]}, "argument 't' of fit.* must be given once"),
        (([1.0],), {}, "got 1 after theta: missing a required argument: 'y'.; was theta left out"),
        (([1.0],) * 4, {}, "got 4 after theta: too many positional arguments.$"),
        ((), {"y": [1.0]}, "missing a required argument: 't'"),
    ],
)
def test_arrays_that_the_function_does_not_have(arrays, named, message):
    program = vgrad.compile(fit, [W])
    with pytest.raises(TypeError, match=message):
        program([2.0], *arrays, **named)
    assert not program.paths


def test_a_forgotten_theta():
    program = vgrad.compile(lambda x, y: W * x - y, [W])
    for call in (program, program.value_and_grad, program.jacobian):
        with pytest.raises(
            TypeError, match=r"was theta left out, or what .* Theta is first: program.theta"
        ):
            call(np.ones(3), np.ones(3))


def test_what_inspect_shows():
    @vgrad.compile(parameters=[W], paths=1)
    def model(x, *, scale=1.0):
        """A line."""
        return W * x * scale

    assert model.__name__ == "model" and model.__doc__ == "A line."
    assert str(inspect.signature(model)) == "(theta, x, *, scale=1.0)"
    assert repr(model) == "Program(model(x, scale), 1 parameter, not recorded yet)"
    assert model._repr_svg_() is None
    assert model([2.0], [1.0], scale=3.0).tolist() == [6.0]
    assert "recorded for 1 shape of" in repr(model) and model._repr_svg_().startswith("<?xml")


# --- a sample without a batch --------------------------------------------------------------------

TAKEN_FOR_ARRAYS = {
    "an index": lambda x: x[0],
    "len": lambda x: len(x) * x,
    "a loop": lambda x: sum(v for v in x),
    "a pair": lambda x: (lambda a, b: a + b)(*x),
    "in": lambda x: (1.0 in x) * x,
    "unpacking": lambda x: unpacked(x),
    "a matrix product": lambda x: x @ np.ones(200),
    "zip": lambda x: sum(a * b for a, b in zip(x, [1.0, 2.0])),
}


def unpacked(x):
    a, b = x
    return a + b


@pytest.mark.parametrize("name", TAKEN_FOR_ARRAYS)
def test_one_sample_without_a_batch_axis(name):
    """The error says so, and leads to the line."""
    program = vgrad.compile(TAKEN_FOR_ARRAYS[name], [])
    with pytest.raises(TraceError, match=r"the first axis of every array is the batch.*_arguments"):
        program([], np.arange(200.0))
    assert not program.paths
    with pytest.raises(AttributeError, match="no attribute 'sum', as it is one number: the first"):
        vgrad.compile(lambda x: x.sum(), [])([], np.arange(200.0))


@pytest.mark.parametrize(
    "axes, arrays, kind, message",
    [
        (0, (np.ones(3), np.ones((2, 3))), ShapeError, "one batch size.*got 3, 2"),
        ((0,), (np.ones(3), np.ones(3)), ShapeError, r"one axis for each argument of .*\(x, y\)"),
        ((0, 0, 0), (np.ones(3), np.ones(3)), ShapeError, "one axis for each argument of"),
        ((2, 0), (np.ones((3, 2)), np.ones(3)), ShapeError, "array 0 must have the axis 2 that in"),
        ((0, None), (np.ones(3), np.ones((0, 2))), ShapeError, "all samples share must have numb"),
        ("x", (), TypeError, "in_axes must be an axis, None for what all samples share, or a seq"),
        ((0, True), (), TypeError, "in_axes must be an axis"),
        (np.array([0, 0]), (), TypeError, "in_axes must be an axis"),
    ],
)
def test_wrong_axes(axes, arrays, kind, message):
    with pytest.raises(kind, match=message):
        vgrad.compile(lambda x, y: x, [], in_axes=axes)([], *arrays)


def test_axes_of_functions_that_take_any_number():
    """By name, without a list of names, the batch comes first, as in JAX."""
    by_name = vgrad.compile(lambda **named: named["x"] * named["y"][1], [], in_axes=(0,))
    assert by_name([], x=[1.0, 2.0], y=[[3.0, 4.0], [5.0, 6.0]]).tolist() == [4.0, 12.0]
    several = vgrad.compile(lambda *xs: xs[0] * xs[1][1], [], in_axes=(0, None))
    assert several([], [1.0, 2.0], [3.0, 4.0]).tolist() == [4.0, 8.0]


def test_an_argument_called_as_an_option():
    program = vgrad.compile(lambda x, aux: x * aux, [])
    assert program.value_and_grad([], [1.0], [2.0])[0] == 2.0
    with pytest.raises(TypeError, match="aux must be True or False .*must go by position"):
        program.value_and_grad([], [1.0], aux=[2.0])


# --- a term of the parameters alone, and what is closed over -------------------------------------


def test_a_term_that_is_added_once(tmp_path):
    """A sum over the data plus one penalty, whatever the number of samples."""
    w = {"w": [Value(1.0), Value(2.0)], "b": Value(0.5)}

    def loss(x, y):
        return (w["w"][0] * x + w["w"][1] * x * x + w["b"] - y) ** 2

    def prior():
        return sum(p**4 for p in w["w"])

    x, y = np.linspace(-1, 1, 5), np.linspace(0, 1, 5)
    for reduce in ("sum", "mean"):
        plain = vgrad.compile(loss, w, reduce=reduce)
        program = vgrad.compile(loss, w, reduce=reduce, once=prior)
        theta = np.array([1.0, 2.0, 0.5])
        value, grad = plain.value_and_grad(theta, x, y)
        got = program.value_and_grad(theta, x, y)
        assert (
            got[0] == value + 17 and got[1].tolist() == (grad + np.array([4.0, 32.0, 0.0])).tolist()
        )
        (total, outputs), _ = program.value_and_grad(theta, x, y, aux=True)
        assert total == got[0] and same_bits(outputs, plain(theta, x, y))
        hessian = plain.hessian(theta, x, y) + np.diag([12.0, 48.0, 0.0])
        assert program.hessian(theta, x, y) == pytest.approx(hessian, rel=1e-14)
        v = np.array([1.0, -1.0, 2.0])
        product = program.hessian_vector_product(theta, v, x, y)
        assert product == pytest.approx(hessian @ v, rel=1e-14)
        assert same_bits(program(theta, x, y), plain(theta, x, y))
        program.save(tmp_path / "program.npz")
        for twin in (vgrad.Program.load(tmp_path / "program.npz"),
                     pickle.loads(pickle.dumps(program))):  # fmt: skip
            assert twin.value_and_grad(theta, x, y)[0] == got[0]
            assert same_bits(twin.hessian(theta, x, y), program.hessian(theta, x, y))
        for p, number in zip(w["w"], (2.0, 1.0)):
            p.data = number
        assert program.theta().tolist() == [2.0, 1.0, 0.5]
        for p, number in zip(w["w"], (1.0, 2.0)):
            p.data = number


def test_what_is_added_once_is_checked_too():
    @vgrad.op(vjp=lambda g, out, x: g)
    def badly_squared(x):
        return x * x

    for prior, holds in ((lambda: W * W, True), (lambda: badly_squared(W), False)):
        program = vgrad.compile(lambda x: W * x, [W], once=prior)
        report = vgrad.gradcheck(program, [2.0], np.ones(3))
        assert bool(report) == holds and (holds or "'w'" in str(report))
        verified = program.verify([2.0], np.ones(3))
        assert verified.numbers == 3 * 3 + 1 + 3


def test_once_without_parameters():
    for options in (
        {"once": lambda: W},
        {"once": 3.0, "parameters": [W]},
        {"once": lambda x: x, "parameters": [W]},
        {"once": vgrad.trace(lambda: W * 1, parameters=[W]), "parameters": [W]},
    ):
        with pytest.raises(TypeError, match="once must be a function without arguments, beside"):
            vgrad.compile(lambda x: x, **options)
    for once in (lambda: (W, W), lambda: vgrad.array([W])):
        program = vgrad.compile(lambda x: W * x, [W], once=once)
        with pytest.raises(ShapeError, match="once must return one number .got <lambda>"):
            program.value_and_grad([2.0], [1.0])


def test_what_is_closed_over_is_read_again_after_forget():
    numbers, w = [2.0], Value(1.0)
    program = vgrad.compile(lambda x: numbers[0] * x * w)
    assert program(program.theta([1.0]), [3.0]).tolist() == [6.0]
    numbers[0], w = 5.0, Value(7.0)
    assert program([1.0], [3.0]).tolist() == [6.0]
    program.forget()
    assert program(program.theta([1.0]), [3.0]).tolist() == [105.0]
    with pytest.raises(ValueError, match="a program must have a function to record it anew"):
        pickle.loads(pickle.dumps(program)).forget()
