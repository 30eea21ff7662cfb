"""NumPy's functions on arrays of `Value`s and traced values: what they give, and what they say."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
from helpers import half

import vgrad
from vgrad import TraceError, Value
from vgrad.arrays import OperandArray

# Of two arrays of four numbers, as a user of NumPy writes them.
FUNCTIONS = {
    "var": lambda A, B: np.var(A),
    "var along an axis": lambda A, B: np.var(A.reshape(2, 2), axis=0, ddof=1),
    "std": lambda A, B: np.std(A) + A.std(),
    "mean": lambda A, B: np.mean(A) * A.mean(),
    "average": lambda A, B: np.average(A, weights=[1, 2, 3, 4]),
    "vdot": lambda A, B: np.vdot(A, B),
    "norm": lambda A, B: np.linalg.norm(A),
    "norm along an axis": lambda A, B: np.linalg.norm(A.reshape(2, 2), axis=1),
    "maximum": lambda A, B: np.maximum(A, 0),
    "minimum": lambda A, B: np.minimum(A, B) - np.minimum(A[0], B),
    "clip": lambda A, B: np.clip(A, 0, 1) + A.clip(-0.5, 0.5) + np.clip(A, None, B),
    "where": lambda A, B: np.where(A > 0, A, B),
    "where of where": lambda A, B: np.where(A <= B, np.where(B != 0, A / B, 0.0), 2 * A),
    "where of one number": lambda A, B: np.where(A[0] > B[0], A[0], B[0]) + np.clip(A[1], 0, 1),
    "conditions as numbers": lambda A, B: (A >= B) * A + (A == 0.5) + (0.3 < A),
    "sign": lambda A, B: np.sign(A) * B,
    "cumsum": lambda A, B: np.cumsum(A),
    "cumprod": lambda A, B: A.cumprod() + np.cumprod(B),
    "prod": lambda A, B: np.prod(A) + A.reshape(2, 2).prod(axis=1),
    "steps": lambda A, B: np.floor(A) + np.ceil(B) * np.trunc(A) + np.rint(A) + np.round(B),
    "%": lambda A, B: A % B + np.remainder(A, B) + 2.5 % A + np.fmod(A, B),
    "//": lambda A, B: A // B + np.floor_divide(B, 2) + 7 // A,
    "divmod": lambda A, B: np.stack([*divmod(A, B), *np.divmod(B, A)]),
    "two operands": lambda A, B: np.arctan2(A, B) + np.hypot(A, B) + np.logaddexp(A, B),
    "one operand": lambda A, B: np.log1p(A * A) + np.expm1(B) + np.cbrt(A) + np.exp2(B),
    "angles": lambda A, B: np.tan(A) + np.arcsin(B / 3) + np.arccos(B / 3) + np.arctan(A),
    "hyperbolic": lambda A, B: np.sinh(A) + np.cosh(B) + np.arcsinh(A) + np.arctanh(B / 3),
    "logarithms": lambda A, B: np.log2(A * A) + np.log10(B * B) + np.arccosh(1 + A * A),
    "square": lambda A, B: np.square(A) + np.reciprocal(B) + A**2 + np.sqrt(B * B),
    "products": lambda A, B: np.outer(A, B) + A.reshape(2, 2).dot(B.reshape(2, 2)).sum(),
    "matmul": lambda A, B: A.reshape(2, 2) @ B[:2] + np.einsum("i,i->", A, B),
    "stack": lambda A, B: np.concatenate([np.maximum(np.stack([A[0], B[0]]), 0), A]),
    "diff": lambda A, B: np.diff(A) + np.trapezoid(B) if hasattr(np, "trapezoid") else np.diff(A),
    "polyval": lambda A, B: np.polyval(A, B[1]),
    "numbers on the left": lambda A, B: np.array([1.0, 2.0, 3.0, 4.0]) * A - np.float64(2) / B,
    "in place": lambda A, B: np.add(A, B, out=A.copy()),
    "conditions": lambda A, B: np.where((A > 0) & (B > 0) | (A < -1), A, B) + ~(A > 0) * A,
    "logic": lambda A, B: np.logical_and(A > 0, B) + np.logical_or(A > 1, B > 1) * A,
    "not": lambda A, B: np.logical_not(A > 0) * B,
    "like": lambda A, B: np.ones_like(A) + np.zeros_like(A[0]) + np.full_like(B, 2.0) * A,
    "array": lambda A, B: np.maximum(vgrad.array([A[0], B[0], 0.5]), A[1]),
}
X = np.array([[0.5, -1.25, 2.0, 0.1], [1.5, 0.75, -0.6, -2.5]])
Y = np.array([[-0.4, 1.1, 0.7, 1.9], [2.2, -0.3, 1.4, -0.8]])


def numbers(x):
    return np.array([getattr(v, "data", v) for v in np.ravel(x)], float)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpys_functions_give_what_they_give_of_floats(name):
    """Traced, on arrays of `Value`s as vgrad makes them, and on plain ones: to 1e-14, as sums of
    a few terms may be added up in another order."""
    fn = FUNCTIONS[name]
    want = np.array([fn(x, y) for x, y in zip(X, Y)], float)
    for fuse in (True, False):
        got = vgrad.compile(fn, [], fuse=fuse)([], X, Y)
        assert got.shape == want.shape and got == pytest.approx(want, rel=1e-14, abs=1e-15)
    for x, y, row in zip(X, Y, want):
        A, B = (np.array([*map(Value, z)]) for z in (x, y))
        views = [A.view(OperandArray), B.view(OperandArray)]
        assert numbers(fn(*views)) == pytest.approx(row.ravel(), rel=1e-14, abs=1e-15)
        # NumPy has no logaddexp or divmod of objects, and gives booleans for comparisons
        if name not in ("two operands", "divmod", "conditions", "logic", "not"):
            assert numbers(fn(A, B)) == pytest.approx(row.ravel(), rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("name", half(FUNCTIONS))
def test_and_their_gradients_are_right(name):
    def squares(A, B):
        out = FUNCTIONS[name](A, B)
        return sum(x * x for x in out.ravel()) if isinstance(out, np.ndarray) else out * out

    for x, y in zip(X, Y):
        assert vgrad.gradcheck(squares, x, y)
    assert vgrad.gradcheck(vgrad.compile(squares, []), [], X, Y)


def test_arrays_of_operands_stay_what_they_are():
    x = np.array([Value(1.0), Value(-2.0)]).view(OperandArray)
    for y in (x + 1, 2 * x, np.exp(x), x[:1], x.T, np.concatenate([x, x]), x > 0, x @ np.eye(2)):
        assert type(y) is OperandArray
    assert type(np.float64(2.0) * np.array([1.0, 2.0]) * Value(3.0)) is OperandArray
    assert type(vgrad.softmax(x)) is OperandArray and type(vgrad.linalg.inv([[Value(2.0)]])) is (
        OperandArray
    )
    assert type(x[0]) is Value and type(x.sum()) is Value and type(np.prod(x)) is Value
    assert type(vgrad.exp(np.array([Value(1.0)]))) is np.ndarray  # plain, as it came
    again = pickle.loads(pickle.dumps(x))
    assert type(again) is OperandArray and again[1].data == -2.0 == copy.deepcopy(x)[1].data


def test_results_go_where_out_says():
    x = np.array([Value(1.0), Value(-2.0)]).view(OperandArray)
    y, same = x.copy(), x
    assert np.multiply(x, 2, out=y) is y and y[1].data == -4.0
    x += 1
    assert x is same and [v.data for v in same] == [2.0, -1.0]
    np.maximum(x, 0.0, out=y)
    assert [v.data for v in y] == [2.0, 0.0]


def test_a_tie_is_split_by_numpys_function_too():
    program = vgrad.compile(lambda A: np.maximum(A, 0).sum(), [])
    assert program.input_grads([], [[0.0, 1.0, -1.0]])[0].tolist() == [[0.5, 1.0, 0.0]]


# --- what needs floats ---------------------------------------------------------------------------

M = np.array([[2.0, 1.0], [1.0, 3.0]])
NEEDS_FLOATS = {
    "inv": (lambda A: np.linalg.inv(A), r"^inv\(\) of NumPy .*use vgrad.linalg.inv\(...\)"),
    "solve": (lambda A: np.linalg.solve(A, A[0]), r"solve\(\) of .*use vgrad.linalg.solve"),
    "det": (lambda A: np.linalg.det(A), r"use vgrad.linalg.det"),
    "cholesky": (lambda A: np.linalg.cholesky(A), "use vgrad.linalg.cholesky"),
    "slogdet": (lambda A: np.linalg.slogdet(A), "use vgrad.linalg.slogdet"),
    "eigh": (
        lambda A: np.linalg.eigh(A),
        r"vgrad.linalg, which has solve, inv.* or make an op of it",
    ),
    "svd": (lambda A: np.linalg.svd(A), "vgrad.linalg, which has solve"),
    "fft": (lambda A: np.fft.fft(A[0]), "use functions of vgrad"),
    "degrees": (lambda A: np.degrees(A), r"degrees\(\) of NumPy .*an op of it, by vgrad.op"),
}
if np.lib.NumpyVersion(np.__version__) < "2.0.0":
    del NEEDS_FLOATS["fft"]  # which made floats of its operands, so that these refused


@pytest.mark.parametrize("name", NEEDS_FLOATS)
def test_what_needs_floats_says_what_to_write(name):
    """On arrays as vgrad makes them; a traced one, plain too, is a TraceError with its line."""
    fn, message = NEEDS_FLOATS[name]
    values = np.array([[Value(x) for x in row] for row in M]).view(OperandArray)
    with pytest.raises(vgrad.FloatsOnlyError, match=message):
        fn(values)
    line = fn.__code__.co_firstlineno
    for made in (lambda A: fn(A), lambda A: fn(np.array(A.tolist()))):
        with pytest.raises(TraceError, match=rf"(?s).*test_arrays.py:{line}\)") as error:
            vgrad.trace(made, (2, 2))
        assert "must not be given Values or traced values" in str(error.value)


def test_an_array_like_another_may_be_filled():
    def running(x):
        total = np.zeros_like(x)
        for i in range(len(x)):
            total[i] = x[i] + (total[i - 1] if i else 0.0)
        return total @ np.ones_like(x)

    program = vgrad.compile(running, [])
    assert program([], [[1.0, 2.0, 3.0]]) == [10.0]
    assert program.input_grads([], [[1.0, 2.0, 3.0]])[0].tolist() == [[3.0, 2.0, 1.0]]


def test_what_would_do_nothing_is_refused():
    """NumPy leaves nan in arrays of objects as it is."""
    with pytest.raises(TraceError, match=r"nan_to_num\(\) .*use vgrad.where\(x == x, x, 0.0\)"):
        vgrad.trace(lambda x: np.nan_to_num(vgrad.log(x)), ())


def test_a_condition_is_no_index():
    with pytest.raises(TraceError, match=r"conditions .* x\[x > 0\]; use np.where\(x > 0, x, 0.0"):
        vgrad.trace(lambda x: x[x > 0].sum(), (3,))


def test_an_array_made_of_traced_values_names_vgrads_function():
    """NumPy compares its numbers one by one; vgrad's functions take arrays as well."""
    for fn in (np.maximum, np.logaddexp):
        with pytest.raises(TraceError, match=r"vgrad\."):
            vgrad.trace(lambda x, fn=fn: fn(np.array([x, x * 2]), 0.0).sum(), ())
    program = vgrad.compile(lambda x: vgrad.maximum(np.array([x, x * 2]), 0.0).sum(), [])
    assert program([], [1.0, -1.0]).tolist() == [3.0, 0.0]


