"""Random programs as people write them: layers, attention, recurrences, and what goes with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import vgrad
from vgrad import Value

Numbers = list[Any]
ACTIVATIONS = ["tanh", "relu", "sigmoid", "sin", "none"]
MOST = 24  # numbers that go from one block to the next


def total(xs: Numbers) -> Any:
    return sum(xs[1:], xs[0])


def dot(xs: Numbers, ys: Numbers) -> Any:
    return sum(x * y for x, y in zip(xs, ys))


def parted(xs: Numbers, size: int) -> list[Numbers]:
    """Consecutive parts of one size; what is left over is dropped."""
    return [xs[k : k + size] for k in range(0, len(xs) - size + 1, size)]


class Structured:
    """A program made of blocks, each of which makes a list of numbers of another.

    It takes floats, `Value`s, nodes, or whatever computes as these do. `leaf` makes parameters of
    numbers, and `functions` are those of vgrad, or of the same names elsewhere.
    """

    def __init__(
        self, seed: int, leaf: Callable[[float], Any] = Value, functions: Any = vgrad
    ) -> None:
        self.draw, self.leaf, self.functions = random.Random(seed), leaf, functions
        self.parameters: list[Any] = []
        self.blocks: list[tuple[str, Callable[[Numbers], Numbers]]] = []
        self.shapes = [
            self.draw.choice([(), (3,), (4,), (6,), (2, 3), (4, 4), (6, 4)])
            for _ in range(self.draw.randint(1, 3))
        ]
        self.width = sum(int(np.prod(shape)) for shape in self.shapes)
        self.inputs = self.width
        for _ in range(self.draw.randint(1, 5)):
            make = self.draw.choice(KINDS)
            block = make(self)
            if block is not None:
                self.blocks.append((make.__name__, block))
        self.loss = self.draw.choice([squared, hinge, entropy, plain_sum])
        self.penalty = self.draw.choice([0.0, 0.0, 1e-2, 1e-4])
        self.more = self.draw.choice([0, 0, 1, 2, 3])

    def __repr__(self) -> str:
        names = [name for name, _ in self.blocks]
        return f"{self.shapes} -> {' -> '.join(names)} -> {self.loss.__name__}"

    def weights(self, *shape: int) -> Any:
        """New parameters, or now and then those of an earlier block."""
        count = int(np.prod(shape))
        if len(self.parameters) >= count and self.draw.random() < 0.2:
            start = self.draw.randrange(len(self.parameters) - count + 1)
            found = self.parameters[start : start + count]
        else:
            scale = 1.5 / np.sqrt(shape[-1])
            found = [self.leaf(self.draw.uniform(-scale, scale)) for _ in range(count)]
            self.parameters += found
        return parted(found, shape[1]) if len(shape) > 1 else found

    def activation(self) -> Callable[[Any], Any]:
        name = self.draw.choice(ACTIVATIONS)
        return lambda x: getattr(self.functions, name)(x) if name != "none" else x

    def data(self, batch: int, seed: int) -> list[Any]:
        rng = np.random.default_rng(seed)
        return [rng.uniform(-1.5, 1.5, size=(batch, *shape)) for shape in self.shapes]

    def __call__(self, *arguments: Any) -> tuple[Any, ...]:
        xs: Numbers = [x for a in arguments for x in (a.flat if isinstance(a, np.ndarray) else [a])]
        first = xs[0]
        for _, block in self.blocks:
            xs = block(xs)
        objective = self.loss(self, xs)
        if self.penalty and self.parameters:
            objective = objective + self.penalty * sum(p * p for p in self.parameters)
        others = [xs[-1], first, xs[-1] * first, *self.parameters[:1]][: self.more + 1]
        return (objective, *others[: self.more])


# --- blocks: each draws its weights and sizes, and returns what it does -------------------------


def dense(p: Structured) -> Any:
    """With the bias first, last, or not at all; or with what it is given added to it."""
    size = p.draw.choice([1, 2, 3, 5, 8, p.width])
    w, b, act = p.weights(size, p.width), p.weights(size), p.activation()
    style, residual = p.draw.choice(["first", "last", "none"]), size == p.width
    p.width = size

    def run(xs: Numbers) -> Numbers:
        made = []
        for k, (row, bias) in enumerate(zip(w, b)):
            if style == "first":
                z = sum((a * x for a, x in zip(row, xs)), bias)
            else:
                z = dot(row, xs) + bias if style == "last" else dot(xs, row)
            made.append(xs[k] + act(z) if residual else act(z))
        return made

    return run


def attention(p: Structured) -> Any:
    """Softmax of the products of queries and keys, of one or two heads; causal or not."""
    d = p.draw.choice([2, 3, 4])
    t = p.width // d
    if t < 2:
        return None
    q, k, v = (p.weights(d, d) for _ in range(3))
    causal, heads = p.draw.random() < 0.5, p.draw.choice([1, 1, d])
    p.width = t * d
    size = d // heads

    def run(xs: Numbers) -> Numbers:
        tokens, made = parted(xs, d), []
        rows = [[[dot(row, x) for row in w] for x in tokens] for w in (q, k, v)]
        for i in range(t):
            seen = range(i + 1 if causal else t)
            for h in range(0, d, size):
                cut = slice(h, h + size)
                scores = [dot(rows[0][i][cut], rows[1][j][cut]) * size**-0.5 for j in seen]
                weights = p.functions.softmax(scores)
                made += [dot(weights, [rows[2][j][h + m] for j in seen]) for m in range(size)]
        return [x + y for x, y in zip(xs, made)]

    return run


def convolution(p: Structured) -> Any:
    size, stride = p.draw.choice([2, 3]), p.draw.choice([1, 2])
    if p.width < size:
        return None
    channels = p.draw.choice([1, 2, 4])
    w, b, act = p.weights(channels, size), p.weights(channels), p.activation()
    starts = range(0, p.width - size + 1, stride)
    kept = min(MOST, channels * len(starts))
    p.width = kept

    def run(xs: Numbers) -> Numbers:
        made = [
            act(sum(row[j] * xs[s + j] for j in range(size)) + bias)
            for row, bias in zip(w, b)
            for s in starts
        ]
        return made[:kept]

    return run


def recurrence(p: Structured) -> Any:
    """Hidden states that read the numbers in turn, as an RNN or with a gate."""
    hidden, gated = p.draw.choice([1, 2, 3]), p.draw.random() < 0.4
    w, u, b = p.weights(hidden), p.weights(hidden, hidden), p.weights(hidden)
    g = p.weights(hidden, hidden)
    p.width = hidden

    def run(xs: Numbers) -> Numbers:
        h = [0.0 * xs[0]] * hidden
        for x in xs[:12]:
            new = [p.functions.tanh(w[k] * x + dot(u[k], h) + b[k]) for k in range(hidden)]
            if gated:
                z = [p.functions.sigmoid(dot(g[k], h) + x) for k in range(hidden)]
                new = [a * m + (1 - a) * n for a, m, n in zip(z, h, new)]
            h = new
        return h

    return run


def smoothing(p: Structured) -> Any:
    learnt, w = p.draw.random() < 0.5, p.weights(1)[0]

    def run(xs: Numbers) -> Numbers:
        rate = p.functions.sigmoid(w) if learnt else 0.3
        level, made = xs[0], []
        for x in xs:
            level = rate * x + (1 - rate) * level
            made.append(level)
        return made

    return run


def ragged(p: Structured) -> Any:
    """Means and weighted sums of what came before, each of another length."""
    w, weighted = p.weights(p.width), p.draw.random() < 0.5

    def run(xs: Numbers) -> Numbers:
        if weighted:
            return [p.functions.tanh(dot(w[: k + 1], xs[: k + 1])) for k in range(len(xs))]
        return [total(xs[: k + 1]) / (k + 1) for k in range(len(xs))]

    return run


def polynomial(p: Structured) -> Any:
    c, horner = p.weights(4), p.draw.random() < 0.5

    def run(xs: Numbers) -> Numbers:
        if horner:
            made = [((c[3] * x + c[2]) * x + c[1]) * x + c[0] for x in xs]
        else:
            made = [c[0] + c[1] * x + c[2] * x * x + c[3] * x**3 for x in xs]
        return [p.functions.sin(x) for x in made]

    return run


def products(p: Structured) -> Any:
    """Of neighbours, of all pairs, or of one number with itself."""
    kind = p.draw.choice(["neighbours", "pairs", "itself"])

    def run(xs: Numbers) -> Numbers:
        if kind == "itself":
            return [p.functions.tanh(x * x + x + x - x * y) for x, y in zip(xs, xs[::-1])]
        if kind == "neighbours":
            z = sum(x * y for x, y in zip(xs, [*xs[1:], xs[0]]))
        else:
            z = sum(x * y for i, x in enumerate(xs[:4]) for y in xs[: i + 1])
        return [p.functions.tanh(z + x) for x in xs]

    return run


def normalisation(p: Structured) -> Any:
    rms, size = p.draw.random() < 0.5, p.draw.choice([p.width, 2])

    def run(xs: Numbers) -> Numbers:
        made = []
        for part in [xs[k : k + size] for k in range(0, len(xs), size)]:
            mean = 0.0 if rms else total(part) / len(part)
            off = [x - mean for x in part]
            scale = (sum(x * x for x in off) / len(off) + 0.1) ** -0.5
            made += [x * scale for x in off]
        return made

    return run


def pooling(p: Structured) -> Any:
    size, smooth = p.draw.choice([2, 3]), p.draw.random() < 0.3
    if p.width < size:
        return None
    p.width = p.width // size

    def run(xs: Numbers) -> Numbers:
        made = []
        for part in parted(xs, size):
            high = part[0]
            for x in part[1:]:
                high = p.functions.maximum(high, x)
            made.append(p.functions.logsumexp(part) if smooth else high)
        return made

    return run


def embedding(p: Structured) -> Any:
    """A row of a table for each number, which a comparison or two turn into an index."""
    d = p.draw.choice([1, 2, 3])
    table = p.weights(3, d)
    count = min(p.width, 4)
    p.width = count * d

    def run(xs: Numbers) -> Numbers:
        rows = [p.functions.take(table, (x > -0.4) + (x > 0.4)) for x in xs[:count]]
        return [y for row in rows for y in row]

    return run


def branches(p: Structured) -> Any:
    """Choices by differences, clipped, with logarithms that only one side may take."""
    w = p.weights(2)

    def run(xs: Numbers) -> Numbers:
        f, made = p.functions, []
        for x, y in zip(xs, [*xs[1:], xs[0]]):
            safe = f.where(x > 0.2, x, 1.0)
            z = f.where(x - y > 0.1, w[0] * x, f.minimum(y, w[1])) + f.where(
                x > 0.2, f.log(safe), x
            )
            made.append(f.clip(z, -1.1, 1.3))
        return made

    return run


def differences(p: Structured) -> Any:
    """Sums of differences, differences of sums, and telescoping ones."""
    kind = p.draw.choice(["sums", "telescope", "both", "large"])
    w = p.weights(p.width)

    def run(xs: Numbers) -> Numbers:
        if kind == "sums":
            z = total(xs) - total(xs[::-1]) + xs[0]
        elif kind == "telescope":
            z = sum((b - a for a, b in pairwise(xs)), xs[0])
        elif kind == "large":
            z = (dot(w, xs) + 64.0) - 64.0
        else:
            z = dot(w, xs) - total(xs) + w[0] - 1.5
        return [p.functions.tanh(z - x) for x in xs]

    return run


def scaling(p: Structured) -> Any:
    """By constants, one upon the other; by quotients, powers, roots and exponentials."""
    kind = p.draw.choice(["constants", "quotient", "root", "exponential"])

    def run(xs: Numbers) -> Numbers:
        f = p.functions
        if kind == "constants":
            return [
                f.sin(2.0 * (3.0 * (x * y)) - 0.5 * -x + 7 - 7 * x) for x, y in zip(xs, xs[::-1])
            ]
        if kind == "quotient":
            return [x / (1.5 + y * y) for x, y in zip(xs, xs[::-1])]
        if kind == "root":
            return [f.sqrt(abs(x) + 0.3) * f.cos(x) for x in xs]
        return [f.exp(-(x * x)) - f.exp(-1.0 - x * x) for x in xs]

    return run


def still(p: Structured) -> Any:
    """A part through which no gradient goes, and lines whose results are not used."""

    def run(xs: Numbers) -> Numbers:
        for x in xs[:2]:
            p.functions.exp(x) * 3
        return [x - p.functions.stop_gradient(x) * 0.5 for x in xs]

    return run


KINDS = [
    *[dense] * 4, *[attention] * 3, convolution, convolution, recurrence, smoothing, ragged,
    polynomial, products, normalisation, pooling, embedding, branches, differences, scaling, still,
]  # fmt: skip


# --- losses --------------------------------------------------------------------------------------


def squared(p: Structured, xs: Numbers) -> Any:
    return sum((x - 0.3) ** 2 for x in xs) / len(xs)


def hinge(p: Structured, xs: Numbers) -> Any:
    return sum(p.functions.relu(1 - x) for x in xs)


def entropy(p: Structured, xs: Numbers) -> Any:
    return p.functions.logsumexp(xs) - xs[0]


def plain_sum(p: Structured, xs: Numbers) -> Any:
    return total(xs)
