"""vgrad.linalg on floats, `Value`s and nodes, against NumPy, fractions and differences."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from helpers import assert_values_match, same_bits

import vgrad
from vgrad import ShapeError, Value, linalg

INF = math.inf
TINY = 1e-14  # 45 roundings of 2**-52; elimination on six rows makes some 36 a number


def random(n, seed=0):
    return np.random.default_rng([n, seed]).normal(size=(n, n))


def scaled(n, seed=0):
    """Rows and columns of sizes from 1e-6 to 1e6."""
    powers = np.random.default_rng([n, seed, 1]).uniform(-6, 6, size=(2, n))
    return random(n, seed) * 10 ** powers[0][:, None] * 10 ** powers[1]


def permuted(n, seed=0):
    return np.eye(n)[np.random.default_rng([n, seed]).permutation(n)]


def positive(n, seed=0):
    """Symmetric and positive definite."""
    return random(n, seed) @ random(n, seed).T + 0.1 * np.eye(n)


MATRICES = [
    make(n, seed) for make in (random, scaled, permuted) for n in range(1, 7) for seed in (0, 1)
]
# Zeros where a pivot would be, at the first step or later, and candidates that tie.
AWKWARD = [
    [[0.0, 1.0], [1.0, 0.0]],
    [[0.0, 2.0], [-3.0, 1.0]],
    [[1.0, 2.0], [-1.0, 3.0]],
    [[0.0, 0.0, 2.0], [3.0, 0.0, 0.0], [0.0, -1.0, 0.0]],
    [[1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [1.0, 5.0, 6.0]],
    [[2.0, 1.0, -1.0], [-2.0, 1.0, 0.0], [2.0, -1.0, 3.0]],
    [[0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]],
]
SINGULAR = {  # of rank n - 1, some with a column that is 0 when its turn comes
    "2, rows": [[1, 2], [2, 4]],
    "2, first column": [[0, 1], [0, 3]],
    "2, last column": [[1, 0], [3, 0]],
    "3, first column": [[0, 1, 2], [0, 3, 5], [0, -1, 4]],
    "3, last column": [[1, 2, 0], [3, 5, 0], [-1, 4, 0]],
    "3, equal columns": [[1, 1, 0], [1, 1, 0], [0, 0, 1]],
    "3, middle column": [[2, 4, 1], [1, 2, 3], [-1, -2, 5]],
    "3, last pivot": [[4, 1, 5], [2, 3, 5], [1, 1, 2]],
    "4, two thirds": [[1, 2, 2, 0], [1, 2, 2, 1], [0, 1, 1, 3], [2, 0, 0, 1]],
    "4, first column": [[0, 1, 2, 0], [0, 2, 0, 1], [0, 0, 1, 3], [0, 0, 3, 1]],
}
LOWER_RANK = [
    [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
    [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    [[0, 0, 1], [0, 0, 2], [0, 0, 3]],
    [[0, 0, 1, 0], [0, 0, 2, 1], [0, 0, 3, 0], [0, 0, 0, 1]],
]


def right(n):
    """Right-hand sides (n, 2)."""
    return np.random.default_rng(n).normal(size=(n, 2))


# Each as a function of a matrix (n, n) and of right-hand sides (n, 2).
CALLS = {
    "solve": linalg.solve,
    "inv": lambda a, b: linalg.inv(a),
    "det": lambda a, b: linalg.det(a),
    "slogdet": lambda a, b: [*linalg.slogdet(a)],
    "cholesky": lambda a, b: linalg.cholesky(a),
    "lower": lambda a, b: linalg.solve_triangular(a, b, lower=True),
    "upper": lambda a, b: linalg.solve_triangular(a, b[:, 0], trans="T", unit_diagonal=True),
}


def as_values(array):
    return np.array([Value(x) for x in np.ravel(array)], dtype=object).reshape(np.shape(array))


def data(results):
    return np.array([x.data for x in np.ravel(results)])


def weighted(name):
    """A sum of all results of a call, each with another weight."""

    def objective(a, b):
        return sum(math.cos(k) * x for k, x in enumerate(np.ravel(CALLS[name](a, b))))

    return objective


def matrices_for(name):
    """Lists of matrices of one size that a call can take, which need different pivots."""
    if name == "cholesky":
        return [[positive(n), positive(n, 1)] for n in (1, 2, 4)]
    if name in ("lower", "upper"):
        return [[random(n), random(n, 1)] for n in (1, 2, 4)]
    sizes = {len(a) for a in AWKWARD}
    return [[a for a in AWKWARD if len(a) == n] + [random(n), scaled(n)] for n in sizes]


def exact_det(matrix):
    """Of the floats in it as they are, by fractions."""
    rows = [[Fraction(float(x)) for x in row] for row in matrix]
    result = Fraction(1)
    while rows:
        k = next((k for k, row in enumerate(rows) if row[0]), None)
        if k is None:
            return Fraction(0)
        first, rows = rows[k], rows[:k] + rows[k + 1 :]
        result *= first[0] * (-1) ** k
        rows = [[x - row[0] / first[0] * y for x, y in zip(row[1:], first[1:])] for row in rows]
    return result


def cofactors(matrix):
    """The gradient of the determinant, exactly."""
    a = np.array(matrix)
    places = np.ndindex(a.shape)
    minors = [exact_det(np.delete(np.delete(a, i, 0), j, 1)) * (-1) ** (i + j) for i, j in places]
    return np.array(minors, float).reshape(a.shape)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("a", [*MATRICES, *map(np.array, AWKWARD)])
def test_values_against_numpy(a):
    """Elimination leaves a @ x - b small beside |a| |x|, and so x itself within cond = |1/a| |a|.

    For cond the norm is the greatest sum of a row of the product of the sizes, which does not
    depend on the scale of rows: the relative error of a determinant is of its size too.
    """
    n, b, inverse = len(a), right(len(a)), np.linalg.inv(a)
    condition = (np.abs(inverse) @ np.abs(a)).sum(axis=1).max()
    x, size = linalg.solve(a, b), np.abs(a).max()
    assert (np.abs(a @ x - b) <= TINY * size * np.abs(x).max(axis=0)).all()
    assert np.abs(x - np.linalg.solve(a, b)).max() <= TINY * condition * np.abs(x).max()
    assert np.abs(linalg.inv(a) - inverse).max() <= TINY * condition * np.abs(inverse).max()
    assert same_bits(linalg.solve(a, b[:, 1]), x[:, 1]) and same_bits(
        linalg.inv(a), linalg.solve(a, np.eye(n))
    )
    exact = exact_det(a)
    assert abs(Fraction(linalg.det(a)) / exact - 1) <= TINY * condition
    sign, logabsdet = linalg.slogdet(a)
    assert sign == np.sign(float(exact))
    assert logabsdet == pytest.approx(np.linalg.slogdet(a)[1], rel=TINY, abs=TINY * condition)


@pytest.mark.parametrize("n", range(1, 7))
def test_triangles_against_numpy(n):
    """Substitution leaves at most n roundings of |a| |x| in each row, whatever the scales."""
    for make in (random, scaled):
        a, b = make(n), right(n)
        for lower in (True, False):
            for unit in (True, False):
                for trans in (0, 1, 2, "N", "T", "C"):
                    x = linalg.solve_triangular(a, b, trans, lower=lower, unit_diagonal=unit)
                    full = np.tril(a) if lower else np.triu(a)
                    if unit:
                        np.fill_diagonal(full, 1.0)
                    if trans not in (0, "N"):
                        full = full.T
                    assert (np.abs(full @ x - b) <= TINY * (np.abs(full) @ np.abs(x))).all()
        a = positive(n)
        lower = linalg.cholesky(np.tril(a))
        assert lower == pytest.approx(np.linalg.cholesky(a), rel=0, abs=TINY * np.abs(a).max())
        assert np.abs(lower @ lower.T - a).max() <= TINY * a.max() and not np.triu(lower, 1).any()


@pytest.mark.parametrize("name", CALLS)
def test_every_kind_of_number_gives_the_same(name):
    """Floats, `Value`s, mixtures and the plain sweep to the bit; fused to 1e-12 of what it sums.

    The samples of a batch need different pivots.
    """
    fn = CALLS[name]

    def flat(a, b):
        return list(np.ravel(fn(a, b)))

    for batch in matrices_for(name):
        b = right(len(batch[0]))
        arrays = np.array(batch), np.array([b] * len(batch))
        fused, plain = (
            np.transpose(vgrad.compile(flat, parameters=[], fuse=fuse)([], *arrays))
            for fuse in (True, False)
        )
        for k, a in enumerate(batch):
            want = np.ravel(fn(a, b))
            assert want.dtype == np.float64
            roots = np.ravel(fn(as_values(a), as_values(b)))
            assert same_bits(data(roots), want) and same_bits(plain[k], want)
            assert_values_match(fused[k], list(roots), f"{name} of {a}")
            mixed = np.array(a, dtype=object)
            mixed[-1, 0] = Value(mixed[-1, 0])
            assert same_bits(data(fn(mixed, b)), want)


def test_forms_of_arguments_and_results():
    a, b = [[2, 1], [0, 4]], (4, 8)
    assert linalg.solve(a, b).tolist() == [1.0, 2.0]
    assert linalg.solve(tuple(map(tuple, a)), [[4], [8]]).tolist() == [[1.0], [2.0]]
    assert linalg.solve([np.float32([2, 1]), np.array([0, 4])], np.array(b)).tolist() == [1.0, 2.0]
    assert type(linalg.det(a)) is float and linalg.inv(a).dtype == np.float64
    assert linalg.det([[10**400]]) == INF and linalg.det([[True, False], [False, True]]) == 1.0
    mixed = linalg.inv([[Value(2.0), 0.0], [0.0, 4.0]])
    assert mixed.dtype == object and all(isinstance(x, Value) for x in mixed.flat)
    assert float(linalg.cholesky(as_values(np.eye(2)))[0, 1]) == 0.0  # which has no gradient
    assert data(linalg.solve(a, as_values(b))).tolist() == [1.0, 2.0]
    sign, logabsdet = linalg.slogdet(as_values(a))
    assert sign.data == 1.0 and logabsdet.data == pytest.approx(math.log(8))


@pytest.mark.parametrize("name", CALLS)
def test_arguments_stay_as_they_are(name):
    """Also an array of objects, of which integers become floats."""
    objects = np.array([[4, 1, 2], [1, Value(5.0), 1], [2, 1, 6]], dtype=object)
    for a in (positive(3), as_values(positive(3)), objects, objects.tolist()):
        b = np.array(right(3), dtype=object)
        before = [*np.array(a, dtype=object).flat, *b.flat]
        CALLS[name](a, b)
        after = [*np.array(a, dtype=object).flat, *b.flat]
        assert all(
            x is y or (type(x) is type(y) is float and x == y) for x, y in zip(before, after)
        )


def test_empty_matrices_are_as_in_numpy():
    a = np.zeros((0, 0))
    assert linalg.det(a) == 1.0 and linalg.slogdet(a) == (1.0, 0.0)
    for result in (linalg.inv(a), linalg.cholesky(a), linalg.solve(a, a)):
        assert result.shape == (0, 0) and result.dtype == np.float64
    assert linalg.solve(a, np.zeros((0, 2))).shape == (0, 2)
    assert linalg.solve(a, []).shape == (0,)
    assert linalg.solve(np.eye(2), np.zeros((2, 0))).shape == (2, 0)


# --- singular matrices ---------------------------------------------------------------------------


def test_what_cannot_be_solved_gives_infinities():
    """Without a warning, on both engines."""
    zero, ranked = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [2.0, 4.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (np.array, as_values):
            numbers = np.array if kind is np.array else data
            for a in (zero, ranked, [[0.0, 1.0], [0.0, 1.0]]):
                assert not np.isfinite(numbers(linalg.solve(kind(a), kind([1.0, 1.0])))).any()
                assert not np.isfinite(numbers(linalg.inv(kind(a)))).all()
                assert numbers([*linalg.slogdet(kind(a))]).tolist() == [0.0, -INF]
            lower = numbers(linalg.cholesky(kind([[1.0, 2.0], [2.0, 1.0]])))
            assert np.isnan(lower.flat[-1]) and lower.flat[0] == 1.0
            x = numbers(linalg.solve_triangular(kind(zero), kind([1.0, 1.0])))
            assert not np.isfinite(x).any()
    program = vgrad.compile(lambda a: [*linalg.slogdet(a), linalg.inv(a)], parameters=[])
    sign, logabsdet, inverse = program([], [zero, ranked, np.eye(2)])
    assert sign.tolist() == [0.0, 0.0, 1.0] and logabsdet.tolist() == [-INF, -INF, 0.0]
    assert np.isfinite(inverse).all(axis=(1, 2)).tolist() == [False, False, True]


@pytest.mark.parametrize("name", SINGULAR)
def test_the_gradient_of_a_determinant_that_is_0(name):
    """It is the matrix of cofactors, also where elimination meets a pivot of 0."""
    a, want = np.array(SINGULAR[name], float), cofactors(SINGULAR[name])
    assert linalg.det(a) == pytest.approx(0.0, abs=TINY) and want.any()
    values = as_values(a)
    linalg.det(values).backward()
    got = [np.reshape([x.grad for x in values.flat], a.shape)]
    for fuse in (True, False):
        program = vgrad.compile(linalg.det, parameters=[], fuse=fuse)
        got += list(program.input_grads([], [a, np.eye(len(a)), a.T])[0])
    for gradient, exact in zip(got, [want, *[want, np.eye(len(a)), want.T] * 2]):
        assert gradient == pytest.approx(exact, rel=TINY, abs=TINY * np.abs(want).max())


@pytest.mark.parametrize("a", LOWER_RANK, ids=range(len(LOWER_RANK)))
def test_a_determinant_of_lower_rank_has_no_gradient(a):
    values = as_values(a)
    out = linalg.det(values)
    out.backward(check_finite=True)
    assert out.data == linalg.det(a) == 0.0 and not any(x.grad for x in values.flat)
    assert not vgrad.compile(linalg.det, parameters=[]).input_grads([], [a])[0].any()


def test_determinants_that_are_0_but_for_rounding():
    """Where pivots of 1e-17 are divided by, the gradient errs by roundings of the numbers."""
    rng = np.random.default_rng(5)
    left = rng.normal(size=(40, 4, 3))
    for batch in (left @ left.transpose(0, 2, 1), left @ rng.normal(size=(40, 3, 4))):
        (got,) = vgrad.compile(linalg.det, parameters=[]).input_grads([], batch)
        for a, gradient in zip(batch, got):
            assert gradient == pytest.approx(cofactors(a), abs=1e-13 * np.abs(a).max() ** 3)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
def test_gradients_agree_with_central_differences(name):
    """At zero pivots and ties too, and where samples need different pivots.

    One may be called a kink, where a result is linear and its differences are all but exact.
    """
    for batch in matrices_for(name):
        b = right(len(batch[0]))
        batch = [a for a in batch if np.linalg.cond(a) < 100]  # differences are too rough elsewhere
        program = vgrad.compile(weighted(name), parameters=[])
        for report in (
            vgrad.gradcheck(weighted(name), batch[0], b),
            vgrad.gradcheck(program, [], batch, [b] * len(batch)),
        ):
            assert report and len(report.unsure) < 2, report


@pytest.mark.parametrize(
    "a",
    [
        AWKWARD[3],
        pytest.param(AWKWARD[4], marks=pytest.mark.long),
        pytest.param(random(3), marks=pytest.mark.long),
    ],
    ids=range(3),
)
def test_second_derivatives_of_an_inverse(a):
    """By calculus, d inv(a) = -inv(a) da inv(a), twice."""
    weights = np.cos(np.arange(9)).reshape(3, 3)
    graph = vgrad.trace(weighted("inv"), (3, 3), (3, 2))
    first = graph.gradient(graph.inputs[:9])
    b = np.linalg.inv(a)
    one = np.einsum("pq,pi,jk,lq->ijkl", weights, b, b, b)
    want = one + one.transpose(2, 3, 0, 1)
    for k, index in enumerate(np.ndindex(3, 3)):
        second = first.gradient(first.inputs[:9], of=1 + k)
        got = vgrad.compile(second)([], [a], [right(3)])[-1]
        assert got.reshape(3, 3) == pytest.approx(want[index], abs=1e-13 * np.abs(want).max())


def test_second_derivatives_of_a_determinant():
    """Those to the first number are the cofactors of what its row and column leave."""
    graph = vgrad.trace(linalg.det, (3, 3))
    first = graph.gradient(graph.inputs)
    second = vgrad.compile(first.gradient(first.inputs, of=1))
    for a in (np.ones((3, 3)), AWKWARD[3], random(3)):
        got = second([], [a])[-1].reshape(3, 3)
        want = np.zeros((3, 3))
        want[1:, 1:] = cofactors(np.array(a)[1:, 1:])
        assert got == pytest.approx(want, abs=TINY)


# --- in use --------------------------------------------------------------------------------------


def test_a_step_of_a_kalman_filter():
    """Of a batch of states and covariances, each with measurements of its own noise."""
    rng = np.random.default_rng(0)
    step, seen = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.5, 1.0]])
    states, z, noise = rng.normal(size=(3, 20, 2))
    covariances = np.array([positive(2, seed) for seed in range(20)])

    def updated(inverse, x, p, z, noise):
        x, p = step @ x, step @ p @ step.T + 0.01 * np.eye(2)
        s = seen @ p @ seen.T + np.array([[noise[0] ** 2, 0.0], [0.0, noise[1] ** 2]])
        gain = p @ seen.T @ inverse(s)
        return x + gain @ (z - seen @ x), p - gain @ seen @ p

    program = vgrad.compile(lambda *args: updated(linalg.inv, *args), parameters=[])
    got = program([], states, covariances, z, noise)
    for k, args in enumerate(zip(states, covariances, z, noise)):
        for result, want in zip(got, updated(np.linalg.inv, *args)):
            # s has a condition number of some hundred
            assert result[k] == pytest.approx(want, rel=1e-12, abs=1e-12)


def test_the_likelihood_of_a_gaussian_process():
    """And its gradient, which by calculus is that of tr(inv(K) dK) - y inv(K) dK inv(K) y."""
    t = np.array([0.0, 0.7, 1.1, 2.0, 3.5])
    length, noise = Value(0.8), Value(0.3)

    def minus_log(y):
        near = np.array([[vgrad.exp(-(((u - v) / length) ** 2)) for u in t] for v in t])
        lower = linalg.cholesky(near + noise * np.eye(5))
        z = linalg.solve_triangular(lower, y, lower=True)
        return sum(z * z) / 2 + sum(map(vgrad.log, np.diag(lower)))

    program = vgrad.compile(minus_log, parameters=[length, noise])
    y = np.random.default_rng(3).normal(size=(4, 5))
    square = (t[:, None] - t) ** 2
    near = np.exp(-square / 0.64)
    inverse = np.linalg.inv(near + 0.3 * np.eye(5))
    want = (y @ inverse * y).sum(axis=1) / 2 - np.linalg.slogdet(inverse)[1] / 2
    assert program(program.theta(), y) == pytest.approx(want, rel=1e-13)
    for k, slope in enumerate((near * square * 2 / 0.8**3, np.eye(5))):
        change = inverse @ slope @ inverse
        want = (np.trace(inverse @ slope) - (y @ change * y).sum(axis=1)) / 2
        got = program.per_sample_grads(program.theta(), y)[:, k]
        assert got == pytest.approx(want, rel=1e-12, abs=1e-12)


# --- errors --------------------------------------------------------------------------------------

NEEDS = r" needs a square matrix \(n, n\)"
BOTH = NEEDS + r", and b of n rows, \(n,\) or \(n, m\) "
ONES = np.ones((2, 2))


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (
            lambda: linalg.solve(np.ones((2, 3)), [1, 2]),
            ShapeError,
            f"^solve{BOTH}\\(got a \\(2, 3\\), b \\(2,\\)\\)$",
        ),
        (lambda: linalg.solve(ONES, [1, 2, 3]), ShapeError, r"b \(3,\)\)$"),
        (lambda: linalg.solve(ONES, 1.0), ShapeError, r"b \(\)\)$"),
        (lambda: linalg.solve(ONES, np.ones((2, 2, 2))), ShapeError, "for a stack .* of one$"),
        (lambda: linalg.solve_triangular(ONES, [1]), ShapeError, f"^solve_triangular{BOTH}"),
        (lambda: linalg.inv([1.0, 2.0]), ShapeError, f"^inv{NEEDS} \\(got a \\(2,\\)\\)$"),
        (lambda: linalg.det(3.0), ShapeError, f"^det{NEEDS} \\(got a \\(\\)\\)$"),
        (lambda: linalg.slogdet([]), ShapeError, f"^slogdet{NEEDS} \\(got a \\(0,\\)\\)$"),
        (
            lambda: linalg.cholesky(np.ones((4, 2, 2))),
            ShapeError,
            r"^cholesky.*\(4, 2, 2\)\); for a stack of matrices, vgrad.compile a function of one$",
        ),
        (
            lambda: linalg.det([[1, 2], [3]]),
            ShapeError,
            r"^det needs arrays, or lists with rows of one length \(got \[\[1, 2\], \[3\]\]\)$",
        ),
        (lambda: linalg.det([np.ones((2, 1)), (1, 2)]), ShapeError, "^det needs arrays, or lists"),
        (lambda: linalg.det([["a", 1], [1, 1]]), TypeError, r"real number \(got 'a', a str\)"),
        (lambda: linalg.inv(ONES * 1j), TypeError, "real number .* a complex"),
        (lambda: linalg.solve(ONES, [Value(1.0), None]), TypeError, "real number .*None"),
        (
            lambda: linalg.solve_triangular(ONES, [1, 2], trans="X"),
            ValueError,
            r'^trans must be 0, 1, 2, "N", "T" or "C" \(got \'X\'\)$',
        ),
    ],
)
def test_bad_arguments(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
