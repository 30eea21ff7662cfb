"""A fused sum means what the scalar one means: where terms cancel, and where they overflow."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from helpers import half, mostly_double, same_bits, sweep

import vgrad
from vgrad import Value
from vgrad.compiler import compile_plan

rng = np.random.default_rng(0)

M = 6755399441055744.0  # 1.5 * 2**52: what it is added to and taken from is rounded to an integer
NUMBERS = np.array([1.2, 2.5, 3.7, -1.5, 1e-13, 0.3])
LARGE = np.full(6, M)
TINY = np.array([1e-13, 1e-5, 0.3])
A, B = rng.normal(size=(2, 50)) * 10.0 ** rng.integers(-8, 8, size=(2, 50))
A_, B_ = (x * (1 + 1e-9 * rng.normal(size=50)) for x in (A, B))  # the same but for the last digits
SUMS = [rng.normal(size=50) * 10.0**k for k in (8, -3, 6, 0, -8, 3)]
NINE = [NUMBERS + k for k in range(9)]
W = [Value(x) for x in (0.7, -1.3, 2.1, 0.4, -0.9, 1.7, 0.2, -0.5, 1.1)]
BIG, SAME = Value(M), Value(M)


def neuron(x):
    return sum(w * y for w, y in zip(W, x))


def two_sum(a, b):
    """The sum and its rounding error: Knuth, The Art of Computer Programming, volume 2, 4.2.2."""
    s = a + b
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def fast_two_sum(a, b):
    """The same where |a| >= |b|: Dekker, A floating-point technique, 1971."""
    s = a + b
    return s, b - (s - a)


def halves(a):
    """Two numbers of 26 bits whose sum is `a`: Dekker, 1971."""
    c = 134217729.0 * a
    high = c - (c - a)
    return high, a - high


def two_product(a, b):
    """The product and its rounding error: Dekker, 1971."""
    p, (a1, a2), (b1, b2) = a * b, halves(a), halves(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def kahan(xs):
    """A compensated sum: Kahan, Further remarks on reducing truncation errors, 1965."""
    total, c = xs[0], 0.0
    for x in xs[1:]:
        y = x - c
        t = total + y
        c, total = (t - total) - y, t
    return total


def neumaier(xs):
    """One that also adds what was lost in the end: Neumaier, 1974."""
    total, lost = xs[0], 0.0
    for x in xs[1:]:
        t = total + x
        larger = vgrad.abs(total) >= vgrad.abs(x)
        lost = lost + vgrad.where(larger, (total - t) + x, (x - t) + total)
        total = t
    return total + lost


def compensated_dot(xs, ys):
    """Ogita, Rump and Oishi, Accurate sum and dot product, 2005."""
    p, s = two_product(xs[0], ys[0])
    for x, y in zip(xs[1:], ys[1:]):
        (h, r) = two_product(x, y)
        p, q = two_sum(p, h)
        s = s + (q + r)
    return p + s


def log1p(x):
    """Goldberg, What every computer scientist should know about floating-point, theorem 4."""
    u = 1 + x
    return vgrad.log(u) - ((u - 1) - x) / u


def two_uses(*x):
    s = neuron(x) + M
    return s - M, s


# fmt: off
CASES: dict[str, tuple[Callable[..., Any], list[Any], list[Value]]] = {
    # rounding by a large number
    "a constant": (lambda x: (x + M) - M, [NUMBERS], []),
    "a constant first": (lambda x: (M + x) - M, [NUMBERS], []),
    "taken away and added": (lambda x: x - M + M, [NUMBERS], []),
    "on the right": (lambda x: -M + (x + M), [NUMBERS], []),
    "negated": (lambda x: -((-M - x) + M), [NUMBERS], []),
    "two constants": (lambda x: (x + M) - (M + 8.0), [NUMBERS], []),
    "a constant and a number": (lambda x, y: ((x + M) - M) + y, [A, B], []),
    "of a sum": (lambda x, y: ((x + y) + M) - M, [NUMBERS, NUMBERS[::-1]], []),
    "of a product": (lambda x, y: (x * y + M) - M, [NUMBERS, NUMBERS[::-1]], []),
    "of a neuron": (lambda *x: (neuron(x) + M) - M, NINE, W),
    "of a neuron by two constants": (lambda *x: (neuron(x) + M) - (M + 8.0), NINE, W),
    "of a neuron with another use": (two_uses, NINE, W),
    "a parameter": (lambda x: (x + BIG) - BIG, [NUMBERS], [BIG]),
    "two parameters": (lambda x: (x + BIG) - SAME, [NUMBERS], [BIG, SAME]),
    "an input": (lambda x, m: (x + m) - m, [NUMBERS, LARGE], []),
    "two inputs": (lambda x, m, n: (x + m) - n, [NUMBERS, LARGE, LARGE], []),
    "a computed number": (lambda x, m: (x + abs(m)) - abs(m), [NUMBERS, LARGE], []),
    "in a condition": (lambda x: vgrad.where((x + M) - M > x, 1.0, -1.0) * x, [NUMBERS], []),
    "below functions": (lambda x: vgrad.exp(vgrad.tanh(((x + M) - M) * 0.1)), [NUMBERS], []),
    "to an infinity": (lambda x: 1 / ((x + 1e16) - 1e16), [np.array([1.0, 0.5, 3.0])], []),
    # errors that are found and added
    "log1p": (log1p, [TINY], []),
    "expm1": (lambda x: (vgrad.exp(x) - 1) * x / vgrad.log(vgrad.exp(x)), [TINY], []),
    "two sum": (two_sum, [A, B], []),
    "two sum with a product": (lambda x: two_sum(W[0] * x, W[1]), [A], W[:2]),
    "fast two sum": (fast_two_sum, [A, A * 1e-5 * B], []),
    "halves": (halves, [A], []),
    "two product": (two_product, [A, B], []),
    "two product with a parameter": (lambda x: two_product(W[0], x), [A], W[:1]),
    "two product of sums": (lambda x, y: two_product(x + y, x - y), [A, B], []),
    "Kahan's sum": (lambda *x: kahan(x), SUMS, []),
    "Neumaier's sum": (lambda *x: neumaier(x), SUMS, []),
    "a compensated dot product": (lambda *x: compensated_dot(x[:3], x[3:]), SUMS, []),
    # differences, each of them exact
    "two differences": (lambda a, b, c, d: (a - b) + (c - d), [A, A_, B, B_], []),
    "three in a row": (lambda a, b, c, d: (a - b) + (c - d) + (a - c), [A, A_, B, B_], []),
    "differences and a product": (
        lambda a, b, c, d: (a - b) + 1e-30 * d + (c - d), [A, A_, B, B_], []),
    "many differences": (
        lambda a, b: sum(x - y for x, y in zip(a, b)), [np.outer(A, W_8 := np.arange(1.0, 9.0)),
        np.outer(A_, W_8)], []),
    "sums that are nearly equal": (
        lambda a, b, c, d: (a + b + c) - (a + b + d), [A, B, 1e-9 * A, 1e-9 * B], []),
    "large numbers first": (lambda a, b, c: a + b + c, [1e16 * A, -1e16 * A, B], []),
    "large numbers last": (lambda a, b, c: a + (b + c), [B, 1e16 * A, -1e16 * A], []),
    "sums from 0 on the right": (
        lambda a, b, c: -(a - c) + a + (0 + c * b), [A, B, A_], []),
    "large parameters": (lambda x: BIG - SAME + x, [NUMBERS], [BIG, SAME]),
    "a telescoping sum": (
        lambda *x: sum(b - a for a, b in pairwise(x)), [1e8 + s for s in SUMS], []),
    "second differences": (
        lambda a, b, c: (a - 2 * b + c) * 1e6, [np.sin(A), np.sin(A + 1e-5), np.sin(A + 2e-5)], []),
    "third differences": (
        lambda *u: (-1 * u[0] + 2 * u[1] - 2 * u[2] + 1 * u[3]) / 2,
        [np.sin(A + k * 1e-3) for k in (-2, -1, 1, 2)], []),
    "halves of differences": (
        lambda a, b, c, d: (a / 2 - b / 2) + ((c + d) / 2 - d), [A, A_, B, B_], []),
    "powers of one": (lambda a, b, c, d: (a**1 - b) + (c**1 - d), [A, A_, B, B_], []),
    "masked differences": (
        lambda a, b, c, d: ((a < 9) * a - (b < 9) * b) + ((a == a) * c - (b == b) * d),
        [A, A_, B, B_], []),
    "a time since another": (
        lambda x, t, n, t0: W[0] * x + ((t + 60 * n) - t0),
        [A, B, np.full(50, 5.0), B + 1e-7 * A + 300], W[:1]),
    "a residual on the right": (
        lambda w, x, b, y, z: z * w + ((b + w * x) - y),
        [np.full(50, 3.0), np.arange(50.0), np.full(50, 1e9), 3 * np.arange(50.0) + 1e9, 1e-9 * A],
        []),
    # what is added and taken away again
    "a number": (lambda a, b, c: a + b + c - a, [1e12 * A, B, A], []),
    "a product": (lambda a, b, c: (a * b + c) - a * b, [1e12 * A, B, A], []),
    "a factor": (
        lambda a, b, c, *x: (a * b - a * c) + neuron(x), [1e12 * A, B, B.copy(), *SUMS], W[:6]),
    "squares": (lambda a, b: (a + b) ** 2 - (a - b) ** 2, [A, 1e-9 * B], []),
    "squares as products": (
        lambda a, b: (a + b) * (a + b) - (a - b) * (a - b), [A, 1e-9 * B], []),
    "masks": (lambda x, y: (x > 0) * y + (x < 0) * 1e17 - (x < 0) * 1e17 + x, [A, B], []),
    "choices": (lambda x, y: vgrad.maximum(x, 1e17) - 1e17 + vgrad.relu(y), [A, B], []),
    # whichever kernel adds them up
    "twelve terms": (lambda *x: sum([*x, *(-y for y in x), 1e-9 * x[0]]), SUMS, []),
    "several lengths": (
        lambda *x: tuple(sum(x[:k]) - sum(x[1:k]) for k in range(2, 7)), SUMS, []),
    "long sums of several lengths": (
        lambda x: tuple(sum(x[j : j + k]) for j in range(3) for k in (5, 9, 30, 31)),
        [np.outer(A, np.ones(40)) + np.outer(B, np.arange(40.0)) - 1e6], []),
    "long sums of one length": (
        lambda x: tuple(sum(x[j : j + 30]) for j in range(5)),
        [np.outer(A, np.ones(40)) + np.outer(B, np.arange(40.0)) - 1e6], []),
}
# fmt: on


@mostly_double
@pytest.mark.parametrize("name", half(CASES))
def test_what_may_cancel_is_added_up_as_it_is_written(name, dtype):
    """To the bit, but for the sign of 0, in batches of several samples, of one, and of none."""
    fn, arrays, parameters = CASES[name]
    fused, plain = (vgrad.compile(fn, parameters, fuse=fuse, dtype=dtype) for fuse in (True, False))
    theta = fused.theta()
    for samples in (slice(None), slice(2, 3)):
        equal(fused, plain, theta, *(x[samples] for x in arrays))
    if dtype == np.float64:
        fused.verify(theta, *arrays)
        leaves = [np.vectorize(Value, otypes=[object])(x[1])[()] for x in arrays]
        roots = fn(*leaves)
        roots = roots if isinstance(roots, tuple) else (roots,)
        every = [*parameters, *(x for leaf in leaves for x in np.ravel(leaf))]
        graph = vgrad.capture(*roots, parameters=every)
        equal(vgrad.compile(graph), vgrad.compile(graph, fuse=False), graph.value[graph.parameters])


def equal(fused, plain, *arguments):
    got, want = (np.asarray(program(*arguments)) for program in (fused, plain))
    assert same_bits(got + 0.0, want + 0.0)


@pytest.mark.parametrize("name", CASES)
def test_an_exported_function_keeps_the_order_too(name):
    fn, arrays, parameters = CASES[name]
    graph = vgrad.trace(fn, *(x.shape[1:] for x in arrays), parameters=parameters)
    names: dict[str, Any] = {}
    exec(graph.to_numpy_source("exported"), names)
    theta = graph.value[graph.parameters]
    for samples in (slice(None), slice(2, 3)):
        some = [x[samples] for x in arrays]
        equal(names["exported"], vgrad.compile(graph, fuse=False), theta, *some)


def test_the_values_are_those_that_were_meant():
    """By other means than either engine's: whole numbers, NumPy's log1p, and exact fractions."""
    got = vgrad.compile(CASES["a constant"][0])([], NUMBERS)
    assert got.tolist() == np.rint(NUMBERS).tolist()
    got = vgrad.compile(log1p)([], TINY)
    assert got == pytest.approx(np.log1p(TINY), rel=4e-16)
    for fn, exact in ((two_sum, Fraction.__add__), (two_product, Fraction.__mul__)):
        value, error = vgrad.compile(fn)([], A, B)
        assert (error != 0).sum() > 30
        for a, b, x, e in zip(A, B, value, error):
            assert Fraction(x) + Fraction(e) == exact(Fraction(a), Fraction(b))


@pytest.mark.parametrize("name", ["a constant", "two sum", "log1p", "a compensated dot product"])
def test_gradients_of_gradients_keep_the_order_too(name):
    fn, arrays, _ = CASES[name]
    graph = vgrad.trace(fn, *(x.shape[1:] for x in arrays))
    graph = graph.gradient(graph.inputs)
    graph = graph.gradient(graph.inputs, of=len(graph.outputs) - 1)
    got, want = (vgrad.compile(graph, fuse=fuse)([], *arrays)[0] for fuse in (True, False))
    assert same_bits(got, want)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a constant",
            "a parameter",
            "in a condition",
            "to an infinity",
            "two sum with a product",
        ),
        *("large numbers last", "sums that are nearly equal"),
    ],
)
def test_verify_finds_a_sum_in_another_order(name, monkeypatch):
    """Where the compiler thinks that any order will do, and turns it around."""
    fn, arrays, parameters = CASES[name]
    fuse = vgrad.compiler.fuse
    monkeypatch.setattr(fuse, "parted", lambda whole: (whole, whole.several & False))
    monkeypatch.setattr(
        vgrad.compiler.trees.Forest, "terms", property(lambda forest: backwards(forest))
    )
    program = vgrad.compile(fn, parameters)
    plain = vgrad.compile(fn, parameters, fuse=False)
    theta = program.theta()
    with np.errstate(invalid="ignore"):
        got, want = (np.asarray(p(theta, *arrays)) for p in (program, plain))
        off = ~(np.abs(got - want) <= 1e-12 * np.abs(want)) & (got != want)
    assert off.any()
    with pytest.raises(vgrad.ParityError, match="must agree with the scalar engine's"):
        program.verify(theta, *arrays, samples=len(arrays[0]))


TERMS = vgrad.compiler.trees.Forest.terms.function


def backwards(forest):
    terms = TERMS(forest)
    order = np.lexsort((-np.arange(len(terms.node)), terms.node))
    return terms.take(order)


def test_verify_finds_a_rounding_where_there_should_be_none(monkeypatch):
    """Though the difference is nothing beside the numbers that cancel."""
    right = vgrad.program.Call.outputs
    for name in ("a constant", "two product", "squares", "a telescoping sum", "Kahan's sum"):
        fn, arrays, parameters = CASES[name]
        program = vgrad.compile(fn, parameters)
        program.verify([], *arrays)
        monkeypatch.setattr(
            vgrad.program.Call, "outputs", lambda call: right(call) * (1 + 2.0**-52)
        )
        with pytest.raises(vgrad.ParityError, match="must agree with the scalar engine's"):
            program.verify([], *arrays)
        monkeypatch.undo()


def matrix(x):
    return [vgrad.tanh(sum(w * y for w, y in zip(row, x))) for row in ROWS]


ROWS = np.array([Value(x) for x in rng.normal(size=32)]).reshape(4, 8)
NEAR_MISSES = {
    "products": lambda x: sum(matrix(x)),
    "and a bias": lambda x: sum(vgrad.tanh(sum(row * x) + w) for row, w in zip(ROWS, W)),
    "and a residual": lambda x: sum(vgrad.tanh(x[k] + sum(row * x)) for k, row in enumerate(ROWS)),
    "and two numbers": lambda x: sum(vgrad.tanh(sum(row * x) + W[0] - x[0]) for row in ROWS),
    "of rows by rows": lambda x: sum(vgrad.tanh(sum(x[:4] * x[4:])) for _ in ROWS) + matrix(x)[0],
    "from the right": lambda x: sum(vgrad.tanh(W[0] + (W[1] + sum(row * x))) for row in ROWS),
    "subtracted": lambda x: sum(vgrad.tanh(W[0] - sum(row * x)) for row in ROWS),
    "sums of results": lambda x: sum(matrix(x)) + sum(vgrad.exp(y) for y in x),
    "squares": lambda x: sum(w * w for row in ROWS for w in row) * x[0],
    "losses": lambda x: sum((y - 1) ** 2 for y in x),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_cannot_cancel_is_a_matrix_product_as_before(name):
    fn, parameters = NEAR_MISSES[name], [*ROWS.flat, *W]
    program, data = vgrad.compile(fn, parameters), rng.normal(size=(5, 8))
    kind = "sum" if name == "losses" else "matmul"  # products of what differs between samples
    assert kind in program.explain(data) or "einsum" in program.explain(data)
    program.verify(program.theta(), data)
    got, want = (
        vgrad.compile(fn, parameters, fuse=fuse)(program.theta(), data) for fuse in (True, False)
    )
    assert got == pytest.approx(want, rel=1e-14)  # some ten roundings of 1e-16


# --- random programs -----------------------------------------------------------------------------


class Sums:
    """A random program of sums, differences and products, and numbers for which many cancel."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.inputs, parameters = draw.randint(2, 6), draw.randint(0, 4)
        self.total = self.inputs + parameters
        self.lines: list[tuple[str, list[Any]]] = []
        self.constants = [self.number() for _ in range(3)]
        for _ in range(draw.randint(2, 10)):
            self.lines.append(self.line())
            self.total += 1
        self.outputs = [self.total - 1 - draw.randrange(len(self.lines)) for _ in range(2)]
        self.data = [self.numbers(self.inputs) for _ in range(3)]
        self.theta = self.numbers(parameters)

    def number(self) -> float:
        if self.draw.random() < 0.3:
            return self.draw.choice([1.0, 2.0, 3.0, -1.0, 7.0, 1e16, -1e16, M, 1e8, -1e8, 0.5])
        return self.draw.uniform(-1, 1) * 10.0 ** self.draw.randint(-18, 18)

    def numbers(self, count: int) -> list[float]:
        numbers = [self.number() for _ in range(count)]
        if count > 1 and self.draw.random() < 0.6:  # some cancel, completely or nearly
            i, j = self.draw.sample(range(count), 2)
            off = self.draw.choice([0.0, 0.0, 1e-10, 2.0**-40])
            numbers[i] = self.draw.choice([-1, 1]) * numbers[j] * (1 + off)
        return numbers

    def line(self) -> tuple[str, list[Any]]:
        pick, draw = self.pick, self.draw
        kind = draw.choice(["+", "+", "-", "-", "*", "neg", "half", "sum", "dot", "dot"])
        if kind not in ("sum", "dot"):
            return kind, [pick(), pick()]
        terms = []
        for _ in range(draw.randint(2, 9)):
            lone = kind == "sum" or draw.random() < 0.3
            terms.append((draw.choice([1, 1, -1]), pick(), None if lone else pick()))
        return kind, terms

    def pick(self) -> int | float:
        if self.draw.random() < 0.12:
            return self.draw.choice(self.constants)
        if self.draw.random() < 0.5:
            return max(0, self.total - 1 - int(self.draw.expovariate(0.5)))
        return self.draw.randrange(self.total)

    def __call__(self, *leaves: Any) -> list[Any]:
        """The outputs for inputs and parameters: numbers, nodes, or fractions, which are exact."""
        values, exact = list(leaves), isinstance(leaves[0], Fraction)

        def at(x: Any) -> Any:
            return values[x] if isinstance(x, int) else Fraction(x) if exact else x

        for kind, operands in self.lines:
            if kind in ("sum", "dot"):
                total: Any = 0
                for sign, x, y in operands:
                    term = at(x) if y is None else at(x) * at(y)
                    total = total + term if sign > 0 else total - term
                values.append(total)
            else:
                x, y = map(at, operands)
                results = {"+": x + y, "-": x - y, "*": x * y, "neg": -x, "half": x / 2}
                values.append(results[kind])
        outputs = [values[k] for k in self.outputs]
        return [Value(x, trainable=False) if isinstance(x, float) else x for x in outputs]


