"""Typical code of users, with annotations: it runs, and type checkers find nothing in it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vgrad
from vgrad import Number, Value, nn, optim

# --- micrograd: numbers that are known to be `Value`s -------------------------------------------


class Neuron:
    def __init__(self, nin: int) -> None:
        self.w = [Value(random.uniform(-1, 1)) for _ in range(nin)]
        self.b = Value(0)

    def __call__(self, x: Sequence[float | Value]) -> Value:
        act = sum((wi * xi for wi, xi in zip(self.w, x)), self.b)
        return act.tanh()

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]


def micrograd() -> float:
    a, b = Value(-4.0, label="a"), Value(2.0, label="b")
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    print(f"{g.data:.4f}", a.grad, b.grad + 1, g.parents, g.op.name)

    neuron = Neuron(2)
    xs, ys = [[1.0, 2.0], [3.0, -1.0]], [1.0, -1.0]
    losses = [(neuron(x) - y) ** 2 for x, y in zip(xs, ys)]
    penalty = 1e-4 * sum(p * p for p in neuron.parameters())
    total = sum(losses, Value(0)) + penalty
    total.backward(check_finite=True)
    for p in neuron.parameters():
        p.data -= 0.05 * p.grad
        p.grad = 0.0
    total.learn(0.01)
    return total.data


def everything_an_operand_does(x: Value, y: Value) -> list[Value]:
    quotient, rest = divmod(x, 2)
    inside = (x > 0) & (x < 1) | ~(y == 0)
    mixed = np.float64(2) * x + np.int64(1) - 2**y + np.float32(0.5)
    largest = max(x, y, key=lambda v: v.data)
    print(int(x), round(x), round(y, 2), math.floor(x), {x: 1}[x], x in [x, y], sorted([x, y]))
    return [
        quotient // y,
        rest % y,
        abs(x),
        +x,
        -x,
        vgrad.where(inside, x.gelu(), 0.1 * x),
        x.hypot(y).maximum(0.0),
        x.leaky_relu(0.1),
        vgrad.sigmoid(mixed),
        vgrad.clip(largest, -1, 1),
    ]


# --- functions of any numbers: floats, `Value`s and traced ones -----------------------------------

slope, offset = Value(2.0), Value(0.5)


def squared(x: Number, y: Number) -> Number:
    return (slope * x + offset - y) ** 2


def squashed(x: Value, y: Value) -> Value:
    """Of `Value`s, as far as it says: for methods, and so that its results have `backward`."""
    return ((slope * x).tanh() - y) ** 2


def huber(x: Number, y: Number) -> Number:
    error = abs(slope * x - y)
    return vgrad.where(error < 1, 0.5 * error**2, error - 0.5)


def likelihood(x: Number, mean: Number, log_deviation: Number = 0.0) -> Number:
    z = (x - mean) / vgrad.exp(log_deviation)
    return 0.5 * z * z + log_deviation + 0.5 * math.log(2 * math.pi)


def mixture(x: Number) -> Number:
    weights = vgrad.softmax([slope, offset, 1.0])
    logs = [vgrad.log(w) - (x - k) ** 2 / 2 for k, w in enumerate(weights)]
    return -vgrad.logsumexp(logs)


def distance(x: Sequence[Number], y: Sequence[Number]) -> Number:
    return vgrad.sqrt(sum((a - b) ** 2 for a, b in zip(x, y)))


def root(a: Number) -> Number:
    x = a / 2
    while abs(x * x - a) > 1e-12 * a:
        x = (x + a / x) / 2
    return x


def piecewise(x: Number) -> Number:
    if x > 1 or x != x:
        return 1.0
    if x < 0:
        return 0
    return max(0.0, min(x, 0.5)) + x**2 * math.e


def bounced(speed: Number, seconds: Number) -> tuple[Number, int]:
    height: Number = 1.0
    bounces = 0
    while seconds > 0 and bounces < 3:
        landing = (speed + vgrad.sqrt(speed**2 + 2 * 9.81 * height)) / 9.81
        if seconds < landing:
            break
        height, speed = 0.0, 0.8 * (9.81 * landing - speed)
        seconds, bounces = seconds - landing, bounces + 1
    return height + speed * seconds - 9.81 / 2 * seconds**2, bounces


@vgrad.merge_branches
def leaky(x: Number) -> Number:
    return x if x > 0 else 0.1 * x


def of_arrays(x: NDArray[Any], y: Number) -> Number:
    table = np.array([[slope, 1.0], [0.0, offset]])
    solved: Number = vgrad.linalg.solve(table, x)[0]
    determinant: Number = vgrad.linalg.det([[slope, y], [0.0, 1.0]])
    total: Number = np.sum(np.maximum(x, 0.0))  # items of arrays may be anything
    return vgrad.tanh(solved) + determinant + total + leaky(y)


def own_op() -> float:
    @vgrad.op(vjp=lambda g, out, x: g * (1 - out * out))
    def typical_tanh(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.tanh(x)

    x = Value(0.5)
    (typical_tanh(x) * typical_tanh(0.25)).backward()
    return x.grad


def functions() -> None:
    for fn in (squared, huber, likelihood):
        print(fn(1.0, 2.0), fn(Value(1.0), 2), vgrad.gradcheck(fn, 1.0, 2.5))
    print(mixture(0.5), distance([1.0, 2.0], [slope, 0.0]), root(2.0), piecewise(0.3))
    print(vgrad.arctan2(y=1.0, x=slope), vgrad.elu(slope), vgrad.take([1.0, 2.0], 1), own_op())
    vgrad.draw((slope * offset).tanh())


# --- the vector engine ----------------------------------------------------------------------------


def training(program: vgrad.Program, X: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    theta = program.theta()
    value, grad = program.value_and_grad(theta, X, y=y)
    return value - float(grad @ grad)


def compiled() -> float:
    X, y = vgrad.datasets.make_moons(20, noise=0.1, seed=1)
    model = nn.MLP(2, [4, 1], activation=leaky, rng=random.Random(0))

    def margin(x: Sequence[Number], label: Number) -> tuple[Number, Number]:
        score: Number = model(x)  # nn's layers give numbers or lists
        penalty = 1e-4 * sum(p * p for p in model.parameters())
        return vgrad.relu(1 - label * score) + penalty, score

    program = vgrad.compile(margin, parameters=model.parameters(), reduce="sum", tile=16)
    theta, adam = program.theta(), optim.Adam(rate=0.01)
    for _ in range(2):
        _, grad = program.value_and_grad(theta, X, 2 * y - 1)
        theta -= 0.1 * grad
        adam.step(theta, grad)
    program.assign(theta)
    (value, outputs), _ = program.value_and_grad(theta, X, y, aux=True)
    print(program.per_sample_grads(theta, X, y).shape, program.input_grads(theta, X, y)[0].shape)
    print(outputs[0].shape, program.verify(theta, X, y).worst, program.explain(X, y))

    @vgrad.compile(parameters={"slope": slope, "others": [offset]}, reduce="sum")
    def fit(x: Number, y: Number) -> Number:
        return squared(x, y)

    print(fit.value_and_grad(fit.theta(), [1.0, 2.0], [2.0, 3.0])[1].round(2))
    print(training(vgrad.compile(squared, [slope, offset]), np.ones(3), np.zeros(3)))
    squashed(slope, offset).backward()
    print(vgrad.compile(squashed)([2.0], [1.0], [2.0]), slope.grad)
    graph = vgrad.trace(mixture, (), parameters=[slope, offset])
    print(vgrad.compile(graph.gradient(graph.inputs))([2.0, 0.5], [0.5]))
    print(vgrad.capture(squared(1.0, 2.0)), vgrad.compile(bounced, [])([], [1.0], [2.0]))
    print(vgrad.compile(of_arrays)([2.0, 0.5], [[1.0, 2.0]], [1.0]))
    return float(value)


def main() -> None:
    """Run it all."""
    print(micrograd(), everything_an_operand_does(Value(0.5), Value(0.25)))
    functions()
    print(compiled())