def test_scipys_functions_say_what_to_write():
    special = pytest.importorskip("scipy.special")
    x = Value(0.5)
    for name, instead in (("erf", "erf"), ("gammaln", "lgamma"), ("psi", "digamma"), ("ndtr",) * 2):
        with pytest.raises(TypeError, match=rf"{name}\(\) of NumPy or SciPy .*use vgrad.{instead}"):
            getattr(special, name)(x)
        with pytest.raises(TraceError, match=rf"use vgrad.{instead}"):
            vgrad.trace(lambda x, name=name: getattr(special, name)(x), ())
    with pytest.raises(TypeError, match="an op of it, by vgrad.op"):
        special.j0(x)


def test_solvers_say_what_to_write():
    integrate = pytest.importorskip("scipy.integrate")
    with (
        warnings.catch_warnings(),
        pytest.raises(TypeError, match=r"a loop of the steps"),
    ):
        warnings.simplefilter("ignore")
        integrate.odeint(lambda y, t: -y, [Value(1.0)], [0.0, 1.0])
    with pytest.raises(TraceError, match=r"a loop of the steps"):
        vgrad.trace(lambda k: integrate.odeint(lambda y, t: -k * y, 1.0, [0.0, 1.0])[-1], ())


def test_masks_are_not_dropped():
    masked = np.ma.array([1.0, 2.0], mask=[0, 1])
    for call in (
        lambda: vgrad.tanh(masked),
        lambda: vgrad.trace(lambda x: (x * masked).sum(), (2,)),
        lambda: vgrad.array([Value(1.0), Value(2.0)]) * masked,
    ):
        with pytest.raises(TypeError, match="must be an array without a mask; fill or drop what"):
            call()