@pytest.mark.parametrize("block", sweep(40, 2))
def test_random_sums_that_cancel(block):
    """2,000 programs in all: where the plain sweep is right to 1e-13, the fused one is to 1e-12."""
    judged = 0
    for seed in range(50 * block, 50 * block + 50):
        program = Sums(seed)
        parameters = [Value(x) for x in program.theta]
        columns = np.array(program.data).T
        compiled = [
            vgrad.compile(lambda *x: tuple(program(*x, *parameters)), parameters, fuse=fuse)  # noqa: B023
            for fuse in (True, False)
        ]
        fused, plain = (np.array(f(program.theta, *columns)).T for f in compiled)
        for got, want, sample in zip(fused, plain, program.data):
            exact = program(*map(Fraction, [*sample, *program.theta]))
            for g, w, e in zip(got.tolist(), want.tolist(), exact):
                if abs(Fraction(w) - e) <= abs(e) / 10**13:
                    judged += 1
                    assert abs(g - w) <= 1e-12 * abs(w), f"seed {seed}: {g} for {w}"
    assert judged > 200


SQUASHED = [
    vgrad.tanh,
    vgrad.sigmoid,
    lambda z: 1 / z,
    lambda z: 1 / (1 + z * z),
    lambda z: vgrad.where(z > 0, 1.0, 2.0),
    lambda z: vgrad.minimum(vgrad.maximum(z, -1.0), 1.0),
    lambda z: vgrad.exp(-vgrad.abs(z)),
]


