"""Typical mistakes: type checkers find one in each line that says so, and none elsewhere."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

import vgrad
from vgrad import Number, Value, nn


def of_values(a: Value, b: Value) -> None:
    b.backwards()  # error
    (a * b + 1).backwards()  # error
    vgrad.exp(a).backwards()  # error
    vgrad.where(a > 0, a, b).backwards()  # error
    a.gelou()  # error
    a.grda += 1  # error
    a.data = "1"  # error
    a.label = 1  # error
    print(a + "1")  # error
    print("1" * a)  # error
    print([1.0, 2.0] * a)  # error
    print(a + None)  # error
    print(math.exp(a))  # error
    print(float(a))  # error
    print(Value("1"))  # error
    print(a.tanh(b))  # error
    print(a.hypot())  # error
    a.backward(True, True)  # error
    sum(x * x for x in [a, b]).backward()  # error


def of_functions(a: Value, x: Number) -> Number:
    print(vgrad.tanhh(x))  # error
    print(vgrad.tanh("1"))  # error
    print(vgrad.tanh(x, x))  # error
    print(vgrad.maximum(x, "1"))  # error
    print(vgrad.maximum(x))  # error
    print(vgrad.leaky_relu(x, sloop=0.1))  # error
    print(vgrad.where(x > 0, x))  # error
    print(vgrad.softmax(x))  # error
    print(vgrad.linalg.solve("a", [1.0]))  # error
    print(vgrad.linalg.solve_triangular([[1.0]], [1.0], trans="X"))  # error
    print(x.tanh())  # error
    x.backward()  # error
    return "1"  # error


def of_results(x: Number) -> float:
    return vgrad.exp(x)  # error


def of_programs(loss: Number) -> None:
    vgrad.compile(loss)  # error
    vgrad.compile(of_results, reduce="max")  # error
    vgrad.compile(of_results, tiles=16)  # error
    vgrad.compile(of_results, fuse="no")  # error
    vgrad.compile(of_results, parameters=[1.0])  # error
    program = vgrad.compile(of_results)
    program.backward()  # error
    program.value_and_gradient([1.0], [1.0])  # error
    program.per_sample_grads([1.0], [1.0]).backward()  # error
    vgrad.trace(of_results, 3)  # error
    nn.MLP(2, 16)  # error
    program.verify([1.0], [1.0], samples="3")  # error
    program.value_and_grad([1.0], [1.0])[0].backward()  # error
    for p in nn.MLP(2, [1]).parameters():
        p.grad = p  # error


def of_ops() -> None:
    @vgrad.op(vjp="g")  # error
    def sine(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sin(x)

    @vgrad.op(vjp=lambda g, out, x: g * vgrad.cos(x))
    def other_sine(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sin(x)

    print(other_sine(1.0, 2.0), sine)  # error