class Extremes:
    """Sums of products of numbers up to 1e300, and down to 1e-300, before functions saturate."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.dtype, top = draw.choice([(np.float64, 300), (np.float64, 300), (np.float32, 36)])
        self.inputs, parameters = draw.randint(2, 9), draw.randint(0, 6)
        self.squash = draw.choice(SQUASHED)
        self.kind = draw.choice(["dots", "grid", "scaled", "triples", "pairs", "right"])
        self.k, self.rows, self.scalings = (
            draw.randint(2, 9),
            draw.randint(1, 5),
            draw.randint(1, 20),
        )
        self.factors = [draw.choice([1.0, -1.0, 2.0, 0.5, 1e3, 1e6, 2.0**29]) for _ in range(20)]
        self.order = [draw.randrange(self.inputs + parameters) for _ in range(200)]

        def number() -> float:
            size = draw.choice([top, top, top // 2, 3])
            return draw.choice([-1, 1]) * draw.uniform(1, 9.99) * 10.0 ** draw.randint(-size, size)

        self.data = np.array([[number() for _ in range(self.inputs)] for _ in range(3)])
        self.theta = np.array([number() for _ in range(parameters)])

    def sums(self, numbers: list[Any], exact: bool = False) -> list[Any]:
        order, k, rows = iter(self.order * 3), self.k, self.rows
        factors = [Fraction(c) if exact else c for c in self.factors]

        def take(n: int) -> list[Any]:
            return [numbers[next(order)] for _ in range(n)]

        def dot(u: list[Any], v: list[Any]) -> Any:
            return sum(x * y for x, y in zip(u, v))

        if self.kind == "dots":
            return [dot(take(k), take(k)) for _ in range(rows)]
        if self.kind == "grid":
            u, v = [take(k) for _ in range(rows)], [take(k) for _ in range(3)]
            return [dot(x, y) for x in u for y in v]
        if self.kind == "scaled":
            z = take(1)[0] * take(1)[0]
            for c in factors[: self.scalings]:
                z = c * z
            return [
                z + take(1)[0],
                *(
                    sum(c * (x * y) for c, x, y in zip(factors, take(k), take(k)))
                    for _ in range(rows)
                ),
            ]
        if self.kind == "triples":
            return [
                sum(x * y * z for x, y, z in zip(take(k), take(k), take(k))) for _ in range(rows)
            ]
        if self.kind == "pairs":
            u = [take(k) for _ in range(4)]
            return [dot(u[i], u[j]) for i in range(4) for j in range(i + 1)]
        return [
            dot(take(2), take(2)) + (dot(take(2), take(2)) - dot(take(1), take(1)))
            for _ in range(rows)
        ]


@pytest.mark.parametrize("block", sweep(40, 2))
def test_an_overflow_is_not_hidden(block):
    """2,000 programs in all: where the plain sweep's sums are right, results are not others.

    To 1e-9, or 1e-3 of float32: 1 / z and exp(-z) pass on a thousand roundings and more.
    """
    judged = 0
    for seed in range(50 * block, 50 * block + 50):
        program = Extremes(seed)
        parameters = [Value(x) for x in program.theta]

        def compiled(squash: Any, fuse: bool) -> Any:
            def fn(x: Any) -> Any:
                return tuple(squash(z) for z in program.sums([*x, *parameters]))  # noqa: B023

            run = vgrad.compile(fn, parameters, fuse=fuse, dtype=program.dtype)  # noqa: B023
            with np.errstate(over="ignore"):
                return np.array(run(program.theta, program.data)).reshape(-1, 3).T  # noqa: B023

        fused, plain = (compiled(program.squash, fuse) for fuse in (True, False))
        sums = compiled(lambda z: z + 0.0, False)
        close, rough = (1e-13, 1e-9) if program.dtype == np.float64 else (1e-6, 1e-3)
        for got, want, z, sample in zip(fused, plain, sums, program.data):
            leaves = np.append(sample, program.theta).astype(program.dtype).tolist()
            exact = program.sums([Fraction(x) for x in leaves], exact=True)
            for g, w, s, e in zip(got.tolist(), want.tolist(), z.tolist(), exact):
                if np.isfinite(s) and abs(Fraction(s) - e) <= abs(e) * Fraction(close):
                    judged += 1
                    same = g == w or abs(g - w) <= rough * abs(w)
                    assert same, f"seed {seed}: {g} for {w}"
    assert judged > 200


def test_examples_of_overflows_that_a_function_would_hide():
    x = np.array([1e304] * 8 + [1e-311] * 8)
    scaled = lambda x: vgrad.tanh(sum(1e6 * (x[i] * x[i + 8]) for i in range(8)))  # noqa: E731
    alike(scaled, x)
    names: dict[str, Any] = {}  # of an exported function, which no other sweep stands behind
    exec(vgrad.trace(scaled, (16,)).to_numpy_source("exported"), names)
    assert names["exported"]([], x[None]) == pytest.approx([0.66403677026784], rel=1e-12)
    alike(scaled, np.array([1e33] * 8 + [1e-40] * 8), dtype=np.float32)

    def doubled(x):
        y = x[0] * x[1]
        for _ in range(1100):
            y = 2.0 * y
        return 1 / (1 + y)

    alike(doubled, np.array([1e-320, 1.0]))
    in_turn = np.array([1e154, 1e154, 1e154, -1e154] * 5)
    alike(lambda x: vgrad.tanh(sum(x[i] * x[i + 1] for i in range(0, 20, 2))), in_turn)
    alike(lambda x: vgrad.tanh(sum(x[i] * x[i + 1] for i in range(0, 18, 3))), in_turn)


def test_an_overflow_is_not_hidden_where_inputs_are_small():
    """Of products that in turn add up to little, a matrix product may add the large ones first."""
    signs = np.full(64, 1e-300)
    signs[[11, 16, 31, 32, 33, 61, 63]] = -0.25, -0.25, 1.0, -0.5, -0.25, -0.25, 0.5

    def fn(x):
        u, v = np.exp(x[:64]), np.exp(x[64:]) * signs
        return vgrad.tanh(1e-308 * sum(u * v))

    alike(fn, np.full(128, 354.7))


def alike(fn, x, dtype=np.float64):
    """Fused and plain give the same finite number, of one sample, and beside others."""
    for data in (x[None], np.stack([x, x * 0 + 0.5, x])):
        got, want = (vgrad.compile(fn, fuse=fuse, dtype=dtype)([], data) for fuse in (True, False))
        assert np.isfinite(want).all()
        assert got == pytest.approx(want, rel=1e-6 if dtype == np.float32 else 1e-12)


def test_only_large_numbers_are_looked_at_closely(monkeypatch):
    """Of ordinary ones a single sum of squares tells that nothing has overflowed."""
    looks = []
    watch = vgrad.compiler.watch.Watch
    right = watch.finite
    monkeypatch.setattr(watch, "finite", lambda self: looks.append(1) or right(self))
    program = vgrad.compile(lambda x: sum(matrix(x)), [*ROWS.flat])
    theta = program.theta()
    program(theta, np.ones((5, 8)))
    program(theta, np.full((5, 8), 1e30))
    assert not looks
    program(theta, np.full((5, 8), 1e100))
    assert looks


def test_a_sum_of_ones_has_no_factor():
    """Of which the kernel may have nothing to multiply; several such sums run as one."""

    def fn(a, b, c, d, e, g, x):
        y = x * vgrad.tanh(a * b + c * d) * vgrad.tanh(a * c + b * d + e * g)
        y = y * vgrad.tanh(a * d + b * c + e * g)
        for _ in range(5):
            y = y + 1.0
        return y

    numbers = rng.normal(size=(7, 4))
    parameters = [Value(x) for x in rng.normal(size=6)]
    for f, p, data in (
        (lambda x: fn(*parameters, x), parameters, numbers[:1]),
        (fn, [], numbers),
    ):
        program = vgrad.compile(f, p)
        program.verify(program.theta(), *data)
    ones = lambda x: tuple(sum([1.0 * k for k in [1] * n], x * 0 + 1) for n in (6, 7))  # noqa: E731
    assert np.array(vgrad.compile(ones)([], [1.0, 2.0])).tolist() == [[7.0, 7.0], [8.0, 8.0]]


def test_every_case_is_kept_apart_from_matrix_products():
    """So that it is the rule that holds them, not luck: their kernels are exact, all of them."""
    for name, (fn, arrays, parameters) in CASES.items():
        graph = vgrad.trace(fn, *(x.shape[1:] for x in arrays), parameters=parameters)
        kernels = compile_plan(graph).summary().kernels
        assert all(kernel.exact for kernel in kernels), name
